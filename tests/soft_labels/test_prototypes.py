"""Class prototypes against the formula at the head of `xlner/soft_labels/prototypes.py`, worked out by hand."""

import math

import pytest
import torch

from xlner.soft_labels.prototypes import LEAST, mean_cosines, momenta, prototype_step, prototypes_of


def direction(degrees):
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_a_prototype_is_the_direction_of_the_weighted_mean():
    units = torch.tensor([direction(0), direction(90)])

    found = prototypes_of(units, torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]))

    torch.testing.assert_close(found, torch.tensor([direction(45), direction(45), [0.0, 0.0]]))


def test_the_mean_cosine_of_a_tag_is_that_of_its_words():
    cosines = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.2, 0.0], [0.3, 0.4, 0.0]])

    found = mean_cosines(cosines, torch.tensor([0, 0, 1]))

    torch.testing.assert_close(found, torch.tensor([0.7, 0.4, 1.0]))


def test_a_step_moves_a_word_to_o_as_the_formula_says():
    # O is 0. Two words point one way and are O; the third does too, but is said to be an entity.
    units = torch.tensor([direction(0), direction(0), direction(0), direction(90)])
    probs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.4, 0.6], [0.0, 1.0]])

    found = prototype_step(units, probs, 0, momentum=0.9, temperature=0.5)

    entity = torch.tensor([0.6, 1.0]) / math.hypot(0.6, 1.0)
    logits = torch.tensor([1.0 / 0.5 + math.log(2.4 / 4), float(entity[0]) / 0.5 + math.log(1.6 / 4)])
    torch.testing.assert_close(found[2], 0.9 * probs[2] + 0.1 * logits.softmax(dim=0))


def test_a_word_far_from_an_entitys_prototype_stays_as_it_is():
    # All words are nearest to the entity's prototype; the last one is farther from it than its words are on average.
    units = torch.tensor([direction(0), direction(10), direction(180), direction(60)])
    probs = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.4]])

    found = prototype_step(units, probs, 0, momentum=0.9, temperature=0.1)

    assert torch.equal(found[3], probs[3])


def test_a_tag_without_words_gains_next_to_nothing():
    units = torch.tensor([direction(0), direction(90)])

    found = prototype_step(units, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), 0, momentum=0.0, temperature=1.0)

    assert found[:, 1].max() <= LEAST * math.e


@pytest.mark.parametrize("temperature", [0.01, 0.1, 10.0])
def test_probabilities_stay_probabilities(temperature):
    generator = torch.Generator().manual_seed(0)
    units = torch.nn.functional.normalize(torch.randn(50, 4, generator=generator), dim=1)
    probs = torch.rand(50, 3, generator=generator).softmax(dim=1)

    for momentum in momenta(0.95, 0.8, 10):
        probs = prototype_step(units, probs, 0, momentum=momentum, temperature=temperature)

    assert probs.min() >= 0
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(50))


def test_momenta_go_from_the_first_to_the_last():
    assert momenta(0.95, 0.8, 4) == pytest.approx([0.95, 0.9, 0.85, 0.8])
    assert momenta(0.95, 0.8, 1) == pytest.approx([0.95])
