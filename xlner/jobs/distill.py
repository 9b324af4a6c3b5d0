"""Distillation: a student of unlabelled target text, of any kind, from its recipe to its report."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, overload

from xlner.config.load import Value
from xlner.config.schema import DistillRecipe
from xlner.corpora.splits import Corpus, Text, name_text, text_file
from xlner.files import RUNS
from xlner.jobs.compact_student import CompactStudent
from xlner.jobs.doubts import QUOTED_STUDENT, doubt_of_agreement, doubt_of_scores, trained_on
from xlner.jobs.inputs import StudentInputs, check_inputs, prepare_inputs, source_language
from xlner.jobs.student import (
    Selection,
    StudentScore,
    dev_sets,
    held_out_of,
    make_selection,
    student_windows,
    training_text,
)
from xlner.jobs.target_labels import teacher_name, used_labels
from xlner.jobs.transformer_student import TransformerStudent, with_pretrained_encoder
from xlner.models.card import Measured, Origin, UsedLabels
from xlner.models.token_classifier import read_labels
from xlner.tags import LabelMap, TagReading
from xlner.train.checkpoint import Progress
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
        text: The unlabelled text: a file, sentences, lists of words, or a table of `datasets` or pandas with a column
            of either; nothing: the file of `data`.
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
    uses_pairs = kind.check(recipe)
    check_inputs(recipe, uses_pairs)
    dev_sets(recipe)
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, recipe.target)
    accelerator = make_accelerator(recipe.hardware, path, trackers=recipe.trackers)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        if uses_pairs:
            check_similarity(recipe.teachers, recipe.model_teachers)
        # From here on `recipe` is what was asked for; in `inputs.recipe` the teacher may have learnt from `gold` first.
        inputs = prepare_inputs(recipe, label_map, accelerator, uses_pairs)
        selection = make_selection(recipe, inputs)
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
        validation = StudentScore(student, selection, held_out, run.model)
        card = inputs.taught.soft_labels.card
        # Labels come first: where they differ, so does the teacher that learnt from them.
        depends_on = {"gold": inputs.gold.fingerprint} if inputs.gold.learnt else {}
        depends_on |= {"teacher": card.teacher, "text": card.corpus, "labels": " ".join(inputs.labels.tags)}
        progress = fit(accelerator, network, objective, validation, run, recipe, {**depends_on, **student.depends_on})
        kept = student.load(run.model).to(accelerator.device)
        agreement = student.evaluator.agreement(kept, held_out, student.soft_labels) if held_out else None
        scores: dict[str, Scores] = {}
        if (test := inputs.test) is not None:
            of_models = Evaluator(accelerator, student.encoder, inputs.labels, label_map)
            scores |= teacher_scores(recipe, inputs, of_models, test)
            scores["student"] = student.evaluator.of_network(kept, test, run.predictions(test.name))
        doubt = doubt_of_student(recipe, inputs, progress, scores.get("student"), agreement, held_out)
        used = used_labels(recipe, inputs.gold, selection.n_target)
        about = about_run(recipe, inputs, selection, used, student.n_parameters, agreement, doubt)
        tests = [] if test is None else [test]
        measured = measured_on(tests, [scores["student"] for _ in tests], recipe.target)
        origin = origin_of(recipe, inputs, used, measured, doubt)
        finish(run, accelerator, about, tests, scores, progress, origin, student.write_card)
    return path


# What its report says.


def doubt_of_student(
    recipe: DistillRecipe,
    inputs: StudentInputs,
    progress: Progress,
    scores: Scores | None,
    agreement: float | None,
    held_out: Sequence[int],
) -> str:
    """What tells that a student has learnt nothing, by its test set or, without one, by the held-out text; or empty.

    Args:
        recipe: Of the student.
        inputs: What it learnt from.
        progress: How long it learnt.
        scores: On the test set; None if there is none.
        agreement: With its teacher on the held-out text, in percent; None if nothing is held out.
        held_out: The numbers of its sentences.
    """
    amount = trained_on(progress.step, inputs.n_target, QUOTED_STUDENT, has_encoder=not recipe.is_compact)
    if inputs.test is not None and scores is not None:
        return doubt_of_scores(scores, inputs.test.path, amount)
    if agreement is None or not held_out:
        return ""
    return doubt_of_agreement(agreement, held_out, inputs.soft_labels, amount)


def origin_of(
    recipe: DistillRecipe, inputs: StudentInputs, used: UsedLabels, measured: Sequence[Measured], doubt: str
) -> Origin:
    """What the card says of where a student comes from."""
    known_as = name_text(inputs.taught.soft_labels.card.corpus, inputs.text) or recipe.target
    source = source_language(recipe)
    if source == recipe.target and not used.teachers:
        source = ""  # the teacher is a student of this language itself, and has seen no label of it
    return Origin(
        source,
        f"{inputs.n_target:,} sentences without labels, {known_as}",
        tuple([teacher_name(name) for name in recipe.teachers]),
        used,
        measured,
        doubt,
    )


def about_run(
    recipe: DistillRecipe,
    inputs: StudentInputs,
    selection: Selection,
    used: UsedLabels,
    n_parameters: int,
    agreement: float | None,
    doubt: str,
) -> dict[str, Any]:
    """What report.json says beside scores; size, agreement on the held-out text and doubt are the student's."""
    card = inputs.taught.soft_labels.card
    return {
        "target": recipe.target,
        "student": recipe.student,
        "parameters": n_parameters,
        "variant": recipe.variant,
        "seed": recipe.seed,
        "selection": selection.name,
        "target_labels": asdict(used),
        # Of the one that taught: where it learnt from target labels first, not the one of the recipe.
        "teacher": {"folder": inputs.recipe.teacher, "fingerprint": card.teacher},
        "teachers": list(inputs.taught.teachers),
        "text": {
            "fingerprint": card.corpus,
            "corpus_name": name_text(card.corpus, inputs.text) or None,
            "sentences": card.n_sentences,
        },
        "labels": inputs.changes.to_json(),
        "types": inputs.labels.types,
        "label_map": str(inputs.label_map),
        "agreement_f1": None if agreement is None else round(agreement, 3),
        "warnings": [*inputs.doubts, *selection.doubts, *([doubt] if doubt else [])],
    }


def teacher_scores(
    recipe: DistillRecipe, inputs: StudentInputs, evaluator: Evaluator, test: Corpus
) -> dict[str, Scores]:
    """The scores of the models that teach: `teacher`, `teacher 2` and so on; empty if one knows no type of the test.

    A first one that learnt from target labels is `tuned teacher`, behind what it was before.
    """
    rename, of_predictions = LabelMap.parse(recipe.mixing.rename), LabelMap.parse(recipe.labels.map).for_predictions()
    mark = evaluator.mark(test, rename)

    def scored(teacher: str, tags: Sequence[str], folder: Path) -> Scores:
        types = {of_predictions.type_of(kind) for kind in TagReading.of(tags, rename).labels.types}
        if types.isdisjoint(test.types):
            return {}
        return evaluator.of_folder(teacher, test, cache=folder / f"scores-{mark}.json", rename=rename)

    scores: dict[str, Scores] = {}
    first, tuned = (found.model_teachers[:1] for found in (recipe, inputs.recipe))
    if first != tuned:
        scores["teacher"] = scored(first[0], read_labels(first[0]).tags, Path(tuned[0]).parent)
    for number, (teacher, own) in enumerate(inputs.taught.by_model.items(), 1):
        name = "tuned teacher" if (teacher,) == tuned != first else "teacher" if number == 1 else f"teacher {number}"
        # The teacher's scores are the same for every student of these soft labels.
        scores[name] = scored(teacher, own.card.tags, own.folder)
    return scores
