"""The files of the CoNLL-2002 and CoNLL-2003 shared tasks: found in a folder, and read in either encoding.

They are UTF-8 in some editions and latin-1 in the original ones, packed or not. Their tags are IOB2 (2002) or
IOB1 (2003) in the last column; both come out as IOB2.
"""

from pathlib import Path

from archives import file_bytes
from loose_columns import last_column, read_loose, text_lines
from sources import Splits

from xlner.errors import CorpusError

SPLITS = {"train": "train", "dev": "testa", "test": "testb"}


def languages_in(source: Path, prefixes: dict[str, str]) -> list[str]:
    """The languages whose `PREFIX.testb` lies in a folder."""
    return [language for language, prefix in prefixes.items() if _find(source, f"{prefix}.testb") is not None]


def read_splits(source: Path, prefix: str) -> Splits:
    """Train, dev (testa) and test (testb), such as those of `eng`.

    Raises:
        CorpusError: If one is missing, or cannot be read.
    """
    splits = {}
    for split, suffix in SPLITS.items():
        path = _find(source, f"{prefix}.{suffix}")
        if path is None:
            raise CorpusError(f"{source}: no {prefix}.{suffix} there, nor {prefix}.{suffix}.gz")
        splits[split] = list(read_loose(text_lines(file_bytes(path)), last_column, str(path)))
    return splits


def _find(source: Path, name: str) -> Path | None:
    return next((path for path in (source / name, source / f"{name}.gz") if path.is_file()), None)
