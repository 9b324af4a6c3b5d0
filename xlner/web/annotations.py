"""The file of corrections that `xlner serve --annotations` keeps: JSON Lines, a record for each sentence.

A record is read as labels (a corpus of text and spans), as what a teacher says (an annotation file), and by any tool
that reads Prodigy's form. A new sentence is appended; a sentence that is there gets its record replaced, since readers
take several records of one sentence for several sentences, or for several annotators. Any number of processes may save.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from xlner.corpora.columns import SPAN_NAMES, TAG_NAMES, TEXT_NAMES, WORD_NAMES, find_name
from xlner.corpora.json_records import JsonRecord, is_rejected, record_fields
from xlner.corpora.source import Annotation, annotation_of, names_types_alone, visible
from xlner.corpora.write import record_of_spans
from xlner.errors import CorpusError, RunError, disk_errors
from xlner.files import append_line, flush, json_digest, locked, replaced
from xlner.tags import Span
from xlner.words import WordOffsets, split_words

_SUFFIXES = (".jsonl", ".ndjson")  # by which the file is read as a corpus
# What a correction says anew; Prodigy's `answer` is one of them, since who corrects a sentence accepts it.
_LABELS = (*TEXT_NAMES, *WORD_NAMES, *TAG_NAMES, *SPAN_NAMES, "types", "answer")
_LINE = re.compile(r"[^\r\n]+")


class TextLine(NamedTuple):
    """A line of a text, which is a sentence: where it begins in the text, and its words, counted from there."""

    start: int
    text: str
    words: WordOffsets

    @property
    def key(self) -> str:
        """By which records find their sentence."""
        return visible(self.text)


class ChangedError(Exception):
    """Something else has been saved of a sentence than whoever corrected it has seen."""


class _Content(NamedTuple):
    """What a file holds; the key of a line that speaks of no sentence is empty."""

    lines: Sequence[tuple[str, str]] = ()  # key and line
    said: Mapping[str, Annotation] = {}  # by key; of several records all that they say
    ends: bool = True  # whether its last line has an end, so that another one can follow

    def version_of(self, keys: Iterable[str]) -> str:
        """Another one, if another thing is said of these sentences."""
        return json_digest([self.said.get(key) for key in dict.fromkeys(keys)])[:16]


def lines_of(text: str, splitter: str) -> list[TextLine]:
    """The lines of a text that hold words, as a corpus of raw text has them: a sentence a line."""
    found = [TextLine(match.start(), match[0], split_words(match[0], splitter)) for match in _LINE.finditer(text)]
    return [line for line in found if line.words]


class AnnotationFile:
    """The file; it is read anew whenever another process has changed it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._target = Path(os.path.realpath(path))
        self._lock = self._target.with_name(f".{self._target.name}.lock")
        self._read: tuple[tuple[int, ...], _Content] = (), _Content()

    def check(self) -> None:
        """See whether corrections can be saved, before anybody makes some.

        Raises:
            CorpusError: If a file is there that holds anything but annotations.
            RunError: If the file or its folder cannot be written, or its name does not tell JSON Lines.
        """
        if self.path.suffix not in _SUFFIXES:
            raise RunError(f"{self.path}: expected a name that ends in {' or '.join(_SUFFIXES)}, as what it will hold")
        if self.path.exists() and not self.path.is_file():
            raise RunError(f"{self.path}: is no file; expected one to save corrections in, or nothing")
        with disk_errors(self.path, ""):
            self._target.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock, lambda: None), disk_errors(self.path, ""):
            if self.path.exists():
                self.path.open("ab").close()
        self._content()

    def said_of(self, lines: Sequence[TextLine]) -> tuple[list[Annotation | None], str]:
        """What is saved of each sentence, None for nothing, and the version of it that `save` asks for.

        Raises:
            CorpusError: If the file cannot be read, or has become anything but annotations.
        """
        content, keys = self._content(), [line.key for line in lines]
        return [content.said.get(key) for key in keys], content.version_of(keys)

    def types(self) -> set[str]:
        """The types that occur in the file; errors as of `said_of`."""
        return {span.label for said in self._content().said.values() for span in said.spans}

    def save(
        self, lines: Sequence[TextLine], entities: Sequence[Sequence[Span]], types: Collection[str], version: str | None
    ) -> tuple[int, str]:
        """Have what is true of sentences on the disk: all of it, or nothing.

        Args:
            lines: The sentences, those that are the same with the same entities.
            entities: Of each, in its words, in order and without overlaps.
            types: That were looked for.
            version: What `said_of` gave when the corrections began; None replaces whatever is there.

        Returns:
            How many records are new, and the version.

        Raises:
            ChangedError: If other things have been saved of the sentences since then; nothing is changed.
            CorpusError: As `said_of`.
            RunError: If the disk refuses.
        """
        corrected = {
            line.key: record_of_spans(line.text, line.words, spans) | {"types": sorted(types)}
            for line, spans in zip(lines, entities, strict=True)
        }
        with locked(self._lock, lambda: None):
            content = self._content()
            before: dict[str, list[str]] = {}
            for key, line in content.lines:
                before.setdefault(key, []).append(line)
            records = {
                key: json.dumps(record | _of_other_tools(before.get(key, ())), ensure_ascii=False)
                for key, record in corrected.items()
            }
            changed = {key: record for key, record in records.items() if before.get(key) != [record]}
            if changed and version not in (None, content.version_of(records)):
                raise ChangedError
            if changed and content.ends and before.keys().isdisjoint(changed):
                append_line(self._target, "\n".join(changed.values()))
                with disk_errors(self.path, ""):
                    flush(self._target)
                    flush(self._target.parent)
            elif changed:
                kept = [line for key, line in content.lines if key not in changed]
                with replaced(self._target) as unfinished:
                    text = "".join(f"{line}\n" for line in [*kept, *changed.values()])
                    unfinished.write_text(text, encoding="utf-8", newline="")
            return len(changed), self._content().version_of(records)

    def _content(self) -> _Content:
        try:
            found = self._target.stat()
            state = (found.st_ino, found.st_size, found.st_mtime_ns)
            if state != self._read[0]:  # what is written while it is read is read the next time
                self._read = state, _parsed(self.path, self._target.read_bytes())
        except FileNotFoundError:
            self._read = (), _Content()
        except OSError as problem:
            raise CorpusError(f"{self.path}: cannot be read: {problem.strerror or problem}") from problem
        return self._read[1]


def _of_other_tools(lines: Iterable[str]) -> dict[str, Any]:
    """The fields of a sentence's records that say nothing of its entities, such as another tool's `meta` and hashes."""
    found: dict[str, Any] = {}
    for line in lines:
        fields = record_fields(json.loads(line)) or {}
        found |= {name: field for name, field in fields.items() if find_name([name], _LABELS) is None}
    return found


def _parsed(path: Path, written: bytes) -> _Content:
    """The content of a file; a last line without an end, and that is no JSON, was torn and is left out."""
    try:
        lines = written.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as problem:
        raise CorpusError(f"{path}: byte {problem.start} is not of UTF-8; expected annotations in UTF-8") from problem
    keyed: list[tuple[str, str]] = []
    said: dict[str, Annotation] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place, key = f"{path}:{number}", ""
        try:
            record = JsonRecord(place, json.loads(line))
        except (ValueError, RecursionError) as problem:
            if number == len(lines):
                break
            raise CorpusError(f"{place}: no JSON ({problem}); expected an annotation a line") from problem
        if keyed or not names_types_alone(record.value):
            key, one = annotation_of(record)
            if before := said.get(key):
                one = Annotation((*before.spans, *one.spans), None)
            if not is_rejected(record_fields(record.value) or {}):
                said[key] = one
        keyed.append((key, line))
    return _Content(keyed, said, ends=not lines[-1].strip())
