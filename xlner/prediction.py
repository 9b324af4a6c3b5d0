"""Running a network over windows, and what its outputs mean: probabilities, tags, entities with scores.

Training, evaluation and the tagger all predict through here. A word that no window decides, because it
tokenises to nothing, has a row of zeros for its probabilities. Functions that take a network of torch import torch
themselves: an exported tagger does without it. Shapes: B windows, P pieces, C tags, E projection width.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xlner.data.alignment import Window, WordEncoder, load_tokenizer
from xlner.data.padding import batches_within, pad
from xlner.decoding import ValidTags
from xlner.labels import LabelSet, Span

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from xlner.data.batches import TokenBatch
    from xlner.models.joint import JointModel

# Pieces in a batch, padding included: bounds the memory, whatever the lengths. On a CPU larger batches are
# slower, since they leave the cache.
BATCH_PIECES = 4096

Probs = NDArray[np.float32]


Batch = tuple[NDArray[np.int64], NDArray[np.bool_]]


class Backend(Protocol):
    """What computes for a tagger; `xlner.backends` has those that there are."""

    def logits(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Unnormalised scores, (B, P, C), of each batch: piece ids, (B, P), and a mask that is False on padding."""


class WordOutput(NamedTuple):
    """What the network says about the words that a window decides: row i is about `word_numbers[i]`.

    `probs` (words, C), each row summing to 1; `projections` (words, E) of unit length, or None.
    """

    probs: Probs
    projections: NDArray[np.float32] | None


def word_encoder(name: str, recognizer: "PreTrainedModel", max_length: int = 0) -> WordEncoder:
    """The word encoder that goes with a network.

    Args:
        name: Folder or hub name of the tokenizer.
        recognizer: Windows never exceed the positions that it has.
        max_length: Pieces a window may hold; 0 means no limit beyond those of tokenizer and network.
    """
    from xlner.models.encoder import longest_input

    limits = [limit for limit in (max_length, longest_input(recognizer)) if limit]
    return WordEncoder(load_tokenizer(name), min(limits, default=None))


def word_outputs(
    model: "JointModel",
    windows: Sequence[Window],
    pad_id: int,
    *,
    device: "torch.device",
    batch_pieces: int = BATCH_PIECES,
    autocast_dtype: "torch.dtype | None" = None,
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
    from xlner.data.batches import collate

    for batch in batches_within(batch_pieces, windows):
        tokens = collate([windows[number] for number in batch], pad_id)
        probs, projections = _run(model, tokens, device, autocast_dtype, with_projections)
        start = 0
        for number in batch:
            rows = slice(start, start + len(windows[number].word_positions))
            yield number, WordOutput(probs[rows], None if projections is None else projections[rows])
            start = rows.stop


def word_vectors(
    model: "JointModel",
    windows: Sequence[Window],
    pad_id: int,
    n_layers: int,
    *,
    device: "torch.device",
    autocast_dtype: "torch.dtype | None" = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Hidden states of words: the mean of the recognizer's last `n_layers` layers at the first piece.

    Other arguments and the order as for `word_outputs`.

    Yields:
        The place of a window in `windows`, and the vectors of its words, (words, D).
    """
    import torch

    from xlner.backends.torch_backend import predicting
    from xlner.data.batches import collate

    for batch in batches_within(BATCH_PIECES, windows):
        tokens = collate([windows[number] for number in batch], pad_id)
        with predicting(model, device, autocast_dtype):
            output = model.recognizer(
                input_ids=tokens.input_ids.to(device),
                attention_mask=tokens.attention_mask.to(device),
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
    model: "JointModel",
    encoder: WordEncoder,
    sentences: Sequence[Sequence[str]],
    *,
    device: "torch.device",
    batch_pieces: int = BATCH_PIECES,
    autocast_dtype: "torch.dtype | None" = None,
) -> list[Probs]:
    """Tag probabilities of every word, (words, C) per sentence; zeros for words that tokenise to nothing.

    The sentences may have any length and are batched by length; for the other arguments see `word_outputs`.
    """
    from xlner.backends.torch_backend import TorchBackend

    n_tags = len(model.recognizer.config.id2label or ())
    return word_probs(
        TorchBackend(model, device, autocast_dtype), encoder, sentences, n_tags=n_tags, batch_pieces=batch_pieces
    )


def word_probs(
    backend: Backend,
    encoder: WordEncoder,
    sentences: Sequence[Sequence[str]],
    *,
    n_tags: int,
    batch_pieces: int = BATCH_PIECES,
) -> list[Probs]:
    """What `sentence_probs` gives, by any backend.

    Args:
        backend: Its logits have `n_tags` columns.
        encoder: Cuts the sentences into windows.
        sentences: Words, of any number.
        n_tags: How many tags there are.
        batch_pieces: Pieces in a batch, padding included; a longer window is a batch of its own.
    """
    windows = list(encoder.encode(sentences))
    found = [np.zeros((len(words), n_tags), dtype=np.float32) for words in sentences]
    waiting: deque[tuple[list[int], NDArray[np.bool_]]] = deque()  # batches that the backend has taken

    def batches() -> Iterator[Batch]:
        for batch in batches_within(batch_pieces, windows):
            padded = pad([windows[number] for number in batch], encoder.pad_id)
            waiting.append((batch, padded.word_mask))
            yield padded.input_ids, padded.attention_mask

    for logits in backend.logits(batches()):
        batch, word_mask = waiting.popleft()
        probs = _softmax(logits[word_mask])
        start = 0
        for number in batch:
            window = windows[number]
            stop = start + len(window.word_numbers)
            found[window.sentence][window.word_numbers] = probs[start:stop]
            start = stop
    return found


def decide_tags(probs: Probs, labels: LabelSet) -> tuple[str, ...]:
    """The tags of a sentence's likeliest valid sequence, as clean IOB2; from its probabilities, (W, C)."""
    return ValidTags(labels).tags(probs)


def scored_spans(probs: Probs, labels: LabelSet) -> list[tuple[Span, float]]:
    """The entities of a sentence with their probabilities, from those of its words' tags, (W, C)."""
    (found,) = ValidTags(labels).entities([probs])
    return found


def _run(
    model: "JointModel",
    tokens: "TokenBatch",
    device: "torch.device",
    autocast_dtype: "torch.dtype | None",
    with_projections: bool,
) -> tuple[Probs, NDArray[np.float32] | None]:
    """Outputs at word positions, window after window."""
    from xlner.backends.torch_backend import predicting

    input_ids, attention_mask, word_mask = (tensor.to(device) for tensor in tokens)
    with predicting(model, device, autocast_dtype):
        output = model(input_ids, attention_mask)
    probs = _rows(output.logits[word_mask].float().softmax(dim=-1))
    if output.projections is None or not with_projections:
        return probs, None
    return probs, _rows(output.projections[word_mask].float())


def _rows(values: "Tensor") -> NDArray[np.float32]:
    rows: NDArray[np.float32] = values.cpu().numpy()
    return rows


def _softmax(logits: NDArray[np.float32]) -> Probs:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs: Probs = powers / powers.sum(axis=-1, keepdims=True)
    return probs
