"""The step `prototypes`: soft labels drift towards the tag whose mean hidden state is nearest."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from torch.nn import functional as F

from xlner.data.soft_labels import SoftLabels, SoftRow
from xlner.denoising.prototypes import momenta, prototype_step
from xlner.labels import OUTSIDE
from xlner.schema import DistillRecipe
from xlner.training.hidden_states import HiddenStates
from xlner.training.labelling import derived_soft_labels
from xlner.training.workplace import TextWords, Workplace


def drawn_to_prototypes(soft_labels: SoftLabels, recipe: DistillRecipe, workplace: Workplace) -> SoftLabels:
    """The formula stands in `denoising/prototypes.py`."""
    section = recipe.prototypes

    def rows() -> Iterable[SoftRow]:
        return new_rows(workplace.hidden(section.layers))

    def new_rows(hidden: HiddenStates) -> Iterator[SoftRow]:
        words = TextWords.of(soft_labels, workplace.accelerator.device)
        units, probs = F.normalize(words.vectors(hidden), dim=1), words.probs
        outside = soft_labels.card.tags.index(OUTSIDE)
        for momentum in momenta(section.first, section.last, section.steps):
            probs = prototype_step(units, probs, outside, momentum=momentum, temperature=section.temperature)
        for number, found in enumerate(words.by_sentence(probs, soft_labels)):
            yield soft_labels.row(number, probs=found)

    return derived_soft_labels(soft_labels, "prototypes", asdict(section), rows, workplace.accelerator)
