"""One compact student's training: the soft labels of a teacher, learnt word by word, whatever either reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlner.data.alignment import Window
from xlner.errors import RecipeError
from xlner.labels import LabelMap
from xlner.models.card import Origin
from xlner.schema import DistillRecipe
from xlner.students.folder import load_network
from xlner.students.network import CompactNetwork
from xlner.training.augmented_text import with_augmented
from xlner.training.compact_evaluation import CompactEvaluator
from xlner.training.compact_objective import make_compact_objective
from xlner.training.compact_student import new_compact_student
from xlner.training.denoising import check_denoising
from xlner.training.fitting import fit_as_asked
from xlner.training.lesson import about_run, doubt_of_student, read_lesson, teacher_name, teacher_scores
from xlner.training.optimization import autocast_dtype
from xlner.training.reporting import Evaluator, Scores, measured_on, score_table, tell_doubts, write_report
from xlner.training.run_folder import open_run, run_path, start_run
from xlner.training.session import announce, make_accelerator
from xlner.training.source_text import source_language
from xlner.training.student import Split, distillation_task, n_parameters, student_windows
from xlner.training.task import Task


def train_compact_student(recipe: DistillRecipe) -> Path:
    """Train one compact student on unlabelled text and write its run folder.

    Returns and Raises as for `distill`.
    """
    check_denoising(recipe)
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, recipe.target)
    accelerator = make_accelerator(recipe, path)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        lesson = read_lesson(recipe, label_map, accelerator, uses_similarity=False)
        taught, labels, test = lesson.taught, lesson.labels, lesson.test
        soft_labels, words, n_target = lesson.soft_labels, lesson.words, lesson.n_target
        held_out_sentences = held_out_of(n_target, recipe)
        student = new_compact_student(recipe, labels, words)
        if recipe.compact.augment:
            trained = [number for number in range(n_target) if number not in held_out_sentences]
            soft_labels = words = with_augmented(
                soft_labels, trained, recipe, accelerator, autocast_dtype(accelerator.mixed_precision)
            )
        objective = make_compact_objective(recipe, labels.tags, student.encoder.width)
        windows = student_windows(words, student.encoder, accelerator)
        split = split_sentences(windows, held_out_sentences)
        held_out = [windows[number] for number in split.held_out]
        start_run(run, recipe)
        accelerator.print(
            f"{recipe.student}: {n_parameters(student.network):,} parameters, {len(split.trained):,} windows of words"
        )
        evaluator = CompactEvaluator(accelerator, student.encoder, labels, label_map)

        def keep(best: CompactNetwork) -> None:
            student.save(run.model, best)

        def evaluate(network: CompactNetwork) -> tuple[float, dict[str, Any]]:
            return lesson.selection.score(network, evaluator, held_out, soft_labels)

        task: Task[Any] = distillation_task(
            recipe,
            objective,
            soft_labels,
            windows,
            split,
            student.encoder.pad_id,
            evaluate,
            lesson.selection.score_name,
            keep,
        )
        progress = fit_as_asked(
            accelerator,
            student.network,
            task,
            run,
            recipe,
            made_of={
                "teacher": taught.soft_labels.card.teacher,
                "text": taught.soft_labels.card.corpus,
                "labels": " ".join(labels.tags),
                "rows": student.encoder.fingerprint,
            },
        )
        scores: dict[str, Scores] = {}
        if test is not None:
            of_models = Evaluator(accelerator, student.encoder, labels, label_map)
            scores |= teacher_scores(recipe, taught, of_models, test)
            scores["student"] = evaluator.of_folder(run.model, test, run.predictions(test.name))
        kept = load_network(run.model, student.settings, student.encoder).to(accelerator.device)
        agreement = evaluator.agreement(kept, held_out, soft_labels) if held_out else None
        doubt = doubt_of_student(
            recipe, lesson, progress, None if test is None else scores["student"], agreement, held_out
        )
        about = about_run(recipe, lesson, n_parameters(student.network), doubt) | {
            "types": labels.types,
            "label_map": str(label_map),
            "agreement_f1": None if agreement is None else round(agreement, 3),
        }
        teachers = tuple([teacher_name(name) for name in recipe.teachers])
        measured = [] if test is None else measured_on([test], [scores["student"]], recipe.target)
        accelerator.print(f"\n{score_table(scores)}")
        if doubt:
            tell_doubts(accelerator, [doubt])
        if run.writes:
            origin = Origin(source_language(recipe), teachers, measured, doubt)
            student.write_card(run.model, run.path.name, origin)
        write_report(run, accelerator, about, [test] if test else [], scores, progress)
    return path


def held_out_of(n_sentences: int, recipe: DistillRecipe) -> frozenset[int]:
    """The sentences of the target text that are kept out of training; the same ones for every seed.

    Raises:
        RecipeError: If the selection needs some, and there are none.
    """
    n_held_out = round(n_sentences * recipe.holdout_ratio)
    if recipe.selection in ("agreement", "score") and not n_held_out:
        raise RecipeError(
            f"selection={recipe.selection} needs text that is held out, but holdout_ratio={recipe.holdout_ratio:g} of "
            f"{n_sentences:,} sentences is none; raise holdout_ratio, or set selection=last"
        )
    return frozenset(np.random.default_rng(0).permutation(n_sentences)[:n_held_out].tolist())


def split_sentences(windows: Sequence[Window], held_out: frozenset[int]) -> Split:
    """The windows of held-out sentences, and all others."""
    is_held_out = np.asarray([window.sentence in held_out for window in windows], dtype=bool)
    return Split(np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out))
