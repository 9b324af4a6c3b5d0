"""Weights: values by hand, and what holds for every entry of the three tables."""

import pytest
import torch

from xlner.train.losses import (
    ALPHAS,
    BETAS,
    GAMMAS,
    agreement,
    cosine_agreement,
    gamma_of_words,
    raised_margin,
    squared_confidence,
    squared_margin,
)

N_PAIRS, N_TAGS = 200, 5
# Each table with inputs of its shapes: alpha of probabilities, beta of similarities, gamma of both.
CHOICES = [
    *(pytest.param(weight, "p", id=f"alpha-{name}") for name, weight in sorted(ALPHAS.items())),
    *(pytest.param(weight, "s", id=f"beta-{name}") for name, weight in sorted(BETAS.items())),
    *(pytest.param(weight, "pps", id=f"gamma-{name}") for name, weight in sorted(GAMMAS.items())),
]


def teacher_outputs(kinds):
    """Random probabilities (`p`) and similarities (`s`), the first of them certain, all wishing for a gradient."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for kind in kinds:
        if kind == "p":
            values = (4 * torch.randn(N_PAIRS, N_TAGS, generator=generator)).softmax(dim=-1)
            values[:2] = torch.eye(N_TAGS)[:2]
        else:
            values = torch.rand(N_PAIRS, generator=generator)
            values[:2] = torch.tensor([0.0, 1.0])
        made.append(values.requires_grad_())
    return made


@pytest.mark.parametrize(("weight", "kinds"), CHOICES)
def test_a_weight_lies_between_zero_and_one_for_each_position(weight, kinds):
    values = weight(*teacher_outputs(kinds))

    assert values.shape == (N_PAIRS,)
    assert values.min() >= 0
    assert values.max() <= 1


@pytest.mark.parametrize(("weight", "kinds"), CHOICES)
def test_a_weight_is_a_float32_whatever_the_teacher_was_stored_in(weight, kinds):
    halves = [values.detach().half() for values in teacher_outputs(kinds)]

    assert weight(*halves).dtype == torch.float32


@pytest.mark.parametrize(("weight", "kinds"), CHOICES)
def test_a_weight_depends_on_its_own_position_alone(weight, kinds):
    outputs = [values.detach() for values in teacher_outputs(kinds)]
    order = torch.randperm(N_PAIRS, generator=torch.Generator().manual_seed(1))

    shuffled = weight(*(values[order] for values in outputs))

    torch.testing.assert_close(shuffled, weight(*outputs)[order])


@pytest.mark.parametrize("name", sorted(ALPHAS))
def test_alpha_takes_probabilities_of_any_leading_shape(name):
    probs = torch.full((2, 3, 4), 0.25)

    assert ALPHAS[name](probs).shape == (2, 3)


@pytest.mark.parametrize(("probs", "alpha"), [([1.0, 0.0], 1.0), ([0.5, 0.5], 0.25), ([0.1, 0.7, 0.2], 0.49)])
def test_alpha_is_the_square_of_the_highest_probability(probs, alpha):
    torch.testing.assert_close(squared_confidence(torch.tensor([probs])), torch.tensor([alpha]))


@pytest.mark.parametrize(("similarity", "beta"), [(0.5, 0.0), (0.0, 1.0), (1.0, 1.0), (0.75, 0.25), (0.25, 0.25)])
def test_beta_is_the_squared_margin_of_the_similarity(similarity, beta):
    torch.testing.assert_close(squared_margin(torch.tensor([similarity])), torch.tensor([beta]))


@pytest.mark.parametrize(("similarity", "beta"), [(0.5, 0.5), (0.75, 0.75), (0.25, 0.75), (1.0, 1.0), (0.0, 1.0)])
def test_the_raised_beta_is_never_below_a_half(similarity, beta):
    torch.testing.assert_close(raised_margin(torch.tensor([similarity])), torch.tensor([beta]))


@pytest.mark.parametrize(
    ("first", "second", "similarity", "gamma"),
    [
        ([1.0, 0.0], [1.0, 0.0], 1.0, 0.731059),  # sigma(1)
        ([1.0, 0.0], [0.0, 1.0], 0.0, 0.5),  # 1 - sigma(0)
        ([0.6, 0.8], [0.8, 0.6], 0.5, 1 - (0.723122 - 0.5)),  # cos = 0.96, sigma(0.96) = 0.723122
    ],
)
def test_the_cosine_gamma_compares_the_squashed_cosine(first, second, similarity, gamma):
    value = cosine_agreement(torch.tensor([first]), torch.tensor([second]), torch.tensor([similarity]))

    torch.testing.assert_close(value, torch.tensor([gamma]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("first", "second", "similarity", "gamma"),
    [
        ([1.0, 0.0], [1.0, 0.0], 1.0, 1.0),  # both say same
        ([1.0, 0.0], [0.0, 1.0], 0.0, 1.0),  # both say different
        ([1.0, 0.0], [1.0, 0.0], 0.0, 0.0),  # they contradict each other
        ([0.5, 0.5], [0.5, 0.5], 0.5, 1.0),  # both are undecided
        ([0.8, 0.2], [0.5, 0.5], 0.9, 0.6),  # 1 - |0.5 - 0.9|
    ],
)
def test_gamma_is_the_agreement_of_recognizer_and_similarity(first, second, similarity, gamma):
    value = agreement(torch.tensor([first]), torch.tensor([second]), torch.tensor([similarity]))

    torch.testing.assert_close(value, torch.tensor([gamma]))


def test_a_word_takes_the_mean_gamma_of_its_pairs_and_one_without_any():
    gamma = torch.tensor([0.2, 0.4, 1.0])

    by_word = gamma_of_words(gamma, torch.tensor([0, 0, 2]), 4)

    torch.testing.assert_close(by_word, torch.tensor([0.3, 1.0, 1.0, 1.0]))


def test_without_pairs_every_word_has_gamma_one():
    by_word = gamma_of_words(torch.zeros(0), torch.zeros(0, dtype=torch.long), 3)

    assert by_word.tolist() == [1, 1, 1]


def test_a_gamma_of_zero_is_not_taken_for_a_word_without_pairs():
    by_word = gamma_of_words(torch.tensor([0.0]), torch.tensor([1]), 2)

    assert by_word.tolist() == [1, 0]
