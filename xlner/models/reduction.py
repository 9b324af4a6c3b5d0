"""A smaller network out of a larger one: fewer layers, narrower ones, fewer pieces; what is left keeps its weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlner.errors import ModelError
from xlner.models.encoder import layer_stack


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
        ModelError: If it has fewer layers or units than asked, or is built so that they cannot be told apart.
    """
    stack, layers = layer_stack(network)
    told = type(network).__name__
    if len(layers) < max(n_layers, 1):
        raise ModelError(f"reduction.layers is {n_layers}; {told} has {len(layers)} layers of its own")
    config: dict[str, Any] = network.config.to_dict()
    kept = spread(len(layers), n_layers or len(layers))
    weights = _of_layers(network.state_dict(), stack, kept)
    if n_layers:
        # Alias names of some architectures (`n_layers`) are the business of the configuration's own class.
        layer_key = network.config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
        config[layer_key] = len(kept)
        if config.get("layer_types"):
            config["layer_types"] = [config["layer_types"][number] for number in kept]
    if feed_forward:
        for place, number in enumerate(kept):
            _narrow(weights, f"{stack}.{place}", layers[number], config["intermediate_size"], feed_forward, told)
        config["intermediate_size"] = feed_forward
    if piece_ids is not None:
        _choose_pieces(weights, config, network, piece_ids)
    smaller: PreTrainedModel = type(network)(type(network.config).from_dict(config))
    smaller.load_state_dict(weights)
    smaller.train(network.training)
    return smaller


def spread(n: int, n_kept: int) -> list[int]:
    """Which of `n` layers are kept: the first, the last, and the others at even distances; of one, the first."""
    return [round(place * (n - 1) / max(1, n_kept - 1)) for place in range(n_kept)]


def _of_layers(weights: Mapping[str, Tensor], stack: str, kept: Sequence[int]) -> dict[str, Tensor]:
    chosen = {}
    for name, values in weights.items():
        if not name.startswith(f"{stack}."):
            chosen[name] = values
            continue
        number, _, rest = name.removeprefix(f"{stack}.").partition(".")
        if int(number) in kept:
            chosen[f"{stack}.{kept.index(int(number))}.{rest}"] = values
    return chosen


def _narrow(weights: dict[str, Tensor], place: str, layer: nn.Module, width: int, n_units: int, told: str) -> None:
    """Keep the units of a layer's feed-forward part whose weights, in and out, are the largest."""
    linear = [(name, part) for name, part in layer.named_modules() if isinstance(part, nn.Linear)]
    into = [name for name, part in linear if part.out_features == width]
    out = [name for name, part in linear if part.in_features == width]
    if len(into) != 1 or len(out) != 1:
        raise ModelError(f"reduction.feed_forward: {told} has no plain feed-forward parts; leave it 0")
    if n_units > width:
        raise ModelError(f"reduction.feed_forward is {n_units}; {told} has {width} units")
    first, bias, second = f"{place}.{into[0]}.weight", f"{place}.{into[0]}.bias", f"{place}.{out[0]}.weight"
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
    name = next(name for name, module in network.named_modules() if module is table)
    weights[f"{name}.weight"] = weights[f"{name}.weight"][torch.tensor(piece_ids)]
    config["vocab_size"] = len(piece_ids)
    new_ids = {old: new for new, old in enumerate(piece_ids)}
    for key, value in config.items():
        if key.endswith("_token_id") and isinstance(value, int):
            config[key] = new_ids.get(value)
    counts_positions = any(
        name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None
        for name, part in network.named_modules()
    )
    if counts_positions and config["pad_token_id"] != network.config.pad_token_id:
        raise ModelError(
            f"{type(network).__name__} counts positions from the id of the padding piece, which would change; set "
            "reduction.min_frequency=0"
        )
