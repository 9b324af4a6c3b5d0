"""A report as one HTML file: no script, nothing loaded from elsewhere, every text of a run escaped."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from xlner import __version__
from xlner.errors import RunError
from xlner.files import check_writable, is_special
from xlner.models.card import UsedLabels
from xlner.notebook import shown, text_html
from xlner.report.charts import Bar, bars, curves, reliability
from xlner.report.gather import RunReport, part_of
from xlner.report.measures import ALL, ERRORS, NOTHING, ErrorTable, Example, overlap
from xlner.tags import Span

# What tells a report of ours from any other file.
MARK = '<meta name="generator" content="xlner report'
MOST_TYPES = 12  # in the table of confusions; the others are one row
AROUND = 9  # words beside an entity that an example shows
KIND_NAMES = {
    "right": "right",
    "type": "wrong type",
    "borders": "wrong borders",
    "both": "wrong type and borders",
    "missed": "missed",
    "invented": "invented",
}


def check_target(out: Path) -> None:
    """Refuse a place for a page, before hours are spent, where something else lies.

    Raises:
        RunError: If it is a folder, a file that is no report of xlner, or where nothing can be written.
    """
    if out.is_dir():
        raise RunError(f"{out} is a folder; expected a file there, or nothing")
    check_writable(out)
    if is_special(out) or not out.exists():
        return
    try:
        with out.open(encoding="utf-8", errors="replace") as file:
            beginning = file.read(2000)
    except OSError as problem:
        raise RunError(f"{out}: cannot be read: {problem.strerror}") from problem
    if beginning and MARK not in beginning:
        raise RunError(f"{out}: is there, and is no report of xlner; give another --out, or remove it")


def page(runs: Sequence[RunReport]) -> str:
    """The page of some runs, in their order."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalize)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"number": _number, "share": _share}
    template = environment.from_string(files("xlner.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        runs=[_RunView(number, run) for number, run in enumerate(runs, 1)],
        mark=Markup(MARK),
        version=__version__,
        types=_all_types(runs),
        tests=sorted({name for run in runs if (name := _test_name(run))}),
        kind_names=KIND_NAMES,
        ALL=ALL,
    )


def _finalize(value: Any) -> Any:
    """Texts of runs, shown as what they are; control characters would be no HTML."""
    return Markup(shown(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def _number(value: Any, digits: int = 2) -> str:
    """A number as a table has it, a dash for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _share(part: Any, whole: Any) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _all_types(runs: Sequence[RunReport]) -> list[str]:
    """Types of all runs by name, in alphabetical order."""
    names = {name for run in runs if run.test for name in run.test.scores} | {
        name for run in runs for found in run.scores.values() for name in found
    }
    return [*sorted(names - {ALL}), *([ALL] if names else [])]


def _test_name(run: RunReport) -> str:
    test = part_of(part_of(run.about, "corpora"), "test") if run.test else None
    return f"{test.get('corpus_name') or test.get('path')} ({test.get('fingerprint')})" if test else ""


class _RunView:
    """What the template asks of a run beyond its fields: charts, examples, tables in their order."""

    def __init__(self, number: int, run: RunReport) -> None:
        self.id, self.run = f"run-{number}", run
        self.test_name = _test_name(run)

    @property
    def title(self) -> str:
        return f"{self.run.name}: {self.run.kind}, {self.run.language}"

    def quoted(self, name: str) -> float | None:
        """F1 of the run's own model on its test set, by type: counted again, or else as the run noted it."""
        if self.run.test:
            return self.run.test.scores[name].f1.value if name in self.run.test.scores else None
        return self.run.scores.get("student", self.run.scores.get("test", {})).get(name)

    @property
    def score_chart(self) -> Markup:
        """F1 by type with intervals; beside it the teacher's."""
        test = self.run.test
        if not test:
            return Markup("")
        # Most frequent first; a chart of more is read by nobody.
        names = sorted(test.scores, key=lambda name: (name == ALL, -test.scores[name].support))
        names = names if len(names) <= MOST_TYPES else [*names[: MOST_TYPES - 1], ALL]
        own = [Bar.of(name, test.scores[name].f1) for name in names]
        groups = {"this model": own}
        if teacher := self.run.scores.get("teacher") if self.run.kind == "student" else None:
            groups = {
                "teacher": [Bar(name, teacher[name]) for name in names if name in teacher],
                "student": own,
            }
        return bars("F1 by type", groups, x_label="F1 in percent; lines: 95 % intervals")

    @property
    def gains(self) -> list[tuple[str, float | None, float | None, float | None]]:
        """For each type F1 of teacher and student, and the difference."""
        teacher, student = self.run.scores.get("teacher"), self.run.scores.get("student")
        if not teacher or not student:
            return []
        names = [*sorted({*teacher, *student} - {ALL}), ALL]
        pairs = [(name, teacher.get(name), student.get(name)) for name in names]
        return [(name, one, two, None if one is None or two is None else two - one) for name, one, two in pairs]

    @property
    def confusion(self) -> tuple[list[str], list[tuple[str, list[int], int]]]:
        """Names of columns, and rows with their sums; the empty name is that of no entity."""
        return _confusion(self.run.test.errors) if self.run.test else ([], [])

    @property
    def examples(self) -> list[tuple[str, int, list[tuple[Markup, Markup]]]]:
        """For each kind of error its number, and examples: what the corpus says, and what the model says."""
        if not self.run.test:
            return []
        errors = self.run.test.errors
        return [(kind, errors.kinds[kind], [_example(one) for one in errors.examples[kind]]) for kind in ERRORS]

    def only(self, side: str) -> list[Markup]:
        """Examples of entities that one of teacher and student finds."""
        found = self.run.teacher.examples.get(side, []) if self.run.teacher else []
        return [_snippet(words, [span], span.start, span.end) for words, span in found]

    @property
    def reliability_charts(self) -> list[Markup]:
        answers = self.run.answers
        if not answers:
            return []
        found = [
            reliability("Reliability of entities", answers.entities),
            reliability("Reliability of words", answers.words),
        ]
        return [chart for chart in found if chart]

    @property
    def curve_charts(self) -> list[Markup]:
        if not self.run.curves:
            return []
        losses, scores = (
            {name: points for name, points in found.items() if len(points) > 1}  # a lone point is no curve
            for found in (self.run.curves.losses, self.run.curves.scores)
        )
        charts = (
            curves("Losses by step", losses, x_label="step", y_label="loss"),
            curves("Scores by step", scores, x_label="step", y_label="percent", y_most=100.0),
        )
        return [chart for chart in charts if chart]

    @property
    def training(self) -> list[tuple[str, Any]]:
        """What training took."""
        training, about = part_of(self.run.about, "training"), self.run.about
        rows = [(name.replace("_", " ").replace(" mib", " (MiB)"), value) for name, value in training.items()]
        more = [(name, about[name]) for name in ("parameters", "seed", "selection", "agreement_f1") if name in about]
        used = [("target labels", str(UsedLabels.of_report(about)))] if "target_labels" in about else []
        return [*rows, *more, *used]

    @property
    def warnings(self) -> list[str]:
        """What the run itself warned of."""
        found = self.run.about.get("warnings")
        return [str(one) for one in found] if isinstance(found, list) else []

    @property
    def versions(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in part_of(self.run.about, "versions").items())


def _confusion(errors: ErrorTable) -> tuple[list[str], list[tuple[str, list[int], int]]]:
    """The table of confusions, of many types the most frequent ones; the others are summed up as `…`."""
    table = errors.confusion
    sizes = {name: sum(row.values()) for name, row in table.items() if name != NOTHING}
    for row in table.values():
        for name in row:
            if name != NOTHING:
                sizes.setdefault(name, 0)
    kept = sorted(sizes, key=lambda name: (-sizes[name], name))[:MOST_TYPES]
    has_others = len(sizes) > len(kept)
    names = [*sorted(kept), *(["…"] if has_others else []), NOTHING]

    def group(name: str) -> str:
        return name if name in kept or name == NOTHING else "…"

    cells = {(one, two): 0 for one in names for two in names}
    for one, row in table.items():
        for two, number in row.items():
            cells[group(one), group(two)] += number
    rows = [(one, [cells[one, two] for two in names]) for one in names]
    return names, [(one, numbers, sum(numbers)) for one, numbers in rows]


def _example(example: Example) -> tuple[Markup, Markup]:
    """The same words with what the corpus says of them, and with what the model says."""
    wrong = example.wrong
    gold, found = ([span for span in spans if overlap(span, wrong)] for spans in (example.gold, example.found))
    first, last = min(span.start for span in (*gold, *found)), max(span.end for span in (*gold, *found))
    return _snippet(example.words, gold, first, last), _snippet(example.words, found, first, last)


def _snippet(words: Sequence[str], marked: Sequence[Span], start: int, end: int) -> Markup:
    """The words from `start` to `end` and some around them, with entities among them marked."""
    first, last = max(0, start - AROUND), min(len(words), end + AROUND)
    places, text = [], "… " if first else ""
    for word in words[first:last]:
        places.append((len(text), len(text) + len(word)))
        text += f"{word} "
    marks = [
        (places[span.start - first][0], places[span.end - 1 - first][1], span.label, span.label) for span in marked
    ]
    return Markup(text_html(text.rstrip(" ") + (" …" if last < len(words) else ""), marks))
