"""F1 of soft labels themselves, on dev sets, for any settings of pooling; no student is trained.

    python recipes/ablation/label_f1.py runs/teacher-en/model --data data/wikineural --languages pt it pl fr
    python recipes/ablation/label_f1.py A/model B/model --data DATA --try word=0.3,outline=0.3 --try strength=1

What a teacher says of the first sentences of `train` (without their labels) and of all of `dev` is pooled, as
`distill.py` would, and the labels of `dev` are then scored against its tags. The settings of pooling were chosen so.
The teacher's labels are stored under runs/soft-labels; a second call takes seconds.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from xlner.config.load import load_recipe
from xlner.config.schema import CorpusRecipe, DistillRecipe, PoolingRecipe
from xlner.corpora.lines import corpus_path
from xlner.corpora.splits import read_labelled
from xlner.errors import XlnerError
from xlner.evaluate import score_tags
from xlner.models.folder import read_settings
from xlner.predict import decide_tags
from xlner.soft_labels.label import soft_labels_of
from xlner.soft_labels.pooling import Outside, Probs, mean_sureness, pooled_probs, weights_for
from xlner.soft_labels.store import SoftLabels
from xlner.tags import OUTSIDE, LabelSet
from xlner.train.run import autocast_dtype, effective_precision

# The default, and what it was before; each row is a setting of `pooling.KEY=...`, a name that no key has is a name.
TRIED = (
    "",
    "word=0.3,left=0.15,right=0.15,outline=0.3,strength=1",
    "strength=1",
    "strength=1.2",
    "strength=1.4",
    "outside=0",
    "word=0",
    "left=0,right=0",
    "outline=0",
)


@dataclass(frozen=True)
class Labelled:
    """What a teacher said of a language: its soft labels of `train` and of `dev`, and the tags of `dev`."""

    teacher: str
    language: str
    train: SoftLabels
    dev: SoftLabels
    tags: Sequence[Sequence[str]]

    def sentences(self) -> Iterator[tuple[Sequence[str], Probs]]:
        """Words and probabilities of all sentences, those of `dev` last."""
        for part in (self.train, self.dev):
            for number in range(len(part)):
                yield part.words(number), part.probs(number).astype(np.float64)

    def f1(self, probs: Sequence[Probs]) -> float:
        """Entity F1 of labels of all sentences on those of `dev`, in percent."""
        labels = LabelSet(self.dev.card.tags)
        predicted = [decide_tags(rows.astype(np.float32), labels) for rows in probs[len(self.train) :]]
        return score_tags(self.tags, predicted).overall.f1

    @property
    def sureness(self) -> float:
        """See `xlner.soft_labels.pooling`."""
        outside = self.dev.card.tags.index(OUTSIDE)
        return mean_sureness((probs for _, probs in self.sentences()), outside)

    def pooled(self, recipe: PoolingRecipe) -> list[Probs]:
        """The labels of all sentences after pooling."""
        tag_id, share = self.dev.card.tags.index(OUTSIDE), read_settings(self.teacher).outside_share
        weights = weights_for(recipe, (probs for _, probs in self.sentences()), tag_id)
        outside = Outside(tag_id, share, recipe.outside)
        return list(pooled_probs(self.sentences, weights, outside, temperature=recipe.temperature))


def main() -> int:
    """Label what is not labelled yet, and print a row for each setting; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("teachers", nargs="+", help="model folders; the table has the mean over them")
    parser.add_argument("--data", required=True, help="folder with LANGUAGE/{train,dev}.conll")
    parser.add_argument("--languages", nargs="+", default=["pt", "it", "pl", "fr"], help="folders of the data")
    parser.add_argument("--sentences", type=int, default=3000, help="of train, pooled with those of dev; 0: all")
    parser.add_argument("--try", nargs="+", action="extend", dest="tried", help="settings: KEY=VALUE,... of pooling")
    arguments = parser.parse_args()
    try:
        recipes = {row: pooling_recipe(row) for row in arguments.tried or TRIED}
        found = [
            labelled(teacher, arguments.data, language, arguments.sentences)
            for teacher in arguments.teachers
            for language in arguments.languages
        ]
    except XlnerError as problem:
        print(problem, file=sys.stderr)
        return 2
    rows = {"the teacher alone": [one.f1([probs for _, probs in one.sentences()]) for one in found]}
    rows |= {row or "the default": [one.f1(one.pooled(recipe)) for one in found] for row, recipe in recipes.items()}
    print(table(rows, found, arguments.languages))
    return 0


def pooling_recipe(row: str) -> PoolingRecipe:
    """The section that `KEY=VALUE,...` makes of the defaults.

    Raises:
        RecipeError: For an unknown key, or a value that does not fit.
    """
    recipe = load_recipe("distill", ["target=en", *(f"pooling.{setting}" for setting in row.split(",") if setting)])
    assert isinstance(recipe, DistillRecipe)
    return recipe.pooling


def labelled(teacher: str, data: str, language: str, n_sentences: int) -> Labelled:
    """The soft labels of a teacher on a language, stored or made now."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if effective_precision("auto", True) == "bf16" else "no")

    def store(path: Path, limit: int) -> SoftLabels:
        return soft_labels_of(
            teacher,
            path,
            corpus=CorpusRecipe(max_sentences=limit),
            store=None,
            root=Path("runs/soft-labels"),
            accelerator=accelerator,
            autocast_dtype=autocast_dtype(accelerator.mixed_precision),
        )

    dev = corpus_path(data, language, "dev")
    tags = read_labelled(dev, CorpusRecipe()).tags
    return Labelled(teacher, language, store(corpus_path(data, language, "train"), n_sentences), store(dev, 0), tags)


def table(rows: dict[str, list[float]], found: Sequence[Labelled], languages: Sequence[str]) -> str:
    """Markdown: a line per setting, the mean over teachers per language, and over all."""
    sure = [float(np.mean([one.sureness for one in found if one.language == language])) for language in languages]
    lines = [
        "| F1 of labels, dev | " + " | ".join([*languages, "mean"]) + " |",
        "|---" * (len(languages) + 2) + "|",
        "| how sure the teacher is | " + " | ".join(f"{value:.3f}" for value in [*sure, float(np.mean(sure))]) + " |",
    ]
    for name, scores in rows.items():
        own = [
            float(np.mean([score for score, one in zip(scores, found, strict=True) if one.language == language]))
            for language in languages
        ]
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in [*own, float(np.mean(own))]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
