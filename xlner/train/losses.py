"""Losses of the teacher and the student, and how far each position of a loss is trusted: pure functions of tensors."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Losses of the teacher and the student, as pure functions of tensors.
#
# A loss returns one value per position and never reduces: `masked_sum` alone masks, weights and adds up. All compute
# in float32. Letters in shapes: B sentences, P subword pieces, C tags, Q word pairs.


def token_cross_entropy(logits: Tensor, tag_ids: Tensor) -> Tensor:
    """Cross-entropy against gold tags.

    Args:
        logits: Unnormalised scores, (B, P, C).
        tag_ids: Gold tag ids, (B, P); any valid id where there is no word, since `masked_sum` drops it.

    Returns:
        Nats per piece, (B, P).
    """
    return F.cross_entropy(logits.float().flatten(0, 1), tag_ids.flatten(), reduction="none").view_as(tag_ids)


def soft_cross_entropy(student_logits: Tensor, teacher_probs: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of the student's tag distribution against the teacher's soft labels.

    It is KL(teacher || student) plus the teacher's entropy, which does not depend on the student: the gradients
    are those of the KL divergence, the values are not.

    Args:
        student_logits: Unnormalised scores, (B, P, C).
        teacher_probs: Tag probabilities, (B, P, C), each row of a word summing to 1 and made at temperature 1; no
            gradient flows into them.
        temperature: Divides the logits of both; above 0. The result is multiplied by its square, which keeps the
            size of the gradients.

    Returns:
        Nats per piece, (B, P).

    Raises:
        ValueError: If the two shapes differ.

    Source: Hinton et al. 2015 (arXiv:1503.02531), section 2.
    """
    _same_shape(student_logits, teacher_probs)
    targets = soften(teacher_probs.detach().float(), temperature)
    log_probs = F.log_softmax(student_logits.float() / temperature, dim=-1)
    return -(targets * log_probs).sum(dim=-1) * temperature**2


def squared_error(student_logits: Tensor, teacher_probs: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Squared difference of the probabilities, summed over tags.

    Args and Raises as for `soft_cross_entropy`.

    Returns:
        Between 0 and 2 per piece, (B, P).

    Source: Li et al. 2022 (2022.acl-long.14), published code.
    """
    _same_shape(student_logits, teacher_probs)
    targets = soften(teacher_probs.detach().float(), temperature)
    return (F.softmax(student_logits.float() / temperature, dim=-1) - targets).square().sum(dim=-1)


def mean_squared_error(student_logits: Tensor, teacher_probs: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Squared difference of the probabilities, averaged over tags: `squared_error` divided by C.

    Args and Raises as for `soft_cross_entropy`.

    Returns:
        Between 0 and 2 / C per piece, (B, P).

    Source: Wu et al. 2020 (2020.acl-main.581), equation 4.
    """
    return squared_error(student_logits, teacher_probs, temperature=temperature) / student_logits.shape[-1]


def similarity_cross_entropy(similarity_logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of similarities.

    Args:
        similarity_logits: Logits that two words carry the same tag, (Q,).
        target: Gold 0 or 1, or the teacher's similarity in [0, 1], (Q,); no gradient flows into it.

    Returns:
        Nats per word pair, (Q,).
    """
    return F.binary_cross_entropy_with_logits(similarity_logits.float(), target.detach().float(), reduction="none")


def symmetric_divergence(first_logits: Tensor, second_logits: Tensor) -> Tensor:
    """How far two passes over the same text, with different dropout, are apart.

    Args:
        first_logits: Unnormalised scores of one pass, (B, P, C).
        second_logits: Of the other.

    Returns:
        The mean of KL(first || second) and KL(second || first), in nats per piece, (B, P).

    Source: Liang et al. 2021 (arXiv:2106.14448), R-Drop, equation 2.
    """
    first, second = first_logits.float().log_softmax(dim=-1), second_logits.float().log_softmax(dim=-1)
    return 0.5 * ((first.exp() - second.exp()) * (first - second)).sum(dim=-1)


def masked_sum(values: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """The sum of values where the mask is True, each times its weight; a scalar.

    Masked values are dropped before they are weighted, so that not even a NaN of padding gets through.
    """
    kept = values if mask is None else values.masked_fill(~mask, 0.0)
    if weights is not None:
        kept = kept * (weights if mask is None else weights.masked_fill(~mask, 0.0))
    return kept.sum()


def soften(probs: Tensor, temperature: float) -> Tensor:
    """Probabilities at a temperature: what `softmax(logits / temperature)` gives, from `softmax(logits)`.

    Rows of zeros (positions without a teacher) stay zeros.
    """
    if temperature == 1.0:
        return probs
    # Relative to the highest of its row, or the powers of a low temperature would all vanish in float32.
    highest = probs.amax(dim=-1, keepdim=True)
    powered = (probs / torch.where(highest > 0, highest, 1.0)).pow(1.0 / temperature)
    return powered / powered.sum(dim=-1, keepdim=True).clamp_min(1.0)


def _same_shape(student_logits: Tensor, teacher_probs: Tensor) -> None:
    if student_logits.shape != teacher_probs.shape:
        raise ValueError(
            f"student_logits {tuple(student_logits.shape)} and teacher_probs {tuple(teacher_probs.shape)} "
            "must have one shape (B, P, C); do teacher and student share their label set?"
        )


# A new distillation loss is one function above and one line here; recipes name it by its key.
DISTILLATION_LOSSES: dict[str, Callable[..., Tensor]] = {
    "soft_cross_entropy": soft_cross_entropy,
    "squared_error": squared_error,
    "mean_squared_error": mean_squared_error,
}


# How far each position of a student's loss is trusted: pure functions of what was said about it.
#
# Weights lie in [0, 1], one value per word or word pair. Whose outputs they are made from, whether a gradient flows
# back into these, and whether they are averaged over a batch is up to the caller. Letters in shapes: N words (any
# leading shape), C tags, Q word pairs. Source: Li et al. 2022 (2022.acl-long.14), section 3; `docs/method.md` for the
# changes.


def squared_confidence(probs: Tensor) -> Tensor:
    """Alpha: the square of the highest tag probability; (N, C) to (N,)."""
    return probs.float().amax(dim=-1).square()


def squared_margin(similarity: Tensor) -> Tensor:
    """Beta: (2 s - 1)^2, which is 0 for an undecided similarity of 0.5 and 1 at both ends; (Q,) to (Q,)."""
    return (2.0 * similarity.float() - 1.0).square()


def raised_margin(similarity: Tensor) -> Tensor:
    """Beta as in the published code: min(1, (2 s - 1)^2 + 0.5); (Q,) to (Q,)."""
    return (squared_margin(similarity) + 0.5).clamp_max(1.0)


def agreement(first_probs: Tensor, second_probs: Tensor, similarity: Tensor) -> Tensor:
    """Gamma: 1 - |s_p - s|, where s_p is the probability, by the recognizer, that both words have one tag.

    Args:
        first_probs: Tag probabilities of the first words, (Q, C).
        second_probs: Tag probabilities of the second words, (Q, C).
        similarity: What the similarity head says, (Q,).

    Returns:
        (Q,); 1 where recognizer and similarity head say the same.
    """
    same_tag = (first_probs.float() * second_probs.float()).sum(dim=-1)
    return 1.0 - (same_tag - similarity.float()).abs()


def cosine_agreement(first_probs: Tensor, second_probs: Tensor, similarity: Tensor) -> Tensor:
    """Gamma as published: 1 - |sigma(cos(p_1, p_2)) - s|, which never says 0 or 1 by p alone; as for `agreement`."""
    same_tag = F.cosine_similarity(first_probs.float(), second_probs.float(), dim=-1).sigmoid()
    return 1.0 - (same_tag - similarity.float()).abs()


def gamma_of_words(gamma: Tensor, places: Tensor, n_places: int) -> Tensor:
    """What a word's recognizer loss takes from gamma: the mean over the pairs that the word is in, 1 if in none.

    Args:
        gamma: Agreement of each pair, (Q,).
        places: Flat place of one word of each pair, (Q,).
        n_places: How many flat places there are.

    Returns:
        (n_places,).
    """
    total = torch.zeros(n_places, dtype=gamma.dtype, device=gamma.device).index_add_(0, places, gamma)
    pairs = torch.zeros_like(total).index_add_(0, places, torch.ones_like(gamma))
    return torch.where(pairs > 0, total / pairs.clamp_min(1.0), torch.ones_like(total))


def _full_alpha(probs: Tensor) -> Tensor:
    return torch.ones(probs.shape[:-1], device=probs.device)


def _full_beta(similarity: Tensor) -> Tensor:
    return torch.ones_like(similarity, dtype=torch.float32)


def _full_gamma(first_probs: Tensor, second_probs: Tensor, similarity: Tensor) -> Tensor:
    return torch.ones_like(similarity, dtype=torch.float32)


# A new weighting is one function above and one line here; recipes name it by its key.
ALPHAS: dict[str, Callable[[Tensor], Tensor]] = {"squared_confidence": squared_confidence, "one": _full_alpha}
BETAS: dict[str, Callable[[Tensor], Tensor]] = {
    "squared_margin": squared_margin,
    "raised_margin": raised_margin,
    "one": _full_beta,
}
GAMMAS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "agreement": agreement,
    "cosine_agreement": cosine_agreement,
    "one": _full_gamma,
}
