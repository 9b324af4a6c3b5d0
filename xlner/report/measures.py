"""What a report measures beyond F1: intervals, kinds of errors, seen and unseen entities, calibration, thresholds.

All functions are pure, take sentences whose entities are spans of words, and know no run. Scores are in percent,
probabilities and calibration errors in [0, 1].
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlner.compare import N_RESAMPLES, Counts, TaggedSentence, prf
from xlner.evaluate import Score
from xlner.tags import Span

Words = tuple[str, ...]
ALL = "all"  # entities of all types together

# Scores with intervals.


@dataclass(frozen=True)
class Estimate:
    """A score in percent, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EstimatedScore:
    """Scores of the entities of a type; `support`: how many the corpus has, `found`: how many were predicted."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int
    found: int


def estimated_scores(counts: Mapping[str, Counts], generator: np.random.Generator) -> dict[str, EstimatedScore]:
    """The scores of each type and of `ALL`, with percentile intervals of a bootstrap over sentences.

    Args:
        counts: By type (S, 3): entities right, predicted and in the corpus, for each of S sentences.
        generator: Draws the resamples; the same ones for all types.

    Source: Efron and Tibshirani 1993, section 13.3.
    """
    if not counts:
        return {}
    rows = {**counts, ALL: np.asarray(sum(counts.values()))}
    stacked = np.concatenate(list(rows.values()), axis=1)
    n_sentences = len(stacked)
    drawn = np.empty((N_RESAMPLES, stacked.shape[1]))
    for number in range(N_RESAMPLES):
        times = np.bincount(generator.integers(n_sentences, size=n_sentences), minlength=n_sentences)
        drawn[number] = times @ stacked
    found = {}
    for place, (name, own) in enumerate(rows.items()):
        totals = own.sum(axis=0)
        values = prf(totals)
        low, high = np.percentile(prf(drawn[:, 3 * place : 3 * place + 3]), [2.5, 97.5], axis=0)
        precision, recall, f1 = (Estimate(*map(float, ends)) for ends in zip(values, low, high, strict=True))
        found[name] = EstimatedScore(precision, recall, f1, support=int(totals[2]), found=int(totals[1]))
    return found


# Scores that forgive: borders that are not quite right, or types that are wrong.


def lenient_scores(sentences: Iterable[TaggedSentence]) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 in percent by the four measures of SemEval 2013, task 9, as nervaluate counts them.

    `strict`: borders and type; `exact`: borders alone; `partial`: borders alone, an overlap counts half; `type`: the
    type of an entity that overlaps. Each entity of the corpus is the match of one prediction at most.

    Source: nervaluate 1.2.1, `strategies.py`.
    """
    credit = Counter[str]()
    n_found = n_gold = 0
    for sentence in sentences:
        gold, found = sorted(sentence.gold, key=_place), sorted(sentence.found, key=_place)
        n_gold, n_found = n_gold + len(gold), n_found + len(found)
        places = {(span.start, span.end) for span in gold}
        credit["strict"] += len(set(gold) & set(found))
        credit["exact"] += sum((span.start, span.end) in places for span in found)
        credit["partial_halves"] += _partial_halves(gold, found)
        credit["type"] += _right_types(gold, found)
    credit["partial"] = credit.pop("partial_halves", 0)
    halves = {"strict": 1.0, "exact": 1.0, "partial": 0.5, "type": 1.0}
    return {
        name: tuple(map(float, prf(np.asarray([weight * credit[name], n_found, n_gold]))))  # type: ignore[misc]
        for name, weight in halves.items()
    }


def _place(span: Span) -> tuple[int, int]:
    return span.start, span.end


def overlap(one: Span, other: Span) -> int:
    """Words that both cover."""
    return max(0, min(one.end, other.end) - max(one.start, other.start))


def _partial_halves(gold: Sequence[Span], found: Sequence[Span]) -> int:
    """Two for each prediction with right borders, one for each that overlaps an entity that is still free."""
    free, halves = list(gold), 0
    for span in found:
        near = [other for other in free if overlap(span, other)]
        if near:
            best = next((other for other in near if _place(other) == _place(span)), near[0])
            halves += 2 if _place(best) == _place(span) else 1
            free.remove(best)
    return halves


def _right_types(gold: Sequence[Span], found: Sequence[Span]) -> int:
    """Predictions that overlap a free entity of their type: the one whose borders are nearest."""
    free, n_right = list(gold), 0
    for span in found:
        near = [other for other in free if overlap(span, other)]
        same = [other for other in near if other.label == span.label]
        if same:
            n_right += 1
            free.remove(min(same, key=lambda other: abs(other.start - span.start) + abs(other.end - span.end)))
        elif near:
            free.remove(near[0])
    return n_right


# Errors by kind: wrong types, wrong borders, both, missed, invented.


RIGHT, TYPE, BORDERS, BOTH, MISSED, INVENTED = "right", "type", "borders", "both", "missed", "invented"
ERRORS = (TYPE, BORDERS, BOTH, MISSED, INVENTED)
NOTHING = ""  # in the table of confusions: no entity on that side


@dataclass(frozen=True)
class Example:
    """An error: the words of a sentence, what the corpus and the model say of them, and the entity that is wrong."""

    words: Words
    gold: tuple[Span, ...]
    found: tuple[Span, ...]
    wrong: Span


@dataclass(frozen=True)
class ErrorTable:
    """All entities by what became of them.

    Attributes:
        kinds: How many entities of the corpus are of each of `RIGHT`, `TYPE`, `BORDERS`, `BOTH`, `MISSED`, and how many
            predictions are `INVENTED`.
        confusion: By type in the corpus, the types of the predictions that fit best, borders aside; `NOTHING` as the
            predicted type of missed ones, and as the type in the corpus of invented ones.
        borders: Of predictions with the right type and wrong borders: `short`, `long` or `shifted`.
        border_words: The words that most often are too many (`+`) or too few (`-`) at a border, with their numbers.
        examples: Some of each kind.
    """

    kinds: Mapping[str, int]
    confusion: Mapping[str, Mapping[str, int]]
    borders: Mapping[str, int]
    border_words: Sequence[tuple[str, int]]
    examples: Mapping[str, Sequence[Example]]


def error_table(
    sentences: Iterable[TaggedSentence], generator: np.random.Generator, *, n_examples: int = 6
) -> ErrorTable:
    """Sort the entities of a corpus and of a model by how they fit.

    An entity of the corpus is compared with the prediction that fits it best: the same words, else the same type,
    else the most words in common, else the first one.

    Args:
        sentences: With the entities of both.
        generator: Chooses the examples.
        n_examples: Of each kind, at most.
    """
    kinds, borders, border_words = Counter[str](), Counter[str](), Counter[str]()
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    places: dict[str, list[tuple[TaggedSentence, Span]]] = defaultdict(list)
    for sentence in sentences:
        for span in sentence.gold:
            best = _counterpart(span, sentence.found)
            kind = _kind(span, best)
            kinds[kind] += 1
            confusion[span.label][best.label if best else NOTHING] += 1
            if kind != RIGHT:
                places[kind].append((sentence, span))
            if kind == BORDERS and best:
                borders[_border_kind(span, best)] += 1
                border_words.update(_border_words(sentence.words, span, best))
        for span in sentence.found:
            if _counterpart(span, sentence.gold) is None:
                kinds[INVENTED] += 1
                confusion[NOTHING][span.label] += 1
                places[INVENTED].append((sentence, span))
    examples = {}
    for kind in ERRORS:
        chosen = generator.permutation(len(places[kind]))[:n_examples]
        examples[kind] = [_example(*places[kind][number]) for number in chosen]
    return ErrorTable(
        {kind: kinds[kind] for kind in (RIGHT, *ERRORS)},
        {name: dict(row) for name, row in sorted(confusion.items())},
        {name: borders[name] for name in ("short", "long", "shifted")},
        border_words.most_common(10),
        examples,
    )


def _example(sentence: TaggedSentence, wrong: Span) -> Example:
    return Example(
        sentence.words, tuple(sorted(sentence.gold, key=_place)), tuple(sorted(sentence.found, key=_place)), wrong
    )


def _counterpart(span: Span, others: Collection[Span]) -> Span | None:
    near = [other for other in others if overlap(span, other)]
    return max(
        near,
        key=lambda other: (
            _place(other) == _place(span),
            other.label == span.label,
            overlap(span, other),
            -other.start,
        ),
        default=None,
    )


def _kind(span: Span, best: Span | None) -> str:
    if best is None:
        return MISSED
    if _place(span) == _place(best):
        return RIGHT if span.label == best.label else TYPE
    return BORDERS if span.label == best.label else BOTH


def _border_kind(gold: Span, found: Span) -> str:
    if gold.start <= found.start and found.end <= gold.end:
        return "short"
    return "long" if found.start <= gold.start and gold.end <= found.end else "shifted"


def _border_words(words: Words, gold: Span, found: Span) -> list[str]:
    inside_gold, inside_found = set(range(gold.start, gold.end)), set(range(found.start, found.end))
    return [f"+ {words[place]}" for place in inside_found - inside_gold] + [
        f"- {words[place]}" for place in inside_gold - inside_found
    ]


# Entities that stand in the training text, and those that do not.


def seen_and_unseen(sentences: Sequence[TaggedSentence], text: Iterable[Sequence[str]]) -> dict[str, dict[str, Score]]:
    """Scores of the entities whose very words stand side by side in a text (`seen`), and of all others (`unseen`).

    Args:
        sentences: Scored ones.
        text: The sentences that a model was trained on; read once.

    Returns:
        For `seen` and `unseen` the scores by type, and of `ALL`.
    """
    wanted: dict[str, set[Words]] = defaultdict(set)  # by first word
    for sentence in sentences:
        for span in (*sentence.gold, *sentence.found):
            words = sentence.words[span.start : span.end]
            wanted[words[0]].add(words)
    seen = set[Words]()
    for line in text:
        for place, word in enumerate(line):
            if word in wanted:
                met = {words for words in wanted[word] if tuple(line[place : place + len(words)]) == words}
                seen |= met
                wanted[word] -= met  # a name that was met is not looked for again
    totals: dict[tuple[bool, str], NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
    for sentence in sentences:
        gold, found = set(sentence.gold), set(sentence.found)
        for column, spans in enumerate((gold & found, found, gold)):
            for span in spans:
                is_seen = sentence.words[span.start : span.end] in seen
                totals[is_seen, span.label][column] += 1
                totals[is_seen, ALL][column] += 1
    result: dict[str, dict[str, Score]] = {"seen": {}, "unseen": {}}
    for (is_seen, name), own in sorted(totals.items()):
        precision, recall, f1 = map(float, prf(own))
        result["seen" if is_seen else "unseen"][name] = Score(precision, recall, f1, support=int(own[2]))
    return result


# Calibration: whether what is told as 80 % sure is right 8 times in 10.


@dataclass(frozen=True)
class ReliabilityBin:
    """Answers with scores from `low` to `high`: how many, their mean score, and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The bins that hold any answer, and the expected calibration error over them, in [0, 1]."""

    ece: float
    count: int
    bins: Sequence[ReliabilityBin]


def calibration(scores: Sequence[float], is_right: Sequence[bool], *, n_bins: int = 10) -> Calibration:
    """How far scores in [0, 1] are the shares of right answers, in bins of one width.

    ECE = sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|. Without any answer it is 0.

    Source: Guo et al. 2017 (arXiv:1706.04599), equation 3.
    """
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(is_right, dtype=np.float64)
    # The edge belongs to the upper bin; 1.0 to the last one. The hair is for 0.3 * 10, which is below 3.
    numbers = np.minimum((values * n_bins + 1e-9).astype(np.int64), n_bins - 1)
    bins, error = [], 0.0
    for number in range(n_bins):
        chosen = numbers == number
        if count := int(chosen.sum()):
            confidence, accuracy = float(values[chosen].mean()), float(right[chosen].mean())
            error += count / len(values) * abs(accuracy - confidence)
            bins.append(ReliabilityBin(number / n_bins, (number + 1) / n_bins, count, confidence, accuracy))
    return Calibration(error, len(values), bins)


# Thresholds: the least score of an entity of a type, chosen by its F1.


class ScoredSpan(NamedTuple):
    """A predicted entity: its type, its score in [0, 1], whether the corpus has just it."""

    label: str
    score: float
    is_right: bool


def best_threshold(found: Iterable[tuple[float, bool]], n_gold: int) -> tuple[float, float]:
    """The threshold with the highest F1, and that F1 in percent.

    Args:
        found: Score of each predicted entity, and whether it is right.
        n_gold: Entities that the corpus has.

    Returns:
        0.0 where nothing is gained by leaving entities out; else a number halfway between the lowest score that is kept
        and the highest one that is left out. Of thresholds with one F1 the lowest.
    """
    ordered = sorted(found, key=lambda pair: -pair[0])
    best, threshold, n_right = -1.0, 0.0, 0
    for number, (score, is_right) in enumerate(ordered, 1):
        n_right += is_right
        following = ordered[number][0] if number < len(ordered) else None
        if following == score:
            continue  # of one score all are kept, or none
        f1 = 200 * n_right / (number + n_gold)
        if f1 >= best:
            best, threshold = f1, 0.0 if following is None else (score + following) / 2
    return threshold, max(best, 0.0)


def f1_above(found: Iterable[ScoredSpan], thresholds: Mapping[str, float], n_gold: int) -> float:
    """F1 in percent of the entities that reach the threshold of their type (0 where there is none)."""
    kept = [span for span in found if span.score >= thresholds.get(span.label, 0.0)]
    return float(prf(np.asarray([sum(span.is_right for span in kept), len(kept), n_gold]))[2])
