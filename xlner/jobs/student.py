"""A student of any kind: what the job asks of it, the text it is trained on, and which one of a run is kept."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from torch import nn

from xlner.arrow_files import is_whole
from xlner.config.schema import DistillRecipe
from xlner.corpora.lines import corpus_path
from xlner.corpora.splits import Corpus, check_types, read_labelled, rename_types
from xlner.errors import RecipeError
from xlner.jobs.doubts import tell_doubts
from xlner.jobs.inputs import StudentInputs, labelled_corpora, source_corpus
from xlner.jobs.target_labels import doubts_of_scores
from xlner.models.card import Origin
from xlner.soft_labels.store import SoftLabels, StoredWindows, StudentEncoder, store_windows, windows_path
from xlner.train.loop import Validation
from xlner.train.objectives import Objective, SoftText
from xlner.train.report import Evaluator


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


# Its text.


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
    """How a student is scored while it trains: by which measures, and the corpora of those that need one.

    `doubts` tell why these scores may be too good.
    """

    name: str
    corpora: dict[str, Corpus]
    doubts: Sequence[str]

    @property
    def n_target(self) -> int:
        """Sentences of a dev set of the target language that choose the student."""
        return len(self.corpora["target"].words) if "target" in self.corpora else 0

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


def dev_sets(recipe: DistillRecipe) -> dict[str, Path]:
    """The dev sets that the selection of a recipe looks at, by measure; asked before a teacher labels a text, too.

    Raises:
        RecipeError: If the teacher does not say its language.
        CorpusError: If there is no such dev set.
    """
    found = {}
    for measure in SELECTIONS.get(recipe.selection, ()):
        if measure in ("source", "target"):
            found[measure] = (
                source_corpus(recipe, "dev", f"selection={recipe.selection}")
                if measure == "source"
                else corpus_path(recipe.data, recipe.target, "dev")
            )
    return found


def make_selection(recipe: DistillRecipe, inputs: StudentInputs) -> Selection:
    """Read what the selection of a recipe looks at; errors as for `dev_sets`.

    Args:
        recipe: Names the selection and the folder of the corpora.
        inputs: What the student learns from.
    """
    held_out = inputs.gold.held_out
    name = recipe.selection
    if name == "auto":
        name = "gold" if held_out else "last"
    corpora = {"gold": held_out} if held_out else {}
    for measure, path in dev_sets(recipe).items():
        dev = read_labelled(path, labelled_corpora(recipe))
        (corpora[measure],) = rename_types([dev], inputs.label_map, inputs.labels.types)
        check_types(inputs.labels, [corpora[measure]])
    doubts = doubts_of_scores(inputs.gold, corpora["target"]) if "target" in corpora else []
    tell_doubts(doubts)
    return Selection(name, corpora, doubts)


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
