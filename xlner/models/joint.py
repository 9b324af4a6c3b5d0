"""The network of teachers and of transformer students: two heads, one forward for both tasks, one encoder or two.

A student's two towers share their weights, so both sentences of a pair are rows of one batch. Shapes: B windows,
P pieces, C tags, D hidden width, E projection width, Q word pairs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel

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
        if evaluator is not None and similarity is not None and not similarity.reads_scores:
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
        if self.similarity is None:
            output = self.recognizer(input_ids=input_ids, attention_mask=attention_mask)
            return JointOutput(output.logits, None, None)
        output = self.recognizer(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        read = output
        if self.evaluator is not None:
            read = self.evaluator(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        projections = self.similarity.project(read.logits if self.similarity.reads_scores else read.hidden_states[-1])
        if word_pairs is None:
            return JointOutput(output.logits, None, projections)
        first, second = projections.flatten(0, 1)[word_pairs]
        return JointOutput(output.logits, self.similarity.score(first, second), projections)


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
