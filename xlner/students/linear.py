"""`linear`: the sum of the rows of one table that a word's hashed features name; for the smallest place.

This is the module that is trained; at run time `LinearBackend` computes the same without torch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xlner.students.hashed import feature_rows
from xlner.students.settings import Sizes


class HashedLinear(nn.Module):
    """A table of scores, (buckets, C)."""

    def __init__(self, sizes: Sizes, tags: Sequence[str], dropout: float, unknown_ratio: float) -> None:
        """Start with zeros: nothing is known of any feature. `unknown_ratio` has no meaning here."""
        super().__init__()
        self.buckets = sizes.buckets
        self.table = nn.Parameter(torch.zeros(sizes.buckets, len(tags)))
        self.dropout = dropout

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Rows (B, W, K) to scores (B, W, C); in training features are left out, each with the share `dropout`."""
        found = torch.from_numpy(feature_rows(rows.cpu().numpy(), self.buckets)).to(rows.device).flatten(0, 1)
        kept = torch.ones(found.shape, device=rows.device)
        kept = nn.functional.dropout(kept, self.dropout, self.training).to(self.table.dtype)
        scores: Tensor = nn.functional.embedding_bag(found, self.table, mode="sum", per_sample_weights=kept)
        return scores.view(*rows.shape[:2], -1)
