"""Universal NER as xlner reads it: `python data_scripts/uner.py --source FOLDER --out DIR`.

FOLDER holds `*/NAME-ud-{train,dev,test}.iob2`, as the releases at https://www.universalner.org do. A corpus
keeps the splits that it has: some are for testing only.
"""

from pathlib import Path

from corpus_report import Splits, chosen, folder_arguments, print_report, run, write_splits

from xlner.data.corpus import read_corpus

SOURCE = """
Mayhew et al. 2024, "Universal NER: A Gold-Standard Multilingual Named Entity Recognition Benchmark",
NAACL 2024. Licence: CC BY-SA 4.0, unless LICENSE.txt beside a corpus says otherwise.
Labels: PER, LOC and ORG."""
SPLITS = ("train", "dev", "test")


def main() -> None:
    """Read the arguments, and write and report one corpus after the other."""
    parser = folder_arguments("Universal NER as train, dev and test of each corpus")
    parser.add_argument("--corpora", default="", metavar="en_ewt,...", help="default: all that are there")
    arguments = parser.parse_args()
    found = sorted({path.name.partition("-ud-")[0] for path in arguments.source.glob("*/*-ud-*.iob2")})
    for name in chosen(arguments.corpora, found, arguments.source, "*/NAME-ud-{train,dev,test}.iob2"):
        splits = read_splits(arguments.source, name)
        write_splits(arguments.out / name, splits)
        print_report(name, splits)
    print(SOURCE)


def read_splits(source: Path, name: str) -> Splits:
    """The splits of a corpus that there are."""
    files = {split: sorted(source.glob(f"*/{name}-ud-{split}.iob2")) for split in SPLITS}
    return {split: list(read_corpus(paths[0])) for split, paths in files.items() if paths}


if __name__ == "__main__":
    raise SystemExit(run(main))
