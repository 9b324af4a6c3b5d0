"""The tagging job: inputs tagged into one output, to the end or from where an earlier start was stopped.

A corpus is cut into shards, each a range of one input file that becomes one output file, whole or not at all; so any
number of processes, also on nodes that share a disk, tags it. A single file is one shard that streams: what is done of
it is noted in `.NAME.state.json`, and the same command goes on from there.
"""

import glob
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from xlner import __version__
from xlner.config.schema import TagRecipe
from xlner.errors import CorpusError, RunError, XlnerError
from xlner.files import locked, remove_unfinished, write_text
from xlner.models.folder import find_file
from xlner.models.settings import is_compact, read_student
from xlner.models.token_classifier import read_labels
from xlner.tag_files.output import (
    OUTPUT_SUFFIXES,
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
    parquet_rows,
    read_records,
    tag_records,
)
from xlner.tagger import Tagger, load_tagger

# Weights and tokenizers in all the forms that models come in; cards and the like do not matter.
_MODEL_SUFFIXES = {".json", ".safetensors", ".onnx", ".data", ".txt", ".model"}
SAVE_SECONDS = 10.0  # between two saves: what is lost at most where the machine stops
# Longer than the first process may take to look at the input while the others wait.
WAIT = timedelta(days=7)
STATE_FOLDER = ".shards"  # in the output folder: the plan, the lock, and a manifest for each shard
# The formats of corpora that are cut, by suffix; Parquet becomes Parquet, all else JSON Lines.
SHARDED = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text"}


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
        if self.progress.is_finished and not target.exists() and not unfinished_path(target).exists():
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
                discard(self._target)

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
        discard(self._target)
        self.path.unlink(missing_ok=True)


# What a tagging depends on: which model, which inputs. Work is taken up again only where they are the same.


def model_fingerprint(name: str) -> str:
    """A short hash of the files of a model folder, the same for a copy elsewhere; of a hub name its revision.

    Raises:
        ModelError: If there is no such model, or it is no tagger.
    """
    if is_compact(Path(name)):
        read_student(Path(name))
    else:
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


# A corpus in shards. Where a shard ends depends on the input and the size of shards alone, so that any number of
# processes makes the same files.


class Shard(NamedTuple):
    """Part of an input file: its rows (Parquet) or the lines that begin in its bytes, `last` excluded.

    `name` is its output file within the output folder.
    """

    source: str
    first: int
    last: int
    name: str


def input_files(pattern: str) -> dict[str, str]:
    """The files of a file, folder (with all in it) or glob, and their names below the folder that they share, in order.

    Raises:
        CorpusError: If there is none.
    """
    if os.path.isdir(pattern):
        paths = [str(path) for path in Path(pattern).rglob("*")]
        root = pattern
    else:
        paths = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
        root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]) if paths else ""
    found = sorted(path for path in paths if Path(path).suffix.lower() in SHARDED and os.path.isfile(path))
    if not found:
        raise CorpusError(f"input={pattern}: no file there that ends in {', '.join(SHARDED)}")
    return {path: os.path.relpath(path, root) for path in found}


def plan_shards(files: dict[str, str], shard_bytes: float) -> list[Shard]:
    """Cut files, as `input_files` gives them, into shards of about so many bytes on the disk.

    Raises:
        CorpusError: If two outputs would have one name, or a file is damaged.
    """
    shards: list[Shard] = []
    for source, name in files.items():
        suffix = Path(source).suffix.lower()
        format = SHARDED[suffix]
        size = parquet_rows(source) if format == "parquet" else os.path.getsize(source)
        n_shards = max(1, min(size, math.ceil(os.path.getsize(source) / shard_bytes)))
        for number in range(n_shards):
            bounds = size * number // n_shards, size * (number + 1) // n_shards
            stem = f"{name.removesuffix(Path(name).suffix)}-{number:05}-of-{n_shards:05}"
            shards.append(Shard(source, *bounds, stem + OUTPUT_SUFFIXES[_output_format(format)]))
    names = [shard.name for shard in shards]
    if twice := next((name for name in names if names.count(name) > 1), "") if len(set(names)) < len(names) else "":
        raise CorpusError(f"two input files would become {twice}; rename one, or tag them into two folders")
    return shards


def tag_corpus(recipe: TagRecipe) -> Path:
    """Tag what is left of a corpus; the output folder.

    The first process looks at input and output and tells the others which shards are left; from then on each works for
    itself. A shard is done when `.shards/NAME.json` stands in the output folder, which is written behind the shard.

    Raises:
        RunError: If the folder is in use, holds something else than the beginning of this, or the disk refuses.
        CorpusError: If the input cannot be read.
        ModelError: If the model cannot be loaded.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from xlner.models.inference import share_of_cores

    folder = Path(recipe.output)
    uses_cpu = recipe.cpu or not torch.cuda.is_available()
    processes = PartialState(cpu=uses_cpu, timeout=WAIT)
    if uses_cpu:
        torch.set_num_threads(recipe.threads or share_of_cores())
    with ExitStack() as locks:
        announced = [_announcement(recipe, folder, locks) if processes.is_main_process else None]
        if processes.num_processes > 1:
            broadcast_object_list(announced)
        message, shards, left = announced[0] or ("", [], [])
        if message:
            raise RunError(message)
        if processes.num_processes > 1:
            if not processes.is_main_process:
                _hold(folder, f"lock-{processes.process_index}", locks)
            processes.wait_for_everyone()
            processes.destroy_process_group()  # nobody has to wait for anybody from here on
        device, mine = str(processes.device), left[processes.process_index :: processes.num_processes]
        if processes.is_main_process:
            where = f"{processes.num_processes} process(es) on {device}"
            _tell(f"{folder}: {len(left):,} of {len(shards):,} shards to tag; {where}")
        if mine:
            tagger = load_tagger(recipe.model, device=device, batch_pieces=recipe.batch_pieces or None)
            _tag_shards(tagger, mine, folder, stops=recipe.on_error == "stop", shows_progress=processes.is_main_process)
        _tell_when_whole(folder, shards)
    return folder


def _announcement(recipe: TagRecipe, folder: Path, locks: ExitStack) -> tuple[str, list[Shard], list[Shard]]:
    """What the first process tells the others: why there is nothing to do, or all shards and those that are left."""
    try:
        if folder.is_dir() and os.listdir(folder) and not (folder / STATE_FOLDER).is_dir():
            raise RunError(f"{folder}: holds files that are no tagged corpus; give another output=")
        files = input_files(recipe.input)
        if os.path.isdir(recipe.input) and folder.resolve().is_relative_to(Path(recipe.input).resolve()):
            raise RunError(
                f"{folder}: lies inside the input folder, and would be input the next time; give another output="
            )
        shards = plan_shards(files, recipe.shard_megabytes * 1e6)
        depends_on = {
            "input": file_marks(files),
            "model": model_fingerprint(recipe.model),
            "shard_megabytes": recipe.shard_megabytes,
            "version of xlner": __version__,
        }
        _hold(folder, "lock", locks)
        for path in (folder / STATE_FOLDER).glob("lock-*"):  # of a run whose first process has ended
            with ExitStack() as other:
                _hold(folder, path.name, other)
        _check_plan(folder, depends_on)
        left = [shard for shard in shards if not _is_published(folder, shard)]
        remove_unfinished(folder / shard.name for shard in left)  # of processes that were killed
        return "", shards, left
    except XlnerError as problem:
        return str(problem), [], []
    except OSError as problem:
        return f"{folder}: cannot be written: {problem.strerror or problem}", [], []


def _hold(folder: Path, name: str, locks: ExitStack) -> None:
    """Keep other runs out of the output folder for as long as this process works."""

    def refuse() -> None:
        raise RunError(f"{folder}: another run is tagging into it at this moment; give another output=")

    (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    locks.enter_context(locked(folder / STATE_FOLDER / name, refuse))


def _check_plan(folder: Path, depends_on: dict[str, Any]) -> None:
    """Hold what was begun here against what is asked for now; note it if nothing was begun."""
    path = folder / STATE_FOLDER / "plan.json"
    if not path.is_file():
        _write_json(path, depends_on)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise RunError(f"{path}: damaged ({problem}); give another output=") from problem
    check_same(before, depends_on, folder, "give the same, or another output=")


def _tag_shards(tagger: Tagger, shards: Sequence[Shard], folder: Path, *, stops: bool, shows_progress: bool) -> None:
    from tqdm import tqdm

    with tqdm(unit=" words", unit_scale=True, disable=None if shows_progress else True, dynamic_ncols=True) as bar:
        bad_records = BadRecords(stops=stops, tell=_tell, way_out="on_error=skip")
        options = InputOptions(bad_records.report)
        for shard in shards:
            source = InputFile(shard.source, SHARDED[Path(shard.source).suffix.lower()])
            target = folder / shard.name
            bounded = options._replace(bounds=(shard.first, shard.last))
            work = FileTagging([source], target, _output_format(source.format), bounded, bad_records)
            work.run(tagger, bar.update)
            done = work.progress
            content = {"shard": shard._asdict(), "bytes": target.stat().st_size, "records": done.n_records}
            content |= {"words": done.n_words, "entities": done.n_entities, "problems": done.n_problems}
            _write_json(_manifest(folder, shard), content)


def _output_format(format: str) -> str:
    return "parquet" if format == "parquet" else "jsonl"


def _manifest(folder: Path, shard: Shard) -> Path:
    return folder / STATE_FOLDER / f"{shard.name}.json"


def _is_published(folder: Path, shard: Shard) -> bool:
    """Whether a shard is there as its manifest says."""
    path, manifest = folder / shard.name, _manifest(folder, shard)
    if not path.is_file() or not manifest.is_file():
        return False
    try:
        n_bytes = json.loads(manifest.read_text(encoding="utf-8"))["bytes"]
    except (ValueError, KeyError, TypeError):  # cut short, where the machine stopped
        return False
    return bool(path.stat().st_size == n_bytes)


def _tell_when_whole(folder: Path, shards: Sequence[Shard]) -> None:
    """The counts of the corpus, told by whoever publishes the last shard."""
    if not all(_is_published(folder, shard) for shard in shards):
        return
    found = [json.loads(_manifest(folder, shard).read_text(encoding="utf-8")) for shard in shards]
    totals = [f"{sum(one[name] for one in found):,} {name}" for name in ("records", "words", "entities", "problems")]
    _tell(f"{folder}: whole: {len(shards):,} shards, {', '.join(totals)}")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1))


def _tell(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
