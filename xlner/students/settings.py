"""`student.json`: what kind of compact student a folder holds, its sizes and its tags; read without torch."""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from xlner.errors import ModelError
from xlner.labels import LabelSet

STUDENT_FILE = "student.json"
FORMAT = 1
PRECISIONS = ("fp32", "fp16", "int8")
# Numbers beyond these are no student's, and would take the memory of whoever opens the folder.
LARGEST = 1 << 26


@dataclass(frozen=True)
class Sizes:
    """All numbers that shape a student; what a kind does not use has no effect on it."""

    n_words: int = 0
    n_characters: int = 0
    word_size: int = 100
    n_chars: int = 20
    char_size: int = 25
    char_filters: int = 50
    hidden_size: int = 256
    layers: int = 1
    buckets: int = 0


@dataclass(frozen=True)
class StudentSettings:
    """What a compact student is; `max_words` is the longest window, `precision` how its weights are stored."""

    kind: str
    decoder: str
    tags: tuple[str, ...]
    sizes: Sizes
    max_words: int = 256
    precision: str = "fp32"
    format: int = FORMAT

    @property
    def labels(self) -> LabelSet:
        """The tags, each entity beginning with `B-X`."""
        return LabelSet(self.tags)

    def stored_as(self, precision: str) -> "StudentSettings":
        """The same student with weights in another number format."""
        return replace(self, precision=precision)

    def save(self, folder: Path) -> None:
        """Write `student.json` into a folder."""
        (folder / STUDENT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def is_compact(folder: Path) -> bool:
    """Whether a folder holds a compact student."""
    return (folder / STUDENT_FILE).is_file()


def read_student(folder: Path) -> StudentSettings:
    """The settings in a folder.

    Raises:
        ModelError: If they are damaged, of another format, or say what cannot be.
    """
    path = folder / STUDENT_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ModelError(f"{path}: found format {content['format']}, expected {FORMAT}; distil the student again")
        sizes = Sizes(**content.pop("sizes"))
        found = StudentSettings(**{**content, "tags": tuple(content["tags"])}, sizes=sizes)
        numbers = [vars(sizes)[spec.name] for spec in fields(Sizes)] + [found.max_words]
        if not all(isinstance(number, int) and 0 <= number <= LARGEST for number in numbers) or found.max_words < 4:
            raise ValueError(f"sizes {numbers}")
        if found.precision not in PRECISIONS or found.decoder not in ("softmax", "crf"):
            raise ValueError(f"precision {found.precision!r}, decoder {found.decoder!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"{path}: expected the settings of a compact student, found: {problem!r}") from problem
    _ = found.labels  # refuses tags that could not be decoded
    return found
