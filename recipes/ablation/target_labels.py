"""What a few labelled target sentences are worth: learnt beside soft labels, after them, and alone.

    python recipes/ablation/target_labels.py --encoder ENCODER --teacher TEACHER --data data/wikineural --targets pt pl

For each target, number of labelled sentences and draw: a student of soft labels alone (one a target); that student,
trained on with the labels; a tagger of the labels alone; a student of both (`gold=`). The labelled sentences are drawn
among those behind the unlabelled ones. Finished runs are not done again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from measure import call, finished

from xlner.corpora.source import read_corpus
from xlner.corpora.write import write_corpus
from xlner.tags import spans_of
from xlner.words import Sentence

TRANSFER, TUNED, ALONE, GOLD = "transfer alone", "labels after transfer", "labels alone", "gold="
Scores = dict[tuple[str, int, str, int], float]


@dataclass(frozen=True)
class Plan:
    """What all runs have in common.

    `visits` are how many sentences a tagger of labels alone sees, again and again; one that begins with a student sees
    a half of them. `settings` are of all runs, `both` of the students that learn from both.
    """

    out: Path
    encoder: str
    teacher: Path
    data: Path
    n_text: int
    n_test: int
    split: str
    visits: int
    settings: list[str]
    both: list[str]


def main() -> int:
    """Run what is missing, print the table; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", required=True, help="encoder folder or hub name, of the labels alone")
    parser.add_argument("--teacher", type=Path, required=True, help="model folder of the source language's teacher")
    parser.add_argument("--data", type=Path, required=True, help="folder with TARGET/{train,SPLIT}.conll")
    parser.add_argument("--out", type=Path, default=Path("runs/target-labels"), help="folder of all runs")
    parser.add_argument("--targets", nargs="+", required=True, help="target languages, or LANGUAGE:TYPES,.. to drop")
    parser.add_argument("--labelled", nargs="+", type=int, default=[50, 200, 1000], help="sentences")
    parser.add_argument("--draws", nargs="+", type=int, default=[0], help="of labelled sentences, and seeds of runs")
    parser.add_argument("--text", type=int, default=1000, help="sentences without labels")
    parser.add_argument("--split", default="dev", help="that is scored; dev for what is tuned")
    parser.add_argument("--test", type=int, default=2000, help="sentences that are scored at most")
    parser.add_argument("--visits", type=int, default=4000, help="labelled sentences that a tagger sees in all")
    parser.add_argument("--both", nargs="*", default=[], help="key=value for the students of both, as gold_share=0.5")
    parser.add_argument("--models", nargs="+", default=[TRANSFER, TUNED, ALONE, GOLD], help="rows of the table")
    parser.add_argument("settings", nargs="*", help="key=value for every run, as in hardware.threads=1")
    given = parser.parse_args()
    plan = Plan(
        given.out.resolve(),
        given.encoder,
        given.teacher.resolve(),
        given.data.resolve(),
        given.text,
        given.test,
        given.split,
        given.visits,
        given.settings,
        given.both,
    )
    scores: Scores = {}
    try:
        for draw in given.draws:
            for target in given.targets:
                for n in given.labelled:
                    for model in given.models:
                        scores[target, n, model, draw] = score_of(plan, target, n, model, draw)
    except subprocess.CalledProcessError as problem:
        return problem.returncode
    show(scores)
    return 0


def score_of(plan: Plan, target: str, n: int, model: str, draw: int) -> float:
    """F1 of a model on the scored sentences; it is trained now if it is missing."""
    language, _, dropped = target.partition(":")
    corpora, gold, types = write_corpora(plan, language, n, draw)
    common = [f"seed={draw}", "optimization.freeze=embeddings", "checkpoint.steps=0", *plan.settings]
    transfer = plan.out / f"{language}-transfer-{draw}"
    student = [f"target={language}", f"data={corpora}", f"teacher={plan.teacher}", "optimization.epochs=2", *common]
    student += label_map(dropped.split(","))
    if model in (TRANSFER, TUNED) and not finished(transfer):
        call("accelerate", "launch", "distill.py", *student, f"run={transfer}")
    run = {
        TRANSFER: transfer,
        TUNED: plan.out / f"{language}-tuned-{n}-{draw}",
        ALONE: plan.out / f"{language}-alone-{n}-{draw}",
        GOLD: plan.out / f"{language}-gold-{n}-{draw}{''.join(plan.both).replace('/', '')}",
    }[model]
    if not finished(run):
        if model == GOLD:
            call("accelerate", "launch", "distill.py", *student, f"gold={gold}", f"run={run}", *plan.both)
        else:
            encoder, visits = (plan.encoder, plan.visits) if model == ALONE else (transfer / "model", plan.visits // 2)
            own = ["recipe=en", f"language={language}", f"data={gold.parents[1]}", f"encoder={encoder}", f"run={run}"]
            rates = ["optimization.learning_rate=1e-4", f"optimization.epochs={max(2, visits // n)}"]
            call(
                "accelerate",
                "launch",
                "train_teacher.py",
                *own,
                *rates,
                *common,
                *label_map(types & {*dropped.split(",")}),
            )
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return float(report["scores"]["student" if model in (TRANSFER, GOLD) else "test"]["overall"]["f1"])


def label_map(dropped: Collection[str]) -> list[str]:
    """The setting that drops some types; empty where there are none."""
    names = sorted(filter(None, dropped))
    return [f"labels.map={','.join(f'{name}=' for name in names)}"] if names else []


def write_corpora(plan: Plan, language: str, n: int, draw: int) -> tuple[Path, Path, set[str]]:
    """The folder of text and test; the labelled file of a draw, in a folder for `train_teacher.py`; and its types."""
    corpora, labelled = plan.out / "text", plan.out / f"data-{n}-{draw}"
    gold = labelled / language / "train.conll"
    test = list(islice(read_corpus(plan.data / language / f"{plan.split}.conll"), plan.n_test))
    sentences = list(read_corpus(plan.data / language / "train.conll"))
    others = sentences[plan.n_text :]
    if len(others) < n:
        sys.exit(f"{language}: {len(sentences):,} sentences; expected {plan.n_text + n:,} or more")
    drawn = [others[number] for number in np.random.default_rng(draw).permutation(len(others))[:n].tolist()]
    # A tagger of labels alone is not chosen by others: a part of its own sentences stands in for a dev set.
    folders: dict[Path, dict[str, Sequence[Sentence]]] = {
        corpora / language: {"train": sentences[: plan.n_text], "test": test},
        labelled / language: {"dev": drawn[: max(1, n // 5)], "test": test, "train": drawn},
    }
    for folder, splits in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        for name, split in splits.items():
            if not (folder / f"{name}.conll").is_file():
                write_corpus(split, folder / f"{name}.conll")
    return corpora, gold, {span.label for sentence in [*drawn, *test] for span in spans_of(sentence.tags or ())}


def show(scores: Scores) -> None:
    """Print F1 by number of labels and model: each target's mean over draws, and the mean of all."""
    targets = list(dict.fromkeys(target for target, *_ in scores))
    print(f"\n| labels | model | {' | '.join(targets)} | mean |\n|{'---|' * (3 + len(targets))}")
    for n, model in dict.fromkeys((n, model) for _, n, model, _ in scores):
        found = [[f1 for key, f1 in scores.items() if key[:3] == (target, n, model)] for target in targets]
        cells = [f"{mean(runs):.2f}" + (f" ± {stdev(runs):.2f}" if len(runs) > 1 else "") for runs in found]
        print(f"| {n:,} | {model} | {' | '.join(cells)} | {mean(map(mean, found)):.2f} |")


if __name__ == "__main__":
    sys.exit(main())
