"""What may differ between a run and the one that goes on with it: nothing, but what `checkpoint.allow_changes` names.

Steps stay steps: what a step is made of, and which outputs the network has, can never change within a run.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from xlner.errors import RecipeError, RunError
from xlner.training.checkpoint import Progress

# Names beside the keys of the recipe, and what a checkpoint knows of each.
MADE_OF = {"corpus": ("training corpus", "dev corpus", "text"), "teacher": ("teacher",)}
PROCESSES = "processes"
_ACCUMULATION = "optimization.accumulation"
_NEVER = {
    "labels": "the outputs of the network are theirs",
    "labels.map": "the outputs of the network are theirs",
    "optimization.batch_size": "the steps so far were made of other batches",
    _ACCUMULATION: f"it may change along with the number of processes alone, which {PROCESSES} allows",
}


class Change(NamedTuple):
    """Something that was otherwise when the run was begun."""

    name: str
    then: str
    now: str


def allowed_changes(text: str, keys: Collection[str]) -> frozenset[str]:
    """The names in `checkpoint.allow_changes`.

    Args:
        text: Names with commas between them.
        keys: Of the recipe, as in `optimization.epochs`.

    Raises:
        RecipeError: If a name is unknown, or of what can never change.
    """
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    for name in sorted(names):
        if reason := _NEVER.get(name):
            raise RecipeError(f"checkpoint.allow_changes: {name} cannot change within a run: {reason}")
        if name not in {*keys, *MADE_OF, PROCESSES}:
            raise RecipeError(
                f"checkpoint.allow_changes: unknown name {name!r}; expected {', '.join([*MADE_OF, PROCESSES])}, or "
                "keys of the recipe, such as optimization.learning_rate"
            )
    return names


def recipe_changes(before: Mapping[str, str], now: Mapping[str, str], allowed: Collection[str]) -> list[Change]:
    """The keys of two recipes that differ; all that are not allowed are refused.

    Raises:
        RunError: With the first of them.
    """
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    with_processes = {_ACCUMULATION} if PROCESSES in allowed else set()
    if refused := [name for name in names if name not in {*allowed, *with_processes}]:
        told = ", ".join(f"{name}: {now.get(name)}" for name in refused[:5])
        raise RunError(f"unfinished run of another recipe (now different: {told})")
    return [Change(name, before.get(name, "none"), now.get(name, "none")) for name in names]


def state_changes(path: Path, before: Progress, now: Progress, allowed: Collection[str]) -> Iterator[Change]:
    """How the fingerprints and processes of a run differ from those of a checkpoint.

    Args:
        path: Of the checkpoint, for messages.
        before: What stands in it.
        now: Of the run that shall go on from it.
        allowed: Names, as `allowed_changes` gives them.

    Raises:
        RunError: If something differs that is not allowed, or a step would have another size.
    """
    if before.n_processes != now.n_processes:
        if PROCESSES not in allowed:
            raise RunError(
                f"{path}: made by {before.n_processes} processes, now there are {now.n_processes}; resume with as many "
                f"as before, or with checkpoint.allow_changes={PROCESSES} and as many micro-batches a step"
            )
        yield Change(PROCESSES, str(before.n_processes), str(now.n_processes))
    if before.micro_batches != now.micro_batches:
        fitting, rest = divmod(before.micro_batches, now.n_processes)
        way = "no accumulation makes it the same" if rest else f"set {_ACCUMULATION}={fitting}"
        raise RunError(
            f"{path}: a step had {before.micro_batches} micro-batches over all processes, now it has "
            f"{now.micro_batches}; {way}"
        )
    may_differ = {name for kind, names in MADE_OF.items() if kind in allowed for name in names}
    for name in dict.fromkeys([*now.made_of, *before.made_of]):
        then, found = before.made_of.get(name, "none"), now.made_of.get(name, "none")
        if then == found:
            continue
        if name not in may_differ:
            ways = [kind for kind, names in MADE_OF.items() if name in names]
            way = f", checkpoint.allow_changes={ways[0]}" if ways else ""
            raise RunError(
                f"{path}: the run was begun with another {name} (then {then}, now {found}); give it the same again"
                f"{way}, or another run="
            )
        yield Change(name, then, found)
