"""The CRF against brute force: every tag sequence of short sentences, one by one."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlner.backends import Marginals
from xlner.decoding import penalties
from xlner.models.compact import Crf
from xlner.tags import LabelSet, spans_of

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def random_crf(seed: int) -> Crf:
    torch.manual_seed(seed)
    crf = Crf(TAGS)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter, std=1.5)
    return crf


def is_valid(sequence: tuple[int, ...]) -> bool:
    before = "O"
    for number in sequence:
        tag = TAGS[number]
        if tag.startswith("I-") and before[1:] != tag[1:]:
            return False
        before = tag
    return True


def weights_of_sequences(crf: Crf, emissions: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The log weight of each valid sequence of one sentence, from its emissions (W, C), by the definition."""
    found = {}
    pairs, first, last = (part.detach() for part in (crf.transitions, crf.first, crf.last))
    for sequence in filter(is_valid, product(range(len(TAGS)), repeat=len(emissions))):
        weight = first[sequence[0]] + last[sequence[-1]]
        weight = weight + sum(emissions[word, tag] for word, tag in enumerate(sequence))
        weight = weight + sum(pairs[step] for step in pairwise(sequence))
        found[sequence] = float(weight)
    return found


@pytest.mark.parametrize("lengths", [(1,), (4,), (4, 2, 1), (3, 4)])
def test_marginals_are_those_of_all_valid_sequences(lengths):
    crf = random_crf(0)
    emissions = torch.randn(len(lengths), max(lengths), len(TAGS)) * 2
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]

    found = crf.log_marginals(emissions, mask).exp()

    for row, length in enumerate(lengths):
        by_sequence = weights_of_sequences(crf, emissions[row, :length])
        total = np.logaddexp.reduce(list(by_sequence.values()))
        expected = torch.zeros(length, len(TAGS))
        for sequence, weight in by_sequence.items():
            for word, tag in enumerate(sequence):
                expected[word, tag] += np.exp(weight - total)
        torch.testing.assert_close(found[row, :length], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("known", [(True, True, True, True), (True, False, True, False), (False,) * 4])
def test_the_likelihood_sums_over_the_tags_of_words_that_are_not_known(known):
    crf = random_crf(1)
    emissions = torch.randn(1, 4, len(TAGS)) * 2
    tag_ids = torch.tensor([[1, 2, 0, 3]])

    found = crf.log_likelihood(emissions, torch.ones(1, 4, dtype=torch.bool), tag_ids, torch.tensor([known]))

    by_sequence = weights_of_sequences(crf, emissions[0])
    wanted = [
        weight
        for sequence, weight in by_sequence.items()
        if all(tag == right for tag, right, seen in zip(sequence, tag_ids[0].tolist(), known, strict=True) if seen)
    ]
    expected = np.logaddexp.reduce(wanted) - np.logaddexp.reduce(list(by_sequence.values()))
    assert found.item() == pytest.approx(expected, abs=1e-4)


def test_padding_changes_neither_marginals_nor_likelihood():
    crf = random_crf(2)
    emissions, tag_ids = torch.randn(1, 3, len(TAGS)), torch.tensor([[0, 1, 2]])
    padded = torch.cat([emissions, 50 * torch.randn(1, 4, len(TAGS))], dim=1)
    alone, beside = torch.ones(1, 3, dtype=torch.bool), torch.arange(7)[None] < 3
    longer = torch.cat([tag_ids, torch.zeros(1, 4, dtype=torch.long)], dim=1)

    torch.testing.assert_close(crf.log_marginals(padded, beside)[:, :3], crf.log_marginals(emissions, alone))
    torch.testing.assert_close(
        crf.log_likelihood(padded, beside, longer, beside), crf.log_likelihood(emissions, alone, tag_ids, alone)
    )


def test_gradients_of_the_likelihood_are_those_of_finite_differences():
    crf = random_crf(3).double()
    emissions = torch.randn(2, 3, len(TAGS), requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    tag_ids = torch.tensor([[1, 2, 0], [0, 3, 0]])

    crf.log_likelihood(emissions, mask, tag_ids, mask).sum().backward()

    step = 1e-2
    for place in [(0, 0, 1), (0, 2, 4), (1, 1, 3), (1, 2, 2)]:
        moved = []
        for sign in (1, -1):
            changed = emissions.detach().clone()
            changed[place] += sign * step
            moved.append(crf.log_likelihood(changed, mask, tag_ids, mask).sum().item())
        expected = (moved[0] - moved[1]) / (2 * step)
        assert float(emissions.grad[place]) == pytest.approx(expected, abs=1e-3)


def test_the_marginals_of_run_time_are_those_of_training():
    crf = random_crf(4)
    emissions = torch.randn(3, 40, len(TAGS)) * 8  # far enough apart that plain probabilities would underflow
    mask = torch.arange(40) < torch.tensor([40, 7, 1])[:, None]
    of_pairs, of_first = penalties(TAGS)
    scores = [crf.transitions.detach().numpy() + of_pairs, crf.first.detach().numpy() + of_first]

    found = Marginals(*scores, crf.last.detach().numpy())(emissions.numpy(), mask.numpy())

    expected = crf.log_marginals(emissions, mask).exp().detach().numpy()
    np.testing.assert_allclose(np.exp(found)[mask.numpy()], expected[mask.numpy()], atol=1e-4)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(TAGS) - 1), min_size=1, max_size=8))
def test_a_repaired_sequence_is_valid_and_means_the_same_entities(sequence):
    found = Crf(TAGS).valid(torch.tensor([sequence]))[0].tolist()

    assert is_valid(tuple(found))
    assert spans_of([TAGS[tag] for tag in found]) == spans_of([TAGS[tag] for tag in sequence])


def test_tags_of_a_label_set_without_any_b_may_follow_anything():
    of_pairs, of_first = penalties(LabelSet(("O", "I-PER")).tags)

    assert not of_pairs.any()
    assert not of_first.any()
