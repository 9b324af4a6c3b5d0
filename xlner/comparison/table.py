"""Settings and languages as Markdown, CSV and a plot."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from textwrap import wrap
from typing import TYPE_CHECKING

from xlner.comparison.runs import Cell, ScoredRun, f1_of, p_value
from xlner.errors import RunError
from xlner.escaping import as_code, for_csv, for_markdown, lines_for_terminal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Table = Mapping[str, Mapping[str, Cell]]
TRANSFER = "direct transfer"
OTHER_TEACHER = "other teacher"
LEGEND_WIDTH = 36  # characters in a line
CSV_COLUMNS = (
    *("setting", "language", "seed", "corpus", "type"),
    *("right", "predicted", "in_corpus", "f1", "seconds", "run"),
)


def markdown(table: Table, runs: Sequence[ScoredRun], languages: Sequence[str], base: str) -> list[str]:
    """The lines of a table: settings down, languages across; `base` is the setting that others are tested against."""
    with_p = len(table) > 1
    tested = [f"p against {for_markdown(base)}"] if with_p else []
    head = ["setting", *map(for_markdown, languages), "mean", "over its teacher", *tested, "seeds", "seconds", "MiB"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    transfer = _transfer(runs, languages)
    if any(transfer.values()):
        cells = [_spread(transfer[language]) for language in languages]
        known = [mean(values) for values in transfer.values() if values]
        average = f"{mean(known):.2f}" if len(known) == len(languages) else "-"
        lines.append("| " + " | ".join([TRANSFER, *cells, average, "", *[""] * len(tested), "", "", ""]) + " |")
    for name, row in table.items():
        cells = [
            _spread([run.f1 for run in row[language].runs.values()]) if language in row else "-"
            for language in languages
        ]
        of_all = [run for cell in row.values() for run in cell.runs.values()]
        average = f"{mean(mean(run.f1 for run in cell.runs.values()) for cell in row.values()):.2f}"
        complete = len(row) == len(languages)
        memory = [run.peak_memory_mib for run in of_all if run.peak_memory_mib is not None]
        last = [
            average if complete else "-",
            _gain(of_all),
            *([_tests(table[base], row, languages) if name != base else ""] if with_p else []),
            ", ".join(str(seed) for seed in sorted({run.seed for run in of_all})),
            f"{mean(run.seconds for run in of_all):.0f}",
            str(max(memory)) if memory else "-",
        ]
        lines.append("| " + " | ".join([as_code(name), *cells, *last]) + " |")
    lines += ["", "Test F1 in percent, mean ± standard deviation over seeds. Seconds of training, mean; most memory."]
    if labelled := sorted(
        {
            name
            for name, row in table.items()
            for cell in row.values()
            for run in cell.runs.values()
            if run.recipe.get("selection") == "target"
        }
    ):
        lines.append(
            f"Chosen by labels of the target language (selection=target): {', '.join(map(as_code, labelled))}."
        )
    if with_p:
        lines.append("p: paired bootstrap over sentences, of the mean over shared seeds, two-sided.")
    if any(f"({OTHER_TEACHER})" in line for line in lines):
        lines.append(f"({OTHER_TEACHER}): the two learnt from different teachers; the difference may be that of these.")
    for language in languages:
        run = next(run for run in runs if run.language == language)
        corpus = for_markdown(f"{run.corpus_name or run.path} (fingerprint {run.corpus})")
        lines.append(f"{for_markdown(language)}: {corpus}")
    return lines


def _transfer(runs: Sequence[ScoredRun], languages: Sequence[str]) -> dict[str, list[float]]:
    """The teachers' own scores by language, one for each seed; none where settings have teachers of their own."""
    found: dict[str, dict[int, set[float]]] = {language: {} for language in languages}
    for run in runs:
        if run.transfer_f1 is not None:
            found[run.language].setdefault(run.seed, set()).add(run.transfer_f1)
    return {
        language: [score for of_seed in scores.values() for score in of_seed]
        if all(len(of_seed) == 1 for of_seed in scores.values())
        else []
        for language, scores in found.items()
    }


def _gain(runs: Sequence[ScoredRun]) -> str:
    """How much students are above the (first) teacher that they learnt from, on the average."""
    gains = [run.f1 - run.transfer_f1 for run in runs if run.transfer_f1 is not None]
    return f"{mean(gains):+.2f}" if gains else "-"


def _tests(base: Mapping[str, Cell], row: Mapping[str, Cell], languages: Sequence[str]) -> str:
    tests = []
    for language in languages:
        p = p_value(base[language], row[language]) if language in base and language in row else None
        if p is not None:
            remark = "" if _one_teacher(base[language], row[language]) else f" ({OTHER_TEACHER})"
            tests.append(f"{for_markdown(language)} {_chance(p)}{remark}")
    return ", ".join(tests) or "-"


def _one_teacher(base: Cell, other: Cell) -> bool:
    """Whether the students of either setting had the same teachers, seed by seed; a supervised model has none."""
    pairs = [(base.runs[seed], other.runs[seed]) for seed in base.runs.keys() & other.runs.keys()]
    return all(one.has_teacher_of(two) for one, two in pairs if one.kind == two.kind == "distill")


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _spread(values: Sequence[float]) -> str:
    """Mean and, from two values on, standard deviation."""
    if not values:
        return "-"
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def by_type(table: Table, languages: Sequence[str]) -> list[str]:
    """A table for each entity type."""
    runs = [run for row in table.values() for cell in row.values() for run in cell.runs.values()]
    lines = []
    for kind in sorted({name for run in runs for name in run.counts}):
        head = map(for_markdown, [kind, *languages])
        lines += ["", "| " + " | ".join(head) + " |", "|---" * (1 + len(languages)) + "|"]
        for name, row in table.items():
            cells = [_spread(_type_scores(row[language], kind)) if language in row else "-" for language in languages]
            lines.append(f"| {as_code(name)} | " + " | ".join(cells) + " |")
    return lines


def _type_scores(cell: Cell, kind: str) -> list[float]:
    return [f1_of(run.counts[kind].sum(axis=0)) for run in cell.runs.values() if kind in run.counts]


def write_csv(path: Path, table: Table) -> None:
    """A line for each run and type: counts and scores as they are, for other programs."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for name, row in table.items():
            for language, cell in row.items():
                for seed, run in sorted(cell.runs.items()):
                    totals = {kind: counts.sum(axis=0) for kind, counts in run.counts.items()}
                    for kind, total in [*totals.items(), ("all", sum(totals.values()))]:
                        counts = [int(number) for number in total]
                        score = f"{f1_of(total):.4f}"
                        names = map(for_csv, (name, language, str(seed), run.corpus, kind))
                        writer.writerow([*names, *counts, score, run.seconds, for_csv(str(run.path))])


def draw(table: Table, languages: Sequence[str]) -> "Figure":
    """Bars of settings by language.

    Raises:
        RunError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RunError("--plot needs matplotlib; install it by `pip install xlner[plot]`") from None
    figure = Figure(figsize=(4.5 + 1.2 * len(languages) * max(1, len(table) / 3), 4), layout="constrained")
    axes = figure.subplots()
    width, bars = 0.8 / len(table), []
    for number, row in enumerate(table.values()):
        places = [place + (number - (len(table) - 1) / 2) * width for place in range(len(languages))]
        scores = [
            [run.f1 for run in row[language].runs.values()] if language in row else [0.0] for language in languages
        ]
        errors = [[mean(values) - min(values) for values in scores], [max(values) - mean(values) for values in scores]]
        bars.append(axes.bar(places, [mean(values) for values in scores], width * 0.9, yerr=errors, capsize=2))
    axes.set_xticks(range(len(languages)), [_plain(language) for language in languages])
    axes.set_ylabel("test F1 (%), mean of seeds; lines: lowest and highest")
    # Beside the bars, not on them.
    names = [_plain("\n".join(wrap(name, LEGEND_WIDTH))) for name in table]
    axes.legend(bars, names, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _plain(name: str) -> str:
    """A name that matplotlib draws as it is: no formula between dollars, and no sign that a font lacks."""
    return lines_for_terminal(name).replace("$", r"\$")
