"""Which student is kept: what is measured while it trains, and which of the measures decides."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from xlner.data.alignment import Window
from xlner.data.corpus_files import corpus_path
from xlner.data.soft_labels import SoftLabels
from xlner.errors import RecipeError
from xlner.evaluation import Report
from xlner.labels import LabelMap, LabelSet
from xlner.schema import DistillRecipe
from xlner.training.corpora import Corpus, check_types, read_labelled, rename_types

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
