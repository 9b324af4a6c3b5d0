"""What a student of any kind learns from, which one is kept, what its report says; and what the job asks of a kind."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from xlner.arrow_files import is_whole
from xlner.config.schema import DistillRecipe
from xlner.corpora.identity import name_text
from xlner.corpora.lines import corpus_path, find_corpus, text_path
from xlner.corpora.splits import Corpus, check_types, read_labelled, rename_types
from xlner.encode import Window
from xlner.errors import RecipeError
from xlner.models.card import Origin
from xlner.soft_labels.label import DenoisingContext, HiddenStates
from xlner.soft_labels.mix import Taught, taught_soft_labels
from xlner.soft_labels.pooling import LabelChanges
from xlner.soft_labels.source_text import source_language, with_source
from xlner.soft_labels.steps import changes_of, denoised_soft_labels
from xlner.soft_labels.store import SoftLabels, StoredWindows, StudentEncoder, store_windows, windows_path
from xlner.tags import LabelMap, LabelSet, TagReading
from xlner.train.accelerator import autocast_dtype
from xlner.train.batches import PairDraw, PairPlan, SoftBatch, SoftPairs
from xlner.train.checkpoint import Progress
from xlner.train.loop import Task
from xlner.train.objectives import AnyObjective
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

LOG = logging.getLogger("xlner")

# Which student is kept: what is measured while it trains, and which of the measures decides.


# The measures whose mean decides, in percent F1; only the last one looks at labels of the target language.
SELECTIONS: dict[str, tuple[str, ...]] = {
    "last": ("agreement",),  # told, but the student of the last step is kept
    "agreement": ("agreement",),
    "source": ("source",),
    "score": ("agreement", "source"),
    "target": ("target",),
}


class Selection(NamedTuple):
    """How a student is scored while it trains: corpora by measure, and the text that was held out."""

    name: str
    corpora: dict[str, Corpus]

    def score(
        self, model: Any, evaluator: Evaluator, held_out: Sequence[Window], soft_labels: SoftLabels
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
    label_map: LabelMap
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
    tell_doubts(doubts)
    if test is not None:
        (test,) = rename_types([test], label_map, labels.types)
        check_types(labels, [test])
    selection = make_selection(recipe, source_language(recipe), labels, label_map)
    first = next(iter(taught.by_model), "")
    own = taught.by_model.get(first, taught.soft_labels)
    context = DenoisingContext(accelerator, number_format, first, own, taught.outside_share)
    soft_labels = denoised_soft_labels(taught.soft_labels, recipe, context)
    changes = changes_of(taught.soft_labels, soft_labels)
    LOG.info(changes.line())
    tell_doubts(changes.doubts())
    doubts = [*doubts, *changes.doubts()]
    n_target, words = len(soft_labels), taught.soft_labels
    if recipe.source.share:
        soft_labels = words = _beside_source(
            recipe, soft_labels, uses_similarity, label_map, accelerator, number_format
        )
    return StudentInputs(
        text, taught, labels, label_map, selection, soft_labels, words, context, n_target, test, changes, doubts
    )


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


def about_run(
    recipe: DistillRecipe, inputs: StudentInputs, n_parameters: int, agreement: float | None, doubt: str
) -> dict[str, Any]:
    """What report.json says beside scores; size, agreement on the held-out text and doubt are the student's."""
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
        "types": inputs.labels.types,
        "label_map": str(inputs.label_map),
        "agreement_f1": None if agreement is None else round(agreement, 3),
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


# A student of any kind: its windows, its task, and what the job asks of it.


class Student(ABC):
    """A student of one kind, from before its training to its finished folder: all that the job knows of it.

    Attributes:
        network: What is scored and kept.
        encoder: Makes its windows.
        evaluator: Scores it.
        objective: Its loss.
        soft_labels: What it learns from.
        words: The sentences that its windows are made of, as in `StudentInputs`.
        vectors: A teacher's hidden states of the same sentences, if the loss looks at them.
        depends_on: Fingerprints, by name, of what a checkpoint of it depends on beside teacher, text and labels.
    """

    network: Any
    encoder: Any
    evaluator: Evaluator
    objective: AnyObjective
    soft_labels: SoftLabels
    words: SoftLabels
    vectors: HiddenStates | None = None
    depends_on: Mapping[str, str] = MappingProxyType({})

    @staticmethod
    @abstractmethod
    def check(recipe: DistillRecipe) -> bool:
        """Refuse what cannot become a student of this kind, before a teacher labels a whole text.

        Returns:
            Whether the student learns similarities, too.

        Raises:
            XlnerError: If the recipe cannot be followed.
        """

    @property
    def n_parameters(self) -> int:
        """What the report says of its size."""
        return n_parameters(self.network)

    def for_training(self, task: Task[Any], accelerator: Accelerator) -> tuple[Task[Any], nn.Module]:
        """The task, with the terms that this kind adds, and the network that the loop trains."""
        return task, self.network

    @abstractmethod
    def save(self, folder: Path, network: Any) -> None:
        """Write the model folder of the best network so far."""

    @abstractmethod
    def load(self, folder: Path) -> Any:
        """The network that was saved."""

    @abstractmethod
    def write_card(self, folder: Path, title: str, origin: Origin) -> None:
        """Write the card of the finished model."""


def n_parameters(network: nn.Module) -> int:
    """How many numbers a network is made of."""
    return sum(parameter.numel() for parameter in network.parameters())


def student_windows(soft_labels: SoftLabels, encoder: StudentEncoder, accelerator: Accelerator) -> StoredWindows:
    """The student's windows of the text, encoded once per tokenizer and length limit."""
    path = windows_path(soft_labels, encoder)
    if accelerator.is_main_process and not is_whole(path):
        store_windows(path, soft_labels, encoder)
    accelerator.wait_for_everyone()
    return StoredWindows(path)


class Split(NamedTuple):
    """Numbers of the windows that are held out, to measure agreement, and of those that are trained on; rising."""

    held_out: NDArray[np.int64]
    trained: NDArray[np.int64]


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


def distillation_task(
    recipe: DistillRecipe,
    student: Student,
    windows: StoredWindows,
    split: Split,
    selection: Selection,
    folder: Path,
) -> Task[SoftBatch]:
    """What the loop needs to train a student on stored soft labels.

    Args:
        recipe: Of the run.
        student: Before its training.
        windows: Of its sentences.
        split: Which of them are trained on, and which are held out.
        selection: Which student is kept.
        folder: Where the student that shall be the result, so far, is kept.

    Raises:
        RecipeError: If denoising left no word to learn from.
    """
    objective, soft_labels = student.objective, student.soft_labels
    held_out = [windows[number] for number in split.held_out]

    def evaluate(network: Any) -> tuple[float, dict[str, Any]]:
        return selection.score(network, student.evaluator, held_out, soft_labels)

    trained = np.asarray(
        [number for number in split.trained if _is_trusted(windows[number], soft_labels)], dtype=np.int64
    )
    if len(split.trained) and not len(trained):
        raise RecipeError(f"denoising={recipe.denoising} leaves no word to learn from; loosen its steps")
    draw = PairDraw(recipe.pairs.per_sentence, recipe.pairs.balance) if objective.uses_similarity else None
    pairs = SoftPairs(windows, soft_labels, student.encoder.pad_id, draw, student.vectors)

    def load(plan: PairPlan) -> SoftBatch:
        return pairs.batch(PairPlan(trained[plan.first], trained[plan.second], plan.seed))

    return Task(
        lengths=windows.lengths[trained],
        load=load,
        terms=tuple(objective.terms),
        shares=tuple(objective.terms.values()),
        counts=objective.counts,
        loss_sums=objective.loss_sums,
        evaluate=evaluate,
        keep=lambda network: student.save(folder, network),
        score_name=selection.score_name,
        keep_best=recipe.selection != "last",
        copies=objective.copies,
    )


def _is_trusted(window: Window, soft_labels: SoftLabels) -> bool:
    """Whether any word of a window counts; without one it would be trained on for nothing."""
    return bool(soft_labels.weights(window.sentence)[window.word_numbers].any())
