"""The two records that people meet: a sentence of a corpus, and an entity found in a text."""

from typing import NamedTuple


class Sentence(NamedTuple):
    """Words as the corpus holds them, and their IOB2 tags; `tags` is None where the corpus has no labels."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None


class Entity(NamedTuple):
    """A typed span of a text: `text == source[start:end]`, offsets in Python characters, score in [0, 1]."""

    text: str
    label: str
    start: int
    end: int
    score: float

    def to_dict(self) -> dict[str, str | int | float]:
        """The fields by name, as JSON wants them: `json.dumps(entity)` itself gives a list, since it is a tuple."""
        return self._asdict()
