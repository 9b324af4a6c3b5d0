"""Strings that an annotator found in a text without saying where, as language models give them, and their places.

A string stands wherever the text has it as whole words, in the same letters: compatible forms of a character (NFKC),
curved and straight quotation marks, kinds of hyphens and all white space count as the same. Where scripts set no
spaces between words any place will do, and Korean particles may follow.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import regex

from xlner.words import UNSPACED

_CLUSTER = regex.compile(r"\X")
_INVISIBLE = regex.compile(r"[\s\p{Cc}\p{Cf}]+")
_SAME = str.maketrans("‘’‚‛“”„‟‐‑–—−", "''''\"\"\"\"-----")
_LETTER = regex.compile(rf"(?V1)[[\p{{L}}\p{{M}}\p{{N}}]--{UNSPACED}]")
_HANGUL = regex.compile(r"\p{Hangul}")


class _Comparable(NamedTuple):
    """A text, its visible characters in their common form, and for each of these where its cluster lies in the text."""

    text: str
    chars: str
    places: list[tuple[int, int]]


def locate(text: str, mentions: Sequence[str]) -> list[list[tuple[int, int]] | None]:
    """Where each string stands in a text, in characters: at all of its places, but for those that a longer one has.

    No two places overlap. Of equal strings the first has the places.

    Returns:
        For each string its places, which may be none if others have them all; None if the text does not hold it.
    """
    whole = _comparable(text)
    taken = [False] * len(whole.chars)
    wanted = [_comparable(mention).chars for mention in mentions]
    found: list[list[tuple[int, int]] | None] = [None] * len(mentions)
    for number in sorted(range(len(mentions)), key=lambda number: -len(wanted[number])):
        for start in _starts(whole, wanted[number]):
            end = start + len(wanted[number])
            places = found[number] = found[number] or []
            if not any(taken[start:end]):
                taken[start:end] = [True] * (end - start)
                places.append((whole.places[start][0], whole.places[end - 1][1]))
    return found


def _comparable(text: str) -> _Comparable:
    chars, places = [], []
    for cluster in _CLUSTER.finditer(text):
        plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", cluster[0]).translate(_SAME))
        chars.append(plain)
        places += [cluster.span()] * len(plain)
    return _Comparable(text, "".join(chars), places)


def _starts(text: _Comparable, wanted: str) -> list[int]:
    """Where a string begins, as whole words, one place behind the other."""
    starts, place = [], text.chars.find(wanted) if wanted else -1
    while place >= 0:
        end = place + len(wanted)
        is_whole = _may_part(text, place) and (
            _may_part(text, end) or _HANGUL.match(text.chars, end) is not None  # a particle
        )
        if is_whole:
            starts.append(place)
        place = text.chars.find(wanted, end if is_whole else place + 1)
    return starts


def _may_part(text: _Comparable, place: int) -> bool:
    """Whether a word may end before a character: at the ends, at white space, and beside what is no letter."""
    if not 0 < place < len(text.chars):
        return True
    between = text.text[text.places[place - 1][1] : text.places[place][0]]
    are_letters = _LETTER.match(text.chars, place - 1) and _LETTER.match(text.chars, place)
    return not are_letters or any(map(str.isspace, between))
