"""What a student of any kind learns from, and what its report says of that: teachers, soft labels, a test set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from xlner.data.alignment import Window
from xlner.data.corpus_files import corpus_path, find_corpus, text_path
from xlner.data.known_splits import name_text
from xlner.data.soft_labels import SoftLabels
from xlner.denoising.sureness import LabelChanges
from xlner.errors import RecipeError
from xlner.labels import LabelMap, LabelSet
from xlner.mixing.tags import TagReading
from xlner.schema import DistillRecipe
from xlner.training.checkpoint import Progress
from xlner.training.corpora import Corpus, check_types, read_labelled, rename_types
from xlner.training.denoising import changes_of, denoised_soft_labels
from xlner.training.doubts import (
    QUOTED_STUDENT,
    doubt_of_agreement,
    doubt_of_scores,
    doubts_before_training,
    trained_on,
)
from xlner.training.mixing import Taught, taught_soft_labels
from xlner.training.optimization import autocast_dtype
from xlner.training.reporting import Evaluator, Scores, tell_doubts
from xlner.training.selection import Selection, make_selection
from xlner.training.source_text import source_language, with_source
from xlner.training.workplace import Workplace


@dataclass(frozen=True)
class Lesson:
    """What a student learns from.

    `text` is the target text, whose first `n_target` rows of `soft_labels` are its own; what follows is labelled source
    text. `words` are the soft labels whose words a student's windows are made of: the same sentences before anything
    was derived from them, so that windows are stored once. `workplace` gives the first teacher's hidden states. `test`
    is None where there is no labelled test set. `changes` tell how sure the teachers were and what denoising changed,
    `doubts` why little may come of it.
    """

    text: Path
    taught: Taught
    labels: LabelSet
    selection: Selection
    soft_labels: SoftLabels
    words: SoftLabels
    workplace: Workplace
    n_target: int
    test: Corpus | None
    changes: LabelChanges
    doubts: Sequence[str]


def read_lesson(recipe: DistillRecipe, label_map: LabelMap, accelerator: Accelerator, uses_similarity: bool) -> Lesson:
    """Read, label and denoise all that the recipe names; every process calls it.

    Args:
        recipe: Of the student.
        label_map: Of the recipe.
        accelerator: Of all processes.
        uses_similarity: Whether the student learns similarities, too, so that source text needs a teacher's.
    """
    test_path = find_corpus(recipe.data, recipe.target, "test")
    test = read_labelled(test_path, recipe.corpus) if test_path else None
    text = text_path(recipe.text, recipe.data, recipe.target)
    number_format = autocast_dtype(accelerator.mixed_precision)
    taught = taught_soft_labels(recipe, text, accelerator, number_format)
    labels = LabelSet(taught.soft_labels.card.tags)
    doubts = doubts_before_training(recipe, text, taught.soft_labels)
    tell_doubts(accelerator, doubts)
    if test is not None:
        (test,) = rename_types([test], label_map, labels.types)
        check_types(labels, [test])
    selection = make_selection(recipe, source_language(recipe), labels, label_map)
    first = next(iter(taught.by_model), "")
    own = taught.by_model.get(first, taught.soft_labels)
    workplace = Workplace(accelerator, number_format, first, own, taught.outside_share)
    soft_labels = denoised_soft_labels(taught.soft_labels, recipe, workplace)
    changes = changes_of(taught.soft_labels, soft_labels)
    accelerator.print(changes.line())
    tell_doubts(accelerator, changes.doubts())
    doubts = [*doubts, *changes.doubts()]
    n_target, words = len(soft_labels), taught.soft_labels
    if recipe.source.share:
        soft_labels = words = _beside_source(
            recipe, soft_labels, uses_similarity, label_map, accelerator, number_format
        )
    return Lesson(text, taught, labels, selection, soft_labels, words, workplace, n_target, test, changes, doubts)


def teacher_name(teacher: str) -> str:
    """What the card of a student calls a teacher: the name of its run, rather than where it lies on this machine."""
    path = Path(teacher)
    return teacher if not path.exists() else path.parent.name if path.name == "model" else path.name


def doubt_of_student(
    recipe: DistillRecipe,
    lesson: Lesson,
    progress: Progress,
    scores: Scores | None,
    agreement: float | None,
    held_out: Sequence[Window],
) -> str:
    """What tells that a student has learnt nothing, by its test set or, without one, by the held-out text; or empty.

    Args:
        recipe: Of the student.
        lesson: What it learnt from.
        progress: How long it learnt.
        scores: On the test set; None if there is none.
        agreement: With its teacher on the held-out text, in percent; None if nothing is held out.
        held_out: That text.
    """
    amount = trained_on(progress.step, lesson.n_target, QUOTED_STUDENT, has_encoder=not recipe.is_compact)
    if lesson.test is not None and scores is not None:
        return doubt_of_scores(scores, lesson.test.path, amount)
    if agreement is None or not held_out:
        return ""
    return doubt_of_agreement(agreement, held_out, lesson.soft_labels, amount)


def about_run(recipe: DistillRecipe, lesson: Lesson, n_parameters: int, doubt: str) -> dict[str, Any]:
    """What report.json says beside scores; `n_parameters` are the student's, `doubt` is that of its result."""
    card = lesson.taught.soft_labels.card
    return {
        "target": recipe.target,
        "student": recipe.student,
        "parameters": n_parameters,
        "variant": recipe.variant,
        "seed": recipe.seed,
        "selection": recipe.selection,
        "teacher": {"folder": recipe.teacher, "fingerprint": card.teacher},
        "teachers": list(lesson.taught.teachers),
        "text": {
            "fingerprint": card.corpus,
            "corpus_name": name_text(card.corpus, lesson.text) or None,
            "sentences": card.n_sentences,
        },
        "labels": lesson.changes.to_json(),
        "warnings": [*lesson.doubts, *([doubt] if doubt else [])],
    }


def teacher_scores(recipe: DistillRecipe, taught: Taught, evaluator: Evaluator, test: Corpus) -> dict[str, Scores]:
    """The scores of the models that teach: `teacher`, `teacher 2` and so on; empty if one knows no type of the test."""
    rename, of_predictions = LabelMap.parse(recipe.mixing.rename), LabelMap.parse(recipe.labels.map).for_predictions()
    scores: dict[str, Scores] = {}
    for number, (teacher, own) in enumerate(taught.by_model.items(), 1):
        name = "teacher" if number == 1 else f"teacher {number}"
        types = {of_predictions.type_of(kind) for kind in TagReading.of(own.card.tags, rename).labels.types}
        # The teacher's scores are the same for every student of these soft labels.
        cache = own.folder / f"scores-{evaluator.mark(test, rename)}.json"
        known = not types.isdisjoint(test.types)
        scores[name] = evaluator.of_folder(teacher, test, cache=cache, rename=rename) if known else {}
    return scores


def _beside_source(
    recipe: DistillRecipe,
    soft_labels: SoftLabels,
    uses_similarity: bool,
    label_map: LabelMap,
    accelerator: Accelerator,
    number_format: torch.dtype | None,
) -> SoftLabels:
    """The soft labels with the share of labelled source sentences that the recipe asks for."""
    source = source_language(recipe)
    if not source:
        raise RecipeError(
            f"source.share needs the labelled text of the source language, and {recipe.teacher} does not say which "
            "that is; give source.language"
        )
    everything = replace(recipe.corpus, max_sentences=0)
    labelled = read_labelled(corpus_path(recipe.data, source, "train"), everything)
    (renamed,) = rename_types([labelled], label_map, LabelSet(soft_labels.card.tags).types)
    taught = None
    if uses_similarity and soft_labels.card.projection_size:
        if len(recipe.teachers) > 1:
            raise RecipeError("source.share beside the similarity task needs a single teacher; set source.share=0")
        own = replace(recipe, corpus=everything, soft_labels="auto")
        taught = taught_soft_labels(own, labelled.path, accelerator, number_format).soft_labels
    return with_source(soft_labels, renamed, recipe.source.share, taught, accelerator)
