"""More text for a student: new sentences made of the target's, labelled by the same teacher as those."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from xlner.data.alignment import load_tokenizer
from xlner.data.augmentation import augmented
from xlner.data.soft_labels import FORMULAS, SoftLabels, SoftRow
from xlner.data.word_classes import find_classes
from xlner.data.writing import write_corpus
from xlner.files import file_digest, json_digest, read_json, write_json
from xlner.schema import DistillRecipe
from xlner.sections import CorpusRecipe
from xlner.text import Sentence
from xlner.training.denoising import denoised_soft_labels
from xlner.training.labelling import derived_soft_labels, locked
from xlner.training.mixing import taught_soft_labels
from xlner.training.workplace import Workplace

N_CLASSES = 100
CLASS_FREQUENCY = 3  # a word that is exchanged, or that takes the place of another, occurs at least so often
NO_MASK = "_"  # stands for a hidden word where the teacher has no mask of its own


def with_augmented(
    soft_labels: SoftLabels,
    trained: Sequence[int],
    recipe: DistillRecipe,
    accelerator: Accelerator,
    number_format: torch.dtype | None,
) -> SoftLabels:
    """Soft labels of a text, followed by those of `compact.augment` new sentences for each one that is trained on.

    New sentences are written once, as words, beside the soft labels, and labelled and denoised as the text was.

    Args:
        soft_labels: Of the target text, denoised, and of what follows it.
        trained: The numbers of the target's sentences of which new ones are made; held-out ones stay unseen.
        recipe: Of the run.
        accelerator: Of the run; every process calls it.
        number_format: As for `taught_soft_labels`.
    """
    mask = _mask(recipe)
    settings = [recipe.compact.augment, recipe.seed, mask, *map(int, trained), soft_labels.digest]
    digest = json_digest([FORMULAS["augmented"], settings])[:12]
    path = soft_labels.folder / f"augmented-{digest}.jsonl"
    with locked(path.with_suffix(""), accelerator):
        if accelerator.is_main_process and not _is_whole(path):
            write_corpus((Sentence(words) for words in _new_sentences(soft_labels, trained, recipe, mask)), path)
            write_json(path.with_suffix(".json"), {"text": file_digest(path)})
        accelerator.wait_for_everyone()
    own = replace(recipe, corpus=CorpusRecipe(), soft_labels=str(path.with_suffix("")))
    taught = taught_soft_labels(own, path, accelerator, number_format)
    first = next(iter(taught.by_model), "")
    workplace = Workplace(
        accelerator, number_format, first, taught.by_model.get(first, taught.soft_labels), taught.outside_share
    )
    new = denoised_soft_labels(taught.soft_labels, own, workplace)

    def rows() -> Iterator[SoftRow]:
        for labels in (soft_labels, new):
            for number in range(len(labels)):
                yield labels.row(number)

    return derived_soft_labels(soft_labels, "augmented", [digest, new.digest], rows, accelerator)


def _is_whole(path: Path) -> bool:
    """Whether new sentences lie there as they were written."""
    try:
        return read_json(path.with_suffix(".json")) == {"text": file_digest(path)}
    except (OSError, ValueError):
        return False


def _new_sentences(
    soft_labels: SoftLabels, trained: Sequence[int], recipe: DistillRecipe, mask: str
) -> Iterator[tuple[str, ...]]:
    def sentences() -> Iterator[list[str]]:
        return (soft_labels.words(number) for number in trained)

    classes = find_classes(
        sentences(), n_classes=N_CLASSES, min_frequency=CLASS_FREQUENCY, rng=np.random.default_rng(recipe.seed)
    )
    return augmented(sentences(), recipe.compact.augment, classes, mask, recipe.seed)


def _mask(recipe: DistillRecipe) -> str:
    tokens = [load_tokenizer(teacher).mask_token for teacher in recipe.model_teachers]
    return next((str(token) for token in tokens if token), NO_MASK)
