"""Masked-language models: an encoder and the head that tells hidden pieces, as Hugging Face has them.

Shapes: B windows, P pieces, M hidden pieces, V pieces of the vocabulary, D hidden width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from xlner.errors import ModelError
from xlner.hub import NEWEST
from xlner.models.folder import replaced_folder
from xlner.models.token_classifier import checked_config, load_network, save_weights

# Spread of fresh embeddings about the mean, as a share of that of the old ones: enough to tell them apart.
FRESH_SPREAD = 0.5


class MaskedModel(nn.Module):
    """Any Hugging Face `...ForMaskedLM`, its head computed where something is hidden and nowhere else."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor, places: Tensor) -> Tensor:
        """Logits of the hidden pieces, (M, V).

        Args:
            input_ids: Piece ids, (B, P).
            attention_mask: True on pieces, False on padding, (B, P).
            places: Of the hidden pieces in the flattened (B * P) pieces, (M,).
        """

        def only_hidden(body: nn.Module, arguments: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[places][None]
            return output

        # The body's output is narrowed on its way to the head: the projection to the vocabulary is most of the work.
        hook = self.network.base_model.register_forward_hook(only_hidden)
        try:
            logits: Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask.long()).logits[0]
        finally:
            hook.remove()
        return logits


def load_masked_network(encoder: str, revision: str = NEWEST) -> tuple[PreTrainedModel, bool]:
    """A masked-language model in float32, and whether its head is a fresh one.

    Of a tagger only the body is taken. A fresh head is drawn from torch's global generator; its last layer is the
    table of input embeddings. `revision` is that of a hub name.

    Raises:
        ModelError: If there is no such encoder, it asks for what is refused, or part of its body is missing.
    """
    config = checked_config(encoder, revision)
    config.num_labels = 2  # drops the names of a tagger's labels, which would make the result look like a tagger
    network, missing = load_network(encoder, config, AutoModelForMaskedLM, revision)
    prefix = f"{network.base_model_prefix}."
    absent = sorted(name for name in missing if name.startswith(prefix))
    if absent:
        raise ModelError(f"{encoder}: no whole encoder, its weights lack {', '.join(absent[:4])}")
    is_fresh = bool(missing)
    if is_fresh and not config.tie_word_embeddings:
        config.tie_word_embeddings = True
        network, _ = load_network(encoder, config, AutoModelForMaskedLM, revision)
    if network.get_output_embeddings() is None:  # type: ignore[no-untyped-call]
        raise ModelError(f"{encoder}: {type(network).__name__} has no layer that tells pieces")
    return network, is_fresh


def extend_embeddings(
    network: PreTrainedModel, first_id: int, parts: Sequence[Sequence[int]], generator: torch.Generator
) -> None:
    """Give new pieces their rows, in the table of embeddings and in the head.

    A new piece gets the mean of the rows of its parts; one without parts the mean of all rows and some noise.

    Args:
        network: A masked-language model.
        first_id: Of the new pieces; rows beyond it are unused so far.
        parts: The old pieces that each new one is made of.
        generator: Source of the noise, on the CPU.
    """
    if not parts:
        return
    n_rows = _embeddings(network).shape[0]
    n_pieces = first_id + len(parts)
    if n_pieces > n_rows:
        # Rows of our own below, so that they do not depend on how transformers makes up its.
        network.resize_token_embeddings(n_pieces, mean_resizing=False)
    tables = {id(table): table for table in _tables(network)}
    for table in tables.values():
        old = table.detach()[:first_id]
        mean = old.mean(dim=0)
        spread = old.std(dim=0) * FRESH_SPREAD if table.dim() > 1 else torch.zeros_like(mean)
        rows = [
            old[list(ids)].mean(dim=0) if ids else mean + spread * torch.randn(mean.shape, generator=generator)
            for ids in parts
        ]
        with torch.no_grad():
            table[first_id:n_pieces] = torch.stack(rows)


def save_encoder(folder: Path, model: MaskedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a plain encoder folder; an existing one is replaced only once the new one is whole."""
    with replaced_folder(folder) as unfinished:
        save_weights(model.network, unfinished)
        tokenizer.save_pretrained(unfinished)


def _tables(network: PreTrainedModel) -> list[nn.Parameter]:
    """Everything that has a row or a number for each piece."""
    n_rows = _embeddings(network).shape[0]
    head: Any = network.get_output_embeddings()  # type: ignore[no-untyped-call]
    biases = [values for name, values in network.named_parameters() if name.endswith("bias") and len(values) == n_rows]
    return [_embeddings(network), head.weight, *biases]


def _embeddings(network: PreTrainedModel) -> nn.Parameter:
    table: Any = network.get_input_embeddings()
    weight: nn.Parameter = table.weight
    return weight
