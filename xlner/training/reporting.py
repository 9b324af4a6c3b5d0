"""Scores during and after training, and the report that ends a run."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate import Accelerator

from xlner.data.alignment import Window, WordEncoder, load_tokenizer
from xlner.data.soft_labels import SoftLabels
from xlner.evaluation import EntityCounts, Report, evaluate_model, predict_sentences
from xlner.labels import LabelSet
from xlner.models.encoder import labels_of
from xlner.models.folder import load_joint_model, read_settings
from xlner.models.joint import JointModel
from xlner.prediction import decide_tags, word_outputs
from xlner.training.checkpoint import Progress
from xlner.training.corpora import Corpus
from xlner.training.optimization import autocast_dtype
from xlner.training.run_folder import RunFolder


class Evaluator:
    """Scores models on corpora, the processes sharing the work."""

    def __init__(self, accelerator: Accelerator, encoder: WordEncoder, labels: LabelSet) -> None:
        self._accelerator, self._encoder, self._labels = accelerator, encoder, labels
        self._autocast = autocast_dtype(accelerator.mixed_precision)

    def quick_report(self, model: JointModel, corpus: Corpus) -> Report:
        """Scores during training, each process on its share of the sentences."""
        rank, n = self._accelerator.process_index, self._accelerator.num_processes
        words, gold = corpus.words[rank::n], corpus.tags[rank::n]
        predicted = predict_sentences(
            model, self._encoder, self._labels, words, device=self._accelerator.device, autocast_dtype=self._autocast
        )
        return self._summed(EntityCounts.of(corpus.types + self._labels.types, gold, predicted))

    def agreement(self, model: JointModel, windows: Sequence[Window], soft_labels: SoftLabels) -> float:
        """Entity F1 in percent of a student against its teacher's most likely tags."""
        rank, n = self._accelerator.process_index, self._accelerator.num_processes
        mine = windows[rank::n]
        gold, predicted = [], []
        for number, output in word_outputs(
            model, mine, self._encoder.pad_id, device=self._accelerator.device, autocast_dtype=self._autocast
        ):
            teacher = soft_labels.probs(mine[number].sentence)[mine[number].word_numbers]
            gold.append(decide_tags(teacher.astype(np.float32), self._labels))
            predicted.append(decide_tags(output.probs, self._labels))
        return self._summed(EntityCounts.of(self._labels.types, gold, predicted)).overall.f1

    def of_folder(self, folder: str, corpus: Corpus) -> Report | None:
        """The quoted score of a saved model, in the run's number format; None in all processes but the main one."""
        if not self._accelerator.is_main_process:
            return None
        model = load_joint_model(folder).to(self._accelerator.device).eval()
        encoder = WordEncoder(load_tokenizer(folder), read_settings(folder).max_length or None)
        labels = labels_of(model.recognizer.config)
        return evaluate_model(
            model,
            encoder,
            labels,
            corpus.words,
            corpus.tags,
            device=self._accelerator.device,
            autocast_dtype=self._autocast,
        )

    def _summed(self, counts: EntityCounts) -> Report:
        tensor = torch.tensor(counts.to_list(), device=self._accelerator.device)
        total = self._accelerator.reduce(tensor, "sum")
        return EntityCounts.from_list(counts.types, total.tolist()).report()


def finish(
    run: RunFolder,
    accelerator: Accelerator,
    about: Mapping[str, Any],
    corpora: Sequence[Corpus],
    reports: Mapping[str, Report | None],
    progress: Progress,
) -> None:
    """Print the scores, and write report.json, which ends the run."""
    for name, report in reports.items():
        if report is not None:
            accelerator.print(f"\n{name}\n{report.table()}")
    accelerator.print(f"\nmodel: {run.model} ({progress.seconds:.0f} s of training)")
    run.finish(
        {
            **about,
            "corpora": {
                corpus.name: {
                    "path": str(corpus.path),
                    "fingerprint": corpus.fingerprint,
                    "sentences": len(corpus.words),
                }
                for corpus in corpora
            },
            "scores": {name: report.to_json() for name, report in reports.items() if report is not None},
            "training": {
                "steps": progress.step,
                "seconds": round(progress.seconds, 1),
                "words_per_second": round(progress.n_words / max(progress.seconds, 1e-9), 1),
                "processes": accelerator.num_processes,
                "device": accelerator.device.type,
                "precision": accelerator.mixed_precision,
                "best_step": progress.best_step,
                "best_score": round(progress.best_score, 3),
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
