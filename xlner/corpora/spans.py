"""Labels as corpora have them, turned into clean IOB2 of words: tags of any scheme, and typed spans of a text.

Also IOB2 turned into what others expect.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from xlner.corpora.lines import CorpusProblem, LeftOut, Report, refuse
from xlner.errors import CorpusError, LabelError, has_half_characters
from xlner.tags import OUTSIDE, Span, spans_of, split_tag, tags_of, to_iob2
from xlner.words import Sentence, WordOffsets

# In the place of a tag: nobody has labelled this word.
UNLABELLED = "_"
# IOBES and BILOU (also written IOBES, BIOES, BMEOS, BMEWO): the prefixes that IOB lacks.
_SINGLE, _LAST, _MIDDLE = ("S", "U", "W"), ("E", "L"), ("M",)
_EXTENDED_TAG = re.compile(r"[SUWELM]-.+", re.DOTALL)
_MISWRITTEN = re.compile(r"([BIESULMW])[-_.:/|\u2010-\u2015\u2212\ufe63\uff0d](.+)", re.IGNORECASE | re.DOTALL)
# A small o, and letters that look like O.
_MISWRITTEN_OUTSIDE = ("o", "\u041e", "\u043e", "\u039f", "\u03bf", "\uff2f")
# What a type without a prefix looks like.
_TYPE = re.compile(r"[^\W\d_][\w.&/ -]*")
# Letters without a glyph.
FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
# The scheme for text whose labels are not to be looked at.
IGNORE = "ignore"
N_REMEMBERED = 20_000  # tag sequences known to be clean
_WORD = re.compile(r"[^ \t]+")
_N_SHOWN = 60  # characters of a text that a message shows at most

SplitText = Callable[[str], WordOffsets]
Place = Callable[[int], str]  # file and line of the n-th word of a sentence


def split_at_blanks(text: str) -> WordOffsets:
    """The words of a line that is already split: ASCII white space alone separates them."""
    return [match.span() for match in _WORD.finditer(text)]


class ReadingOptions(NamedTuple):
    """How a corpus is read: the arguments of `read_corpus`, and what becomes of problems."""

    columns: str | tuple[int, int] = "auto"
    scheme: str = "auto"
    encoding: str = "utf-8"
    split_text: SplitText = split_at_blanks
    report: Report = refuse
    labels: str = ""

    @property
    def ignores_tags(self) -> bool:
        """Whether tags are not looked at, so that nothing about them is wrong."""
        return self.scheme == IGNORE

    def split(self, text: str) -> Sentence:
        """A text as words without tags."""
        return Sentence(tuple([text[start:end] for start, end in self.split_text(text)]))


class TagReader:
    """Reads the tags of one sentence after the other, and remembers which neighbours are clean IOB2."""

    def __init__(self, scheme: str = "auto", report: Report = refuse, labels: str = "") -> None:
        """Choose how tags are understood; scheme and labels are as in `read_corpus`.

        Raises:
            CorpusError: If it is another scheme, or the names are none.
        """
        if scheme not in READING_SCHEMES:
            raise CorpusError(f"corpus.scheme is {scheme!r}; expected {', '.join(READING_SCHEMES)}")
        self._scheme = scheme
        self.ignores = scheme == IGNORE  # then nothing about tags is wrong
        names = [visible_label(name) for name in labels.split(",")] if labels.strip() else []
        if names and (len(set(names)) < len(names) or "" in names or OUTSIDE not in names):
            raise CorpusError(
                f"corpus.labels is {labels!r}; expected the tag of each number from 0 on, with O among them and none "
                "twice, as in O,B-PER,I-PER"
            )
        self.names: dict[str, str] = {}  # of tags that are numbers; without any, numbers are no tags
        if names:
            self.name_numbers(names)
        self._report = report
        # A sequence is clean IOB2 exactly if each tag may follow the one before it; there are few such pairs.
        self._clean_pairs: set[tuple[str, str]] = set()
        self._clean_sequences: set[tuple[str, ...]] = set()

    def name_numbers(self, names: Sequence[str]) -> None:
        """Have numbers from 0 on mean these tags; those below 0 mark words without a label."""
        self.names = dict.fromkeys(("-1", "-100"), UNLABELLED) | {str(n): name for n, name in enumerate(names)}

    def read(self, tags: tuple[str, ...], place: Place) -> tuple[str, ...] | None:
        """The tags of a sentence in IOB2, or None if all of them are `_` or nobody looks.

        Raises:
            CorpusProblem: By the usual report: if a tag is none, if some but not all words are labelled, or
                what `strict` refuses.
            LeftOut: If the report went on, but there is no repair.
        """
        if self.ignores:
            return None
        if self.names:
            names = self.names
            tags = tuple([names.get(tag) or names.get(visible_label(tag), tag) for tag in tags])
        # Most sequences have been seen before: looking them up whole is the quickest.
        if tags in self._clean_sequences:
            return tags
        if self._clean_pairs.issuperset(pairwise((OUTSIDE, *tags))):
            if len(self._clean_sequences) < N_REMEMBERED:
                self._clean_sequences.add(tags)
            return tags
        bare = tuple(map(visible_label, tags))
        if set(bare) == {UNLABELLED}:
            return None
        if self._scheme == "plain":
            plain = self._checked(bare, place, _is_plain)
            # Equal neighbours are one entity.
            return to_iob2([tag if tag == OUTSIDE else f"I-{tag}" for tag in plain])
        known = self._checked(bare, place, is_any_tag)
        has_prefixes_of_iob = all(map(is_tag, known))
        iob = known if has_prefixes_of_iob else _from_extended(known)
        if self._scheme == "strict":
            self._check_continuations(iob, place)
        clean = to_iob2(iob)
        if has_prefixes_of_iob:
            self._clean_pairs.update(pairwise((OUTSIDE, *clean)))
        return clean

    def knows(self, cell: str) -> bool:
        """Whether a cell is a tag, `_`, or one of the numbers that have a name."""
        tag = visible_label(cell)
        return tag == UNLABELLED or tag in self.names or is_any_tag(tag)

    def may_mean(self, cell: str) -> bool:
        """Whether a cell looks like a misspelt tag, or like a type where types stand alone."""
        tag = visible_label(cell)
        return tag[:1].isalpha() if self._scheme == "plain" else self._guess(tag) != ""

    def _checked(self, tags: tuple[str, ...], place: Place, is_known: Callable[[str], bool]) -> tuple[str, ...]:
        """The tags with misspelt ones repaired; a sentence that cannot be repaired is left out."""
        guesses = {position: self._guess(tag) for position, tag in enumerate(tags) if not is_known(tag)}
        for position, guess in guesses.items():
            message, repair = _explain(tags, position, guess), f"read as {guess}" if guess else ""
            code = "XL014" if tags[position] == UNLABELLED else "XL012"
            self._report(CorpusProblem(code, place(position), message, *([repair] if repair else [])))
        if "" in guesses.values():
            raise LeftOut
        return tuple([guesses.get(position, tag) for position, tag in enumerate(tags)])

    def _guess(self, tag: str) -> str:
        """The tag that a misspelt one certainly means, or nothing."""
        if tag in _MISWRITTEN_OUTSIDE:
            return OUTSIDE
        match = _MISWRITTEN.fullmatch(tag)
        if self._scheme == "plain" or not match:
            return ""
        guess = f"{match.group(1).upper()}-{match.group(2)}"
        return guess if is_any_tag(guess) else ""

    def _check_continuations(self, tags: tuple[str, ...], place: Place) -> None:
        for position, (before, tag) in enumerate(pairwise(("nothing", *tags))):
            if tag[:2] != "I-" or tag[1:] == before[1:]:
                continue
            message = (
                f"{tag} continues no entity (it follows {before}); expected B{tag[1:]}, "
                "as which corpus.scheme=auto reads it"
            )
            self._report(CorpusProblem("XL013", place(position), message, f"read as B{tag[1:]}"))


def is_tag(text: str) -> bool:
    """Whether this is `O`, `B-TYPE` or `I-TYPE`."""
    try:
        split_tag(text)
    except LabelError:
        return False
    return True


def write_tags(tags: Sequence[str], scheme: str = "iob2") -> tuple[str, ...]:
    """Clean IOB2 tags in another scheme; `plain` cannot tell neighbours of one type apart."""
    if scheme not in WRITING_SCHEMES:
        raise CorpusError(f"unknown scheme {scheme!r} to write; expected {', '.join(WRITING_SCHEMES)}")
    return WRITING_SCHEMES[scheme](tuple(tags))


def is_any_tag(tag: str) -> bool:
    """Whether this is a tag of IOB, BIOES or BILOU."""
    return is_tag(tag) or _EXTENDED_TAG.fullmatch(tag) is not None


def _is_plain(tag: str) -> bool:
    return bool(tag) and tag != UNLABELLED and tag not in _MISWRITTEN_OUTSIDE


def _from_extended(tags: Sequence[str]) -> tuple[str, ...]:
    """BIOES or BILOU as IOB; what ends an entity keeps the next tag from continuing it."""
    result, has_ended = [], True
    for tag in tags:
        prefix, name = tag[0], tag[2:]
        if tag == OUTSIDE:
            result.append(OUTSIDE)
        elif prefix in _SINGLE or prefix == "B" or (has_ended and result and result[-1][2:] == name):
            result.append(f"B-{name}")
        else:
            result.append(f"I-{name}")
        has_ended = prefix in _SINGLE + _LAST
    return tuple(result)


def _explain(tags: Sequence[str], position: int, guess: str) -> str:
    """Why this is no tag, and what was probably meant."""
    tag = tags[position]
    if tag == UNLABELLED:
        return "found '_' (no label) beside tags; expected tags for all words of a sentence or for none"
    if not tag:
        hint = "is the column of tags empty here?"
    elif guess:
        hint = f"did you mean {guess}?"
    elif tag.removeprefix("-").isdecimal():
        hint = "numbers get their names by corpus.labels=O,B-TYPE,I-TYPE,..., in the order of the numbers"
    elif all(other == OUTSIDE or _TYPE.fullmatch(other) for other in tags):
        hint = (
            "types without prefixes are read by corpus.scheme=plain; "
            "is this another column? then set corpus.columns=WORD,TAG"
        )
    else:
        hint = "is this the column of tags? if not, set corpus.columns=WORD,TAG"
    return f"found tag {tag!r}; expected O, B-TYPE or I-TYPE; {hint}"


def visible_label(text: str) -> str:
    """A tag or type without what nobody can see, so that no two of them look equal.

    White space at its ends and characters without a glyph go, other white space than TAB and line ends becomes a space,
    and letters get their composed form (NFC).
    """
    if text.isascii():
        return text.strip(" \v\f\x1c\x1d\x1e\x1f")
    kept = [char for char in unicodedata.normalize("NFC", text) if unicodedata.category(char) not in ("Cf", "Cn", "Co")]
    spaced = [" " if char.isspace() and char not in "\t\n\r" else char for char in kept if char not in FILLERS]
    return "".join(spaced).strip(" \x85")


def _to_iob1(tags: tuple[str, ...]) -> tuple[str, ...]:
    """`B-` only where an entity of the same type ends right before."""
    pairs = pairwise((OUTSIDE, *tags))
    return tuple([f"I{tag[1:]}" if tag[:2] == "B-" and tag[1:] != before[1:] else tag for before, tag in pairs])


def _extended(tags: tuple[str, ...], single: str, last: str) -> tuple[str, ...]:
    result = list(tags)
    for span in spans_of(tags):
        if span.end - span.start == 1:
            result[span.start] = f"{single}-{span.label}"
        else:
            result[span.end - 1] = f"{last}-{span.label}"
    return tuple(result)


READING_SCHEMES = ("auto", "strict", "plain", IGNORE)

# A new scheme to write is one line here.
WRITING_SCHEMES: dict[str, Callable[[tuple[str, ...]], tuple[str, ...]]] = {
    "iob2": lambda tags: tags,
    "iob1": _to_iob1,
    "bioes": lambda tags: _extended(tags, "S", "E"),
    "bilou": lambda tags: _extended(tags, "U", "L"),
    "plain": lambda tags: tuple([split_tag(tag)[1] or OUTSIDE for tag in tags]),
}


# Text with typed character spans, turned into words with tags.


class TextSpan(NamedTuple):
    """A typed stretch of a text, in characters, the last one excluded; `place` tells where it was written down."""

    label: str
    start: int
    end: int
    place: str


def tagged_words(text: str, words: WordOffsets, spans: Iterable[TextSpan], report: Report) -> Sentence:
    """The words of a text with the tags that its spans mean.

    White space at the ends of a span counts for nothing. A span that begins or ends inside a word is
    reported, and widened to whole words if the report returns; of spans that overlap, the longest stays.
    """
    bounds = [start for start, _ in words], [end for _, end in words]
    found = [_aligned(text, words, bounds, span, report) for span in spans]
    kept = _without_overlaps(text, len(words), [pair for pair in found if pair is not None], report)
    return Sentence(tuple([text[start:end] for start, end in words]), tags_of(kept, len(words)))


def locate_words(text: str, words: Sequence[str]) -> list[tuple[int, int]] | None:
    """Where words stand in a text, one after the other; None if one of them does not."""
    found, end = [], 0
    for word in words:
        start = text.find(word, end)
        if start < 0:
            return None
        end = start + len(word)
        found.append((start, end))
    return found


def _aligned(
    text: str, words: WordOffsets, bounds: tuple[list[int], list[int]], span: TextSpan, report: Report
) -> tuple[TextSpan, Span] | None:
    """The span in words; None if there are none in it."""
    label, start, end, place = span
    if not 0 <= start < end <= len(text) or not label:
        message = f"the span {start} to {end} of type {label!r} is none of a text of {len(text)} characters"
        report(CorpusProblem("XL022", place, message, "the span is left out"))
        return None
    starts, ends = bounds
    inside = range(bisect_right(ends, start), bisect_left(starts, end))
    if not inside:
        message = f"the span {text[start:end][:_N_SHOWN]!r} ({start} to {end}) holds no word"
        report(CorpusProblem("XL022", place, message, "the span is left out"))
        return None
    first, last = words[inside[0]][0], words[inside[-1]][1]
    # What a span has more than its words may be white space.
    if first < start or last > end or text[start:first].strip() or text[last:end].strip():
        report(CorpusProblem("XL024", place, _misalignment(text, words, inside, span), "widened to whole words"))
    return span, Span(label, inside[0], inside[-1] + 1)


def _misalignment(text: str, words: WordOffsets, inside: Sequence[int], span: TextSpan) -> str:
    around = [text[slice(*words[number])] for number in inside]
    shown = around if len(around) < 5 else [*around[:2], "...", *around[-2:]]
    # A span right of what it means by a few characters usually comes from offsets counted in bytes or UTF-16.
    likely = "offsets in bytes or UTF-16 units?" if not text[: span.end].isascii() else "offsets off by one?"
    return (
        f"the span {text[span.start : span.end][:_N_SHOWN]!r} ({span.start} to {span.end}, {span.label}) begins or "
        f"ends inside a word; words there: {' '.join(shown)[:_N_SHOWN]!r}; {likely} Otherwise give the words "
        "(as `tokens`), or split them otherwise (corpus.word_splitter)"
    )


def _without_overlaps(text: str, n_words: int, found: Sequence[tuple[TextSpan, Span]], report: Report) -> list[Span]:
    ordered = sorted(found, key=lambda pair: (pair[1].start, -pair[1].end))
    if all(before[1].end <= after[1].start for before, after in pairwise(ordered)):
        return [span for _, span in ordered]
    kept: list[Span] = []
    owners: list[Span | None] = [None] * n_words
    for written, span in sorted(ordered, key=lambda pair: pair[1].start - pair[1].end):
        # A longer span that shares a word with this one has its first or its last.
        rival = owners[span.start] or owners[span.end - 1]
        if rival is None:
            kept.append(span)
            owners[span.start : span.end] = [span] * (span.end - span.start)
        elif rival != span:
            message = (
                f"the span {text[written.start : written.end][:_N_SHOWN]!r} ({written.label}) overlaps another one "
                f"({rival.label}); expected spans that do not overlap; `xlner check-data --fix` keeps the longer one"
            )
            report(CorpusProblem("XL023", written.place, message, "the longer span stays"))
    return sorted(kept, key=lambda span: span.start)


def checked_words(words: object, place: str, report: Report) -> tuple[str, ...]:
    """A list of words as read from a record, half surrogate pairs replaced.

    Raises:
        LeftOut: If it is none, or a word is empty, and the report returns.
    """
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        report(CorpusProblem("XL021", place, f"expected a list of words; found {str(words)[:_N_SHOWN]}"))
        raise LeftOut
    if "" in words:
        report(CorpusProblem("XL011", place, f"word {list(words).index('')} is empty; expected none of them empty"))
        raise LeftOut
    if all(map(str.isascii, words)):
        return tuple(words)
    return tuple([checked_text(word, place, report) for word in words])


def checked_text(text: str, place: str, report: Report) -> str:
    """The text, each half of a surrogate pair (which is no character) replaced by U+FFFD."""
    if not has_half_characters(text):
        return text
    message = f"half a surrogate pair in {text[:_N_SHOWN]!a}, which is no character"
    report(CorpusProblem("XL026", place, message, "replaced by U+FFFD"))
    return "".join(["\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text])


def in_order(words: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Word offsets that neither overlap nor go back; ValueError at the first that does."""
    end = 0
    for start, stop in words:
        if not end <= start < stop:
            raise ValueError(f"the word at {start} to {stop} does not follow the one before, which ends at {end}")
        end = stop
        yield start, stop
