"""How far models agree on the same words: by the entities they find, and by the probabilities of their tags.

Tags of different label sets are matched by name; what a model has no tag for has probability 0. Shapes: W words, C
tags of one model, T tags of all.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlner.tagger import Tagger
from xlner.tags import Span

Floats = NDArray[np.float64]

AGREED, OTHER_TYPE, OTHER_BORDERS, ONLY_ONE, NOT_ALL = "agreed", "other_type", "other_borders", "only_one", "not_all"
MARKS = (AGREED, OTHER_TYPE, OTHER_BORDERS, ONLY_ONE, NOT_ALL)
TIMED_SECONDS = 2.0  # after which a model is not run once more


def by_name(probs: NDArray[np.floating], tags: Sequence[str], names: Sequence[str]) -> Floats:
    """Tag probabilities (W, C), with columns `tags`, in columns `names` (W, T); 0 where a model has no such tag."""
    found = np.zeros((len(probs), len(names)))
    places = {name: number for number, name in enumerate(names)}
    found[:, [places[tag] for tag in tags]] = probs
    return found


def cosine(first: Floats, second: Floats) -> Floats:
    """The cosine of each two rows of (W, T), in [0, 1] for probabilities; (W,). Rows must not be 0."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: Floats = np.minimum((first * second).sum(axis=1) / lengths, 1.0)
    return cosines


def jensen_shannon(first: Floats, second: Floats) -> Floats:
    """The Jensen-Shannon divergence of each two rows of (W, T), which sum to 1, in bits: [0, 1]; (W,).

    JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2 with the entropy H. 0: the same; 1: nothing in common.

    Source: Lin 1991, Divergence measures based on the Shannon entropy, equation 4.1 with equal weights.
    """
    divergence = _entropy((first + second) / 2) - (_entropy(first) + _entropy(second)) / 2
    return np.clip(divergence, 0.0, 1.0)


def _entropy(probs: Floats) -> Floats:
    """In bits, of each row."""
    logs = np.log2(probs, out=np.zeros_like(probs), where=probs > 0)
    entropy: Floats = -(probs * logs).sum(axis=1)
    return entropy


@dataclass(frozen=True)
class Measured:
    """What a model says of some words, and the seconds that each run took."""

    tags: Sequence[str]
    probs: NDArray[np.floating]  # (W, C)
    entities: Sequence[tuple[Span, float]]  # with their scores
    seconds: Sequence[float]


class MeanAgreement(NamedTuple):
    """Means over `words` words; None where there is no word."""

    words: int
    cosine: float | None
    jensen_shannon: float | None


def measure(tagger: Tagger, words: Sequence[str], rounds: int) -> Measured:
    """Run a model on the words of one text: once to warm up, then `rounds` times (fewer if that takes long).

    A run is all that tagging needs once the words are known: pieces, network, likeliest tags, scores.
    """
    (probs,) = tagger.probs([words])
    seconds: list[float] = []
    found: list[tuple[Span, float]] = []
    while len(seconds) < max(rounds, 1) and sum(seconds) < TIMED_SECONDS:
        start = time.perf_counter()
        (found,) = tagger.spans_in_sentences([words])
        seconds.append(time.perf_counter() - start)
    return Measured(tagger.labels.tags, probs, found, seconds)


def mean_agreement(first: Measured, second: Measured) -> tuple[MeanAgreement, MeanAgreement]:
    """Of two models: over all words, and over those that either of them takes for a part of an entity.

    Words of which a tokenizer makes nothing have no probabilities, and are left out.
    """
    names = list(dict.fromkeys([*first.tags, *second.tags]))
    known = (first.probs.max(axis=1, initial=0) > 0) & (second.probs.max(axis=1, initial=0) > 0)
    inside = np.zeros(len(first.probs), dtype=np.bool_)
    for span, _ in (*first.entities, *second.entities):
        inside[span.start : span.end] = True
    ours, theirs = (by_name(model.probs[known], model.tags, names) for model in (first, second))
    cosines, divergences = cosine(ours, theirs), jensen_shannon(ours, theirs)
    return _mean(cosines, divergences), _mean(cosines[inside[known]], divergences[inside[known]])


def _mean(cosines: Floats, divergences: Floats) -> MeanAgreement:
    if not len(cosines):
        return MeanAgreement(0, None, None)
    return MeanAgreement(len(cosines), float(cosines.mean()), float(divergences.mean()))


def marks(models: Sequence[Sequence[Span]]) -> list[list[str]]:
    """How each entity of each model stands to the entities of all others.

    Returns:
        One of `MARKS` for each entity. AGREED: all others found just it (a lone model agrees with itself). ONLY_ONE: no
        other found anything there. OTHER_BORDERS: some other found an entity there that begins or ends elsewhere.
        OTHER_TYPE: some other found the same words with another type. NOT_ALL: some found just it, some nothing.
    """
    n_words = max((entity.end for found in models for entity in found), default=0)
    tables = []
    for found in models:
        covered = np.zeros(n_words, dtype=np.bool_)
        for entity in found:
            covered[entity.start : entity.end] = True
        tables.append(({(entity.start, entity.end): entity.label for entity in found}, covered))
    return [
        [_mark(entity, [table for number, table in enumerate(tables) if number != own]) for entity in found]
        for own, found in enumerate(models)
    ]


def _mark(entity: Span, others: Sequence[tuple[dict[tuple[int, int], str], NDArray[np.bool_]]]) -> str:
    same_words = [labels.get((entity.start, entity.end)) for labels, _ in others]
    if all(label == entity.label for label in same_words):
        return AGREED
    overlapping = [bool(covered[entity.start : entity.end].any()) for _, covered in others]
    if not any(overlapping):
        return ONLY_ONE
    if any(label is None and overlaps for label, overlaps in zip(same_words, overlapping, strict=True)):
        return OTHER_BORDERS
    return OTHER_TYPE if any(label not in (None, entity.label) for label in same_words) else NOT_ALL
