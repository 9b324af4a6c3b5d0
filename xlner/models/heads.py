"""Similarity heads: do two words carry the same tag?

A head projects hidden states onto unit vectors and scores two of them. Soft labels store the projection, so it is
small. Shapes: D hidden width, E projection width, Q word pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel


class CalibratedSimilarity(nn.Module):
    """`sigma(a cos(u, v) + b)` of a learned projection, a and b learned.

    Unlike the plain cosine it can reach 0 and 1, so that a perfect pair costs nothing.
    """

    # Starting with a steep curve around cos = 0.5, since hidden states of an encoder all point roughly one way.
    START_SCALE = 8.0
    START_OFFSET = -4.0

    def __init__(self, width: int, projection_size: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, projection_size, bias=False)
        self.scale = nn.Parameter(torch.tensor(self.START_SCALE))
        self.offset = nn.Parameter(torch.tensor(self.START_OFFSET))
        self.size = projection_size

    def curve(self) -> tuple[float, float]:
        """Scale and offset that turn a cosine into a logit."""
        return float(self.scale.detach()), float(self.offset.detach())

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to unit vectors (..., E), float32."""
        return F.normalize(self.projection(hidden).float(), dim=-1)

    def score(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits (Q,) that two words of equal tag are shown, from unit vectors (Q, E)."""
        return self.scale * (first * second).sum(dim=-1) + self.offset


class CosineSimilarity(nn.Module):
    """`sigma(cos(h_i, h_j))` of the hidden states themselves, as published; it stays within [0.269, 0.731].

    Source: Li et al. 2022 (2022.acl-long.14), the similarity evaluator.
    """

    def __init__(self, width: int, projection_size: int) -> None:
        super().__init__()
        self.size = width

    def curve(self) -> tuple[float, float]:
        """Scale and offset that turn a cosine into a logit."""
        return 1.0, 0.0

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to unit vectors (..., D), float32."""
        return F.normalize(hidden.float(), dim=-1)

    def score(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits (Q,): the cosine of unit vectors (Q, D)."""
        return (first * second).sum(dim=-1)


SimilarityHead = CalibratedSimilarity | CosineSimilarity


def new_head(kind: str, recognizer: PreTrainedModel, projection_size: int) -> SimilarityHead:
    """A fresh head for the hidden states of a recognizer; `kind` is a key of `SIMILARITIES`."""
    return SIMILARITIES[kind](recognizer.config.hidden_size, projection_size)


# A new similarity is one class above and one line here; recipes name it by its key.
SIMILARITIES: dict[str, type[CalibratedSimilarity] | type[CosineSimilarity]] = {
    "calibrated": CalibratedSimilarity,
    "cosine": CosineSimilarity,
}
