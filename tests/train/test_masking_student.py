"""A student that tells hidden pieces beside its soft labels."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, word_piece_tokenizer
from runs import DISTILL, brief, lines_with, run_script, run_well, weights_of
from test_distillation_objective import objective_of, soft_batch

from xlner.config.schema import MaskingRecipe, OptimizationRecipe
from xlner.models.joint import MaskingStudent
from xlner.train.accelerator import make_optimizer
from xlner.train.batches import PairPlan
from xlner.train.loop import Task
from xlner.train.masking import Masker, with_masking

OBJECTIVE = objective_of("calibrated")
PLAN = PairPlan(np.arange(3), np.arange(3, 5), (1, 2, 3))


@pytest.fixture
def student():
    return tiny_model(word_piece_tokenizer(), similarity="calibrated")


def task_of(objective, load):
    """The task of a student of both losses, on one batch."""
    return Task(
        lengths=np.ones(5, dtype=np.int64),
        load=load,
        terms=("similarity", "recognizer_first", "recognizer_second"),
        shares=(1.0, 0.5, 0.5),
        counts=objective.counts,
        loss_sums=objective.loss_sums,
        evaluate=lambda model: (float(sum(values.numel() for values in model.parameters())), {}),
        keep=lambda model: None,
        score_name="agreement_f1",
    )


@pytest.fixture
def task():
    return task_of(OBJECTIVE, lambda plan: soft_batch(extra_padding=2))


@pytest.fixture
def masking(task):
    return with_masking(task, OBJECTIVE, Masker(word_piece_tokenizer(), MaskingRecipe(ratio=0.3)), 0.25)


def test_the_other_terms_are_as_without_masks(student, task, masking):
    batch = masking.load(PLAN)

    sums = masking.loss_sums(MaskingStudent(student).eval(), batch)

    torch.testing.assert_close(sums[:3], task.loss_sums(student, batch.soft), rtol=1e-4, atol=1e-4)
    assert masking.counts(batch).tolist() == [*task.counts(batch.soft).tolist(), len(batch.masked_ids)]
    assert (masking.terms[-1], masking.shares[-1]) == ("masked", 0.25)


def test_the_new_term_is_the_cross_entropy_of_the_hidden_pieces(student, masking):
    model, batch = MaskingStudent(student).eval(), masking.load(PLAN)

    sums = masking.loss_sums(model, batch)

    hidden = []
    hook = student.recognizer.base_model.register_forward_hook(lambda body, given, said: hidden.append(said[0]))
    student(batch.seen_ids, batch.tokens.attention_mask)
    hook.remove()
    table = student.recognizer.get_input_embeddings().weight
    logits = model.pieces(hidden[0].flatten(0, 1)[batch.masked_places], table)
    expected = torch.nn.functional.cross_entropy(logits, batch.masked_ids, reduction="sum")
    torch.testing.assert_close(sums[3], expected, rtol=1e-4, atol=1e-3)


def test_the_copies_differ_from_the_windows_in_hidden_pieces_alone(masking):
    batch = masking.load(PLAN)

    before, after = batch.tokens.input_ids.flatten(), batch.seen_ids.flatten().clone()
    assert (before[batch.masked_places] == batch.masked_ids).all()
    assert not torch.equal(before, after)
    after[batch.masked_places] = batch.masked_ids
    assert torch.equal(before, after)


def test_the_same_plan_hides_the_same_pieces(masking):
    first, second = masking.load(PLAN), masking.load(PLAN)

    assert torch.equal(first.seen_ids, second.seen_ids)
    assert not torch.equal(first.seen_ids, masking.load(PLAN._replace(seed=(1, 2, 4))).seen_ids)


def test_every_weight_learns_and_the_heads_at_their_own_rate(student, masking):
    model = MaskingStudent(student)

    masking.loss_sums(model, masking.load(PLAN)).sum().backward()

    assert [name for name, values in model.named_parameters() if values.grad is None] == []
    groups = make_optimizer(model, OptimizationRecipe(learning_rate=1e-5, head_learning_rate=1e-3)).param_groups
    fast = {id(values) for group in groups if group["lr"] == 1e-3 for values in group["params"]}
    heads = [values for name, values in model.named_parameters() if ".bert." not in name]
    assert fast == {id(values) for values in heads}


def test_what_is_scored_and_kept_is_the_student_alone(student, task, masking):
    model = MaskingStudent(student)

    assert masking.evaluate(model) == task.evaluate(student)


@pytest.mark.slow
def test_a_student_tells_hidden_pieces_while_it_learns(learning, tmp_path):
    run_well(DISTILL, *brief(learning), "loss.masked_weight=0.5", "run=first", cwd=tmp_path)

    run = tmp_path / "runs" / "first"
    shares = {"similarity": 1.0, "recognizer_first": 0.5, "recognizer_second": 0.5, "masked": 0.5}
    for line in lines_with(run, "loss"):
        assert line["loss_masked"] > 0
        total = sum(share * line[f"loss_{name}"] for name, share in shares.items())
        assert line["loss"] == pytest.approx(total, abs=1e-5)
    assert not [name for name in weights_of(run) if "pieces" in name]


@pytest.mark.slow
def test_two_passes_and_hidden_pieces_do_not_go_together(learning, tmp_path):
    arguments = ("loss.masked_weight=0.5", "loss.rdrop_weight=0.5", "run=first")

    finished = run_script(DISTILL, *learning, *arguments, cwd=tmp_path)

    assert (finished.status, finished.messages) == (
        2,
        ["loss.rdrop_weight and loss.masked_weight: only one of them may be above 0"],
    )
