"""Scores during and after training, the report that ends a run, and what tells that it learnt nothing."""

import hashlib
import json
import logging
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate import Accelerator

from xlner.config.schema import DistillRecipe
from xlner.corpora.splits import Corpus, sentence_stream
from xlner.corpora.write import write_lines
from xlner.decoding import DECODING
from xlner.encode import Window
from xlner.errors import XlnerError
from xlner.evaluate import EntityCounts, Report, evaluate_tags
from xlner.files import read_json, write_json
from xlner.models.card import Measured, Origin
from xlner.models.folder import load_joint_model, read_settings, write_card
from xlner.models.token_classifier import tags_of_model
from xlner.network_outputs import number_format, predict_sentences, sentence_probs, word_encoder, word_outputs
from xlner.predict import Encoder, decide_tags
from xlner.soft_labels.store import SoftLabels
from xlner.tags import LabelMap, LabelSet, TagReading, is_iob, spans_of
from xlner.train.accelerator import autocast_dtype
from xlner.train.checkpoint import Progress
from xlner.train.run import RunFolder, summed

LOG = logging.getLogger("xlner")

# Scores during and after training, and the report that ends a run.


Scores = dict[str, Any]


class Evaluator:
    """Scores models on corpora, the processes sharing the work."""

    def __init__(
        self, accelerator: Accelerator, encoder: Encoder, labels: LabelSet, label_map: LabelMap | None = None
    ) -> None:
        self._accelerator, self._encoder, self._labels = accelerator, encoder, labels
        self._label_map = label_map
        self._autocast = autocast_dtype(accelerator.mixed_precision)

    def predict(self, model: Any, sentences: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
        """The tags of sentences of words, by a network of this kind."""
        device = self._accelerator.device
        return predict_sentences(
            model, self._encoder, self._labels, sentences, device=device, autocast_dtype=self._autocast
        )

    def quick_report(self, model: Any, corpus: Corpus) -> Report:
        """Scores during training, each process on its share of the sentences."""
        rank, n = self._accelerator.process_index, self._accelerator.num_processes
        words, gold = corpus.words[rank::n], corpus.tags[rank::n]
        types = corpus.types + self._labels.types

        def count() -> EntityCounts:
            predicted = self.predict(model, words)
            if self._label_map:
                predicted = [self._label_map.apply(row) for row in predicted]
            return EntityCounts.of(types, gold, predicted)

        return counted_report(self._accelerator, types, count)

    def agreement(self, model: Any, windows: Sequence[Window], soft_labels: SoftLabels) -> float:
        """Entity F1 in percent of a student against its teacher's most likely tags."""
        rank, n = self._accelerator.process_index, self._accelerator.num_processes
        mine = windows[rank::n]

        def count() -> EntityCounts:
            gold, predicted = [], []
            for number, output in word_outputs(
                model, mine, self._encoder.pad_id, device=self._accelerator.device, autocast_dtype=self._autocast
            ):
                teacher = soft_labels.probs(mine[number].sentence)[mine[number].word_numbers]
                gold.append(decide_tags(teacher.astype(np.float32), self._labels))
                predicted.append(decide_tags(output.probs, self._labels))
            return EntityCounts.of(self._labels.types, gold, predicted)

        return counted_report(self._accelerator, self._labels.types, count).overall.f1

    def mark(self, corpus: Corpus, rename: LabelMap) -> str:
        """Tells scores on one corpus, in one number format, under one decoding, label map and renaming, from others."""
        maps = str(self._label_map or "") + (f">{rename}" if rename else "")
        map_mark = f"-{hashlib.sha256(maps.encode()).hexdigest()[:8]}" if maps else ""
        return f"{corpus.fingerprint}{map_mark}-{number_format(self._autocast)}-{DECODING}"

    def of_folder(
        self,
        folder: str,
        corpus: Corpus,
        *,
        cache: Path | None = None,
        predictions: Path | None = None,
        rename: LabelMap | None = None,
    ) -> Scores:
        """The quoted scores of a saved model, by seqeval, in the run's number format; the main process alone works.

        Args:
            folder: Model folder.
            corpus: What it is scored on.
            cache: File that holds the scores, or will hold them, for the runs to come.
            predictions: File that gets word, tag of the corpus and predicted tag, as conlleval wants them.
            rename: Of the model's types, before they meet the corpus.

        Returns:
            As `Report.to_json`; empty in all processes but the main one.
        """
        if not self._accelerator.is_main_process:
            return {}
        if cache is not None and cache.is_file():
            try:
                return read_json(cache)
            except (OSError, ValueError) as problem:
                LOG.warning(f"{problem}; scored again")
        model = load_joint_model(folder).to(self._accelerator.device).eval()
        encoder = word_encoder(folder, model.recognizer, read_settings(folder).max_length)
        tags = tags_of_model(model.recognizer.config)
        reading = None if is_iob(tags) and not rename else TagReading.of(tags, rename or LabelMap({}))
        labels = LabelSet(tags) if reading is None else reading.labels
        probs = sentence_probs(
            model, encoder, corpus.words, device=self._accelerator.device, autocast_dtype=self._autocast
        )
        predicted = [
            decide_tags(rows if reading is None else reading.iob2(rows).astype(np.float32), labels) for rows in probs
        ]
        scores = self._scored(labels.types, corpus, predicted, predictions)
        if cache is not None:
            write_json(cache, scores)
        return scores

    def of_student(self, folder: Path, corpus: Corpus, predictions: Path) -> Scores:
        """The quoted scores of a finished student of this kind, and its predictions in a file; as `of_folder`."""
        return self.of_folder(str(folder), corpus, predictions=predictions)

    def _scored(
        self, types: Sequence[str], corpus: Corpus, predicted: Sequence[Sequence[str]], predictions: Path | None
    ) -> Scores:
        found = evaluate_tags(types, corpus.tags, predicted, self._label_map)
        for note in found.report.notes():
            LOG.info(f"{corpus.path}: {note}")
        if predictions is not None:
            write_predictions(predictions, corpus.words, found.gold, found.predicted)
        return found.report.to_json()


def counted_report(accelerator: Accelerator, types: Sequence[str], count: Callable[[], EntityCounts]) -> Report:
    """The scores of what all processes count; every process calls it.

    Args:
        accelerator: Of all processes.
        types: Those that `count` is about.
        count: What this process finds in its share; a request to stop may interrupt it.

    Raises:
        Interrupted: In all processes, if any of them was.
    """
    none = EntityCounts.of(types, (), ())
    total = summed(accelerator, len(none.to_list()), lambda: torch.tensor(count().to_list()))
    return EntityCounts.from_list(none.types, [round(number) for number in total.tolist()]).report()


def write_predictions(
    path: Path, words: Iterable[Sequence[str]], gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]
) -> None:
    """Write a line per word with its tag in the corpus and the predicted one, separated by TABs."""
    blocks = (
        "".join([f"{word}\t{tag}\t{guess}\n" for word, tag, guess in zip(*rows, strict=True)]) + "\n"
        for rows in zip(words, gold, predicted, strict=True)
    )
    write_lines(blocks, path)


def peak_memory_mib(device: torch.device) -> int:
    """The most memory that this process had so far, on the GPU where it trains on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset) >> 20
    import resource

    # In bytes on macOS, in KiB elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


def score_table(scores: Mapping[str, Scores]) -> str:
    """F1 of several scores side by side, by type; of two on one corpus, also how much the second is above the first."""
    names = [name for name, found in scores.items() if found]
    if not names:
        return "no labelled test set, so there are no scores"
    types = sorted({name for column in names for name in scores[column]["types"]})
    compared = len({scores[name]["overall"]["support"] for name in names}) == 1 < len(names)
    lines = ["F1    " + "".join(f"{name:>10}" for name in names) + ("  difference" if compared else "") + "  entities"]
    for kind in (*types, "all"):
        rows = [scores[name]["overall"] if kind == "all" else scores[name]["types"].get(kind) for name in names]
        cells = "".join(f"{row['f1']:10.2f}" if row else f"{'-':>10}" for row in rows)
        if compared:
            cells += f"{rows[-1]['f1'] - rows[0]['f1']:+12.2f}" if rows[0] and rows[-1] else f"{'-':>12}"
        lines.append(f"{kind:<6}{cells}{next((row['support'] for row in reversed(rows) if row), 0):10d}")
    return "\n".join(lines)


def measured_on(corpora: Sequence[Corpus], scores: Sequence[Scores], language: str) -> list[Measured]:
    """F1 on each corpus, called by its published name or else its language; empty in all processes but the main one."""
    found = zip(corpora, scores, strict=True)
    return [
        Measured(corpus.known_as or language, corpus.name, score["overall"]["f1"]) for corpus, score in found if score
    ]


def finish(
    run: RunFolder,
    accelerator: Accelerator,
    about: Mapping[str, Any],
    corpora: Sequence[Corpus],
    scores: Mapping[str, Scores],
    progress: Progress,
    origin: Origin,
    save_card: Callable[[Path, str, Origin], None] = write_card,
) -> None:
    """Print the scores, and write the model's card, by `save_card`, and report.json, which ends the run."""
    LOG.info(f"\n{score_table(scores)}")
    if about.get("selection") == "target":
        LOG.info("\nthe student was chosen by labels of the target language (selection=target)")
    if origin.warning:
        tell_doubts([origin.warning])
    if run.writes:
        save_card(run.model, run.path.name, origin)
    write_report(run, accelerator, about, corpora, scores, progress)


def tell_doubts(doubts: Iterable[str]) -> None:
    """Print what speaks against a run or its result, a line each."""
    for doubt in doubts:
        LOG.warning(f"warning: {doubt}")


def write_report(
    run: RunFolder,
    accelerator: Accelerator,
    about: Mapping[str, Any],
    corpora: Sequence[Corpus],
    scores: Mapping[str, Scores],
    progress: Progress,
) -> None:
    """Write report.json, which ends the run, and tell where the model lies."""
    LOG.info(f"\nmodel: {run.model} ({progress.seconds:.0f} s of training)")
    run.finish(
        {
            **about,
            "corpora": {
                corpus.name: {
                    "path": str(corpus.path),
                    "fingerprint": corpus.fingerprint,
                    "corpus_name": corpus.known_as or None,
                    "sentences": len(corpus.words),
                }
                for corpus in corpora
            },
            "scores": dict(scores),
            "training": {
                "steps": progress.step,
                "seconds": round(progress.seconds, 1),
                "words_per_second": round(progress.n_words / max(progress.seconds, 1e-9), 1),
                "processes": accelerator.num_processes,
                "device": accelerator.device.type,
                "precision": accelerator.mixed_precision,
                "best_step": progress.best_step,
                "best_score": round(progress.best_score, 3),
                "peak_memory_mib": peak_memory_mib(accelerator.device),
            },
            "versions": {
                "python": platform.python_version(),
                "xlner": version("xlner"),
                "torch": str(torch.__version__),
                "transformers": version("transformers"),
                "accelerate": accelerate.__version__,
            },
        }
    )


# What tells that a run learnt nothing, or cannot learn anything: a line each, on the terminal and in report.json.
#
# Nothing here ends a run. A line says what was found, and what to change.


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


def doubt_of_agreement(agreement: float, held_out: Sequence[Window], soft_labels: SoftLabels, amount: str) -> str:
    """What is wrong with a student by its agreement with its teacher, where there is nothing better; or empty.

    Args:
        agreement: Entity F1 in percent.
        held_out: What it was measured on.
        soft_labels: Of the teacher; where it finds nothing itself, the student is not to blame.
        amount: From `trained_on`.
    """
    if agreement >= LEAST_F1:
        return ""
    n_entities, _ = _entities_in(soft_labels, sorted({window.sentence for window in held_out}))
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


def _report_of(teacher: str) -> Scores:
    """The report of the run whose `model/` a teacher is; empty if there is none."""
    folder = Path(teacher).resolve()
    try:
        content = json.loads((folder.parent / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if folder.name == "model" and isinstance(content, dict) else {}


def _doubt_of_teacher(teacher: str) -> list[str]:
    try:
        score = float(_report_of(teacher)["scores"]["dev"]["overall"]["f1"])
    except (KeyError, TypeError, ValueError):
        return []
    if score >= LEAST_F1:
        return []
    return [f"{teacher} has a dev F1 of {score:.2f} in its own language: no good student can come of it; train it anew"]


def _doubt_of_language(recipe: DistillRecipe, text: Path, teacher: str) -> list[str]:
    """Sentences of the target text that the teacher's labelled text has, too, if that is still where it was."""
    try:
        labelled = Path(_report_of(teacher)["corpora"]["train"]["path"])
        known = {sentence.words for sentence in sentence_stream(labelled, recipe.corpus)} if labelled.is_file() else ()
    except (KeyError, TypeError, XlnerError):
        return []
    if not known:
        return []
    read = [sentence.words in known for sentence in islice(sentence_stream(text, recipe.corpus), FIRST)]
    if sum(read) <= MOST_REPEATED * len(read):
        return []
    return [
        f"{text}: {sum(read):,} of the first {len(read):,} sentences stand in {labelled}, too, the labelled text of "
        f"the teacher {teacher}; is this text in the target language, {recipe.target}?"
    ]
