"""What a student of any kind learns from: teachers, soft labels, labelled sentences, and a test set."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from xlner.config.schema import CorpusRecipe, DistillRecipe
from xlner.corpora.lines import corpus_path, existing_text, find_corpus, text_path
from xlner.corpora.splits import Corpus, check_types, read_labelled, rename_types
from xlner.errors import RecipeError
from xlner.jobs.doubts import doubts_before_training, tell_doubts
from xlner.jobs.target_labels import (
    TargetLabels,
    doubts_of_labels,
    doubts_of_scores,
    read_target_labels,
    times_shown,
    with_tuned_teacher,
)
from xlner.models.folder import read_settings
from xlner.soft_labels.label import DenoisingContext, Teachers, check_teacher
from xlner.soft_labels.labelled import with_gold, with_source
from xlner.soft_labels.mix import Taught, joint_types, taught_soft_labels
from xlner.soft_labels.pooling import LabelChanges
from xlner.soft_labels.steps import changes_of, denoised_soft_labels, denoising_steps
from xlner.soft_labels.store import SoftLabels
from xlner.tags import LabelMap, LabelSet
from xlner.train.run import autocast_dtype

LOG = logging.getLogger("xlner")


@dataclass(frozen=True)
class StudentInputs:
    """What a student learns from.

    `recipe` names the teachers that have labelled the text, of which the first may have learnt from target labels
    before; `teachers` are these. `text` is the target text, whose first `n_target` rows of `soft_labels` are its own;
    what follows is labelled source text, then the labelled target sentences of `gold`, which are shown `gold_times` an
    epoch. `words` are the soft labels whose words a student's windows are made of: the same sentences before anything
    was derived from them, so that windows are stored once. `test` is None where there is no labelled test set.
    `changes` tell how sure the teachers were and what denoising changed, `doubts` why little may come of it.
    """

    recipe: DistillRecipe
    teachers: Teachers
    text: Path
    taught: Taught
    labels: LabelSet
    label_map: LabelMap
    soft_labels: SoftLabels
    words: SoftLabels
    n_target: int
    test: Corpus | None
    changes: LabelChanges
    doubts: Sequence[str]
    gold: TargetLabels
    gold_times: int

    @property
    def gold_rows(self) -> range:
        """The numbers of the labelled target sentences among the soft labels."""
        return range(len(self.soft_labels) - self.gold.n_learnt, len(self.soft_labels))


def teachers_of(recipe: DistillRecipe) -> Teachers:
    """The teachers of a recipe."""
    store = None if recipe.soft_labels == "auto" else Path(recipe.soft_labels)
    return Teachers(recipe.teachers, recipe.mixing, recipe.corpus, recipe.data, store, recipe.pattern_files)


def labelled_corpora(recipe: DistillRecipe) -> CorpusRecipe:
    """How the labelled corpora of `data` are read: where `text` is another file, the format is that file's alone."""
    return replace(recipe.corpus, format="auto") if recipe.text else recipe.corpus


def steps_of(recipe: DistillRecipe) -> list[tuple[str, Any]]:
    """The steps of denoising, each with its section of the recipe.

    Raises:
        RecipeError: If one stands in no table.
    """
    return [(name, getattr(recipe, name)) for name in denoising_steps(recipe.denoising)]


def source_language(recipe: DistillRecipe) -> str:
    """The language of the teachers' labels: as the recipe says, or that of the first one that is a model; or empty.

    It is empty where it is not known. It may be that of the target.
    """
    if recipe.source.language != "auto":
        return recipe.source.language
    return next((read_settings(name).language for name in recipe.model_teachers), "")


def source_corpus(recipe: DistillRecipe, split: str, use: str) -> Path:
    """Where labelled text of the source language is.

    Args:
        recipe: Of the student.
        split: Such as `train`.
        use: The setting that needs it, for messages.

    Raises:
        RecipeError: If the source language is not known, or that of the target, whose labels count as not there.
        CorpusError: If the text is not there.
    """
    language = source_language(recipe)
    if not language:
        raise RecipeError(
            f"{use} needs the {split} set of the teacher's language, and {recipe.teacher} does not say which that is; "
            "give source.language"
        )
    if language == recipe.target:
        raise RecipeError(
            f"{use} needs the {split} set of a source language, and {language} is the target itself, whose labels "
            f"count as not there but for those of gold=; set source.language to another one, or leave {use} out"
        )
    return corpus_path(recipe.data, language, split)


def check_inputs(recipe: DistillRecipe, uses_similarity: bool) -> None:
    """Refuse what can be told before a teacher learns from labels, or labels a whole text.

    Args:
        recipe: Of the student.
        uses_similarity: As for `prepare_inputs`.

    Raises:
        ModelError: If a teacher is not there.
        CorpusError: If a corpus is not there.
        RecipeError: If labels and the similarity task exclude each other, or the source language is not known.
    """
    for name in recipe.model_teachers:
        check_teacher(name)
    denoising_steps(recipe.denoising)
    if recipe.gold:
        existing_text(recipe.gold)
        if uses_similarity:
            raise RecipeError(
                f"gold={recipe.gold}: labelled sentences of no teacher have no similarities, which variant="
                f"{recipe.variant} learns; leave gold out, or take variant=pooled or tsl"
            )
    if recipe.source.share:
        source_corpus(recipe, "train", "source.share")
        has_projections = any(read_settings(name).projection_size for name in recipe.model_teachers)
        if uses_similarity and has_projections and len(recipe.teachers) > 1:
            raise RecipeError("source.share beside the similarity task needs a single teacher; set source.share=0")


def prepare_inputs(
    recipe: DistillRecipe, label_map: LabelMap, accelerator: Accelerator, uses_similarity: bool
) -> StudentInputs:
    """Read, label and denoise all that the recipe names; every process calls it.

    Args:
        recipe: Of the student.
        label_map: Of the recipe.
        accelerator: Of all processes.
        uses_similarity: Whether the student learns similarities, too, so that source text needs a teacher's.
    """
    test_path = find_corpus(recipe.data, recipe.target, "test")
    test = read_labelled(test_path, labelled_corpora(recipe)) if test_path else None
    text = text_path(recipe.text, recipe.data, recipe.target)
    number_format = autocast_dtype(accelerator.mixed_precision)
    known = joint_types(teachers_of(recipe)).labels.types if recipe.gold else ()
    gold = read_target_labels(recipe, known, label_map)
    wanted = {name: label_map.for_predictions().type_of(name) for name in known}
    lacking = {name: new for name, new in wanted.items() if gold.learnt and new and new not in gold.learnt.types}
    doubts = doubts_of_labels(gold, sorted({*lacking.values()}))
    doubts += doubts_of_scores(gold, test) if test is not None else []
    tell_doubts(doubts)  # before a teacher learns from them
    teaching, former = with_tuned_teacher(recipe, gold, lacking, accelerator)
    teachers = replace(teachers_of(teaching), former=former)
    taught = taught_soft_labels(teachers, text, accelerator, number_format)
    labels = LabelSet(taught.soft_labels.card.tags)
    found = doubts_before_training(recipe, text, taught.soft_labels)
    tell_doubts(found)
    if test is not None:
        (test,) = rename_types([test], label_map, labels.types)
        check_types(labels, [test])
    context = DenoisingContext(accelerator, taught.outside_share)
    soft_labels = denoised_soft_labels(taught.soft_labels, steps_of(recipe), context)
    changes = changes_of(taught.soft_labels, soft_labels)
    LOG.info(changes.line())
    tell_doubts(changes.doubts())
    doubts += [*found, *changes.doubts()]
    n_target, words, times = len(soft_labels), taught.soft_labels, 1
    if recipe.source.share:
        soft_labels = words = _beside_source(
            recipe, soft_labels, uses_similarity, label_map, accelerator, number_format
        )
    if gold.learnt:
        times = times_shown(len(soft_labels), gold.n_learnt, recipe.gold_share)
        n_shown = times * gold.n_learnt
        LOG.info(f"{recipe.gold}: {n_shown / (len(soft_labels) + n_shown):.2f} of each epoch, shown {times:,} times")
        soft_labels = words = with_gold(soft_labels, gold.learnt, accelerator)
    return StudentInputs(
        recipe=teaching,
        teachers=teachers,
        text=text,
        taught=taught,
        labels=labels,
        label_map=label_map,
        soft_labels=soft_labels,
        words=words,
        n_target=n_target,
        test=test,
        changes=changes,
        doubts=doubts,
        gold=gold,
        gold_times=times,
    )


def _beside_source(
    recipe: DistillRecipe,
    soft_labels: SoftLabels,
    uses_similarity: bool,
    label_map: LabelMap,
    accelerator: Accelerator,
    number_format: torch.dtype | None,
) -> SoftLabels:
    """The soft labels with the share of labelled source sentences that the recipe asks for."""
    everything = replace(recipe.corpus, max_sentences=0)
    path = source_corpus(recipe, "train", "source.share")
    labelled = read_labelled(path, replace(labelled_corpora(recipe), max_sentences=0))
    (renamed,) = rename_types([labelled], label_map, LabelSet(soft_labels.card.tags).types)
    taught = None
    if uses_similarity and soft_labels.card.projection_size:
        own = replace(teachers_of(recipe), corpus=everything, store=None)
        taught = taught_soft_labels(own, labelled.path, accelerator, number_format).soft_labels
    return with_source(soft_labels, renamed, recipe.source.share, taught, accelerator)
