"""Finished runs side by side: mean and spread over seeds, whether a difference may be chance; as tables and a plot.

Runs that differ in nothing but their seed are one setting. Scores come from the predictions that runs keep, so that
they are all counted alike; settings are compared on the same test set, or not at all.
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from xlner.corpora.source import read_corpus
from xlner.errors import RunError, as_code, for_csv, for_markdown, lines_for_terminal
from xlner.models.card import UsedLabels
from xlner.tags import Span, spans_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Keys in which runs of one setting may differ: seeds, places, and how fast a machine works.
_INCIDENTAL = ("seed", "run", "setting", "soft_labels", "teacher", "data", "trackers", "target", "language")
_INCIDENTAL_SECTIONS = ("hardware.", "checkpoint.")
N_RESAMPLES = 2000
_CHUNK = 100  # resamples at a time

Counts = NDArray[np.float64]  # (S, 3): entities right, predicted, in the corpus, for each sentence


@dataclass(frozen=True)
class ScoredRun:
    """A finished run: its recipe, what it was scored on, and its counts of each sentence, by entity type.

    `teachers` are those that the recipe names, `teacher_mark` the fingerprint of what they taught, as far as it is
    known; both are empty for a run that had none. `labelled_teachers` have used labels of its language themselves.
    """

    path: Path
    recipe: Mapping[str, str]
    kind: str  # distill or teacher
    language: str
    seed: int
    corpus: str  # fingerprint
    corpus_name: str
    n_sentences: int
    counts: Mapping[str, Counts]
    transfer_f1: float | None
    seconds: float
    peak_memory_mib: int | None
    teachers: tuple[str, ...] = ()
    teacher_mark: str = ""
    labelled_teachers: tuple[str, ...] = ()

    def has_teacher_of(self, other: "ScoredRun") -> bool:
        """Whether both learnt from the same; where that cannot be told by fingerprints, by the names."""
        if self.teacher_mark and other.teacher_mark:
            return self.teacher_mark == other.teacher_mark
        return self.teachers == other.teachers

    @property
    def all_counts(self) -> Counts:
        """The counts of each sentence, all types together."""
        return np.asarray(sum(self.counts.values(), np.zeros((self.n_sentences, 3))))

    @property
    def f1(self) -> float:
        """Of all entities, in percent."""
        return f1_of(self.all_counts.sum(axis=0))


@dataclass(frozen=True)
class Cell:
    """A setting on one language: its runs by seed."""

    runs: Mapping[int, ScoredRun]


def read_run(path: Path) -> ScoredRun:
    """A finished run with a labelled test set.

    Raises:
        RunError: If it is none, was never scored, or keeps no predictions.
    """
    try:
        text = (path / "report.json").read_text(encoding="utf-8")
        if not text.strip():  # of a machine that stopped at this very moment
            raise RunError(f"{path}: no finished run there (report.json is empty)")
        report = json.loads(text)
        recipe = _flat(yaml.load((path / "recipe.yaml").read_text(encoding="utf-8"), yaml.BaseLoader))
    except OSError as problem:
        raise RunError(f"{path}: no finished run there ({Path(str(problem.filename)).name} is missing)") from problem
    except (ValueError, AttributeError, yaml.YAMLError) as problem:
        raise RunError(f"{path}: its report.json or recipe.yaml is damaged: {problem}") from problem
    predictions = path / "predictions-test.conll"
    if not predictions.is_file():
        raise RunError(f"{path}: keeps no predictions of a test set ({predictions.name}); was there a labelled one?")
    sentences = read_predictions(predictions)
    try:
        return _scored_run(path, recipe, report, len(sentences), sentence_counts(sentences))
    except (KeyError, TypeError) as problem:
        raise RunError(f"{path}: its report.json is damaged: it lacks {problem}") from problem


def _scored_run(
    path: Path, recipe: Mapping[str, str], report: Any, n_sentences: int, counts: Mapping[str, Counts]
) -> ScoredRun:
    teacher = report["scores"].get("teacher")
    corpus = report["corpora"]["test"]
    return ScoredRun(
        path=path,
        recipe=recipe,
        kind="distill" if "target" in report else "teacher",
        language=report.get("target") or report["language"],
        seed=report["seed"],
        corpus=corpus["fingerprint"],
        corpus_name=corpus.get("corpus_name") or "",
        n_sentences=n_sentences,
        counts=counts,
        transfer_f1=teacher["overall"]["f1"] if teacher else None,
        seconds=report["training"]["seconds"],
        peak_memory_mib=report["training"].get("peak_memory_mib"),
        teachers=tuple([name.strip() for name in recipe.get("teacher", "").split(",") if name.strip()]),
        teacher_mark=(report.get("teacher") or {}).get("fingerprint") or "",
        labelled_teachers=UsedLabels.of_report(report).teachers,
    )


class TaggedSentence(NamedTuple):
    """A scored sentence: its words, the entities that the corpus has, and those that were predicted."""

    words: tuple[str, ...]
    gold: frozenset[Span]
    found: frozenset[Span]


def read_predictions(predictions: Path) -> list[TaggedSentence]:
    """The sentences of a file of word, tag and predicted tag.

    Raises:
        CorpusError: If it is no such file.
    """
    gold, guessed = read_corpus(predictions, columns="0,1"), read_corpus(predictions, columns="0,2")
    return [
        TaggedSentence(wanted.words, frozenset(spans_of(wanted.tags or ())), frozenset(spans_of(found.tags or ())))
        for wanted, found in zip(gold, guessed, strict=True)
    ]


def sentence_counts(sentences: Sequence[TaggedSentence]) -> dict[str, Counts]:
    """The counts of each sentence, by entity type."""
    types = sorted({span.label for sentence in sentences for spans in sentence[1:] for span in spans})
    counts = {name: np.zeros((len(sentences), 3)) for name in types}
    for number, (_, wanted, found) in enumerate(sentences):
        for column, spans in enumerate((wanted & found, found, wanted)):
            for span in spans:
                counts[span.label][number, column] += 1
    return counts


def prf(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Precision, recall and F1 in percent, (..., 3), of counts (..., 3): right, predicted, in the corpus."""
    right, predicted, gold = np.moveaxis(np.asarray(totals, dtype=np.float64), -1, 0)

    def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
        return 100 * part / np.where(whole > 0, whole, 1)

    return np.stack([share(right, predicted), share(right, gold), share(2 * right, predicted + gold)], axis=-1)


def f1_of(totals: NDArray[np.float64]) -> float:
    """F1 in percent of counts (3,), as `prf` has them."""
    return float(prf(totals)[2])


def settings_of(runs: Sequence[ScoredRun]) -> dict[str, dict[str, Cell]]:
    """The runs by setting and language; a setting is called after what tells it from the others.

    Raises:
        RunError: If two runs of a setting have one seed, or runs of a language were scored on different test sets.
    """
    corpora: dict[str, ScoredRun] = {}
    for run in runs:
        first = corpora.setdefault(run.language, run)
        if first.corpus != run.corpus:
            raise RunError(
                f"{run.path} was scored on {run.corpus_name or 'a test set'} ({run.corpus}), {first.path} on "
                f"{first.corpus_name or 'another'} ({first.corpus}); only scores on one test set can be compared"
            )
    names = _names(runs)
    table: dict[str, dict[str, dict[int, ScoredRun]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        cell = table[names[run.path]][run.language]
        if run.seed in cell:
            raise RunError(f"{run.path} and {cell[run.seed].path} are one setting with one seed, {run.seed}; leave one")
        cell[run.seed] = run
    return {name: {language: Cell(cell) for language, cell in row.items()} for name, row in table.items()}


def p_value(base: Cell, other: Cell, *, seed: int = 0) -> float | None:
    """How probable a difference as large as this one is by chance, by a paired bootstrap over sentences.

    Sentences are drawn with replacement, the same ones for both settings and all seeds that both have; the
    difference is that of the mean F1 over seeds. Two-sided. None if they share no seed.

    Source: Efron and Tibshirani 1993, section 16.4; Berg-Kirkpatrick et al. 2012 (D12-1091).
    """
    seeds = sorted(base.runs.keys() & other.runs.keys())
    if not seeds:
        return None
    pairs = [[cell.runs[number].all_counts for number in seeds] for cell in (base, other)]
    n_sentences = len(pairs[0][0])
    observed = _mean_f1(pairs[1]) - _mean_f1(pairs[0])
    generator = np.random.default_rng(seed)
    n_beyond = 0
    for start in range(0, N_RESAMPLES, _CHUNK):
        n_drawn = min(_CHUNK, N_RESAMPLES - start)
        draws = generator.multinomial(n_sentences, np.full(n_sentences, 1 / n_sentences), size=n_drawn).astype(float)
        base_f1, other_f1 = (np.mean([prf(draws @ counts)[:, 2] for counts in cell], axis=0) for cell in pairs)
        # Shifted to a mean of 0, the resampled differences show what chance alone does.
        n_beyond += int((np.abs(other_f1 - base_f1 - observed) >= abs(observed)).sum())
    return (n_beyond + 1) / (N_RESAMPLES + 1)


def _mean_f1(cells: Sequence[Counts]) -> float:
    return mean(f1_of(counts.sum(axis=0)) for counts in cells)


def _names(runs: Sequence[ScoredRun]) -> dict[Path, str]:
    """What to call the setting of each run: as its recipe says, or by the keys in which runs differ, with values."""
    names = {}
    for kind in {run.kind for run in runs}:
        alike = [run for run in runs if run.kind == kind]
        teachers = _teacher_names(alike)
        recipes = {
            run.path: {key: value for key, value in run.recipe.items() if not _is_incidental(key)}
            | ({"teacher": teachers[run.path]} if run.teachers else {})
            for run in alike
        }
        keys = sorted({key for recipe in recipes.values() for key in recipe})
        # A key that an older run does not know tells nothing.
        differing = [key for key in keys if len({recipe[key] for recipe in recipes.values() if key in recipe}) > 1]
        # A variant and a kind of student set keys of their own, which need not be told beside their names.
        sets = [key for key in ("variant", "student") if key in differing]
        if sets:
            differing = [key for key in differing if not _follows(recipes.values(), key, sets)]
        short_keys, values = _short_keys(differing), {key: _short_values(recipes.values(), key) for key in differing}
        for run in alike:
            told = ", ".join(
                f"{short_keys[key]}={values[key].get(recipes[run.path].get(key, '-'), '-')}" for key in differing
            )
            names[run.path] = told or ("supervised" if kind == "teacher" else f"variant={run.recipe.get('variant')}")
            if kind == "teacher" and told:
                names[run.path] = f"supervised, {told}"
            names[run.path] = run.recipe.get("setting") or names[run.path]
    return names


def _teacher_names(runs: Sequence[ScoredRun]) -> dict[Path, str]:
    """Short names of the teachers of each run, as in `en+names.jsonl`.

    As a rule there is one for each seed, `en-0`, `en-1` and so on, which together are called `en`. Longer names are
    taken where these are one and the same for teachers that differ at one seed.
    """
    ways: list[Callable[[str], str]] = [
        lambda name: re.sub(r"(?<=.)[-_.](s|seed)?[-_.]?\d{1,4}$", "", _folder_name(name)),
        _folder_name,
        lambda name: name,
    ]
    names: dict[Path, str] = {}
    for way in ways:
        names = {run.path: "+".join(map(way, run.teachers)) for run in runs}
        marks: dict[tuple[str, str, int], set[str]] = defaultdict(set)
        for run in runs:
            if run.teacher_mark:
                # Of one text: soft labels of several teachers have a fingerprint of their own for each.
                marks[names[run.path], run.language, run.seed].add(run.teacher_mark)
        if all(len(found) == 1 for found in marks.values()):
            break
    return names


def _folder_name(name: str) -> str:
    """The last part of a path that says something: the run's name, where it is the `model` of a run."""
    path = Path(name)
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, where no other key has the same one."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)}


def _short_values(recipes: Iterable[Mapping[str, str]], key: str) -> dict[str, str]:
    """What to call each value of a key: paths go by their last part where that tells them apart."""
    values = sorted({recipe[key] for recipe in recipes if key in recipe})
    short = [_folder_name(value) or value if "/" in value else value for value in values]
    return dict(zip(values, short if len(set(short)) == len(values) else values, strict=True))


def _follows(recipes: Iterable[Mapping[str, str]], key: str, sets: Sequence[str]) -> bool:
    """Whether a key has one value for each combination of other keys, in all recipes."""
    values: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for recipe in recipes:
        values[tuple(recipe.get(name, "") for name in sets)].add(recipe.get(key, ""))
    return key not in (*sets, "teacher") and all(len(found) == 1 for found in values.values())


def _is_incidental(key: str) -> bool:
    return key in _INCIDENTAL or key.startswith(_INCIDENTAL_SECTIONS)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": str(value)}
    return flat


# Settings and languages as Markdown, CSV and a plot.


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
    for told, uses in _TARGET_LABELS.items():
        runs_of = {name: [run for cell in row.values() for run in cell.runs.values()] for name, row in table.items()}
        if names := sorted(name for name, of_name in runs_of.items() if any(map(uses, of_name))):
            lines.append(f"{told}: {', '.join(map(as_code, names))}.")
    if with_p:
        lines.append("p: paired bootstrap over sentences, of the mean over shared seeds, two-sided.")
    if any(f"({OTHER_TEACHER})" in line for line in lines):
        lines.append(f"({OTHER_TEACHER}): the two learnt from different teachers; the difference may be that of these.")
    for language in languages:
        run = next(run for run in runs if run.language == language)
        corpus = for_markdown(f"{run.corpus_name or run.path} (fingerprint {run.corpus})")
        lines.append(f"{for_markdown(language)}: {corpus}")
    return lines


# How a run may have used labels of its target language, for a result table.
_TARGET_LABELS: dict[str, Callable[[ScoredRun], bool]] = {
    "Chosen by labels of the target language (selection=target)": lambda run: run.recipe.get("selection") == "target",
    "Learnt from labels of the target language (gold=)": lambda run: bool(run.recipe.get("gold")),
    "Learnt from a teacher that used labels of the target language": lambda run: bool(run.labelled_teachers),
}


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
                    for kind, total in [*totals.items(), ("all", sum(totals.values(), np.zeros(3)))]:
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
