"""Annotation files: what any annotator said of sentences, as records of JSON Lines, and how it fits a text.

    {"types": ["LOC", "PER"]}                                                  first record, may be left out
    {"text": "Anna lebt in Kiel.", "spans": [{"start": 13, "end": 17, "label": "LOC", "score": 0.9}]}
    {"words": ["Anna", "lebt"], "spans": [{"start": 0, "end": 1, "label": "PER"}], "types": ["PER"]}

`entities` is another name for `spans`, so that what `xlner tag` writes is an annotation file. Offsets count characters
of the text or, where there is none, words, the end excluded. Records find their sentence by its visible
characters, so neither white space nor where the words are cut matters. An annotator knows the types of the record, else
of the first record, else all that occur in the file.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from xlner.data.annotated_text import checked_text, checked_words
from xlner.data.lines import read_lines
from xlner.data.problems import CorpusProblem, refuse
from xlner.data.schemes import visible_label
from xlner.errors import CorpusError

_RECORD_KEYS = ("text", "words", "tokens", "spans", "entities", "types")
_SPAN_KEYS = ("start", "end", "label", "score")
# A key as near as this to a known one is a slip; others are carried along by whoever wrote the file.
_SLIP = 0.75
_N_SHOWN = 60


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
