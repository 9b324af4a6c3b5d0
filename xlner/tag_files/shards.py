"""Corpora beyond one machine: shards, each a range of one input file, over processes and nodes that share a disk."""

import glob
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from xlner import __version__
from xlner.config.schema import TagRecipe
from xlner.errors import CorpusError, RunError, XlnerError
from xlner.files import locked, remove_unfinished, replaced, write_text
from xlner.tag_files.job import Progress, check_same, file_marks, model_fingerprint
from xlner.tag_files.output import GROUP_ROWS, BadRecords, as_json, output_schema, records_table
from xlner.tag_files.records import (
    InputOptions,
    Record,
    TaggedRecord,
    in_chunks,
    json_records,
    parquet_records,
    parquet_rows,
    tag_records,
    text_records,
)
from xlner.tagger import Tagger, load_tagger

if TYPE_CHECKING:
    from pyarrow import Schema


# Shards: a range of one input file each, which one process tags into one output file, whole or not at all.
#
# Where a shard ends depends on the input and the size of shards alone: any number of processes makes the same files.


_BLOCK = 1 << 20  # bytes read at once in the search for a line end


class Shard(NamedTuple):
    """Part of an input file: its rows (Parquet) or the lines that begin in its bytes, `last` excluded.

    `name` is its output file within the output folder.
    """

    source: str
    first: int
    last: int
    name: str


def input_files(pattern: str) -> dict[str, str]:
    """The files of a corpus, and the name of each below the folder that they share, in order.

    Args:
        pattern: A file, a folder (with all in it), or a glob.

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
    """Cut files into shards of about equal size.

    Args:
        files: As `input_files` gives them.
        shard_bytes: Of the input, as it lies on the disk.

    Raises:
        CorpusError: If two outputs would have one name, or a file is damaged.
    """
    shards: list[Shard] = []
    for source, name in files.items():
        suffix = Path(source).suffix.lower()
        size = SHARDED[suffix].size(source)
        n_shards = max(1, min(size, math.ceil(os.path.getsize(source) / shard_bytes)))
        for number in range(n_shards):
            bounds = size * number // n_shards, size * (number + 1) // n_shards
            stem = f"{name.removesuffix(Path(name).suffix)}-{number:05}-of-{n_shards:05}"
            shards.append(Shard(source, *bounds, stem + SHARDED[suffix].output_suffix))
    names = [shard.name for shard in shards]
    if twice := next((name for name in names if names.count(name) > 1), "") if len(set(names)) < len(names) else "":
        raise CorpusError(f"two input files would become {twice}; rename one, or tag them into two folders")
    return shards


def tag_shard(
    tagger: Tagger, shard: Shard, folder: Path, bad_records: BadRecords, tell_words: Callable[[int], object]
) -> Progress:
    """Tag a shard; its file appears in the folder when it is whole.

    Returns:
        The counts.

    Raises:
        CorpusError: If a record cannot be read.
        RunError: If the disk refuses.
    """
    kind = SHARDED[Path(shard.source).suffix.lower()]
    counts = Progress()

    def tagged_chunks() -> Iterator[list[TaggedRecord]]:
        nonlocal counts
        for chunk in in_chunks(kind.read(shard, InputOptions(bad_records.report))):
            tagged = tag_records(tagger, chunk)
            counts = counts.plus(tagged)
            tell_words(sum(len(one.words) for one in tagged))
            yield tagged

    with replaced(folder / shard.name) as unfinished:
        kind.write(tagged_chunks(), unfinished, shard)
    return counts


class _LineRange(RawIOBase):
    """The bytes of the lines of a file that begin in a range of bytes."""

    def __init__(self, path: str, first: int, last: int) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - `close` closes it
        self._end = self._line_start(last)
        self._file.seek(self._line_start(first))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(min(len(buffer), max(self._end - self._file.tell(), 0)))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _line_start(self, position: int) -> int:
        """Where the first line begins that does not begin before a position."""
        if position == 0:
            return 0
        self._file.seek(position - 1)
        while (part := self._file.readline(_BLOCK)) and not part.endswith(b"\n"):
            pass
        return self._file.tell()


def _lines(shard: Shard) -> tuple[BufferedReader, Callable[[int], str]]:
    where = f"{shard.source}:" if shard.first == 0 else f"{shard.source}, behind byte {shard.first}, line "
    return BufferedReader(_LineRange(shard.source, shard.first, shard.last)), lambda number: f"{where}{number}"


def _read_jsonl(shard: Shard, options: InputOptions) -> Iterator[Record]:
    return json_records(*_lines(shard), options)


def _read_text(shard: Shard, options: InputOptions) -> Iterator[Record]:
    return text_records(*_lines(shard), options)


def _read_parquet(shard: Shard, options: InputOptions) -> Iterator[Record]:
    return parquet_records(shard.source, shard.first, shard.last, options)


def _write_jsonl(chunks: Iterator[list[TaggedRecord]], path: Path, _: Shard) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for chunk in chunks:
            file.writelines(map(as_json, chunk))


def _write_parquet(chunks: Iterator[list[TaggedRecord]], path: Path, shard: Shard) -> None:
    from pyarrow import parquet

    schema: Schema = output_schema(shard.source)
    rows: list[TaggedRecord] = []
    with parquet.ParquetWriter(path, schema) as file:
        for chunk in chunks:
            rows += chunk
            if len(rows) >= GROUP_ROWS:
                file.write_table(records_table(rows, schema))
                rows = []
        if rows:
            file.write_table(records_table(rows, schema))


class _Kind(NamedTuple):
    """How files of a suffix are measured (in what shards count), read and written."""

    size: Callable[[str], int]
    read: Callable[[Shard, InputOptions], Iterator[Record]]
    write: Callable[[Iterator[list[TaggedRecord]], Path, Shard], None]
    output_suffix: str


# A new format of corpora that are cut is some functions above and one line here.
SHARDED: dict[str, _Kind] = {
    ".parquet": _Kind(parquet_rows, _read_parquet, _write_parquet, ".parquet"),
    ".jsonl": _Kind(os.path.getsize, _read_jsonl, _write_jsonl, ".jsonl"),
    ".ndjson": _Kind(os.path.getsize, _read_jsonl, _write_jsonl, ".jsonl"),
    ".txt": _Kind(os.path.getsize, _read_text, _write_jsonl, ".jsonl"),
}


# Corpora beyond one machine: the job of `tag_corpus.py`, on any number of processes and nodes that share a disk.
#
# The first process looks at input and output and tells the others which shards are left; from then on each works for
# itself. A shard is done when `.shards/NAME.json` stands in the output folder, which is written behind the shard.


# Longer than the first process may take to look at the input while the others wait.
WAIT = timedelta(days=7)
STATE_FOLDER = ".shards"  # in the output folder: the plan, the lock, and a manifest for each shard


def tag_corpus(recipe: TagRecipe) -> Path:
    """Tag what is left of a corpus; the output folder.

    Args:
        recipe: From `load_recipe("tag", [...])`, or made in Python.

    Raises:
        RunError: If the folder is in use, holds something else than the beginning of this, or the disk refuses.
        CorpusError: If the input cannot be read.
        ModelError: If the model cannot be loaded.
    """
    folder = Path(recipe.output)
    uses_cpu = recipe.cpu or not torch.cuda.is_available()
    processes = PartialState(cpu=uses_cpu, timeout=WAIT)
    if uses_cpu:
        torch.set_num_threads(recipe.threads or _share_of_cores())
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
            _tag(tagger, mine, folder, stops=recipe.on_error == "stop", shows_progress=processes.is_main_process)
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


def _tag(tagger: Tagger, shards: Sequence[Shard], folder: Path, *, stops: bool, shows_progress: bool) -> None:
    with tqdm(unit=" words", unit_scale=True, disable=None if shows_progress else True, dynamic_ncols=True) as bar:
        bad_records = BadRecords(stops=stops, tell=_tell, way_out="on_error=skip")
        for shard in shards:
            n_before = bad_records.n_found
            counts = tag_shard(tagger, shard, folder, bad_records, bar.update)
            content = {"shard": shard._asdict(), "bytes": (folder / shard.name).stat().st_size}
            content |= {"records": counts.n_records, "words": counts.n_words, "entities": counts.n_entities}
            _write_json(_manifest(folder, shard), content | {"problems": bad_records.n_found - n_before})


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


def _share_of_cores() -> int:
    """Threads for each process: `accelerate launch` would leave it one."""
    n_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, n_cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _tell(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
