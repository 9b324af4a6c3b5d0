"""Universal NER as xlner reads it: `python data_scripts/uner.py --out data --languages en_ewt,de_pud`.

With `--source FOLDER`, a local copy is taken: `*/NAME-ud-{train,dev,test}.iob2`, as the releases at
https://www.universalner.org have them. A corpus keeps the splits that it has: some are for testing only.

Some files also mark other entities, as `OTH`. They are no part of the benchmark, and are dropped, as its own
loader does.
"""

from pathlib import Path

from corpus_report import write_corpus
from download import RemoteFile
from sources import CorpusInfo, Splits, add_languages, chosen, corpus_arguments, downloaded, renamed, run

from xlner.corpora.source import read_corpus
from xlner.tags import LabelMap

INFO = CorpusInfo(
    name="Universal NER",
    folder="uner",
    source="https://www.universalner.org",
    paper='Mayhew et al. 2024, "Universal NER: A Gold-Standard Multilingual Named Entity Recognition Benchmark", '
    "NAACL 2024.",
    licence="CC BY-SA 4.0, unless LICENSE.txt beside a corpus says otherwise.",
    labels="gold",
    note="Labels: PER, LOC and ORG.",
)
SPLITS = ("train", "dev", "test")
OTHER_TYPES = LabelMap({"OTH": "", "O": ""})  # dropped; a few words are tagged `B-O` by mistake


def main() -> None:
    """Read the arguments, and write and report one corpus after the other."""
    parser = corpus_arguments(INFO, "Universal NER as train, dev and test of each corpus")
    add_languages(parser, "en_ewt,...")
    arguments = parser.parse_args()
    if arguments.source is None:
        names = chosen(arguments.languages, sorted(REPOSITORIES), INFO.source, "")
    else:
        found = sorted({path.name.partition("-ud-")[0] for path in arguments.source.glob("*/*-ud-*.iob2")})
        names = chosen(arguments.languages, found, arguments.source, "*/NAME-ud-{train,dev,test}.iob2")
    source = downloaded(INFO, arguments, [file for name in names for file in remote_files(name)])
    for name in names:
        write_corpus(INFO, arguments, name, read_splits(source, name))
    print(INFO.citation())


def remote_files(name: str) -> list[RemoteFile]:
    """The files of a corpus."""
    repository, branch, splits = REPOSITORIES[name]
    files = [f"{name}-ud-{split}.iob2" for split in splits.split()]
    address = f"https://raw.githubusercontent.com/UniversalNER/UNER_{repository}/{branch}"
    return [RemoteFile(f"{INFO.folder}/{name}/{file}", f"{address}/{file}") for file in files]


def read_splits(source: Path, name: str) -> Splits:
    """The splits of a corpus that there are."""
    files = {split: sorted(source.glob(f"*/{name}-ud-{split}.iob2")) for split in SPLITS}
    return {split: renamed(read_corpus(paths[0]), OTHER_TYPES) for split, paths in files.items() if paths}


# Repository, branch and splits.
REPOSITORIES = {
    "ceb_gja": ("Cebuano-GJA", "master", "test"),
    "da_ddt": ("Danish-DDT", "main", "train dev test"),
    "de_pud": ("German-PUD", "master", "test"),
    "en_ewt": ("English-EWT", "master", "train dev test"),
    "en_pud": ("English-PUD", "master", "test"),
    "hr_set": ("Croatian-SET", "main", "train dev test"),
    "pt_bosque": ("Portuguese-Bosque", "master", "train dev test"),
    "pt_pud": ("Portuguese-PUD", "master", "test"),
    "ru_pud": ("Russian-PUD", "master", "test"),
    "sk_snk": ("Slovak-SNK", "master", "train dev test"),
    "sr_set": ("Serbian-SET", "main", "train dev test"),
    "sv_pud": ("Swedish-PUD", "master", "test"),
    "sv_talbanken": ("Swedish-Talbanken", "master", "train dev test"),
    "tl_trg": ("Tagalog-TRG", "master", "test"),
    "tl_ugnayan": ("Tagalog-Ugnayan", "master", "test"),
    "zh_gsd": ("Chinese-GSD", "master", "train dev test"),
    "zh_gsdsimp": ("Chinese-GSDSIMP", "master", "train dev test"),
    "zh_pud": ("Chinese-PUD", "master", "test"),
}


if __name__ == "__main__":
    raise SystemExit(run(main))
