"""The network of teachers and transformer students: recognizer and similarity head, one encoder or two, one forward."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlner.models.token_classifier import output_layer, tags_of_model

# Similarity heads: do two words carry the same tag?
#
# A head projects hidden states onto unit vectors and scores two of them. Soft labels store the projection, so it is
# small. Shapes: D hidden width, E projection width, Q word pairs.


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


# The network of teachers and of transformer students: two heads, one forward for both tasks, one encoder or two.
#
# A student's two towers share their weights, so both sentences of a pair are rows of one batch. Shapes: B windows,
# P pieces, C tags, D hidden width, E projection width, Q word pairs.


class JointOutput(NamedTuple):
    """`logits` (B, P, C), `similarity_logits` (Q,), `projections` (B, P, E) of unit length.

    The last two are None for a network without a similarity head; `similarity_logits` also where no pairs are given.
    """

    logits: Tensor
    similarity_logits: Tensor | None
    projections: Tensor | None


class JointModel(nn.Module):
    """A recognizer (any Hugging Face token classifier) and a similarity head on its last hidden states.

    With an `evaluator`, a network of the same make, the head reads that one instead: two tasks that share nothing.
    """

    def __init__(
        self,
        recognizer: PreTrainedModel,
        similarity: SimilarityHead | None,
        evaluator: PreTrainedModel | None = None,
    ) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.similarity = similarity
        self.evaluator = evaluator
        if evaluator is not None:
            # Scores that nothing reads get no gradient, which several processes would wait for.
            for name, parameter in evaluator.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name.startswith(evaluator.base_model_prefix))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, word_pairs: Tensor | None = None) -> JointOutput:
        """Both tasks in one pass.

        Args:
            input_ids: Piece ids, (B, P).
            attention_mask: True on pieces, False on padding, (B, P).
            word_pairs: Places of the two words of each pair in the flattened (B * P) pieces, (2, Q); None for none.
        """
        # Whole numbers are what every network takes; some compute with the mask.
        attention_mask = attention_mask.long()
        if self.similarity is None:
            output = self.recognizer(input_ids=input_ids, attention_mask=attention_mask)
            return JointOutput(output.logits, None, None)
        output = self.recognizer(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        read = output
        if self.evaluator is not None:
            read = self.evaluator(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        projections = self.similarity.project(read.hidden_states[-1])
        if word_pairs is None:
            return JointOutput(output.logits, None, projections)
        first, second = projections.flatten(0, 1)[word_pairs]
        return JointOutput(output.logits, self.similarity.score(first, second), projections)


class TwoHeadStudent(nn.Module):
    """A student with a layer of tag scores for each tower, as the post has it.

    The first tower's is the recognizer's own, which is what is evaluated and kept.
    """

    def __init__(self, student: JointModel, *, is_trained: bool) -> None:
        """Take a student, and give it a second layer.

        Args:
            student: Its recognizer's layer becomes that of the first tower.
            is_trained: Whether that layer knows its tags already, so that the second begins as a copy of it; if not,
                the second is drawn from torch's global generator, as was the first.
        """
        super().__init__()
        self.student = student
        self.second = deepcopy(self._first())
        if not is_trained:
            self.second.reset_parameters()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, in_first_tower: Tensor) -> Tensor:
        """Scores of the tags (B, P, C), those of a window by the layer of its tower.

        Args:
            input_ids: Piece ids, (B, P).
            attention_mask: True on pieces, False on padding, (B, P).
            in_first_tower: Which windows are of the first tower, (B,).
        """
        read: list[Tensor] = []
        hook = self._first().register_forward_pre_hook(lambda layer, arguments: read.append(arguments[0]))
        try:
            first: Tensor = self.student(input_ids, attention_mask).logits
        finally:
            hook.remove()
        return torch.where(in_first_tower[:, None, None], first, self.second(read[0]))

    def _first(self) -> nn.Linear:
        recognizer = self.student.recognizer
        return output_layer(recognizer, len(tags_of_model(recognizer.config)))[1]


@contextmanager
def last_hidden(recognizer: PreTrainedModel) -> Iterator[list[Tensor]]:
    """While entered, each pass of the recognizer leaves its last hidden states, (B, P, D), in the list."""
    caught: list[Tensor] = []
    hook = recognizer.base_model.register_forward_hook(
        lambda body, arguments, output: caught.append(output.last_hidden_state)
    )
    try:
        yield caught
    finally:
        hook.remove()


# A student that also imitates its teacher's hidden states, in one forward.
#
# Shapes: B windows, P pieces, N words, D hidden width of the student, T that of the teacher.


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


# A student that also tells hidden pieces: a network for both tasks, in one forward.
#
# Shapes: B windows, P pieces, M hidden pieces, V pieces of the vocabulary, D hidden width, E width of the embeddings.


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
