"""How far each position of a student's loss is trusted: pure functions of what was said about it.

Weights lie in [0, 1], one value per word or word pair. Whose outputs they are made from, whether a gradient flows back
into these, and whether they are averaged over a batch is up to the caller. Letters in shapes: N words (any leading
shape), C tags, Q word pairs.
Source: Li et al. 2022 (2022.acl-long.14), section 3; `docs/method.md` for the changes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


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
