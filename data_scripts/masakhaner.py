"""MasakhaNER 1 and 2 as xlner reads them: `python data_scripts/masakhaner.py --out data --languages swa,yor`.

With `--source FOLDER`, a local copy is taken: `LANG/{train,dev,test}.txt`, which the repository has in `data`
(edition 1) and in `MasakhaNER2.0/data` (edition 2); the folder of the whole repository will do. The two editions share
languages, but not their sentences: they go to `masakhaner1` and `masakhaner2`.
"""

from pathlib import Path

from archives import file_bytes
from corpus_report import write_corpus
from download import RemoteFile
from loose_columns import last_column, read_loose, text_lines
from sources import CorpusInfo, Splits, add_languages, chosen, corpus_arguments, downloaded, renamed, run

from xlner.errors import CorpusError
from xlner.tags import LabelMap

SOURCE = "https://github.com/masakhane-io/masakhane-ner"
LICENCE = "CC BY-NC 4.0, not for commercial use."
NOTE = "Labels: PER, LOC, ORG and DATE."
EDITIONS = {
    "1": CorpusInfo(
        "MasakhaNER 1",
        "masakhaner1",
        SOURCE,
        'Adelani et al. 2021, "MasakhaNER: Named Entity Recognition for African Languages", TACL 9.',
        LICENCE,
        "gold",
        NOTE,
    ),
    "2": CorpusInfo(
        "MasakhaNER 2",
        "masakhaner2",
        SOURCE,
        'Adelani et al. 2022, "MasakhaNER 2.0: Africa-centric Transfer Learning for Named Entity Recognition", '
        "EMNLP 2022.",
        LICENCE,
        "gold",
        NOTE,
    ),
}
PLACES = {"1": "data", "2": "MasakhaNER2.0/data"}  # in the repository
SPLITS = ("train", "dev", "test")


def main() -> None:
    """Read the arguments, and write and report one language after the other."""
    parser = corpus_arguments(EDITIONS["2"], "MasakhaNER as train, dev and test of each language")
    add_languages(parser, "swa,yor,...")
    parser.add_argument("--edition", choices=sorted(EDITIONS), default="2", help="MasakhaNER 1 (2021) or 2 (2022)")
    parser.add_argument("--drop-dates", action="store_true", help="without the type DATE, which other corpora lack")
    arguments = parser.parse_args()
    info, place = EDITIONS[arguments.edition], PLACES[arguments.edition]
    if arguments.source is None:
        languages = chosen(arguments.languages, LANGUAGES[arguments.edition].split(), SOURCE, "")
    else:
        if (arguments.source / place).is_dir():
            arguments.source = arguments.source / place
        found = sorted(path.parent.name for path in arguments.source.glob("*/test.txt"))
        languages = chosen(arguments.languages, found, arguments.source, "LANG/{train,dev,test}.txt")
    wanted = [
        RemoteFile(
            f"{info.folder}/{language}/{split}.txt",
            f"https://raw.githubusercontent.com/masakhane-io/masakhane-ner/main/{place}/{language}/{split}.txt",
        )
        for language in languages
        for split in SPLITS
    ]
    source = downloaded(info, arguments, wanted)
    labels = {split: f"{split}, without DATE" if arguments.drop_dates else split for split in SPLITS}
    for language in languages:
        write_corpus(info, arguments, language, read_splits(source, language, arguments.drop_dates), labels)
    print(info.citation())


def read_splits(source: Path, language: str, drop_dates: bool) -> Splits:
    """Train, dev and test of a language.

    Raises:
        CorpusError: If one is missing or cannot be read.
    """
    splits = {}
    for split in SPLITS:
        path = source / language / f"{split}.txt"
        if not path.is_file():
            raise CorpusError(f"no corpus at {path}; expected LANG/{{train,dev,test}}.txt")
        sentences = read_loose(text_lines(file_bytes(path)), last_column, str(path))
        splits[split] = renamed(sentences, LabelMap({"DATE": ""} if drop_dates else {}))
    return splits


LANGUAGES = {
    "1": "amh hau ibo kin lug luo pcm swa wol yor",
    "2": "bam bbj ewe fon hau ibo kin lug luo mos nya pcm sna swa tsn twi wol xho yor zul",
}


if __name__ == "__main__":
    raise SystemExit(run(main))
