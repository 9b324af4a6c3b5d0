"""The network of teachers and of transformer students: two heads, one forward for both tasks, one encoder or two.

A student's two towers share their weights, so both sentences of a pair are rows of one batch. Shapes: B windows,
P pieces, C tags, D hidden width, E projection width, Q word pairs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlner.models.encoder import output_layer, tags_of_model
from xlner.models.heads import SimilarityHead


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
