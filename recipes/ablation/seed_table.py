"""Finished runs as one table: a row a target, a column a method, mean over seeds and 95 % interval; and paired tests.

    python recipes/ablation/seed_table.py runs/ablation/*

Direct transfer is the teacher's score in the reports of its students. Two kinds of paired tests stand below the table:
over seeds and targets (Student's t, one value a target: the mean over seeds of the differences of one teacher and its
student), and over the sentences of a test set (bootstrap, `xlner compare`'s), where both methods kept predictions.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t  # type: ignore[import-untyped]

from xlner.compare import Cell, ScoredRun, p_value, read_run
from xlner.errors import XlnerError

TRANSFER, DEFAULT, SUPERVISED = "direct transfer", "default", "supervised"
Scores = dict[str, dict[str, dict[int, float]]]  # F1 by method, target and seed


def main() -> int:
    """Print the table and the tests; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs with a labelled test set")
    runs = []
    for path in parser.parse_args().runs:
        try:
            runs.append(read_run(path))
        except XlnerError as problem:
            print(f"left out: {problem}", file=sys.stderr)
    by_method: dict[str, dict[str, dict[int, ScoredRun]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        by_method[method_of(run)][run.language][run.seed] = run
    print("\n".join(table(scores_of(by_method))))
    print("\n".join(tests(by_method)))
    return 0


def method_of(run: ScoredRun) -> str:
    """What a column is called: the setting of the recipe, else the variant; the default is the pooled one."""
    if run.kind != "distill":
        return SUPERVISED
    name = run.recipe.get("setting") or run.recipe.get("variant", "")
    return DEFAULT if name == "pooled" else name


def scores_of(by_method: Mapping[str, Mapping[str, Mapping[int, ScoredRun]]]) -> Scores:
    """The F1 of all runs, and of the teachers of the default's."""
    found: Scores = {TRANSFER: defaultdict(dict)}
    for method, targets in by_method.items():
        found[method] = {target: {seed: run.f1 for seed, run in cells.items()} for target, cells in targets.items()}
    for target, cells in by_method.get(DEFAULT, {}).items():
        for seed, run in cells.items():
            if run.transfer_f1 is not None:
                found[TRANSFER][target][seed] = run.transfer_f1
    return found


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of its 95 % interval, by Student's t; of one value, the value and how many there are."""
    if len(values) == 1:
        return f"{values[0]:.2f} (1 seed)"
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.2f} ± {half:.2f}"


def table(scores: Scores) -> list[str]:
    """The rows of a Markdown table, the mean over targets of each method last."""
    methods = [name for name in scores if name not in (TRANSFER, DEFAULT, SUPERVISED)]
    columns = [TRANSFER, *sorted(methods), DEFAULT, SUPERVISED]
    columns = [name for name in columns if scores.get(name)]
    targets = sorted({target for column in scores.values() for target in column})
    lines = ["| target | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for target in targets:
        cells = [interval(list(found.values())) if (found := scores[name].get(target)) else "" for name in columns]
        lines.append(f"| {target} | " + " | ".join(cells) + " |")
    # A mean over targets is told only where a method has all of them: else the columns would not compare.
    complete = [set(scores[name]) == set(targets) for name in columns]
    means = [
        f"{mean(mean(found.values()) for found in scores[name].values()):.2f}" if whole else ""
        for name, whole in zip(columns, complete, strict=True)
    ]
    return [*lines, "| mean | " + " | ".join(means) + " |"]


def tests(by_method: Mapping[str, Mapping[str, Mapping[int, ScoredRun]]]) -> list[str]:
    """The paired tests: the default against direct transfer, and against every other method."""
    lines = []
    default = by_method.get(DEFAULT, {})
    gains = {
        target: [run.f1 - run.transfer_f1 for run in cells.values() if run.transfer_f1 is not None]
        for target, cells in default.items()
    }
    cells = [gain for found in gains.values() for gain in found]
    if cells:
        lines.append(
            f"\ndefault - direct transfer: {len(cells)} pairs of one teacher and its student, mean {mean(cells):+.2f}, "
            f"lowest {min(cells):+.2f}, {sum(gain >= 0 for gain in cells)} at or above"
        )
        for target, found in sorted(gains.items()):
            lines.append(f"  {target}: " + ", ".join(f"{gain:+.2f}" for gain in found))
        of_targets = [mean(found) for found in gains.values() if found]
        if len(of_targets) > 1:
            lines.append(f"  over {len(of_targets)} targets: {interval(of_targets)} (95 % interval of the mean)")
    for method, targets in sorted(by_method.items()):
        if method == DEFAULT:
            continue
        for target, other in sorted(targets.items()):
            shared = default.get(target, {}).keys() & other.keys()
            if shared:
                pair = [Cell({seed: side[seed] for seed in shared}) for side in (other, default[target])]
                difference = mean(default[target][seed].f1 - other[seed].f1 for seed in shared)
                chance = p_value(*pair) or 0.0
                told = f"p = {chance:.3f}" if chance >= 0.001 else "p < 0.001"
                lines.append(
                    f"default - {method}, {target}: {difference:+.2f}, {told} over sentences "
                    f"(seeds {', '.join(map(str, sorted(shared)))})"
                )
    return lines


if __name__ == "__main__":
    sys.exit(main())
