"""Scores of compact students, during training and of the finished folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from xlner.backends.torch_backend import TorchBackend
from xlner.data.alignment import Window
from xlner.data.soft_labels import SoftLabels
from xlner.evaluation import EntityCounts, Report, evaluate_tags
from xlner.labels import LabelMap, LabelSet
from xlner.prediction import decide_tags, word_probs
from xlner.students.network import CompactNetwork
from xlner.students.rows import RowEncoder
from xlner.tagger import load_tagger
from xlner.training.corpora import Corpus
from xlner.training.optimization import autocast_dtype
from xlner.training.reporting import Scores, counted_report, write_predictions

BATCH_WORDS = 4096


class CompactEvaluator:
    """Scores networks of words, the processes sharing the work; in the run's number format, the result in float32."""

    def __init__(self, accelerator: Accelerator, encoder: RowEncoder, labels: LabelSet, label_map: LabelMap) -> None:
        self._accelerator, self._encoder, self._labels, self._label_map = accelerator, encoder, labels, label_map

    def quick_report(self, model: CompactNetwork, corpus: Corpus) -> Report:
        """Scores during training, each process on its share of the sentences."""
        rank, n = self._accelerator.process_index, self._accelerator.num_processes
        gold, words = corpus.tags[rank::n], corpus.words[rank::n]
        types = corpus.types + self._labels.types

        def count() -> EntityCounts:
            return EntityCounts.of(types, gold, [self._label_map.apply(tags) for tags in self._tags(model, words)])

        return counted_report(self._accelerator, types, count)

    def agreement(self, model: CompactNetwork, windows: Sequence[Window], soft_labels: SoftLabels) -> float:
        """Entity F1 in percent against the likeliest tags of soft labels, in the sentences of these windows."""
        rank, n = self._accelerator.process_index, self._accelerator.num_processes
        numbers = sorted({window.sentence for window in windows})[rank::n]
        taught = [soft_labels.probs(number).astype(np.float32) for number in numbers]
        gold = [decide_tags(probs, self._labels) for probs in taught]
        words = [soft_labels.words(number) for number in numbers]

        def count() -> EntityCounts:
            return EntityCounts.of(self._labels.types, gold, self._tags(model, words))

        return counted_report(self._accelerator, self._labels.types, count).overall.f1

    def of_folder(self, folder: Path, corpus: Corpus, predictions: Path) -> Scores:
        """The quoted scores, by seqeval, of the finished folder as users open it; the main process alone works.

        Args:
            folder: Model folder.
            corpus: What it is scored on.
            predictions: File that gets word, tag of the corpus and predicted tag.

        Returns:
            As `Report.to_json`; empty in all processes but the main one.
        """
        if not self._accelerator.is_main_process:
            return {}
        predicted = [tuple(tags) for tags in load_tagger(folder).tag_sentences(corpus.words)]
        found = evaluate_tags(self._labels.types, corpus.tags, predicted, self._label_map)
        for note in found.report.notes():
            self._accelerator.print(f"{corpus.path}: {note}")
        write_predictions(predictions, corpus.words, found.gold, found.predicted)
        return found.report.to_json()

    def _tags(self, model: CompactNetwork, sentences: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        backend = TorchBackend(model, self._accelerator.device, autocast_dtype(self._accelerator.mixed_precision))
        found = word_probs(
            backend,
            self._encoder,
            sentences,
            n_tags=len(self._labels.tags),
            batch_pieces=BATCH_WORDS * self._encoder.width,
        )
        return [decide_tags(probs, self._labels) for probs in found]
