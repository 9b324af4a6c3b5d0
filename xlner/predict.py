"""From a backend's logits to probabilities of words' tags, tags, and entities with scores; without torch.

A word that no window decides, because it tokenises to nothing, has a row of zeros for its probabilities, unless it
stands in the middle of a piece (`go_on`). Shapes: N words, W words of a sentence, C tags.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xlner.decoding import ValidTags
from xlner.encode import PaddedWindows, Window, batches_within, pad
from xlner.errors import ModelError
from xlner.tags import OUTSIDE, LabelSet
from xlner.words import unspaced_runs

# Pieces in a batch, padding included: bounds the memory, whatever the lengths. On a CPU larger batches are
# slower, since they leave the cache.
BATCH_PIECES = 4096

Probs = NDArray[np.float32]


class Backend(Protocol):
    """What computes for a tagger; `xlner.backends` has those that there are."""

    def logits(self, batches: Iterable[PaddedWindows]) -> Iterator[NDArray[np.float32]]:
        """Unnormalised scores of the words of each batch, (N, C)."""


class Encoder(Protocol):
    """What makes a backend's numbers out of words: subword pieces of a tokenizer, or rows of words."""

    @property
    def pad_id(self) -> int:
        """The number of padding."""

    def encode(self, sentences: Sequence[Sequence[str]], first_sentence: int = 0) -> Iterator[Window]:
        """The windows of some sentences, in order; their `sentence` counts from `first_sentence`."""


def word_probs(
    backend: Backend,
    encoder: Encoder,
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

    Raises:
        ModelError: If the scores are of another number of tags, or are no numbers.
    """
    windows = list(encoder.encode(sentences))
    found = [np.zeros((len(words), n_tags), dtype=np.float32) for words in sentences]
    waiting: deque[list[int]] = deque()  # batches that the backend has taken

    def batches() -> Iterator[PaddedWindows]:
        for batch in batches_within(batch_pieces, windows):
            waiting.append(batch)
            yield pad([windows[number] for number in batch], encoder.pad_id)

    for scores in backend.logits(batches()):
        batch = waiting.popleft()
        if scores.shape[-1] != n_tags:
            raise ModelError(f"the model gives scores for {scores.shape[-1]} tags, and {n_tags} have a name")
        probs = softmax(checked_scores(scores))
        for number, rows in word_rows(windows, batch):
            found[windows[number].sentence][windows[number].word_numbers] = probs[rows]
    return found


def word_rows(windows: Sequence[Window], batch: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """The numbers of a batch's windows, and where their words are in what is computed of all words of the batch."""
    start = 0
    for number in batch:
        stop = start + len(windows[number].word_positions)
        yield number, slice(start, stop)
        start = stop


def go_on(
    probs: Sequence[Probs], sentences: Sequence[Sequence[str]], tags: Sequence[str], *, spaced: bool = False
) -> None:
    """Mend what is said of words between which no spaces stand; in place.

    A word in the middle of a piece gets what the word before it has, with `I-X` in the place of `B-X`.

    A model that has learnt languages with spaces alone takes many a character of others for a beginning. Where words
    have spaces an entity hardly ever follows one of its own type (0.5 % of those of English WikiNEuRal), so each
    `B-X` becomes `I-X` as far as the word before is of an entity of that type:

        p_i(I-X) += p_i(B-X) (p_i-1(B-X) + p_i-1(I-X)),    p_i(B-X) less as much

    Args:
        probs: Of each sentence, (W, C).
        sentences: Their words.
        tags: Of the columns, (C,).
        spaced: Whether the model has learnt languages with spaces alone.
    """
    begins = [number for number, tag in enumerate(tags) if tag[:2] == "B-" and f"I{tag[1:]}" in tags]
    continues = [tags.index(f"I{tags[number][1:]}") for number in begins]
    for rows, words in zip(probs, sentences, strict=True):
        for run in unspaced_runs(words):
            for place in range(run.start + 1, run.stop):
                share: float | Probs = 1.0
                if not rows[place].any():
                    rows[place] = rows[place - 1]
                elif spaced:
                    share = rows[place - 1, begins] + rows[place - 1, continues]
                else:
                    continue
                moved = share * rows[place, begins]
                rows[place, continues] += moved
                rows[place, begins] -= moved


def within_pieces(rows: NDArray[np.floating], words: Sequence[str]) -> Iterator[int]:
    """The words of a sentence that stand in the middle of a piece, so that their row is one of zeros; from the left.

    They are words of scripts without spaces, whose pieces hold several words.
    """
    for run in unspaced_runs(words):
        yield from (place for place in range(run.start + 1, run.stop) if not rows[place].any())


def decide_tags(probs: Probs, labels: LabelSet) -> tuple[str, ...]:
    """The tags of a sentence's likeliest valid sequence, as clean IOB2; from its probabilities, (W, C)."""
    return ValidTags(labels).tags(probs)


def checked_scores(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same scores of words, (words, C).

    Raises:
        ModelError: If one is NaN or infinite: such a word would get no tag, without a word.
    """
    if not np.isfinite(scores).all():
        n_odd = int((~np.isfinite(scores)).any(axis=1).sum())
        raise ModelError(
            f"the model's scores are NaN or infinite for {n_odd} of {len(scores)} words; are its weights damaged, or "
            "is their number format too small (precision=fp32)?"
        )
    return scores


def softmax(logits: NDArray[np.float32]) -> Probs:
    """The probabilities that unnormalised scores (..., C) stand for."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs: Probs = powers / powers.sum(axis=-1, keepdims=True)
    return probs


# Several models as one. Shapes: T models, W words of a sentence, C tags of all of them together.


def mix_probs(
    probs: NDArray[np.floating], known: NDArray[np.bool_], weights: NDArray[np.floating], outside: int
) -> NDArray[np.float64]:
    """The weighted mean of what several models say, in which none speaks of tags that it does not know.

    For an entity tag c, with the weights a_t of the models that know it and have seen the word,

        p(c) = sum_t a_t p_t(c) / sum_t a_t,    p(O) = max(0, 1 - sum_c p(c)),    then normalised.

    Where every model knows every tag this is their weighted mean.

    Args:
        probs: Of each model, (T, W, C); a row of zeros for a word that it has not seen.
        known: Which tags each model knows, (T, C).
        weights: a_t of each word, (T, W), not below 0: the model's weight times the trust in what it said there.
        outside: The number of `O`.

    Returns:
        (W, C), each row summing to 1; zeros where no model has a say.
    """
    say = weights * probs.any(axis=2)
    shares = say[:, :, None] * known[:, None, :]
    total = shares.sum(axis=0)
    mixed: NDArray[np.float64] = (shares * probs).sum(axis=0) / np.where(total > 0, total, 1.0)
    mixed[:, outside] = 0.0
    mixed[:, outside] = np.maximum(0.0, 1.0 - mixed.sum(axis=1))
    mixed[~(say > 0).any(axis=0)] = 0.0
    sums = mixed.sum(axis=1, keepdims=True)
    return mixed / np.where(sums > 0, sums, 1.0)


def known_tags(labels: LabelSet, types: Sequence[str]) -> NDArray[np.bool_]:
    """Which tags are `O` or of these types, (C,)."""
    return np.asarray([tag == OUTSIDE or tag[2:] in types for tag in labels.tags])
