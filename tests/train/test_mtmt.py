"""The similarity task: which words are compared, and how far pairs are trusted, by hand and for every entry of a table.

The loss of students as a whole stands in `test_distillation_objective.py`.
"""

import math
from itertools import chain

import numpy as np
import pytest
import torch
from conftest import SENTENCES, word_piece_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from xlner.config.schema import PairsRecipe
from xlner.encode import WordEncoder
from xlner.train.batches import Plan
from xlner.train.mtmt import (
    BETAS,
    GAMMAS,
    LabelledPairs,
    agreement,
    cosine_agreement,
    gamma_of_words,
    raised_margin,
    sample_word_pairs,
    similarity_cross_entropy,
    squared_margin,
)
from xlner.train.objectives import ALPHAS, LabelledText, LabelledWords, squared_confidence

OUT, PER = 0, 1
MANY = 20_000
LN2 = math.log(2)


def rng(seed=0):
    return np.random.default_rng(seed)


def as_arrays(rows):
    return [np.asarray(row, dtype=np.int64) for row in rows]


TAG_ROWS = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=4)


@settings(max_examples=150)
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
TEXT = LabelledText(WINDOWS, TAGS, ENCODER.pad_id)


def labelled_batch(numbers, balance=0.5):
    pairs = LabelledPairs(TEXT, PairsRecipe(per_sentence=8, balance=balance), 1.0)
    return pairs.batch(Plan(np.asarray(numbers, dtype=np.int64), (0, 0, 0)))


def test_each_word_carries_its_tag_in_every_window():
    batch = labelled_batch(range(len(WINDOWS)))

    assert len(WINDOWS) > len(WORDS)
    expected = [tag for window in WINDOWS for tag in TAGS[window.sentence][window.word_numbers]]
    assert batch.tag_ids.tolist() == expected
    first_pieces = batch.tokens.input_ids.flatten()[batch.tokens.words].tolist()
    assert first_pieces == [piece for window in WINDOWS for piece in window.piece_ids[window.word_positions]]


def test_a_labelled_pair_joins_a_word_of_each_tower_and_knows_whether_their_tags_are_equal():
    batch = labelled_batch([4, 0, 2, 5, 1])

    n_first = sum(len(WINDOWS[number].word_numbers) for number in (4, 0, 2))
    first, second = batch.word_pairs
    assert len(batch.same_tag) == 24
    assert (first < n_first).all()
    assert ((second >= n_first) & (second < len(batch.tag_ids))).all()
    assert batch.same_tag.tolist() == (batch.tag_ids[first] == batch.tag_ids[second]).tolist()
    assert batch.same_tag.sum() == 12


def test_the_pairs_of_a_plan_are_always_the_same():
    one, other = (labelled_batch([3, 1, 0, 2]) for _ in range(2))

    assert (one.word_pairs == other.word_pairs).all()


def test_without_the_similarity_task_a_batch_knows_of_no_pairs():
    objective = LabelledWords(TEXT)

    batch = objective.batch(Plan(np.arange(4), (0, 0, 0)))

    assert batch._fields == ("tokens", "tag_ids")
    assert objective.counts(batch) == {"recognizer": len(batch.tag_ids)}


@pytest.mark.parametrize(("logit", "target", "nats"), [(0.0, 0.5, LN2), (math.log(3), 1.0, math.log(4 / 3))])
def test_similarity_cross_entropy_by_hand(logit, target, nats):
    loss = similarity_cross_entropy(torch.tensor([logit]), torch.tensor([target]))

    torch.testing.assert_close(loss, torch.tensor([nats]))


def test_a_similarity_that_agrees_gets_no_gradient():
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0)).requires_grad_()

    similarity_cross_entropy(logits, logits.sigmoid()).sum().backward()

    torch.testing.assert_close(logits.grad, torch.zeros(6), atol=1e-7, rtol=0)


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
