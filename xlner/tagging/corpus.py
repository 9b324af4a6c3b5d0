"""Corpora beyond one machine: the job of `tag_corpus.py`, on any number of processes and nodes that share a disk.

The first process looks at input and output and tells the others which shards are left; from then on each works for
itself. A shard is done when `.shards/NAME.json` stands in the output folder, which is written behind the shard.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from xlner import __version__
from xlner.errors import RunError, XlnerError
from xlner.files import locked, remove_unfinished, write_text
from xlner.tagger import Tagger, load_tagger
from xlner.tagging.bad_records import BadRecords
from xlner.tagging.fingerprints import check_same, file_marks, model_fingerprint
from xlner.tagging.shards import Shard, input_files, plan_shards, tag_shard
from xlner.tagging_schema import TagRecipe

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
        made_of = {
            "input": file_marks(files),
            "model": model_fingerprint(recipe.model),
            "shard_megabytes": recipe.shard_megabytes,
            "version of xlner": __version__,
        }
        _hold(folder, "lock", locks)
        for path in (folder / STATE_FOLDER).glob("lock-*"):  # of a run whose first process has ended
            with ExitStack() as other:
                _hold(folder, path.name, other)
        _check_plan(folder, made_of)
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


def _check_plan(folder: Path, made_of: dict[str, Any]) -> None:
    """Hold what was begun here against what is asked for now; note it if nothing was begun."""
    path = folder / STATE_FOLDER / "plan.json"
    if not path.is_file():
        _write_json(path, made_of)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise RunError(f"{path}: damaged ({problem}); give another output=") from problem
    check_same(before, made_of, folder, "give the same, or another output=")


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
