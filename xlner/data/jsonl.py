"""JSON Lines: a sentence a line, as words and tags, or as text and character spans.

Three kinds of records are told apart by their fields:

- `{"words": [...], "tags": [...]}`, also under the names `tokens` and `ner_tags` or `labels`;
- `{"text": "...", "spans": [{"start": 0, "end": 13, "label": "PER"}]}`, also `entities` or `label`, and spans as
  `[0, 13, "PER"]`. Prodigy's `tokens` (`[{"start": 0, "end": 6}, ...]`) say where the words are, without them the
  text is split. What Prodigy's `answer` does not accept is passed over;
- `{"text": "..."}` alone, unlabelled.

Offsets count characters (Unicode code points). Other fields are not looked at.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlner.data.annotated_text import TextSpan, checked_lengths, checked_text, checked_words, in_order, tagged_words
from xlner.data.lines import read_lines
from xlner.data.located import Located, by_word
from xlner.data.problems import CorpusProblem, LeftOut, Report
from xlner.data.schemes import UNLABELLED, TagReader
from xlner.splitting import WordOffsets
from xlner.text import Sentence

WORD_FIELDS = ("words", "tokens")
TAG_FIELDS = ("tags", "ner_tags", "labels")
SPAN_FIELDS = ("spans", "entities", "label", "labels")
_N_SHOWN = 60


def read_jsonl(
    path: Path, *, scheme: str, encoding: str, split_text: Callable[[str], WordOffsets], report: Report
) -> Iterator[Located]:
    """The sentences of a file of records; records without words are passed over.

    Args:
        path: The file.
        scheme: Of tags, as in `read_corpus`.
        encoding: Of the file.
        split_text: Where the words of a text are that does not bring them.
        report: Gets what is wrong.
    """
    return _sentences(path, TagReader(scheme, report), encoding, split_text, report)


def _sentences(
    path: Path, tag_reader: TagReader, encoding: str, split_text: Callable[[str], WordOffsets], report: Report
) -> Iterator[Located]:
    for number, line in read_lines(path, encoding, report):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            sentence = _sentence(line, place, tag_reader, split_text, report)
        except LeftOut:
            continue
        if sentence.words:
            yield Located(sentence, by_word(place))


def _sentence(
    line: str, place: str, tag_reader: TagReader, split_text: Callable[[str], WordOffsets], report: Report
) -> Sentence:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as problem:
        report(CorpusProblem("XL020", place, f"no JSON ({problem}): {line[:_N_SHOWN]!r}"))
        raise LeftOut from None
    if not isinstance(record, dict):
        report(CorpusProblem("XL020", place, f"expected a JSON object, found {line[:_N_SHOWN]!r}"))
        raise LeftOut
    if record.get("answer", "accept") != "accept":
        return Sentence(())
    if isinstance(record.get("text"), str):
        return _from_text(record, place, split_text, report)
    return _from_words(record, place, tag_reader, report)


def _from_words(record: Mapping[str, Any], place: str, tag_reader: TagReader, report: Report) -> Sentence:
    field = next((name for name in WORD_FIELDS if name in record), None)
    if field is None:
        message = (
            f"expected the fields words and tags, or text and spans; found {', '.join(record)[:_N_SHOWN] or 'none'}"
        )
        report(CorpusProblem("XL021", place, message))
        raise LeftOut
    words = checked_words(record[field], place, report)
    tags = next((record[name] for name in TAG_FIELDS if record.get(name) is not None), None)
    if tags is None or not words:
        return Sentence(words)
    if not isinstance(tags, list) or not all(isinstance(tag, str | None) for tag in tags):
        message = f"expected a list of tags, as words such as B-PER; found {str(tags)[:_N_SHOWN]}"
        report(CorpusProblem("XL021", place, message))
        raise LeftOut
    checked_lengths(words, tags, place, report)
    named = tuple([UNLABELLED if tag is None else tag for tag in tags])
    return Sentence(words, tag_reader.read(named, by_word(place)))


def _from_text(
    record: Mapping[str, Any], place: str, split_text: Callable[[str], WordOffsets], report: Report
) -> Sentence:
    text = checked_text(record["text"], place, report)
    spans = next((record[name] for name in SPAN_FIELDS if isinstance(record.get(name), list)), None)
    try:
        words = _offsets(record["tokens"], len(text)) if record.get("tokens") else split_text(text)
        found = [_span(span, place) for span in spans or ()]
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as problem:  # the last of infinite numbers
        message = (
            f"expected spans as {{start, end, label}} or [start, end, label], and tokens as {{start, end}}, in "
            f"characters; found otherwise ({type(problem).__name__}: {problem})"
        )
        report(CorpusProblem("XL021", place, message))
        raise LeftOut from None
    if spans is None:
        return Sentence(tuple([text[start:end] for start, end in words]))
    return tagged_words(text, words, found, report)


def _offsets(tokens: list[Mapping[str, int]], length: int) -> WordOffsets:
    words = list(in_order((int(token["start"]), int(token["end"])) for token in tokens))
    if words[-1][1] > length:
        raise ValueError(f"a word ends at {words[-1][1]}, behind the text of {length} characters")
    return words


def _span(span: Any, place: str) -> TextSpan:
    start, end, label = (span["start"], span["end"], span["label"]) if isinstance(span, dict) else span
    return TextSpan(str(label), int(start), int(end), place)
