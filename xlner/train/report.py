"""Scores during and after training, the report that ends a run, and what tells that it learnt nothing."""

import hashlib
import logging
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from xlner.corpora.splits import Corpus
from xlner.corpora.write import write_lines
from xlner.decoding import DECODING
from xlner.evaluate import EntityCounts, Report, evaluate_tags
from xlner.files import read_json, write_json
from xlner.models.card import Measured, Origin
from xlner.models.folder import load_joint_model, read_settings, write_card
from xlner.models.inference import TorchBackend, number_format, sentence_probs, word_encoder
from xlner.models.settings import is_compact
from xlner.models.token_classifier import tags_of_model
from xlner.predict import BATCH_PIECES, Encoder, Probs, decide_tags, go_on, word_probs
from xlner.soft_labels.store import SoftLabels
from xlner.tagger import load_tagger
from xlner.tags import LabelMap, LabelSet, TagReading, is_iob
from xlner.train.checkpoint import Progress
from xlner.train.run import RunFolder, autocast_dtype, summed

LOG = logging.getLogger("xlner")

Scores = dict[str, Any]


class Evaluator:
    """Scores models on corpora, the processes sharing the work."""

    def __init__(
        self,
        accelerator: Accelerator,
        encoder: Encoder,
        labels: LabelSet,
        label_map: LabelMap | None = None,
        *,
        batch_pieces: int = BATCH_PIECES,
    ) -> None:
        """Score networks that read what `encoder` makes of words, by these labels, under a label map."""
        self._accelerator, self._encoder, self._labels = accelerator, encoder, labels
        self._label_map, self._batch_pieces = label_map, batch_pieces
        self._autocast = autocast_dtype(accelerator.mixed_precision)

    def predict(self, network: nn.Module, sentences: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """The tags of sentences of words, in the run's number format, by a network that lies on its device."""
        backend = TorchBackend(network, self._accelerator.device, self._autocast)
        found = word_probs(
            backend, self._encoder, sentences, n_tags=len(self._labels.tags), batch_pieces=self._batch_pieces
        )
        go_on(found, sentences, self._labels.tags)
        return [decide_tags(probs, self._labels) for probs in found]

    def quick_report(self, network: nn.Module, corpus: Corpus) -> Report:
        """Scores during training, each process on its share of the sentences."""
        rank, n = self._accelerator.process_index, self._accelerator.num_processes
        words, gold = corpus.words[rank::n], corpus.tags[rank::n]
        types = corpus.types + self._labels.types

        def count() -> EntityCounts:
            predicted = self.predict(network, words)
            if self._label_map:
                predicted = [self._label_map.apply(row) for row in predicted]
            return EntityCounts.of(types, gold, predicted)

        return counted_report(self._accelerator, types, count)

    def agreement(self, network: nn.Module, numbers: Sequence[int], soft_labels: SoftLabels) -> float:
        """Entity F1 in percent of a student against its teacher's most likely tags, on sentences of a text."""
        mine = numbers[self._accelerator.process_index :: self._accelerator.num_processes]

        def count() -> EntityCounts:
            gold = [decide_tags(soft_labels.probs(number), self._labels) for number in mine]
            predicted = self.predict(network, [soft_labels.words(number) for number in mine])
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
        tags, probs = self._probs_of_folder(folder, corpus.words)
        reading = None if is_iob(tags) and not rename else TagReading.of(tags, rename or LabelMap({}))
        labels = LabelSet(tags) if reading is None else reading.labels
        predicted = [
            decide_tags(rows if reading is None else reading.iob2(rows).astype(np.float32), labels) for rows in probs
        ]
        scores = self._scored(labels.types, corpus, predicted, predictions)
        if cache is not None:
            write_json(cache, scores)
        return scores

    def _probs_of_folder(self, folder: str, words: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[Probs]]:
        """The tags of a saved model, and what it says of words; a compact student has a number format of its own."""
        device = self._accelerator.device
        if is_compact(Path(folder)):
            tagger = load_tagger(folder, device=device.type)
            return tagger.labels.tags, tagger.probs(words)
        model = load_joint_model(folder).to(device).eval()
        settings = read_settings(folder)
        encoder = word_encoder(folder, model.recognizer, settings.max_length)
        probs = sentence_probs(
            model, encoder, words, device=device, autocast_dtype=self._autocast, spaced=settings.spaced
        )
        return tags_of_model(model.recognizer.config), probs

    def of_network(self, network: nn.Module, corpus: Corpus, predictions: Path) -> Scores:
        """The quoted scores of a finished student, and its predictions in a file; as `of_folder`."""
        if not self._accelerator.is_main_process:
            return {}
        return self._scored(self._labels.types, corpus, self.predict(network.eval(), corpus.words), predictions)

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
    widths = [max(10, len(name) + 2) for name in names]
    head = "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    lines = ["F1    " + head + ("  difference" if compared else "") + "  entities"]
    for kind in (*types, "all"):
        rows = [scores[name]["overall"] if kind == "all" else scores[name]["types"].get(kind) for name in names]
        values = [f"{row['f1']:.2f}" if row else "-" for row in rows]
        cells = "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
        if compared:
            cells += f"{rows[-1]['f1'] - rows[0]['f1']:+12.2f}" if rows[0] and rows[-1] else f"{'-':>12}"
        lines.append(f"{kind:<6}{cells}{next((row['support'] for row in reversed(rows) if row), 0):10d}")
    return "\n".join(lines)


def measured_on(corpora: Sequence[Corpus], scores: Sequence[Scores], language: str) -> list[Measured]:
    """F1 on each corpus, called by its published name or else its language; empty in all processes but the main one."""
    found = zip(corpora, scores, strict=True)
    return [
        Measured(
            corpus.known_as or language,
            corpus.name,
            score["overall"]["f1"],
            {name: row["f1"] for name, row in score["types"].items()},
        )
        for corpus, score in found
        if score
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
    if origin.labels:
        LOG.info(f"\ntarget labels used: {origin.labels}")
    if origin.warning:
        LOG.warning(f"warning: {origin.warning}")
    if run.writes:
        save_card(run.model, run.path.name, origin)
    write_report(run, accelerator, about, corpora, scores, progress)


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
