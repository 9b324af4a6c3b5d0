"""Layers that learn nothing are looked up: the network learns what it would learn if they were computed."""

import pytest
import torch
from conftest import SENTENCES, word_piece_tokenizer
from test_architectures import network
from torch import nn

from xlner.encode import WordEncoder
from xlner.models import frozen
from xlner.models.frozen import computed_once, frozen_parts
from xlner.models.inference import collate
from xlner.models.joint import JointModel
from xlner.models.token_classifier import ready_to_train

# Networks whose layers hand on hidden states and nothing else, and some that are built in other ways.
SUITED = ("bert", "roberta", "electra", "distilbert", "camembert", "mobilebert")
OTHERS = ("roformer", "deberta-v2", "mpt")


def windows():
    encoder = WordEncoder(word_piece_tokenizer(), 40)
    return encoder.pad_id, list(encoder.encode([line.split()[: 3 + n % 5] for n, line in enumerate(SENTENCES * 3)]))


def batches(size):
    pad_id, found = windows()
    return [collate(found[start : start + size], pad_id) for start in range(0, len(found), size)]


def looked_up(model, folder, size=4):
    n_pieces = sum(len(window.piece_ids) for window in windows()[1])
    where = {"device": torch.device("cpu"), "autocast_dtype": None}
    return computed_once(JointModel(model, None), batches(size), n_pieces, folder, **where)


def prepared(kind="bert", freeze="embeddings+1"):
    model = network(kind)
    ready_to_train(model, freeze, gradient_checkpointing=False)
    return model.train()


def gradients(model, size):
    """Of all weights that learn, after a step of several batches with the same dropout each time."""
    torch.manual_seed(5)
    model.zero_grad()
    for batch in batches(size):
        output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long())
        output.logits.flatten(0, 1)[batch.words].square().sum().backward()
    return {name: values.grad.clone() for name, values in model.named_parameters() if values.grad is not None}


def count_calls(layer):
    calls = []
    layer.attention.register_forward_pre_hook(lambda part, given: calls.append(part))
    return calls


@pytest.mark.parametrize("kind", [*SUITED, *OTHERS])
def test_a_step_has_the_gradients_of_one_that_computes_all_layers(kind, tmp_path):
    model = prepared(kind)
    expected = gradients(model, 5)

    with looked_up(model, tmp_path) as is_looked_up:
        found = gradients(model, 5)  # batches of other padding than those that were kept

    assert is_looked_up == (kind in SUITED)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        torch.testing.assert_close(
            values, expected[name], rtol=1e-4, atol=1e-5 * float(expected[name].abs().max()) + 1e-6
        )


def test_a_frozen_layer_computes_no_more_until_the_end_except_in_evaluation_and_for_other_windows(tmp_path):
    model = prepared()
    calls = count_calls(model.base_model.encoder.layer[0])
    batch = batches(4)[0]

    with looked_up(model, tmp_path):
        calls.clear()
        gradients(model, 4)
        n_known = len(calls)
        model.eval()(batch.input_ids, attention_mask=batch.attention_mask)
        n_evaluation = len(calls)
        model.train()(batch.input_ids.flip(1))
        n_other = len(calls)
    gradients(model, 12)

    assert (n_known, n_evaluation, n_other) == (0, 1, 2)
    assert len(calls) > 2
    assert not list(tmp_path.iterdir())


def test_frozen_layers_have_no_dropout_and_the_others_do():
    model = prepared()
    batch = batches(4)[0]

    first, second = (model(batch.input_ids, output_hidden_states=True).hidden_states for _ in range(2))

    assert [one.equal(other) for one, other in zip(first, second, strict=True)] == [True, True, False]


@pytest.mark.parametrize(
    ("freeze", "n_parts"), [("none", 0), ("embeddings", 0), ("embeddings+1", 2), ("embeddings+2", 3)]
)
def test_what_is_frozen_is_seen_by_the_weights(freeze, n_parts):
    assert len(frozen_parts(prepared(freeze=freeze).base_model)) == n_parts


def test_without_room_or_with_two_encoders_all_is_computed(tmp_path, monkeypatch):
    model, other = prepared(), prepared()
    both = nn.ModuleList([model, other])
    where = {"device": torch.device("cpu"), "autocast_dtype": None}

    with computed_once(both, batches(4), 1000, tmp_path, **where) as of_two:
        pass
    monkeypatch.setattr(frozen, "MOST_BYTES", 100)
    with looked_up(model, tmp_path) as without_room:
        expected = gradients(model, 4)

    assert (of_two, without_room) == (False, False)
    assert all(values.isfinite().all() for values in expected.values())
