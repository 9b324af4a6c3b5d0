"""What a tagging depends on: which model, which inputs. Work is taken up again only where they are the same."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xlner.errors import CorpusError, RunError
from xlner.models.encoder import read_labels
from xlner.models.folder import find_file
from xlner.students.settings import is_compact, read_student

# Weights and tokenizers in all the forms that models come in; cards and the like do not matter.
_MODEL_SUFFIXES = {".json", ".safetensors", ".onnx", ".data", ".txt", ".model"}


def model_fingerprint(name: str) -> str:
    """A short hash of the files of a model folder, the same for a copy elsewhere; of a hub name its revision.

    Raises:
        ModelError: If there is no such model, or it is no tagger.
    """
    if is_compact(Path(name)):
        read_student(Path(name))
    else:
        read_labels(name)
    if not Path(name).is_dir():
        config = find_file(name, "config.json")
        return f"{name}@{config.parent.name if config else ''}"  # a snapshot's folder is named after its revision
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(name).iterdir() if path.suffix in _MODEL_SUFFIXES and path.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:12]


def file_marks(names: Iterable[str]) -> list[dict[str, Any]]:
    """Name, size and time of change of each file.

    Raises:
        CorpusError: If one is not there.
    """
    marks = []
    for name in names:
        try:
            status = Path(name).stat()
        except OSError as problem:
            raise CorpusError(f"{name}: cannot be read: {problem.strerror}") from problem
        marks.append({"name": name, "size": status.st_size, "mtime_ns": status.st_mtime_ns})
    return marks


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], where: Path, way_out: str) -> None:
    """Refuse to go on with what was begun otherwise.

    Args:
        before: What the earlier start was about.
        now: The same of this one.
        where: The earlier work.
        way_out: What to do about it.

    Raises:
        RunError: With the name of the first thing that differs.
    """
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name):
            difference = _difference(before.get(name), now.get(name))
            raise RunError(f"{where} was begun with another {name} ({difference}); {way_out}")


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list):
        names = [[mark["name"] for mark in marks] for marks in (before, now)]
        if names[0] == names[1]:
            changed = next(new["name"] for old, new in zip(before, now, strict=True) if old != new)
            return f"{changed} has changed since"
        before, now = (", ".join(some[:3]) + (" ..." if len(some) > 3 else "") for some in names)
    return f"then {before}, now {now}"
