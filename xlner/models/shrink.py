"""A smaller network out of a larger one: fewer layers, narrower ones, fewer pieces; what is left keeps its weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel

from xlner.errors import ModelError
from xlner.models.token_classifier import NETWORK_ERRORS, layer_stacks, longest_input, n_layers_of

# How configurations call the width of feed-forward parts.
_WIDTHS = ("intermediate_size", "hidden_dim", "d_ff", "d_inner", "ffn_dim", "n_inner")


def reduced(
    network: PreTrainedModel, *, n_layers: int = 0, feed_forward: int = 0, piece_ids: Sequence[int] | None = None
) -> PreTrainedModel:
    """A network of the same architecture with a part of the weights.

    It is built from its own configuration, so that it computes what it will compute once saved and opened again.

    Args:
        network: The larger one.
        n_layers: Layers to keep, spread evenly from the first to the last; 0: all.
        feed_forward: Units of each feed-forward part to keep, those of the largest weights; 0: all.
        piece_ids: The pieces to keep, rising: row i of the new table is that of `piece_ids[i]`; None: all.

    Raises:
        ModelError: If it has fewer layers or units than asked, is built so that they cannot be told apart, or if what
            is left does not fit together.
    """
    told, total = type(network).__name__, n_layers_of(network)
    if total < n_layers:
        raise ModelError(f"reduction.layers is {n_layers}; {told} has {total} layers of its own")
    stacks = layer_stacks(network)
    if not stacks and (n_layers not in (0, total) or feed_forward):
        raise ModelError(
            f"reduction: the layers of {told} share their weights or are no plain list, so that none can be left out "
            f"or narrowed; set reduction.layers={total} and reduction.feed_forward=0, or take another encoder"
        )
    config: dict[str, Any] = network.config.to_dict()
    kept = spread(total, n_layers or total)
    weights = _of_layers(network.state_dict(), [name for name, _ in stacks], kept)
    if len(kept) < total:
        # Alias names of some architectures (`n_layers`) are the business of the configuration's own class.
        config[network.config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(kept)
        for key, value in config.items():
            of_layers = isinstance(value, list) and len(value) == total and total > 1
            if of_layers and ("layer" in key or all(isinstance(number, int) for number in value)):
                config[key] = [value[number] for number in kept]
    if feed_forward:
        width = next((key for key in _WIDTHS if isinstance(config.get(key), int)), "")
        if not width:
            raise ModelError(f"reduction.feed_forward: {told} states no width of its feed-forward parts; leave it 0")
        for place, number in enumerate(kept):
            layers = [(f"{name}.{place}", layers[number]) for name, layers in stacks]
            _narrow(weights, layers, config[width], feed_forward, told)
        config[width] = feed_forward
    if piece_ids is not None:
        _choose_pieces(weights, config, network, piece_ids)
    try:
        smaller: PreTrainedModel = type(network)(type(network.config).from_dict(config))
        smaller.load_state_dict(weights)
    except NETWORK_ERRORS as problem:
        reason = " ".join(str(problem).split())[:300] or type(problem).__name__
        raise ModelError(
            f"reduction: {told} cannot be made smaller this way: {reason}; leave out what of reduction.layers, "
            "reduction.feed_forward and reduction.min_frequency it is, or take another encoder"
        ) from problem
    smaller.train(network.training)
    if smaller.device.type != "meta":
        longest_input(smaller)  # it runs, or this says why not
    return smaller


def check_reducible(
    config: PretrainedConfig, *, n_layers: int = 0, feed_forward: int = 0, fewer_pieces: bool = False
) -> None:
    """Refuse what `reduced` would, from the configuration alone: the network is built without weights.

    Args:
        config: Of the larger network.
        n_layers: As for `reduced`; 0: half of them.
        feed_forward: As for `reduced`.
        fewer_pieces: Whether there will be fewer pieces.

    Raises:
        ModelError: As `reduced`.
    """
    try:
        with torch.device("meta"):
            network = AutoModelForTokenClassification.from_config(config)  # type: ignore[no-untyped-call]
    except NETWORK_ERRORS:
        return  # some are only built with numbers; what is wrong with it is told once it is
    table: Any = network.get_input_embeddings()
    with torch.device("meta"):
        reduced(
            network,
            n_layers=n_layers or max(1, n_layers_of(network) // 2),
            feed_forward=feed_forward,
            piece_ids=range(len(table.weight)) if fewer_pieces else None,
        )


def spread(n: int, n_kept: int) -> list[int]:
    """Which of `n` layers are kept: the first, the last, and the others at even distances; of one, the first."""
    return [round(place * (n - 1) / max(1, n_kept - 1)) for place in range(n_kept)]


def _of_layers(weights: Mapping[str, Tensor], stacks: Sequence[str], kept: Sequence[int]) -> dict[str, Tensor]:
    chosen = {}
    for name, values in weights.items():
        stack = next((stack for stack in stacks if name.startswith(f"{stack}.")), None)
        if stack is None:
            chosen[name] = values
            continue
        number, _, rest = name.removeprefix(f"{stack}.").partition(".")
        if int(number) in kept:
            chosen[f"{stack}.{kept.index(int(number))}.{rest}"] = values
    return chosen


def _narrow(
    weights: dict[str, Tensor], layers: Sequence[tuple[str, nn.Module]], width: int, n_units: int, told: str
) -> None:
    """Keep the units of a layer's feed-forward part whose weights, in and out, are the largest.

    `layers` are the parts of the layer with their places in the weights.
    """
    linear = [
        (f"{place}.{name}" if name else place, part)
        for place, layer in layers
        for name, part in layer.named_modules()
        if isinstance(part, nn.Linear)
    ]
    into = [name for name, part in linear if part.out_features == width]
    out = [name for name, part in linear if part.in_features == width]
    if len(into) != 1 or len(out) != 1:
        raise ModelError(f"reduction.feed_forward: {told} has no plain feed-forward parts; leave it 0")
    if n_units > width:
        raise ModelError(f"reduction.feed_forward is {n_units}; {told} has {width} units")
    first, bias, second = f"{into[0]}.weight", f"{into[0]}.bias", f"{out[0]}.weight"
    weight_of_unit = weights[first].norm(dim=1) * weights[second].norm(dim=0)
    units = weight_of_unit.topk(n_units).indices.sort().values
    weights[first], weights[second] = weights[first][units], weights[second][:, units]
    if bias in weights:
        weights[bias] = weights[bias][units]


def _choose_pieces(
    weights: dict[str, Tensor], config: dict[str, Any], network: PreTrainedModel, piece_ids: Sequence[int]
) -> None:
    """Keep the rows of some pieces, and call special ones by their new ids."""
    table: Any = network.get_input_embeddings()
    rows = torch.tensor(piece_ids, device=table.weight.device)
    for name, values in network.named_parameters(remove_duplicate=False):
        if values is table.weight:  # under several names, where a table is shared
            weights[name] = weights[name][rows]
    config["vocab_size"] = len(piece_ids)
    new_ids = {old: new for new, old in enumerate(piece_ids)}
    for key, value in config.items():
        if key.endswith("_token_id") and isinstance(value, int):
            config[key] = new_ids.get(value)
    counts_positions = any(
        name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None
        for name, part in network.named_modules()
    )
    if counts_positions and config["pad_token_id"] != network.config.pad_token_id:
        raise ModelError(
            f"{type(network).__name__} counts positions from the id of the padding piece, which would change; set "
            "reduction.min_frequency=0"
        )
