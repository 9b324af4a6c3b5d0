"""The network of teachers and transformer students: recognizer and similarity head, one encoder or two, one forward."""

from copy import deepcopy
from typing import NamedTuple

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
# A student's two towers share their weights, so both sentences of a pair are rows of one batch. Pieces are known in
# here alone: windows of pieces come in, what is said of words goes out. Shapes: B windows, P pieces, N words, C tags, D
# hidden width, E projection width, Q word pairs.


class JointOutput(NamedTuple):
    """`logits` (N, C), `similarity_logits` (Q,), `projections` (N, E) of unit length.

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

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, words: Tensor, word_pairs: Tensor | None = None
    ) -> JointOutput:
        """Both tasks in one pass.

        Args:
            input_ids: Piece ids, (B, P).
            attention_mask: True on pieces, False on padding, (B, P).
            words: Places of the words' first pieces in the flattened (B * P) pieces, (N,).
            word_pairs: The numbers of the two words of each pair among the N, (2, Q); None for none.
        """
        # Whole numbers are what every network takes; some compute with the mask.
        attention_mask = attention_mask.long()
        with_hidden = self.similarity is not None
        output = self.recognizer(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=with_hidden)
        logits = output.logits.flatten(0, 1)[words]
        if self.similarity is None:
            return JointOutput(logits, None, None)
        read = output
        if self.evaluator is not None:
            read = self.evaluator(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        projections = self.similarity.project(read.hidden_states[-1].flatten(0, 1)[words])
        if word_pairs is None:
            return JointOutput(logits, None, projections)
        first, second = projections[word_pairs]
        return JointOutput(logits, self.similarity.score(first, second), projections)


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

    def forward(self, input_ids: Tensor, attention_mask: Tensor, words: Tensor, in_first_tower: Tensor) -> Tensor:
        """Scores of the tags (N, C), those of a word by the layer of its tower.

        Args:
            input_ids: As for `JointModel`, as are `attention_mask` and `words`.
            attention_mask: See there.
            words: See there.
            in_first_tower: Which words are of the first tower, (N,).
        """
        read: list[Tensor] = []
        hook = self._first().register_forward_pre_hook(lambda layer, arguments: read.append(arguments[0]))
        try:
            first: Tensor = self.student(input_ids, attention_mask, words).logits
        finally:
            hook.remove()
        second = self.second(read[0].flatten(0, 1)[words])
        return torch.where(in_first_tower[:, None], first, second)

    def _first(self) -> nn.Linear:
        recognizer = self.student.recognizer
        return output_layer(recognizer, len(tags_of_model(recognizer.config)))[1]
