"""Training speed, side by side in one process, as ratios.

    python benchmarks/training.py --encoder FOLDER --data DIR [--sentences 2000] [--rounds 3] [--precision auto]

DIR holds en/train.conll and de/train.conll, as `data_scripts/wikineural.py` writes them to data/wikineural. Two
comparisons, each in turns (A B A B ...), so that a machine that slows down slows both:

1. a teacher epoch with both tasks, by xlner's loop, against a plain fine-tuning epoch of the same encoder: batches
   in random order, no similarity task, no framework around it;
2. a distillation epoch with stored soft labels against the same epoch with the teacher in the loop, and with two
   teachers in the loop, an encoder for each task, as the method was published.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from xlner.data.batches import collate
from xlner.data.pair_batches import SoftBatch
from xlner.labels import LabelSet
from xlner.models.encoder import new_recognizer
from xlner.models.folder import load_joint_model, save_model
from xlner.schema import DistillRecipe, LossRecipe, TeacherRecipe, WeightsRecipe
from xlner.sections import CheckpointRecipe, CorpusRecipe, HardwareRecipe, OptimizationRecipe
from xlner.training.corpora import read_labelled
from xlner.training.distillation import distillation_task, make_objective, new_student, student_windows
from xlner.training.labelling import soft_labels_of
from xlner.training.loop import fit
from xlner.training.optimization import autocast_dtype
from xlner.training.reporting import Evaluator
from xlner.training.run_folder import RunFolder
from xlner.training.session import make_accelerator
from xlner.training.task import Task
from xlner.training.teacher import new_teacher, teacher_task

OPTIMIZATION = OptimizationRecipe(epochs=1, learning_rate=1e-4, log_steps=100_000)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        corpus = CorpusRecipe(max_sentences=arguments.sentences)
        hardware = HardwareRecipe(precision=arguments.precision)
        teacher = TeacherRecipe(
            encoder=arguments.encoder, data=arguments.data, corpus=corpus, optimization=OPTIMIZATION, hardware=hardware
        )
        accelerator = make_accelerator(teacher, place)
        print(f"{torch.get_num_threads()} threads, {accelerator.mixed_precision}, {arguments.sentences} sentences")
        joint, plain = teacher_epochs(accelerator, teacher, place)
        compare("joint teacher epoch", joint, "plain fine-tuning epoch", plain, arguments.rounds)
        student = DistillRecipe(
            target="de",
            data=arguments.data,
            teacher=str(place / "teacher"),
            corpus=corpus,
            optimization=OPTIMIZATION,
            hardware=hardware,
            # Both tasks, as in the variant `calibrated`.
            loss=LossRecipe(similarity_weight=1.0),
            weights=WeightsRecipe("squared_confidence", "squared_margin", "agreement"),
        )
        in_loop, stored = distillation_epochs(accelerator, student, place, n_teachers=1)
        compare("teacher in the loop", in_loop, "stored soft labels", stored, arguments.rounds)
        in_loop, stored = distillation_epochs(accelerator, student, place, n_teachers=2)
        compare("two teachers in the loop", in_loop, "stored soft labels", stored, arguments.rounds)


def compare(name_a: str, a: Callable[[], None], name_b: str, b: Callable[[], None], rounds: int) -> None:
    """Time both in turns after a warm-up, and print the medians and the ratio of each round."""
    seconds: dict[str, list[float]] = {name_a: [], name_b: []}
    for number in range(rounds + 1):
        for name, run in ((name_a, a), (name_b, b)):
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        print(f"{name}: median {statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})")
    ratios = [one / another for one, another in zip(seconds[name_a], seconds[name_b], strict=True)]
    print(f"{name_a} / {name_b}: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})\n")


def train(accelerator: Accelerator, task: Task, model: torch.nn.Module, place: Path) -> None:  # type: ignore[type-arg]
    """One epoch of xlner's loop, without evaluation and without saving."""
    silent = replace(task, evaluate=lambda model: (0.0, {}), keep=lambda model: None)
    fit(
        accelerator,
        model,  # type: ignore[arg-type]
        silent,
        RunFolder(place, writes=False),
        seed=0,
        optimization=OPTIMIZATION,
        hardware=HardwareRecipe(),
        checkpoint=CheckpointRecipe(steps=0),
        tracker=lambda numbers, step: None,
    )


def teacher_epochs(
    accelerator: Accelerator, recipe: TeacherRecipe, place: Path
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The joint teacher's epoch and the plain one; the former also leaves a teacher behind."""
    corpus = read_labelled(
        Path(recipe.data) / recipe.language / "train.conll", recipe.corpus, limit=recipe.corpus.max_sentences
    )
    labels = LabelSet.of_types(corpus.types)
    _, encoder, _ = new_teacher(recipe, labels)
    evaluator = Evaluator(accelerator, encoder, labels)
    task = teacher_task(recipe, accelerator, encoder, labels, corpus, corpus, evaluator, lambda model: None)

    def joint() -> None:
        model, _, settings = new_teacher(recipe, labels)
        train(accelerator, task, model, place)
        save_model(place / "teacher", model, encoder.tokenizer, settings)

    windows = list(encoder.encode(corpus.words))
    rows = [
        (window, labels.ids(corpus.tags[window.sentence][word] for word in window.word_numbers)) for window in windows
    ]

    def batch(members: list[tuple[object, list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = collate([window for window, _ in members], encoder.pad_id)  # type: ignore[misc]
        tags = torch.full(tokens.input_ids.shape, -100)
        tags[tokens.word_mask] = torch.tensor([tag for _, ids in members for tag in ids])
        return tokens.input_ids, tokens.attention_mask, tags

    def plain() -> None:
        model = new_recognizer(recipe.encoder, labels)
        optimizer = torch.optim.AdamW(model.parameters(), lr=OPTIMIZATION.learning_rate, fused=True)
        loader = DataLoader(rows, batch_size=OPTIMIZATION.batch_size, shuffle=True, collate_fn=batch)  # type: ignore[arg-type]
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, len(loader))
        dtype = autocast_dtype(accelerator.mixed_precision)
        model.train()
        for input_ids, attention_mask, tags in loader:
            with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                loss = model(input_ids=input_ids, attention_mask=attention_mask, labels=tags).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZATION.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    return joint, plain


def distillation_epochs(
    accelerator: Accelerator, recipe: DistillRecipe, place: Path, *, n_teachers: int
) -> tuple[Callable[[], None], Callable[[], None]]:
    """An epoch with the teacher, or two of its size, run on every batch, and one with stored soft labels."""
    objective = make_objective(recipe)
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
    labels = LabelSet(soft_labels.card.tags)
    _, encoder, _ = new_student(recipe, labels, 0.0)
    windows = student_windows(soft_labels, encoder, accelerator)
    evaluator = Evaluator(accelerator, encoder, labels)
    task = distillation_task(recipe, objective, soft_labels, windows, encoder, evaluator, lambda model: None)
    teacher = load_joint_model(recipe.teacher).eval()

    def with_teacher(network: torch.nn.Module, batch: SoftBatch) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            for _ in range(n_teachers):
                output = teacher(batch.tokens.input_ids, batch.tokens.attention_mask, batch.word_pairs)
        probs = output.logits.float().softmax(dim=-1) * batch.tokens.word_mask[:, :, None]
        similarity = output.similarity_logits.float().sigmoid()
        return objective.loss_sums(
            network, batch._replace(teacher_probs=probs.clone(), teacher_similarity=similarity.clone())
        )

    def in_loop() -> None:
        model, _, _ = new_student(recipe, labels, 0.0)
        train(accelerator, replace(task, loss_sums=with_teacher), model, place)

    def stored() -> None:
        model, _, _ = new_student(recipe, labels, 0.0)
        train(accelerator, task, model, place)

    return in_loop, stored


if __name__ == "__main__":
    main()
