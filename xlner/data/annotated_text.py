"""Text with typed character spans, turned into words with tags: what JSONL records and brat files have in common."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from xlner.data.problems import CorpusProblem, LeftOut, Report
from xlner.labels import Span, tags_of
from xlner.splitting import WordOffsets
from xlner.text import Sentence

_SURROGATE = re.compile("[\ud800-\udfff]")
_N_SHOWN = 60  # characters of a text that a message shows at most


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

    Args:
        text: The text.
        words: Start and end of each word, in order.
        spans: In any order.
        report: Gets each span that does not fit.
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
        rival = next((owner for owner in owners[span.start : span.end] if owner is not None), None)
        if rival is None:
            kept.append(span)
            owners[span.start : span.end] = [span] * (span.end - span.start)
        elif rival != span:
            message = (
                f"the span {text[written.start : written.end][:_N_SHOWN]!r} ({written.label}) overlaps another one "
                f"({rival.label}); expected spans that do not overlap"
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
    if text.isascii() or not _SURROGATE.search(text):
        return text
    message = f"half a surrogate pair in {text[:_N_SHOWN]!a}, which is no character"
    report(CorpusProblem("XL026", place, message, "replaced by U+FFFD"))
    return "".join(["\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text])


def checked_lengths(words: Sequence[str], tags: Sequence[object], place: str, report: Report) -> None:
    """Refuse a sentence with more or fewer tags than words.

    Raises:
        LeftOut: If the report returns.
    """
    if len(words) != len(tags):
        report(CorpusProblem("XL016", place, f"{len(words)} words, but {len(tags)} tags"))
        raise LeftOut


def in_order(words: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Word offsets that neither overlap nor go back.

    Raises:
        ValueError: At the first that does.
    """
    end = 0
    for start, stop in words:
        if not end <= start < stop:
            raise ValueError(f"the word at {start} to {stop} does not follow the one before, which ends at {end}")
        end = stop
        yield start, stop
