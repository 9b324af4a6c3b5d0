"""The network of a compact student: rows of words in, scores of tags out; a body of one kind, and how it decides.

Shapes: B windows, W words, K numbers a row, P = W K, D width of the word vectors, C tags.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xlner.students.crf import Crf
from xlner.students.settings import Sizes


class CompactOutput(NamedTuple):
    """`logits` (B, P, C): of a word, at the first number of its row, and zeros elsewhere.

    With a CRF they are its log marginals. `log_likelihood` (B,) is that of a sequence of tags, where one was given.
    """

    logits: Tensor
    log_likelihood: Tensor | None


class CompactNetwork(nn.Module):
    """A body, which scores the tags of each word, and a CRF where there is one."""

    def __init__(self, body: nn.Module, width: int, crf: Crf | None) -> None:
        """Put the parts together; `width` is K, the numbers of a row."""
        super().__init__()
        self.body, self.crf, self.width = body, crf, width

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        tag_ids: Tensor | None = None,
        known: Tensor | None = None,
    ) -> CompactOutput:
        """Scores of the tags.

        Args:
            input_ids: Rows, (B, P).
            attention_mask: False on padding, (B, P).
            tag_ids: With a CRF, a valid sequence whose likelihood is wanted, (B, W); None for none.
            known: Of which words the tag is known, (B, W).
        """
        rows, mask = input_ids.view(len(input_ids), -1, self.width), attention_mask[:, :: self.width]
        emissions = self.body(rows, mask)
        if self.crf is None:
            return CompactOutput(self._at_rows(emissions), None)
        likelihood = None
        if tag_ids is not None and known is not None:
            likelihood = self.crf.log_likelihood(emissions, mask, tag_ids, known)
        return CompactOutput(self._at_rows(self.crf.log_marginals(emissions, mask)), likelihood)

    def _at_rows(self, scores: Tensor) -> Tensor:
        """(B, W, C) to (B, P, C)."""
        return nn.functional.pad(scores[:, :, None], (0, 0, 0, self.width - 1)).flatten(1, 2)


class WordVectors(nn.Module):
    """Vectors of words: an entry of a table, and a convolution over the characters, side by side.

    Source: Ma and Hovy 2016 (arXiv:1603.01354), section 2.1.
    """

    def __init__(self, sizes: Sizes, dropout: float, unknown_ratio: float) -> None:
        super().__init__()
        self.words = nn.Embedding(sizes.n_words, sizes.word_size, padding_idx=0)
        self.characters = nn.Embedding(sizes.n_characters, sizes.char_size, padding_idx=0)
        self.filters = nn.Conv1d(sizes.char_size, sizes.char_filters, kernel_size=3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.unknown_ratio = unknown_ratio
        nn.init.normal_(self.words.weight, std=0.1)
        nn.init.normal_(self.characters.weight, std=0.3)
        for table in (self.words, self.characters):
            nn.init.zeros_(table.weight[0])

    @property
    def size(self) -> int:
        """D."""
        return self.words.embedding_dim + self.filters.out_channels

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (B, W, K) to vectors (B, W, D)."""
        words = rows[:, :, 0]
        if self.training and self.unknown_ratio:
            hidden = torch.rand(words.shape, device=words.device) < self.unknown_ratio
            words = torch.where(hidden & (words > 0), 1, words)
        spelled = self.characters(rows[:, :, 1:]).flatten(0, 1).transpose(1, 2)
        spelling = self.filters(spelled).amax(dim=-1).relu().view(*words.shape, -1)
        vectors: Tensor = self.dropout(torch.cat([self.words(words), spelling.float()], dim=-1))
        return vectors


def last_layer(width: int, tags: Sequence[str]) -> nn.Linear:
    """From hidden states to scores of tags."""
    return nn.Linear(width, len(tags))
