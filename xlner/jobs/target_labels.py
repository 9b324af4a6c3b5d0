"""A few labelled target sentences: read, checked, told, and parted into what is learnt and what chooses the student.

Whatever looks at target labels says so: on the terminal, in report.json and in the model's card.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xlner.config.schema import DistillRecipe
from xlner.corpora.lines import existing_file
from xlner.corpora.splits import Corpus, read_labelled, rename_types, repeated_sentences
from xlner.errors import LabelError
from xlner.tags import LabelMap, LabelSet

LOG = logging.getLogger("xlner")

# From so many labelled sentences on, `selection=auto` keeps some aside.
ENOUGH_TO_HOLD_OUT = 200
HELD_OUT = 0.2  # of them


@dataclass(frozen=True)
class TargetLabels:
    """Labelled target sentences: those that are learnt, and those that choose the student; None for none."""

    learnt: Corpus | None = None
    held_out: Corpus | None = None

    @property
    def n_learnt(self) -> int:
        """How many sentences are learnt."""
        return len(self.learnt.words) if self.learnt else 0

    @property
    def beside(self) -> str:
        """What a card says of them, behind the text without labels; empty where there are none."""
        return f", and {self.n_learnt:,} with labels" if self.n_learnt else ""

    def to_json(self) -> dict[str, Any]:
        """What report.json says of them."""
        held_out = len(self.held_out.words) if self.held_out else 0
        return {"learnt": self.n_learnt, "held_out": held_out}

    def __str__(self) -> str:
        n_held_out = len(self.held_out.words) if self.held_out else 0
        kept = f", of which {n_held_out:,} are kept aside to choose the student by" if n_held_out else ""
        return f"target labels used: {self.n_learnt + n_held_out:,} sentences{kept}"


def read_target_labels(
    recipe: DistillRecipe, labels: LabelSet, label_map: LabelMap, test: Corpus | None
) -> TargetLabels:
    """The labelled target sentences that a recipe names.

    Args:
        recipe: Names the file, which may be of another format than the text.
        labels: Of the student.
        label_map: Of the recipe.
        test: What the student will be scored on; sentences of it among the labelled ones are told.

    Raises:
        CorpusError: If there is no such file, it cannot be read, or has no labels.
        LabelError: If it has types that the teachers do not know, and that the text would teach to be `O`.
    """
    if not recipe.gold:
        return TargetLabels()
    reading = replace(recipe.corpus, format="auto", max_sentences=0)
    gold = read_labelled(existing_file(recipe.gold), reading)
    (gold,) = rename_types([gold], label_map, labels.types)
    if unknown := sorted({*gold.types} - {*labels.types}):
        raise LabelError(
            f"{gold.path}: has entities of {', '.join(unknown)}, the teacher knows {', '.join(labels.types)}; "
            f"rename or drop types, as in labels.map={unknown[0]}=, or give a teacher that knows them"
        )
    if test is not None:
        for warning in repeated_sentences(test, [gold]):
            LOG.warning(f"warning: {warning}, so that the scores will be too good")
    found = _parted(gold, recipe.selection)
    LOG.info(f"{gold.path}: {found}")
    return found


def _parted(gold: Corpus, selection: str) -> TargetLabels:
    n_sentences = len(gold.words)
    keeps_some = selection == "gold" or (selection == "auto" and n_sentences >= ENOUGH_TO_HOLD_OUT)
    order = np.random.default_rng(0).permutation(n_sentences)
    held_out = np.sort(order[: round(n_sentences * HELD_OUT) if keeps_some else 0])
    dev = _some(gold, held_out.tolist(), "held out")
    if not dev.types:  # nothing to choose by
        return TargetLabels(gold)
    return TargetLabels(_some(gold, np.setdiff1d(order, held_out).tolist(), gold.name), dev)


def _some(corpus: Corpus, numbers: Sequence[int], name: str) -> Corpus:
    words, tags = [corpus.words[number] for number in numbers], [corpus.tags[number] for number in numbers]
    return replace(corpus, name=name, words=words, tags=tags, fingerprint=f"{corpus.fingerprint}-{len(numbers)}")


def times_shown(n_text: int, n_gold: int, share: float) -> int:
    """How often each labelled target sentence stands in an epoch, at least once.

    Args:
        n_text: Sentences with soft labels.
        n_gold: Labelled ones, above 0.
        share: Of the labelled ones among all that are shown; 0: by their number.
    """
    share = share or share_for(n_gold)
    return max(1, round(share / (1.0 - share) * n_text / n_gold))


def share_for(n_gold: int) -> float:
    """The share of labelled sentences that was best for their number, in Portuguese and Polish (docs/results.md)."""
    return 0.3
