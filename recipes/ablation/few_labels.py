"""How many labels it takes: a small student of few labelled sentences, with and without a teacher between.

    python recipes/ablation/few_labels.py --encoder ENCODER --data data/wikineural --out runs/few-labels

For each number of labelled sentences of one language, and each random draw of them: a teacher trained on them; a
compact student of that teacher's soft labels of raw sentences of the same language and of the labelled ones, in every
batch; the same student of the labelled sentences alone. All are scored on the same test sentences. Finished runs are
not done again. After Izsak et al. 2019 (arXiv:1910.06294), figure 2, who drew 20 times; the seed of a run is that of
its draw.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from measure import call, finished

from xlner.corpora.source import read_corpus
from xlner.corpora.write import write_corpus

TEACHER, DISTILLED, ALONE = "teacher", "student, distilled", "student, labels alone"
COLUMNS = ("labelled", "model", "seed", "f1")
MOST_EPOCHS = 120
TEACHER_BATCH = 8  # of so few sentences larger ones are too few steps to learn from
Scores = dict[tuple[int, str, int], float]


@dataclass(frozen=True)
class Plan:
    """What all runs have in common.

    `visits` are how many sentences a student sees, again and again. The teacher, which starts from a trained encoder,
    sees a quarter of them; the student of labels alone sees none more than `MOST_EPOCHS` times.
    """

    out: Path
    encoder: str
    language: str
    student: str
    decoders: list[str]
    n_text: int
    visits: int
    settings: list[str]


def main() -> int:
    """Run what is missing, print the table, draw the curve; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", required=True, help="encoder folder or hub name")
    parser.add_argument("--data", type=Path, required=True, help="folder with LANGUAGE/{train,test}.conll")
    parser.add_argument("--out", type=Path, default=Path("runs/few-labels"), help="folder of all runs")
    parser.add_argument("--language", default="en", help="of labels, text and test")
    parser.add_argument("--labelled", nargs="+", type=int, default=[150, 300, 750, 1500, 3000], help="sentences")
    parser.add_argument("--text", type=int, default=3000, help="raw sentences, none of them a labelled one")
    parser.add_argument("--test", type=int, default=3000, help="sentences that are scored")
    parser.add_argument("--visits", type=int, default=36_000, help="sentences that a student sees, again and again")
    parser.add_argument("--student", default="bilstm", help="kind of the student")
    parser.add_argument("--decoders", nargs="+", default=["softmax"], help="of the student: softmax, crf")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of draws, teachers and students")
    parser.add_argument("settings", nargs="*", help="key=value for every run, as in hardware.threads=1")
    given = parser.parse_args()
    out = given.out.resolve()
    plan = Plan(
        out, given.encoder, given.language, given.student, given.decoders, given.text, given.visits, given.settings
    )
    write_corpora(plan, given.data / given.language, given.labelled, given.seeds, given.test)
    scores: Scores = {}
    try:
        for seed in given.seeds:
            for n in given.labelled:
                for model, (run, scored) in train(plan, n, seed).items():
                    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
                    scores[n, model, seed] = report["scores"][scored]["overall"]["f1"]
    except subprocess.CalledProcessError as problem:
        return problem.returncode
    show(scores, given.labelled, out)
    return 0


def write_corpora(plan: Plan, source: Path, numbers: Sequence[int], seeds: Sequence[int], n_test: int) -> None:
    """A folder of corpora for each draw of labelled sentences, and one of raw text, the first sentences."""
    sentences = list(read_corpus(source / "train.conll"))
    if len(sentences) < max(numbers) + plan.n_text:
        sys.exit(f"{source}/train.conll: {len(sentences):,} sentences; expected {max(numbers) + plan.n_text:,} or more")
    test = list(islice(read_corpus(source / "test.conll"), n_test))
    parts = {"text": sentences[: plan.n_text]}
    for seed in seeds:
        order = plan.n_text + np.random.default_rng(seed).permutation(len(sentences) - plan.n_text)
        parts |= {f"data-{n}-{seed}": [sentences[number] for number in order[:n]] for n in numbers}
    for name, part in parts.items():
        folder = plan.out / name / plan.language
        folder.mkdir(parents=True, exist_ok=True)
        write_corpus(part, folder / "train.conll")
        # The epoch of a teacher is chosen by a fifth of its own sentences: more labels are not there.
        write_corpus(part[: max(1, len(part) // 5)], folder / "dev.conll")
        write_corpus(test, folder / "test.conll")
        write_corpus(part, folder / "gold.jsonl", format="spans")


def train(plan: Plan, n: int, seed: int) -> dict[str, tuple[Path, str]]:
    """The runs of a number of labelled sentences, made now as far as they are missing, and whose score counts."""
    labelled, text = plan.out / f"data-{n}-{seed}", plan.out / "text"
    gold = labelled / plan.language / "gold.jsonl"
    teacher = plan.out / f"teacher-{n}-{seed}"
    common = [f"seed={seed}", *plan.settings]
    if not finished(teacher):
        own = [f"language={plan.language}", f"data={labelled}", f"encoder={plan.encoder}", f"run={teacher}"]
        rates = ["similarity_weight=0", "optimization.learning_rate=1e-4", epochs(plan.visits // 4, n)]
        rates += [f"optimization.batch_size={TEACHER_BATCH}", "optimization.freeze=embeddings"]
        call("accelerate", "launch", "train_teacher.py", *own, *rates, *common)
    found = {TEACHER: (teacher, "test")}
    common += [f"target={plan.language}", f"student={plan.student}", "denoising=none"]
    for decoder in plan.decoders:
        mark = "" if decoder == "softmax" else f" ({decoder})"
        distilled, alone = (plan.out / f"{name}-{n}-{decoder}-{seed}" for name in ("distilled", "alone"))
        if not finished(distilled):
            own = [f"data={text}", f"teacher={teacher / 'model'}", f"gold={gold}", f"compact.decoder={decoder}"]
            own += ["selection=last", epochs(plan.visits, plan.n_text), f"soft_labels={plan.out / f'soft-{n}-{seed}'}"]
            call("accelerate", "launch", "distill.py", *own, f"run={distilled}", *common)
        if not finished(alone):
            own = [f"data={labelled}", f"teacher={gold}", f"soft_labels={plan.out / f'gold-{n}-{seed}'}"]
            own += ["compact.vectors=random", "holdout_ratio=0", f"compact.decoder={decoder}", epochs(plan.visits, n)]
            call("accelerate", "launch", "distill.py", *own, f"run={alone}", *common)
        found |= {f"{DISTILLED}{mark}": (distilled, "student"), f"{ALONE}{mark}": (alone, "student")}
    return found


def epochs(visits: int, n_sentences: int) -> str:
    """As many passes as it takes to see so many sentences."""
    return f"optimization.epochs={min(MOST_EPOCHS, max(1, visits // n_sentences))}"


def told(runs: Sequence[float]) -> str:
    """The mean, and the standard deviation where there are several."""
    return f"{mean(runs):.2f} ± {stdev(runs):.2f}" if len(runs) > 1 else f"{mean(runs):.2f}"


def show(scores: Scores, numbers: Sequence[int], out: Path) -> None:
    """Print the table, and write it and its curve into the folder."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(model for _, model, _ in scores))
    found = {
        (n, model): [f1 for key, f1 in scores.items() if key[:2] == (n, model)] for n in numbers for model in models
    }
    print(f"\n| labelled sentences | {' | '.join(models)} |\n|{'---|' * (1 + len(models))}")
    for n in numbers:
        print(f"| {n:,} | {' | '.join(told(found[n, model]) for model in models)} |")
    with (out / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *((*key, f1) for key, f1 in scores.items())])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for model in models:
        values = [found[n, model] for n in numbers]
        middle = [mean(runs) for runs in values]
        errors = [[mean(runs) - min(runs) for runs in values], [max(runs) - mean(runs) for runs in values]]
        axes.errorbar(numbers, middle, errors, marker="o", capsize=2, label=model)
    axes.set_xscale("log")
    axes.set_xticks(numbers, [f"{n:,}" for n in numbers])
    axes.minorticks_off()
    axes.set_xlabel("labelled sentences")
    axes.set_ylabel("test F1 (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(out / "curve.png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
