"""Consistency among neighbours against the formula of `xlner/soft_labels/neighbours.py`, worked out by hand."""

import math
import sys
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import torch
from runs import DISTILL, brief, run_well

from xlner.config.load import load_recipe
from xlner.errors import RecipeError
from xlner.soft_labels.neighbours import (
    BLOCK_SIZE,
    SEARCHES,
    blocks,
    check_search,
    consistency,
    consistency_weights,
    type_probs,
)
from xlner.soft_labels.steps import check_denoising
from xlner.soft_labels.store import SoftLabels

TAGS = ("O", "B-LOC", "I-LOC", "B-PER")
HERE = [name for name in SEARCHES if name != "faiss" or find_spec("faiss")]


def units(n_words, seed=0):
    vectors = torch.randn(n_words, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("n_neighbours", [1, 5, 39])
def test_a_search_finds_the_nearest_other_words(name, n_neighbours):
    vectors = units(40)

    found = SEARCHES[name](vectors, n_neighbours)(range(10, 25))

    similar = vectors @ vectors.T
    for row, word in zip(found, range(10, 25), strict=True):
        others = sorted((other for other in range(40) if other != word), key=lambda other: -similar[word, other])
        assert sorted(row.tolist()) == sorted(others[:n_neighbours])


@pytest.mark.parametrize("name", HERE)
def test_words_with_equal_vectors_are_neighbours_of_each_other(name):
    found = SEARCHES[name](units(1).repeat(6, 1), 3)(range(6))

    assert found.shape == (6, 3)
    assert all(word not in row.tolist() and len(set(row.tolist())) == 3 for word, row in enumerate(found))


@pytest.mark.parametrize("n_words", [1, 5000, 1_000_000])
def test_blocks_hold_each_word_once_and_bounded_similarities(n_words):
    found = blocks(n_words)

    assert (found[0].start, found[-1].stop) == (0, n_words)
    assert all(one.stop == other.start for one, other in pairwise(found))
    assert all(0 < len(block) * n_words <= BLOCK_SIZE for block in found)


def test_a_text_without_words_has_no_blocks():
    assert blocks(0) == []


def test_probabilities_of_b_and_i_of_a_type_are_added_up():
    by_type, type_of_tag = type_probs(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), TAGS)

    torch.testing.assert_close(by_type, torch.tensor([[0.1, 0.5, 0.4]]))
    assert type_of_tag.tolist() == [0, 1, 1, 2]


def test_consistency_is_the_mean_probability_that_neighbours_have_the_type():
    by_type = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])

    found = consistency(by_type, torch.tensor([0, 1]), torch.tensor([[1, 2], [0, 2]]))

    torch.testing.assert_close(found, torch.tensor([0.4, 0.45]))


def test_weights_follow_the_sigmoid_of_the_distance_from_the_mean_of_the_tag():
    values = torch.tensor([0.8, 0.4, 0.3])

    found = consistency_weights(values, torch.tensor([0, 0, 1]), slope=6.0)

    # Tag 0: ratios 1 and 0.5, mean 0.75; tag 1 has one word, which is the most consistent of its tag.
    best, other = (1 / (1 + math.exp(-6 * distance)) for distance in (0.25, -0.25))
    torch.testing.assert_close(found, torch.tensor([1.0, other / best, 1.0]))


def test_a_slope_of_zero_trusts_all_words_alike():
    assert consistency_weights(torch.tensor([0.8, 0.0]), torch.tensor([0, 0]), slope=0.0).tolist() == [1.0, 1.0]


def test_a_tag_that_no_neighbour_has_leaves_its_words_alike():
    assert consistency_weights(torch.zeros(3), torch.tensor([1, 1, 1]), slope=6.0).tolist() == [1.0, 1.0, 1.0]


@pytest.fixture
def without_faiss(monkeypatch):
    """An installation without the extra, whether or not this one has it."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("xlner.soft_labels.neighbours.find_spec", lambda name: None)


def test_faiss_that_is_not_installed_is_told_before_anything_is_loaded(without_faiss):
    recipe = load_recipe("distill", ["target=de", "denoising=neighbours", "neighbours.search=faiss"])

    with pytest.raises(RecipeError, match=r"faiss is not installed: pip install 'xlner\[faiss\]', or set .*=exact"):
        check_denoising(recipe)


def test_the_exact_search_needs_no_faiss(without_faiss):
    check_search("exact")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is not installed")
def test_a_student_learns_from_neighbours_that_faiss_found(learning, tmp_path):
    for search in ("exact", "faiss"):
        steps = ("denoising=neighbours", f"neighbours.search={search}", f"run={search}", f"soft_labels={search}")
        run_well(DISTILL, *brief(learning), *steps, cwd=tmp_path)

    exact, found = (SoftLabels(next((tmp_path / search).glob("neighbours-*"))) for search in ("exact", "faiss"))
    for number in range(len(exact)):
        np.testing.assert_allclose(found.weights(number), exact.weights(number), atol=2e-3)
