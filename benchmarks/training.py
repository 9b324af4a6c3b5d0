"""Seconds and memory of training, side by side, as ratios.

    python benchmarks/training.py --encoder FOLDER --data DIR [--sentences 500] [--rounds 3] ...

DIR holds en/train.conll and de/train.conll, as `data_scripts/wikineural.py` writes them to data/wikineural. Every
epoch is trained in a process of its own, which tells its seconds of training, without loading, and the most memory
that it ever held. The processes come in turns (A B C A B C ...), so that a machine that slows down slows all:

1. `trainer`: plain fine-tuning by transformers' Trainer with its usual collator; `teacher` and `joint teacher`: an
   epoch of xlner's loop over the same sentences, without the similarity task and with it;
2. `stored`: a distillation epoch with stored soft labels; `in the loop`: the same with the teacher run on every batch;
   `two in the loop`: with two of its size, an encoder for each task, as the method was published;
3. where `--sides` names them: `teacher` with what saves memory, `frozen`, `checkpointed`, `lora`, `lora+checkpointed`,
   `8-bit moments`, and without `xlner/models/cpu_training.py`, `torch's own`; `half frozen`, whose embeddings and
   lower half of the layers learn nothing and are computed once, and `half frozen each step`, where they are computed in
   every step. What is computed once pays in several epochs: `--epochs 3`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from xlner.config.schema import (
    CheckpointRecipe,
    CorpusRecipe,
    DistillRecipe,
    HardwareRecipe,
    LossRecipe,
    OptimizationRecipe,
    TeacherRecipe,
    WeightsRecipe,
)
from xlner.corpora.splits import Corpus, read_labelled
from xlner.jobs.student import held_out_of, student_windows, training_text
from xlner.jobs.teacher import new_teacher, teacher_objective
from xlner.jobs.transformer_student import new_student, student_objective
from xlner.models.folder import load_joint_model, save_model
from xlner.soft_labels.label import soft_labels_of
from xlner.tags import LabelSet
from xlner.train.loop import Validation, fit
from xlner.train.mtmt import SoftPairBatch
from xlner.train.objectives import Objective
from xlner.train.run import RunFolder, autocast_dtype, effective_precision, make_accelerator

# What is compared with what. Students need the teacher that `joint teacher` leaves behind.
RATIOS = {
    "teacher": "trainer",
    "joint teacher": "trainer",
    "in the loop": "stored",
    "two in the loop": "stored",
}
# Keys of `optimization` that save memory, each by itself beside the plain teacher.
SAVING: dict[str, dict[str, Any]] = {
    "frozen": {"freeze": "embeddings"},
    "checkpointed": {"gradient_checkpointing": True},
    "lora": {"lora": 8},
    "lora+checkpointed": {"lora": 8, "gradient_checkpointing": True},
    "8-bit moments": {"optimizer": "adamw_8bit"},
}
RATIOS |= dict.fromkeys([*SAVING, "torch's own"], "teacher") | {"half frozen": "half frozen each step"}


def main() -> None:
    """Measure all sides in turns and print, or train one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--batch-pieces", type=int, default=OptimizationRecipe().batch_pieces)
    usual = ",".join(name for name in SIDES if name not in (*SAVING, *UNUSUAL))
    parser.add_argument("--sides", default=usual, help="which of them, with commas")
    parser.add_argument("--freeze", default=OptimizationRecipe().freeze, help="of xlner's sides; Trainer trains all")
    parser.add_argument("--place", default="", help="of the sides' own processes: where the teacher lies")
    arguments = parser.parse_args()
    if arguments.place:
        seconds = SIDES[arguments.sides](arguments)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps({"seconds": seconds, "peak_mib": peak}))
        return
    names = arguments.sides.split(",")
    if unknown := [name for name in names if name not in SIDES]:
        parser.error(f"--sides {unknown[0]}: no such side; known: {', '.join(SIDES)}")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name in names:
                measured = in_own_process(name, folder)
                found[name].append(measured)
                told = f"{measured['seconds']:.1f} s, {measured['peak_mib']:.0f} MiB"
                print(f"round {number + 1}, {name}: {told}", flush=True)
    for name, rounds in found.items():
        seconds = [one["seconds"] for one in rounds]
        print(
            f"{name}: median {statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), "
            f"{max(one['peak_mib'] for one in rounds):.0f} MiB at most"
        )
    for name, other in RATIOS.items():
        if name in found and other in found:
            for what in ("seconds", "peak_mib"):
                ratios = [one[what] / another[what] for one, another in zip(found[name], found[other], strict=True)]
                told = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
                print(f"{name} / {other}, {what}: median {told}")


def in_own_process(name: str, place: str) -> dict[str, float]:
    """Seconds and MiB of one side."""
    command = [sys.executable, *sys.argv, "--sides", name, "--place", place]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return measured


def trainer_epoch(arguments: argparse.Namespace) -> float:
    """Plain fine-tuning as transformers has it."""
    recipe = teacher_recipe(arguments)
    corpus, labels = labelled(recipe)
    torch.set_num_threads(recipe.hardware.threads or len(os.sched_getaffinity(0)))
    tokenizer = AutoTokenizer.from_pretrained(recipe.encoder)
    rows = []
    for words, tags in zip(corpus.words, corpus.tags, strict=True):
        row = tokenizer(list(words), is_split_into_words=True, truncation=True, max_length=512)
        word_of, ids = row.word_ids(), labels.ids(tags)
        is_first = [
            word is not None and word != before for before, word in zip([None, *word_of], word_of, strict=False)
        ]
        row["labels"] = [ids[word] if first else -100 for word, first in zip(word_of, is_first, strict=True)]
        rows.append(row)
    # In float32, whatever the folder holds: autocast does the rest, as in xlner.
    model = AutoModelForTokenClassification.from_pretrained(
        recipe.encoder, num_labels=len(labels.tags), dtype=torch.float32
    )
    optimization = recipe.optimization
    settings = TrainingArguments(
        output_dir=arguments.place,
        per_device_train_batch_size=optimization.batch_size,
        num_train_epochs=optimization.epochs,
        learning_rate=optimization.learning_rate,
        weight_decay=optimization.weight_decay,
        use_cpu=True,
        bf16=effective_precision(recipe.hardware.precision, cpu=True) == "bf16",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model, settings, train_dataset=rows, data_collator=DataCollatorForTokenClassification(tokenizer))
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


def teacher_epoch(arguments: argparse.Namespace, *, similarity_weight: float, **saving: Any) -> float:
    """The same by xlner's loop, with keys of `SAVING`; with the similarity task the teacher is left behind."""
    recipe = replace(teacher_recipe(arguments), similarity_weight=similarity_weight)
    recipe = replace(recipe, optimization=replace(recipe.optimization, **saving))
    place = Path(arguments.place)
    accelerator = make_accelerator(recipe.hardware, place, trackers="")
    corpus, labels = labelled(recipe)
    model, encoder, settings = new_teacher(recipe, labels)
    seconds = timed(recipe, accelerator, teacher_objective(recipe, encoder, labels, corpus), model, place)
    if similarity_weight:
        save_model(place / "teacher", model, encoder.tokenizer, settings)
    return seconds


def torchs_own_epoch(arguments: argparse.Namespace) -> float:
    """As `teacher`, with the dropout, the attention and the number formats of torch."""
    with patch("xlner.models.token_classifier.train_cheaply_on_cpu"):
        return teacher_epoch(arguments, similarity_weight=0.0)


def half_frozen_epoch(arguments: argparse.Namespace, *, once: bool) -> float:
    """As `teacher`, with the lower half frozen, which is computed once or in every step."""
    n_layers = AutoConfig.from_pretrained(arguments.encoder).num_hidden_layers
    teacher = partial(teacher_epoch, arguments, similarity_weight=0.0, freeze=f"embeddings+{n_layers // 2}")
    if once:
        return teacher()
    with patch("xlner.train.loop.computed_once", lambda *_, **__: nullcontext(False)):
        return teacher()


def student_epoch(arguments: argparse.Namespace, *, n_teachers: int) -> float:
    """A distillation epoch with teachers of one size run on every batch; without any, on stored soft labels."""
    place = Path(arguments.place)
    recipe = DistillRecipe(
        target="de",
        data=arguments.data,
        teacher=str(place / "teacher"),
        corpus=CorpusRecipe(max_sentences=arguments.sentences),
        optimization=optimization_recipe(arguments),
        hardware=HardwareRecipe(precision=arguments.precision, threads=arguments.threads, cpu=True),
        # Both tasks, as in the variant `calibrated`.
        loss=LossRecipe(similarity_weight=1.0),
        weights=WeightsRecipe("squared_confidence", "squared_margin", "agreement"),
    )
    accelerator = make_accelerator(recipe.hardware, place, trackers="")
    precision = autocast_dtype(accelerator.mixed_precision)
    soft_labels = soft_labels_of(
        recipe.teacher,
        Path(recipe.data) / recipe.target / "train.conll",
        corpus=recipe.corpus,
        store=place / "soft-labels",
        root=place,
        accelerator=accelerator,
        autocast_dtype=precision,
    )
    model, encoder, _ = new_student(recipe, LabelSet(soft_labels.card.tags), 0.0, soft_labels, accelerator)
    windows = student_windows(soft_labels, encoder, accelerator)
    student: Any = SimpleNamespace(soft_labels=soft_labels, encoder=encoder)
    text = training_text(student, windows, held_out_of(len(soft_labels), recipe), recipe.denoising)
    objective = student_objective(recipe, text)
    if n_teachers:
        teacher, told = load_joint_model(recipe.teacher).eval(), objective.loss_sums

        def with_teacher(network: torch.nn.Module, batch: SoftPairBatch) -> dict[str, torch.Tensor]:
            with torch.no_grad(), torch.autocast("cpu", dtype=precision, enabled=precision is not None):
                for _ in range(n_teachers):
                    output = teacher(*batch.tokens, batch.word_pairs)
            probs, similarity = output.logits.float().softmax(dim=-1), output.similarity_logits.float().sigmoid()
            return told(network, batch._replace(probs=probs, similarity=similarity))

        objective.loss_sums = with_teacher  # type: ignore[method-assign]
    return timed(recipe, accelerator, objective, model, place)


class Unscored(Validation):
    """No evaluation and no saving."""

    score_name = "score"

    def score(self, network: Any) -> tuple[float, dict[str, Any]]:
        """See `Validation.score`."""
        return 0.0, {}

    def keep(self, network: Any) -> None:
        """See `Validation.keep`."""


def timed(
    recipe: TeacherRecipe | DistillRecipe,
    accelerator: Any,
    objective: Objective[Any],
    network: torch.nn.Module,
    place: Path,
) -> float:
    """Seconds of all epochs of xlner's loop, without evaluation and without saving."""
    keys = replace(recipe, seed=0, checkpoint=CheckpointRecipe(steps=0))
    started = time.perf_counter()
    fit(accelerator, network, objective, Unscored(), RunFolder(place, writes=False), keys, {})
    return time.perf_counter() - started


def teacher_recipe(arguments: argparse.Namespace) -> TeacherRecipe:
    """Of all that learn from labelled text."""
    return TeacherRecipe(
        encoder=arguments.encoder,
        data=arguments.data,
        corpus=CorpusRecipe(max_sentences=arguments.sentences),
        optimization=optimization_recipe(arguments),
        hardware=HardwareRecipe(precision=arguments.precision, threads=arguments.threads, cpu=True),
    )


def optimization_recipe(arguments: argparse.Namespace) -> OptimizationRecipe:
    """Of all sides."""
    return OptimizationRecipe(
        epochs=arguments.epochs,
        learning_rate=1e-4,
        log_steps=100_000,
        batch_pieces=arguments.batch_pieces,
        freeze=arguments.freeze,
    )


def labelled(recipe: TeacherRecipe) -> tuple[Corpus, LabelSet]:
    """The training sentences and their labels."""
    path = Path(recipe.data) / recipe.language / "train.conll"
    corpus = read_labelled(path, recipe.corpus, limit=recipe.corpus.max_sentences)
    return corpus, LabelSet.of_types(corpus.types)


UNUSUAL: dict[str, Callable[[argparse.Namespace], float]] = {
    "torch's own": torchs_own_epoch,
    "half frozen": partial(half_frozen_epoch, once=True),
    "half frozen each step": partial(half_frozen_epoch, once=False),
}
SIDES: dict[str, Callable[[argparse.Namespace], float]] = {
    "trainer": trainer_epoch,
    "teacher": partial(teacher_epoch, similarity_weight=0.0),
    "joint teacher": partial(teacher_epoch, similarity_weight=1.0),
    "stored": partial(student_epoch, n_teachers=0),
    "in the loop": partial(student_epoch, n_teachers=1),
    "two in the loop": partial(student_epoch, n_teachers=2),
    **{name: partial(teacher_epoch, similarity_weight=0.0, **keys) for name, keys in SAVING.items()},
    **UNUSUAL,
}

if __name__ == "__main__":
    main()
