"""Text with typed character spans, turned into words with tags; brat files, and annotation files of any annotator."""

import json
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from xlner.corpora.lines import existing_file, read_chunks, read_lines
from xlner.corpora.problems import CorpusProblem, LeftOut, Located, Report, everywhere, refuse
from xlner.corpora.schemes import visible_label
from xlner.errors import CorpusError
from xlner.tags import Span, tags_of
from xlner.words import Sentence, WordOffsets

# Text with typed character spans, turned into words with tags: what JSONL records and brat files have in common.


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


# brat standoff: `NAME.txt` with `NAME.ann` beside it, a sentence a line; typed spans alone are read.
#
# Relations, events, attributes and notes are passed over.


def read_brat(
    source: str, *, encoding: str, split_text: Callable[[str], WordOffsets], report: Report, ignores_tags: bool
) -> Iterator[Located]:
    """The sentences of a folder of such files (in the order of their names), or of one `.ann` or `.txt`.

    Raises:
        CorpusError: If one of the two files is missing.
    """
    path = Path(source)
    notes = sorted(path.glob("*.ann")) if path.is_dir() else [existing_file(source).with_suffix(".ann")]
    if not notes:
        raise CorpusError(f"{path}: no annotation in this folder; expected NAME.txt and NAME.ann")
    missing = [file for note in notes for file in (note, note.with_suffix(".txt")) if not file.is_file()]
    if missing:
        raise CorpusError(f"no file {missing[0]}; brat keeps NAME.txt and NAME.ann side by side")
    return (sentence for note in notes for sentence in _document(note, encoding, split_text, report, ignores_tags))


def _document(
    notes: Path, encoding: str, split_text: Callable[[str], WordOffsets], report: Report, ignores_tags: bool
) -> Iterator[Located]:
    path = notes.with_suffix(".txt")
    text = "".join(read_chunks(path, encoding, report))
    spans = [] if ignores_tags else sorted(_spans(notes, text, encoding, report), key=lambda span: span.start)
    start, n_seen = 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        end = start + len(line)
        here = []
        while n_seen < len(spans) and spans[n_seen].start <= end:
            label, first, last, place = spans[n_seen]
            here.append(TextSpan(label, first - start, last - start, place))
            n_seen += 1
        if words := split_text(line):
            place = f"{path}:{number}"
            clean = checked_text(line, place, report)
            if ignores_tags:
                sentence = Sentence(tuple([clean[first:last] for first, last in words]))
            else:
                sentence = tagged_words(clean, words, here, report)
            yield Located(sentence, everywhere(place))
        else:
            for label, first, last, place in here:
                message = f"the span {first + start} to {last + start} of type {label!r} holds no word"
                report(CorpusProblem("XL022", place, message, "the span is left out"))
        start = end + 1


def _spans(path: Path, text: str, encoding: str, report: Report) -> Iterator[TextSpan]:
    """The text-bound annotations (`T1<TAB>PER 0 5<TAB>words`) that lie within one line of the text."""
    for number, line in read_lines(path, encoding, report):
        if not line.startswith("T"):
            continue
        place = f"{path}:{number}"
        _, _, rest = line.partition("\t")
        description, _, covered = rest.partition("\t")
        label, _, ranges = description.partition(" ")
        try:
            bounds = [int(bound) for bound in ranges.replace(";", " ").split(" ")]
        except ValueError:
            bounds = []
        if reason := _unusable(text, bounds, covered):
            message = f"{reason}: {line[:80]!r}; expected 'T1<TAB>TYPE START END<TAB>TEXT'"
            report(CorpusProblem("XL025", place, message, "the annotation is left out"))
        else:
            yield TextSpan(visible_label(label), bounds[0], bounds[1], place)


def _unusable(text: str, bounds: Sequence[int], covered: str) -> str:
    """Why an annotation is no span of one line; empty if it is one."""
    if len(bounds) < 2 or len(bounds) % 2:
        return "no start and end"
    if len(bounds) > 2:
        return "a span of several parts, which tags cannot tell"
    start, end = bounds
    if not 0 <= start < end <= len(text):
        return f"a span outside the text of {len(text)} characters"
    if "\n" in text[start:end]:
        return "a span over the end of a line, and so of a sentence"
    if covered and text[start:end] != covered:
        return f"the text there is {text[start:end][:40]!r} (is NAME.txt another version, or does it have CRLF?)"
    return ""


# Annotation files: what any annotator said of sentences, as records of JSON Lines, and how it fits a text.
#
#     {"types": ["LOC", "PER"]}                                                  first record, may be left out
#     {"text": "Anna lebt in Kiel.", "spans": [{"start": 13, "end": 17, "label": "LOC", "score": 0.9}]}
#     {"words": ["Anna", "lebt"], "spans": [{"start": 0, "end": 1, "label": "PER"}], "types": ["PER"]}
#
# `entities` is another name for `spans`, so that what `xlner tag` writes is an annotation file. Offsets count
# characters of the text or, where there is none, words, the end excluded. Records find their sentence by its visible
# characters, so neither white space nor where the words are cut matters. An annotator knows the types of the record,
# else of the first record, else all that occur in the file.


_RECORD_KEYS = ("text", "words", "tokens", "spans", "entities", "types")
_SPAN_KEYS = ("start", "end", "label", "score")
# A key as near as this to a known one is a slip; others are carried along by whoever wrote the file.
_SLIP = 0.75


class ScoredSpan(NamedTuple):
    """A typed stretch, the end excluded: of visible characters in a record, of words in a sentence."""

    label: str
    start: int
    end: int
    score: float


class Annotation(NamedTuple):
    """What is said of one sentence; `types` are those that the annotator looked for, None for all of the file."""

    spans: tuple[ScoredSpan, ...]
    types: tuple[str, ...] | None


class Alignment(NamedTuple):
    """The spans of a sentence in words, in order and without overlaps, and how many did not fit.

    `n_cut` begin or end inside a word, `n_lost` of all spans hold no word, `n_overlapping` gave way to a higher score.
    """

    spans: list[ScoredSpan]
    n_cut: int = 0
    n_lost: int = 0
    n_overlapping: int = 0


class Annotations:
    """The records of a file by the sentence that they speak of."""

    def __init__(self, path: Path, records: dict[str, Annotation], types: tuple[str, ...]) -> None:
        self.path = path
        self.types = types
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def of(self, words: Sequence[str]) -> Annotation | None:
        """What was said of a sentence; None where nobody looked."""
        return self._records.get(visible("".join(words)))

    def count(self, sentences: Iterable[Sequence[str]]) -> tuple[int, int]:
        """How many sentences have a record, and how many records have no sentence.

        Raises:
            CorpusError: If no record speaks of this text.
        """
        found = [key for words in sentences if (key := visible("".join(words))) in self._records]
        if not found:
            raise CorpusError(
                f"{self.path}: none of its {len(self):,} records speaks of a sentence of the target text; "
                "records are found by their words: were other sentences annotated, or longer texts?"
            )
        return len(found), len(self) - len(set(found))


def read_annotations(path: Path) -> Annotations:
    """The records of a file; several ones of one sentence count as one that says all of it.

    Raises:
        CorpusError: At the first record that is not as the head of this module says, with its line.
    """
    if not path.is_file():
        raise CorpusError(f"teacher={path}: no such file; expected annotations, one JSON record a line")
    known: tuple[str, ...] | None = None
    records: dict[str, Annotation] = {}
    is_first = True
    for number, line in read_lines(path, "utf-8"):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        record = _record(line, place)
        if is_first and record.keys() == {"types"}:
            known = _types(record, place)
            is_first = False
            continue
        is_first = False
        key, said = _annotation(record, place, known)
        before = records.get(key)
        records[key] = said if before is None else _merged(before, said)
    if not records:
        raise CorpusError(f"{path}: expected annotations, one JSON record a line; found none")
    occurring = {span.label for said in records.values() for span in said.spans}
    listed = {name for said in records.values() for name in said.types or ()}
    types = tuple(sorted({*(known or ()), *occurring, *listed}))
    default = known if known is not None else types
    records = {key: said if said.types is not None else said._replace(types=default) for key, said in records.items()}
    if not types:
        raise CorpusError(
            f"{path}: no span in {len(records):,} records, and no types; which ones were looked for? "
            '{"types": [...]} as the first record says so'
        )
    return Annotations(path, records, types)


def visible(text: str) -> str:
    """The text without white space, control and format characters, by which records find their sentence."""
    if text.isascii() and text.isalnum():
        return text
    return "".join([char for char in text if not _is_invisible(char)])


def align(said: Annotation, words: Sequence[str]) -> Alignment:
    """The spans of a record in the words of its sentence.

    A word belongs to a span that covers at least half of its visible characters. Of spans that share a word the one of
    the highest score stays, then the longer one, then the first.
    """
    ends = list(accumulate(len(visible(word)) for word in words))
    starts = [0, *ends[:-1]]
    found, n_cut, n_lost = [], 0, 0
    for span in said.spans:
        n_cut += span.start not in starts or span.end not in ends
        inside = [
            number
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
            if start < end and 2 * (min(end, span.end) - max(start, span.start)) >= end - start
        ]
        if inside:
            found.append(span._replace(start=inside[0], end=inside[-1] + 1))
        n_lost += not inside
    kept: list[ScoredSpan] = []
    for span in sorted(found, key=lambda span: (-span.score, span.start - span.end, span.start, span.label)):
        if all(other.end <= span.start or span.end <= other.start for other in kept):
            kept.append(span)
    n_overlapping = len(set(found)) - len(kept)
    return Alignment(sorted(kept, key=lambda span: span.start), n_cut, n_lost, n_overlapping)


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as problem:
        _refuse("XL020", place, f"no JSON ({problem}): {line[:_N_SHOWN]!r}")
    if not isinstance(record, dict):
        _refuse("XL020", place, f"expected a JSON object, found {line[:_N_SHOWN]!r}")
    _check_keys(record, _RECORD_KEYS, "a record", place)
    return record


def _annotation(record: dict[str, Any], place: str, known: tuple[str, ...] | None) -> tuple[str, Annotation]:
    """The key of a record, and what it says with spans in visible characters."""
    words = record.get("words", record.get("tokens"))
    if "text" not in record and words is None:
        _refuse("XL021", place, f"expected text or words; found {', '.join(record) or 'nothing'}")
    if "spans" in record and "entities" in record:
        _refuse("XL021", place, "found spans and entities; expected one of them: which are the annotations?")
    if "text" in record:
        if not isinstance(record["text"], str):
            _refuse("XL021", place, f"expected a text; found {str(record['text'])[:_N_SHOWN]}")
        text, unit = checked_text(record["text"], place, refuse), "characters"
        widths = [int(not _is_invisible(char)) for char in text]
        key = visible(text)
    else:
        words, unit = checked_words(words, place, refuse), "words"
        widths = [len(visible(word)) for word in words]
        key = visible("".join(words))
    if not key:
        _refuse("XL021", place, "a record without a visible character")
    types = _types(record, place) if "types" in record else None
    spans = record.get("spans", record.get("entities", []))
    if not isinstance(spans, list):
        _refuse("XL021", place, f"expected a list of spans; found {str(spans)[:_N_SHOWN]}")
    offsets = [0, *accumulate(widths)]
    looked_for = types if types is not None else known
    read = [_span(span, place, offsets, unit, looked_for) for span in spans]
    return key, Annotation(tuple(read), types)


def _span(span: Any, place: str, offsets: Sequence[int], unit: str, types: tuple[str, ...] | None) -> ScoredSpan:
    if not isinstance(span, dict) or not {"start", "end", "label"} <= span.keys():
        _refuse("XL021", place, f"expected a span with start, end and label; found {str(span)[:_N_SHOWN]}")
    _check_keys(span, _SPAN_KEYS, "a span", place)
    start, end, label, score = span["start"], span["end"], span["label"], span.get("score", 1.0)
    if not all(isinstance(offset, int) and not isinstance(offset, bool) for offset in (start, end)):
        _refuse("XL021", place, f"expected start and end as whole numbers; found {start!r} and {end!r}")
    if not isinstance(label, str) or not visible_label(label):
        _refuse("XL021", place, f"expected a type as label; found {label!r}")
    label = visible_label(label)
    if not 0 <= start < end < len(offsets):
        message = f"the span {start} to {end} of type {label!r} is none of a text of {len(offsets) - 1} {unit}"
        _refuse("XL022", place, message)
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        _refuse("XL025", place, f"the score of the span {start} to {end} is {score!r}; expected a number in [0, 1]")
    if types is not None and label not in types:
        near = get_close_matches(label, types, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        _refuse("XL025", place, f"the label {label!r} is none of the types {', '.join(types) or '(none)'}{hint}")
    return ScoredSpan(label, offsets[start], offsets[end], float(score))


def _types(record: dict[str, Any], place: str) -> tuple[str, ...]:
    types = record["types"]
    if not isinstance(types, list) or not all(isinstance(name, str) and name.strip() for name in types):
        _refuse("XL021", place, f"expected types as a list of names; found {str(types)[:_N_SHOWN]}")
    return tuple(sorted(set(map(visible_label, types))))


def _merged(first: Annotation, second: Annotation) -> Annotation:
    types = None if first.types is None or second.types is None else tuple(sorted({*first.types, *second.types}))
    return Annotation((*first.spans, *second.spans), types)


def _check_keys(found: dict[str, Any], known: Sequence[str], what: str, place: str) -> None:
    for name in found:
        if name not in known and (near := get_close_matches(name, known, n=1, cutoff=_SLIP)):
            _refuse("XL021", place, f"{what} has no key {name!r}; known: {', '.join(known)}; did you mean {near[0]!r}?")


def _is_invisible(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in ("Cc", "Cf")


def _refuse(code: str, place: str, message: str) -> NoReturn:
    refuse(CorpusProblem(code, place, message))
