"""Parallel text as a teacher: sentences are tagged, words aligned, and entities carried over to translations.

Words are aligned by the hidden states of a multilingual encoder, without training: a link joins two words that are each
other's most similar one. What comes out are annotations, which a student learns from alone or beside a model. Of a
sentence whose entities did not all arrive nothing is said, so that no entity is taught to be `O`.

Shapes: S words of a sentence, T words of its translation, D hidden width.

Source: Jalili Sabet et al. 2020 (2020.findings-emnlp.147), section 2: links by mutual argmax, from a middle layer; Dou
and Neubig 2021 (2021.eacl-main.181), section 2.2: softmax over both directions, here the score of a link.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xlner.arrow_files import in_blocks
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
# Share of an entity's words that must be linked, and words inside its translation that may be linked to nothing.
LEAST_ALIGNED, MOST_HOLES = 0.5, 2
# Mean score of the links of all words below which two sentences are no translations of one another: 0.7 % of pairs
# that are, and 57 % of pairs that slipped by a line (English with fr, it, pl, pt, 600 pairs).
LEAST_STRENGTH = 0.35
# Why nothing is said of a pair; the texts stand in summaries.
TOO_LONG, NO_TRANSLATION = f"longer than {MAX_WORDS} words", "no translations of one another"
NOT_ALIGNED, REPEATED = "an entity was not aligned", "the translation stood there before"


class Links(NamedTuple):
    """To which word of the translation each word is linked, (S,), -1 for none; the scores of links in [0, 1], (S,)."""

    to: NDArray[np.int64]
    scores: NDArray[np.float64]

    @property
    def strength(self) -> float:
        """The mean score of all words, 0 for those without a link; 1 of no words."""
        return float(self.scores.mean()) if len(self.scores) else 1.0


def align_words(source: NDArray[np.float32], target: NDArray[np.float32]) -> Links:
    """Links between words whose hidden states are each other's most similar ones, by the cosine.

    The score of a link from i to j is sqrt(p(j | i) p(i | j)), with softmax over the cosines divided by `TEMPERATURE`.

    Args:
        source: Hidden states of a sentence, (S, D); words with a row of zeros are linked to nothing.
        target: Of its translation, (T, D).
    """
    if not len(source) or not len(target):
        return Links(np.full(len(source), -1), np.zeros(len(source)))
    seen, seen_there = np.any(source, axis=1), np.any(target, axis=1)
    cosines = _unit(source) @ _unit(target).T
    cosines = np.where(seen[:, None] & seen_there[None, :], cosines, -np.inf)
    there, back, rows = cosines.argmax(axis=1), cosines.argmax(axis=0), np.arange(len(source))
    linked: NDArray[np.bool_] = (back[there] == rows) & seen & seen_there[there]
    scores = np.zeros(len(source))
    powers = np.exp(cosines / TEMPERATURE)
    best = powers[rows[linked], there[linked]]
    scores[linked] = best / np.sqrt(powers.sum(axis=1)[linked] * powers.sum(axis=0)[there[linked]])
    return Links(np.where(linked, there, -1), scores)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float64)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def carried_over(entity: Span, links: Links, least_score: float = 0.0) -> tuple[Span, float] | None:
    """An entity in the words of the translation, and how well it is aligned, in [0, 1]; None if it is not.

    It is what lies between the first and the last word that its own are linked to. At least `LEAST_ALIGNED` of its
    words must be linked; between them may stand words linked to nothing, `MOST_HOLES` at most, but none linked to
    a word outside the entity.

    Args:
        entity: In the words of the sentence.
        links: Of the sentence.
        least_score: Links of a lower score do not count.
    """
    inside = slice(entity.start, entity.end)
    counts = (links.to[inside] >= 0) & (links.scores[inside] >= least_score)
    if counts.mean() < LEAST_ALIGNED:
        return None
    places = links.to[inside][counts]
    first, last = int(places.min()), int(places.max())
    outside = np.concatenate([links.to[: entity.start], links.to[entity.end :]])
    if ((outside >= first) & (outside <= last)).any() or last + 1 - first - len(places) > MOST_HOLES:
        return None
    return Span(entity.label, first, last + 1), float(counts.mean() * links.scores[inside][counts].mean())


# A file of translations, pair by pair.


@dataclass
class ProjectionSummary:
    """What became of pairs and entities, counted."""

    pairs: int = 0
    records: int = 0
    words: int = 0  # of the source sides
    returning: int = 0  # words from which the way to the translation and back ends where it began
    sureness: tuple[float, float] = (0.0, 0.0)  # of the model, on the first block of source and target sides
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

    def doubts(self) -> Iterator[str]:
        """What hints at a wrong file or wrong columns."""
        if self.left_out[NO_TRANSLATION] > 0.2 * max(1, self.pairs):
            yield (
                f"{self.left_out[NO_TRANSLATION]:,} of {self.pairs:,} pairs look like no translations of one another: "
                "has one side slipped by a line, or does the encoder not know one of the languages?"
            )
        first, second = self.sureness
        if second > first > 0:
            yield (
                f"the model is {100 * second:.1f} % sure of what it finds in the second column and "
                f"{100 * first:.1f} % in the first, which should be in its own language: are the columns swapped?"
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
        self._seen: set[tuple[str, ...]] = set()

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
            sureness = [mean_sureness(self._tagger.probs(side), outside) for side in (sources, targets)]
            summary.sureness = (sureness[0], sureness[1])
        found = self._tagger.spans_in_sentences(sources)
        for entities, source_words, source, words, target in zip(
            found, sources, self._reader.read(sources), targets, self._reader.read(targets), strict=True
        ):
            links = align_words(source, target)
            summary.words += len(source)
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
        if words in self._seen:
            return REPEATED
        self._seen.add(words)
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
    linked = np.flatnonzero(links.to >= 0).tolist()
    return {
        "source": list(source),
        "target": list(target),
        "links": [[word, int(links.to[word]), round(float(links.scores[word]), 3), word in inside] for word in linked],
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
