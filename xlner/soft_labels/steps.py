"""The steps that make soft labels better before a student learns from them; each one's result is stored once."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from accelerate import Accelerator

from xlner.config.load import choose
from xlner.config.schema import PoolingRecipe
from xlner.corpora.splits import Corpus
from xlner.soft_labels.label import DenoisingContext, derived_soft_labels
from xlner.soft_labels.pooling import LabelChanges, Outside, label_changes, pooled_probs, weights_for
from xlner.soft_labels.store import SoftLabels, SoftRow, soft_row
from xlner.tags import OUTSIDE

LOG = logging.getLogger("xlner")

# Labelled source sentences beside the target text: what is certain, among what the teacher believes.


def with_source(
    soft_labels: SoftLabels, source: Corpus, share: float, taught: SoftLabels | None, accelerator: Accelerator
) -> SoftLabels:
    """Soft labels of the target text, followed by labelled source sentences whose tags have probability 1.

    Args:
        soft_labels: Of the target text.
        source: Labelled sentences; of types that the soft labels do not know, nothing is learnt.
        share: Share of source sentences in the result, below 1; as many as there are where they do not suffice.
        taught: What the teacher says of all source sentences, for its similarity; None for no similarity task.
        accelerator: Of the run; every process calls it.
    """
    n_wanted = round(share / (1.0 - share) * len(soft_labels))
    chosen = np.sort(np.random.default_rng(0).permutation(len(source.words))[:n_wanted])
    if len(chosen) < n_wanted:
        found = len(chosen) / (len(chosen) + len(soft_labels))
        LOG.info(f"{source.path}: {len(chosen):,} sentences are a share of {found:.2f}, not {share:g}")
    missing = sorted({tag.partition("-")[2] for tag in soft_labels.card.tags} - {"", *source.types})
    if missing:
        LOG.info(f"{source.path}: has no {', '.join(missing)}, which its sentences will teach to be O")

    def rows() -> Iterator[SoftRow]:
        for number in range(len(soft_labels)):
            yield soft_labels.row(number)
        for number in chosen.tolist():
            yield _gold_row(source.words[number], source.tags[number], soft_labels, taught, number)

    settings = [source.fingerprint, share, taught.digest if taught else None]
    return derived_soft_labels(soft_labels, "source", settings, rows, accelerator)


def _gold_row(
    words: Sequence[str], tags: Sequence[str], soft_labels: SoftLabels, taught: SoftLabels | None, number: int
) -> SoftRow:
    known = {tag: place for place, tag in enumerate(soft_labels.card.tags)}
    probs = np.zeros((len(words), len(known)))
    trust = np.asarray([tag in known for tag in tags], dtype=np.float64)
    probs[np.arange(len(words)), [known.get(tag, known[OUTSIDE]) for tag in tags]] = 1.0
    projections = np.zeros((len(words), soft_labels.card.projection_size))
    return soft_row(words, probs, projections if taught is None else taught.projections(number), trust)


# A step takes soft labels and gives soft labels of the same words: it may change the probabilities, or how far they
# are trusted. Steps are put one after the other, in the order that the recipe names them.


def denoised_soft_labels(
    soft_labels: SoftLabels, steps: Sequence[tuple[str, Any]], context: DenoisingContext
) -> SoftLabels:
    """The soft labels after some steps, each named and with its section of the recipe; every process calls it."""
    for step, section in steps:
        soft_labels = DENOISERS[step](soft_labels, section, context)
    return soft_labels


def changes_of(before: SoftLabels, after: SoftLabels) -> LabelChanges:
    """How sure the teachers were of a text, and what denoising changed; reads both once."""
    pairs = ((before.probs(number), after.probs(number)) for number in range(len(before)))
    return label_changes(pairs, before.card.tags, OUTSIDE)


def denoising_steps(text: str) -> list[str]:
    """The names of the steps in a recipe's `denoising`.

    Raises:
        RecipeError: If one stands in no table.
    """
    names = [name.strip() for name in text.split(",")]
    if names in ([""], ["none"]):
        return []
    for name in names:
        choose(DENOISERS, name, "step of denoising")
    return names


def pooled(soft_labels: SoftLabels, recipe: PoolingRecipe, context: DenoisingContext) -> SoftLabels:
    """What the teacher says in like places; the formula stands in `soft_labels/pooling.py`."""
    if not recipe.is_used:
        return soft_labels
    share = context.outside_share
    if recipe.outside and not share:
        LOG.info("the teacher does not say how often O is right in its language: pooling.outside does nothing")

    def rows() -> Iterator[SoftRow]:
        return _pooled_rows(soft_labels, recipe, share)

    settings = [asdict(recipe), share]
    return derived_soft_labels(soft_labels, "pooled", settings, rows, context.accelerator)


def _pooled_rows(soft_labels: SoftLabels, recipe: PoolingRecipe, outside_share: float) -> Iterator[SoftRow]:
    numbers, outside = range(len(soft_labels)), soft_labels.card.tags.index(OUTSIDE)
    all_probs = pooled_probs(
        lambda: ((soft_labels.words(number), soft_labels.probs(number)) for number in numbers),
        weights_for(recipe, map(soft_labels.probs, numbers), outside),
        Outside(outside, outside_share, recipe.outside),
        temperature=recipe.temperature,
    )
    for number, probs in zip(numbers, all_probs, strict=True):
        yield soft_labels.row(number, probs=probs)


# A new step is one function above, its section in `config/`, and one line here.
DENOISERS: dict[str, Callable[[SoftLabels, Any, DenoisingContext], SoftLabels]] = {
    "pooling": pooled,
}
