"""One student's training: soft labels of a teacher, made better, learnt by a dual-tower student, scored.

Source: Li et al. 2022 (2022.acl-long.14), section 3; the variants are explained in `docs/method.md`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from xlner.data.corpus_files import corpus_path, find_corpus
from xlner.data.known_splits import name_text
from xlner.data.masking import Masker
from xlner.data.soft_labels import SoftLabels
from xlner.errors import RecipeError
from xlner.labels import LabelMap, LabelSet
from xlner.mixing.tags import TagReading
from xlner.models.card import Origin
from xlner.models.folder import load_joint_model, save_model
from xlner.models.joint import JointModel
from xlner.models.masking_student import MaskingStudent
from xlner.schema import DistillRecipe
from xlner.training.corpora import Corpus, check_types, read_labelled, rename_types
from xlner.training.denoising import check_denoising, denoised_soft_labels
from xlner.training.loop import fit
from xlner.training.masking_student import with_masking
from xlner.training.mixing import Taught, taught_soft_labels
from xlner.training.objective import check_similarity, make_objective
from xlner.training.optimization import autocast_dtype
from xlner.training.reporting import Evaluator, Scores, f1_by_corpus, finish
from xlner.training.run_folder import open_run, run_path, start_run
from xlner.training.selection import make_selection
from xlner.training.session import announce, make_accelerator, make_tracker
from xlner.training.source_text import source_language, with_source
from xlner.training.student import distillation_task, new_student, split_windows, student_windows
from xlner.training.task import Task
from xlner.training.workplace import Workplace


def train_student(recipe: DistillRecipe) -> Path:
    """Train one student on unlabelled text and write its run folder.

    Returns and Raises as for `distill`; rounds are not looked at.
    """
    objective = make_objective(recipe)
    check_denoising(recipe)
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, recipe.target)
    accelerator = make_accelerator(recipe, path)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        test_path = find_corpus(recipe.data, recipe.target, "test")
        test = read_labelled(test_path, recipe.corpus) if test_path else None
        check_similarity(recipe, objective)
        text = corpus_path(recipe.data, recipe.target, "train")
        number_format = autocast_dtype(accelerator.mixed_precision)
        taught = taught_soft_labels(recipe, text, accelerator, number_format)
        labels = LabelSet(taught.soft_labels.card.tags)
        if test is not None:
            (test,) = rename_types([test], label_map, labels.types)
            check_types(labels, [test])
        selection = make_selection(recipe, source_language(recipe), labels, label_map)
        first = next(iter(taught.by_model), "")
        own = taught.by_model.get(first, taught.soft_labels)
        workplace = Workplace(accelerator, number_format, first, own, taught.outside_share)
        soft_labels = denoised_soft_labels(taught.soft_labels, recipe, workplace)
        n_target, words = len(soft_labels), taught.soft_labels
        if recipe.source.share:
            soft_labels = words = beside_source(
                recipe, soft_labels, objective.uses_similarity, label_map, accelerator, number_format
            )
        model, encoder, settings = new_student(recipe, labels, taught.outside_share)
        windows = student_windows(words, encoder, accelerator)
        split = split_windows(windows, n_target, recipe)
        held_out = [windows[number] for number in split.held_out]
        start_run(run, recipe)

        def keep(best: JointModel) -> None:
            save_model(run.model, best, encoder.tokenizer, settings)

        evaluator = Evaluator(accelerator, encoder, labels, label_map)

        def evaluate(student: JointModel) -> tuple[float, dict[str, Any]]:
            return selection.score(student, evaluator, held_out, soft_labels)

        task: Task[Any] = distillation_task(
            recipe, objective, soft_labels, windows, split, encoder.pad_id, evaluate, selection.score_name, keep
        )
        trained: Any = model
        if recipe.loss.masked_weight:
            masker = Masker(encoder.tokenizer, recipe.masking)
            task, trained = with_masking(task, objective, masker, recipe.loss.masked_weight), MaskingStudent(model)
        progress = fit(
            accelerator,
            trained,
            task,
            run,
            seed=recipe.seed,
            optimization=recipe.optimization,
            hardware=recipe.hardware,
            checkpoint=recipe.checkpoint,
            tracker=make_tracker(accelerator, recipe),
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
        about = about_run(recipe, taught, text) | {
            "types": labels.types,
            "label_map": str(label_map),
            "agreement_f1": round(agreement, 3) if held_out else None,
        }
        teachers = tuple([teacher_name(name) for name in recipe.teachers])
        measured = {} if test is None else f1_by_corpus([test], [scores["student"]])
        origin = Origin(source_language(recipe), teachers, measured)
        finish(run, accelerator, about, [test] if test else [], scores, progress, origin)
    return path


def teacher_name(teacher: str) -> str:
    """What the card of a student calls a teacher: the name of its run, rather than where it lies on this machine."""
    path = Path(teacher)
    return teacher if not path.exists() else path.parent.name if path.name == "model" else path.name


def about_run(recipe: DistillRecipe, taught: Taught, text: Path) -> dict[str, Any]:
    """What report.json says of the run beside its scores."""
    card = taught.soft_labels.card
    return {
        "target": recipe.target,
        "variant": recipe.variant,
        "seed": recipe.seed,
        "selection": recipe.selection,
        "teacher": {"folder": recipe.teacher, "fingerprint": card.teacher},
        "teachers": list(taught.teachers),
        "text": {
            "fingerprint": card.corpus,
            "corpus_name": name_text(card.corpus, text) or None,
            "sentences": card.n_sentences,
        },
    }


def beside_source(
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
