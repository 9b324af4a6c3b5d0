"""R-Drop and averaged weights, alone and in whole runs."""

import math
import signal

import pytest
import torch
from conftest import SENTENCES, tiny_model, word_piece_tokenizer
from runs import (
    DISTILL,
    STEPS_PER_EPOCH,
    TEACHER,
    are_equal,
    brief,
    lines_with,
    run_script,
    run_well,
    stop_at,
    weights_of,
)
from safetensors.torch import load_file

from xlner.encode import WordEncoder
from xlner.models.folder import load_joint_model
from xlner.models.joint import JointModel
from xlner.network_outputs import collate, twice
from xlner.train.losses import symmetric_divergence

SHARES = {
    TEACHER: {"recognizer": 1.0, "similarity": 1.0},
    DISTILL: {"similarity": 1.0, "recognizer_first": 0.5, "recognizer_second": 0.5},
}


def test_the_divergence_is_the_mean_of_both_directions():
    first, second = torch.tensor([[[0.0, math.log(3)]]]), torch.tensor([[[0.0, 0.0]]])

    found = symmetric_divergence(first, second)

    # Probabilities 1/4, 3/4 against 1/2, 1/2.
    one_way = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    other_way = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert found.item() == pytest.approx((one_way + other_way) / 2)


def test_passes_that_say_the_same_do_not_diverge():
    logits = torch.randn(2, 3, 5, requires_grad=True)

    divergence = symmetric_divergence(logits, logits.detach())
    divergence.sum().backward()

    torch.testing.assert_close(divergence, torch.zeros(2, 3))
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-6, rtol=0)


def test_windows_come_twice_in_the_same_order():
    encoder = WordEncoder(word_piece_tokenizer())
    tokens = collate(list(encoder.encode([sentence.split() for sentence in SENTENCES])), encoder.pad_id)
    network = tiny_model(word_piece_tokenizer(), similarity="calibrated")

    seen = twice(tokens)
    first, second = network(seen.input_ids, seen.attention_mask).logits.chunk(2)

    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, network(tokens.input_ids, tokens.attention_mask).logits)


@pytest.fixture(scope="module")
def without_dropout(teaching, still_encoder):
    """The arguments of a teacher whose passes cannot differ."""
    return [f"encoder={still_encoder}", *(argument for argument in teaching if not argument.startswith("encoder="))]


@pytest.mark.slow
def test_without_dropout_r_drop_changes_nothing(without_dropout, tmp_path):
    arguments = brief(without_dropout)
    for name, weight in (("plain", 0), ("rdrop", 2)):
        run_well(TEACHER, *arguments, f"rdrop_weight={weight}", f"run={name}", cwd=tmp_path)

    plain, rdrop = (lines_with(tmp_path / "runs" / name, "loss") for name in ("plain", "rdrop"))

    assert [line["loss_rdrop"] for line in rdrop] == [0.0] * STEPS_PER_EPOCH
    assert [line["loss"] for line in rdrop] == pytest.approx([line["loss"] for line in plain], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("script", "key"), [(TEACHER, "rdrop_weight"), (DISTILL, "loss.rdrop_weight")])
def test_with_dropout_two_passes_diverge_and_the_loss_tells(request, script, key, tmp_path):
    arguments = request.getfixturevalue("teaching" if script == TEACHER else "learning")

    run_well(script, *brief(arguments), f"{key}=2", "run=first", cwd=tmp_path)

    shares = SHARES[script] | {"rdrop": 2.0}
    for line in lines_with(tmp_path / "runs" / "first", "loss"):
        assert line["loss_rdrop"] > 0
        total = sum(share * line[f"loss_{name}"] for name, share in shares.items())
        assert line["loss"] == pytest.approx(total, abs=1e-5)


@pytest.mark.slow
def test_the_result_is_the_moving_average_of_the_weights(teaching, tmp_path):
    # Two steps: with a decay of 0.75 the average is 3/4 of the weights after the first and 1/4 after the second.
    kept = [argument for argument in brief(teaching) if "batch_size" not in argument]
    arguments = [*kept, "optimization.batch_size=32", "checkpoint.steps=1"]
    run_well(TEACHER, *arguments, "optimization.ema=0.75", "run=averaged", cwd=tmp_path)

    run = tmp_path / "runs" / "averaged"
    steps = [load_file(run / "checkpoints" / f"step-{step}" / "model.safetensors") for step in (1, 2)]
    averaged = load_file(run / "checkpoints" / "step-2" / "averaged.safetensors")

    for name, first in steps[0].items():
        torch.testing.assert_close(averaged[f"module.{name}"], 0.75 * first + 0.25 * steps[1][name])
    kept = load_joint_model(str(run / "model")).state_dict()
    assert all(torch.equal(kept[name], averaged[f"module.{name}"]) for name in kept)


@pytest.mark.slow
def test_a_stopped_run_with_averaged_weights_goes_on_as_if_it_had_never_been_stopped(teaching, tmp_path):
    arguments = [*brief(teaching, 3), "optimization.ema=0.9", "run=first"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    run_well(TEACHER, *arguments, cwd=whole)
    stop = stop_at(STEPS_PER_EPOCH + 3, broken / "runs" / "first", signal.SIGTERM)

    stopped = run_script(TEACHER, *arguments, cwd=broken, meanwhile=stop)
    run_well(TEACHER, *arguments, cwd=broken)

    assert stopped.status == 143
    assert are_equal(weights_of(broken / "runs" / "first"), weights_of(whole / "runs" / "first"))


def test_a_model_is_no_part_of_its_average():
    model = tiny_model(word_piece_tokenizer(), similarity="calibrated")
    averaged = torch.optim.swa_utils.AveragedModel(model)

    assert isinstance(averaged.module, JointModel)
    assert not {id(values) for values in averaged.parameters()} & {id(values) for values in model.parameters()}
