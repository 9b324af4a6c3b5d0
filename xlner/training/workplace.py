"""What the steps of denoising work with: what they may look at, all words of a text at once, rows with new trust."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from xlner.data.soft_labels import SoftLabels, SoftRow
from xlner.training.hidden_states import HiddenStates, hidden_states


@dataclass(frozen=True)
class Workplace:
    """What a step may look at beside the soft labels.

    `teacher` is the model folder whose hidden states tell which places are alike, and `taught` what it said, in whose
    folder they are kept: of several teachers the first model, empty where all are annotation files. `outside_share` is
    the share of `O` among the words of the teachers' labelled text, 0 where it is not known.
    """

    accelerator: Accelerator
    autocast_dtype: torch.dtype | None
    teacher: str
    taught: SoftLabels
    outside_share: float

    def hidden(self, n_layers: int) -> HiddenStates:
        """The mean of the teacher's last layers at every word of the text; every process calls it."""
        return hidden_states(
            self.teacher,
            self.taught,
            n_layers,
            accelerator=self.accelerator,
            autocast_dtype=self.autocast_dtype,
        )


@dataclass(frozen=True)
class TextWords:
    """All words of a text that the teacher could see, in memory: N of them, one sentence after the other.

    `probs` (N, C) float32; `is_seen` tells for each word of the text, also those left out here, whether it is one.
    """

    probs: Tensor
    is_seen: NDArray[np.bool_]

    @classmethod
    def of(cls, soft_labels: SoftLabels, device: torch.device) -> "TextWords":
        """Read them."""
        rows = [soft_labels.probs(number) for number in range(len(soft_labels))]
        probs = np.concatenate([np.zeros((0, len(soft_labels.card.tags)), dtype=np.float32), *rows])
        is_seen: NDArray[np.bool_] = np.any(probs, axis=1)
        return cls(torch.from_numpy(probs[is_seen]).to(device), is_seen)

    def vectors(self, hidden: HiddenStates) -> Tensor:
        """Their hidden states, (N, D) float32, on the device of `probs`."""
        return torch.from_numpy(hidden.all()[self.is_seen]).to(self.probs.device).float()

    def by_sentence(self, values: Tensor, soft_labels: SoftLabels) -> Iterator[NDArray[np.float32]]:
        """What was found for these words, (N, ...), as an array for each sentence, zeros for words left out."""
        spread = np.zeros((len(self.is_seen), *values.shape[1:]), dtype=np.float32)
        spread[self.is_seen] = values.float().cpu().numpy()
        start = 0
        for number in range(len(soft_labels)):
            stop = start + len(soft_labels.words(number))
            yield spread[start:stop]
            start = stop


def trusted_rows(soft_labels: SoftLabels, factors: Iterable[NDArray[np.floating]]) -> Iterator[SoftRow]:
    """The rows of soft labels with the trust of each word multiplied.

    Args:
        soft_labels: Keep words, probabilities and projections.
        factors: For each sentence, (W,), in [0, 1].
    """
    for number, factor in zip(range(len(soft_labels)), factors, strict=True):
        yield soft_labels.row(number, weights=soft_labels.weights(number) * factor)
