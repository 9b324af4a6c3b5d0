"""Pooled soft labels against the formula at the head of `xlner/soft_labels/pooling.py`, worked out by hand."""

import math

import numpy as np
import pytest

from xlner.config.load import VARIANTS, load_recipe
from xlner.config.schema import PoolingRecipe
from xlner.errors import RecipeError
from xlner.soft_labels.pooling import (
    DOUBT,
    KEYS,
    Capitals,
    Outside,
    TagMeans,
    entity_margins,
    outline,
    outside_shift,
    pool,
    pooled_probs,
    shift_outside,
    strength_for,
)
from xlner.soft_labels.steps import denoising_steps

SENTENCES = [["Kiel", "ist", "kalt"], ["In", "Kiel"], ["Kiel", ",", "Ulm"]]
# Tags: O, B-LOC.
PROBS = [
    np.array([[0.2, 0.8], [0.9, 0.1], [0.9, 0.1]]),
    np.array([[0.8, 0.2], [0.6, 0.4]]),
    np.array([[0.4, 0.6], [0.9, 0.1], [0.0, 0.0]]),  # the teacher could not see `Ulm`
]
NONE = dict.fromkeys(KEYS, 0.0)


def text():
    return zip(SENTENCES, PROBS, strict=True)


def pooled(weights, *, source_share=0.0, strength=0.0, temperature=1.0):
    outside = Outside(0, source_share, strength)
    return list(pooled_probs(text, NONE | weights, outside, temperature=temperature))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Kiel", "A"),
        ("kiel", "a"),
        ("ǅep", "A"),
        ("北京", "北京"),
        ("दिल्ली", "दिल्ली"),
        ("3.", "0"),
        (",", ","),
        ("(a", "(a"),
        ("", ""),
    ],
)
def test_an_outline_tells_capitals_letters_digits_and_signs_apart(word, expected):
    assert outline(word) == expected


@pytest.mark.parametrize(
    ("words", "few"),
    [
        (["Kiel", "liegt", "am", "Meer"], False),
        (["kiel"] * 98 + ["Kiel"] * 2, True),
        (["kiel"] * 97 + ["Kiel"] * 3, False),
        (["北", "京"] * 98 + ["Kiel"] * 4, True),
        ([], True),
    ],
)
def test_capitals_are_few_where_hardly_a_word_begins_with_one(words, few):
    capitals = Capitals()

    capitals.add(words)

    assert capitals.are_few == few


@pytest.mark.parametrize(
    "words", [["北", "在", "海"], ["दिल्ली", "में", "है"], ["კიევი", "არის", "აქ"], ["kiel", "is", "here"]]
)
@pytest.mark.parametrize("kind", sorted(KEYS))
def test_a_text_without_capitals_is_not_pooled(words, kind):
    # One of three words is a name; pooled by outlines with the others it would be lost.
    rows = np.array([[0.1, 0.9], [0.99, 0.01], [0.99, 0.01]])

    (found,) = pooled_probs(lambda: iter([(words, rows)]), NONE | {kind: 0.9}, Outside(0, 0.0, 0.0))

    np.testing.assert_allclose(found, rows, atol=1e-5)


def test_keys_name_the_word_its_neighbours_and_the_outlines_around():
    keys = {name: kind(["Kiel", ",", "ulm"]) for name, kind in KEYS.items()}

    assert keys == {
        "word": ["Kiel", ",", "ulm"],
        "left": ["\tA", "Kiel\t,", ",\ta"],
        "right": [",\tA", "ulm\t,", "\ta"],
        "outline": ["\t\tA\t,\ta", "\tA\t,\ta\t", "A\t,\ta\t\t"],
    }


def test_a_mean_is_that_of_the_other_words_with_the_key():
    means = TagMeans(2)
    for row in ([0.2, 0.8], [0.6, 0.4], [0.4, 0.6]):
        means.add(["Kiel"], np.array([row]))
    means.add(["Ulm"], np.array([[1.0, 0.0]]))

    found, counts = means.of_others(["Kiel", "Ulm"], np.array([[0.2, 0.8], [1.0, 0.0]]))

    np.testing.assert_allclose(found, [[0.5, 0.5], [0.0, 0.0]])
    assert counts.tolist() == [2, 0]


def test_means_hold_more_keys_than_were_made_room_for():
    means = TagMeans(2)
    keys = [str(number) for number in range(5000)]
    means.add(keys, np.full((5000, 2), 0.5))
    means.add(keys, np.full((5000, 2), 0.5))

    found, counts = means.of_others(keys, np.full((5000, 2), 0.5))

    assert set(counts.tolist()) == {1}
    np.testing.assert_allclose(found, 0.5)


def test_a_word_is_pooled_as_the_formula_says():
    first = pooled({"word": 0.6})[0][0]

    # `Kiel` stands at two other places, with means 0.5 and 0.5; its weight there is 0.6 * 2 / (2 + DOUBT).
    share = 0.6 * 2 / (2 + DOUBT)
    powers = [0.2 ** (1 - share) * 0.5**share, 0.8 ** (1 - share) * 0.5**share]
    np.testing.assert_allclose(first, np.array(powers) / sum(powers), rtol=1e-4)


def test_several_kinds_of_places_share_what_the_word_itself_gives_up():
    probs, means = np.array([[0.2, 0.8]]), np.array([[[0.5, 0.5]], [[0.9, 0.1]]])

    found = pool(probs, means, np.array([[2], [6]]), [0.4, 0.4])

    shares = [0.4 * 2 / 4, 0.4 * 6 / 8]
    powers = [
        own ** (1 - sum(shares)) * one ** shares[0] * other ** shares[1]
        for own, one, other in ((0.2, 0.5, 0.9), (0.8, 0.5, 0.1))
    ]
    np.testing.assert_allclose(found[0], np.array(powers) / sum(powers), rtol=1e-4)


def test_a_word_without_like_places_stays_as_it_is():
    np.testing.assert_allclose(pooled({"word": 1.0})[0][1], [0.9, 0.1], rtol=1e-4)


def test_a_word_that_the_teacher_could_not_see_keeps_its_zeros_and_has_no_say():
    weights = dict.fromkeys(KEYS, 0.25)

    results = pooled(weights, source_share=0.9, strength=1.0)

    assert results[2][2].tolist() == [0.0, 0.0]
    assert all(
        np.allclose(result.sum(axis=1)[probs.any(axis=1)], 1.0) for result, probs in zip(results, PROBS, strict=True)
    )


def test_weights_of_zero_change_nothing():
    for result, probs in zip(pooled({}), PROBS, strict=True):
        np.testing.assert_array_equal(result, probs)


def test_a_temperature_below_one_sharpens():
    first = pooled({}, temperature=0.5)[0][0]

    np.testing.assert_allclose(first, [0.04 / 0.68, 0.64 / 0.68], rtol=1e-4)


def test_the_margin_is_the_distance_of_the_best_entity_tag_from_o():
    found = entity_margins(np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]), 0)

    np.testing.assert_allclose(found, [math.log(0.3 / 0.5), math.log(0.7 / 0.1)], rtol=1e-3)


@pytest.mark.parametrize(("strength", "quantile"), [(0.5, 3), (1.0, 4)])
def test_the_shift_is_the_margin_up_to_which_the_source_has_o(strength, quantile):
    # O is chosen for 2 of 5 words; in the source for 4 of 5.
    margins = np.array([-3.0, -1.0, 0.5, 1.0, 2.0])

    shift = outside_shift(margins, 0.8, strength)

    assert shift == pytest.approx(np.quantile(margins, quantile / 5))


def test_a_doubtful_label_is_shifted_fully_and_a_sure_one_hardly():
    probs = np.array([[0.3, 0.6, 0.1], [0.2, 0.4, 0.4], [0.02, 0.98, 0.0]])

    shifted = shift_outside(probs, 0, 1.0)

    # By min(1, 1.5 (1 - max p)): 0.6, 0.9 and 0.03 of the shift.
    odds = shifted[:, 0] / shifted[:, 1]
    np.testing.assert_allclose(odds, probs[:, 0] / probs[:, 1] * np.exp([0.6, 0.9, 0.03]), rtol=1e-3)


@pytest.mark.parametrize(("sureness", "strength"), [(0.95, 1.0), (0.9, 1.0), (0.8, 1.2), (0.7, 1.4), (0.3, 1.45)])
def test_the_less_sure_a_teacher_is_the_more_it_is_pooled(sureness, strength):
    assert strength_for(sureness) == pytest.approx(strength)


@pytest.mark.parametrize("given", ["much", "-1", "inf", "nan"])
def test_a_strength_that_is_no_number_is_refused(given):
    with pytest.raises(RecipeError, match=r"pooling.strength is .*; it must be auto or a number from 0 on"):
        load_recipe("distill", ["target=de", f"pooling.strength={given}"])


def test_a_text_with_enough_o_is_not_shifted():
    assert outside_shift(np.array([-1.0, -1.0, 1.0]), 0.5, 1.0) == 0.0


def test_a_source_share_that_is_not_known_shifts_nothing():
    for result, probs in zip(pooled({}, source_share=0.0, strength=1.0), PROBS, strict=True):
        np.testing.assert_array_equal(result, probs)


def test_a_text_without_sentences_can_be_pooled():
    assert not list(pooled_probs(lambda: [], NONE, Outside(0, 0.8, 1.0)))


def test_each_kind_of_keys_has_a_weight_in_the_recipe():
    assert PoolingRecipe().weights.keys() == KEYS.keys()


def test_weights_above_one_together_are_refused():
    with pytest.raises(
        RecipeError, match=r"pooling: .* strength of up to 1.45, add up to 1.305; they may be 1 together"
    ):
        load_recipe("distill", ["target=de", "pooling.word=0.45"])


def test_weights_that_a_fixed_strength_keeps_below_one_are_taken():
    recipe = load_recipe("distill", ["target=de", "pooling.word=0.45", "pooling.strength=1"])

    assert recipe.pooling.fixed_strength == 1.0


@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - {"pooled"}))
def test_the_other_variants_do_not_pool(variant):
    recipe = load_recipe("distill", ["target=de", f"variant={variant}"])

    assert not denoising_steps(recipe.denoising)
