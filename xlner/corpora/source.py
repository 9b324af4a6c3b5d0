"""Corpora of any format as a stream of sentences; files of translations, and of annotations.

Reading holds no more than a few sentences at a time. Tags come out as clean IOB2, whatever the file holds.
"""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from xlner.config.load import choose
from xlner.corpora.columns import SPAN_NAMES, TAG_NAMES, find_name, look_like_tags
from xlner.corpora.conll import read_conll, read_csv
from xlner.corpora.json_records import JsonRecord, fields_of, is_rejected, read_json_records, read_jsonl
from xlner.corpora.lines import (
    SUFFIXES,
    CorpusProblem,
    Located,
    Report,
    everywhere,
    existing_file,
    numbered,
    read_beginning,
    read_chunks,
    read_lines,
    refuse,
    refuse_other_line_ends,
)
from xlner.corpora.mentions import locate, same_letters
from xlner.corpora.spans import (
    ReadingOptions,
    SplitText,
    TextSpan,
    checked_text,
    checked_words,
    split_at_blanks,
    tagged_words,
    visible_label,
)
from xlner.corpora.stored import HUB_PREFIX, read_dataset, read_docbin, read_parquet, split_source
from xlner.errors import CorpusError, is_visible
from xlner.tags import OUTSIDE, to_iob2
from xlner.words import Sentence

_N_SHOWN = 60  # characters of a text that a message shows at most
LINES_SAMPLED = 200  # lines of a text that are looked at, lest they are columns


def read_corpus(
    path: str | Path,
    *,
    format: str = "auto",
    columns: str | tuple[int, int] = "auto",
    scheme: str = "auto",
    encoding: str = "utf-8",
    split_text: SplitText = split_at_blanks,
    labels: str = "",
) -> Iterator[Sentence]:
    """The sentences of a corpus, one after the other, without reading it whole.

    Options and the path are checked at once, the contents as they are read.

    Args:
        path: A file; a folder of brat files; a folder made by `save_to_disk` of `datasets`, as `FOLDER` or
            `FOLDER:SPLIT`; or a data set of the hub, as `hub:NAME`, `hub:NAME:SPLIT` or, with a
            configuration, `hub:OWNER/NAME/CONFIGURATION:SPLIT`.
        format: A key of `FORMATS`, or `auto`: by the suffix.
        columns: `auto`, or the columns of word and tag, from 0 or (below 0) from the end or by name, as in `0,-1`,
            `FORM,NER` or (a key of CoNLL-U's last column) `FORM,MISC:NER`; one alone reads words without tags.
            Records and data sets have fields in their place, by name.
        scheme: `auto` reads IOB1, IOB2, BIOES, BILOU and broken sequences as conlleval does; `strict` refuses
            an `I-X` that does not continue an X; `plain` reads types without prefixes; `ignore` reads no labels,
            and finds no fault with them.
        encoding: Of text files. A byte order mark at the start of UTF-8 is dropped.
        split_text: Formats text, jsonl and brat: where the words of a text are, as `split_words` tells; lines
            without words are skipped.
        labels: The tags that numbers stand for, in the order of the numbers from 0 on: `O,B-PER,I-PER`.

    Raises:
        CorpusError: If there is none, it holds no sentence, or at the first place that does not fit.
        RecipeError: If there is no such format.
    """
    options = ReadingOptions(columns, scheme, encoding, split_text, labels=labels)
    return (sentence for sentence, _ in read_located(path, format, options))


def read_located(path: str | Path, format: str, options: ReadingOptions) -> Iterator[Located]:
    """As `read_corpus`, each sentence with its place, and problems handed to `options.report`."""
    source = str(path)
    name = _format_of(source) if format == "auto" else format
    read = choose(FORMATS, name, "corpus.format")
    return _at_least_one(_with_visible_tags(read(source, options), options.report), source, name, options.report)


def _format_of(source: str) -> str:
    if source.startswith(HUB_PREFIX) or split_source(source)[1]:
        return "dataset"
    if Path(source).is_dir():
        return "brat" if any(Path(source).glob("*.ann")) else "dataset"
    suffix = Path(source).suffix.lower()
    if suffix not in SUFFIXES:
        existing_file(source)
        raise CorpusError(
            f"{source}: the suffix {suffix!r} tells no format; known: {', '.join(SUFFIXES)}, folders of "
            f"`datasets` or brat, and hub:NAME; or set corpus.format to one of {', '.join(FORMATS)}"
        )
    return SUFFIXES[suffix]


def _at_least_one(sentences: Iterator[Located], source: str, name: str, report: Report) -> Iterator[Located]:
    first = next(sentences, None)
    if first is None:
        message = f"no sentence in it; is it empty, or of another format than {name}?"
        report(CorpusProblem("XL004", source, message, "nothing is read"))
        return
    yield first
    yield from sentences


def _with_visible_tags(sentences: Iterator[Located], report: Report) -> Iterator[Located]:
    """The sentences, tags with control characters reported: they would act on terminals and break columns."""
    seen: set[str] = set()
    for sentence, place in sentences:
        tags = sentence.tags or ()
        if not seen.issuperset(tags):
            for position, tag in enumerate(tags):
                if not is_visible(tag):
                    message = f"found tag {tag!a}; expected no control characters, TABs or line ends in it"
                    report(CorpusProblem("XL012", place(position), message, "read as O"))
            tags = to_iob2([tag if is_visible(tag) else OUTSIDE for tag in tags])
            seen.update(set(tags) & set(sentence.tags or ()))
            sentence = Sentence(sentence.words, tags)
        yield Located(sentence, place)


def _read_text(source: str, options: ReadingOptions) -> Iterator[Located]:
    path = existing_file(source)

    def sentences() -> Iterator[Located]:
        first, chunks = read_beginning(path, options.encoding, options.report)
        refuse_other_line_ends(path, first)
        _refuse_columns(path, first)
        for number, line in numbered(chunks):
            if (sentence := options.split(line)).words:
                yield Located(sentence, everywhere(f"{path}:{number}"))

    return sentences()


def _refuse_columns(path: Path, beginning: str) -> None:
    """Refuse columns of words and tags, of which each row would be a sentence."""
    rows = [line.split() for line in beginning.split("\n", LINES_SAMPLED)[:LINES_SAMPLED] if line.strip()]
    # Two lines of text may well have as many words, and end with what could be a tag, such as U-Bahn.
    fewest = 2 if "\t" in beginning else 3
    is_of_columns = len(rows) >= fewest and len({len(row) for row in rows[:-1]} - {1}) == 1 and len(rows[0]) > 1
    if is_of_columns and look_like_tags(row[-1] for row in rows[:-1]):
        raise CorpusError(
            f"{path}: expected a sentence a line, found words and tags in columns: {' '.join(rows[0])[:60]!r}; set "
            "corpus.format=conll"
        )


# brat standoff: `NAME.txt` with `NAME.ann` beside it, a sentence a line. Relations, events, attributes and notes are
# passed over: typed spans alone are read.


def _read_brat(source: str, options: ReadingOptions) -> Iterator[Located]:
    """The sentences of a folder of such files (in the order of their names), or of one `.ann` or `.txt`."""
    path = Path(source)
    notes = sorted(path.glob("*.ann")) if path.is_dir() else [existing_file(source).with_suffix(".ann")]
    if not notes:
        raise CorpusError(f"{path}: no annotation in this folder; expected NAME.txt and NAME.ann")
    missing = [file for note in notes for file in (note, note.with_suffix(".txt")) if not file.is_file()]
    if missing:
        raise CorpusError(f"no file {missing[0]}; brat keeps NAME.txt and NAME.ann side by side")
    return (sentence for note in notes for sentence in _document(note, options))


def _document(notes: Path, options: ReadingOptions) -> Iterator[Located]:
    path, report = notes.with_suffix(".txt"), options.report
    text = "".join(read_chunks(path, options.encoding, report))
    marked = [] if options.ignores_tags else list(_spans(notes, text, options))
    spans = sorted(marked, key=lambda span: span.start)
    start, n_seen = 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        end = start + len(line)
        here = []
        while n_seen < len(spans) and spans[n_seen].start <= end:
            label, first, last, place = spans[n_seen]
            here.append(TextSpan(label, first - start, last - start, place))
            n_seen += 1
        place = f"{path}:{number}"
        if words := options.split_text(line):
            clean = checked_text(line, place, report)
            bare = Sentence(tuple([clean[first:last] for first, last in words]))
            sentence = bare if options.ignores_tags else tagged_words(clean, words, here, report)
            yield Located(sentence, everywhere(place))
        else:
            for label, first, last, place in here:
                message = f"the span {first + start} to {last + start} of type {label!r} holds no word"
                report(CorpusProblem("XL022", place, message, "the span is left out"))
        start = end + 1


def _spans(path: Path, text: str, options: ReadingOptions) -> Iterator[TextSpan]:
    """The text-bound annotations (`T1<TAB>PER 0 5<TAB>words`) that lie within one line of the text."""
    for number, line in read_lines(path, options.encoding, options.report):
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
            options.report(CorpusProblem("XL025", place, message, "the annotation is left out"))
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


# A new format is one function and one line here; recipes name it by its key.
FORMATS: dict[str, Callable[[str, ReadingOptions], Iterator[Located]]] = {
    "conll": read_conll,
    "text": _read_text,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "json": read_jsonl,
    "brat": _read_brat,
    "docbin": read_docbin,
    "parquet": read_parquet,
    "dataset": read_dataset,
}


# Files of translations: a sentence, a TAB and its translation on each line.


def read_pairs(path: str, encoding: str, split_text: SplitText) -> Iterator[tuple[Sentence, Sentence]]:
    """The translations of a file, in order; empty lines are skipped.

    Raises:
        CorpusError: If there is no such file, or at the first line that is no pair.
    """
    n_pairs = 0
    for number, line in read_lines(existing_file(path), encoding):
        if not line.strip():
            continue
        texts = line.split("\t")
        sides = [Sentence(tuple(text[start:end] for start, end in split_text(text))) for text in texts]
        if len(sides) != 2 or not all(side.words for side in sides):
            sides_found = "no SENTENCE" if not sides[0].words else "no TRANSLATION"
            found = f"{len(texts)} columns" if len(texts) != 2 else sides_found
            raise CorpusError(
                f'{path}:{number}: expected "SENTENCE<TAB>TRANSLATION", found {found}: {line[:60]!r}; '
                "remove the line, or cut the columns that are too many"
            )
        n_pairs += 1
        yield sides[0], sides[1]
    if not n_pairs:
        raise CorpusError(f"{path}: expected translations, found no line with text")


# Annotation files: what any annotator said of sentences, as records that find their sentence by its visible characters,
# so that neither white space nor normal forms (NFC, NFD) nor where words are cut matter.
#
#     {"types": ["LOC", "PER"]}                                                  first record, may be left out
#     {"text": "Anna lebt in Kiel.", "spans": [{"start": 13, "end": 17, "label": "LOC", "score": 0.9}]}
#     {"words": ["Anna", "lebt"], "spans": [{"start": 0, "end": 1, "label": "PER"}], "types": ["PER"]}
#
# `entities` is another name for `spans`, so that what `xlner tag` writes is an annotation file. Offsets count
# characters of the text or, where there is none, words, the end excluded. An annotator knows the types of the record,
# else of the first record, else all that occur in the file. Spans without offsets, `{"text": "Kiel", "label": "LOC"}`,
# are looked for in the text, as `mentions.py` says; so are spans whose offsets hold another text than theirs.


_RECORD_KEYS = ("text", "words", "tokens", "spans", "entities", "types")
# Names under which a corpus may have labels, and an annotation file has none.
_OTHER_LABELS = tuple(name for name in (*TAG_NAMES, *SPAN_NAMES) if name not in ("spans", "entities"))
_SPAN_KEYS = ("start", "end", "text", "label", "score")
# A key as near as this to a known one is a slip; others are carried along by whoever wrote the file.
_SLIP = 0.75


class ScoredSpan(NamedTuple):
    """A typed stretch, the end excluded: of visible characters in a record, of words in a sentence."""

    label: str
    start: int
    end: int
    score: float


class OddString(NamedTuple):
    """A string that an annotator found, and that is not marked where it said so: `why` is a key of `ODD_STRINGS`."""

    label: str
    why: str
    shown: str  # the string and its place in the file


# What becomes of strings, as a person is told; `{n}` is how many.
ODD_STRINGS = {
    "missing": "{n} strings stand nowhere in their sentence",
    "covered": "{n} strings give way to a longer or an earlier one",
    "moved": "{n} strings are not what their start and end hold, and are marked where they stand",
}


class Annotation(NamedTuple):
    """What is said of one sentence; `types` are those that the annotator looked for, None for all of the file."""

    spans: tuple[ScoredSpan, ...]
    types: tuple[str, ...] | None
    odd_strings: tuple[OddString, ...] = ()


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

    def about(self, sentences: Iterable[Sequence[str]]) -> str:
        """What of the file speaks of a text, for a person; errors as for `count`."""
        n_sentences, n_astray = self.count(sentences)
        astray = f"; {n_astray:,} speak of no sentence of it" if n_astray else ""
        told = [f"{self.path}: {len(self):,} records, {n_sentences:,} sentences of the text have one{astray}"]
        odd = [one for said in self._records.values() for one in said.odd_strings]
        for why, what in ODD_STRINGS.items():
            if shown := [one.shown for one in odd if one.why == why]:
                told.append(f"{what.format(n=f'{len(shown):,}')}, as {shown[0]}")
        return "; ".join(told)

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
        CorpusError: At the first record that is not as the head of this section says, with its line.
    """
    if not path.is_file():
        raise CorpusError(f"teacher={path}: no such file; expected annotations, one JSON record a line")
    known: tuple[str, ...] | None = None
    records: dict[str, Annotation] = {}
    for number, found in enumerate(read_json_records(path, "utf-8", refuse)):
        if number == 0 and names_types_alone(found.value):
            known = _types(found.value, found.place)
            continue
        if is_rejected(fields_of(found, refuse)):
            continue
        key, said = annotation_of(found, known)
        if said.types is None:
            said = said._replace(types=known)
        if before := records.get(key):
            listed = None if before.types is None or said.types is None else {*before.types, *said.types}
            known_here = None if listed is None else tuple(sorted(listed))
            said = Annotation((*before.spans, *said.spans), known_here, (*before.odd_strings, *said.odd_strings))
        records[key] = said
    if not records:
        raise CorpusError(f"{path}: expected annotations, one JSON record a line; found none")
    # Also of strings that are marked nowhere: they were looked for.
    labels = [one.label for said in records.values() for one in said.spans]
    labels += [one.label for said in records.values() for one in said.odd_strings]
    types = tuple(sorted({*(known or ()), *labels, *(name for said in records.values() for name in said.types or ())}))
    missing = [one.shown for said in records.values() for one in said.odd_strings if one.why == "missing"]
    if missing and not any(said.spans or said.types for said in records.values()):
        raise CorpusError(
            f"{path}: none of its {len(missing):,} strings stands in its sentence, as {missing[0]}; expected strings "
            "that are copied from the text letter by letter, as whole words"
        )
    if not types:
        raise CorpusError(
            f"{path}: no span in {len(records):,} records, and no types; which ones were looked for? "
            '{"types": [...]} as the first record says so'
        )
    records = {key: said if said.types is not None else said._replace(types=types) for key, said in records.items()}
    return Annotations(path, records, types)


def visible(text: str) -> str:
    """The text without white space, control and format characters, by which records find their sentence.

    Letters are decomposed (NFD): then a text has as many visible characters as all of its parts together.
    """
    if text.isascii() and text.isalnum():
        return text
    return unicodedata.normalize("NFD", "".join([char for char in text if not _is_invisible(char)]))


def align(said: Annotation, words: Sequence[str]) -> Alignment:
    """The spans of a record in the words of its sentence.

    A word belongs to a span that covers at least half of its visible characters. Of spans that share a word the one of
    the highest score stays, then the longer one, then the first.
    """
    ends = list(accumulate(len(visible(word)) for word in words))
    starts = [0, *ends[:-1]]
    borders = set(starts), set(ends)

    def is_inside(number: int, span: ScoredSpan) -> bool:
        start, end = starts[number], ends[number]
        return start < end and 2 * (min(end, span.end) - max(start, span.start)) >= end - start

    found, n_cut, n_lost = [], 0, 0
    for span in said.spans:
        n_cut += span.start not in borders[0] or span.end not in borders[1]
        # Of the words that it touches, the first and the last alone may be covered by less than half.
        first, end = bisect_right(ends, span.start), bisect_left(starts, span.end)
        while first < end and not is_inside(first, span):
            first += 1
        while first < end and not is_inside(end - 1, span):
            end -= 1
        if first < end:
            found.append(span._replace(start=first, end=end))
        n_lost += first >= end
    kept: list[ScoredSpan] = []  # in their order in the sentence
    for span in sorted(found, key=lambda span: (-span.score, span.start - span.end, span.start, span.label)):
        place = bisect_left(kept, span.end, key=lambda other: other.start)
        if not place or kept[place - 1].end <= span.start:
            kept.insert(place, span)
    return Alignment(kept, n_cut, n_lost, len(set(found)) - len(kept))


def names_types_alone(record: object) -> bool:
    """Whether a record, as the first of a file, says what was looked for in all of it."""
    return isinstance(record, dict) and record.keys() == {"types"}


def annotation_of(found: JsonRecord, types: tuple[str, ...] | None = None) -> tuple[str, Annotation]:
    """The sentence of a record, by its visible characters, and what is said of it with spans in these.

    Args:
        found: The record.
        types: What its labels may be where it names no types itself; None: anything.

    Raises:
        CorpusError: If it is not as the head of this section says.
    """
    place, record = found.place, dict(fields_of(found, refuse))
    _check_keys(record, _RECORD_KEYS, "a record", place)
    words = record.get("words", record.get("tokens"))
    if "text" not in record and words is None:
        hint = "; patterns are given as patterns=FILE" if "pattern" in record else ""
        _refuse("XL021", place, f"expected text or words; found {', '.join(record) or 'nothing'}{hint}")
    if "spans" in record and "entities" in record:
        _refuse("XL021", place, "found spans and entities; expected one of them: which are the annotations?")
    if "text" in record:
        if not isinstance(record["text"], str):
            _refuse("XL021", place, f"expected a text; found {str(record['text'])[:_N_SHOWN]}")
        text, unit = checked_text(record["text"], place, refuse), "characters"
        parts: Sequence[str] = text
    else:
        parts, unit = checked_words(words, place, refuse), "words"
        text = " ".join(parts)
    key = visible(text)
    if not key:
        _refuse("XL021", place, "a record without a visible character")
    if not {"spans", "entities"} & record.keys():
        _refuse_other_labels(record, place)
    own_types = _types(record, place) if "types" in record else None
    spans = record.get("spans", record.get("entities", []))
    if not isinstance(spans, list):
        _refuse("XL021", place, f"expected a list of spans; found {str(spans)[:_N_SHOWN]}")
    offsets = _visible_offsets(parts)
    looked_for = own_types if own_types is not None else types
    strings: list[dict[str, Any]] = []
    read: list[ScoredSpan] = []
    for span in spans:
        if _is_string(span) or _is_elsewhere(span, parts):
            strings.append(span)
        else:
            read.append(_scored_span(span, place, offsets, unit, looked_for))
    located, odd = _located(strings, place, text, looked_for)
    return key, Annotation((*read, *located), own_types, odd)


def _located(
    strings: Sequence[dict[str, Any]], place: str, text: str, types: tuple[str, ...] | None
) -> tuple[list[ScoredSpan], tuple[OddString, ...]]:
    """Strings at all of their places in a text, in visible characters; and those that are odd."""
    if not strings:
        return [], ()
    read = {(_string(one, place), *_label_and_score(one, place, types)): "start" in one for one in strings}
    offsets = _visible_offsets(text)
    found, odd = [], []
    places_of = locate(text, [string for string, _, _ in read])
    for ((string, label, score), has_offsets), places in zip(read.items(), places_of, strict=True):
        found += [ScoredSpan(label, offsets[start], offsets[end], score) for start, end in places or ()]
        why = "missing" if places is None else "covered" if not places else "moved" if has_offsets else ""
        if why:
            odd.append(OddString(label, why, f"{string[:_N_SHOWN]!r} ({place})"))
    return found, tuple(odd)


def _visible_offsets(parts: Sequence[str]) -> list[int]:
    """How many visible characters stand before each part, and before the end."""
    return [0, *accumulate(len(visible(part)) for part in parts)]


def _is_string(span: Any) -> bool:
    return isinstance(span, dict) and "text" in span and "start" not in span


def _is_elsewhere(span: Any, parts: Sequence[str]) -> bool:
    """Whether a span has a text, and its offsets do not hold it: language models quote better than they count."""
    if not isinstance(span, dict) or not isinstance(span.get("text"), str):
        return False
    start, end = span.get("start"), span.get("end")
    if not isinstance(start, int) or not isinstance(end, int) or not span["text"]:
        return False
    held = ("" if isinstance(parts, str) else " ").join(parts[max(start, 0) : max(end, 0)])
    return held != span["text"] and not same_letters(held, span["text"])


def _string(span: dict[str, Any], place: str) -> str:
    _check_keys(span, _SPAN_KEYS, "a span", place)
    if not isinstance(span["text"], str) or not visible(span["text"]):
        _refuse("XL021", place, f"expected a string as text of a span; found {str(span['text'])[:_N_SHOWN]!r}")
    return span["text"]


def _scored_span(span: Any, place: str, offsets: Sequence[int], unit: str, types: tuple[str, ...] | None) -> ScoredSpan:
    if not isinstance(span, dict) or not {"start", "end"} <= span.keys():
        message = f"expected a span with start, end and label, or with text and label; found {str(span)[:_N_SHOWN]}"
        _refuse("XL021", place, message)
    _check_keys(span, _SPAN_KEYS, "a span", place)
    start, end = span["start"], span["end"]
    if not all(isinstance(offset, int) and not isinstance(offset, bool) for offset in (start, end)):
        _refuse("XL021", place, f"expected start and end as whole numbers; found {start!r} and {end!r}")
    label, score = _label_and_score(span, place, types)
    if not 0 <= start < end < len(offsets):
        message = f"the span {start} to {end} of type {label!r} is none of a text of {len(offsets) - 1} {unit}"
        _refuse("XL022", place, message)
    return ScoredSpan(label, offsets[start], offsets[end], score)


def _label_and_score(span: dict[str, Any], place: str, types: tuple[str, ...] | None) -> tuple[str, float]:
    label, score = span.get("label"), span.get("score", 1.0)
    if not isinstance(label, str) or not visible_label(label):
        _refuse("XL021", place, f"expected a type as label; found {label!r}")
    label = visible_label(label)
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        _refuse("XL025", place, f"the score of a span of type {label!r} is {score!r}; expected a number in [0, 1]")
    if types is not None and label not in types:
        near = get_close_matches(label, types, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        _refuse("XL025", place, f"the label {label!r} is none of the types {', '.join(types) or '(none)'}{hint}")
    return label, float(score)


def _types(record: dict[str, Any], place: str) -> tuple[str, ...]:
    types = record["types"]
    if not isinstance(types, list) or not all(isinstance(name, str) and name.strip() for name in types):
        _refuse("XL021", place, f"expected types as a list of names; found {str(types)[:_N_SHOWN]}")
    return tuple(sorted(set(map(visible_label, types))))


def _refuse_other_labels(record: dict[str, Any], place: str) -> None:
    """Refuse the labels of a corpus: they would count for nothing, and each word as one in no entity."""
    if name := find_name([name for name, value in record.items() if value and isinstance(value, list)], _OTHER_LABELS):
        _refuse(
            "XL021",
            place,
            f"found labels as {name!r}; expected spans; `xlner convert FILE OUT.jsonl --to spans` makes an annotation "
            "file of a corpus",
        )


def _check_keys(found: dict[str, Any], known: Sequence[str], what: str, place: str) -> None:
    for name in found:
        if name not in known and (near := get_close_matches(name, known, n=1, cutoff=_SLIP)):
            _refuse("XL021", place, f"{what} has no key {name!r}; known: {', '.join(known)}; did you mean {near[0]!r}?")


def _is_invisible(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in ("Cc", "Cf")


def _refuse(code: str, place: str, message: str) -> NoReturn:
    refuse(CorpusProblem(code, place, message))
