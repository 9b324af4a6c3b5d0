"""What a network makes of pieces, found by trying it on a few of them.

Configurations and class names say too little: some networks need more than pieces, some have no positions beyond a
number that stands nowhere, and some let padding into the words beside it. A trial is a pass of a few pieces.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from xlner.errors import ModelError
from xlner.models.encoder import NETWORK_ERRORS, first_line

# Pieces of the two windows that are tried, and of the one that both are padded to.
SHORT, LONG, PADDED = 5, 8, 13
# What padding may change, as a share of the largest score: more than float32 rounds, less than changes a tag. GPUs may
# compute with ten bits.
ROUNDING, GPU_ROUNDING = 1e-3, 2e-2
# Under these names configurations state how many pieces there may be, where no table of positions tells.
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_seq_length")


class _Lookups(TorchFunctionMode):
    """While entered, notes each lookup in a table: its rows, the shape of the numbers and the highest of them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, tuple[int, ...], int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch in the place of each of its functions."""
        kwargs = kwargs or {}
        if func is F.embedding:
            numbers, table = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
            self.found.append((len(table), tuple(numbers.shape), int(numbers.max())))
        return func(*args, **kwargs)


def longest_input(network: PreTrainedModel) -> int | None:
    """Pieces, special ones included, that the network has positions for; None if there is no limit.

    A table of positions is one in which a window that is longer by some pieces is looked up by as much further.
    RoBERTa's, whose first rows are padding's, is found so as well as one that is no module of its own.

    Raises:
        ModelError: If the network does not run on pieces and a mask.
    """
    config = network.config.get_text_config()
    limits = [getattr(config, name, None) for name in _LIMITS]
    stated = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    lookups = []
    for length in (SHORT, LONG):
        with _Lookups() as mode:
            _scores(network, [_pieces(network, length)])
        lookups.append(mode.found)
    for (rows, _, short), (_, shape, long) in zip(*lookups, strict=False):
        # Distances between pieces, (P, P), are looked up too: they have no end.
        if long - short == LONG - SHORT and shape[:-1] in ((), (1,)):
            stated.append(rows - 1 - long + LONG)
    return min(stated, default=None)


def heeds_mask(network: PreTrainedModel) -> bool:
    """Whether a window has the same scores alone and padded beside a longer one.

    Raises:
        ModelError: If the network does not run on pieces and a mask, or its scores are no numbers.
    """
    rounding = ROUNDING if network.device.type == "cpu" else GPU_ROUNDING
    windows = [_pieces(network, length) for length in (SHORT, LONG, PADDED)]
    together = _scores(network, windows)
    for window, padded in zip(windows[:2], together, strict=False):
        (alone,) = _scores(network, [window])
        difference = (alone - padded[: len(window)]).abs().max()
        if difference > rounding * max(1.0, float(alone.abs().max())):
            return False
    return True


def _pieces(network: PreTrainedModel, length: int) -> list[int]:
    """Ordinary pieces, the same ones again in a longer window; the highest number comes first."""
    table: Any = network.get_input_embeddings()
    n_pieces = len(table.weight)
    special = {value for key, value in network.config.to_dict().items() if key.endswith("_token_id")}
    ordinary = [number for number in range(n_pieces - 1, 0, -max(1, n_pieces // 50)) if number not in special]
    return [ordinary[place % len(ordinary)] for place in range(length)]


def _scores(network: PreTrainedModel, windows: Sequence[Sequence[int]]) -> Tensor:
    """The network's scores of windows in one padded batch, (B, P, C)."""
    lengths = torch.tensor([len(window) for window in windows])
    width = int(lengths.max())
    pad_id = network.config.get_text_config().pad_token_id or 0
    input_ids = torch.tensor([[*window, *[pad_id] * (width - len(window))] for window in windows])
    mask = (torch.arange(width) < lengths[:, None]).long()
    was_training = network.training
    network.train(False)
    try:
        with torch.inference_mode():
            output = network(input_ids=input_ids.to(network.device), attention_mask=mask.to(network.device))
        scores: Tensor = output.logits.float().cpu()
    except NETWORK_ERRORS as problem:
        raise ModelError(
            f"{type(network).__name__} does not run on pieces and their mask alone: {first_line(problem)}; expected an "
            "encoder of text such as BERT, RoBERTa or XLM-R"
        ) from problem
    finally:
        network.train(was_training)
    if scores.shape[:2] != input_ids.shape:
        raise ModelError(
            f"{type(network).__name__} gives scores {tuple(scores.shape)} for pieces {tuple(input_ids.shape)}; "
            "expected some for each piece"
        )
    return scores
