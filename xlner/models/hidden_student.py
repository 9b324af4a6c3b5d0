"""A student that also imitates its teacher's hidden states, in one forward.

Shapes: B windows, P pieces, N words, D hidden width of the student, T that of the teacher.
"""

from typing import NamedTuple

from torch import Tensor, nn

from xlner.models.joint import JointModel, JointOutput, last_hidden


class HiddenOutput(NamedTuple):
    """What the student says, and its vectors of words as wide as the teacher's, (N, T)."""

    joint: JointOutput
    vectors: Tensor


class HiddenStudent(nn.Module):
    """A student and, where the widths differ, a layer from its width to the teacher's; only the student is kept.

    Source: Sanh et al. 2019 (arXiv:1910.01108), section 2; the layer between widths: Jiao et al. 2020
    (arXiv:1909.10351).
    """

    def __init__(self, student: JointModel, teacher_width: int) -> None:
        """Take a student; the layer is drawn from torch's global generator."""
        super().__init__()
        self.student = student
        width = int(student.recognizer.config.hidden_size)
        self.bridge = nn.Identity() if width == teacher_width else nn.Linear(width, teacher_width, bias=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, word_pairs: Tensor | None, places: Tensor
    ) -> HiddenOutput:
        """Both in one pass, as several processes need it.

        Args:
            input_ids: Piece ids, (B, P).
            attention_mask: True on pieces, False on padding, (B, P).
            word_pairs: As for `JointModel`.
            places: Of the words in the flattened (B * P) pieces, (N,).
        """
        with last_hidden(self.student.recognizer) as caught:
            joint = self.student(input_ids, attention_mask, word_pairs)
        return HiddenOutput(joint, self.bridge(caught[0].flatten(0, 1)[places]))
