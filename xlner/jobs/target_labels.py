"""A few labelled target sentences: read, checked, told, and parted into what is learnt and what chooses the student.

Whatever looks at target labels says so: on the terminal, in report.json and in the model's card.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from xlner.config.schema import CheckpointRecipe, DistillRecipe, OptimizationRecipe, TeacherRecipe
from xlner.corpora.lines import existing_text
from xlner.corpora.splits import Corpus, fingerprint, read_labelled, rename_types, repeated_sentences
from xlner.encode import load_tokenizer
from xlner.errors import CorpusError, LabelError
from xlner.files import RUNS, json_digest
from xlner.jobs.teacher import train_tagger
from xlner.models.card import UsedLabels
from xlner.models.folder import load_joint_model, read_settings, save_model
from xlner.models.settings import main_language
from xlner.models.token_classifier import load_classifier, output_layer, read_labels, tags_of_model
from xlner.soft_labels.label import Former, begins_with_compact, teacher_fingerprint
from xlner.soft_labels.store import locked
from xlner.tags import LabelMap
from xlner.train.run import read_report, report_beside
from xlner.words import Sentence

LOG = logging.getLogger("xlner")

# From so many labelled sentences on, `selection=auto` keeps some aside.
ENOUGH_TO_HOLD_OUT = 500
HELD_OUT = 0.1  # of them
# With fifty, students were below those without labels in 10 of 18 cases, with 200 in none of 6 (docs/results.md).
FEW = 100
# How a teacher learns from them: sentences that it sees in all, again and again, and how fast.
TUNING_VISITS, MOST_EPOCHS, TUNING_RATE = 2000, 40, 1e-4
# How far back it goes then: h / (h + n) of the way after n sentences, a fifth after fifty. What few sentences lack, a
# type in the worst case, it would forget; but a teacher that hardly knows the language has little to go back to.
HALFWAY_BACK = 12.5
# Of its recipe, what its weights do not depend on beyond what its folder is named by.
_NOT_THE_CONTENT = "encoder,hardware.precision,hardware.cpu,hardware.threads,hardware.loader_workers"


@dataclass(frozen=True)
class TargetLabels:
    """Labelled target sentences: those that are learnt, and those that choose the student; None for none.

    `fingerprint` is that of both together.
    """

    learnt: Corpus | None = None
    held_out: Corpus | None = None
    fingerprint: str = ""

    @property
    def n_learnt(self) -> int:
        """How many sentences are learnt."""
        return len(self.learnt.words) if self.learnt else 0

    @property
    def n_held_out(self) -> int:
        """How many sentences choose the student."""
        return len(self.held_out.words) if self.held_out else 0

    def __str__(self) -> str:
        kept = f", of which {self.n_held_out:,} are kept aside to choose the student by" if self.held_out else ""
        return f"target labels used: {self.n_learnt + self.n_held_out:,} sentences{kept}"


def read_target_labels(recipe: DistillRecipe, known: Sequence[str], label_map: LabelMap) -> TargetLabels:
    """The labelled target sentences that a recipe names.

    Args:
        recipe: Names the file or folder, which may be of another format than the text.
        known: The teachers' types.
        label_map: Of the recipe.

    Raises:
        CorpusError: If there is no such file, it cannot be read, has no labels, or too few to keep some aside.
        LabelError: If it has types that the teachers do not know, and that the text would teach to be `O`.
    """
    if not recipe.gold:
        return TargetLabels()
    gold = read_labelled(existing_text(recipe.gold), replace(recipe.corpus, format="auto", max_sentences=0))
    (gold,) = rename_types([gold], label_map, known)
    if (unknown := sorted({*gold.types} - {*known})) and not is_tuned(recipe):
        raise LabelError(
            f"{gold.path}: has entities of {', '.join(unknown)}, the teacher knows {', '.join(known)}; "
            f"{_way_out(recipe, unknown[0])}"
        )
    learnt_before = any(has_learnt(name, gold.fingerprint) for name in recipe.model_teachers)
    found = parted(gold, recipe.selection, learnt_before)
    LOG.info(f"{gold.path}: {found}")
    return found


def _way_out(recipe: DistillRecipe, unknown: str) -> str:
    """What to do about a type of the labels that no teacher knows, where none of them learns from these."""
    if recipe.mixing.rename:
        return f"name it as mixing.rename does, as in labels.map={unknown}=ITS_NAME, or drop it, as in {unknown}="
    if recipe.gold_tunes_teacher:  # and yet none is tuned
        return f"rename or drop types, as in labels.map={unknown}=, or name a teacher first that can learn from them"
    return f"rename or drop types, as in labels.map={unknown}=, or leave gold_tunes_teacher=true"


def parted(gold: Corpus, selection: str, learnt_before: bool) -> TargetLabels:
    """What is learnt, and what chooses the student: nothing, unless it is asked for, of what a teacher has learnt."""
    n_sentences = len(gold.words)
    keeps_some = n_sentences >= ENOUGH_TO_HOLD_OUT and not learnt_before if selection == "auto" else selection == "gold"
    if not keeps_some:
        return TargetLabels(gold, fingerprint=gold.fingerprint)
    order = np.random.default_rng(0).permutation(n_sentences)
    held_out = np.sort(order[: round(n_sentences * HELD_OUT)])
    dev = _some(gold, held_out.tolist(), "held out")
    learnt = _some(gold, np.setdiff1d(order, held_out).tolist(), gold.name)
    unlearnt = sorted({*dev.types} - {*learnt.types})
    if dev.types and not unlearnt:
        return TargetLabels(learnt, dev, gold.fingerprint)
    if selection == "auto":
        return TargetLabels(gold, fingerprint=gold.fingerprint)
    found = f"which alone have {', '.join(unlearnt)}" if unlearnt else "without an entity among them"
    raise CorpusError(
        f"{gold.path}: selection=gold keeps {len(held_out):,} of its {n_sentences:,} sentences aside, {found}; give "
        "more labelled sentences, or selection=last"
    )


def _some(corpus: Corpus, numbers: Sequence[int], name: str) -> Corpus:
    words, tags = [corpus.words[number] for number in numbers], [corpus.tags[number] for number in numbers]
    own = fingerprint(map(Sentence, words, tags))
    return replace(corpus, name=name, words=words, tags=tags, fingerprint=own, known_as="")


def doubts_of_scores(gold: TargetLabels, scored_on: Corpus) -> list[str]:
    """Labelled target sentences that stand in a corpus on which the student is scored, too."""
    used = [corpus for corpus in (gold.learnt, gold.held_out) if corpus is not None]
    return [f"{repeated}, so that the scores will be too good" for repeated in repeated_sentences(scored_on, used)]


def doubts_of_labels(gold: TargetLabels, lacking: Sequence[str]) -> list[str]:
    """What few labelled sentences may take away: they are few, or lack types, which a model forgets by them.

    Args:
        gold: Labelled target sentences.
        lacking: The types of the student that they lack.
    """
    found = []
    if gold.learnt and gold.n_learnt < FEW:
        found.append(
            f"{gold.learnt.path}: {gold.n_learnt:,} sentences are few: with fifty, more than half of the students that "
            "docs/results.md tells of were worse than without; label two hundred if you can"
        )
    if gold.learnt and lacking:
        found.append(
            f"{gold.learnt.path}: no entity of {', '.join(lacking)} in its {gold.n_learnt:,} sentences, so that the "
            "student may find fewer of them than without these labels. Label some sentences that have one, or drop "
            f"what you do not need, as in labels.map={lacking[0]}="
        )
    return found


def times_shown(n_text: int, n_gold: int, share: float) -> int:
    """How often each labelled target sentence stands in an epoch, at least once.

    Args:
        n_text: Sentences with soft labels.
        n_gold: Labelled ones, above 0.
        share: Of the labelled ones among all that are shown, below 1.
    """
    return max(1, round(share / (1.0 - share) * n_text / n_gold))


# The teacher that has read the labels. It is found again by what it was made of, as soft labels are.


def is_tuned(recipe: DistillRecipe) -> bool:
    """Whether the first teacher that is a model learns from the labels; a compact one cannot go on learning."""
    models = recipe.model_teachers
    return recipe.gold_tunes_teacher and bool(recipe.gold and models) and not begins_with_compact(models)


def with_tuned_teacher(
    recipe: DistillRecipe, gold: TargetLabels, lacking: Collection[str], accelerator: Accelerator
) -> tuple[DistillRecipe, Former | None]:
    """The recipe with the tuned teacher in the place of the first one that is a model; itself where none is tuned.

    Also what that teacher was before, if it knows any of the types that are `lacking` in the labels.
    """
    if not gold.learnt or not is_tuned(recipe):
        return recipe, None
    first = recipe.model_teachers[0]
    if has_learnt(first, gold.fingerprint):
        LOG.info(f"{first}: has learnt from these labels when it was trained, and stays as it is")
        return recipe, None
    tuned = tuned_teacher(recipe, gold, accelerator)
    named = [name for name in recipe.teachers if name not in recipe.pattern_files]
    forgotten = tuple(sorted({*lacking} & {*read_labels(first).types}))
    former = Former(tuned, first, forgotten) if forgotten else None
    return replace(recipe, teacher=",".join(tuned if name == first else name for name in named)), former


def has_learnt(teacher: str, fingerprint: str) -> bool:
    """Whether the report beside a model says that it was trained on these labels; once more would be too much."""
    report = report_beside(teacher)
    found: Any = report
    for name in ("corpora", "train", "fingerprint"):  # a report of something else may be anything
        found = found.get(name) if isinstance(found, dict) else None
    return bool(fingerprint) and fingerprint in (found, UsedLabels.of_report(report).fingerprint)


def used_labels(recipe: DistillRecipe, gold: TargetLabels, n_dev: int) -> UsedLabels:
    """All labels of the target language that a student owes something to.

    Args:
        recipe: As it was asked for; the reports beside its teachers tell what these have used.
        gold: Labelled target sentences.
        n_dev: Sentences of a dev set of the target that chose the student.
    """
    teachers = []
    for name in recipe.model_teachers:
        report = report_beside(name)
        language = report.get("language")  # of a teacher's labels
        own = isinstance(language, str) and main_language(language) == main_language(recipe.target)
        if own or (report.get("target") == recipe.target and UsedLabels.of_report(report)):
            teachers.append(teacher_name(name))
    return UsedLabels(gold.n_learnt, gold.n_held_out, n_dev, tuple(teachers), gold.fingerprint)


def teacher_name(teacher: str) -> str:
    """What the card of a student calls a teacher: the name of its run, rather than where it lies on this machine."""
    path = Path(teacher)
    return teacher if not path.exists() else path.parent.name if path.name == "model" else path.name


def tuned_teacher(recipe: DistillRecipe, gold: TargetLabels, accelerator: Accelerator) -> str:
    """The model folder of the first teacher once it has learnt from the labelled target sentences; trained now if new.

    It keeps all types that it knows, so that one which a few sentences lack is not lost, and its weights lie between
    those before and after (Wortsman et al., 2022, Robust fine-tuning of zero-shot models).

    Args:
        recipe: Of the student.
        gold: Labelled target sentences; those that are learnt are not none.
        accelerator: Of the run; every process calls it.
    """
    assert gold.learnt is not None
    teacher, n_sentences = recipe.model_teachers[0], gold.n_learnt
    optimization = OptimizationRecipe(
        epochs=min(MOST_EPOCHS, max(2, TUNING_VISITS // n_sentences)),
        learning_rate=TUNING_RATE,
        freeze=recipe.optimization.freeze,
        # What bounds the memory of the student bounds that of the teacher.
        batch_pieces=recipe.optimization.batch_pieces,
        gradient_checkpointing=recipe.optimization.gradient_checkpointing,
    )
    # Without sentences to choose by, those that are learnt stand in: the last epoch counts.
    corpora = gold.learnt, gold.held_out or replace(gold.learnt, name="dev")
    made_of: list[Any] = [
        teacher_fingerprint(teacher),
        *(corpus.fingerprint for corpus in corpora),
        asdict(optimization),
    ]
    made_of += [asdict(recipe.corpus), recipe.target, recipe.seed, accelerator.mixed_precision, HALFWAY_BACK]
    folder = RUNS / "tuned-teachers" / json_digest(made_of)[:12]
    run, model = folder / "run", folder / "model"
    own = TeacherRecipe(
        language=recipe.target,
        run=str(run),
        encoder=teacher,
        seed=recipe.seed,
        corpus=recipe.corpus,
        optimization=optimization,
        hardware=recipe.hardware,
        # The folder is that of the content: another path of the teacher, or other hardware, goes on all the same.
        checkpoint=CheckpointRecipe(steps=0, allow_changes=_NOT_THE_CONTENT),
    )
    with locked(folder, accelerator):
        found = read_report(run)
        accelerator.wait_for_everyone()  # nobody writes before all have looked
        if found is None:
            LOG.info(f"{teacher}: learns from {n_sentences:,} labelled target sentences first; into {run}")
            train_tagger(own, corpora, read_labels(teacher).types)
        else:
            LOG.info(f"{teacher}: has learnt from {n_sentences:,} labelled target sentences; as stored in {run}")
        if accelerator.is_main_process and not model.is_dir():
            part_of_the_way_back(run / "model", teacher, model, HALFWAY_BACK / (HALFWAY_BACK + n_sentences))
        accelerator.wait_for_everyone()
    return str(model)


def part_of_the_way_back(tuned: Path, teacher: str, folder: Path, share: float) -> None:
    """Write a model whose weights lie between those of a tuned teacher and those that it had before.

    Rows of the output are found by their tags. One that lacks some of the teacher's, whose tags were of another scheme,
    stays as it is, and so does the whole network, which would not fit to it.

    Args:
        tuned: Model folder.
        teacher: What it was before: a folder or hub name.
        folder: To write.
        share: Of the way back, from 0 to 1.
    """
    model, before = load_joint_model(str(tuned)), load_classifier(teacher)
    own, former = tags_of_model(model.recognizer.config), tags_of_model(before.config)
    weights, output = before.state_dict(), output_layer(before, len(former))[0]
    if set(former) <= set(own):
        with torch.no_grad():
            for name, values in model.recognizer.state_dict().items():
                if name.startswith(f"{output}."):
                    for row, tag in enumerate(former):
                        values[own.index(tag)].lerp_(weights[name][row], share)
                elif values.is_floating_point():
                    values.lerp_(weights[name], share)
    save_model(folder, model, load_tokenizer(str(tuned)), read_settings(str(tuned)))
