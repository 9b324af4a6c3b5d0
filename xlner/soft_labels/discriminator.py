"""The step `discriminator`: sentences that are plainly not of the teacher's language are left out."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from xlner.arrow_files import in_blocks
from xlner.config.schema import DiscriminatorRecipe, DistillRecipe
from xlner.corpora.lines import corpus_path
from xlner.corpora.splits import text_stream
from xlner.errors import CorpusError, RecipeError
from xlner.soft_labels.label import (
    DenoisingContext,
    HiddenStates,
    VectorReader,
    derived_soft_labels,
    text_fingerprint,
    trusted_rows,
)
from xlner.soft_labels.source_text import source_language
from xlner.soft_labels.store import BLOCK, SoftLabels, SoftRow

# Selection by a language discriminator: sentences that could be of either language are the ones to learn from.
#
# A logistic regression tells source sentences from target sentences by their vectors. A target sentence for which it
# is undecided looks to the teacher like one of its own language. Sentences are scored by a regression that has not
# seen them (k folds). Shapes: S sentences, D width.
#
# Source: Chen et al. 2021, AdvPicker (2021.acl-long.61), section 2.3. There the discriminator is trained against the
# encoder, which so learns to hide the language; that is not done here.


def standardised(vectors: Tensor) -> Tensor:
    """Columns of mean 0 and deviation 1, (S, D); so the penalty means the same for every encoder."""
    deviation = vectors.std(dim=0, correction=0)
    return (vectors - vectors.mean(dim=0)) / deviation.clamp(min=1e-6)


def logistic_regression(vectors: Tensor, is_target: Tensor, penalty: float) -> Tensor:
    """The weights and, last, the bias of a logistic regression, (D + 1,), by L-BFGS.

    Both languages weigh the same, however many sentences they have, so that 0.5 means undecided.

    Args:
        vectors: (S, D), float64 for the same result everywhere.
        is_target: 0 or 1, (S,).
        penalty: Of the squared weights, per sentence; above 0, so that there is one solution.
    """
    answers = is_target.to(vectors.dtype)
    share = answers.mean().clamp(1e-6, 1 - 1e-6)
    balance = torch.where(is_target.bool(), 0.5 / share, 0.5 / (1 - share))
    inputs = torch.cat([vectors, torch.ones(len(vectors), 1, dtype=vectors.dtype, device=vectors.device)], dim=1)
    weights = torch.zeros(inputs.shape[1], dtype=vectors.dtype, device=vectors.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, tolerance_change=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(inputs @ weights, answers, balance)
        value = value + penalty * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def cross_fitted_logits(vectors: Tensor, is_target: Tensor, folds: int, penalty: float) -> Tensor:
    """The logit of "target language" of each sentence, (S,), by a regression that has not seen it.

    Args:
        vectors: (S, D).
        is_target: 0 or 1, (S,).
        folds: Sentence i is in fold i modulo `folds`; at least 2.
        penalty: As for `logistic_regression`.
    """
    fold = torch.arange(len(vectors), device=vectors.device) % folds
    logits = torch.zeros(len(vectors), dtype=vectors.dtype, device=vectors.device)
    for number in range(folds):
        scored = fold == number
        if scored.any() and not scored.all():
            weights = logistic_regression(vectors[~scored], is_target[~scored], penalty)
            logits[scored] = vectors[scored] @ weights[:-1] + weights[-1]
    return logits


def least_certain(logits: Tensor, share: float) -> Tensor:
    """Which sentences are kept, (S,) bool: the share whose probability is nearest 0.5; at equal distance the first.

    Args:
        logits: (S,).
        share: In (0, 1]; rounded up to whole sentences.
    """
    n_kept = _ceiling(share * len(logits))
    kept = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    kept[logits.abs().argsort(stable=True)[:n_kept]] = True
    return kept


def _ceiling(value: float) -> int:
    """The next whole number, but for what floats add by rounding: 0.8 of 10 are 8."""
    return -int(-(value - 1e-9) // 1)


# Sentences of the source language at most; a logistic regression needs no more.
MOST_SOURCE = 10_000


def source_text(recipe: DistillRecipe) -> Path:
    """The text of the teacher's language, `DATA/LANGUAGE/train`; labels in it are not looked at.

    Raises:
        RecipeError: If the teacher does not say its language, or there is no such text.
    """
    language = source_language(recipe)
    if not language:
        raise RecipeError(
            f"{recipe.teacher}: denoising=discriminator needs text of the teacher's language, but its xlner.json "
            "does not say which; give source.language, or leave that step out"
        )
    try:
        return corpus_path(recipe.data, language, "train")
    except CorpusError as problem:
        raise RecipeError(
            f"denoising=discriminator needs text of the teacher's language, {language}: {problem}; put one there "
            "(unlabelled text will do), or leave that step out"
        ) from problem


def check_discriminator(recipe: DistillRecipe) -> None:
    """Refuse a recipe without text of the teacher's language."""
    if Path(recipe.teacher).is_dir():  # where it is not, the teacher's own error comes first
        source_text(recipe)


def selected_by_language(soft_labels: SoftLabels, recipe: DistillRecipe, context: DenoisingContext) -> SoftLabels:
    """The formulas stand in `soft_labels/discriminator.py`; the trust of the other sentences becomes 0."""
    section, source = recipe.discriminator, source_text(recipe)

    def rows() -> Iterable[SoftRow]:
        return new_rows(context.hidden(section.layers))

    def new_rows(hidden: HiddenStates) -> Iterator[SoftRow]:
        seen = [np.any(soft_labels.probs(number), axis=1) for number in range(len(soft_labels))]
        scored = [number for number, words in enumerate(seen) if words.any()]
        target = [hidden.of(number)[seen[number]].mean(axis=0, dtype=np.float64) for number in scored]
        kept = np.ones(len(soft_labels))
        if target:
            others = _source_vectors(source, min(len(target), MOST_SOURCE), recipe, context)
            kept[scored] = _is_kept(others, target, section)
        factors = (np.full(len(words), factor) for words, factor in zip(seen, kept, strict=True))
        return trusted_rows(soft_labels, factors)

    settings = [asdict(section), text_fingerprint(source, recipe.corpus)[0]]
    return derived_soft_labels(soft_labels, "discriminator", settings, rows, context.accelerator)


def _source_vectors(
    source: Path, n_sentences: int, recipe: DistillRecipe, context: DenoisingContext
) -> list[NDArray[np.float64]]:
    """The mean vectors, (D,), of the first sentences of the source text."""
    sentences = [sentence.words for sentence in islice(text_stream(source, recipe.corpus), n_sentences)]
    reader = VectorReader(
        context.teacher,
        recipe.discriminator.layers,
        device=context.accelerator.device,
        autocast_dtype=context.autocast_dtype,
    )
    found = []
    for block in tqdm(list(in_blocks(sentences, BLOCK)), desc="source text", unit=" blocks", dynamic_ncols=True):
        for vectors in reader.read(block):
            seen = vectors.any(axis=1)
            if seen.any():
                found.append(vectors[seen].mean(axis=0, dtype=np.float64))
    return found


def _is_kept(
    source: list[NDArray[np.float64]], target: list[NDArray[np.float64]], recipe: DiscriminatorRecipe
) -> NDArray[np.float64]:
    """1 for each target sentence that is kept, 0 for the others."""
    vectors = standardised(torch.from_numpy(np.stack([*source, *target])))
    is_target = torch.arange(len(vectors)) >= len(source)
    logits = cross_fitted_logits(vectors, is_target, recipe.folds, recipe.penalty)[is_target]
    kept: NDArray[np.float64] = least_certain(logits, recipe.keep).double().numpy()
    return kept
