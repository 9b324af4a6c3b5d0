"""The step `certainty`: only what the teacher is most certain of is learnt from, as in rounds of self-training."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from xlner.data.soft_labels import SoftLabels, SoftRow
from xlner.decoding import DECODING, ValidTags
from xlner.denoising.certainty import is_broken, most_certain
from xlner.denoising.recipes import CertaintyRecipe
from xlner.labels import LabelSet
from xlner.schema import DistillRecipe
from xlner.training.labelling import derived_soft_labels
from xlner.training.workplace import Workplace, trusted_rows


def selected_by_certainty(soft_labels: SoftLabels, recipe: DistillRecipe, workplace: Workplace) -> SoftLabels:
    """The trust of all other words becomes 0; what is ranked stands in `denoising/certainty.py`."""

    def rows() -> Iterable[SoftRow]:
        return trusted_rows(soft_labels, _factors(soft_labels, recipe.certainty))

    settings = [asdict(recipe.certainty), DECODING]
    return derived_soft_labels(soft_labels, "certainty", settings, rows, workplace.accelerator)


def _factors(soft_labels: SoftLabels, recipe: CertaintyRecipe) -> Iterator[NDArray[np.float64]]:
    """For each sentence 1 for the words that count and 0 for the others, (W,)."""
    labels = LabelSet(soft_labels.card.tags)
    found = ValidTags(labels).entities([soft_labels.probs(number) for number in range(len(soft_labels))])
    scored = [pair for spans in found for pair in spans]
    kept = iter(most_certain([span.label for span, _ in scored], [score for _, score in scored], recipe.share))
    for number, spans in enumerate(found):
        probs = soft_labels.probs(number)
        best, seen = probs.argmax(axis=1), probs.any(axis=1)
        factor = np.ones(len(probs))
        factor[seen & (probs[:, labels.outside_id] < recipe.outside)] = 0.0
        for span, _ in spans:
            factor[span.start : span.end] = next(kept)
        if recipe.skip_invalid and is_broken([labels.tags[tag_id] for tag_id in best[seen]]):
            factor[:] = 0.0
        yield factor
