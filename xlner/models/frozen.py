"""Layers that learn nothing are computed once for each window of a text, and looked up in every epoch.

They compute as in tagging, without dropout (`token_classifier.freeze`), so that a window has the same hidden states
whenever it comes. Shapes: B windows, P pieces, D hidden width, T pieces of all windows.
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlner.models.inference import TokenBatch, predicting
from xlner.models.token_classifier import ROUNDING, layer_stacks

LOG = logging.getLogger("xlner")

MOST_BYTES = 16 * 2**30  # of hidden states on the disk
MOST_OF_DISK = 0.5  # of what is free there


def frozen_parts(body: PreTrainedModel) -> list[nn.Module]:
    """An encoder's embeddings and its lowest layers without a weight that learns; empty without such a layer."""
    embeddings, stacks = getattr(body, "embeddings", None), layer_stacks(body)
    if embeddings is None or len(stacks) != 1:
        return []
    parts: list[nn.Module] = [embeddings, *stacks[0][1]]
    learning = [any(weights.requires_grad for weights in part.parameters()) for part in parts]
    n_frozen = learning.index(True) if True in learning else len(parts)
    return parts[:n_frozen] if n_frozen > 1 else []


@contextmanager
def computed_once(
    network: nn.Module,
    batches: Iterable[TokenBatch],
    n_pieces: int,
    folder: Path,
    *,
    device: torch.device,
    autocast_dtype: torch.dtype | None,
) -> Iterator[bool]:
    """While entered, the frozen layers of a network in training are looked up rather than computed.

    What they say of windows of other pieces is computed as ever, and so is all outside training mode.

    Args:
        network: Lies on `device`; its encoders are found within.
        batches: Every window of the text, in any batches.
        n_pieces: Of all these windows, T.
        folder: Is there; 4 T D bytes lie in it meanwhile, in a file without a name, which is gone with the process.
        device: Where the network lies.
        autocast_dtype: Number format of the training.

    Yields:
        Whether they are looked up: not where there are no such layers, more than one encoder, too many pieces for the
        disk, or layers that hand on more than hidden states.
    """
    bodies = [part for part in network.modules() if isinstance(part, PreTrainedModel) and part.base_model is part]
    parts = frozen_parts(bodies[0]) if len(bodies) == 1 else []
    width = int(getattr(bodies[0].config, "hidden_size", 0)) if parts else 0
    n_bytes = 4 * n_pieces * width
    if not width or n_bytes > min(MOST_BYTES, MOST_OF_DISK * shutil.disk_usage(folder).free):
        yield False
        return
    with TemporaryFile(dir=folder) as file:
        table = torch.from_numpy(np.memmap(file, np.float32, "w+", shape=(n_pieces, width)))
        layers = _Layers(bodies[0], parts, table)
        try:
            with predicting(bodies[0], device, autocast_dtype):
                suited = all(
                    layers.keep(batch.input_ids.to(device), batch.attention_mask.to(device)) for batch in batches
                )
            if suited:
                told = f"the lowest layers ({len(parts) - 1}) learn nothing and are computed once"
                LOG.info(f"{told}: {n_bytes / 2**20:,.0f} MiB of hidden states")
            else:
                layers.restore()
            yield suited
        finally:
            layers.restore()


class _EnoughError(Exception):
    """Ends a pass through an encoder whose layers above are not asked for."""


class _Layers:
    """The frozen parts of an encoder, whose `forward` is replaced until `restore`."""

    def __init__(self, body: PreTrainedModel, parts: list[nn.Module], table: Tensor) -> None:
        self._body, self._parts, self._table = body, parts, table
        self._starts: dict[bytes, int] = {}  # of each window in the table, by its pieces
        self._n_kept = 0
        self._is_trial = False
        self._found: Tensor | None = None  # what stands in the table of the batch that is being computed
        self._hook = body.register_forward_pre_hook(self._look_up, with_kwargs=True)
        for part in parts:
            part.forward = self._replaced(part.forward, is_first=part is parts[0])

    def restore(self) -> None:
        """Let all parts compute again."""
        self._hook.remove()
        for part in self._parts:
            part.__dict__.pop("forward", None)

    def keep(self, input_ids: Tensor, attention_mask: Tensor) -> bool:
        """Compute and store the windows of a batch; False if looking up the first one gives something else."""
        is_piece, is_first, found = attention_mask.bool(), not self._starts, []

        def see(layer: nn.Module, given: Any, states: Any) -> None:
            found.append(states)
            if not is_first:
                raise _EnoughError

        hook = self._parts[-1].register_forward_hook(see)
        try:
            computed = self._last_states(input_ids, attention_mask)
        except _EnoughError:
            computed = None
        finally:
            hook.remove()
        (states,) = found
        if not isinstance(states, Tensor) or states.shape != (*input_ids.shape, self._table.shape[1]):
            return False
        for pieces, row, chosen in zip(input_ids, states, is_piece, strict=True):
            key, kept = _key(pieces[chosen]), row[chosen].float().cpu()
            if key not in self._starts:
                self._starts[key] = self._n_kept
                self._n_kept += len(kept)
                self._table[self._starts[key] : self._n_kept] = kept
        if computed is None:
            return True
        self._is_trial = True
        looked_up = self._last_states(input_ids, attention_mask)
        self._is_trial = False
        difference = (looked_up - computed)[is_piece].abs().max()
        return float(difference) <= ROUNDING * max(1.0, float(computed.abs().max()))

    def _last_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self._body(input_ids=input_ids, attention_mask=attention_mask.long()).last_hidden_state
        return states

    def _look_up(self, body: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._found = None
        input_ids = named.get("input_ids", arguments[0] if arguments else None)
        mask = named.get("attention_mask", arguments[1] if len(arguments) > 1 else None)
        if not (body.training or self._is_trial) or input_ids is None or mask is None:
            return
        places = torch.zeros(input_ids.shape, dtype=torch.int64)  # padding, which nothing reads, has any states
        for row, pieces, is_piece in zip(places, input_ids.cpu(), mask.bool().cpu(), strict=True):
            start = self._starts.get(_key(pieces[is_piece]))
            if start is None:
                return
            row[is_piece] = torch.arange(start, start + int(is_piece.sum()))
        self._found = self._table[places].to(input_ids.device)

    def _replaced(self, forward: Callable[..., Any], *, is_first: bool) -> Callable[..., Any]:
        def states(*arguments: Any, **named: Any) -> Any:
            if self._found is None:
                return forward(*arguments, **named)
            return self._found if is_first else (*arguments, *named.values())[0]

        return states


def _key(pieces: Tensor) -> bytes:
    return pieces.cpu().numpy().tobytes()
