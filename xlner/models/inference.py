"""Running a network of torch: windows to padded tensors, and probabilities, projections, hidden states of words out.

Training, evaluation and taggers run networks through here, in float32 or bfloat16, on a CPU or a GPU; nothing here
needs transformers before `word_encoder` looks at a network of it. Shapes: B windows, P pieces, N words of all windows,
C tags, D hidden width, E projection width.
"""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xlner.backends import n_cores
from xlner.encode import PaddedWindows, Window, WordEncoder, batches_within, load_tokenizer, pad
from xlner.errors import ModelError, first_line
from xlner.hub import NEWEST
from xlner.predict import BATCH_PIECES, Encoder, Probs, checked_scores, go_on, word_probs, word_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from xlner.models.joint import JointModel

_PAGE_OUT = 21  # MADV_PAGEOUT of Linux, which no library names

# The tagger's network, run by torch.


class TorchBackend:
    """A network on its device; threads may share it."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        autocast_dtype: torch.dtype | None = None,
        *,
        heeds_mask: bool = True,
    ) -> None:
        """Wrap a network.

        Args:
            model: Called with the three parts of a `TokenBatch`, it gives an object with `logits` of words; lies on
                `device`.
            device: Where the model lies.
            autocast_dtype: Number format of the pass; None for that of the weights.
            heeds_mask: Whether padding changes nothing. If it does, only windows of one length are computed together.
        """
        self.model = model
        self.device = device
        self.autocast_dtype = autocast_dtype
        if device.type == "cpu":
            _one_thread_after_fork()
        self._heeds_mask = heeds_mask
        # oneDNN keeps memory for every shape of a product in bfloat16, and the last batches of a block have any shape.
        weights = next(model.parameters(), torch.empty(0)).dtype
        self._few_shapes = device.type == "cpu" and torch.bfloat16 in (weights, autocast_dtype)

    def logits(self, batches: Iterable[PaddedWindows]) -> Iterator[NDArray[np.float32]]:
        """See `Backend.logits`."""
        for batch in batches:
            whole = self._heeds_mask or bool(batch.attention_mask.all())
            yield (self._scores if whole else self._scores_by_length)(batch)

    def _scores_by_length(self, batch: PaddedWindows) -> NDArray[np.float32]:
        lengths = batch.attention_mask.sum(axis=1)
        rows, columns = np.divmod(batch.words, batch.input_ids.shape[1])
        found: NDArray[np.float32] | None = None
        for length in np.unique(lengths[rows]).tolist():
            alike, of_words = lengths == length, lengths[rows] == length
            new_row = np.cumsum(alike) - 1
            words = new_row[rows[of_words]] * length + columns[of_words]
            part = PaddedWindows(batch.input_ids[alike, :length], batch.attention_mask[alike, :length], words)
            scores = self._scores(part)
            if found is None:
                found = np.zeros((len(rows), scores.shape[-1]), dtype=np.float32)
            found[of_words] = scores
        return self._scores(batch) if found is None else found  # without a word there are no scores to tell apart

    def _scores(self, batch: PaddedWindows) -> NDArray[np.float32]:
        input_ids, attention_mask = batch.input_ids, batch.attention_mask
        if self._few_shapes:  # more rows at the end change no place
            input_ids, attention_mask = _more_rows(input_ids), _more_rows(attention_mask)
        inputs = [torch.from_numpy(part).to(self.device) for part in (input_ids, attention_mask, batch.words)]
        try:
            with predicting(self.model, self.device, self.autocast_dtype):
                scores: NDArray[np.float32] = self.model(*inputs).logits.float().cpu().numpy()
        except (LookupError, RuntimeError, ValueError) as problem:  # of torch; NotImplementedError is a RuntimeError
            network = getattr(self.model, "recognizer", self.model)
            shape = f"{len(batch.input_ids)} windows of {input_ids.shape[1]} numbers"
            raise ModelError(f"{type(network).__name__} fails at {shape}: {first_line(problem)}") from problem
        return scores


@cache
def _one_thread_after_fork() -> None:
    """Have torch compute with one thread in every process that is forked off this one.

    The threads of a pool do not live on in a forked process, which would wait for them for ever; torch's own
    `DataLoader` does the same in its workers.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def _more_rows(array: NDArray[Any]) -> NDArray[Any]:
    """Repeats of the last row, up to the next number of rows with at most three significant bits."""
    n_rows = len(array)
    step = 1 << max(0, n_rows.bit_length() - 3)
    return np.pad(array, ((0, -n_rows % step), (0, 0)), mode="edge")


@contextmanager
def predicting(model: nn.Module, device: torch.device, autocast_dtype: torch.dtype | None) -> Iterator[None]:
    """No dropout, no gradients, a number format; the model's training mode is as before afterwards."""
    was_training = model.training
    if was_training:  # to set it walks through all modules, which a short text would notice
        model.eval()
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None),
        ):
            yield
    finally:
        if was_training:
            model.train()


def computes_in_bf16(*, on_gpu: bool) -> bool:
    """Whether the hardware is made for bf16: GPUs that have it, and CPUs with matrix tiles (AMX)."""
    return bool(torch.cuda.is_bf16_supported() if on_gpu else torch.cpu.get_capabilities().get("amx_tile", False))


def share_of_cores() -> int:
    """The threads for each of the processes on this machine: `accelerate launch` would leave it one."""
    return max(1, n_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def weights_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of a tagger's weights.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 on GPUs that have it and on CPUs with matrix tiles (AMX).
        device: Where the network will lie.
    """
    if precision == "auto":
        precision = "bf16" if computes_in_bf16(on_gpu=device.type == "cuda") else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def round_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Give a network's weights another number format, one after the other.

    Frequencies of rotary positions stay, which transformers keeps in float32 whatever the weights are.

    Weights that are mapped from a file are let go before, and as soon as each is rounded, so that the file is never in
    memory as a whole beside what is made of it.
    """
    named = chain(network.named_parameters(), network.named_buffers())
    others = [
        weights
        for name, weights in named
        if weights.is_floating_point() and weights.dtype != dtype and not name.endswith("inv_freq")
    ]
    for weights in others:
        _let_go(weights.data)
    for weights in others:
        before = weights.data
        weights.data = before.to(dtype)
        _let_go(before)


def _let_go(mapped: torch.Tensor) -> None:
    """Tell the system that these pages are not needed soon; it takes back those that it can read again from a file."""
    if sys.platform != "linux" or mapped.device.type != "cpu":
        return
    first, end = mapped.data_ptr(), mapped.data_ptr() + mapped.nbytes
    first, end = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if first < end:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _PAGE_OUT)


def number_format(autocast_dtype: torch.dtype | None) -> str:
    """The name of what a network computes in, as Accelerate calls it."""
    return {torch.bfloat16: "bf16", torch.float16: "fp16", None: "fp32"}[autocast_dtype]


# Windows to padded tensors.


class TokenBatch(NamedTuple):
    """`PaddedWindows` as tensors: `input_ids` and `attention_mask`, (B, P), and `words`, (N,)."""

    input_ids: Tensor
    attention_mask: Tensor
    words: Tensor


def collate(windows: Sequence[Window], pad_id: int) -> TokenBatch:
    """Pad windows to the longest of them."""
    return TokenBatch(*map(torch.from_numpy, pad(windows, pad_id)))


# What a network says of the words of windows.


class WordOutput(NamedTuple):
    """What the network says about the words that a window decides: row i is about `word_numbers[i]`.

    `probs` (words, C), each row summing to 1; `projections` (words, E) of unit length, or None.
    """

    probs: Probs
    projections: NDArray[np.float32] | None


def word_encoder(
    name: str, recognizer: "PreTrainedModel", max_length: int = 0, *, revision: str = NEWEST, padded: bool = True
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
    from xlner.models.token_classifier import heeds_mask, longest_input

    table = table_of_pieces(name, recognizer)
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


def table_of_pieces(name: str, recognizer: "PreTrainedModel") -> Any:
    """The table of a network's pieces.

    Raises:
        ModelError: If it has none; `name` is that of the model.
    """
    try:
        return recognizer.get_input_embeddings()
    except NotImplementedError as problem:
        raise ModelError(
            f"{name}: {type(recognizer).__name__} has no table of pieces, it reads characters; expected an encoder "
            "with a vocabulary, such as BERT, RoBERTa or XLM-R"
        ) from problem


def word_outputs(
    model: "JointModel",
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
        for number, rows in word_rows(windows, batch):
            yield number, WordOutput(probs[rows], None if projections is None else projections[rows])


def word_vectors(
    model: "JointModel",
    windows: Sequence[Window],
    pad_id: int,
    layers: slice,
    *,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Hidden states of words: the mean of some of the recognizer's layers at the first piece.

    `layers` are chosen among the embeddings, which are layer 0, and what each layer makes of them. Other arguments and
    the order as for `word_outputs`.

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
            chosen = torch.stack(output.hidden_states[layers])
            vectors = _rows(chosen.flatten(1, 2)[:, tokens.words.to(device)].float().mean(dim=0))
        for number, rows in word_rows(windows, batch):
            yield number, vectors[rows]


def sentence_probs(
    model: "JointModel",
    encoder: Encoder,
    sentences: Sequence[Sequence[str]],
    *,
    device: torch.device,
    batch_pieces: int = BATCH_PIECES,
    autocast_dtype: torch.dtype | None = None,
    spaced: bool = False,
) -> list[Probs]:
    """Tag probabilities of every word, (words, C) per sentence; zeros for words that tokenise to nothing.

    The sentences may have any length and are batched by length; for `spaced` see `go_on`, for the other arguments
    `word_outputs`.
    """
    from xlner.models.token_classifier import tags_of_model

    tags = tags_of_model(model.recognizer.config)
    backend = TorchBackend(model, device, autocast_dtype)
    found = word_probs(backend, encoder, sentences, n_tags=len(tags), batch_pieces=batch_pieces)
    go_on(found, sentences, tags, spaced=spaced)
    return found


def _run(
    model: "JointModel",
    tokens: TokenBatch,
    device: torch.device,
    autocast_dtype: torch.dtype | None,
    with_projections: bool,
) -> tuple[Probs, NDArray[np.float32] | None]:
    """Outputs of words, window after window."""
    with predicting(model, device, autocast_dtype):
        output = model(*(tensor.to(device) for tensor in tokens))
    scores = output.logits.float()
    checked_scores(_rows(scores))
    probs = _rows(scores.softmax(dim=-1))
    if output.projections is None or not with_projections:
        return probs, None
    return probs, _rows(output.projections.float())


def _rows(values: Tensor) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = values.cpu().numpy()
    return rows
