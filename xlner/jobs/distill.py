"""Distillation: a student of unlabelled target text, of any kind, from its recipe to its report."""

from dataclasses import replace
from pathlib import Path
from typing import overload

from xlner.config.load import Value
from xlner.config.schema import DistillRecipe
from xlner.corpora.splits import Text, name_text, text_file
from xlner.files import RUNS
from xlner.jobs.compact_student import CompactStudent
from xlner.jobs.inputs import (
    StudentScore,
    about_run,
    doubt_of_student,
    held_out_of,
    prepare_inputs,
    source_language,
    student_windows,
    teacher_name,
    teacher_scores,
    training_text,
)
from xlner.jobs.transformer_student import TransformerStudent, with_pretrained_encoder
from xlner.models.card import Origin
from xlner.soft_labels.steps import denoising_steps
from xlner.tags import LabelMap
from xlner.train.loop import fit
from xlner.train.mtmt import check_published, check_similarity
from xlner.train.report import Evaluator, Scores, finish, measured_on
from xlner.train.run import (
    TrainedTagger,
    announce,
    asked_recipe,
    make_accelerator,
    open_run,
    run_path,
    start_run,
)


@overload
def distill(recipe: DistillRecipe, /, *, text: Text = "") -> TrainedTagger: ...
@overload
def distill(*, text: Text = "", **keys: Value) -> TrainedTagger: ...
def distill(recipe: DistillRecipe | None = None, /, *, text: Text = "", **keys: Value) -> TrainedTagger:
    """Train a student on unlabelled text and write its run folder.

        student = distill(target="de", teacher=teacher, text=["Angela Merkel besuchte Kiel.", ...])

    Args:
        recipe: From `load_recipe("distill", [...])`; instead of its keys.
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
    check_published(recipe.variant, recipe.model_teachers)
    if not recipe.is_compact:
        recipe = with_pretrained_encoder(recipe)
    return TrainedTagger(train_student(recipe))


def train_student(recipe: DistillRecipe) -> Path:
    """Train one student, of any kind, on unlabelled text and write its run folder.

    Returns and Raises as for `distill`.

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
        # From here on `recipe` is what was asked for; in `inputs.recipe` the teacher may have learnt from `gold` first.
        inputs = prepare_inputs(recipe, label_map, accelerator, uses_pairs)
        held_out_sentences = held_out_of(inputs.n_target, recipe)
        student = kind(inputs.recipe, inputs, accelerator)
        windows = student_windows(student.words, student.encoder, accelerator)
        text = training_text(
            student,
            windows,
            held_out_sentences,
            recipe.denoising,
            repeated=inputs.gold_rows,
            times=inputs.gold_times,
        )
        held_out = sorted(held_out_sentences)
        start_run(run, recipe)
        objective, network = student.objective(text), student.for_training()
        validation = StudentScore(student, inputs.selection, held_out, run.model)
        card = inputs.taught.soft_labels.card
        depends_on = {"teacher": card.teacher, "text": card.corpus, "labels": " ".join(inputs.labels.tags)}
        if inputs.gold.learnt:
            depends_on["gold"] = inputs.gold.learnt.fingerprint
        progress = fit(accelerator, network, objective, validation, run, recipe, {**depends_on, **student.depends_on})
        kept = student.load(run.model).to(accelerator.device)
        agreement = student.evaluator.agreement(kept, held_out, student.soft_labels) if held_out else None
        scores: dict[str, Scores] = {}
        if (test := inputs.test) is not None:
            of_models = Evaluator(accelerator, student.encoder, inputs.labels, label_map)
            scores |= teacher_scores(recipe, inputs, of_models, test)
            scores["student"] = student.evaluator.of_network(kept, test, run.predictions(test.name))
        doubt = doubt_of_student(recipe, inputs, progress, scores.get("student"), agreement, held_out)
        about = about_run(recipe, inputs, student.n_parameters, agreement, doubt)
        teachers = tuple([teacher_name(name) for name in recipe.teachers])
        tests = [] if test is None else [test]
        measured = measured_on(tests, [scores["student"] for _ in tests], recipe.target)
        known_as = name_text(card.corpus, inputs.text) or recipe.target
        read = f"{inputs.n_target:,} sentences without labels, {known_as}{inputs.gold.beside}"
        origin = Origin(source_language(recipe), read, teachers, measured, doubt)
        finish(run, accelerator, about, tests, scores, progress, origin, student.write_card)
    return path
