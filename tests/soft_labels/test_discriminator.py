"""The language discriminator of `xlner/soft_labels/discriminator.py`, and the text it needs."""

import shutil

import pytest
import torch

from xlner.config.load import load_recipe
from xlner.errors import RecipeError
from xlner.soft_labels.discriminator import cross_fitted_logits, least_certain, logistic_regression, standardised
from xlner.soft_labels.steps import check_denoising


def clouds(n_source, n_target, distance):
    """Sentence vectors of two languages, whose means lie so far apart along the first column."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(n_source + n_target, 3, generator=generator, dtype=torch.float64)
    is_target = torch.arange(n_source + n_target) >= n_source
    vectors[is_target, 0] += distance
    return vectors, is_target


def test_columns_are_standardised_and_constant_ones_become_zero():
    found = standardised(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))

    assert found.tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_the_regression_is_where_its_gradient_is_zero():
    vectors, is_target = clouds(30, 10, 1.0)

    weights = logistic_regression(vectors, is_target, 0.01).requires_grad_()

    # Both languages weigh one half.
    logits = vectors @ weights[:-1] + weights[-1]
    losses = torch.where(is_target, -torch.nn.functional.logsigmoid(logits), -torch.nn.functional.logsigmoid(-logits))
    loss = 0.5 * losses[is_target].mean() + 0.5 * losses[~is_target].mean() + 0.01 * weights[:-1].square().sum()
    loss.backward()
    torch.testing.assert_close(weights.grad, torch.zeros_like(weights), atol=1e-5, rtol=0)


def test_languages_far_apart_are_told_apart():
    vectors, is_target = clouds(40, 40, 6.0)

    logits = cross_fitted_logits(vectors, is_target, folds=5, penalty=0.01)

    assert ((logits > 0) == is_target).double().mean() > 0.95


def test_a_sentence_has_no_say_in_its_own_score():
    vectors, is_target = clouds(20, 20, 1.0)
    before = cross_fitted_logits(vectors, is_target, folds=4, penalty=0.01)

    is_target[6] = True  # the answer of a source sentence is turned round
    after = cross_fitted_logits(vectors, is_target, folds=4, penalty=0.01)

    same_fold = torch.arange(40) % 4 == 6 % 4
    assert torch.equal(before[same_fold], after[same_fold])
    assert not torch.isclose(before[~same_fold], after[~same_fold]).any()


def test_the_sentences_nearest_to_undecided_are_kept():
    kept = least_certain(torch.tensor([3.0, -0.1, 0.2, -4.0, 0.2]), 0.4)

    assert kept.tolist() == [False, True, True, False, False]


@pytest.mark.parametrize(("share", "expected"), [(0.8, 8), (0.81, 9), (1.0, 10), (0.001, 1)])
def test_the_share_that_is_kept_is_rounded_up(share, expected):
    assert int(least_certain(torch.arange(10.0), share).sum()) == expected


def test_a_data_folder_without_text_of_the_teachers_language_is_refused(bert_folder, small_data, tmp_path):
    shutil.copytree(small_data / "en", tmp_path / "en")
    recipe = load_recipe(
        "distill", ["target=en", f"data={tmp_path}", f"teacher={bert_folder}", "denoising=discriminator"]
    )

    with pytest.raises(RecipeError, match=r"needs text of the teacher's language, de: no corpus at .*unlabelled text"):
        check_denoising(recipe)


def test_a_teacher_that_does_not_say_its_language_is_refused(xlmr_folder, small_data):
    recipe = load_recipe(
        "distill", ["target=de", f"data={small_data}", f"teacher={xlmr_folder}", "denoising=discriminator"]
    )

    with pytest.raises(RecipeError, match=r"its xlner\.json does not say which"):
        check_denoising(recipe)
