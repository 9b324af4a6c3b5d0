"""Running a network of torch over windows: padded tensors in, probabilities, projections and hidden states out."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from xlner.encode import Window, WordEncoder, batches_within, load_tokenizer, pad
from xlner.errors import ModelError
from xlner.hub import NEWEST
from xlner.models.joint import JointModel
from xlner.models.token_classifier import heeds_mask, longest_input
from xlner.predict import BATCH_PIECES, Encoder, Probs, checked_scores, word_probs
from xlner.torch_backend import TorchBackend, predicting

# Windows to padded tensors, and the order in which they come.
#
# Shapes: B windows, P pieces, C tags, Q word pairs. `word_mask` is True on the first piece of each word that the
# window decides; it is the only mask of meaning. `attention_mask` merely hides padding.


class TokenBatch(NamedTuple):
    """Padded windows: `input_ids`, `attention_mask`, `word_mask`, each (B, P)."""

    input_ids: Tensor
    attention_mask: Tensor
    word_mask: Tensor


def twice(tokens: TokenBatch) -> TokenBatch:
    """Every window two times, (2 B, P): for two passes with different dropout in one forward."""
    return TokenBatch(*(torch.cat([tensor, tensor]) for tensor in tokens))


def collate(windows: Sequence[Window], pad_id: int) -> TokenBatch:
    """Pad windows to the longest of them."""
    return TokenBatch(*map(torch.from_numpy, pad(windows, pad_id)))


def length_order(lengths: Sequence[int] | NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Batches of like length, longest first, for passes in which the order does not matter.

    The longest batch comes first, so that memory that does not suffice is noticed at once.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


# Running a network of torch over windows: probabilities, projections and hidden states of words.
#
# Training and evaluation predict through here, on the device where the network lies. Shapes: B windows, P pieces, C
# tags, E projection width, D hidden width.


class WordOutput(NamedTuple):
    """What the network says about the words that a window decides: row i is about `word_numbers[i]`.

    `probs` (words, C), each row summing to 1; `projections` (words, E) of unit length, or None.
    """

    probs: Probs
    projections: NDArray[np.float32] | None


def word_encoder(
    name: str, recognizer: PreTrainedModel, max_length: int = 0, *, revision: str = NEWEST, padded: bool = True
) -> WordEncoder:
    """The word encoder that goes with a network, once the network was tried.

    Args:
        name: Folder or hub name of the tokenizer.
        recognizer: Windows never exceed the positions that it has.
        max_length: Pieces a window may hold; 0 means no limit beyond those of tokenizer and network.
        revision: Of a hub name.
        padded: Whether windows of other lengths will be batched, whose padding the network must heed.

    Raises:
        ModelError: If there is no usable tokenizer, it has pieces that the network does not know, or the network does
            not run on pieces alone, or lets padding into the words beside it.
    """
    table = _table_of_pieces(name, recognizer)
    tokenizer = load_tokenizer(name, revision)
    try:
        if padded and not heeds_mask(recognizer):
            raise ModelError(
                f"what {type(recognizer).__name__} says of a sentence depends on the padding beside it, so results "
                "would depend on the batch; take another encoder, such as BERT, RoBERTa or XLM-R"
            )
        limits = [limit for limit in (max_length, longest_input(recognizer)) if limit]
        encoder = WordEncoder(tokenizer, min(limits, default=None))
    except ModelError as problem:
        raise ModelError(f"{name}: {problem}") from problem
    highest = max([*tokenizer.get_vocab().values(), encoder.pad_id])
    if highest >= len(table.weight):
        raise ModelError(
            f"{name}: its tokenizer numbers pieces up to {highest:,}, and the network knows {len(table.weight):,} of "
            "them; is the tokenizer that of another model?"
        )
    return encoder


def _table_of_pieces(name: str, recognizer: PreTrainedModel) -> Any:
    try:
        return recognizer.get_input_embeddings()
    except NotImplementedError as problem:
        raise ModelError(
            f"{name}: {type(recognizer).__name__} has no table of pieces, it reads characters; expected an encoder "
            "with a vocabulary, such as BERT, RoBERTa or XLM-R"
        ) from problem


def word_outputs(
    model: JointModel,
    windows: Sequence[Window],
    pad_id: int,
    *,
    device: torch.device,
    batch_pieces: int = BATCH_PIECES,
    autocast_dtype: torch.dtype | None = None,
    with_projections: bool = False,
) -> Iterator[tuple[int, WordOutput]]:
    """Run the network without gradients and without dropout; each window comes once, the longest first.

    Args:
        model: Lies on `device`; its training mode is as before after each window.
        windows: In any order.
        pad_id: The tokenizer's padding piece.
        device: Where the model lies.
        batch_pieces: Pieces in a batch, padding included; a longer window is a batch of its own.
        autocast_dtype: Number format of the pass; None for float32. The softmax is always float32.
        with_projections: Give the projections too, if the model has a similarity head.

    Yields:
        The place of a window in `windows`, and the outputs of its words.
    """
    for batch in batches_within(batch_pieces, windows):
        tokens = collate([windows[number] for number in batch], pad_id)
        probs, projections = _run(model, tokens, device, autocast_dtype, with_projections)
        start = 0
        for number in batch:
            rows = slice(start, start + len(windows[number].word_positions))
            yield number, WordOutput(probs[rows], None if projections is None else projections[rows])
            start = rows.stop


def word_vectors(
    model: JointModel,
    windows: Sequence[Window],
    pad_id: int,
    n_layers: int,
    *,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Hidden states of words: the mean of the recognizer's last `n_layers` layers at the first piece.

    Other arguments and the order as for `word_outputs`.

    Yields:
        The place of a window in `windows`, and the vectors of its words, (words, D).
    """
    for batch in batches_within(BATCH_PIECES, windows):
        tokens = collate([windows[number] for number in batch], pad_id)
        with predicting(model, device, autocast_dtype):
            output = model.recognizer(
                input_ids=tokens.input_ids.to(device),
                attention_mask=tokens.attention_mask.to(device).long(),
                output_hidden_states=True,
            )
            layers = torch.stack(output.hidden_states[-n_layers:])
            vectors = _rows(layers[:, tokens.word_mask.to(device)].float().mean(dim=0))
        start = 0
        for number in batch:
            stop = start + len(windows[number].word_positions)
            yield number, vectors[start:stop]
            start = stop


def sentence_probs(
    model: JointModel,
    encoder: Encoder,
    sentences: Sequence[Sequence[str]],
    *,
    device: torch.device,
    batch_pieces: int = BATCH_PIECES,
    autocast_dtype: torch.dtype | None = None,
) -> list[Probs]:
    """Tag probabilities of every word, (words, C) per sentence; zeros for words that tokenise to nothing.

    The sentences may have any length and are batched by length; for the other arguments see `word_outputs`.
    """
    n_tags = len(model.recognizer.config.id2label or ())
    return word_probs(
        TorchBackend(model, device, autocast_dtype), encoder, sentences, n_tags=n_tags, batch_pieces=batch_pieces
    )


def _run(
    model: JointModel,
    tokens: TokenBatch,
    device: torch.device,
    autocast_dtype: torch.dtype | None,
    with_projections: bool,
) -> tuple[Probs, NDArray[np.float32] | None]:
    """Outputs at word positions, window after window."""
    input_ids, attention_mask, word_mask = (tensor.to(device) for tensor in tokens)
    with predicting(model, device, autocast_dtype):
        output = model(input_ids, attention_mask)
    scores = output.logits[word_mask].float()
    checked_scores(_rows(scores))
    probs = _rows(scores.softmax(dim=-1))
    if output.projections is None or not with_projections:
        return probs, None
    return probs, _rows(output.projections[word_mask].float())


def _rows(values: Tensor) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = values.cpu().numpy()
    return rows
