"""Strings that an annotator found in a text without saying where, as language models give them, and their places.

A string stands wherever the text has it as whole words, in the same letters: compatible forms of a character (NFKC),
curved and straight quotation marks, kinds of hyphens and all white space count as the same. Where scripts set no
spaces between words any place will do, and Korean particles may follow.

Time grows linearly with the text, for each string.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import regex

from xlner.words import UNSPACED

_CLUSTER = regex.compile(r"\p{Regional_Indicator}{1,2}|\X")  # a flag; \X takes quadratic time there
_INVISIBLE = regex.compile(r"[\s\p{Cc}\p{Cf}]+")
_SAME = str.maketrans("‘’‚‛“”„‟‐‑–—−", "''''\"\"\"\"-----")
_LETTER = regex.compile(rf"(?V1)[[\p{{L}}\p{{M}}\p{{N}}]--{UNSPACED}]")
# What follows a Korean name without a space: particles, forms of "to be", and the polite 씨 and 님; (?p) takes the
# longest one.
_PARTICLE = regex.compile(
    r"(?p)(씨|님)?"
    r"(은|는|이|가|을|를|과|와|나|이나|랑|이랑|하고|뿐|마다|마저|조차|밖에|처럼|같이|보다|대로|라도|이라도"
    r"|(에|에서|에게|에게서|께서|한테|로|으로|로서|으로서|로써|으로써|로부터|으로부터|부터|까지|과|와|만|라고|이라고)(는|도|의)?"
    r"|의|도|만이|만은|만을|라는|이라는|라며|이라며|이다|이었다|였다|지만|이지만|입니다|이에요|예요)?"
)


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
            # A longer string that shares a character with this one has its first or its last.
            if not (taken[start] or taken[end - 1]):
                taken[start:end] = [True] * (end - start)
                places.append((whole.places[start][0], whole.places[end - 1][1]))
    return found


def same_letters(one: str, other: str) -> bool:
    """Whether two strings are one, in the way in which strings are looked for."""
    return _comparable(one).chars == _comparable(other).chars


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
        is_whole = _may_part(text, place) and (_may_part(text, end) or _has_particle(text, end))
        if is_whole:
            starts.append(place)
        place = text.chars.find(wanted, end if is_whole else place + 1)
    return starts


def _has_particle(text: _Comparable, place: int) -> bool:
    """Whether a Korean particle stands at a place, and ends a word."""
    found = _PARTICLE.match(text.chars, place)
    return found is not None and found.end() > place and _may_part(text, found.end())


def _may_part(text: _Comparable, place: int) -> bool:
    """Whether a word may end before a character: at the ends, at white space, and beside what is no letter."""
    if not 0 < place < len(text.chars):
        return True
    between = text.text[text.places[place - 1][1] : text.places[place][0]]
    are_letters = _LETTER.match(text.chars, place - 1) and _LETTER.match(text.chars, place)
    return not are_letters or any(map(str.isspace, between))
