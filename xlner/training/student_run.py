"""One student's training: soft labels of a teacher, made better, learnt by a dual-tower student, scored.

Source: Li et al. 2022 (2022.acl-long.14), section 3; the variants are explained in `docs/method.md`.
"""

from pathlib import Path
from typing import Any

from xlner.data.masking import Masker
from xlner.labels import LabelMap
from xlner.models.card import Origin
from xlner.models.files import revision_of
from xlner.models.folder import load_joint_model, save_model
from xlner.models.hidden_student import HiddenStudent
from xlner.models.joint import JointModel, TwoHeadStudent
from xlner.models.masking_student import MaskingStudent
from xlner.schema import DistillRecipe
from xlner.training.denoising import check_denoising
from xlner.training.fitting import fit_as_asked
from xlner.training.hidden_imitation import with_hidden_states
from xlner.training.lesson import about_run, doubt_of_student, read_lesson, teacher_name, teacher_scores
from xlner.training.masking_student import with_masking
from xlner.training.objective import BatchObjective, check_similarity, make_objective
from xlner.training.reduction import check_reduction
from xlner.training.reporting import Evaluator, Scores, finish, measured_on
from xlner.training.run_folder import open_run, run_path, start_run
from xlner.training.session import announce, make_accelerator
from xlner.training.source_text import source_language
from xlner.training.student import (
    check_encoder,
    distillation_task,
    n_parameters,
    new_student,
    split_windows,
    student_windows,
)
from xlner.training.task import Task, of_student


def train_student(recipe: DistillRecipe) -> Path:
    """Train one student on unlabelled text and write its run folder.

    Returns and Raises as for `distill`; rounds are not looked at.
    """
    objective = make_objective(recipe)
    check_denoising(recipe)
    revision_of(recipe.encoder, recipe.encoder_revision)  # refused before the teacher labels a text
    check_encoder(recipe)
    if recipe.student == "transformer":
        check_reduction(recipe)
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, recipe.target)
    accelerator = make_accelerator(recipe, path)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        check_similarity(recipe, objective)
        lesson = read_lesson(recipe, label_map, accelerator, objective.uses_similarity)
        taught, labels, soft_labels, test = lesson.taught, lesson.labels, lesson.soft_labels, lesson.test
        model, encoder, settings = new_student(recipe, labels, taught.outside_share, lesson.words, accelerator)
        windows = student_windows(lesson.words, encoder, accelerator)
        split = split_windows(windows, lesson.n_target, recipe)
        held_out = [windows[number] for number in split.held_out]
        start_run(run, recipe)

        def keep(best: JointModel) -> None:
            save_model(run.model, best, encoder.tokenizer, settings)

        evaluator = Evaluator(accelerator, encoder, labels, label_map)

        def evaluate(student: JointModel) -> tuple[float, dict[str, Any]]:
            return lesson.selection.score(student, evaluator, held_out, soft_labels)

        vectors = lesson.workplace.hidden(1) if recipe.loss.hidden_weight else None
        task: Task[Any] = distillation_task(
            recipe,
            objective,
            soft_labels,
            windows,
            split,
            encoder.pad_id,
            evaluate,
            lesson.selection.score_name,
            keep,
            vectors,
        )
        trained: Any = model
        if isinstance(objective, BatchObjective):
            task, trained = of_student(task), TwoHeadStudent(model, is_trained=recipe.encoder == "teacher")
        elif recipe.loss.masked_weight:
            masker = Masker(encoder.tokenizer, recipe.masking)
            task, trained = with_masking(task, objective, masker, recipe.loss.masked_weight), MaskingStudent(model)
        elif vectors is not None:
            task = with_hidden_states(task, objective, recipe.loss.hidden_weight)
            trained = HiddenStudent(model, vectors.width)
        progress = fit_as_asked(
            accelerator,
            trained,
            task,
            run,
            recipe,
            made_of={
                "teacher": taught.soft_labels.card.teacher,
                "text": taught.soft_labels.card.corpus,
                "labels": " ".join(labels.tags),
            },
        )
        kept = load_joint_model(str(run.model)).to(accelerator.device)
        agreement = evaluator.agreement(kept, held_out, soft_labels)
        scores: dict[str, Scores] = {}
        if test is not None:
            scores |= teacher_scores(recipe, taught, evaluator, test)
            scores["student"] = evaluator.of_folder(str(run.model), test, predictions=run.predictions(test.name))
        doubt = doubt_of_student(
            recipe, lesson, progress, None if test is None else scores["student"], agreement, held_out
        )
        about = about_run(recipe, lesson, n_parameters(model.recognizer), doubt) | {
            "types": labels.types,
            "label_map": str(label_map),
            "agreement_f1": round(agreement, 3) if held_out else None,
        }
        teachers = tuple([teacher_name(name) for name in recipe.teachers])
        measured = [] if test is None else measured_on([test], [scores["student"]], recipe.target)
        origin = Origin(source_language(recipe), teachers, measured, doubt)
        finish(run, accelerator, about, [test] if test else [], scores, progress, origin)
    return path
