"""The tagging job: inputs tagged into one output, to the end or from where an earlier start was stopped.

What is done of a file is noted in `.NAME.state.json`, and the same command goes on from there. A shard of a corpus
(`shards.py`) is a file without such a state: it is whole, or made anew.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from xlner.backends import is_exported, read_manifest
from xlner.errors import CorpusError, RunError, XlnerError
from xlner.files import private_path, write_text
from xlner.hub import find_file
from xlner.models.settings import is_compact, read_student
from xlner.tag_files.output import (
    BadRecords,
    Lines,
    Parts,
    StandardOutput,
    discard,
    open_output,
    output_schema,
    unfinished_path,
)
from xlner.tag_files.records import (
    CHUNK_RECORDS,
    EVERYTHING,
    STANDARD_INPUT,
    InputOptions,
    TaggedRecord,
    Wanted,
    in_chunks,
    read_records,
    tag_records,
)
from xlner.tagger import Tagger

# Weights and tokenizers in all the forms that models come in; cards and the like do not matter.
_MODEL_SUFFIXES = {".json", ".safetensors", ".onnx", ".data", ".txt", ".model"}
SAVE_SECONDS = 10.0  # between two saves: what is lost at most where the machine stops


class InputFile(NamedTuple):
    """A file to tag, and its format."""

    name: str
    format: str


@dataclass(frozen=True)
class Progress:
    """How far a tagging is: `record` records of input file `file` (from 0), `position` in the output; and counts."""

    file: int = 0
    record: int = 0
    position: int = 0
    n_records: int = 0
    n_words: int = 0
    n_entities: int = 0
    n_problems: int = 0
    is_finished: bool = False

    def plus(self, chunk: Sequence[TaggedRecord]) -> "Progress":
        """With the counts of more records."""
        return replace(
            self,
            record=chunk[-1].record.number,
            n_records=self.n_records + len(chunk),
            n_words=self.n_words + sum(len(tagged.words) for tagged in chunk),
            n_entities=self.n_entities + sum(len(tagged.spans) for tagged in chunk),
        )

    def as_text(self) -> str:
        """The counts for a person."""
        problems = f", {self.n_problems:,} problems" if self.n_problems else ""
        return f"{self.n_records:,} records, {self.n_words:,} words, {self.n_entities:,} entities{problems}"


class Tagging:
    """The tagging of some inputs, in order, and how far it is."""

    def __init__(self, inputs: Sequence[InputFile], options: InputOptions, bad_records: BadRecords) -> None:
        """Begin at the first record of the first input."""
        self.progress = Progress()
        self._inputs = inputs
        self._options = options
        self._bad_records = bad_records
        self._is_between_chunks = True

    def tag(
        self,
        output: Lines | Parts | StandardOutput,
        tagger: Tagger,
        tell_words: Callable[[int], object],
        wanted: Wanted = EVERYTHING,
    ) -> None:
        """Tag what is left.

        Args:
            output: Gets the tagged records.
            tagger: The model.
            tell_words: Gets how many words were tagged, again and again.
            wanted: Which entities are written.
        """
        saved, n_before = time.monotonic(), self.progress.n_problems - self._bad_records.n_found
        for number in range(self.progress.file, len(self._inputs)):
            name, format = self._inputs[number]
            records = read_records(name, format, self._options._replace(n_done=self.progress.record))
            # A person at a terminal waits for each line.
            n_records = 1 if name == STANDARD_INPUT and sys.stdin.isatty() else CHUNK_RECORDS
            for chunk in in_chunks(records, n_records):
                tagged = tag_records(tagger, chunk, wanted)
                self._is_between_chunks = False  # Ctrl-C may come between the two lines that follow
                output.add(tagged)
                n_problems = n_before + self._bad_records.n_found
                self.progress = replace(self.progress.plus(tagged), n_problems=n_problems)
                self._is_between_chunks = True
                tell_words(sum(len(one.words) for one in tagged))
                if time.monotonic() - saved > SAVE_SECONDS:
                    self.save(output)
                    saved = time.monotonic()
            n_problems = n_before + self._bad_records.n_found
            self.progress = replace(self.progress, file=number + 1, record=0, n_problems=n_problems)

    def save(self, output: Lines | Parts | StandardOutput) -> None:
        """Note how far it is, where that is of use."""


class FileTagging(Tagging):
    """The tagging of some inputs into one file."""

    def __init__(
        self,
        inputs: Sequence[InputFile],
        target: Path,
        format: str,
        options: InputOptions,
        bad_records: BadRecords,
        state: "State | None" = None,
    ) -> None:
        """Take up an earlier start, or begin.

        Without a state nothing is taken up: a shard is made anew if it is not whole.

        Raises:
            RunError: If an earlier start was about something else, or is still running.
        """
        super().__init__(inputs, options, bad_records)
        self.progress = (state and state.read()) or Progress()
        # Two nodes may make one shard, where one is taken for lost: they must not write into one file.
        self._unfinished = unfinished_path(target) if state else private_path(target)
        if self.progress.is_finished and not target.exists() and not self._unfinished.exists():
            self.progress = Progress()  # it was whole, and somebody took it away
        self._target = target
        self._format = format
        self._state = state

    @property
    def can_go_on(self) -> bool:
        """Whether what is done serves the next start: of a shard, what is done of the corpus."""
        return self._state is None or self._state.is_kept

    def forget(self) -> None:
        """Remove the state: the output is whole, and nothing is left to be taken up."""
        if self._state is not None:
            self._state.path.unlink(missing_ok=True)

    def run(self, tagger: Tagger, tell_words: Callable[[int], object], wanted: Wanted = EVERYTHING) -> None:
        """Tag what is left, and give the output its name; the arguments are those of `tag`.

        Raises:
            CorpusError: If an input cannot be read, or the disk refuses. What is done stays for the next start, as it
                does if the process is stopped.
        """
        try:
            if not self.progress.is_finished or self._unfinished.exists():
                self._run(tagger, tell_words, wanted)
        except OSError as problem:
            kept = (
                "what is done is kept, and the same command goes on from there" if self.can_go_on else "nothing is kept"
            )
            reason = problem.strerror or problem
            raise CorpusError(f"{self._target}: cannot be written: {reason}; {kept}") from problem

    def _run(self, tagger: Tagger, tell_words: Callable[[int], object], wanted: Wanted) -> None:
        first = self._inputs[0]
        schema = output_schema(first.name) if self._format == first.format == "parquet" else None
        self._target.parent.mkdir(parents=True, exist_ok=True)
        output = open_output(self._unfinished, self._format, self._bad_records, schema, self.progress.position)
        try:
            if not self.progress.is_finished:
                self.tag(output, tagger, tell_words, wanted)
                self.progress = replace(self.progress, is_finished=True)
                self._save(output)
            output.publish(self._target)
        except (KeyboardInterrupt, XlnerError):
            with suppress(OSError, XlnerError):  # the reason of the stop is what matters
                if self._is_between_chunks:
                    self.save(output)
            raise
        finally:
            with suppress(OSError):  # on a full disk closing fails as writing did
                output.close()
            if not self.progress.is_finished and (self._state is None or not self._state.is_kept):
                discard(self._unfinished)

    def save(self, output: Lines | Parts | StandardOutput) -> None:
        """Have what is done on the disk, and note how far it is."""
        if self._state is not None and not isinstance(output, StandardOutput):
            self._save(output)

    def _save(self, output: Lines | Parts) -> None:
        self.progress = replace(self.progress, position=output.save())
        if self._state is not None:
            self._state.write(self.progress)


class State:
    """`.NAME.state.json` beside a target: what its unfinished output is made of, and how far it is."""

    def __init__(self, target: Path, depends_on: dict[str, Any], *, is_kept: bool) -> None:
        """Remember what the output is made of: JSON values, by name.

        Where it is not kept (of the standard input nobody can tell whether it is the same), it only refuses to trample
        on that of another start.
        """
        self.path = target.with_name(f".{target.name}.state.json")
        self.is_kept = is_kept
        self._target = target
        self._depends_on = depends_on

    def read(self) -> Progress | None:
        """How far an earlier start came; None if there was none.

        Raises:
            RunError: If it was about something else, or is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            depends_on = content["made_of"] if "made_of" in content else content["depends_on"]  # as 0.1.0 called it
            progress = Progress(**content["progress"])
        except (ValueError, TypeError, KeyError) as problem:
            raise RunError(f"{self.path}: damaged ({problem}); --fresh begins anew") from problem
        check_same(depends_on, self._depends_on, self.path, "give the same, or --fresh to begin anew")
        return progress

    def write(self, progress: Progress) -> None:
        """Replace the file as a whole."""
        if not self.is_kept:
            return
        write_text(self.path, json.dumps({"depends_on": self._depends_on, "progress": asdict(progress)}, indent=1))

    def discard(self) -> None:
        """Remove it, and the unfinished output.

        Raises:
            RunError: If another run is writing that.
        """
        discard(unfinished_path(self._target))
        self.path.unlink(missing_ok=True)


# What a tagging depends on: which model, which inputs. Work is taken up again only where they are the same.


def model_fingerprint(name: str) -> str:
    """A short hash of the files of a model folder, the same for a copy elsewhere; of a hub name its revision.

    Raises:
        ModelError: If there is no such model, or it is no tagger.
    """
    if is_compact(Path(name)):
        read_student(Path(name))
    elif is_exported(Path(name)):
        read_manifest(Path(name))
    else:
        from xlner.models.token_classifier import read_labels  # brings torch and transformers, seconds

        read_labels(name)
    if not Path(name).is_dir():
        config = find_file(name, "config.json")
        return f"{name}@{config.parent.name if config else ''}"  # a snapshot's folder is named after its revision
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(name).iterdir() if path.suffix in _MODEL_SUFFIXES and path.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:12]


def file_marks(names: Iterable[str]) -> list[dict[str, Any]]:
    """Name, size and time of change of each file.

    Raises:
        CorpusError: If one is not there.
    """
    marks = []
    for name in names:
        try:
            status = Path(name).stat()
        except OSError as problem:
            raise CorpusError(f"{name}: cannot be read: {problem.strerror}") from problem
        marks.append({"name": name, "size": status.st_size, "mtime_ns": status.st_mtime_ns})
    return marks


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], where: Path, way_out: str) -> None:
    """Refuse to go on with what was begun otherwise: with the name of the first thing that differs.

    Raises:
        RunError: If something does.
    """
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name):
            difference = _difference(before.get(name), now.get(name))
            raise RunError(f"{where} was begun with another {name} ({difference}); {way_out}")


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list):
        names = [[mark["name"] for mark in marks] for marks in (before, now)]
        if names[0] == names[1]:
            changed = next(new["name"] for old, new in zip(before, now, strict=True) if old != new)
            return f"{changed} has changed since"
        before, now = (", ".join(some[:3]) + (" ..." if len(some) > 3 else "") for some in names)
    return f"then {before}, now {now}"
