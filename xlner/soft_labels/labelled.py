"""Labelled sentences beside the soft labels of a target text: of the source language, or a few of the target's own.

Their tags have probability 1. They are rows like any other, behind those of the text, so that a student of any kind
learns from both in one batch. Types that they lack, which a teacher that learnt from them forgot, are given back.
"""

import logging
from collections.abc import Collection, Iterator

import numpy as np
from accelerate import Accelerator

from xlner.corpora.splits import Corpus
from xlner.soft_labels.store import SoftLabels, SoftRow, derived_soft_labels, soft_row
from xlner.tags import OUTSIDE, LabelMap, LabelSet, TagReading, prefix_and_type

LOG = logging.getLogger("xlner")


def with_source(
    soft_labels: SoftLabels, source: Corpus, share: float, taught: SoftLabels | None, accelerator: Accelerator
) -> SoftLabels:
    """Soft labels of the target text, followed by labelled source sentences.

    Args:
        soft_labels: Of the target text.
        source: Labelled sentences; of types that the soft labels do not know, nothing is learnt.
        share: Share of source sentences in the result, below 1; as many as there are where they do not suffice.
        taught: What the teacher says of all source sentences, for its similarity; None for no similarity task.
        accelerator: Of the run; every process calls it.
    """
    n_wanted = round(share / (1.0 - share) * len(soft_labels))
    chosen = np.sort(np.random.default_rng(0).permutation(len(source.words))[:n_wanted])
    if len(chosen) < n_wanted:
        found = len(chosen) / (len(chosen) + len(soft_labels))
        LOG.info(f"{source.path}: {len(chosen):,} sentences are a share of {found:.2f}, not {share:g}")
    missing = sorted({tag.partition("-")[2] for tag in soft_labels.card.tags} - {"", *source.types})
    if missing:
        LOG.info(f"{source.path}: has no {', '.join(missing)}, which its sentences will teach to be O")

    def rows() -> Iterator[SoftRow]:
        for number in range(len(soft_labels)):
            yield soft_labels.row(number)
        for number in chosen.tolist():
            yield _labelled_row(source, number, soft_labels, taught)

    settings = [source.fingerprint, share, taught.digest if taught else None]
    return derived_soft_labels(soft_labels, "source", settings, rows, accelerator)


def with_gold(soft_labels: SoftLabels, gold: Corpus, accelerator: Accelerator) -> SoftLabels:
    """Soft labels of the target text, followed by labelled sentences of the same language.

    A sentence of the text that stands among them, word by word, loses all trust: its tags are known.

    Args:
        soft_labels: Of the target text, and what stands behind it.
        gold: Labelled sentences, of no types that the soft labels do not know.
        accelerator: Of the run; every process calls it.
    """
    labelled = set(gold.words)

    def rows() -> Iterator[SoftRow]:
        for number in range(len(soft_labels)):
            words = soft_labels.words(number)
            yield soft_labels.row(number, weights=np.zeros(len(words)) if tuple(words) in labelled else None)
        for number in range(len(gold.words)):
            yield _labelled_row(gold, number, soft_labels, None)

    return derived_soft_labels(soft_labels, "gold", gold.fingerprint, rows, accelerator)


def with_former_types(
    soft_labels: SoftLabels, before: SoftLabels, types: Collection[str], accelerator: Accelerator
) -> SoftLabels:
    """Soft labels of a teacher that learnt from labels without some types, and so forgot them.

    With f the probabilities of before, n those of now, L the tags of these types and N those of types that are new to
    the teacher, since a labelled `CITY` may be what was `LOC`:

        p(t) = f(t) (1 - n(N))               for t in L
        p(t) = n(t) (1 - p(L)) / (1 - n(L))  for all others

    Args:
        soft_labels: Of the teacher as it is now.
        before: Of the teacher as it was, of the same text.
        types: That the labels lack.
        accelerator: Of the run; every process calls it.
    """
    labels, reading = LabelSet(soft_labels.card.tags), TagReading.of(before.card.tags, LabelMap({}))
    columns = labels.ids(reading.labels.tags)
    kinds = [prefix_and_type(tag)[1] for tag in labels.tags]
    lacking = [kind in types for kind in kinds]
    new = [kind not in ("", *reading.labels.types) for kind in kinds]

    def rows() -> Iterator[SoftRow]:
        for number in range(len(soft_labels)):
            probs = soft_labels.probs(number).astype(np.float64)
            former = np.zeros_like(probs)
            former[:, columns] = reading.iob2(before.probs(number))
            told = former[:, lacking] * (1 - probs[:, new].sum(axis=1, keepdims=True))
            probs[:, lacking] = 0.0
            probs *= (1 - told.sum(axis=1, keepdims=True)) / np.maximum(probs.sum(axis=1, keepdims=True), 1e-12)
            probs[:, lacking] = told
            yield soft_labels.row(number, probs=probs)

    return derived_soft_labels(soft_labels, "former", [before.digest, sorted(types)], rows, accelerator)


def _labelled_row(labelled: Corpus, number: int, soft_labels: SoftLabels, taught: SoftLabels | None) -> SoftRow:
    words, tags = labelled.words[number], labelled.tags[number]
    known = {tag: place for place, tag in enumerate(soft_labels.card.tags)}
    probs = np.zeros((len(words), len(known)))
    trust = np.asarray([tag in known for tag in tags], dtype=np.float64)
    probs[np.arange(len(words)), [known.get(tag, known[OUTSIDE]) for tag in tags]] = 1.0
    projections = np.zeros((len(words), soft_labels.card.projection_size))
    return soft_row(words, probs, projections if taught is None else taught.projections(number), trust)
