"""Losses: values by hand, and what holds for every entry of the table."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlner.models.compact import Crf
from xlner.train.objectives import (
    DISTILLATION_LOSSES,
    mean_squared_error,
    possible_logits,
    soft_cross_entropy,
    soften,
    squared_error,
    squared_logits,
    token_cross_entropy,
)

LN2 = math.log(2)


def random_logits(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", sorted(DISTILLATION_LOSSES))
def test_a_student_that_agrees_with_its_teacher_gets_no_gradient(name, temperature):
    logits = random_logits(2, 3, 5).requires_grad_()
    agreement = logits.detach().softmax(dim=-1)

    DISTILLATION_LOSSES[name](logits, agreement, temperature=temperature).sum().backward()

    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(DISTILLATION_LOSSES))
def test_a_student_that_disagrees_is_drawn_towards_its_teacher(name):
    logits = torch.zeros(1, 1, 2, requires_grad=True)

    DISTILLATION_LOSSES[name](logits, torch.tensor([[[0.9, 0.1]]])).sum().backward()

    assert logits.grad[0, 0, 0] < 0 < logits.grad[0, 0, 1]


@pytest.mark.parametrize("name", sorted(DISTILLATION_LOSSES))
def test_the_teacher_gets_no_gradient(name):
    probs = torch.tensor([[[0.9, 0.1]]], requires_grad=True)

    loss = DISTILLATION_LOSSES[name](torch.zeros(1, 1, 2, requires_grad=True), probs, temperature=2.0)
    loss.sum().backward()

    assert probs.grad is None


@pytest.mark.parametrize("name", sorted(DISTILLATION_LOSSES))
def test_other_label_sets_are_refused_with_both_shapes(name):
    with pytest.raises(ValueError, match=r"\(2, 3, 5\) and teacher_probs \(2, 3, 4\).*share their label set"):
        DISTILLATION_LOSSES[name](torch.zeros(2, 3, 5), torch.zeros(2, 3, 4))


@pytest.mark.parametrize("name", sorted(DISTILLATION_LOSSES))
def test_a_loss_has_one_value_per_position_in_float32(name):
    logits, probs = torch.zeros(2, 3, 5, dtype=torch.bfloat16), torch.full((2, 3, 5), 0.2, dtype=torch.float16)

    loss = DISTILLATION_LOSSES[name](logits, probs)

    assert (loss.shape, loss.dtype) == ((2, 3), torch.float32)


@pytest.mark.parametrize("name", sorted(DISTILLATION_LOSSES))
def test_positions_without_a_teacher_get_no_gradient(name):
    logits = random_logits(1, 2, 3).requires_grad_()
    probs = torch.tensor([[[0.2, 0.3, 0.5], [0.0, 0.0, 0.0]]])

    loss = DISTILLATION_LOSSES[name](logits, probs, temperature=2.0)
    (loss * torch.tensor([[1.0, 0.0]])).sum().backward()

    assert logits.grad[0, 0].abs().min() > 0
    assert logits.grad[0, 1].tolist() == [0, 0, 0]


def test_cross_entropy_is_minus_the_log_of_the_gold_tag():
    logits = torch.tensor([[math.log(1.0), math.log(3.0)], [math.log(1.0), math.log(1.0)]])

    loss = token_cross_entropy(logits, torch.tensor([1, 0]))

    torch.testing.assert_close(loss, torch.tensor([math.log(4 / 3), LN2]))


def test_soft_cross_entropy_by_hand():
    # The student says (1/4, 3/4), the teacher (1/2, 1/2): (ln 4 + ln 4/3) / 2.
    logits = torch.tensor([[[math.log(1.0), math.log(3.0)]]])

    loss = soft_cross_entropy(logits, torch.tensor([[[0.5, 0.5]]]))

    torch.testing.assert_close(loss, torch.tensor([[0.5 * (math.log(4) + math.log(4 / 3))]]))


def test_soft_cross_entropy_at_temperature_two_by_hand():
    # Logits (0, ln 9) at temperature 2 are (1/4, 3/4); the teacher's (1/10, 9/10) become the same; times 4.
    logits = torch.tensor([[[0.0, math.log(9.0)]]])

    loss = soft_cross_entropy(logits, torch.tensor([[[0.1, 0.9]]]), temperature=2.0)

    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    torch.testing.assert_close(loss, torch.tensor([[4 * entropy]]))


def test_squared_error_by_hand():
    # (3/4 - 1/2)^2 + (1/4 - 1/2)^2
    logits = torch.tensor([[[math.log(1.0), math.log(3.0)]]])

    loss = squared_error(logits, torch.tensor([[[0.5, 0.5]]]))

    torch.testing.assert_close(loss, torch.tensor([[0.125]]))


def test_the_error_of_wu_et_al_is_the_mean_over_tags():
    # ((3/4 - 1/2)^2 + (1/4 - 1/2)^2) / 2
    logits = torch.tensor([[[math.log(1.0), math.log(3.0)]]])

    loss = mean_squared_error(logits, torch.tensor([[[0.5, 0.5]]]))

    torch.testing.assert_close(loss, torch.tensor([[0.0625]]))


def test_the_worst_squared_error_is_two():
    loss = squared_error(torch.tensor([[[100.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]]))

    torch.testing.assert_close(loss, torch.tensor([[2.0]]))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_cross_entropy_less_the_teachers_entropy_is_the_kl_divergence(temperature):
    student, teacher = random_logits(2, 3, 5, seed=1), random_logits(2, 3, 5, seed=2)
    teacher_log = (teacher / temperature).log_softmax(dim=-1)

    loss = soft_cross_entropy(student, teacher.softmax(dim=-1), temperature=temperature) / temperature**2

    entropy = -(teacher_log.exp() * teacher_log).sum(dim=-1)
    student_log = (student / temperature).log_softmax(dim=-1)
    divergence = torch.nn.functional.kl_div(student_log, teacher_log, log_target=True, reduction="none").sum(dim=-1)
    torch.testing.assert_close(loss - entropy, divergence, atol=1e-5, rtol=1e-4)


@settings(max_examples=50)
@given(
    logits=st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=7),
    temperature=st.floats(0.01, 100),
)
def test_softened_probabilities_are_the_softmax_of_the_divided_logits(logits, temperature):
    row = torch.tensor([logits])

    softened = soften(row.softmax(dim=-1), temperature)

    expected = (row.double() / temperature).softmax(dim=-1).float()
    torch.testing.assert_close(softened, expected, atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 7.0])
def test_a_row_of_zeros_stays_a_row_of_zeros(temperature):
    softened = soften(torch.zeros(2, 3), temperature)

    assert softened.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_tags_that_a_crf_excludes_are_no_distance():
    crf = Crf(["O", "B-LOC", "I-LOC"])
    marginals = crf.log_marginals(
        torch.tensor([[[1.0, 0.5, 2.0], [0.0, 1.0, 3.0]]]), torch.ones(1, 2, dtype=torch.bool)
    )
    (learnt,) = possible_logits(marginals)

    for loss in (squared_logits, soft_cross_entropy):
        values = loss(learnt, marginals[0].exp())
        assert (values < (1e-9 if loss is squared_logits else 1.1)).all(), values
    assert learnt[0, 2].item() == pytest.approx(math.log(1e-6))
    assert torch.equal(learnt[0, :2], marginals[0, 0, :2])


def test_squared_logits_are_told_from_their_mean():
    probs = torch.tensor([[0.5, 0.25, 0.25]])
    logits = torch.tensor([[3.0, 1.0, 2.0]])

    # ln p less its mean is (2/3, -1/3, -1/3) ln 2; the logits less theirs are (1, -1, 0).
    expected = ((1 - 2 * LN2 / 3) ** 2 + (-1 + LN2 / 3) ** 2 + (LN2 / 3) ** 2) / 3
    assert squared_logits(logits, probs).item() == pytest.approx(expected)
    assert squared_logits(logits + 5, probs).item() == pytest.approx(expected)


def test_a_probability_of_zero_is_a_logit_like_that_of_a_very_small_one():
    found = squared_logits(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))

    assert found.item() == pytest.approx((math.log(1e6) / 2) ** 2)
