"""`bilstm`: word vectors, layers of LSTM in both directions, a score for each tag; 1.5 to 2.25 M parameters.

The direction from right to left reads the words of each window in reverse, so that padding comes last in both: what
a window says does not depend on what stands beside it in a batch, and no packing is needed, which would be slower.

Source: Ma and Hovy 2016 (arXiv:1603.01354); as a student, Izsak et al. 2019 (arXiv:1910.06294).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xlner.students.network import WordVectors, last_layer
from xlner.students.settings import Sizes


class BiLstm(nn.Module):
    """Layers of two LSTMs each, one for each direction."""

    def __init__(self, sizes: Sizes, tags: Sequence[str], dropout: float, unknown_ratio: float) -> None:
        super().__init__()
        self.vectors = WordVectors(sizes, dropout, unknown_ratio)
        widths = [self.vectors.size, *[2 * sizes.hidden_size] * (sizes.layers - 1)]
        self.rightward = nn.ModuleList([nn.LSTM(width, sizes.hidden_size, batch_first=True) for width in widths])
        self.leftward = nn.ModuleList([nn.LSTM(width, sizes.hidden_size, batch_first=True) for width in widths])
        self.dropout = nn.Dropout(dropout)
        self.scores = last_layer(2 * sizes.hidden_size, tags)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Rows (B, W, K) and a mask of words (B, W) to scores (B, W, C)."""
        states = self.vectors(rows)
        places = torch.arange(mask.shape[1], device=mask.device)
        # The place of each word when its window is read from its end; padding stays behind.
        reverse = torch.where(mask, mask.sum(dim=1, keepdim=True) - 1 - places, places)[:, :, None]
        for rightward, leftward in zip(self.rightward, self.leftward, strict=True):
            forward = rightward(states)[0]
            backward = leftward(states.gather(1, reverse.expand_as(states)))[0]
            states = torch.cat([forward, backward.gather(1, reverse.expand_as(backward))], dim=-1)
            states = self.dropout(states)
        scores: Tensor = self.scores(states)
        return scores
