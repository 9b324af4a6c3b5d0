"""A corpus in shards: each a range of an input file that becomes one output file, whole or not at all.

Where a shard ends depends on the input and the size of shards alone, so that any number of processes, also on nodes
that share a disk, makes the same files. A shard is done when its manifest, `.shards/NAME.json`, stands in the output
folder, which is written behind it.
"""

import glob
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from xlner import __version__
from xlner.config.schema import TagRecipe
from xlner.errors import CorpusError, RunError, disk_errors
from xlner.files import locked, remove_unfinished, write_text
from xlner.tag_files.job import FileTagging, InputFile, check_same, file_marks, model_fingerprint
from xlner.tag_files.output import OUTPUT_SUFFIXES, BadRecords
from xlner.tag_files.records import InputOptions, parquet_rows
from xlner.tagger import Tagger

STATE_FOLDER = ".shards"  # in the output folder: the plan, the locks, and a manifest for each shard
# The formats of corpora that are cut, by suffix; Parquet becomes Parquet, all else JSON Lines.
SHARDED = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text"}
COUNTS = ("records", "words", "entities", "problems")
_LOCK_TRIES, _LOCK_SECONDS = 20, 0.1


class Shard(NamedTuple):
    """Part of an input file: its rows (Parquet) or the lines that begin in its bytes, `last` excluded.

    `name` is its output file within the output folder.
    """

    source: str
    first: int
    last: int
    name: str


class Work(NamedTuple):
    """What a run is to do: all shards of the corpus, those of them that it makes, and what they are made of."""

    shards: list[Shard]
    left: list[Shard]
    depends_on: dict[str, Any]


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


def prepare(recipe: TagRecipe, locks: ExitStack) -> Work:
    """Look at input and output, keep other runs out of the output folder, and clear up what killed ones have left.

    Parts of one number run side by side: a part looks at its own shards alone.

    Raises:
        RunError: If the folder is in use, holds something else than the beginning of this, or the disk refuses.
        CorpusError: If the input cannot be read.
        ModelError: If there is no such model.
    """
    folder = Path(recipe.output)
    with disk_errors(folder, ""):
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
        number, n_parts = recipe.part_numbers
        _keep_others_out(folder, f"lock-part-{number}-of-{n_parts}" if recipe.part else "lock", locks)
        _check_plan(folder, depends_on)
        left = [shard for shard in shards[number - 1 :: n_parts] if not is_published(folder, shard)]
        remove_unfinished(folder / shard.name for shard in left)
        for shard in left:
            _manifest(folder, shard).unlink(missing_ok=True)
    return Work(shards, left, depends_on)


def _keep_others_out(folder: Path, name: str, locks: ExitStack) -> None:
    """Hold the folder for a whole run or a part, for as long as this process works.

    Each holds its own lock and looks at the others', so that of two that start at once at least one is refused.
    """
    hold(folder, name, locks)
    others = [path.name for path in (folder / STATE_FOLDER).glob("lock*") if path.name != name]
    for other in others:
        if name == "lock" or not other.endswith(name[name.index("-of-") :]):  # else another part of the same number
            with ExitStack() as looked_at:
                hold(folder, other, looked_at)


def hold(folder: Path, name: str, locks: ExitStack) -> None:
    """Hold one of the locks of an output folder.

    Raises:
        RunError: If another process has it.
    """

    def refuse() -> None:
        raise RunError(f"{folder}: another run is tagging into it at this moment; give another output=")

    path = folder / STATE_FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_LOCK_TRIES):  # whoever only looks at it lets go of it at once
        try:
            locks.enter_context(locked(path, refuse))
            return
        except RunError:
            time.sleep(_LOCK_SECONDS)
    locks.enter_context(locked(path, refuse))


def _check_plan(folder: Path, depends_on: dict[str, Any]) -> None:
    """Hold what was begun here against what is asked for now; note it if nothing was begun."""
    path = folder / STATE_FOLDER / "plan.json"
    if not path.is_file():
        _write_json(path, depends_on)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise RunError(f"{path}: damaged ({problem}); give another output=") from problem
    check_same(before, depends_on, folder, "give the same, or another output=")


def claimed(folder: Path, shards: Sequence[Shard]) -> Iterator[Shard]:
    """Those shards that no other process of this run has taken yet: one after the other, as each is done.

    The claim is an empty manifest, which only one process can make, on network disks too. That of a killed process
    is removed by the next run.
    """
    for shard in shards:
        path = _manifest(folder, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.open("x").close()
        except FileExistsError:
            continue
        yield shard


def tag_shard(
    tagger: Tagger, shard: Shard, folder: Path, bad_records: BadRecords, tell_words: Callable[[int], object]
) -> dict[str, int]:
    """Make a shard and its manifest; its `COUNTS`.

    Raises:
        CorpusError: If the input cannot be read, or the disk refuses.
    """
    source = InputFile(shard.source, SHARDED[Path(shard.source).suffix.lower()])
    options = InputOptions(bad_records.report, bounds=(shard.first, shard.last))
    target = folder / shard.name
    work = FileTagging([source], target, _output_format(source.format), options, bad_records)
    work.run(tagger, tell_words)
    done = work.progress
    counts = dict(zip(COUNTS, (done.n_records, done.n_words, done.n_entities, done.n_problems), strict=True))
    _write_json(_manifest(folder, shard), {"shard": shard._asdict(), "bytes": target.stat().st_size, **counts})
    return counts


def _output_format(format: str) -> str:
    return "parquet" if format == "parquet" else "jsonl"


def _manifest(folder: Path, shard: Shard) -> Path:
    return folder / STATE_FOLDER / f"{shard.name}.json"


def is_published(folder: Path, shard: Shard) -> bool:
    """Whether a shard is there as its manifest says."""
    path, manifest = folder / shard.name, _manifest(folder, shard)
    if not path.is_file() or not manifest.is_file():
        return False
    try:
        n_bytes = json.loads(manifest.read_text(encoding="utf-8"))["bytes"]
    except (ValueError, KeyError, TypeError):  # a claim, or cut short where the machine stopped
        return False
    return bool(path.stat().st_size == n_bytes)


def tell_end(folder: Path, shards: Sequence[Shard], what: str) -> None:
    """The counts of the corpus, told by whoever publishes the last shard; of a part what is still missing."""
    n_missing = sum(not is_published(folder, shard) for shard in shards)
    if n_missing:
        if what:
            tell(f"{folder}: {what} is done; {n_missing:,} of the {len(shards):,} shards of the corpus are missing")
        return
    found = [json.loads(_manifest(folder, shard).read_text(encoding="utf-8")) for shard in shards]
    totals = [f"{sum(one[name] for one in found):,} {name}" for name in COUNTS]
    tell(f"{folder}: whole: {len(shards):,} shards, {', '.join(totals)}")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1))


def tell(line: str) -> None:
    """Print a line on stderr, above a progress bar."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
