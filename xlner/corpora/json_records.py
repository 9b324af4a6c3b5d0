"""JSON Lines and JSON: records of words and tags, or of text and spans, as annotation tools write them.

Records are told apart by their fields, whose names `columns.py` lists:

- words and tags: `{"words": [...], "tags": [...]}`, with or without the text that the words stand in; words may be
  objects with a text and a tag;
- words and spans that count words: `{"tokens": [...], "entities": [{"start": 0, "end": 2, "type": "PER"}]}`; GLiNER's
  `tokenized_text` counts the last word in;
- text and spans that count characters: `{"text": "...", "spans": [{"start": 0, "end": 13, "label": "PER"}]}`, or
  `[0, 13, "PER"]`, also as Label Studio (JSON, JSON-MIN), doccano and spaCy 2 (`["...", {"entities": [...]}]`) export
  them. Prodigy's `tokens` (`[{"start": 0, "end": 6}, ...]`) say where the words are, without them the text is split.
  What Prodigy's `answer` does not accept is passed over; what was accepted without a span has none;
- a text alone, unlabelled.

Offsets count characters (Unicode code points). Other fields are not looked at, unless they look like tags or spans:
then the record is refused, lest its labels are lost. A JSON array is held in memory, JSON Lines are not.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from xlner.corpora.columns import (
    END_NAMES,
    LABEL_NAMES,
    SPAN_NAMES,
    START_NAMES,
    TAG_NAMES,
    TEXT_NAMES,
    WORD_NAMES,
    Wanted,
    find_name,
    look_like_tags,
    parse_columns,
    plain_name,
    value_of,
)
from xlner.corpora.lines import (
    CorpusProblem,
    LeftOut,
    Located,
    Report,
    by_word,
    each,
    existing_file,
    numbered,
    read_beginning,
)
from xlner.corpora.mentions import same_letters
from xlner.corpora.spans import (
    UNLABELLED,
    ReadingOptions,
    TagReader,
    TextSpan,
    checked_text,
    checked_words,
    in_order,
    locate_words,
    tagged_words,
    visible_label,
)
from xlner.errors import CorpusError
from xlner.words import Sentence, WordOffsets

# Words as a list of texts; the first name is that of what xlner writes.
WORD_FIELDS = ("words", "tokens")
# Where a file keeps its records, if it is one object.
_RECORDS = ("data", "annotations", "examples", "records", "sentences", "documents", "items", "rows")
# What values of other kinds than expected raise; the last one infinite numbers.
ODD_VALUES = (ValueError, TypeError, KeyError, IndexError, OverflowError)
_EXPECTED_SPANS = (
    "expected spans as {start, end, label} or [start, end, label], and tokens as {start, end}, in characters; found "
    "otherwise"
)
# All that JSON-MIN of Label Studio says of a text that an annotator left without a label.
_UNMARKED = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}
_N_SHOWN = 60


class JsonRecord(NamedTuple):
    """A value of a file, and its place."""

    place: str
    value: Any


class RecordReader:
    """Reads one record after the other."""

    def __init__(self, options: ReadingOptions, wanted: Wanted, tag_reader: TagReader) -> None:
        """Choose how records are read; `wanted` are the fields of words (or text) and tags (or spans), by name."""
        if wanted is not None and not all(name is None or isinstance(name, str) for name in wanted):
            raise CorpusError(
                f"corpus.columns asks for {wanted[0]} and {wanted[1]}; expected names of fields, as in "
                "corpus.columns=tokens,ner_tags"
            )
        self._wanted = wanted
        self._tag_reader = tag_reader
        self._split_text = options.split_text
        self._report = options.report
        # The fields of words and tags of records with these fields and no others that could be tags.
        self._plans: dict[tuple[str, ...], tuple[str, str | None]] = {}
        # The same of texts, of words as offsets (or nothing), and of spans.
        self._text_plans: dict[tuple[str, ...], tuple[str, str | None, str]] = {}
        # The first annotator of each task, in the exports that have a record for each annotator.
        self._annotators: dict[int, str] = {}

    def read(self, found: JsonRecord) -> Located | None:
        """The sentence of a record; None where it has none.

        Raises:
            LeftOut: If it does not fit, and the report returns.
        """
        place, value = found
        if isinstance(value, dict) and self._has_annotator_before(value):
            return None
        sentence = self._planned(value, place) if isinstance(value, dict) else None
        if sentence is None:
            record = fields_of(found, self._report)
            if is_rejected(record):
                return None
            sentence = self._sentence({name: field for name, field in record.items() if field is not None}, place)
        return Located(sentence, by_word(place)) if sentence.words else None

    def _has_annotator_before(self, record: Mapping[str, Any]) -> bool:
        """Whether a record says what a second annotator thinks of a task: only the first one is believed."""
        if "annotation_id" in record and "id" in record:  # JSON-MIN of Label Studio
            # Exports of two projects may use the same numbers, for other texts.
            text_field = self._text_field(record, None)
            task = hash((str(record["id"]), record[text_field] if text_field else ""))
            annotator = str(record["annotation_id"])
        elif "_input_hash" in record and not is_rejected(record):  # Prodigy
            task = hash(str(record["_input_hash"]))
            annotator = str(record.get("_annotator_id") or record.get("_session_id"))
        else:
            return False
        return self._annotators.setdefault(task, annotator) != annotator

    def _planned(self, record: Mapping[str, Any], place: str) -> Sentence | None:
        """The sentence of a record like one before; None where it has to be looked at more closely."""
        names = tuple(record)
        if plan := self._plans.get(names):
            words, tags = record[plan[0]], record[plan[1]] if plan[1] else None
            if isinstance(words, list) and words and isinstance(words[0], str) and (tags or not plan[1]):
                found = checked_words(words, place, self._report)
                if not plan[1]:
                    return Sentence(found)
                if isinstance(tags, list):
                    return self._tagged(found, tags, place)
        elif text_plan := self._text_plans.get(names):
            text_field, word_field, spans_field = text_plan
            text, spans, tokens = record[text_field], record[spans_field], record[word_field] if word_field else None
            if isinstance(text, str) and spans and _may_be_spans(spans) and (tokens is None or _are_offsets(tokens)):
                return self._spanned(checked_text(text, place, self._report), tokens, spans, place)
        return None

    def _sentence(self, record: Mapping[str, Any], place: str) -> Sentence:
        word_field, tag_field = self._fields(record)
        text_field = self._text_field(record, word_field)
        if word_field is not None and not _are_offsets(record[word_field]):
            return self._from_words(record, word_field, tag_field, place)
        if text_field is None:
            found = ", ".join(record)[:_N_SHOWN] or "none"
            self._refuse(f"expected the fields words and tags, or text and spans; found {found}", place)
        return self._from_text(record, text_field, word_field, tag_field, place)

    def _fields(self, record: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """The fields of words, and of the tags or spans that the user asked for."""
        if self._wanted is None:
            lists = [name for name, value in record.items() if isinstance(value, list)]
            word = find_name(lists, WORD_NAMES)
            return word if word is not None else find_name(record, WORD_FIELDS), None
        word, tag = (None if name is None else find_name(record, (plain_name(str(name)),)) for name in self._wanted)
        return (word if word is not None and isinstance(record[word], list) else None), tag

    def _text_field(self, record: Mapping[str, Any], word_field: str | None) -> str | None:
        names = TEXT_NAMES if self._wanted is None else (plain_name(str(self._wanted[0])), *TEXT_NAMES)
        texts = [name for name, value in record.items() if isinstance(value, str) and name != word_field]
        found = find_name(texts, names)
        # A sentence under its own name is a text; elsewhere this is its number.
        return found if found is not None else find_name(texts, ("sentence", "satz", "phrase", "frase"))

    def _from_words(self, record: Mapping[str, Any], field: str, tag_field: str | None, place: str) -> Sentence:
        if record[field] and isinstance(record[field], list) and all(isinstance(w, dict) for w in record[field]):
            record = _unpacked(record, field)
        words = checked_words(record[field], place, self._report)
        others = {name: value for name, value in record.items() if name != field}
        if self._tag_reader.ignores or (self._wanted is not None and self._wanted[1] is None):
            if "answer" not in record and find_name(others, WORD_NAMES) is None:
                self._plans[tuple(record)] = field, None
            return Sentence(words)
        if not words:
            return Sentence(words)
        known: tuple[str, ...] = TAG_NAMES if tag_field is None else (plain_name(tag_field),)
        tags = find_name([name for name, value in others.items() if _may_be_tags(value)], known)
        if tags is not None:
            if "answer" not in record and find_name(others.keys() - {tags}, (*known, *WORD_NAMES)) is None:
                self._plans[tuple(record)] = field, tags
            return self._tagged(words, others[tags], place)
        spans = find_name([name for name, value in others.items() if _may_be_spans(value)], (*SPAN_NAMES, *known))
        if spans is not None:
            return self._from_word_spans(record, words, field, spans, place)
        if odd := find_name([name for name, value in others.items() if not _is_one_class(value)], known):
            self._refuse_tags(others[odd], place)
        self._refuse_unknown(others, field, place)
        return Sentence(words)

    def _tagged(self, words: tuple[str, ...], tags: Sequence[Any], place: str) -> Sentence:
        kinds = set(map(type, tags))
        if not kinds <= {str}:
            if not _may_be_tags(tags):
                self._refuse_tags(tags, place)
            if int in kinds and not self._tag_reader.names:
                names = "numbers get their names by corpus.labels=O,B-TYPE,I-TYPE,..., in the order of the numbers"
                self._refuse_tags(tags, place, f"; {names}")
            tags = [UNLABELLED if tag is None else str(tag) for tag in tags]
        if len(words) != len(tags):
            self._report(CorpusProblem("XL016", place, f"{len(words)} words, but {len(tags)} tags"))
            raise LeftOut
        return Sentence(words, self._tag_reader.read(tuple(tags), by_word(place)))

    def _from_word_spans(
        self, record: Mapping[str, Any], words: tuple[str, ...], field: str, spans_field: str, place: str
    ) -> Sentence:
        """Spans count characters of the text that stands beside the words, and where there is none, words."""
        text_field = self._text_field(record, field)
        if text_field is not None:
            text = checked_text(record[text_field], place, self._report)
            spans = self._spans(record[spans_field], place, text)
            offsets = locate_words(text, words)
            if offsets is None:
                self._refuse(f"the words are not those of the text {text[:_N_SHOWN]!r}; of which are the spans?", place)
            return Sentence(words, tagged_words(text, offsets, spans, self._report).tags)
        spans = self._spans(record[spans_field], place, words)
        n_more = int(plain_name(field) == "tokenizedtext")
        text = " ".join(words)
        offsets = locate_words(text, words) or []
        found = []
        for span in spans:
            end = span.end + n_more
            if 0 <= span.start < end <= len(words):
                found.append(span._replace(start=offsets[span.start][0], end=offsets[end - 1][1]))
                continue
            message = (
                f"the span {span.start} to {span.end} of type {span.label!r} is none of {len(words)} words; "
                "expected the end behind the last word"
            )
            self._report(CorpusProblem("XL022", place, message, "the span is left out"))
        return Sentence(words, tagged_words(text, offsets, found, self._report).tags)

    def _from_text(
        self, record: Mapping[str, Any], text_field: str, word_field: str | None, tag_field: str | None, place: str
    ) -> Sentence:
        text = checked_text(record[text_field], place, self._report)
        offsets = record[word_field] if word_field else None
        if self._tag_reader.ignores or (self._wanted is not None and tag_field is None):
            words = self._words(text, offsets, place)
            return Sentence(tuple([text[start:end] for start, end in words]))
        others = {name: value for name, value in record.items() if name not in (text_field, word_field)}
        known = (plain_name(tag_field),) if tag_field is not None else (*SPAN_NAMES, *TAG_NAMES)
        spans = find_name([name for name, value in others.items() if _may_be_spans(value)], known)
        if spans is None or not others[spans]:
            tags = find_name([name for name, value in others.items() if _may_be_tags_of(text, value)], known)
            if tags is not None:
                return self._tagged(tuple(text.split()), others[tags], place)
        if spans is not None:
            rest = others.keys() - {spans}
            if "answer" not in record and find_name(rest, (*known, *WORD_NAMES, *TEXT_NAMES)) is None:
                self._text_plans[tuple(record)] = text_field, word_field, spans
            return self._spanned(text, offsets, others[spans], place)
        if _is_done(others, has_tokens=word_field is not None):
            return self._spanned(text, offsets, (), place)
        if odd := find_name([name for name, value in others.items() if not _is_one_class(value)], SPAN_NAMES[:3]):
            self._refuse(f"expected spans as {{start, end, label}}; found {str(others[odd])[:_N_SHOWN]}", place)
        self._refuse_unknown(others, text_field, place)
        return Sentence(tuple([text[start:end] for start, end in self._words(text, offsets, place)]))

    def _spanned(self, text: str, offsets: Any, spans: Sequence[Any], place: str) -> Sentence:
        return tagged_words(text, self._words(text, offsets, place), self._spans(spans, place, text), self._report)

    def _words(self, text: str, offsets: Any, place: str) -> WordOffsets:
        try:
            return word_offsets(offsets, len(text)) if offsets else self._split_text(text)
        except ODD_VALUES as problem:
            self._refuse(f"{_EXPECTED_SPANS} ({type(problem).__name__}: {problem})", place)

    def _spans(self, spans: Sequence[Any], place: str, parts: Sequence[str]) -> list[TextSpan]:
        """Spans of a text or of words, in any form of the tools; what holds another text than it says is left out."""
        text = parts if isinstance(parts, str) else ""
        found = list[TextSpan]()
        for span in spans:
            try:
                one, marked = _span(span, place, text)
            except ODD_VALUES as problem:
                reason = str(problem) if isinstance(problem, ValueError) else f"{type(problem).__name__}: {problem}"
                self._refuse(f"{_EXPECTED_SPANS} ({reason})", place)
            if one is None:
                continue
            is_inside = 0 <= one.start < one.end <= len(parts)  # what is not is reported where words are known
            held = "".join(parts[one.start : one.end])
            # Exports of web pages may have the two characters \\n for a line end.
            if is_inside and marked not in ("", held) and not same_letters(marked.replace("\\n", "\n"), held):
                self._report(CorpusProblem("XL025", place, _contradiction(one, held, marked), "the span is left out"))
                continue
            found.append(one)
        return found

    def _refuse_unknown(self, others: Mapping[str, Any], field: str, place: str) -> None:
        """Refuse a record with labels under a name that is not known."""
        for name, value in others.items():
            are_tags = _may_be_tags(value) and look_like_tags(value)
            if are_tags or _are_certainly_spans(value):
                raise CorpusError(
                    f"{place}: the field {name!r} looks like {'tags' if are_tags else 'spans'}, but its name says "
                    f"nothing; set corpus.columns={field},{name}, or corpus.columns={field} to read without labels"
                )

    def _refuse_tags(self, tags: Any, place: str, hint: str = "") -> NoReturn:
        self._refuse(f"expected a list of tags, as words such as B-PER; found {str(tags)[:_N_SHOWN]}{hint}", place)

    def _refuse(self, message: str, place: str) -> NoReturn:
        self._report(CorpusProblem("XL021", place, message))
        raise LeftOut from None


def read_jsonl(source: str, options: ReadingOptions) -> Iterator[Located]:
    """The sentences of a file of records: a record a line, or one JSON value that holds all."""
    path = existing_file(source)
    tag_reader = TagReader(options.scheme, options.report, options.labels)
    reader = RecordReader(options, parse_columns(options.columns), tag_reader)
    return each(read_json_records(path, options.encoding, options.report), reader.read)


def read_json_records(path: Path, encoding: str, report: Report) -> Iterator[JsonRecord]:
    """The records of a file, lines that are no JSON reported."""
    first, chunks = read_beginning(path, encoding, report)
    if _is_one_value(first):
        yield from _of_one_value(path, "".join(chunks), report)
        return
    for number, line in numbered(chunks):
        if not line or line.isspace():
            continue
        place = f"{path}:{number}"
        try:
            yield JsonRecord(place, json.loads(line))
        except (ValueError, RecursionError) as problem:
            report(CorpusProblem("XL020", place, f"no JSON ({problem}): {line[:_N_SHOWN]!r}"))


def _is_one_value(beginning: str) -> bool:
    """Whether a file holds one JSON value, and not one a line."""
    text = beginning.lstrip()
    if text[:1] not in ("[", "{"):
        return False
    line, _, rest = text.partition("\n")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as problem:
        # The line may be broken: a value over several lines ends its first one early, where more must follow.
        bare = line.rstrip()
        goes_on = bare[-1] in ",:[{" and getattr(problem, "pos", 0) >= len(bare)
        return goes_on or (text[0] == "[" and not rest.lstrip().startswith(("{", "[")))
    if rest.strip():
        return False
    return _is_array_of_records(value) or (isinstance(value, dict) and _records_in(value) is not None)


def _is_array_of_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(record_fields(entry) is not None for entry in value[:10])


def _records_in(value: Mapping[str, Any]) -> list[Any] | None:
    """The records of an object that keeps them in one of its fields."""
    if isinstance(value.get("data"), dict) or any(isinstance(value.get(name), str) for name in ("text", "data")):
        return None  # a record itself
    if isinstance(value.get("words", value.get("tokens")), list):
        return None
    return next((value[name] for name in _RECORDS if _is_array_of_records(value.get(name))), None)


def _of_one_value(path: Path, text: str, report: Report) -> Iterator[JsonRecord]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        line = getattr(problem, "lineno", 1)
        report(CorpusProblem("XL020", f"{path}:{line}", f"no JSON ({problem})", "nothing is read"))
        return
    records = value if isinstance(value, list) else _records_in(value) if isinstance(value, dict) else None
    if records is None:
        records = [value]
    for number, record in enumerate(records, 1):
        if record is not None:  # spaCy's annotator leaves out what was skipped
            yield JsonRecord(f"{path}: record {number}", record)


def fields_of(found: JsonRecord, report: Report) -> Mapping[str, Any]:
    """The fields of a record, of whichever tool; LeftOut if it is none, and the report returns."""
    record = record_fields(found.value)
    if record is None:
        shown = json.dumps(found.value, ensure_ascii=False)[:_N_SHOWN]
        report(CorpusProblem("XL020", found.place, f"expected a JSON object, found {shown!r}"))
        raise LeftOut
    return record


def is_rejected(record: Mapping[str, Any]) -> bool:
    """Whether an annotator did not accept what a record says of its text (Prodigy's `reject` and `ignore`)."""
    return bool(record.get("answer", "accept") != "accept")


def record_fields(value: Any) -> Mapping[str, Any] | None:
    """A record as fields, those of Label Studio and of spaCy 2 among them; None if it is none."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict):
        return {"text": value[0], **value[1]}
    if not isinstance(value, dict):
        return None
    content = value.get("data")
    if isinstance(content, dict):
        done = value.get("annotations") or value.get("completions") or []
        if not isinstance(done, list):
            return {**content, "entities": done}  # is refused as what it is
        finished = [one for one in done if isinstance(one, dict) and not one.get("was_cancelled")]
        texts = [field for field in content.values() if isinstance(field, str)]
        named = find_name(content, TEXT_NAMES) is not None or len(texts) != 1
        record = content if named else {**content, "text": texts[0]}
        # Of several annotators the first is believed, as Label Studio's own exports do.
        return record if not finished else {**record, "entities": finished[0].get("result") or []}
    return value


def _are_offsets(words: Any) -> bool:
    """Whether these are Prodigy's tokens, which say where the words of the text are."""
    return isinstance(words, list) and bool(words) and all(isinstance(w, dict) and "start" in w for w in words)


def _unpacked(record: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """A record whose words are objects, as one with a list of texts and a list of tags."""
    words = record[field]
    name, tag = find_name(words[0], (*TEXT_NAMES, *WORD_NAMES)), find_name(words[0], TAG_NAMES)
    if name is None:
        return record
    tags = {} if tag is None else {"ner_tags": [word.get(tag) for word in words]}
    return {**record, **tags, field: [word.get(name) for word in words]}


def _may_be_tags(value: Any) -> bool:
    return isinstance(value, list) and all(
        one is None or (isinstance(one, str | int) and not isinstance(one, bool)) for one in value
    )


def _may_be_tags_of(text: str, value: Any) -> bool:
    """Whether these are tags of the words of a text; classes of a whole text are none."""
    if not value or not _may_be_tags(value):
        return False
    return look_like_tags(value) or (all(isinstance(one, int) for one in value) and len(value) == len(text.split()))


def _may_be_spans(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict | list) for one in value)


def _is_one_class(value: Any) -> bool:
    """Whether this says something of a whole sentence: a number, or a text that is no row of tags."""
    return isinstance(value, int | float) or (isinstance(value, str) and not look_like_tags(value.split()))


def _are_certainly_spans(value: Any) -> bool:
    def fits(one: Any) -> bool:
        if isinstance(one, dict):
            return all(find_name(one, names) is not None for names in (START_NAMES, END_NAMES, LABEL_NAMES))
        if not isinstance(one, list) or len(one) != 3:
            return False
        return isinstance(one[0], int) and isinstance(one[1], int) and isinstance(one[2], str)

    return bool(value) and isinstance(value, list) and all(map(fits, value))


def word_offsets(tokens: Sequence[Mapping[str, Any]], length: int) -> WordOffsets:
    """Where Prodigy's tokens are in a text of this length; one of `ODD_VALUES` if they cannot be."""
    words = list(in_order((int(token["start"]), int(token["end"])) for token in tokens))
    if words[-1][1] > length:
        raise ValueError(f"a word ends at {words[-1][1]}, behind the text of {length} characters")
    return words


def _is_done(others: Mapping[str, Any], *, has_tokens: bool) -> bool:
    """Whether an annotator saw a text and marked nothing: then some tools leave out the field of spans."""
    if others.get("answer") == "accept":  # Prodigy, which gives tokens to those who mark spans
        return has_tokens or str(others.get("_view_id", "")).startswith(("ner", "spans"))
    return "annotation_id" in others and others.keys() <= _UNMARKED


def _span(span: Any, place: str, text: str = "") -> tuple[TextSpan | None, str]:
    """A span in any of the forms of the tools, and the text that it says it holds, if any.

    The span is None for what is none, such as relations of Label Studio. Where it says what it holds, offsets that
    count UTF-16 units, as JavaScript does, are told.
    """
    marked = ""
    if isinstance(span, dict):
        if "from_name" in span or span.get("type") == "relation":  # Label Studio
            if span.get("type") not in ("labels", "hypertextlabels"):
                return None, ""
            span = span["value"]
        marked = span.get("text")
        marked = marked if isinstance(marked, str) else ""
        if "start" in span and "end" in span and "label" in span:  # as most have it, and quick
            start, end, label = span["start"], span["end"], span["label"]
        else:
            start, end = (value_of(span, names) for names in (START_NAMES, END_NAMES))
            if find_name(span, LABEL_NAMES) is None:
                raise ValueError(f"the span {start} to {end} {marked[:_N_SHOWN]!r} has no label")
            label = value_of(span, LABEL_NAMES)
    else:
        start, end, label = span
    if isinstance(label, list):
        if len(label) != 1:
            found = f"the labels {', '.join(map(str, label))}, of which tags hold one" if label else "no label"
            raise ValueError(f"the span {start} to {end} {marked[:_N_SHOWN]!r} has {found}")
        label = label[0]
    if not isinstance(label, str):
        raise TypeError(f"the label {label!r:.40} is no text")
    start, end = _offset(start), _offset(end)
    if marked and not text.isascii() and text[start:end] != marked:
        start, end = _from_utf_16(text, start, end, marked)
    return TextSpan(visible_label(label), start, end, place), marked


def _contradiction(span: TextSpan, held: str, marked: str) -> str:
    return (
        f"the span {span.start} to {span.end} of type {span.label!r} holds {held[:_N_SHOWN]!r}, and says that it is "
        f"{marked[:_N_SHOWN]!r}; do the offsets count bytes or UTF-16 units, or are they of another text? xlner counts "
        "characters, without the end"
    )


def _offset(value: Any) -> int:
    """A number of characters, which may be a text such as "4"; 4.5 is none, nor is true."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise TypeError(f"the offset {value!r} is no whole number")
    return int(value)


def _from_utf_16(text: str, start: int, end: int, marked: str) -> tuple[int, int]:
    """Offsets in UTF-16 units as those in characters, if they then hold what was marked; else as they are."""
    units = text.encode("utf-16-le", "surrogatepass")
    first, last = (len(units[: 2 * place].decode("utf-16-le", "replace")) for place in (start, end))
    return (first, last) if text[first:last] == marked else (start, end)
