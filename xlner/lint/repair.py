"""What can be wrong inside a word, sentences that stand twice, and a repaired copy of a corpus.

The copy is as the reader repairs it, and without what nobody can see in a word: words lose zero-width and control
characters and a byte order mark, are cut at white space (the parts share the entity), and are taken out where nothing
of them can be seen. Mojibake, mixed scripts and contradictory tags are for people to mend.

Legitimate things stay unmentioned: no-break spaces between digits, joiners inside words (Persian, Indic scripts,
emoji), units such as `μm`, words such as `DVDшник` whose letters of two scripts cannot be mistaken for each other.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate, chain, dropwhile, takewhile
from pathlib import Path
from typing import NamedTuple

from xlner.corpora.source import read_corpus
from xlner.corpora.spans import FILLERS
from xlner.corpora.splits import CorpusFingerprint, fingerprint
from xlner.corpora.write import write_corpus
from xlner.errors import CorpusError
from xlner.files import replaced
from xlner.tags import Span, spans_of, tags_of
from xlner.words import Sentence

BYTE_ORDER_MARK = "\ufeff"
# Characters without a glyph that are no format or white space by their category: fillers, joiners, selectors.
_BLANK = FILLERS + "".join(map(chr, range(0xFE00, 0xFE10)))
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
_EDGE = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069" + FILLERS
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
_NO_SCRIPTS = frozenset(
    [
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
    ]
)
# Shorter sentences ("Yes .") are passed over: that they come again says nothing about a corpus.
FEWEST_WORDS = 4


class SentenceIndex:
    """The sentences of one corpus, by 8 bytes of their words (no text is kept), and where each stood first."""

    def __init__(self, source: str) -> None:
        """Start without sentences; `source` is what all places begin with."""
        self.source = source
        self._places: dict[int, str] = {}
        self._tags: dict[int, int] = {}

    def first_place(self, key: int) -> str:
        """Where the words of this key stood first; empty if nowhere."""
        place = self._places.get(key)
        return "" if place is None else self.source + place

    def add(self, key: int, sentence: Sentence, place: str) -> bool | None:
        """Remember a sentence: None for new words, True for words that had the same tags, False for others."""
        tags = 0 if sentence.tags is None else hash_of(sentence.tags)
        if key not in self._places:
            self._places[key] = place.removeprefix(self.source)
            if tags:
                self._tags[key] = tags
            return None
        return self._tags.get(key, 0) == tags


def sentence_key(sentence: Sentence) -> int:
    """8 bytes that stand for the words; 0 for sentences that are too short to tell anything."""
    return hash_of(sentence.words) if len(sentence.words) >= FEWEST_WORDS else 0


def hash_of(parts: tuple[str, ...]) -> int:
    """8 bytes that stand for these texts."""
    return int.from_bytes(blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


# What each repair of a word is called in the list of repairs.
_CLEANED = {
    "XL030": "the word is taken out",
    "XL031": "the byte order mark is taken out",
    "XL032": "cut into words at the white space",
    "XL033": "the characters are taken out",
}
EMPTIED = "XL030", "the sentence is left out: no word of it can be seen"
VANISHED = "XL030", "the entity is taken out: no word of it can be seen"
REPEATED = "XL040", "the second sentence is left out"
MOVED = "XL045", "moved to the end: a file with labels must begin with some"


def write_repaired(
    read: Callable[[], Iterator[Sentence]], path: Path, *, fix_duplicates: bool
) -> tuple[int, Counter[tuple[str, str]]]:
    """Write a repaired copy as CoNLL, and read it strictly before it gets its name.

    Args:
        read: Opens the corpus anew, with a report that lets the reader repair what it can.
        path: Of the copy.
        fix_duplicates: Whether sentences that were there before, with the same tags, are left out.

    Returns:
        How many sentences were written, and how often each repair (code, what was done) was made.

    Raises:
        CorpusError: If nothing is left, or the copy would not read back as it is.
    """
    repairs = Counter[tuple[str, str]]()
    has_labels = not all(map(_is_bare, _usable(read, Counter())))
    mark, n_written = CorpusFingerprint(), 0

    def checked() -> Iterator[Sentence]:
        nonlocal n_written
        for sentence in _repaired(read, has_labels, fix_duplicates, repairs):
            mark.add(sentence)
            n_written += 1
            yield sentence

    with replaced(path) as unchecked:
        write_corpus(checked(), unchecked, format="conll")
        if not n_written:
            raise CorpusError(f"{path}: not written, for no sentence is left")
        try:
            if fingerprint(read_corpus(unchecked, format="conll", scheme="strict")) != mark.hexdigest():
                raise CorpusError("words or tags changed")
        except CorpusError as problem:
            raise CorpusError(f"{path}: not written, for it would not read back as it is: {problem}") from problem
    return n_written, repairs


def repair_sentence(sentence: Sentence, repairs: Counter[tuple[str, str]]) -> Sentence:
    """A sentence without what nobody can see, told to `repairs`; it may have no words left."""
    problems = [code for word in sentence.words for code, _ in word_problems(word) if code in _CLEANED]
    if not problems:
        return sentence
    repairs.update((code, _CLEANED[code]) for code in problems)
    parts = [
        visible_parts(word) if any(code in _CLEANED for code, _ in word_problems(word)) else [word]
        for word in sentence.words
    ]
    words = tuple([word for group in parts for word in group])
    if not words:
        repairs[EMPTIED] += 1
        return Sentence((), None if sentence.tags is None else ())
    if sentence.tags is None:
        return Sentence(words)
    starts = [0, *accumulate(map(len, parts))]
    spans = [Span(label, starts[start], starts[end]) for label, start, end in spans_of(sentence.tags)]
    kept = [span for span in spans if span.start < span.end]
    if len(kept) < len(spans):
        repairs[VANISHED] += len(spans) - len(kept)
    return Sentence(words, tags_of(kept, len(words)))


def _repaired(
    read: Callable[[], Iterator[Sentence]], has_labels: bool, fix_duplicates: bool, repairs: Counter[tuple[str, str]]
) -> Iterator[Sentence]:
    ordered = _usable(read, repairs)
    if has_labels:
        # A file of columns has labels or has none from its first sentence on.
        ordered = chain(dropwhile(_is_bare, ordered), _moved(takewhile(_is_bare, _usable(read, Counter())), repairs))
    seen = set[int]()
    for sentence in ordered:
        if fix_duplicates and sentence_key(sentence):
            key = hash_of((*sentence.words, "", *(sentence.tags or ())))
            if key in seen:
                repairs[REPEATED] += 1
                continue
            seen.add(key)
        yield sentence


def _usable(read: Callable[[], Iterator[Sentence]], repairs: Counter[tuple[str, str]]) -> Iterator[Sentence]:
    return (repaired for sentence in read() if (repaired := repair_sentence(sentence, repairs)).words)


def _is_bare(sentence: Sentence) -> bool:
    return sentence.tags is None


def _moved(sentences: Iterator[Sentence], repairs: Counter[tuple[str, str]]) -> Iterator[Sentence]:
    for sentence in sentences:
        repairs[MOVED] += 1
        yield sentence
