"""The steps that make soft labels better before a student learns from them; each one's result is stored once.

A step takes soft labels and gives soft labels of the same words: it may change the probabilities, or how far they are
trusted. Steps are put one after the other, in the order that the recipe names them.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict

from xlner.data.soft_labels import SoftLabels, SoftRow
from xlner.denoising.pooling import Outside, pooled_probs, weights_for
from xlner.denoising.recipes import PoolingRecipe
from xlner.denoising.sureness import LabelChanges, label_changes
from xlner.labels import OUTSIDE
from xlner.recipe import choose
from xlner.schema import DistillRecipe
from xlner.training.certainty import selected_by_certainty
from xlner.training.discriminator import check_discriminator, selected_by_language
from xlner.training.labelling import derived_soft_labels
from xlner.training.neighbours import check_neighbours, weighed_by_neighbours
from xlner.training.prototypes import drawn_to_prototypes
from xlner.training.workplace import Workplace


def denoised_soft_labels(soft_labels: SoftLabels, recipe: DistillRecipe, workplace: Workplace) -> SoftLabels:
    """The soft labels after all steps of the recipe; every process calls it.

    Raises:
        RecipeError: If a step stands in no table.
    """
    for step in denoising_steps(recipe.denoising):
        soft_labels = DENOISERS[step](soft_labels, recipe, workplace)
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


def check_denoising(recipe: DistillRecipe) -> None:
    """Refuse, before hours are spent, a recipe whose steps are unknown or cannot be taken here.

    Raises:
        RecipeError: With what is missing.
    """
    for step in denoising_steps(recipe.denoising):
        if step in CHECKS:
            CHECKS[step](recipe)


def pooled(soft_labels: SoftLabels, recipe: DistillRecipe, workplace: Workplace) -> SoftLabels:
    """What the teacher says in like places; the formula stands in `denoising/pooling.py`."""
    if not recipe.pooling.is_used:
        return soft_labels
    share = workplace.outside_share
    if recipe.pooling.outside and not share:
        workplace.accelerator.print(
            "the teacher does not say how often O is right in its language: pooling.outside does nothing"
        )

    def rows() -> Iterator[SoftRow]:
        return _pooled_rows(soft_labels, recipe.pooling, share)

    settings = [asdict(recipe.pooling), share]
    return derived_soft_labels(soft_labels, "pooled", settings, rows, workplace.accelerator)


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


# A new step is one function above (its formula in `denoising/`, its section in `denoising/recipes.py`) and one line.
DENOISERS: dict[str, Callable[[SoftLabels, DistillRecipe, Workplace], SoftLabels]] = {
    "pooling": pooled,
    "neighbours": weighed_by_neighbours,
    "prototypes": drawn_to_prototypes,
    "discriminator": selected_by_language,
    "certainty": selected_by_certainty,
}
# Of the steps that need more than soft labels and a teacher: whether it is there.
CHECKS: dict[str, Callable[[DistillRecipe], None]] = {
    "neighbours": check_neighbours,
    "discriminator": check_discriminator,
}
