"""The steps that make soft labels better before a student learns from them; each one's result is stored once."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from xlner.config.load import choose
from xlner.config.schema import PoolingRecipe
from xlner.soft_labels.label import DenoisingContext
from xlner.soft_labels.pooling import LabelChanges, Outside, label_changes, pooled_probs, weights_for
from xlner.soft_labels.store import SoftLabels, SoftRow, derived_soft_labels
from xlner.tags import OUTSIDE

LOG = logging.getLogger("xlner")

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
