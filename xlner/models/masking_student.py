"""A student that also tells hidden pieces: a network for both tasks, in one forward.

Shapes: B windows, P pieces, M hidden pieces, V pieces of the vocabulary, D hidden width, E width of the embeddings.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlner.models.joint import JointModel, JointOutput, last_hidden


class MaskingOutput(NamedTuple):
    """What the student says of the windows as they are, and of the hidden pieces of their masked copies, (M, V)."""

    joint: JointOutput
    piece_logits: Tensor


class PieceHead(nn.Module):
    """Tells pieces from hidden states; its last layer is the recognizer's own table of embeddings.

    Source: Devlin et al. 2019 (arXiv:1810.04805), as published in its code.
    """

    def __init__(self, recognizer: PreTrainedModel) -> None:
        super().__init__()
        embeddings: Any = recognizer.get_input_embeddings()
        n_pieces, width = embeddings.weight.shape
        self.dense = nn.Linear(int(recognizer.config.hidden_size), width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(n_pieces))

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """Logits (M, V) of hidden states (M, D), with the embeddings (V, E)."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embeddings, self.bias)


class MaskingStudent(nn.Module):
    """A student and a head for hidden pieces; only the student is kept in the end."""

    def __init__(self, student: JointModel) -> None:
        """Take a student, and draw the head from torch's global generator."""
        super().__init__()
        self.student = student
        self.pieces = PieceHead(student.recognizer)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, word_pairs: Tensor | None, n_plain: int, places: Tensor
    ) -> MaskingOutput:
        """Both tasks in one pass, as several processes need it.

        Args:
            input_ids: Piece ids of the windows, and after them of their masked copies, (B, P).
            attention_mask: True on pieces, False on padding, (B, P).
            word_pairs: As for `JointModel`, within the windows; None for none.
            n_plain: How many of the rows are windows as they are.
            places: Of the hidden pieces in the flattened (B * P) pieces, (M,).
        """
        with last_hidden(self.student.recognizer) as caught:
            output = self.student(input_ids, attention_mask, word_pairs)
        embeddings: Any = self.student.recognizer.get_input_embeddings()
        piece_logits = self.pieces(caught[0].flatten(0, 1)[places], embeddings.weight)
        projections = None if output.projections is None else output.projections[:n_plain]
        joint = JointOutput(output.logits[:n_plain], output.similarity_logits, projections)
        return MaskingOutput(joint, piece_logits)
