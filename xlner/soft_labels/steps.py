"""The steps that make soft labels better before a student learns from them; each one's result is stored once."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from xlner.config.load import choose
from xlner.config.schema import CertaintyRecipe, PoolingRecipe
from xlner.corpora.splits import Corpus
from xlner.decoding import DECODING, ValidTags
from xlner.soft_labels.label import DenoisingContext, derived_soft_labels, trusted_rows
from xlner.soft_labels.pooling import LabelChanges, Outside, label_changes, pooled_probs, weights_for
from xlner.soft_labels.store import SoftLabels, SoftRow, soft_row
from xlner.tags import OUTSIDE, LabelSet, split_tag

LOG = logging.getLogger("xlner")

# Selection by certainty: of each entity type only the most certain entities are learnt from.
#
# Source: constants of self-training in rounds, as in published code: 1 to 8 % of each type and round, sentences with
# invalid tag sequences skipped (docs/method.md).


def most_certain(types: Sequence[str], scores: Sequence[float], share: float) -> NDArray[np.bool_]:
    """Which entities are among the most certain of their type, at equal score the first ones.

    Args:
        types: Of all entities of a text.
        scores: The higher, the more certain.
        share: Of each type that is kept, in (0, 1]; rounded up to whole entities.
    """
    kept = np.zeros(len(types), dtype=np.bool_)
    names, values = np.asarray(types, dtype=np.str_), np.asarray(scores, dtype=np.float64)
    for name in np.unique(names):
        places = np.flatnonzero(names == name)
        # 0.8 of 10 are 8, whatever floats add by rounding.
        n_kept = math.ceil(share * len(places) - 1e-9)
        kept[places[np.argsort(-values[places], kind="stable")[:n_kept]]] = True
    return kept


def is_broken(tags: Sequence[str]) -> bool:
    """Whether an `I-X` follows something else than `B-X` or `I-X`: no valid sequence in IOB2."""
    for before, tag in zip((OUTSIDE, *tags), tags, strict=False):
        prefix, name = split_tag(tag)
        if prefix == "I" and split_tag(before)[1] != name:
            return True
    return False


# The step `certainty`: only what the teacher is most certain of is learnt from, as in rounds of self-training.


def selected_by_certainty(soft_labels: SoftLabels, recipe: CertaintyRecipe, context: DenoisingContext) -> SoftLabels:
    """The trust of all other words becomes 0; what is ranked stands in `soft_labels/steps.py`."""

    def rows() -> Iterable[SoftRow]:
        return trusted_rows(soft_labels, _factors(soft_labels, recipe))

    settings = [asdict(recipe), DECODING]
    return derived_soft_labels(soft_labels, "certainty", settings, rows, context.accelerator)


def _factors(soft_labels: SoftLabels, recipe: CertaintyRecipe) -> Iterator[NDArray[np.float64]]:
    """For each sentence 1 for the words that count and 0 for the others, (W,)."""
    labels = LabelSet(soft_labels.card.tags)
    found = ValidTags(labels).entities([soft_labels.probs(number) for number in range(len(soft_labels))])
    scored = [pair for spans in found for pair in spans]
    kept = iter(most_certain([span.label for span, _ in scored], [score for _, score in scored], recipe.share))
    for number, spans in enumerate(found):
        probs = soft_labels.probs(number)
        best, seen = probs.argmax(axis=1), probs.any(axis=1)
        factor = np.ones(len(probs))
        factor[seen & (probs[:, labels.outside_id] < recipe.outside)] = 0.0
        for span, _ in spans:
            factor[span.start : span.end] = next(kept)
        if recipe.skip_invalid and is_broken([labels.tags[tag_id] for tag_id in best[seen]]):
            factor[:] = 0.0
        yield factor


# Labelled source sentences beside the target text: what is certain, among what the teacher believes.


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


# A step takes soft labels and gives soft labels of the same words: it may change the probabilities, or how far they
# are trusted. Steps are put one after the other, in the order that the recipe names them.


def denoised_soft_labels(
    soft_labels: SoftLabels, steps: Sequence[tuple[str, Any]], context: DenoisingContext
) -> SoftLabels:
    """The soft labels after some steps, each named and with its section of the recipe; every process calls it."""
    for step, section in steps:
        soft_labels = DENOISERS[step](soft_labels, section, context)
    return soft_labels


def changes_of(before: SoftLabels, after: SoftLabels) -> LabelChanges:
    """How sure the teachers were of a text, and what denoising changed; reads both once."""
    pairs = ((before.probs(number), after.probs(number)) for number in range(len(before)))
    return label_changes(pairs, before.card.tags, OUTSIDE)


def denoising_steps(text: str) -> list[str]:
    """The names of the steps in a recipe's `denoising`.

    Raises:
        RecipeError: If one stands in no table.
    """
    names = [name.strip() for name in text.split(",")]
    if names in ([""], ["none"]):
        return []
    for name in names:
        choose(DENOISERS, name, "step of denoising")
    return names


def pooled(soft_labels: SoftLabels, recipe: PoolingRecipe, context: DenoisingContext) -> SoftLabels:
    """What the teacher says in like places; the formula stands in `soft_labels/pooling.py`."""
    if not recipe.is_used:
        return soft_labels
    share = context.outside_share
    if recipe.outside and not share:
        LOG.info("the teacher does not say how often O is right in its language: pooling.outside does nothing")

    def rows() -> Iterator[SoftRow]:
        return _pooled_rows(soft_labels, recipe, share)

    settings = [asdict(recipe), share]
    return derived_soft_labels(soft_labels, "pooled", settings, rows, context.accelerator)


def _pooled_rows(soft_labels: SoftLabels, recipe: PoolingRecipe, outside_share: float) -> Iterator[SoftRow]:
    numbers, outside = range(len(soft_labels)), soft_labels.card.tags.index(OUTSIDE)
    all_probs = pooled_probs(
        lambda: ((soft_labels.words(number), soft_labels.probs(number)) for number in numbers),
        weights_for(recipe, map(soft_labels.probs, numbers), outside),
        Outside(outside, outside_share, recipe.outside),
        temperature=recipe.temperature,
    )
    for number, probs in zip(numbers, all_probs, strict=True):
        yield soft_labels.row(number, probs=probs)


# A new step is one function above, its section in `config/`, and one line here.
DENOISERS: dict[str, Callable[[SoftLabels, Any, DenoisingContext], SoftLabels]] = {
    "pooling": pooled,
    "certainty": selected_by_certainty,
}
