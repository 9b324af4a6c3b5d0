import numpy as np
import pytest

from xlner.tags import Span
from xlner.web.agreement import (
    AGREED,
    NOT_ALL,
    ONLY_ONE,
    OTHER_BORDERS,
    OTHER_TYPE,
    Measured,
    by_name,
    cosine,
    jensen_shannon,
    marks,
    mean_agreement,
    measure,
)


def rows(*probs):
    return np.array(probs, dtype=np.float64)


@pytest.mark.parametrize(
    ("first", "second", "of_cosine", "of_divergence"),
    [
        ((0.25, 0.75), (0.25, 0.75), 1.0, 0.0),
        ((1, 0), (0, 1), 0.0, 1.0),
        # m = (3/4, 1/4): H(m) = 2 - 3/4 log2(3) = 0.81128; minus (1 bit + 0 bits) / 2.
        ((0.5, 0.5), (1, 0), 1 / np.sqrt(2), 0.81128 - 0.5),
        # m = (1/2, 1/2): 1 bit minus H(1/4) = 0.81128; the cosine is (3/16 + 3/16) / (10/16).
        ((0.25, 0.75), (0.75, 0.25), 0.6, 1 - 0.81128),
    ],
)
def test_the_formulas_give_what_a_hand_computes(first, second, of_cosine, of_divergence):
    assert cosine(rows(first), rows(second)) == pytest.approx([of_cosine])
    assert jensen_shannon(rows(first), rows(second)) == pytest.approx([of_divergence], abs=1e-5)
    assert jensen_shannon(rows(second), rows(first)) == pytest.approx([of_divergence], abs=1e-5)


def test_tags_are_matched_by_name_and_what_a_model_lacks_has_no_probability():
    found = by_name(rows((0.1, 0.2, 0.7)), ["O", "B-PER", "B-LOC"], ["B-LOC", "B-GPE", "O", "B-PER"])

    np.testing.assert_array_equal(found, rows((0.7, 0, 0.1, 0.2)))


def test_the_means_are_over_all_words_and_over_words_of_entities_and_leave_out_words_without_probabilities():
    first = Measured(["O", "B-PER"], rows((1, 0), (0, 1), (1, 0), (0, 0)), [(Span("PER", 1, 2), 1.0)], [])
    # The same tags in another order, and one more; the word without probabilities is in an entity.
    second = Measured(
        ["B-LOC", "B-PER", "O"],
        rows((0, 0, 1), (0, 0, 1), (1, 0, 0), (1, 0, 0)),
        [(Span("LOC", 2, 4), 1.0)],
        [],
    )

    of_all, of_entities = mean_agreement(first, second)

    assert of_all == (3, pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert of_entities == (2, pytest.approx(0), pytest.approx(1))


def test_there_is_no_mean_over_no_words():
    nothing = Measured(["O", "B-PER"], np.zeros((0, 2)), [], [])

    assert mean_agreement(nothing, nothing) == ((0, None, None), (0, None, None))


def found(*entities):
    return [Span(*entity) for entity in entities]


def test_each_difference_between_two_models_has_its_mark():
    first = found(("PER", 0, 2), ("LOC", 3, 4), ("ORG", 5, 7), ("PER", 9, 10))
    second = found(("PER", 0, 2), ("ORG", 3, 4), ("ORG", 5, 8), ("LOC", 11, 12))

    assert marks([first, second]) == [
        [AGREED, OTHER_TYPE, OTHER_BORDERS, ONLY_ONE],
        [AGREED, OTHER_TYPE, OTHER_BORDERS, ONLY_ONE],
    ]


def test_what_some_models_found_and_others_did_not_is_no_agreement():
    here, nothing = found(("PER", 0, 2)), found()

    assert marks([here, nothing, here]) == [[NOT_ALL], [], [NOT_ALL]]
    assert marks([here]) == [[AGREED]]
    assert marks([nothing, nothing]) == [[], []]


def test_a_measured_model_gives_the_tags_of_just_these_words(request):
    from xlner.tagger import load_tagger

    tagger = load_tagger(request.getfixturevalue("bert_folder"))
    words = ["Angela", "Merkel", "besuchte", "Kiel", "."]

    measured = measure(tagger, words, rounds=3)

    np.testing.assert_allclose(measured.probs, tagger.probs([words])[0], atol=1e-6)
    assert measured.entities == tagger.spans_in_sentences([words])[0]
    assert len(measured.seconds) == 3
    assert all(seconds > 0 for seconds in measured.seconds)
