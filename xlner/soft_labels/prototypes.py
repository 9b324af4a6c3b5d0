"""The step `prototypes`: soft labels drift towards the tag whose mean hidden state is nearest."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

import torch
from torch import Tensor
from torch.nn import functional as F

from xlner.config.schema import DistillRecipe
from xlner.soft_labels.label import DenoisingContext, HiddenStates, TextWords, derived_soft_labels
from xlner.soft_labels.store import SoftLabels, SoftRow
from xlner.tags import OUTSIDE

# Class prototypes: soft labels drift towards the tag whose mean vector is nearest.
#
#     P_c = sum_i p_i(c) u_i, made a unit vector                   u_i: the word's hidden state, of unit length
#     s_i = softmax over c of ( cos(u_i, P_c) / temperature + log share_c )     share_c: mean of p(c) over all words
#     p_i <- m p_i + (1 - m) s_i                                   m from `first` to `last` over the steps
#
# A word is left as it is where the likeliest tag of s_i is one of an entity, and the word is farther from that tag's
# prototype than the tag's words are on the average. Shapes: N words, D width, C tags.
#
# Source: Zhou et al. 2023, ContProto (2023.acl-long.201), and its code; Ding et al. 2024, GLoDe (arXiv:2406.01213).
# They do this while a model trains: prototypes are running means (0.99) of vectors that change and that a contrastive
# loss pulls apart, source words among them; m falls over the epochs; s_i is 1 for the nearest prototype. Here nothing
# trains: prototypes are means over the whole target text, made anew in each step, which is where a running mean over
# unchanging vectors ends. Without the contrastive loss the nearest prototype is too often that of a rare tag; hence
# the shares.


# The least share of a tag, so that a tag without words gets a finite logit.
LEAST = 1e-12


def prototypes_of(units: Tensor, probs: Tensor) -> Tensor:
    """The mean of the words of each tag, of unit length, (C, D); zeros for a tag without any probability.

    Args:
        units: Of unit length, (N, D).
        probs: Tag probabilities, (N, C).
    """
    return F.normalize(probs.T @ units, dim=1)


def prototype_step(units: Tensor, probs: Tensor, outside: int, *, momentum: float, temperature: float) -> Tensor:
    """One step of the formula above.

    Args:
        units: Of unit length, (N, D).
        probs: Tag probabilities, (N, C), each row summing to 1.
        outside: The id of `O`.
        momentum: m, what the labels keep of themselves.
        temperature: The smaller, the nearer to a choice of the nearest prototype alone.

    Returns:
        New probabilities, (N, C).
    """
    cosines = units @ prototypes_of(units, probs).T
    logits = cosines / temperature + probs.mean(dim=0).clamp(min=LEAST).log()
    drawn_to = logits.argmax(dim=1)
    is_near = own(cosines, drawn_to) > mean_cosines(cosines, probs.argmax(dim=1))[drawn_to]
    new = momentum * probs + (1.0 - momentum) * logits.softmax(dim=1)
    return torch.where((is_near | (drawn_to == outside))[:, None], new, probs)


def own(cosines: Tensor, tag_ids: Tensor) -> Tensor:
    """The cosine of each word with the prototype of its tag, (N,), out of those with all prototypes, (N, C)."""
    return cosines.gather(1, tag_ids[:, None]).squeeze(1)


def mean_cosines(cosines: Tensor, tag_ids: Tensor) -> Tensor:
    """The mean cosine of the words of a tag with its prototype, (C,); 1 for a tag without words.

    Args:
        cosines: Of all words with all prototypes, (N, C).
        tag_ids: The tag of each word, (N,).
    """
    of_tag = F.one_hot(tag_ids, cosines.shape[1]).to(cosines.dtype)
    counts = of_tag.sum(dim=0)
    means = own(cosines, tag_ids) @ of_tag / counts.clamp(min=1.0)
    return torch.where(counts > 0, means, 1.0)


def momenta(first: float, last: float, steps: int) -> list[float]:
    """The m of each step, in equal distances from `first` to `last`; `first` alone for one step."""
    return torch.linspace(first, last, steps, dtype=torch.float64).tolist()


def drawn_to_prototypes(soft_labels: SoftLabels, recipe: DistillRecipe, context: DenoisingContext) -> SoftLabels:
    """The formula stands in `soft_labels/prototypes.py`."""
    section = recipe.prototypes

    def rows() -> Iterable[SoftRow]:
        return new_rows(context.hidden(section.layers))

    def new_rows(hidden: HiddenStates) -> Iterator[SoftRow]:
        words = TextWords.of(soft_labels, context.accelerator.device)
        units, probs = F.normalize(words.vectors(hidden), dim=1), words.probs
        outside = soft_labels.card.tags.index(OUTSIDE)
        for momentum in momenta(section.first, section.last, section.steps):
            probs = prototype_step(units, probs, outside, momentum=momentum, temperature=section.temperature)
        for number, found in enumerate(words.by_sentence(probs, soft_labels)):
            yield soft_labels.row(number, probs=found)

    return derived_soft_labels(soft_labels, "prototypes", asdict(section), rows, context.accelerator)
