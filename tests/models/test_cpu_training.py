"""Dropout on a CPU: its share, its size, its way back; attention with it, beside torch's and a slow version."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import tiny_model, word_piece_tokenizer
from torch import nn
from transformers import AutoModelForTokenClassification
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from xlner.models.cpu_training import ATTENTION, CheapDropout, attention, drop, train_cheaply_on_cpu
from xlner.models.token_classifier import ready_to_train


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_is_zero_and_the_rest_is_raised(p, dtype):
    torch.manual_seed(0)
    n = 400_003  # no multiple of the four values of a random number

    dropped = drop(torch.ones(n, dtype=dtype), p)

    values, counts = dropped.float().unique(return_counts=True)
    assert dropped.dtype == dtype
    assert values.tolist() == pytest.approx([0, 1 / (1 - p)], rel=5e-3)
    deviation = math.sqrt(p * (1 - p) / n)
    assert counts[0].item() / n == pytest.approx(p, abs=5 * deviation + 2**-16)


def test_no_value_tells_of_another():
    torch.manual_seed(1)
    zero = (drop(torch.ones(1 << 18), 0.3) == 0).double().numpy()

    # Neighbours, and values of one random number and the next.
    for distance in (1, 2, 3, 4, 5, 8):
        assert abs(np.corrcoef(zero[:-distance], zero[distance:])[0, 1]) < 5 / math.sqrt(len(zero))


def test_what_was_left_out_has_no_gradient_and_the_rest_is_raised_as_before():
    values = torch.randn(33, 7, requires_grad=True)

    dropped = drop(values, 0.4)
    dropped.sum().backward()

    torch.testing.assert_close(dropped, values * values.grad)
    assert values.grad.unique().tolist() == pytest.approx([0, 1 / 0.6], rel=1e-4)


def test_a_seed_gives_the_same_and_the_state_of_the_generator_goes_on():
    torch.manual_seed(3)
    first, state = drop(torch.ones(1000), 0.1), torch.get_rng_state()
    second = drop(torch.ones(1000), 0.1)
    torch.manual_seed(3)

    assert drop(torch.ones(1000), 0.1).equal(first)
    torch.set_rng_state(state)
    assert drop(torch.ones(1000), 0.1).equal(second)
    assert not first.equal(second)


@pytest.mark.parametrize(("p", "expected"), [(0.0, 1.0), (1e-9, 1.0), (1.0, 0.0)])
def test_the_ends(p, expected):
    assert drop(torch.ones(50), p).tolist() == [expected] * 50
    assert drop(torch.ones(0, 3), 0.1).shape == (0, 3)


def test_outside_training_nothing_is_left_out():
    layer = CheapDropout(0.5).eval()
    values = torch.randn(100)

    assert layer(values) is values or layer(values).equal(values)
    assert (layer.train()(values) == 0).any()


MASKS = {
    "none": None,
    "truth values": torch.tensor([[True] * 5, [True, True, True, False, False]])[:, None, None, :],
    "numbers": torch.tensor([[0.0] * 5, [0, 0, 0, -1e30, -1e30]])[:, None, None, :],
}


def heads():
    torch.manual_seed(5)
    return [torch.randn(2, 3, 5, 4, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("kind", MASKS)
def test_attention_is_what_the_formula_says_and_so_is_its_gradient(kind):
    query, key, value = heads()
    mask = MASKS[kind]
    torch.manual_seed(9)
    found, weights = attention(nn.Identity(), query, key, value, mask, 0.25, 0.7, is_causal=False)
    found.square().sum().backward()
    gradients = [one.grad for one in (query, key, value)]

    slow = [one.detach().double().requires_grad_() for one in (query, key, value)]
    scores = torch.einsum("bhqd,bhkd->bhqk", slow[0], slow[1]) * 0.7
    if mask is not None:
        allowed = mask if mask.dtype == torch.bool else mask == 0
        scores = scores.masked_fill(~allowed, -math.inf)
    shares = scores.exp() / scores.exp().sum(-1, keepdim=True)
    torch.manual_seed(9)
    kept = drop(torch.ones(shares.shape), 0.25).double()
    expected = torch.einsum("bhqk,bhkd->bqhd", shares * kept, slow[2])
    expected.square().sum().backward()

    assert weights is None
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    for gradient, one in zip(gradients, slow, strict=True):
        torch.testing.assert_close(gradient.double(), one.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("p", "mask", "causal"), [(0.0, MASKS["truth values"], False), (0.0, None, True), (0.5, None, True)]
)
def test_without_dropout_or_a_mask_that_is_needed_it_is_that_of_transformers(p, mask, causal):
    states = []
    for asked in (attention, sdpa_attention_forward):
        states.append(asked(nn.Identity(), *heads(), mask, p, None, causal)[0])

    assert states[0].equal(states[1])


def test_bfloat16_stays_bfloat16_and_near():
    states = heads()  # draws from the generator, so before the seed
    torch.manual_seed(6)
    exact, _ = attention(nn.Identity(), *states, None, 0.1, is_causal=False)
    torch.manual_seed(6)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = attention(nn.Identity(), *[one.bfloat16() for one in states], None, 0.1, is_causal=False)

    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("frozen", ["none", "embeddings", "embeddings+1"])
def test_between_layers_all_is_bfloat16_in_training_alone(frozen):
    network = tiny_model(word_piece_tokenizer()).recognizer
    ready_to_train(network, frozen, gradient_checkpointing=False)
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}

    def formats():
        output = network(**inputs, output_hidden_states=True)
        return {states.dtype for states in output.hidden_states}

    with torch.autocast("cpu", torch.bfloat16):
        assert formats() == {torch.bfloat16}
        with torch.no_grad():
            assert formats() == {torch.float32}
    assert formats() == {torch.float32}


def test_a_step_in_bfloat16_is_no_further_from_float32_than_with_torchs_own_autocast():
    network = tiny_model(word_piece_tokenizer()).recognizer.train()
    train_cheaply_on_cpu(network)
    for module in network.modules():  # whose noise a network so small amplifies
        if isinstance(module, CheapDropout):
            module.p = 0.0
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]]), "labels": torch.tensor([[0, 1, 2, 0]] * 2)}

    def gradients(**precision):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, **precision):
            loss = network(**inputs).loss
        loss.backward()
        return torch.cat([weights.grad.flatten() for weights in network.parameters() if weights.grad is not None])

    exact, ours = gradients(enabled=False), gradients()
    network.base_model.embeddings._forward_hooks.clear()
    theirs = gradients()

    assert not ours.equal(theirs)
    assert (ours - exact).norm() <= (theirs - exact).norm()


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_network_tags_as_before_and_its_folder_knows_nothing_of_it(kind, tmp_path):
    network = tiny_model(word_piece_tokenizer(), kind=kind).recognizer.eval()
    pieces = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    seen = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    before = network(input_ids=pieces, attention_mask=seen).logits

    train_cheaply_on_cpu(network)

    after = network(input_ids=pieces, attention_mask=seen).logits
    assert after.equal(before)
    assert network.config._attn_implementation == ATTENTION
    assert not [one for one in network.modules() if type(one) is nn.Dropout]
    network.train()
    assert not network(input_ids=pieces, attention_mask=seen).logits.equal(before)
    network.save_pretrained(tmp_path)
    assert ATTENTION not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert AutoModelForTokenClassification.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
