"""What can be wrong inside a single word, and the word as it should be.

Legitimate things stay unmentioned: no-break spaces between digits, joiners inside words (Persian, Indic scripts,
emoji), units such as `μm`, words such as `DVDшник` whose letters of two scripts cannot be mistaken for each other.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

BYTE_ORDER_MARK = "\ufeff"
# Characters without a glyph that are no format or white space by their category: fillers, joiners, selectors.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
# Inside words these say nothing. Joiners (U+200C, U+200D) and marks of direction do, so they are not among them.
_ZERO_WIDTH = "\u200b\u2060\ufeff"
# After a character that mojibake begins with they are a half of a letter: without it, nobody could mend the word.
_STRAY = re.compile(rf"(?<![ÂÃÐÑ])[\x7f-\x84\x86-\x9f\xad]|[\x00-\x08\x0e-\x1b{_ZERO_WIDTH}]")
# White space, but for halves of letters, and the no-break spaces that group digits in many languages.
_CUT = re.compile(r"(?!(?<=\d)[\u00a0\u2007\u202f]\d|(?<=[ÂÃÐÑ])[\x85\xa0])\s+")
# What the bytes 0x80 to 0xBF become when they are read as latin-1 or cp1252.
_TAIL = "[\u0080-\u00bf" + bytes(set(range(0x80, 0xA0)) - {0x81, 0x8D, 0x8F, 0x90, 0x9D}).decode("cp1252") + "]"
# Behind capitals, Ã and a quotation mark or the like are what they seem: `NAÇÃ»`.
_MOJIBAKE = re.compile(rf"[ÂÃ](?:(?<![A-ZÀ-Þ][ÂÃ]){_TAIL}|[¡-¨±-¶¼-¾])|â€{_TAIL}|(?:[ÐÑ]{_TAIL}){{2}}|ï¿½|ï»¿")
_LETTERS = re.compile(r"[^\W\d_]+")
# Letters of Cyrillic and of Greek that look like Latin ones, in pairs.
_CYRILLIC = dict(zip("АВЕЅІЈКМНОРСТУХЪаеѕіјорсухԁһԛԝ", "ABESIJKMHOPCTYXbaesijopcyxdhqw", strict=True))
_GREEK = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEZHIKMNOPTYXo", strict=True))
_LATIN = str.maketrans(_GREEK | _CYRILLIC)
# Marks of direction, fillers and joiners without a letter to join mean nothing at the ends of a word, where they make
# two words of what looks like one. Variation selectors belong to the sign before them.
_EDGE = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
_AT_EDGE = re.compile(rf"^[{_EDGE}\u200c\u200d]+|[{_EDGE}]+$")


class WordProblem(NamedTuple):
    """A code, and what was found."""

    code: str
    message: str


@lru_cache(maxsize=1 << 16)
def word_problems(word: str) -> tuple[WordProblem, ...]:
    """All that is wrong inside a word; nothing for nearly all of them."""
    if word.isalnum() and word.isascii():
        return ()
    if is_invisible(word):
        return (WordProblem("XL030", f"the word {word!r} ({_names(word)}) cannot be seen"),)
    found = []
    if word.startswith(BYTE_ORDER_MARK):
        found.append(WordProblem("XL031", f"the word {word!r} begins with a byte order mark"))
    if _CUT.search(word):
        found.append(
            WordProblem("XL032", f"the word {word!r} holds white space; expected a word of its own for each part")
        )
    if stray := _STRAY.search(word.lstrip(BYTE_ORDER_MARK)) or _AT_EDGE.search(word):
        found.append(WordProblem("XL033", f"the word {word!r} holds {_names(stray.group())}"))
    if "\ufffd" in word:
        found.append(WordProblem("XL034", f"the word {word!r} lost a character to a conversion (U+FFFD)"))
    if match := _MOJIBAKE.search(word):
        found.append(
            WordProblem("XL035", f"the word {word!r} holds {match.group()!r}: UTF-8 read as another encoding?")
        )
    if foreign := _look_alikes(word):
        found.append(WordProblem("XL036", f"the word {word!r} mixes scripts: {_names(foreign)}"))
    return tuple(found)


def as_latin(text: str) -> str:
    """A text with Latin letters in the place of those of Cyrillic and Greek that look like them."""
    return text.translate(_LATIN)


def is_invisible(word: str) -> bool:
    """Whether nothing of a word can be seen."""
    return all(char in _BLANK or unicodedata.category(char) in _INVISIBLE_CATEGORIES for char in word)


def visible_parts(word: str) -> list[str]:
    """A word without stray characters, cut at white space; none if it cannot be seen."""
    parts = [_AT_EDGE.sub("", part) for part in _CUT.split(_STRAY.sub("", word))]
    return [part for part in parts if part and not is_invisible(part)]


def _look_alikes(word: str) -> str:
    """The letters of a word that are of another script than they look; empty if there are none."""
    if word.isascii():
        return ""
    for run in _LETTERS.findall(word):
        latin = [char for char in run if char.isascii() or script(char) == "Latin"]
        for name, table in (("Cyrillic", _CYRILLIC), ("Greek", _GREEK)):
            others = [char for char in run if script(char) == name]
            if not latin or not others:
                continue
            # All letters of one of the two could be letters of the other: the word can be written in one script.
            # `EBPα` is none of these: three letters do not stand there by mistake, for the sake of one.
            if all(char in table for char in others):
                return "".join(others)
            if len(latin) <= len(others) and all(char in table.values() for char in latin):
                return "".join(latin)
    return ""


@lru_cache(maxsize=1 << 16)
def script(char: str) -> str:
    """The script of a letter, as the first word of its Unicode name says it; empty for what is no letter."""
    if not char.isalpha():
        return ""
    first = unicodedata.name(char, "?").split(" ")[0].split("-")[0].capitalize()
    return "" if first in _NO_SCRIPTS else _SCRIPTS.get(first, first)


def _names(text: str) -> str:
    """Characters as people look them up: `U+200B ZERO WIDTH SPACE`."""
    return ", ".join(f"U+{ord(char):04X} {unicodedata.name(char, 'unnamed')}" for char in dict.fromkeys(text[:4]))


_SCRIPTS = {"Cjk": "Han", "Fullwidth": "Latin", "Halfwidth": "Katakana"}
# First words of the names of letters that belong to no script.
_NO_SCRIPTS = {
    "?",
    "Micro",
    "Ohm",
    "Kelvin",
    "Angstrom",
    "Feminine",
    "Masculine",
    "Modifier",
    "Mathematical",
    "Planck",
    "Ideographic",
}
