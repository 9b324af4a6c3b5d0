"""Distillation: students of unlabelled target text, in one round or in several.

In rounds, the student of one round is the teacher of the next. Each round is a run of its own, `round-N/` inside the
run's folder, so that a stopped one goes on where it stood; the student of the best round becomes the run's `model/`.
"""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from xlner.config.load import Value
from xlner.config.schema import DistillRecipe, MixingRecipe, RoundsRecipe
from xlner.corpora.lines import text_path
from xlner.corpora.splits import Text, name_text, text_file
from xlner.errors import RecipeError
from xlner.files import RUNS
from xlner.jobs.compact_student import CompactStudent
from xlner.jobs.inputs import (
    StudentScore,
    about_run,
    doubt_of_student,
    held_out_of,
    read_inputs,
    source_language,
    student_windows,
    teacher_name,
    teacher_scores,
    training_text,
)
from xlner.jobs.transformer_student import TransformerStudent, with_pretrained_encoder
from xlner.models.card import Origin
from xlner.models.folder import replaced_folder
from xlner.soft_labels.label import check_teacher
from xlner.soft_labels.steps import denoising_steps
from xlner.tags import LabelMap
from xlner.train.loop import fit
from xlner.train.mtmt import check_published, check_similarity
from xlner.train.report import Evaluator, Scores, finish, measured_on, score_table
from xlner.train.run import (
    RunFolder,
    TrainedTagger,
    announce,
    asked_recipe,
    make_accelerator,
    open_run,
    read_report,
    run_path,
    start_run,
)

LOG = logging.getLogger("xlner")


@overload
def distill(recipe: DistillRecipe, /, *, text: Text = "") -> TrainedTagger: ...
@overload
def distill(*, text: Text = "", **keys: Value) -> TrainedTagger: ...
def distill(recipe: DistillRecipe | None = None, /, *, text: Text = "", **keys: Value) -> TrainedTagger:
    """Train a student on unlabelled text and write its run folder.

        student = distill(target="de", teacher=teacher, text=["Angela Merkel besuchte Kiel.", ...])

    Args:
        recipe: From `load_recipe("distill", [...])`, or made in Python; instead of its keys.
        text: The unlabelled text: a file, sentences, lists of words, or a `datasets.Dataset` with a column of either;
            nothing: the file of `data`.
        keys: Keys of the recipe, sections as dicts. They mean what they mean on the command line.

    Returns:
        The run: its `tagger()`, its `report`, its `path`; `model/` within that opens in transformers, too.
        Where the target has a labelled test set, the report holds the scores of teacher and student side by side.

    Raises:
        XlnerError: One of its kinds, for whatever the user can mend; nothing is left half-written.
        StoppedError: If the run was interrupted; the same call goes on from there.
    """
    recipe = asked_recipe(DistillRecipe, recipe, keys)
    if given := text_file(text, RUNS / "texts", recipe.corpus.format):
        recipe = replace(recipe, text=given)
    check_published(recipe.variant, recipe.model_teachers, rounds=recipe.rounds.count)
    if not recipe.is_compact:
        recipe = with_pretrained_encoder(recipe)
    return TrainedTagger(train_student(recipe) if recipe.rounds.count == 1 else _train_in_rounds(recipe))


def train_student(recipe: DistillRecipe) -> Path:
    """Train one student, of any kind, on unlabelled text and write its run folder.

    Returns and Raises as for `distill`; rounds are not looked at.

    Source: Li et al. 2022 (2022.acl-long.14), section 3; the variants are explained in `docs/method.md`.
    """
    kind = CompactStudent if recipe.is_compact else TransformerStudent
    denoising_steps(recipe.denoising)
    uses_pairs = kind.check(recipe)
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, recipe.target)
    accelerator = make_accelerator(recipe.hardware, path, trackers=recipe.trackers)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        if uses_pairs:
            check_similarity(recipe.teachers, recipe.model_teachers)
        inputs = read_inputs(recipe, label_map, accelerator, uses_pairs)
        held_out_sentences = held_out_of(inputs.n_target, recipe)
        student = kind(recipe, inputs, accelerator)
        windows = student_windows(student.words, student.encoder, accelerator)
        text = training_text(student, windows, held_out_sentences, recipe.denoising)
        held_out = sorted(held_out_sentences)
        start_run(run, recipe)
        objective, network = student.objective(text), student.for_training()
        validation = StudentScore(student, inputs.selection, held_out, run.model)
        card = inputs.taught.soft_labels.card
        depends_on = {"teacher": card.teacher, "text": card.corpus, "labels": " ".join(inputs.labels.tags)}
        progress = fit(accelerator, network, objective, validation, run, recipe, {**depends_on, **student.depends_on})
        kept = student.load(run.model).to(accelerator.device)
        agreement = student.evaluator.agreement(kept, held_out, student.soft_labels) if held_out else None
        scores: dict[str, Scores] = {}
        if (test := inputs.test) is not None:
            of_models = Evaluator(accelerator, student.encoder, inputs.labels, label_map)
            scores |= teacher_scores(recipe, inputs.taught, of_models, test)
            scores["student"] = student.evaluator.of_network(kept, test, run.predictions(test.name))
        doubt = doubt_of_student(recipe, inputs, progress, scores.get("student"), agreement, held_out)
        about = about_run(recipe, inputs, student.n_parameters, agreement, doubt)
        teachers = tuple([teacher_name(name) for name in recipe.teachers])
        tests = [] if test is None else [test]
        measured = measured_on(tests, [scores["student"] for _ in tests], recipe.target)
        known_as = name_text(card.corpus, inputs.text) or recipe.target
        read = f"{inputs.n_target:,} sentences without labels, {known_as}"
        origin = Origin(source_language(recipe), read, teachers, measured, doubt)
        finish(run, accelerator, about, tests, scores, progress, origin, student.write_card)
    return path


def _train_in_rounds(recipe: DistillRecipe) -> Path:
    path = run_path(recipe.run, recipe.target)
    if recipe.rounds.denoising != "same":
        denoising_steps(recipe.rounds.denoising)
    if not recipe.holdout_ratio:
        raise RecipeError(
            "rounds.count above 1 needs text that is held out, to see when agreement no longer rises; set "
            "holdout_ratio above 0"
        )
    # As a single round would say it, but before there is a folder.
    for name in recipe.model_teachers:
        check_teacher(name)
    text_path(recipe.text, recipe.data, recipe.target)
    accelerator = make_accelerator(recipe.hardware, path, trackers=recipe.trackers)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        start_run(run, recipe)
        accelerator.wait_for_everyone()
        reports: list[dict[str, Any]] = []
        for number in range(1, recipe.rounds.count + 1):
            folder = path / f"round-{number}"
            if read_report(folder) is None:
                LOG.info(f"round {number} of at most {recipe.rounds.count}")
                train_student(_round_recipe(recipe, path, number))
            accelerator.wait_for_everyone()
            reports.append(read_report(folder) or {})
            if len(reports) > 1 and reports[-1]["agreement_f1"] <= reports[-2]["agreement_f1"]:
                LOG.info(f"agreement no longer rises ({_agreements(reports)}): round {number - 1} is kept")
                break
        if run.writes:
            _publish(run, reports)
        accelerator.wait_for_everyone()
    return path


def _round_recipe(recipe: DistillRecipe, path: Path, number: int) -> DistillRecipe:
    """The recipe of one round: the first one learns from the teacher, each later one from the student before."""
    own = replace(recipe, run=str(path / f"round-{number}"), rounds=RoundsRecipe())
    if number == 1:
        return own
    # A student says that its language is the target's; what is told of the source stays that of the first teacher.
    source = replace(recipe.source, language=source_language(recipe))
    return replace(
        own,
        student="encoder",  # a student that is small already is not made smaller again
        teacher=str(path / f"round-{number - 1}" / "model"),
        mixing=MixingRecipe(),
        denoising=recipe.denoising if recipe.rounds.denoising == "same" else recipe.rounds.denoising,
        source=source,
        soft_labels=str(path / "soft-labels" / f"round-{number}"),
    )


def _publish(run: RunFolder, reports: list[dict[str, Any]]) -> None:
    """Make the student of the best round the result of the run; report.json comes last."""
    best = max(range(len(reports)), key=lambda number: (reports[number]["agreement_f1"], number))
    folder = run.path / f"round-{best + 1}"
    with replaced_folder(run.model) as unfinished:
        shutil.copytree(folder / "model", unfinished, dirs_exist_ok=True)
    for predictions in folder.glob("predictions-*.conll"):
        shutil.copyfile(predictions, run.path / predictions.name)
    report = reports[best]
    scores = {f"round {number}": found["scores"].get("student", {}) for number, found in enumerate(reports, 1)}
    if first := reports[0]["scores"].get("teacher"):
        report["scores"]["teacher"] = first
        scores = {"teacher": first} | scores
    report["rounds"] = [
        {"agreement_f1": found["agreement_f1"], "f1": found["scores"].get("student", {}).get("overall", {}).get("f1")}
        for found in reports
    ]
    training = report["training"]
    training["seconds"] = round(sum(found["training"]["seconds"] for found in reports), 1)
    training["peak_memory_mib"] = max(found["training"]["peak_memory_mib"] for found in reports)
    LOG.info(f"\n{score_table(scores)}\n\nmodel: {run.model}, of round {best + 1} (agreement {_agreements(reports)})")
    run.finish(report)


def _agreements(reports: list[dict[str, Any]]) -> str:
    return ", ".join(f"{report['agreement_f1']:.2f}" for report in reports)
