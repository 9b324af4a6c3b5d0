"""What a report measures, on cases that are small enough to be worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlner.compare import TaggedSentence, sentence_counts
from xlner.evaluate import Score
from xlner.report.measures import (
    ALL,
    ScoredSpan,
    best_threshold,
    calibration,
    error_table,
    estimated_scores,
    f1_above,
    lenient_scores,
    seen_and_unseen,
)
from xlner.tags import Span, spans_of


def tagged(text, gold, found):
    return TaggedSentence(tuple(text.split()), frozenset(gold), frozenset(found))


# Anna Braun is cut short, Kiel has another type, Ulm is missed, Regen is invented, Nord Kap has neither right.
SENTENCES = [
    tagged("Anna Braun in Kiel", [Span("PER", 0, 2), Span("LOC", 3, 4)], [Span("PER", 0, 1), Span("ORG", 3, 4)]),
    tagged("Ulm im Regen", [Span("LOC", 0, 1)], [Span("LOC", 2, 3)]),
    tagged("Nord Kap", [Span("LOC", 0, 2)], [Span("PER", 1, 2)]),
    tagged("Emil in Wien", [Span("PER", 0, 1), Span("LOC", 2, 3)], [Span("PER", 0, 1), Span("LOC", 2, 3)]),
]


def test_each_entity_is_right_or_an_error_of_one_kind():
    found = error_table(SENTENCES, np.random.default_rng(0))

    assert found.kinds == {"right": 2, "type": 1, "borders": 1, "both": 1, "missed": 1, "invented": 1}
    assert {kind: [one.wrong for one in examples] for kind, examples in found.examples.items()} == {
        "type": [Span("LOC", 3, 4)],
        "borders": [Span("PER", 0, 2)],
        "both": [Span("LOC", 0, 2)],
        "missed": [Span("LOC", 0, 1)],
        "invented": [Span("LOC", 2, 3)],
    }


def test_the_rows_of_the_confusion_add_up_to_the_entities_of_the_corpus():
    found = error_table(SENTENCES, np.random.default_rng(0))

    assert found.confusion == {
        "": {"LOC": 1},
        "LOC": {"ORG": 1, "": 1, "PER": 1, "LOC": 1},
        "PER": {"PER": 2},
    }


@pytest.mark.parametrize(
    ("span", "kind", "words"),
    [
        (Span("ORG", 2, 3), "short", [("- a", 1), ("- c", 1)]),
        (Span("ORG", 0, 4), "long", [("+ x", 1)]),
        (Span("ORG", 0, 3), "shifted", [("+ x", 1), ("- c", 1)]),
    ],
)
def test_wrong_borders_are_too_short_too_long_or_shifted(span, kind, words):
    sentence = tagged("x a b c", [Span("ORG", 1, 4)], [span])

    found = error_table([sentence], np.random.default_rng(0))

    assert found.borders == {name: int(name == kind) for name in ("short", "long", "shifted")}
    assert sorted(found.border_words) == words


def test_an_entity_is_compared_with_the_prediction_that_fits_it_best():
    sentence = tagged("a b c", [Span("PER", 0, 3)], [Span("LOC", 0, 2), Span("PER", 2, 3)])

    found = error_table([sentence], np.random.default_rng(0))

    assert (found.kinds["borders"], found.kinds["both"], found.kinds["invented"]) == (1, 0, 0)


def test_examples_are_as_many_as_asked_for_and_the_same_for_one_seed():
    many = [tagged(f"w{number}", [Span("LOC", 0, 1)], []) for number in range(50)]

    first, second = (error_table(many, np.random.default_rng(3), n_examples=4) for _ in range(2))

    assert len(first.examples["missed"]) == 4
    assert first == second


def test_intervals_of_two_sentences_are_those_of_all_ways_to_draw_them():
    # One is found, one missed: recall is 0, 50 or 100 with odds of 1 : 2 : 1, so that 95 % lie between 0 and 100.
    counts = {"LOC": np.asarray([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])}

    found = estimated_scores(counts, np.random.default_rng(0))

    assert list(found) == ["LOC", ALL]
    assert vars(found["LOC"].recall) == {"value": 50.0, "low": 0.0, "high": 100.0}
    assert found["LOC"].f1.value == pytest.approx(200 / 3)
    assert (found["LOC"].support, found["LOC"].found) == (2, 1)


def test_intervals_follow_the_seed_and_hold_the_score():
    generator = np.random.default_rng(5)
    right = generator.integers(0, 2, size=(200, 1)).astype(float)
    counts = {"PER": np.concatenate([right, np.ones((200, 2))], axis=1)}

    first, again, other = (estimated_scores(counts, np.random.default_rng(seed))["PER"].f1 for seed in (1, 1, 2))

    assert first == again != other
    # The deviation of a share p of 200 is sqrt(p (1 - p) / 200); the interval is 1.96 of it to each side.
    share = right.mean()
    half = 196 * np.sqrt(share * (1 - share) / 200)
    assert (first.value - first.low, first.high - first.value) == pytest.approx((half, half), abs=1.0)


def test_forgiving_scores_are_those_of_the_definitions():
    # 6 predictions, 6 entities. Borders are right for Kiel, Emil, Wien; Anna and Nord Kap overlap: 3 + 2 halves.
    # The type is right for Anna, Emil, Wien.
    found = lenient_scores(SENTENCES)

    assert found["strict"] == pytest.approx((100 * 2 / 6,) * 3)
    assert found["exact"] == pytest.approx((100 * 3 / 6,) * 3)
    assert found["partial"] == pytest.approx((100 * 4 / 6,) * 3)
    assert found["type"] == pytest.approx((100 * 3 / 6,) * 3)


def test_an_entity_is_the_match_of_one_prediction_alone():
    sentence = tagged("a b c", [Span("PER", 0, 3)], [Span("PER", 0, 1), Span("PER", 2, 3)])

    found = lenient_scores([sentence])

    assert found["type"] == pytest.approx((50, 100, 200 / 3))  # the second one is spurious
    assert found["partial"] == pytest.approx((25, 50, 100 / 3))


TAG = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])


@given(st.lists(st.lists(st.tuples(TAG, TAG), min_size=1, max_size=8), min_size=1, max_size=5))
def test_forgiving_scores_are_those_of_nervaluate(rows):
    nervaluate = pytest.importorskip("nervaluate", reason="nervaluate is not installed: pip install nervaluate")
    spans = [[spans_of([pair[side] for pair in row]) for row in rows] for side in (0, 1)]
    sentences = [
        TaggedSentence(("w",) * len(row), frozenset(gold), frozenset(found))
        for row, gold, found in zip(rows, *spans, strict=True)
    ]
    as_dicts = [
        [[{"label": label, "start": start, "end": end - 1} for label, start, end in own] for own in side]
        for side in spans
    ]

    ours = lenient_scores(sentences)

    theirs = nervaluate.Evaluator(*as_dicts, tags=["PER", "LOC"], loader="dict").evaluate()["overall"]
    for name, told in {"strict": "strict", "exact": "exact", "partial": "partial", "type": "ent_type"}.items():
        expected = [100 * getattr(theirs[told], value) for value in ("precision", "recall", "f1")]
        assert ours[name] == pytest.approx(expected)


def test_seen_are_the_entities_whose_very_words_stand_side_by_side_in_the_text():
    # Kiel, Emil and Wien are seen; Anna Braun, Ulm and Nord Kap are not: their words never stand side by side.
    text = [["Kiel", "Anna", "und", "Braun"], ["Emil", "Nord", "Wien"], ["kap", "Kap"]]

    found = seen_and_unseen(SENTENCES, text)

    # Seen: Kiel is wrong, Emil and Wien are right; predicted there: Kiel, Emil, Wien, and the cut Anna, and Kap.
    assert found["seen"][ALL] == Score(100 * 2 / 5, 100 * 2 / 3, 100 * 4 / 8, 3)
    assert found["unseen"][ALL] == Score(0.0, 0.0, 0.0, 3)  # predicted: Regen alone
    assert found["seen"]["LOC"] == Score(100.0, 50.0, 200 / 3, 2)


def test_the_calibration_error_is_the_mean_distance_of_bins_weighed_by_their_answers():
    found = calibration([0.92, 0.98, 0.15, 0.55], [True, False, False, True])

    assert [(one.low, one.count, one.accuracy) for one in found.bins] == [(0.1, 1, 0), (0.5, 1, 1), (0.9, 2, 0.5)]
    assert [one.confidence for one in found.bins] == pytest.approx([0.15, 0.55, 0.95])
    assert found.ece == pytest.approx(2 / 4 * 0.45 + 1 / 4 * 0.15 + 1 / 4 * 0.45)
    assert found.count == 4


def test_each_score_falls_into_one_bin_edges_too():
    found = calibration([0.0, 0.3, 0.7, 1.0], [True] * 4)

    assert [one.low for one in found.bins] == pytest.approx([0.0, 0.3, 0.7, 0.9])
    assert calibration([], []).ece == 0.0


@pytest.mark.parametrize(
    ("found", "n_gold", "expected"),
    [
        # F1 of the first one alone is 2/3, of two 1/2, of three 4/5, of four 4/6, of five 4/7.
        ([(0.9, True), (0.8, False), (0.7, True), (0.3, False), (0.2, False)], 2, (0.5, 80.0)),
        ([(0.2, True), (0.1, True)], 2, (0.0, 100.0)),
        ([(0.5, True), (0.5, False)], 1, (0.0, 200 / 3)),  # of one score both are kept
        ([(0.9, False), (0.8, True)], 1, (0.0, 200 / 3)),
        ([(0.9, False)], 1, (0.0, 0.0)),
        ([], 3, (0.0, 0.0)),
    ],
)
def test_the_best_threshold_is_that_of_the_highest_f1(found, n_gold, expected):
    assert best_threshold(found, n_gold) == pytest.approx(expected)


def test_f1_above_thresholds_counts_each_type_by_its_own():
    found = [ScoredSpan("PER", 0.6, True), ScoredSpan("LOC", 0.6, False), ScoredSpan("LOC", 0.9, True)]

    assert f1_above(found, {}, 2) == pytest.approx(80.0)
    assert f1_above(found, {"LOC": 0.7}, 2) == pytest.approx(100.0)


def test_counts_of_a_report_are_those_of_a_comparison():
    counts = sentence_counts(SENTENCES)

    assert counts["PER"].tolist() == [[0, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]
