"""What a student of any kind learns from, which student is kept, and what its report says of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator

from xlner.config.schema import DistillRecipe
from xlner.corpora.identity import name_text
from xlner.corpora.lines import corpus_path, find_corpus, text_path
from xlner.corpora.splits import Corpus, check_types, read_labelled, rename_types
from xlner.encode import Window
from xlner.errors import RecipeError
from xlner.evaluate import Report
from xlner.soft_labels.label import DenoisingContext
from xlner.soft_labels.mix import Taught, taught_soft_labels
from xlner.soft_labels.pooling import LabelChanges
from xlner.soft_labels.source_text import source_language, with_source
from xlner.soft_labels.steps import changes_of, denoised_soft_labels
from xlner.soft_labels.store import SoftLabels
from xlner.tags import LabelMap, LabelSet, TagReading
from xlner.train.accelerator import autocast_dtype
from xlner.train.checkpoint import Progress
from xlner.train.report import (
    QUOTED_STUDENT,
    Evaluator,
    Scores,
    doubt_of_agreement,
    doubt_of_scores,
    doubts_before_training,
    tell_doubts,
    trained_on,
)

# Which student is kept: what is measured while it trains, and which of the measures decides.


# The measures whose mean decides, in percent F1; only the last one looks at labels of the target language.
SELECTIONS: dict[str, tuple[str, ...]] = {
    "last": ("agreement",),  # told, but the student of the last step is kept
    "agreement": ("agreement",),
    "source": ("source",),
    "score": ("agreement", "source"),
    "target": ("target",),
}


class Scorer(Protocol):
    """What scores students while they train; `Evaluator` does, and its like for compact students."""

    def quick_report(self, model: Any, corpus: Corpus) -> Report:
        """Scores on a labelled corpus."""

    def agreement(self, model: Any, windows: Sequence[Window], soft_labels: SoftLabels) -> float:
        """Entity F1 in percent against the likeliest tags of soft labels."""


class Selection(NamedTuple):
    """How a student is scored while it trains: corpora by measure, and the text that was held out."""

    name: str
    corpora: dict[str, Corpus]

    def score(
        self, model: Any, evaluator: Scorer, held_out: Sequence[Window], soft_labels: SoftLabels
    ) -> tuple[float, dict[str, Any]]:
        """The mean of the measures, in percent, and each by itself; every process calls it."""
        found = {}
        for measure in SELECTIONS[self.name]:
            if measure in self.corpora:
                found[measure] = evaluator.quick_report(model, self.corpora[measure]).overall.f1
            else:
                found[measure] = evaluator.agreement(model, held_out, soft_labels)
        details = {f"{measure}_f1": round(value, 3) for measure, value in found.items()} if len(found) > 1 else {}
        return sum(found.values()) / len(found), details

    @property
    def score_name(self) -> str:
        """What the score is called in metrics.jsonl."""
        measures = SELECTIONS[self.name]
        return f"{measures[0]}_f1" if len(measures) == 1 else "selection_score"


def make_selection(recipe: DistillRecipe, source: str, labels: LabelSet, label_map: LabelMap) -> Selection:
    """Read what the selection of a recipe looks at.

    Args:
        recipe: Names the selection and the folder of the corpora.
        source: Language of the teacher.
        labels: Of the student.
        label_map: Of the recipe.

    Raises:
        RecipeError: If the teacher does not say its language.
        CorpusError: If there is no dev set where one is needed.
    """
    corpora = {}
    for measure in SELECTIONS[recipe.selection]:
        if measure == "agreement":
            continue
        language = {"source": source, "target": recipe.target}[measure]
        if not language:
            raise RecipeError(
                f"selection={recipe.selection} needs the dev set of the teacher's language, and {recipe.teacher} does "
                "not say which that is; give source.language"
            )
        dev = read_labelled(corpus_path(recipe.data, language, "dev"), recipe.corpus)
        (corpora[measure],) = rename_types([dev], label_map, labels.types)
        check_types(labels, [corpora[measure]])
    return Selection(recipe.selection, corpora)


# What a student of any kind learns from, and what its report says of that: teachers, soft labels, a test set.


@dataclass(frozen=True)
class StudentInputs:
    """What a student learns from.

    `text` is the target text, whose first `n_target` rows of `soft_labels` are its own; what follows is labelled source
    text. `words` are the soft labels whose words a student's windows are made of: the same sentences before anything
    was derived from them, so that windows are stored once. `context` gives the first teacher's hidden states. `test`
    is None where there is no labelled test set. `changes` tell how sure the teachers were and what denoising changed,
    `doubts` why little may come of it.
    """

    text: Path
    taught: Taught
    labels: LabelSet
    selection: Selection
    soft_labels: SoftLabels
    words: SoftLabels
    context: DenoisingContext
    n_target: int
    test: Corpus | None
    changes: LabelChanges
    doubts: Sequence[str]


def read_inputs(
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
    context = DenoisingContext(accelerator, number_format, first, own, taught.outside_share)
    soft_labels = denoised_soft_labels(taught.soft_labels, recipe, context)
    changes = changes_of(taught.soft_labels, soft_labels)
    accelerator.print(changes.line())
    tell_doubts(accelerator, changes.doubts())
    doubts = [*doubts, *changes.doubts()]
    n_target, words = len(soft_labels), taught.soft_labels
    if recipe.source.share:
        soft_labels = words = _beside_source(
            recipe, soft_labels, uses_similarity, label_map, accelerator, number_format
        )
    return StudentInputs(text, taught, labels, selection, soft_labels, words, context, n_target, test, changes, doubts)


def teacher_name(teacher: str) -> str:
    """What the card of a student calls a teacher: the name of its run, rather than where it lies on this machine."""
    path = Path(teacher)
    return teacher if not path.exists() else path.parent.name if path.name == "model" else path.name


def doubt_of_student(
    recipe: DistillRecipe,
    inputs: StudentInputs,
    progress: Progress,
    scores: Scores | None,
    agreement: float | None,
    held_out: Sequence[Window],
) -> str:
    """What tells that a student has learnt nothing, by its test set or, without one, by the held-out text; or empty.

    Args:
        recipe: Of the student.
        inputs: What it learnt from.
        progress: How long it learnt.
        scores: On the test set; None if there is none.
        agreement: With its teacher on the held-out text, in percent; None if nothing is held out.
        held_out: That text.
    """
    amount = trained_on(progress.step, inputs.n_target, QUOTED_STUDENT, has_encoder=not recipe.is_compact)
    if inputs.test is not None and scores is not None:
        return doubt_of_scores(scores, inputs.test.path, amount)
    if agreement is None or not held_out:
        return ""
    return doubt_of_agreement(agreement, held_out, inputs.soft_labels, amount)


def about_run(recipe: DistillRecipe, inputs: StudentInputs, n_parameters: int, doubt: str) -> dict[str, Any]:
    """What report.json says beside scores; `n_parameters` are the student's, `doubt` is that of its result."""
    card = inputs.taught.soft_labels.card
    return {
        "target": recipe.target,
        "student": recipe.student,
        "parameters": n_parameters,
        "variant": recipe.variant,
        "seed": recipe.seed,
        "selection": recipe.selection,
        "teacher": {"folder": recipe.teacher, "fingerprint": card.teacher},
        "teachers": list(inputs.taught.teachers),
        "text": {
            "fingerprint": card.corpus,
            "corpus_name": name_text(card.corpus, inputs.text) or None,
            "sentences": card.n_sentences,
        },
        "labels": inputs.changes.to_json(),
        "warnings": [*inputs.doubts, *([doubt] if doubt else [])],
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
