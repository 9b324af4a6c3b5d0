"""What tells that a run learnt nothing, or cannot learn anything: a line each, on the terminal and in report.json.

Nothing here ends a run. A line says what was found, and what to change.
"""

import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from xlner.config.schema import DistillRecipe
from xlner.corpora.splits import sentence_stream
from xlner.errors import XlnerError
from xlner.models.settings import main_language
from xlner.predict import decide_tags
from xlner.soft_labels.store import SoftLabels
from xlner.tags import LabelSet, spans_of
from xlner.train.report import Scores
from xlner.train.run import report_beside

LOG = logging.getLogger("xlner")

# Percent F1 below which a model counts as one that finds nothing: one that learns at all is far above in a minute.
LEAST_F1 = 5.0
# Entities in a thousand words of a text below which it counts as one without; in news and wikis there are 50 to 100.
LEAST_ENTITIES = 1.0
# Sentences, spread over a text, that are looked at.
SAMPLE = 1000
LEAST_SENTENCES = 100
# Sentences of a target text that are looked up in the text of its teacher.
FIRST = 10_000
# Share of a target text that may stand in the text of the teacher as well: names of sections, dates, "Yes .".
MOST_REPEATED = 0.1
# What docs/results.md is measured with: optimizer steps, sentences.
QUOTED_TEACHER, QUOTED_STUDENT = (652, 10_431), (180, 3_000)


def doubt_of_scores(scores: Scores, corpus: Path, amount: str) -> str:
    """What is wrong with a model by its scores on a labelled corpus; empty if nothing is.

    Args:
        scores: As `Report.to_json`; empty in all processes but the main one.
        corpus: What they are of.
        amount: From `trained_on`.
    """
    if not scores or scores["overall"]["f1"] >= LEAST_F1:
        return ""
    n_right = round(scores["overall"]["recall"] * scores["overall"]["support"] / 100)
    # It comes into the card, which goes to others: without the folders of this machine.
    name = f"{corpus.parent.name}/{corpus.name}"
    found = f"finds {n_right:,} of {scores['overall']['support']:,} entities of {name}"
    return f"the model {found} (F1 {scores['overall']['f1']:.2f}): it has learnt (almost) nothing. {amount}"


def doubt_of_agreement(agreement: float, held_out: Sequence[int], soft_labels: SoftLabels, amount: str) -> str:
    """What is wrong with a student by its agreement with its teacher, where there is nothing better; or empty.

    Args:
        agreement: Entity F1 in percent.
        held_out: The sentences that it was measured on.
        soft_labels: Of the teacher; where it finds nothing itself, the student is not to blame.
        amount: From `trained_on`.
    """
    if agreement >= LEAST_F1:
        return ""
    n_entities, _ = _entities_in(soft_labels, held_out)
    if not n_entities:
        return ""
    return (
        f"the student finds (almost) none of the {n_entities:,} entities that its teacher finds in the held-out text "
        f"(agreement F1 {agreement:.2f}): it has learnt (almost) nothing. {amount}"
    )


def trained_on(n_steps: int, n_sentences: int, quoted: tuple[int, int], *, has_encoder: bool) -> str:
    """How much a model was trained, how much the published figures took, and what to change.

    Args:
        n_steps: Optimizer steps.
        n_sentences: Of the training text.
        quoted: `QUOTED_TEACHER` or `QUOTED_STUDENT`.
        has_encoder: Whether it begins with an encoder, which may be the wrong one.
    """
    ways = ["more text" if n_sentences < quoted[1] else "", "more optimization.epochs", "another learning rate"]
    ways += ["an encoder that knows the language"] if has_encoder else []
    return (
        f"It had {n_steps:,} steps on {n_sentences:,} sentences; the figures of docs/results.md took about "
        f"{quoted[0]:,} on {quoted[1]:,}. Try {', '.join(filter(None, ways[:-1]))} or {ways[-1]}"
    )


def doubts_before_training(recipe: DistillRecipe, text: Path, soft_labels: SoftLabels) -> list[str]:
    """Why a student may have nothing to learn from: its teachers, or the text.

    Args:
        recipe: Names the teachers.
        text: Target corpus.
        soft_labels: What all teachers together say of it.
    """
    found = []
    for teacher in recipe.model_teachers:
        found += [*_doubt_of_teacher(teacher), *_doubt_of_language(recipe, text, teacher)]
    n_sentences = len(soft_labels)
    sampled = np.unique(np.linspace(0, n_sentences - 1, min(n_sentences, SAMPLE)).astype(np.int64)).tolist()
    n_entities, n_words = _entities_in(soft_labels, sampled)
    if n_entities * 1000 < n_words * LEAST_ENTITIES:
        found.append(
            f"the teacher finds {n_entities:,} entities in {n_words:,} words of {text}: a student can learn (almost) "
            "nothing from it. Give a teacher that has learnt the types, by an encoder that knows this language, or "
            "text with names in it"
        )
    if n_sentences < LEAST_SENTENCES:
        found.append(
            f"{text} has {n_sentences:,} sentences, hardly enough to learn from; the figures of docs/results.md took "
            f"{QUOTED_STUDENT[1]:,}"
        )
    return found


def _entities_in(soft_labels: SoftLabels, sentences: Sequence[int]) -> tuple[int, int]:
    """How many entities a teacher finds in some sentences, and how many words these have."""
    labels, n_entities, n_words = LabelSet(soft_labels.card.tags), 0, 0
    for number in sentences:
        probs = soft_labels.probs(number).astype(np.float32)
        n_entities, n_words = n_entities + len(spans_of(decide_tags(probs, labels))), n_words + len(probs)
    return n_entities, n_words


def _doubt_of_teacher(teacher: str) -> list[str]:
    try:
        score = float(report_beside(teacher)["scores"]["dev"]["overall"]["f1"])
    except (KeyError, TypeError, ValueError):
        return []
    if score >= LEAST_F1:
        return []
    return [f"{teacher} has a dev F1 of {score:.2f} in its own language: no good student can come of it; train it anew"]


def _doubt_of_language(recipe: DistillRecipe, text: Path, teacher: str) -> list[str]:
    """Sentences of the target text that the teacher's labelled text has, too, if that is still where it was."""
    try:
        labelled = Path(report_beside(teacher)["corpora"]["train"]["path"])
        known = {sentence.words for sentence in sentence_stream(labelled, recipe.corpus)} if labelled.is_file() else ()
    except (KeyError, TypeError, XlnerError):
        return []
    if not known:
        return []
    read = [sentence.words in known for sentence in islice(sentence_stream(text, recipe.corpus), FIRST)]
    if sum(read) <= MOST_REPEATED * len(read):
        return []
    is_own = main_language(str(report_beside(teacher).get("language"))) == main_language(recipe.target)
    what = (
        "of these it says little but their labels; give text that it has not seen"
        if is_own
        else f"is this text in the target language, {recipe.target}?"
    )
    return [
        f"{text}: {sum(read):,} of the first {len(read):,} sentences stand in {labelled}, too, the labelled text of "
        f"the teacher {teacher}; {what}"
    ]


def tell_doubts(doubts: Iterable[str]) -> None:
    """Print what speaks against a run or its result, a line each."""
    for doubt in doubts:
        LOG.warning(f"warning: {doubt}")
