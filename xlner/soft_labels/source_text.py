"""Labelled source sentences beside the target text: what is certain, among what the teacher believes."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from accelerate import Accelerator

from xlner.config.schema import DistillRecipe
from xlner.corpora.splits import Corpus
from xlner.errors import RecipeError
from xlner.models.folder import read_settings
from xlner.soft_labels.label import derived_soft_labels
from xlner.soft_labels.store import SoftLabels, SoftRow, soft_row
from xlner.tags import OUTSIDE

LOG = logging.getLogger("xlner")


def source_language(recipe: DistillRecipe) -> str:
    """The source language: as the recipe says, or that of the first teacher that is a model; empty if not known.

    Raises:
        RecipeError: If it is the target language, whose labels count as not there.
    """
    found = recipe.source.language
    if found == "auto":
        found = next((read_settings(name).language for name in recipe.model_teachers), "")
    if found == recipe.target and recipe.source.language != "auto":
        raise RecipeError(f"source.language={found} is the target language, whose labels are not to be looked at")
    return "" if found == recipe.target else found


def with_source(
    soft_labels: SoftLabels, source: Corpus, share: float, taught: SoftLabels | None, accelerator: Accelerator
) -> SoftLabels:
    """Soft labels of the target text, followed by labelled source sentences whose tags have probability 1.

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
            yield _gold_row(source.words[number], source.tags[number], soft_labels, taught, number)

    settings = [source.fingerprint, share, taught.digest if taught else None]
    return derived_soft_labels(soft_labels, "source", settings, rows, accelerator)


def _gold_row(
    words: Sequence[str], tags: Sequence[str], soft_labels: SoftLabels, taught: SoftLabels | None, number: int
) -> SoftRow:
    known = {tag: place for place, tag in enumerate(soft_labels.card.tags)}
    probs = np.zeros((len(words), len(known)))
    trust = np.asarray([tag in known for tag in tags], dtype=np.float64)
    probs[np.arange(len(words)), [known.get(tag, known[OUTSIDE]) for tag in tags]] = 1.0
    projections = np.zeros((len(words), soft_labels.card.projection_size))
    return soft_row(words, probs, projections if taught is None else taught.projections(number), trust)
