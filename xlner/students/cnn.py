"""`cnn`: word vectors, and convolutions over words that reach ever further; at most 1.5 M parameters.

Layer n looks at words 2^(n mod 3) apart, so that three layers see 7 words to each side. All words are computed at once,
where an LSTM goes from word to word.

Source: Strubell et al. 2017 (arXiv:1702.02098), iterated dilated convolutions.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from xlner.students.network import WordVectors, last_layer
from xlner.students.settings import Sizes


class DilatedCnn(nn.Module):
    """A layer to the width of the others, and convolutions that each add to what they read."""

    def __init__(self, sizes: Sizes, tags: Sequence[str], dropout: float, unknown_ratio: float) -> None:
        super().__init__()
        self.vectors = WordVectors(sizes, dropout, unknown_ratio)
        self.entry = nn.Linear(self.vectors.size, sizes.hidden_size)
        self.convolutions = nn.ModuleList(
            [
                nn.Conv1d(sizes.hidden_size, sizes.hidden_size, 3, padding=2 ** (n % 3), dilation=2 ** (n % 3))
                for n in range(sizes.layers)
            ]
        )
        self.dropout = nn.Dropout(dropout)
        self.scores = last_layer(sizes.hidden_size, tags)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Rows (B, W, K) and a mask of words (B, W) to scores (B, W, C)."""
        states = self.entry(self.vectors(rows)).relu()
        for convolution in self.convolutions:
            # What stands behind the end of a window must look like the nothing before its beginning.
            seen = states.masked_fill(~mask[:, :, None], 0.0).transpose(1, 2)
            states = states + self.dropout(convolution(seen).relu().transpose(1, 2))
        scores: Tensor = self.scores(states)
        return scores
