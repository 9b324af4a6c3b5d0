"""Precision, recall and F1 of entities: an entity counts if its type and both its ends are right.

Numbers that are reported come from seqeval; our own counts give the same numbers faster and can be added up
over processes. A broken tag sequence is read as conlleval reads it. Scores are in percent.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from seqeval.metrics import classification_report

from xlner.errors import LabelError
from xlner.tags import LabelMap, spans_of

SEQEVAL_AVERAGES = ("micro avg", "macro avg", "weighted avg")


@dataclass(frozen=True)
class Score:
    """Percentages, and `support`: how many such entities the corpus has. What would divide by zero is 0."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Report:
    """Scores of all entities together (micro average) and of each type.

    `unknown_to_model` are types of the corpus that the model cannot predict, each of them a miss;
    `absent_from_corpus` are types of the model that the corpus never has, each prediction of them an error;
    `left_out` are types that a label map takes out of corpus and predictions, so that they count nowhere.
    """

    overall: Score
    types: Mapping[str, Score]
    unknown_to_model: tuple[str, ...] = ()
    absent_from_corpus: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def counted(self) -> tuple[str, ...]:
        """The types whose entities count, in alphabetical order: those that occur, and those that could."""
        return tuple(sorted({*self.types, *self.unknown_to_model, *self.absent_from_corpus}))

    def to_json(self) -> dict[str, Any]:
        """`{"overall": {precision, recall, f1, support}, "types": {TYPE: ...}}`, in percent."""
        return {
            "overall": dict(vars(self.overall)),
            "types": {name: dict(vars(score)) for name, score in self.types.items()},
        }

    def table(self) -> str:
        """A line per type and one for all together, aligned."""
        rows = [*self.types.items(), ("all", self.overall)]
        width = max(len("type"), *(len(name) for name, _ in rows))
        lines = [f"{'type':<{width}}  precision  recall      F1  entities"]
        for name, score in rows:
            numbers = f"{score.precision:9.2f}  {score.recall:6.2f}  {score.f1:6.2f}  {score.support:8d}"
            lines.append(f"{name:<{width}}  {numbers}")
        return "\n".join(lines)

    def notes(self) -> list[str]:
        """What a reader of the numbers must know: the types that only one side has."""
        found = []
        if self.unknown_to_model:
            found.append(f"the model does not know {', '.join(self.unknown_to_model)}: each such entity is a miss")
        if self.absent_from_corpus:
            found.append(f"the corpus has no {', '.join(self.absent_from_corpus)}: each such prediction is an error")
        if self.left_out:
            found.append(f"{', '.join(self.left_out)} left out by the label map; counted: {', '.join(self.counted)}")
        return found


class Evaluation(NamedTuple):
    """Scores, and the tags that they are of, sentence by sentence."""

    report: Report
    gold: list[tuple[str, ...]]
    predicted: list[tuple[str, ...]]


@dataclass(frozen=True)
class EntityCounts:
    """Entities of each type: (right, predicted, in the corpus). Counts of parts of a corpus add up."""

    types: tuple[str, ...]
    rows: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(
        cls, types: Iterable[str], gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]
    ) -> "EntityCounts":
        """Count over sentences; repeated types count once.

        Raises:
            LabelError: If an entity is of none of the types.
            ValueError: If gold and predicted differ in the number of sentences, or of words in one of them.
        """
        right, found, wanted = Counter[str](), Counter[str](), Counter[str]()
        for number, (gold_tags, predicted_tags) in enumerate(zip(gold, predicted, strict=True), 1):
            if len(gold_tags) != len(predicted_tags):
                raise ValueError(f"sentence {number}: {len(gold_tags)} tags, {len(predicted_tags)} predictions")
            gold_spans, predicted_spans = set(spans_of(gold_tags)), set(spans_of(predicted_tags))
            right.update(span.label for span in gold_spans & predicted_spans)
            found.update(span.label for span in predicted_spans)
            wanted.update(span.label for span in gold_spans)
        names = tuple(sorted(set(types)))
        if lost := (found.keys() | wanted.keys()) - set(names):
            raise LabelError(f"found entities of {', '.join(sorted(lost))}; expected {', '.join(names)} alone")
        return cls(names, tuple((right[name], found[name], wanted[name]) for name in names))

    @classmethod
    def from_list(cls, types: Sequence[str], numbers: Sequence[int]) -> "EntityCounts":
        """The inverse of `to_list`, for the same `types`."""
        return cls(tuple(types), tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)))

    def to_list(self) -> list[int]:
        """Three numbers per type, one type after the other: a tensor of them can be summed over processes."""
        return [number for row in self.rows for number in row]

    def __add__(self, other: "EntityCounts") -> "EntityCounts":
        if self.types != other.types:
            raise ValueError(f"counts of types {self.types} and {other.types} do not add up")
        sums = [one + another for one, another in zip(self.to_list(), other.to_list(), strict=True)]
        return EntityCounts.from_list(self.types, sums)

    def report(self) -> Report:
        """The scores of all types that occur on either side."""
        columns = [sum(column) for column in zip(*self.rows, strict=True)] or [0, 0, 0]
        present = {name: row for name, row in zip(self.types, self.rows, strict=True) if any(row)}
        return Report(_score(*columns), {name: _score(*row) for name, row in present.items()})


def score_tags(gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> Report:
    """The scores of predicted tags by our own counts: what `seqeval_report` gives, in less time.

    Raises:
        ValueError: If the two differ in the number of sentences, or of words in one of them.
    """
    gold, predicted = list(gold), list(predicted)
    types = {span.label for tags in (*gold, *predicted) for span in spans_of(tags)}
    return EntityCounts.of(types, gold, predicted).report()


def seqeval_report(gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> Report:
    """The scores of predicted tags as seqeval gives them in its default mode, that of conlleval.

    Source: https://github.com/chakki-works/seqeval, `classification_report`.
    """
    gold_lists, predicted_lists = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    if not any(spans_of(tags) for tags in (*gold_lists, *predicted_lists)):
        return Report(_score(0, 0, 0), {})  # seqeval fails where there is no entity at all
    found = classification_report(gold_lists, predicted_lists, output_dict=True, zero_division=0)
    scores = {
        name: Score(
            100 * float(row["precision"]),
            100 * float(row["recall"]),
            100 * float(row["f1-score"]),
            int(row["support"]),
        )
        for name, row in found.items()
    }
    return Report(scores["micro avg"], {name: score for name, score in scores.items() if name not in SEQEVAL_AVERAGES})


def evaluate_tags(
    types: Sequence[str],
    tags: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    label_map: LabelMap | None = None,
) -> Evaluation:
    """Compare tags that a model predicted, by whatever backend, with those of a corpus, by seqeval.

    Args:
        types: Those that the model knows.
        tags: What the corpus says, in any scheme that `spans_of` reads.
        predicted: What the model says of each sentence, in IOB2.
        label_map: Renames or drops types of the corpus, and of the predictions where they are not yet as wanted.

    Raises:
        LabelError: If model and corpus have no entity type in common.
    """
    of_corpus = label_map or LabelMap({})
    of_model = of_corpus.for_predictions()
    gold = [of_corpus.apply(row) for row in tags]
    unknown, absent = _mapped_types(types, tags, of_corpus)
    left_out = {name for name in types if not of_model.type_of(name)}
    left_out |= {span.label for row in tags for span in spans_of(row) if not of_corpus.type_of(span.label)}
    mapped = [of_model.apply(row) for row in predicted]
    report = seqeval_report(gold, mapped)
    report = replace(
        report, unknown_to_model=unknown, absent_from_corpus=absent, left_out=tuple(sorted(left_out - {*report.types}))
    )
    return Evaluation(report, gold, mapped)


def check_types_in_common(
    types: Sequence[str], tags: Sequence[Sequence[str]], label_map: LabelMap | None = None
) -> None:
    """Refuse a model and a corpus without a common entity type, before anything is tagged.

    Raises:
        LabelError: With the types of both.
    """
    _mapped_types(types, tags, label_map or LabelMap({}))


def _mapped_types(
    types: Sequence[str], tags: Sequence[Sequence[str]], label_map: LabelMap
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entity types that only the corpus has, and those that only the model knows, once both have the map's types.

    Raises:
        LabelError: If both have types, and none in common.
    """
    of_model = label_map.for_predictions()
    known = {of_model.type_of(name) for name in types} - {""}
    present = {span.label for row in tags for span in spans_of(label_map.apply(row))}
    if known and present and not known & present:
        raise LabelError(
            f"the model predicts {', '.join(sorted(known))}, the corpus has {', '.join(sorted(present))}: "
            "no type in common; rename the types of one of them (labels.map, --labels-map)"
        )
    return tuple(sorted(present - known)), tuple(sorted(known - present))


def _score(right: int, predicted: int, gold: int) -> Score:
    precision = 100 * right / predicted if predicted else 0.0
    recall = 100 * right / gold if gold else 0.0
    return Score(precision, recall, 200 * right / (predicted + gold) if predicted + gold else 0.0, gold)
