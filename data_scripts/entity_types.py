"""Entity types of a corpus renamed, merged or dropped while its sentences pass by."""

from collections.abc import Iterable, Iterator, Mapping

from xlner.tags import to_iob2
from xlner.words import Sentence

DROPPED = "O"  # in the place of a type: its words belong to no entity


def map_types(sentences: Iterable[Sentence], types: Mapping[str, str]) -> Iterator[Sentence]:
    """The same words with other tags; types that the mapping does not name stay."""
    for words, tags in sentences:
        yield Sentence(words, None if tags is None else to_iob2(tuple(_mapped(tag, types) for tag in tags)))


def _mapped(tag: str, types: Mapping[str, str]) -> str:
    prefix, _, name = tag.partition("-")
    wanted = types.get(name, name)
    return tag if not name else DROPPED if wanted == DROPPED else f"{prefix}-{wanted}"
