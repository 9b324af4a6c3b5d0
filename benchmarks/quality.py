"""The table of quality in docs/results.md, from the report.json of finished student runs.

    python benchmarks/quality.py RUN...

Prints, for each target and variant, the mean and the standard deviation over seeds of the test F1 of teacher (direct
transfer) and student, and the training seconds.
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any


def main() -> None:
    """Read the reports and print Markdown."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for folder in sys.argv[1:]:
        report = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
        groups[report["target"], report["variant"]].append(report)
    print("| target | variant | seeds | direct transfer | student | difference | seconds of training |")
    print("|---|---|---|---|---|---|---|")
    for (target, variant), reports in sorted(groups.items()):
        teacher = [report["scores"]["teacher"]["overall"]["f1"] for report in reports]
        student = [report["scores"]["student"]["overall"]["f1"] for report in reports]
        gain = [one - another for one, another in zip(student, teacher, strict=True)]
        seconds = [report["training"]["seconds"] for report in reports]
        seeds = ", ".join(str(seed) for seed in sorted(report["seed"] for report in reports))
        print(
            f"| {target} | `{variant}` | {seeds} | {spread(teacher)} | {spread(student)} | {spread(gain, '+')} | "
            f"{statistics.mean(seconds):.0f} |"
        )
    for variant in sorted({variant for _, variant in groups}):
        means = [
            statistics.mean(report["scores"]["student"]["overall"]["f1"] for report in reports)
            for (_, found), reports in groups.items()
            if found == variant
        ]
        print(f"\nmean over targets, {variant}: {statistics.mean(means):.2f}")


def spread(values: list[float], sign: str = "") -> str:
    """Mean and standard deviation, the latter from two values on."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{deviation}"


if __name__ == "__main__":
    main()
