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
from torch import nn

from xlner.arrow_files import is_whole
from xlner.config.schema import CorpusRecipe, DistillRecipe
from xlner.corpora.lines import corpus_path, find_corpus, text_path
from xlner.corpora.splits import Corpus, check_types, name_text, read_labelled, rename_types
from xlner.errors import RecipeError
from xlner.jobs.doubts import (
    QUOTED_STUDENT,
    doubt_of_agreement,
    doubt_of_scores,
    doubts_before_training,
    doubts_of_labels,
    tell_doubts,
    trained_on,
)
from xlner.jobs.target_labels import TargetLabels, read_target_labels, times_shown, with_tuned_teacher
from xlner.models.card import Origin
from xlner.models.folder import read_settings
from xlner.soft_labels.label import DenoisingContext, Teachers
from xlner.soft_labels.labelled import with_gold, with_source
from xlner.soft_labels.mix import Taught, joint_types, taught_soft_labels
from xlner.soft_labels.pooling import LabelChanges
from xlner.soft_labels.steps import changes_of, denoised_soft_labels, denoising_steps
from xlner.soft_labels.store import SoftLabels, StoredWindows, StudentEncoder, store_windows, windows_path
from xlner.tags import LabelMap, LabelSet, TagReading
from xlner.train.checkpoint import Progress
from xlner.train.loop import Validation
from xlner.train.objectives import Objective, SoftText
from xlner.train.report import Evaluator, Scores
from xlner.train.run import autocast_dtype

LOG = logging.getLogger("xlner")

# Which student is kept: what is measured while it trains, and which of the measures decides.


# The measures whose mean decides, in percent F1; only the last two look at labels of the target language.
SELECTIONS: dict[str, tuple[str, ...]] = {
    "last": ("agreement",),  # told, but the student of the last step is kept
    "agreement": ("agreement",),
    "source": ("source",),
    "score": ("agreement", "source"),
    "gold": ("gold",),
    "target": ("target",),
}


class Selection(NamedTuple):
    """How a student is scored while it trains: corpora by measure, and the text that was held out."""

    name: str
    corpora: dict[str, Corpus]

    def score(
        self, model: Any, evaluator: Evaluator, held_out: Sequence[int], soft_labels: SoftLabels
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


def make_selection(
    recipe: DistillRecipe, source: str, labels: LabelSet, label_map: LabelMap, gold: TargetLabels
) -> Selection:
    """Read what the selection of a recipe looks at.

    Args:
        recipe: Names the selection and the folder of the corpora.
        source: Language of the teacher.
        labels: Of the student.
        label_map: Of the recipe.
        gold: Labelled target sentences.

    Raises:
        RecipeError: If the teacher does not say its language.
        CorpusError: If there is no dev set where one is needed.
    """
    name = recipe.selection
    if name == "auto":
        name = "gold" if gold.held_out else "last"
    corpora = {"gold": gold.held_out} if gold.held_out else {}
    for measure in SELECTIONS[name]:
        if measure in ("agreement", "gold"):
            continue
        language = {"source": source, "target": recipe.target}[measure]
        if not language:
            raise RecipeError(
                f"selection={recipe.selection} needs the dev set of the teacher's language, and {recipe.teacher} does "
                "not say which that is; give source.language"
            )
        dev = read_labelled(corpus_path(recipe.data, language, "dev"), labelled_corpora(recipe))
        (corpora[measure],) = rename_types([dev], label_map, labels.types)
        check_types(labels, [corpora[measure]])
    return Selection(name, corpora)


# What a student of any kind learns from, and what its report says of that: teachers, soft labels, a test set.


@dataclass(frozen=True)
class StudentInputs:
    """What a student learns from.

    `recipe` names the teachers that have labelled the text, of which the first may have learnt from target labels
    before. `text` is the target text, whose first `n_target` rows of `soft_labels` are its own; what follows is
    labelled source text, then the labelled target sentences of `gold`, which are shown `gold_times` an epoch.
    `words` are the soft labels whose words a student's windows are made of: the same sentences before anything was
    derived from them, so that windows are stored once. `test` is None where there is no labelled test set.
    `changes` tell how sure the teachers were and what denoising changed, `doubts` why little may come of it.
    """

    recipe: DistillRecipe
    text: Path
    taught: Taught
    labels: LabelSet
    label_map: LabelMap
    selection: Selection
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
    """The source language: as the recipe says, or that of the first teacher that is a model; empty if not known.

    Raises:
        RecipeError: If it is the target language, whose labels count as not there.
    """
    found = recipe.source.language
    if found == "auto":
        found = next((read_settings(name).language for name in recipe.model_teachers), "")
    if found == recipe.target and recipe.source.language != "auto":
        raise RecipeError(f"source.language={found} is the target language, whose labels are not to be looked at")
    return "" if found == recipe.target else found


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
    gold = read_target_labels(recipe, known, label_map, test)
    wanted = {label_map.for_predictions().type_of(name) for name in known} - {""}
    doubts = doubts_of_labels(gold.learnt, wanted) if gold.learnt else []
    tell_doubts(doubts)  # before a teacher learns from them
    teaching = with_tuned_teacher(recipe, gold, accelerator)
    taught = taught_soft_labels(teachers_of(teaching), text, accelerator, number_format)
    labels = LabelSet(taught.soft_labels.card.tags)
    found = doubts_before_training(recipe, text, taught.soft_labels)
    tell_doubts(found)
    if test is not None:
        (test,) = rename_types([test], label_map, labels.types)
        check_types(labels, [test])
    selection = make_selection(recipe, source_language(recipe), labels, label_map, gold)
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
        if uses_similarity:
            raise RecipeError(
                f"gold={recipe.gold}: labelled sentences of no teacher have no similarities, which variant="
                f"{recipe.variant} learns; leave gold out, or take variant=pooled or tsl"
            )
        times = times_shown(len(soft_labels), gold.n_learnt, recipe.gold_share)
        soft_labels = words = with_gold(soft_labels, gold.learnt, accelerator)
    return StudentInputs(
        recipe=teaching,
        text=text,
        taught=taught,
        labels=labels,
        label_map=label_map,
        selection=selection,
        soft_labels=soft_labels,
        words=words,
        n_target=n_target,
        test=test,
        changes=changes,
        doubts=doubts,
        gold=gold,
        gold_times=times,
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
        "selection": inputs.selection.name,
        "target_labels": inputs.gold.to_json(),
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


def teacher_scores(
    recipe: DistillRecipe, inputs: StudentInputs, evaluator: Evaluator, test: Corpus
) -> dict[str, Scores]:
    """The scores of the models that teach: `teacher`, `teacher 2` and so on; empty if one knows no type of the test.

    A first one that learnt from target labels is `tuned teacher`, behind what it was before.
    """
    rename, of_predictions = LabelMap.parse(recipe.mixing.rename), LabelMap.parse(recipe.labels.map).for_predictions()
    mark = evaluator.mark(test, rename)
    scores: dict[str, Scores] = {}
    first, tuned = (found.model_teachers[:1] for found in (recipe, inputs.recipe))
    if first != tuned:
        cache = Path(tuned[0]).parent / f"scores-{mark}.json"
        scores["teacher"] = evaluator.of_folder(first[0], test, cache=cache)
    for number, (teacher, own) in enumerate(inputs.taught.by_model.items(), 1):
        name = "tuned teacher" if (teacher,) == tuned != first else "teacher" if number == 1 else f"teacher {number}"
        types = {of_predictions.type_of(kind) for kind in TagReading.of(own.card.tags, rename).labels.types}
        # The teacher's scores are the same for every student of these soft labels.
        cache = own.folder / f"scores-{mark}.json"
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
    labelled = read_labelled(
        corpus_path(recipe.data, source, "train"), replace(labelled_corpora(recipe), max_sentences=0)
    )
    (renamed,) = rename_types([labelled], label_map, LabelSet(soft_labels.card.tags).types)
    taught = None
    if uses_similarity and soft_labels.card.projection_size:
        if len(recipe.teachers) > 1:
            raise RecipeError("source.share beside the similarity task needs a single teacher; set source.share=0")
        own = replace(teachers_of(recipe), corpus=everything, store=None)
        taught = taught_soft_labels(own, labelled.path, accelerator, number_format).soft_labels
    return with_source(soft_labels, renamed, recipe.source.share, taught, accelerator)


# A student of any kind: what the job asks of it, its windows, and how good it is.


class Student(ABC):
    """A student of one kind, from before its training to its finished folder: all that the job knows of it.

    Attributes:
        network: What is scored and kept.
        encoder: Makes its windows.
        evaluator: Scores it.
        soft_labels: What it learns from.
        words: The sentences that its windows are made of, as in `StudentInputs`.
        depends_on: Fingerprints, by name, of what a checkpoint of it depends on beside teacher, text and labels.
    """

    network: Any
    encoder: Any
    evaluator: Evaluator
    soft_labels: SoftLabels
    words: SoftLabels
    depends_on: Mapping[str, str] = MappingProxyType({})

    @staticmethod
    @abstractmethod
    def check(recipe: DistillRecipe) -> bool:
        """Refuse what cannot become a student of this kind, before a teacher labels a whole text.

        Returns:
            Whether its loss looks at word pairs.

        Raises:
            XlnerError: If the recipe cannot be followed.
        """

    @property
    def n_parameters(self) -> int:
        """What the report says of its size."""
        return n_parameters(self.network)

    @abstractmethod
    def objective(self, text: SoftText) -> Objective[Any]:
        """What it is trained on."""

    def for_training(self) -> nn.Module:
        """The network that the loop trains; it holds `network` as its `student`, or is it."""
        found: nn.Module = self.network
        return found

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
    """How many numbers a network is made of, without adapters, which its folder does not have."""
    return sum(parameter.numel() for name, parameter in network.named_parameters() if ".lora_" not in name)


class StudentScore(Validation):
    """How good a student is by the measures of the recipe's selection."""

    def __init__(self, student: Student, selection: Selection, held_out: Sequence[int], folder: Path) -> None:
        """Take what the score looks at.

        Args:
            student: Before its training.
            selection: Which student is kept.
            held_out: Numbers of the sentences that are kept out of training.
            folder: Where the student that shall be the result, so far, is kept.
        """
        self._student, self._selection, self._held_out, self._folder = student, selection, held_out, folder
        self.score_name, self.keeps_best = selection.score_name, selection.name != "last"

    def score(self, network: Any) -> tuple[float, dict[str, Any]]:
        """See `Validation.score`."""
        student = self._student
        return self._selection.score(
            getattr(network, "student", network), student.evaluator, self._held_out, student.soft_labels
        )

    def keep(self, network: Any) -> None:
        """See `Validation.keep`."""
        self._student.save(self._folder, getattr(network, "student", network))


def student_windows(soft_labels: SoftLabels, encoder: StudentEncoder, accelerator: Accelerator) -> StoredWindows:
    """The student's windows of the text, encoded once per tokenizer and length limit."""
    path = windows_path(soft_labels, encoder)
    if accelerator.is_main_process and not is_whole(path):
        store_windows(path, soft_labels, encoder)
    accelerator.wait_for_everyone()
    return StoredWindows(path)


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


def training_text(
    student: Student,
    windows: StoredWindows,
    held_out: frozenset[int],
    denoising: str,
    *,
    repeated: range = range(0),
    times: int = 1,
) -> SoftText:
    """The windows that a student is trained on: of sentences that are not held out, with a word that counts.

    Args:
        student: Whose windows and soft labels they are.
        windows: Of all sentences.
        held_out: Sentences that are not trained on.
        denoising: What the recipe says, for the message.
        repeated: Sentences whose windows stand there several times.
        times: How often.

    Raises:
        RecipeError: If denoising left no word to learn from.
    """
    soft_labels, trained, n_left_out = student.soft_labels, [], 0
    for number, window in enumerate(windows):
        if window.sentence in held_out:
            continue
        if soft_labels.weights(window.sentence)[window.word_numbers].any():
            trained += [number] * (times if window.sentence in repeated else 1)
        else:
            n_left_out += 1
    if n_left_out and not trained:
        raise RecipeError(f"denoising={denoising} leaves no word to learn from; loosen its steps")
    return SoftText(windows, np.asarray(trained, dtype=np.int64), soft_labels, student.encoder.pad_id)
