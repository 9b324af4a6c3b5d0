"""Hidden states of every word of a text, computed once and stored beside the soft labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tqdm import tqdm

from xlner.backends.torch_backend import number_format
from xlner.data.soft_labels import BLOCK, SoftLabels
from xlner.data.storage import RowWriter, StoredRows, in_blocks, is_whole
from xlner.errors import RecipeError
from xlner.models.encoder import checked_config
from xlner.models.folder import load_joint_model, read_settings
from xlner.network_outputs import word_encoder, word_vectors
from xlner.training.labelling import locked

# Whoever changes the vectors that come out of the same teacher and words adds 1.
_FORMULA = 1
_COLUMNS = {"hidden": "float16"}


class HiddenStates:
    """Vectors (W, D) of the words of each sentence, memory-mapped; zeros for words without a piece."""

    def __init__(self, paths: list[Path], width: int) -> None:
        self._rows = StoredRows(paths, BLOCK)
        self.width = width

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, sentence: int) -> NDArray[np.float16]:
        """The vectors of a sentence, (W, D)."""
        return self._rows.row(sentence, "hidden").reshape(-1, self.width)  # type: ignore[return-value]

    def all(self) -> NDArray[np.float16]:
        """The vectors of all words of the text, (words, D), in memory."""
        rows = [self.of(sentence) for sentence in range(len(self))]
        return np.concatenate([np.zeros((0, self.width), dtype=np.float16), *rows])


class VectorReader:
    """A teacher in memory that gives the hidden states of words."""

    def __init__(
        self, teacher: str, n_layers: int, *, device: torch.device, autocast_dtype: torch.dtype | None
    ) -> None:
        """Load it; arguments as for `hidden_states`."""
        self._model = load_joint_model(teacher).to(device).eval()
        self._encoder = word_encoder(teacher, self._model.recognizer, read_settings(teacher).max_length)
        self._n_layers, self._device, self._autocast_dtype = n_layers, device, autocast_dtype
        self.width = int(self._model.recognizer.config.hidden_size)

    def read(self, sentences: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """The vectors of each sentence, (W, D); zeros for words without a piece."""
        found = [np.zeros((len(words), self.width), dtype=np.float32) for words in sentences]
        windows = list(self._encoder.encode(sentences))
        read = word_vectors(
            self._model,
            windows,
            self._encoder.pad_id,
            self._n_layers,
            device=self._device,
            autocast_dtype=self._autocast_dtype,
        )
        for place, vectors in read:
            found[windows[place].sentence][windows[place].word_numbers] = vectors
        return found


def hidden_states(
    teacher: str,
    soft_labels: SoftLabels,
    n_layers: int,
    *,
    accelerator: Accelerator,
    autocast_dtype: torch.dtype | None,
) -> HiddenStates:
    """The mean of a teacher's last `n_layers` layers at every word of a text, made now if not stored yet.

    Args:
        teacher: Model folder.
        soft_labels: Give the words; the vectors are stored in their folder, so they must be those of this teacher.
        n_layers: How many layers are averaged.
        accelerator: Processes share the work, block by block in turn; every process calls it.
        autocast_dtype: Number format of the pass; None for float32.

    Raises:
        RecipeError: If there is no such teacher, all of them being annotation files.
    """
    if not teacher:
        raise RecipeError("a teacher's hidden states are asked for, and annotation files have none")
    n_parts = accelerator.num_processes
    name = f"hidden-{_FORMULA}-{n_layers}-{number_format(autocast_dtype)}"
    paths = [soft_labels.folder / f"{name}-{part}-of-{n_parts}.arrow" for part in range(n_parts)]
    with locked(soft_labels.folder, accelerator):
        # Asked before anyone writes: a process that ends first must not make another one think that all is done.
        stored = all(is_whole(path) for path in paths)
        accelerator.wait_for_everyone()
        if not stored:
            reader = VectorReader(teacher, n_layers, device=accelerator.device, autocast_dtype=autocast_dtype)
            rank = accelerator.process_index
            bar = tqdm(
                total=len(soft_labels),
                desc="hidden states",
                unit=" sentences",
                disable=not accelerator.is_main_process,
                dynamic_ncols=True,
            )
            with RowWriter(paths[rank], _COLUMNS) as writer, bar:
                for number, block in enumerate(in_blocks(range(len(soft_labels)), BLOCK)):
                    if number % n_parts == rank:
                        found = reader.read([soft_labels.words(sentence) for sentence in block])
                        writer.write([{"hidden": vectors.ravel()} for vectors in found])
                    bar.update(len(block))
        accelerator.wait_for_everyone()
    return HiddenStates(paths, int(checked_config(teacher).hidden_size))
