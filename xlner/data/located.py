"""A sentence with its place, for those who must tell where something stands."""

from collections.abc import Callable
from typing import NamedTuple

from xlner.text import Sentence


class Located(NamedTuple):
    """A sentence, and what gives the place (file and line, or the like) of its n-th word."""

    sentence: Sentence
    place: Callable[[int], str]
