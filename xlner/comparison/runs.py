"""Finished runs side by side: mean and spread over seeds, and whether a difference may be chance.

Runs that differ in nothing but their seed are one setting. Scores come from the predictions that runs keep, so that
they are all counted alike; settings are compared on the same test set, or not at all.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from xlner.data.corpus import read_corpus
from xlner.errors import RunError
from xlner.labels import spans_of

# Keys in which runs of one setting may differ: seeds, places, and how fast a machine works.
_INCIDENTAL = ("seed", "run", "setting", "soft_labels", "teacher", "data", "tensorboard", "target", "language")
_INCIDENTAL_SECTIONS = ("hardware.", "checkpoint.")
N_RESAMPLES = 2000
_CHUNK = 100  # resamples at a time

Counts = NDArray[np.float64]  # (S, 3): entities right, predicted, in the corpus, for each sentence


@dataclass(frozen=True)
class ScoredRun:
    """A finished run: its recipe, what it was scored on, and its counts of each sentence, by entity type.

    `teachers` are those that the recipe names, `teacher_mark` the fingerprint of what they taught, as far as it is
    known; both are empty for a run that had none.
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
    n_sentences, counts = sentence_counts(predictions)
    try:
        return _scored_run(path, recipe, report, n_sentences, counts)
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
        # In rounds, the report is that of a round, and its teacher the student of the round before.
        teacher_mark="" if "rounds" in report else (report.get("teacher") or {}).get("fingerprint") or "",
    )


def sentence_counts(predictions: Path) -> tuple[int, dict[str, Counts]]:
    """How many sentences a file of word, tag and predicted tag has, and the counts of each, by entity type."""
    rows = []
    gold, guessed = read_corpus(predictions, columns="0,1"), read_corpus(predictions, columns="0,2")
    for wanted, found in zip(gold, guessed, strict=True):
        rows.append((set(spans_of(wanted.tags or ())), set(spans_of(found.tags or ()))))
    types = sorted({span.label for pair in rows for spans in pair for span in spans})
    counts = {name: np.zeros((len(rows), 3)) for name in types}
    for number, (wanted_spans, found_spans) in enumerate(rows):
        for column, spans in enumerate((wanted_spans & found_spans, found_spans, wanted_spans)):
            for span in spans:
                counts[span.label][number, column] += 1
    return len(rows), counts


def f1_of(totals: NDArray[np.float64]) -> float:
    """F1 in percent of (..., 3) counts: right, predicted, in the corpus."""
    right, predicted, gold = totals
    return float(200 * right / (predicted + gold)) if predicted + gold else 0.0


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
        base_f1, other_f1 = (np.mean([_f1_rows(draws @ counts) for counts in cell], axis=0) for cell in pairs)
        # Shifted to a mean of 0, the resampled differences show what chance alone does.
        n_beyond += int((np.abs(other_f1 - base_f1 - observed) >= abs(observed)).sum())
    return (n_beyond + 1) / (N_RESAMPLES + 1)


def _mean_f1(cells: Sequence[Counts]) -> float:
    return mean(f1_of(counts.sum(axis=0)) for counts in cells)


def _f1_rows(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = totals[:, 1] + totals[:, 2]
    return np.asarray(200 * totals[:, 0] / np.where(sums > 0, sums, 1))


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
