"""Which windows make a micro-batch, and which sentences meet."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from xlner.train.batches import Plan, parts_within, plan_epoch


def lengths_of(n_windows):
    return np.random.default_rng(0).integers(3, 60, size=n_windows)


def towers(plan):
    return plan.windows[: plan.half].tolist(), plan.windows[plan.half :].tolist()


def flat(plans):
    return [(plan.windows.tolist(), plan.seed) for plan in plans]


def sentence_pairs(plans):
    """Who met whom."""
    return {frozenset(pair) for plan in plans for pair in zip(*towers(plan), strict=False)}


@settings(max_examples=80)
@given(n_windows=st.integers(0, 300), batch_size=st.integers(2, 17), seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_every_window_comes_exactly_once_in_an_epoch(n_windows, batch_size, seed, epoch):
    plans = plan_epoch(lengths_of(n_windows), batch_size, seed, epoch)

    seen = [number for plan in plans for number in plan.windows]
    assert sorted(seen) == list(range(n_windows))


@settings(max_examples=80)
@given(n_windows=st.integers(1, 300), batch_size=st.integers(2, 17))
def test_the_towers_are_equal_or_the_first_has_one_more(n_windows, batch_size):
    plans = plan_epoch(lengths_of(n_windows), batch_size, 0, 0)

    for plan in plans:
        first, second = towers(plan)
        assert 0 <= len(first) - len(second) <= 1
        assert len(plan.windows) <= batch_size


def test_an_epoch_has_as_few_batches_as_possible():
    # One bucket of 32 batches is full, and 9 windows go over: 2 batches more.
    plans = plan_epoch(lengths_of(8 * 32 + 9), batch_size=8, seed=0, epoch=0)

    assert len(plans) == 34


def test_each_epoch_brings_new_pairs():
    first, second = (plan_epoch(lengths_of(64), 8, seed=0, epoch=epoch) for epoch in (0, 1))

    met_again = sentence_pairs(first) & sentence_pairs(second)

    assert len(sentence_pairs(first)) == 32
    assert len(met_again) < 16


def test_the_same_seed_and_epoch_give_the_same_plan():
    assert flat(plan_epoch(lengths_of(50), 8, 3, 2)) == flat(plan_epoch(lengths_of(50), 8, 3, 2))


def test_another_seed_gives_another_plan():
    assert flat(plan_epoch(lengths_of(50), 8, 3, 2)) != flat(plan_epoch(lengths_of(50), 8, 4, 2))


def test_each_batch_has_a_seed_of_its_own():
    seeds = [plan.seed for epoch in (0, 1) for plan in plan_epoch(lengths_of(50), 8, 3, epoch)]

    assert len(set(seeds)) == len(seeds)


def test_windows_of_like_length_meet():
    lengths = np.asarray([5, 50] * 40)

    plans = plan_epoch(lengths, batch_size=8, seed=0, epoch=0)

    assert all(len({*lengths[plan.windows]}) == 1 for plan in plans)


@settings(max_examples=150)
@given(n_windows=st.integers(1, 40), batch_pieces=st.integers(1, 3000), seed=st.integers(0, 99))
def test_a_batch_in_parts_has_the_same_windows_and_no_part_is_larger_than_asked_or_one_pair(
    n_windows, batch_pieces, seed
):
    lengths = lengths_of(n_windows)
    (plan,) = plan_epoch(lengths, 40, seed, 0)

    parts = parts_within(plan, lengths, batch_pieces)

    for tower in (0, 1):
        in_parts = sorted(number for part in parts for number in towers(part)[tower])
        assert in_parts == sorted(towers(plan)[tower])
    for part in parts:
        assert len(part.windows) * lengths[part.windows].max() <= batch_pieces or part.half == 1
    assert len({part.seed for part in parts}) == len(parts)


def test_a_batch_that_fits_is_left_as_it_is():
    lengths = np.full(8, 10)
    (plan,) = plan_epoch(lengths, 8, 0, 0)

    assert flat(parts_within(plan, lengths, 80)) == flat([plan])
    assert [len(part.windows) for part in parts_within(plan, lengths, 79)] == [4, 4]


def test_the_windows_of_a_part_are_of_like_length():
    plan = Plan(np.arange(8), (0, 0, 0))

    short, long = parts_within(plan, np.asarray([50, 5, 50, 5, 5, 50, 5, 50]), 200)

    assert [sorted(part.windows) for part in (short, long)] == [[1, 3, 4, 6], [0, 2, 5, 7]]
