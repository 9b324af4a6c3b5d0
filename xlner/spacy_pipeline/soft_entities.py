"""spaCy's entity recognizer, taught by probabilities instead of by one annotation.

The recognizer reads a text from left to right and chooses an action for each token: `O`, or to begin (`B`), continue
(`I`), end (`L`) or, in one, begin and end (`U`) an entity of a type. spaCy's own loss knows actions that are right and
such that are wrong; here an action is as right as the teacher holds it likely in the state that the recognizer is in.
What is trained has the weights and the form of spaCy's `ner`, and is saved as such.

Importing this module registers the component `xlner_soft_ner`. Shapes: S states, A actions, T tokens, C tags in IOB2.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from spacy.pipeline.ner import DEFAULT_NER_MODEL, EntityRecognizer  # type: ignore[import-not-found]  # compiled
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Model

from xlner.spacy_pipeline.silver import TAGS, TOKEN_PROBS

SOFT_NER = "xlner_soft_ner"
_ACTIONS = "xlner_action_probs"  # in `doc.user_data`, while training

Floats = NDArray[np.float32]


def closed_targets(probs: Floats, tags: Sequence[str], actions: Sequence[str]) -> Floats:
    """What to do with each token where no entity is open.

    With p_t the teacher's probabilities at token t, and words independent given the text as every tagger of words
    takes them to be, the targets are, normalised,

        O: p_t(O),    B-X: p_t(B-X) p_{t+1}(I-X),    U-X: p_t(B-X) (1 - p_{t+1}(I-X)).

    Args:
        probs: (T, C).
        tags: `O`, then B and I of each type, C of them.
        actions: Names of spaCy's actions, A of them.

    Returns:
        (T, A); rows of zeros where the teacher says nothing.
    """
    targets: Floats = np.zeros((len(probs), len(actions)), dtype=np.float32)
    continued = open_targets(probs)
    types = [tag[2:] for tag in tags[1::2]]
    for number, action in enumerate(actions):
        move, _, name = action.partition("-")
        if action == "O":
            targets[:, number] = probs[:, 0]
        elif move in ("B", "U") and name:
            place = types.index(name)
            share = continued[:, place] if move == "B" else 1 - continued[:, place]
            targets[:, number] = probs[:, 1 + 2 * place] * share
    total = targets.sum(axis=1, keepdims=True)
    targets /= np.where(total > 0, total, 1.0)
    return targets


def open_targets(probs: Floats) -> Floats:
    """How likely an entity of each type, once open, goes on behind each token, (T, types): `I`; else it ends: `L`."""
    following: Floats = np.zeros((len(probs), probs.shape[1] // 2), dtype=np.float32)
    following[:-1] = probs[1:, 2::2]
    return following


class SoftEntityRecognizer(EntityRecognizer):  # type: ignore[misc]  # compiled, so without a type
    """`ner`, but for its loss: documents that carry token probabilities are learnt from these."""

    def update(
        self, examples: Iterable[Example], *, drop: float = 0.0, sgd: Any = None, losses: dict[str, float] | None = None
    ) -> dict[str, float]:
        """Learn from a batch; the documents that are annotated hand their probabilities to those that are not."""
        examples = list(examples)
        for example in examples:
            known = example.reference.user_data
            if TOKEN_PROBS in known and len(known[TOKEN_PROBS]) == len(example.predicted):
                if _ACTIONS not in known:  # kept from epoch to epoch
                    probs = np.asarray(known[TOKEN_PROBS], dtype=np.float32)
                    types = [tag[2:] for tag in known[TAGS][1::2]]
                    columns = [types.index(name) for name in self.labels]  # types never found have no actions
                    continued = open_targets(probs)[:, columns]
                    known[_ACTIONS] = (closed_targets(probs, known[TAGS], self._actions()), continued)
                example.predicted.user_data[_ACTIONS] = known[_ACTIONS]
        found: dict[str, float] = super().update(examples, drop=drop, sgd=sgd, losses=losses)
        return found

    def get_batch_loss(self, states: Any, golds: Any, scores: Floats, losses: dict[str, float] | None) -> Floats:
        """The gradient of the cross-entropy between the recognizer's actions and the teacher's, (S, A).

        States of documents without probabilities, as of words that no teacher saw, teach nothing.
        """
        place = {name: number for number, name in enumerate(self._actions())}
        self.model.attrs["unseen_classes"].clear()  # spaCy bars actions that no annotation has asked for
        targets = np.zeros((len(states), len(place)), dtype=np.float32)
        for row, state in zip(targets, states, strict=True):
            closed, continued = state.doc.user_data.get(_ACTIONS, (None, None))
            if closed is None:
                continue
            token = state.B(0)
            if not state.entity_is_open():
                row[:] = closed[token]
                continue
            for number, name in enumerate(self.labels):
                if self.moves.is_valid(state, f"L-{name}"):
                    row[place[f"I-{name}"]] = continued[token, number]
                    row[place[f"L-{name}"]] = 1.0 - continued[token, number]
        raw = np.asarray(scores, dtype=np.float32)
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        gradient: Floats = powers / powers.sum(axis=1, keepdims=True) - targets
        gradient[targets.sum(axis=1) == 0] = 0.0
        if losses is not None:
            losses[self.name] = losses.get(self.name, 0.0) + float((gradient**2).sum())
        return gradient

    def _actions(self) -> list[str]:
        """The names of all actions in the order of their scores; `move_names` leaves out an internal one."""
        return [str(self.moves.get_class_name(number)) for number in range(self.moves.n_moves)]


@Language.factory(
    SOFT_NER,
    default_config={
        "model": DEFAULT_NER_MODEL,
        "update_with_oracle_cut_size": 100,
    },
    assigns=["doc.ents", "token.ent_iob", "token.ent_type"],
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0},
)
def make_soft_ner(
    nlp: Language, name: str, model: Model[list[Doc], Any], update_with_oracle_cut_size: int
) -> SoftEntityRecognizer:
    """The component, as spaCy makes it from its settings."""
    return SoftEntityRecognizer(nlp.vocab, model, name=name, update_with_oracle_cut_size=update_with_oracle_cut_size)
