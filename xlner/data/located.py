"""A sentence with its place, for those who must tell where something stands."""

from collections.abc import Callable
from typing import NamedTuple

from xlner.text import Sentence


class Located(NamedTuple):
    """A sentence, and what gives the place (file and line, or the like) of its n-th word."""

    sentence: Sentence
    place: Callable[[int], str]


def everywhere(place: str) -> Callable[[int], str]:
    """One place for all words: that of a line which holds the whole sentence."""
    return lambda _: place


def by_word(place: str) -> Callable[[int], str]:
    """A place with the number of the word, from 1: `x.jsonl:3, word 2`."""
    return lambda position: f"{place}, word {position + 1}"
