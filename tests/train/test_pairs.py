"""Which sentences meet, and which of their words are compared."""

from itertools import chain

import numpy as np
import pytest
from conftest import SENTENCES, word_piece_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from xlner.encode import WordEncoder
from xlner.train.batches import LabelledPairs, PairDraw, PairPlan, parts_within, plan_epoch, sample_word_pairs

OUT, PER = 0, 1
MANY = 20_000


def lengths_of(n_windows):
    return np.random.default_rng(0).integers(3, 60, size=n_windows)


def rng(seed=0):
    return np.random.default_rng(seed)


def as_arrays(rows):
    return [np.asarray(row, dtype=np.int64) for row in rows]


def flat(plans):
    return [(plan.first.tolist(), plan.second.tolist(), plan.seed) for plan in plans]


def sentence_pairs(plans):
    """Who met whom."""
    return {frozenset(pair) for plan in plans for pair in zip(plan.first.tolist(), plan.second.tolist(), strict=False)}


@settings(max_examples=80, deadline=None)
@given(n_windows=st.integers(0, 300), batch_size=st.integers(2, 17), seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_every_window_comes_exactly_once_in_an_epoch(n_windows, batch_size, seed, epoch):
    plans = plan_epoch(lengths_of(n_windows), batch_size, seed, epoch)

    seen = [number for plan in plans for number in (*plan.first, *plan.second)]
    assert sorted(seen) == list(range(n_windows))


@settings(max_examples=80, deadline=None)
@given(n_windows=st.integers(1, 300), batch_size=st.integers(2, 17))
def test_the_towers_are_equal_or_the_first_has_one_more(n_windows, batch_size):
    plans = plan_epoch(lengths_of(n_windows), batch_size, 0, 0)

    for plan in plans:
        assert 0 <= len(plan.first) - len(plan.second) <= 1
        assert len(plan.first) + len(plan.second) <= batch_size


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

    assert all(len({*lengths[plan.first], *lengths[plan.second]}) == 1 for plan in plans)


def n_windows_of(plan):
    return len(plan.first) + len(plan.second)


@settings(max_examples=150, deadline=None)
@given(n_windows=st.integers(1, 40), batch_pieces=st.integers(1, 3000), seed=st.integers(0, 99))
def test_a_batch_in_parts_has_the_same_windows_and_no_part_is_larger_than_asked_or_one_pair(
    n_windows, batch_pieces, seed
):
    lengths = lengths_of(n_windows)
    (plan,) = plan_epoch(lengths, 40, seed, 0)

    parts = parts_within(plan, lengths, batch_pieces)

    for tower in ("first", "second"):
        in_parts = sorted(number for part in parts for number in getattr(part, tower))
        assert in_parts == sorted(getattr(plan, tower))
    for part in parts:
        assert 0 <= len(part.first) - len(part.second) <= 1
        pieces = n_windows_of(part) * lengths[[*part.first, *part.second]].max()
        assert pieces <= batch_pieces or len(part.first) == 1
    assert len({part.seed for part in parts}) == len(parts)


def test_a_batch_that_fits_is_left_as_it_is():
    lengths = np.full(8, 10)
    (plan,) = plan_epoch(lengths, 8, 0, 0)

    assert flat(parts_within(plan, lengths, 80)) == flat([plan])
    assert [n_windows_of(part) for part in parts_within(plan, lengths, 79)] == [4, 4]


def test_the_windows_of_a_part_are_of_like_length():
    plan = PairPlan(np.asarray([0, 1, 2, 3]), np.asarray([4, 5, 6, 7]), (0, 0, 0))

    short, long = parts_within(plan, np.asarray([50, 5, 50, 5, 5, 50, 5, 50]), 200)

    assert [sorted([*part.first, *part.second]) for part in (short, long)] == [[1, 3, 4, 6], [0, 2, 5, 7]]


TAG_ROWS = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(
    first=TAG_ROWS, second=TAG_ROWS, per_sentence=st.integers(2, 20), balance=st.floats(0, 1), seed=st.integers(0, 9)
)
def test_half_of_the_pairs_have_equal_tags_and_half_different_ones(first, second, per_sentence, balance, seed):
    first_tags, second_tags = list(chain.from_iterable(first)), list(chain.from_iterable(second))

    one, other = sample_word_pairs(as_arrays(first), as_arrays(second), per_sentence, balance, rng(seed))

    # Every place is that of a word: an index below 0 or beyond the end would fail or be found here.
    assert all(0 <= place < len(first_tags) for place in one)
    assert all(0 <= place < len(second_tags) for place in other)
    equal = [first_tags[a] == second_tags[b] for a, b in zip(one, other, strict=True)]
    in_common, apart = set(first_tags) & set(second_tags), len({*first_tags, *second_tags}) > 1
    if in_common and apart:
        n_half = max(1, per_sentence * len(first) // 2)
        assert (equal.count(True), equal.count(False)) == (n_half, n_half)
    else:
        assert equal == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([[]], [[]]),
        ([[OUT, PER]], [[]]),
        ([[]], [[OUT, PER]]),
        ([[OUT, PER]], []),
        ([[OUT, OUT]], [[OUT]]),
        ([[OUT]], [[PER]]),
    ],
)
def test_there_are_no_pairs_where_they_cannot_be_balanced(first, second):
    one, other = sample_word_pairs(as_arrays(first), as_arrays(second), 8, 0.5, rng())

    assert (one.tolist(), other.tolist()) == ([], [])


# Nine words of ten are O: drawn in proportion to f ** balance, O makes up 1/2, 3/(3+1) or 9/(9+1) of the equal pairs.
@pytest.mark.parametrize(("balance", "share_of_o"), [(0.0, 0.5), (0.5, 0.75), (1.0, 0.9)])
def test_the_balance_says_how_far_o_outnumbers_entity_words(balance, share_of_o):
    tags = np.asarray([OUT] * 9 + [PER])

    one, other = sample_word_pairs([tags], [tags], MANY, balance, rng())

    equal = tags[one] == tags[other]
    assert abs(np.mean(tags[one][equal] == OUT) - share_of_o) < 0.02


# Of three tags with shares 0.8, 0.1, 0.1, a different pair without O has mass 2 * 0.1 * 0.1 of 0.34 at balance 1, and
# 2 of 6 ordered combinations at balance 0.
@pytest.mark.parametrize(("balance", "share"), [(1.0, 0.02 / 0.34), (0.0, 1 / 3)])
def test_pairs_of_two_different_entity_tags_are_drawn_by_the_same_rule(balance, share):
    tags = np.asarray([OUT] * 8 + [1, 2])

    one, other = sample_word_pairs([tags], [tags], MANY, balance, rng())

    different = tags[one] != tags[other]
    without_o = (tags[one] != OUT) & (tags[other] != OUT)
    assert abs(np.mean(without_o[different]) - share) < 0.02


def test_every_word_of_a_tag_is_drawn_equally_often():
    tags = np.asarray([OUT, PER, OUT, OUT, PER])

    one, _ = sample_word_pairs([tags], [tags], MANY, 0.0, rng())

    drawn = np.bincount(one, minlength=5) / len(one)
    np.testing.assert_allclose(drawn, [1 / 6, 1 / 4, 1 / 6, 1 / 6, 1 / 4], atol=0.02)


def test_the_generator_alone_decides_the_draw():
    tags = [np.asarray([OUT] * 9 + [PER])]

    draws = [sample_word_pairs(tags, tags, 32, 0.5, rng(seed)) for seed in (1, 1, 2)]

    texts = [str(draw) for draw in draws]
    assert texts[0] == texts[1] != texts[2]


# Sentences of which the longer ones are cut into windows; a word's tag is told by its first letter.
ENCODER = WordEncoder(word_piece_tokenizer(), max_length=16)
WORDS = [sentence.split() for sentence in SENTENCES]
WINDOWS = list(ENCODER.encode(WORDS))
TAGS = [np.asarray([1 + ord(word[0]) % 3 for word in words]) for words in WORDS]


def labelled_batch(n_first, numbers, draw):
    places = np.asarray(numbers, dtype=np.int64)
    pairs = LabelledPairs(WINDOWS, TAGS, ENCODER.pad_id, draw)
    return pairs.batch(PairPlan(places[:n_first], places[n_first:], (0, 0, 0)))


def test_the_first_piece_of_each_word_carries_its_tag_in_every_window():
    numbers = range(len(WINDOWS))

    batch = labelled_batch(3, numbers, None)

    assert len(WINDOWS) > len(WORDS)
    for row, window in enumerate(WINDOWS):
        tagged = batch.tag_ids[row][batch.tokens.word_mask[row]].tolist()
        assert tagged == TAGS[window.sentence][window.word_numbers].tolist()
    assert not batch.tag_ids[~batch.tokens.word_mask].any()


def test_a_labelled_pair_joins_a_word_of_each_tower_and_knows_whether_their_tags_are_equal():
    batch = labelled_batch(3, [4, 0, 2, 5, 1], PairDraw(per_sentence=8, balance=0.5))

    width = batch.tokens.input_ids.shape[1]
    first, second = batch.word_pairs
    assert len(batch.same_tag) == 24
    assert batch.tokens.word_mask.view(-1)[batch.word_pairs].all()
    assert (first < 3 * width).all()
    assert (second >= 3 * width).all()
    tags = batch.tag_ids.view(-1)
    assert batch.same_tag.tolist() == (tags[first] == tags[second]).tolist()
    assert batch.same_tag.sum() == 12


def test_without_a_similarity_task_there_are_no_pairs():
    batch = labelled_batch(2, [0, 1, 2, 3], None)

    assert batch.word_pairs.shape == (2, 0)
    assert batch.same_tag.shape == (0,)


def test_the_batch_of_a_plan_is_always_the_same():
    one, other = (labelled_batch(2, [3, 1, 0, 2], PairDraw(8, 0.5)) for _ in range(2))

    assert (one.word_pairs == other.word_pairs).all()
    assert (one.tokens.input_ids == other.tokens.input_ids).all()
