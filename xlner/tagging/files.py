"""Files tagged into one output: to the end, or from where an earlier start was stopped."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from xlner.errors import CorpusError, RunError, XlnerError
from xlner.files import write_text
from xlner.tagger import Tagger
from xlner.tagging.bad_records import BadRecords
from xlner.tagging.fingerprints import check_same
from xlner.tagging.reading import InputOptions, read_records
from xlner.tagging.records import EVERYTHING, TaggedRecord, Wanted, in_chunks, tag_records
from xlner.tagging.tables import output_schema
from xlner.tagging.unfinished import Lines, Parts, discard, open_output, unfinished_path

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

    def told(self) -> str:
        """The counts for a person."""
        problems = f", {self.n_problems:,} problems" if self.n_problems else ""
        return f"{self.n_records:,} records, {self.n_words:,} words, {self.n_entities:,} entities{problems}"


class State:
    """`.NAME.state.json` beside a target: what its unfinished output is made of, and how far it is."""

    def __init__(self, target: Path, made_of: dict[str, Any], *, is_kept: bool) -> None:
        """Remember what the output is made of: JSON values, by name.

        Where the state is not kept (of the standard input nobody can tell whether it is the same), it only refuses
        to trample on that of another start.
        """
        self.path = target.with_name(f".{target.name}.state.json")
        self.is_kept = is_kept
        self._target = target
        self._made_of = made_of

    def read(self) -> Progress | None:
        """How far an earlier start came; None if there was none.

        Raises:
            RunError: If it was about something else, or is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            made_of, progress = content["made_of"], Progress(**content["progress"])
        except (ValueError, TypeError, KeyError) as problem:
            raise RunError(f"{self.path}: damaged ({problem}); --fresh begins anew") from problem
        check_same(made_of, self._made_of, self.path, "give the same, or --fresh to begin anew")
        return progress

    def write(self, progress: Progress) -> None:
        """Replace the file as a whole."""
        if not self.is_kept:
            return
        write_text(self.path, json.dumps({"made_of": self._made_of, "progress": asdict(progress)}, indent=1))

    def discard(self) -> None:
        """Remove it, and the unfinished output.

        Raises:
            RunError: If another run is writing that.
        """
        discard(self._target)
        self.path.unlink(missing_ok=True)


class FileTagging:
    """The tagging of some files into one target."""

    def __init__(
        self,
        inputs: Sequence[InputFile],
        target: Path,
        format: str,
        state: State,
        options: InputOptions,
        bad_records: BadRecords,
    ) -> None:
        """Take up an earlier start, or begin.

        Args:
            inputs: The files, in order.
            target: What the output becomes when all is done.
            format: Of the output.
            state: Where to note how far it is.
            options: How to read.
            bad_records: What becomes of them.

        Raises:
            RunError: If an earlier start was about something else, or is still running.
        """
        self.progress = state.read() or Progress()
        if self.progress.is_finished and not target.exists() and not unfinished_path(target).exists():
            self.progress = Progress()  # it was whole, and somebody took it away
        self._inputs = inputs
        self._target = target
        self._format = format
        self._state = state
        self._options = options
        self._bad_records = bad_records
        self._n_problems_before = 0
        self._is_between_chunks = True

    @property
    def can_go_on(self) -> bool:
        """Whether what is done serves the next start."""
        return self._state.is_kept

    def forget(self) -> None:
        """Remove the state: the output is whole, and nothing is left to be taken up."""
        self._state.path.unlink(missing_ok=True)

    def run(self, tagger: Tagger, tell_words: Callable[[int], object], wanted: Wanted = EVERYTHING) -> None:
        """Tag what is left, and give the output its name.

        Args:
            tagger: Of the model that the state knows of.
            tell_words: Gets how many words were tagged, again and again.
            wanted: Which entities are written.

        Raises:
            CorpusError: If an input cannot be read, or the disk refuses. What is done stays for the next start, as it
                does if the process is stopped.
        """
        self._n_problems_before = self.progress.n_problems - self._bad_records.n_found
        try:
            if not self.progress.is_finished or unfinished_path(self._target).exists():
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
        output = open_output(self._target, self._format, self._bad_records, schema, self.progress.position)
        try:
            if not self.progress.is_finished:
                self._tag(output, tagger, tell_words, wanted)
                self.progress = replace(self.progress, is_finished=True)
                self._save(output)
            output.publish(self._target)
        except (KeyboardInterrupt, XlnerError):
            with suppress(OSError, XlnerError):  # the reason of the stop is what matters
                if self._is_between_chunks:
                    self._save(output)
            raise
        finally:
            with suppress(OSError):  # on a full disk closing fails as writing did
                output.close()
            if not self.can_go_on and not self.progress.is_finished:
                discard(self._target)

    def _tag(self, output: Lines | Parts, tagger: Tagger, tell_words: Callable[[int], object], wanted: Wanted) -> None:
        saved = time.monotonic()
        for number in range(self.progress.file, len(self._inputs)):
            for chunk in self._chunks(number):
                tagged = tag_records(tagger, chunk, wanted)
                self._is_between_chunks = False  # Ctrl-C may come between the two lines that follow
                output.add(tagged)
                self.progress = replace(self.progress.plus(tagged), n_problems=self._n_problems())
                self._is_between_chunks = True
                tell_words(sum(len(one.words) for one in tagged))
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._save(output)
                    saved = time.monotonic()
            self.progress = replace(self.progress, file=number + 1, record=0, n_problems=self._n_problems())

    def _n_problems(self) -> int:
        return self._n_problems_before + self._bad_records.n_found

    def _chunks(self, number: int) -> Iterator[list[Any]]:
        name, format = self._inputs[number]
        return in_chunks(read_records(name, format, self._options._replace(n_done=self.progress.record)))

    def _save(self, output: Lines | Parts) -> None:
        position = output.save()
        self.progress = replace(self.progress, position=position)
        self._state.write(self.progress)
