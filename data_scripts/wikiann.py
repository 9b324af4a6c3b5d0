"""WikiAnn (PAN-X) in the splits of Rahimi et al.: `python data_scripts/wikiann.py --out data --languages de,es,nl`.

The download is one archive of 234 MB with all 176 languages. With `--source FOLDER`, a local copy is taken, for each
language the first of these that is there:

    LANG/{train,validation,test}-*.parquet   as the hub has them (unimelb-nlp/wikiann)
    LANG/{train,dev,test}                    unpacked
    LANG.tar.gz                              as published
    panx_dataset.zip                         the archive with all of them
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath

from archives import file_bytes, tar_members, zip_member, zip_names
from corpus_report import write_corpus
from download import Pin, RemoteFile
from loose_columns import Row, read_loose, text_lines
from sources import CorpusInfo, Splits, add_languages, chosen, corpus_arguments, downloaded, run
from stored_tables import read_parquet

from xlner.errors import CorpusError

INFO = CorpusInfo(
    name="WikiAnn",
    folder="wikiann",
    source="https://github.com/afshinrahimi/mmner",
    paper='Pan et al. 2017, "Cross-lingual Name Tagging and Linking for 282 Languages", ACL 2017; splits: Rahimi '
    'et al. 2019, "Massively Multilingual Transfer for NER", ACL 2019.',
    licence="none was stated with the labels; the text is Wikipedia's, CC BY-SA.",
    labels="silver",
    note="The labels are silver: made by machine, from links.",
)
SPLITS = ("train", "dev", "test")
LABELS = {split: f"Rahimi {split}" for split in SPLITS}
ARCHIVE = RemoteFile(
    f"{INFO.folder}/panx_dataset.zip",
    "https://s3.amazonaws.com/datasets.huggingface.co/wikiann/1.1.0/panx_dataset.zip",
    # Source: the checksum that Hugging Face `datasets` published with its loader (dataset_infos.json).
    Pin(234008884, "164814b64f749ad000988b5ab45050b5116913b3db466ab173008955ddf649a4"),
)


def main() -> None:
    """Read the arguments, and write and report one language after the other."""
    parser = corpus_arguments(INFO, "WikiAnn (PAN-X), the balanced splits of Rahimi et al.")
    add_languages(parser)
    arguments = parser.parse_args()
    source = downloaded(INFO, arguments, [ARCHIVE])
    found = languages_in(source)
    for language in chosen(
        arguments.languages, found, source, "panx_dataset.zip, LANG.tar.gz or LANG/{train,dev,test}"
    ):
        write_corpus(INFO, arguments, language, read_splits(source, language), LABELS)
    print(INFO.citation())


def languages_in(source: Path) -> list[str]:
    """All languages that a folder holds in one of the forms."""
    found = {path.parent.name for pattern in ("*/test", "*/test-*.parquet") for path in source.glob(pattern)}
    found |= {path.name.removesuffix(".tar.gz") for path in source.glob("*.tar.gz")}
    archive = source / "panx_dataset.zip"
    names = zip_names(archive) if archive.is_file() else []
    return sorted(found | {PurePosixPath(name).name.removesuffix(".tar.gz") for name in names if name.endswith(".gz")})


def read_splits(source: Path, language: str) -> Splits:
    """The splits of a language, from the first form that is there.

    Raises:
        CorpusError: If one is missing or cannot be read.
    """
    folder = source / language
    tables = {split: sorted(folder.glob(f"{stored}-*.parquet")) for split, stored in STORED_NAMES.items()}
    if all(tables.values()):
        return {split: [s for path in paths for s in read_parquet(path)] for split, paths in tables.items()}
    if (folder / "test").is_file():
        contents = {split: file_bytes(folder / split) for split in SPLITS if (folder / split).is_file()}
        place = str(folder)
    else:
        place, packed = _packed(source, language)
        contents = tar_members(BytesIO(packed), place, SPLITS)
    if missing := [split for split in SPLITS if split not in contents]:
        raise CorpusError(f"{place}: no {', '.join(missing)} in it; expected train, dev and test")
    return {split: list(read_loose(text_lines(contents[split]), _row, f"{place}/{split}")) for split in SPLITS}


def _packed(source: Path, language: str) -> tuple[str, bytes]:
    single = source / f"{language}.tar.gz"
    if single.is_file():
        return str(single), single.read_bytes()
    archive = source / "panx_dataset.zip"
    if not archive.is_file():
        raise CorpusError(
            f"{source}: {language} is not whole; expected {language}/ with train, dev and test, or "
            f"train-*, validation-* and test-*.parquet, or {language}.tar.gz, or {archive.name}"
        )
    wanted: Iterator[str] = (name for name in zip_names(archive) if PurePosixPath(name).name == f"{language}.tar.gz")
    name = next(wanted, None)
    if name is None:
        raise CorpusError(f"{archive}: no {language}.tar.gz in it")
    return f"{archive}:{name}", zip_member(archive, name)


def _row(line: str) -> Row:
    """Word and tag of `de:Kiel<TAB>B-LOC`; a word without a tag is outside, as the loader on the hub has it."""
    word, *others = line.split("\t")
    return word.partition(":")[2], others[-1].strip() if others else "O"


STORED_NAMES = {"train": "train", "dev": "validation", "test": "test"}


if __name__ == "__main__":
    raise SystemExit(run(main))
