"""MultiNERD as xlner reads it: `python data_scripts/multinerd.py --out data --languages de,en`.

With `--source FOLDER`, a local copy is taken: `{train,val,test}/SPLIT_LANG.jsonl` as on the hub
(Babelscape/multinerd), or `LANG/{train,dev,test}_LANG.tsv` as the authors share them. `--types conll` merges the 15
types into the four of CoNLL.
"""

import argparse
from pathlib import Path

from archives import file_bytes
from corpus_report import write_corpus
from download import RemoteFile
from loose_columns import Row, read_loose, text_lines
from sources import CorpusInfo, Splits, add_languages, chosen, corpus_arguments, downloaded, renamed, run
from stored_tables import read_json_lines

from xlner.errors import CorpusError
from xlner.tags import LabelMap

INFO = CorpusInfo(
    name="MultiNERD",
    folder="multinerd",
    source="https://github.com/Babelscape/multinerd",
    paper='Tedeschi and Navigli 2022, "MultiNERD: A Multilingual, Multi-Genre and Fine-Grained Dataset for Named '
    'Entity Recognition (and Disambiguation)", Findings of NAACL 2022.',
    licence="CC BY-NC-SA 4.0, not for commercial use.",
    labels="silver",
    note="The labels are silver: made by machine. The authors call those of ANIM, BIO, FOOD, INST, MYTH, PLANT, TIME "
    "and VEHI very noisy.",
)
LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pl", "pt", "ru", "zh")
STORED_NAMES = {"train": "train", "dev": "val", "test": "test"}


def main() -> None:
    """Read the arguments, and write and report one language after the other."""
    parser = corpus_arguments(INFO, "MultiNERD as train, dev and test of each language")
    add_languages(parser)
    parser.add_argument("--types", choices=("all", "conll"), default="all", help="conll: PER, LOC, ORG, others to MISC")
    arguments = parser.parse_args()
    layout = "test/test_LANG.jsonl or LANG/test_LANG.tsv"
    found = sorted(LANGUAGES) if arguments.source is None else languages_in(arguments.source)
    languages = chosen(arguments.languages, found, arguments.source or INFO.source, layout)
    source = downloaded(INFO, arguments, [file for language in languages for file in remote_files(language)])
    if arguments.types == "conll":
        print("types: PER, LOC and ORG stay; to MISC: " + ", ".join(TO_CONLL))
    for language in languages:
        write_language(arguments, source, language)
    print(INFO.citation())


def write_language(arguments: argparse.Namespace, source: Path, language: str) -> None:
    """Write one language; with merged types, its splits are called so."""
    splits = read_splits(source, language)
    labels = dict(zip(splits, splits, strict=True))
    if arguments.types == "conll":
        splits = {split: renamed(sentences, LabelMap(TO_CONLL)) for split, sentences in splits.items()}
        labels = {split: f"{split}, types of CoNLL" for split in splits}
    write_corpus(INFO, arguments, language, splits, labels)


def languages_in(source: Path) -> list[str]:
    """The languages whose test set lies in a folder."""
    paths = [*source.glob("test/test_*.jsonl"), *source.glob("*/test_*.tsv")]
    return sorted({path.stem.removeprefix("test_") for path in paths})


def remote_files(language: str) -> list[RemoteFile]:
    """The three files of a language on the hub."""
    names = [f"{stored}/{stored}_{language}.jsonl" for stored in STORED_NAMES.values()]
    return [RemoteFile(f"{INFO.folder}/{name}", f"{ADDRESS}/{name}") for name in names]


def read_splits(source: Path, language: str) -> Splits:
    """Train, dev and test of a language.

    Raises:
        CorpusError: If one is missing or cannot be read.
    """
    splits = {}
    for split, stored in STORED_NAMES.items():
        table = source / stored / f"{stored}_{language}.jsonl"
        columns = source / language / f"{split}_{language}.tsv"
        if table.is_file():
            splits[split] = list(read_json_lines(text_lines(file_bytes(table)), TAGS, str(table)))
        elif columns.is_file():
            splits[split] = list(read_loose(text_lines(file_bytes(columns)), _row, str(columns)))
        else:
            raise CorpusError(f"{source}: no {split} of {language} there; expected {table} or {columns}")
    return splits


def _row(line: str) -> Row:
    """Word and tag of `3<TAB>Kiel<TAB>B-LOC...`; further columns tell which entity is meant."""
    columns = line.split("\t")
    return (columns[1], columns[2].strip()) if len(columns) > 2 else ("", "O")


ADDRESS = "https://huggingface.co/datasets/Babelscape/multinerd/resolve/main"
# The order on the card of the data set: the numbers of the tags are counted through it.
TYPES = (
    "PER",
    "ORG",
    "LOC",
    "ANIM",
    "BIO",
    "CEL",
    "DIS",
    "EVE",
    "FOOD",
    "INST",
    "MEDIA",
    "MYTH",
    "PLANT",
    "TIME",
    "VEHI",
)
TAGS = ("O", *(f"{prefix}-{name}" for name in TYPES for prefix in "BI"))
TO_CONLL = dict.fromkeys(TYPES[3:], "MISC")


if __name__ == "__main__":
    raise SystemExit(run(main))
