"""Parallel text as a teacher: sentences are tagged, words aligned, and entities carried over to translations.

Words are aligned by the hidden states of a multilingual encoder, without training: a link joins two words that are each
other's most similar one. What comes out are annotations, which a student learns from alone or beside a model. Of a
sentence whose entities did not all arrive whole nothing is said, so that no part of an entity is taught to be `O`.

What is linked are units: words, but in scripts without spaces the run of words that one piece holds, which share its
hidden state.

Shapes: S words and U units of a sentence, T words and V units of its translation, D hidden width.

Source: Jalili Sabet et al. 2020 (2020.findings-emnlp.147), section 2: links by mutual argmax, from a middle layer; Dou
and Neubig 2021 (2021.eacl-main.181), section 2.2: softmax over both directions, here the score of a link.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xlner.arrow_files import in_blocks
from xlner.corpora.source import visible
from xlner.errors import ModelError
from xlner.files import to_json
from xlner.models.inference import TorchBackend, computes_in_bf16, word_encoder
from xlner.models.joint import JointModel
from xlner.models.token_classifier import n_layers_of, new_recognizer
from xlner.soft_labels.languages import VectorReader
from xlner.soft_labels.pooling import mean_sureness
from xlner.tagger import Tagger
from xlner.tags import LabelSet, Span
from xlner.words import Sentence

# Of the softmax over cosines. At 0.05, 19 in 20 links of names score above 0.65 (English with it, fr, pl, ru).
TEMPERATURE = 0.05
BLOCK = 256  # pairs that are looked at together
MAX_WORDS = 400  # of a side; longer ones are no sentences
# Share of an entity's units that must be linked, and units inside its translation that may be linked to nothing.
LEAST_ALIGNED, MOST_HOLES = 0.5, 2
# Mean score of the links of all words below which two sentences are no translations of one another: 0.7 % of pairs
# that are, and 57 % of pairs that slipped by a line (English with fr, it, pl, pt, 600 pairs).
LEAST_STRENGTH = 0.35
# The columns look swapped if the model is surer of the second by so many standard errors (a test at 5 %), in so many
# pairs at least. In 30 samples of right files (English with de, es, ru, pl, nl; 40 to 120 pairs) it was so by 1.0 at
# most; in 120 swapped pairs by 3.3 (pl), 2.2 (ru), 1.2 (de), 0.8 (es), -0.4 (nl): many are not found.
SWAP_ERRORS, SWAP_PAIRS = 1.64, 30
# Why nothing is said of a pair; the texts stand in summaries.
TOO_LONG, NO_TRANSLATION = f"longer than {MAX_WORDS} words", "no translations of one another"
NOT_ALIGNED, REPEATED = "an entity was not aligned", "the translation stood there before"


class Links(NamedTuple):
    """Links between the units of a sentence and those of its translation.

    `to` is the unit of the translation that each unit is linked to, (U,), -1 for none, and `scores` are those of the
    links in [0, 1], (U,). `back` is the unit that is most similar to each one of the translation, (V,), linked or not;
    -1 for none. `starts` (U + 1,) and `starts_there` (V + 1,) are the first words of the units, and behind them the
    number of words.
    """

    to: NDArray[np.int64]
    scores: NDArray[np.float64]
    back: NDArray[np.int64]
    starts: NDArray[np.int64]
    starts_there: NDArray[np.int64]

    @property
    def strength(self) -> float:
        """The mean score of all units, 0 for those without a link; 1 of no words."""
        return float(self.scores.mean()) if len(self.scores) else 1.0

    def of_words(self) -> Iterator[tuple[int, int, float]]:
        """The links word by word: both words, and the score. In linked units the words are paired in order."""
        for unit in np.flatnonzero(self.to >= 0).tolist():
            there = int(self.to[unit])
            words = range(int(self.starts[unit]), int(self.starts[unit + 1]))
            others = range(int(self.starts_there[there]), int(self.starts_there[there + 1]))
            for place in range(max(len(words), len(others))):
                first, second = words[min(place, len(words) - 1)], others[min(place, len(others) - 1)]
                yield first, second, float(self.scores[unit])


def align_words(source: NDArray[np.float32], target: NDArray[np.float32]) -> Links:
    """Links between units whose hidden states are each other's most similar ones, by the cosine.

    The score of a link from i to j is sqrt(p(j | i) p(i | j)), with softmax over the cosines divided by `TEMPERATURE`.

    Args:
        source: Hidden states of the words of a sentence, (S, D); neighbours with one row are one unit, and words with
            a row of zeros are linked to nothing.
        target: Of its translation, (T, D).
    """
    starts, starts_there = _unit_starts(source), _unit_starts(target)
    source, target = source[starts[:-1]], target[starts_there[:-1]]
    if not len(source) or not len(target):
        return Links(_nothing(source), np.zeros(len(source)), _nothing(target), starts, starts_there)
    seen, seen_there = np.any(source, axis=1), np.any(target, axis=1)
    cosines = _unit_length(source) @ _unit_length(target).T
    cosines = np.where(seen[:, None] & seen_there[None, :], cosines, -np.inf)
    there, back, rows = cosines.argmax(axis=1), cosines.argmax(axis=0), np.arange(len(source))
    linked: NDArray[np.bool_] = (back[there] == rows) & seen & seen_there[there]
    scores = np.zeros(len(source))
    powers = np.exp(cosines / TEMPERATURE)
    best = powers[rows[linked], there[linked]]
    scores[linked] = best / np.sqrt(powers.sum(axis=1)[linked] * powers.sum(axis=0)[there[linked]])
    most_similar = np.where(seen_there & seen[back], back, -1)
    return Links(np.where(linked, there, -1), scores, most_similar, starts, starts_there)


def _unit_starts(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    begins = np.ones(len(vectors), dtype=bool)
    # Two pieces never have one hidden state to the last bit, since they stand in different places.
    begins[1:] = (vectors[1:] != vectors[:-1]).any(axis=1) | ~vectors[1:].any(axis=1)
    return np.append(np.flatnonzero(begins), len(vectors))


def _nothing(units: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.full(len(units), -1, dtype=np.int64)


def _unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float64)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def carried_over(entity: Span, links: Links, least_score: float = 0.0) -> tuple[Span, float] | None:
    """An entity in the words of the translation, and how well it is aligned, in [0, 1]; None if it is not.

    It is what lies between the first and the last unit that its own are linked to. At least `LEAST_ALIGNED` of its
    units must be linked; between them may stand units linked to nothing, `MOST_HOLES` at most, but none linked to
    one outside the entity. A unit right beside them must be most similar to one outside the entity: else it is
    likely a part of the name, as `Bajos` of `Países Bajos`, where `Netherlands` is linked to the other word alone.

    Args:
        entity: In the words of the sentence; it is not carried over if it begins or ends inside a unit.
        links: Of the sentence.
        least_score: Links of a lower score do not count.
    """
    start, end = np.searchsorted(links.starts, (entity.start, entity.end)).tolist()
    if (links.starts[start], links.starts[end]) != (entity.start, entity.end):
        return None
    counts = (links.to[start:end] >= 0) & (links.scores[start:end] >= least_score)
    if counts.mean() < LEAST_ALIGNED:
        return None
    places = links.to[start:end][counts]
    first, last = int(places.min()), int(places.max())
    outside = np.concatenate([links.to[:start], links.to[end:]])
    if ((outside >= first) & (outside <= last)).any() or last + 1 - first - len(places) > MOST_HOLES:
        return None
    beside = links.back[[place for place in (first - 1, last + 1) if 0 <= place < len(links.back)]]
    if ((beside >= start) & (beside < end)).any():
        return None
    arrived = Span(entity.label, int(links.starts_there[first]), int(links.starts_there[last + 1]))
    return arrived, float(counts.mean() * links.scores[start:end][counts].mean())


# A file of translations, pair by pair.


def surer_of_second(
    first: Sequence[NDArray[np.floating]], second: Sequence[NDArray[np.floating]], outside: int
) -> tuple[float, int]:
    """By how many standard errors a model is surer of what it finds in second sides, and in how many pairs.

    Pairs with entities on both sides count, each as one: words of a sentence are no independent samples.

    Args:
        first: Tag probabilities of the first sides, (W, C) each.
        second: Of the second sides.
        outside: The number of `O`.
    """
    sides = [[mean_sureness([rows], outside) for rows in side] for side in (first, second)]
    gains = np.asarray([other - one for one, other in zip(*sides, strict=True) if one and other])
    error = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return float(gains.mean()) / error if error else 0.0, len(gains)


@dataclass
class ProjectionSummary:
    """What became of pairs and entities, counted."""

    pairs: int = 0
    records: int = 0
    words: int = 0  # of the source sides; those that one piece holds count once
    returning: int = 0  # words from which the way to the translation and back ends where it began
    sureness: tuple[float, float] = (0.0, 0.0)  # of the model, on the first block of source and target sides
    surer: tuple[float, int] = (0.0, 0)  # of its target sides by how many standard errors, and in how many pairs
    entities: Counter[str] = field(default_factory=Counter)  # on the source side, by type
    carried: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    score: float = 0.0  # the sum over all entities that are written
    written: int = 0  # entities in records

    @property
    def round_trip(self) -> float:
        """The share of source words that return: a measure of the alignment that needs no gold."""
        return self.returning / self.words if self.words else 0.0

    def to_json(self) -> dict[str, Any]:
        """All of it, shares as numbers in [0, 1]."""
        return {
            "pairs": self.pairs,
            "records": self.records,
            "left_out": dict(self.left_out),
            "round_trip": round(self.round_trip, 4),
            "sureness": {
                "source": round(self.sureness[0], 4),
                "target": round(self.sureness[1], 4),
            },
            "entities": {
                name: {"source": number, "carried": self.carried[name]}
                for name, number in sorted(self.entities.items())
            },
            "written": self.written,
            "mean_score": round(self.score / self.written, 4) if self.written else None,
        }

    def lines(self) -> Iterator[str]:
        """What a person is told."""
        n_entities, n_carried = self.entities.total(), self.carried.total()
        share = f" ({100 * n_carried / n_entities:.1f} %)" if n_entities else ""
        yield (
            f"{self.pairs:,} pairs, {n_entities:,} entities, {n_carried:,} of them carried over{share}; "
            f"round trip: {100 * self.round_trip:.1f} % of the words return"
        )
        by_type = [f"{name} {self.carried[name]:,} of {number:,}" for name, number in sorted(self.entities.items())]
        if by_type:
            yield f"by type: {', '.join(by_type)}"
        left_out = [f"{number:,} {reason}" for reason, number in self.left_out.most_common()]
        of_these = f"; left out: {'; '.join(left_out)}" if left_out else ""
        yield f"{self.records:,} sentences with {self.written:,} entities{of_these}"

    @property
    def tagged(self) -> int:
        """Pairs that are short enough to be looked at."""
        return self.pairs - self.left_out[TOO_LONG]

    def doubt_of_columns(self) -> str:
        """What hints at swapped columns, as can be told from the first block on; empty if nothing does."""
        (first, second), (errors, n_pairs) = self.sureness, self.surer
        if n_pairs < SWAP_PAIRS or errors <= SWAP_ERRORS or second <= first:
            return ""
        return (
            f"the model is {100 * second:.1f} % sure of what it finds in the second column and "
            f"{100 * first:.1f} % in the first, which should be in its own language: are the columns swapped?"
        )

    def doubt_of_pairs(self) -> str:
        """What hints at a file that has slipped, when all of it is read; empty if nothing does."""
        if self.left_out[NO_TRANSLATION] <= 0.2 * max(1, self.tagged):
            return ""
        return (
            f"{self.left_out[NO_TRANSLATION]:,} of {self.tagged:,} pairs look like no translations of one another: "
            "has one side slipped by a line, or does the encoder not know one of the languages?"
        )


class Projection:
    """Entities carried over pairs of sentences; `summary` counts what became of them, `shown` has the first ones."""

    def __init__(self, tagger: Tagger, reader: VectorReader, *, least_score: float, n_shown: int = 0) -> None:
        """Take what tags and what aligns; links of a lower score than `least_score` carry no entity.

        `n_shown` pairs are kept for `links_page`.
        """
        self.summary = ProjectionSummary()
        self.shown: list[dict[str, Any]] = []
        self._n_shown = n_shown
        self._tagger, self._reader, self._least_score = tagger, reader, least_score
        self._seen: set[bytes] = set()

    def records(self, pairs: Iterable[tuple[Sentence, Sentence]]) -> Iterator[list[dict[str, Any]]]:
        """The records of an annotation file, for each block of `BLOCK` pairs (the last may be shorter)."""
        for block in in_blocks(pairs, BLOCK):
            self.summary.pairs += len(block)
            yield list(self._of_block(block))

    def _of_block(self, block: Sequence[tuple[Sentence, Sentence]]) -> Iterator[dict[str, Any]]:
        summary = self.summary
        short = [(one.words, other.words) for one, other in block if max(len(one.words), len(other.words)) <= MAX_WORDS]
        if len(short) < len(block):
            summary.left_out[TOO_LONG] += len(block) - len(short)
        sources, targets = [words for words, _ in short], [words for _, words in short]
        if not any(summary.sureness):
            outside = self._tagger.labels.outside_id
            first, second = (self._tagger.probs(side) for side in (sources, targets))
            summary.sureness = (mean_sureness(first, outside), mean_sureness(second, outside))
            summary.surer = surer_of_second(first, second, outside)
        found = self._tagger.spans_in_sentences(sources)
        for entities, source_words, source, words, target in zip(
            found, sources, self._reader.read(sources), targets, self._reader.read(targets), strict=True
        ):
            links = align_words(source, target)
            summary.words += len(links.to)
            summary.returning += int((links.to >= 0).sum())
            summary.entities.update(span.label for span, _ in entities)
            moved = [(carried_over(span, links, self._least_score), score) for span, score in entities]
            spans = [(*arrived, score) for arrived, score in moved if arrived is not None]
            summary.carried.update(span.label for span, _, _ in spans)
            reason = self._why_not(words, links, len(spans) < len(entities))
            if len(self.shown) < self._n_shown:
                tagged = [span for span, _ in entities]
                carried = [span for span, _, _ in spans]
                self.shown.append(_linked_pair(source_words, words, links, tagged, carried, reason))
            if reason:
                summary.left_out[reason] += 1
                continue
            summary.records += 1
            summary.written += len(spans)
            summary.score += sum(aligned * score for _, aligned, score in spans)
            yield {
                "words": list(words),
                "spans": [
                    {"start": span.start, "end": span.end, "label": span.label, "score": round(aligned * score, 4)}
                    for span, aligned, score in sorted(spans, key=lambda one: one[0].start)
                ],
                "types": list(self._tagger.types),
            }

    def _why_not(self, words: tuple[str, ...], links: Links, lost_one: bool) -> str:
        """Why nothing is said of a translation; empty if something is."""
        if links.strength < LEAST_STRENGTH:
            return NO_TRANSLATION
        if lost_one:
            return NOT_ALIGNED
        # That by which a record finds its sentence: two records of one sentence would count as one that says all of it.
        key = blake2b(visible("".join(words)).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key in self._seen:
            return REPEATED
        self._seen.add(key)
        return ""


def _linked_pair(
    source: Sequence[str],
    target: Sequence[str],
    links: Links,
    entities: Sequence[Span],
    carried: Sequence[Span],
    left_out: str,
) -> dict[str, Any]:
    """What the page of links shows of a pair; a link has both words, its score, and whether it is an entity's."""
    inside = {word for span in entities for word in range(span.start, span.end)}
    return {
        "source": list(source),
        "target": list(target),
        "links": [[word, other, round(score, 3), word in inside] for word, other, score in links.of_words()],
        "entities": [span._asdict() for span in entities],
        "carried": [span._asdict() for span in carried],
        "left_out": left_out,
    }


def links_page(shown: Sequence[dict[str, Any]], about: str) -> str:
    """A page of pairs with a line from each word to its translation, as `Projection.shown` has them.

    It is one file that loads nothing else, for any browser; words of people stand in it as text alone.
    """
    page = files("xlner.soft_labels").joinpath("links.html").read_text(encoding="utf-8")
    # Within a script element only `<` could end it.
    return page.replace("CONTENT", to_json({"about": about, "pairs": shown}).replace("<", "\\u003c"), 1)


def open_reader(tagger: Tagger, encoder: str, layer: int) -> VectorReader:
    """What gives the hidden states that words are aligned by, on the tagger's device.

    Args:
        tagger: Its own network gives them where no encoder is named.
        encoder: Folder or hub name of an encoder, or of a tagger; empty for that of the tagger.
        layer: Whose hidden states, from 1; 0: the middle one.

    Raises:
        ModelError: If there is no such layer, or no encoder that gives hidden states.
    """
    backend = tagger.backend if isinstance(tagger.backend, TorchBackend) else None
    model = backend.model if backend else None
    if encoder:
        model = JointModel(new_recognizer(encoder, LabelSet.of_types(["X"])), None)
    if not isinstance(model, JointModel):
        raise ModelError(
            f"{tagger.name}: has no hidden states to align words by, as compact and exported models; name an encoder "
            "that knows both languages: --encoder FOLDER"
        )
    name = encoder or tagger.opened_from
    n_layers = n_layers_of(model.recognizer)
    if not 0 < (chosen := layer or (n_layers + 1) // 2) <= n_layers:
        raise ModelError(f"--layer {layer}: {name} has {n_layers} layers; expected one of them, from 1")
    device = backend.device if backend else torch.device("cpu")
    dtype = torch.bfloat16 if computes_in_bf16(on_gpu=device.type == "cuda") else None
    layers = slice(chosen, chosen + 1)
    return VectorReader(model, word_encoder(name, model.recognizer), layers, device=device, autocast_dtype=dtype)
