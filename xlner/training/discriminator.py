"""The step `discriminator`: sentences that are plainly not of the teacher's language are left out."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from xlner.data.corpus_files import corpus_path
from xlner.data.soft_labels import BLOCK, SoftLabels, SoftRow
from xlner.data.storage import in_blocks
from xlner.denoising.discriminator import cross_fitted_logits, least_certain, standardised
from xlner.denoising.recipes import DiscriminatorRecipe
from xlner.errors import CorpusError, RecipeError
from xlner.schema import DistillRecipe
from xlner.training.corpora import text_stream
from xlner.training.hidden_states import HiddenStates, VectorReader
from xlner.training.labelling import derived_soft_labels, text_fingerprint
from xlner.training.source_text import source_language
from xlner.training.workplace import Workplace, trusted_rows

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


def selected_by_language(soft_labels: SoftLabels, recipe: DistillRecipe, workplace: Workplace) -> SoftLabels:
    """The formulas stand in `denoising/discriminator.py`; the trust of the other sentences becomes 0."""
    section, source = recipe.discriminator, source_text(recipe)

    def rows() -> Iterable[SoftRow]:
        return new_rows(workplace.hidden(section.layers))

    def new_rows(hidden: HiddenStates) -> Iterator[SoftRow]:
        seen = [np.any(soft_labels.probs(number), axis=1) for number in range(len(soft_labels))]
        scored = [number for number, words in enumerate(seen) if words.any()]
        target = [hidden.of(number)[seen[number]].mean(axis=0, dtype=np.float64) for number in scored]
        kept = np.ones(len(soft_labels))
        if target:
            others = _source_vectors(source, min(len(target), MOST_SOURCE), recipe, workplace)
            kept[scored] = _is_kept(others, target, section)
        factors = (np.full(len(words), factor) for words, factor in zip(seen, kept, strict=True))
        return trusted_rows(soft_labels, factors)

    settings = [asdict(section), text_fingerprint(source, recipe.corpus)[0]]
    return derived_soft_labels(soft_labels, "discriminator", settings, rows, workplace.accelerator)


def _source_vectors(
    source: Path, n_sentences: int, recipe: DistillRecipe, workplace: Workplace
) -> list[NDArray[np.float64]]:
    """The mean vectors, (D,), of the first sentences of the source text."""
    sentences = [sentence.words for sentence in islice(text_stream(source, recipe.corpus), n_sentences)]
    reader = VectorReader(
        workplace.teacher,
        recipe.discriminator.layers,
        device=workplace.accelerator.device,
        autocast_dtype=workplace.autocast_dtype,
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
