"""Runs whose frozen layers are looked up, beside runs that compute them in every step."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
from accelerate import Accelerator
from accelerate.utils import set_seed
from conftest import tiny_model, word_piece_tokenizer
from runs import are_equal
from test_memory import RECIPE, Unscored, losses, text

from xlner.config.schema import CheckpointRecipe
from xlner.models.token_classifier import ready_to_train
from xlner.train import loop
from xlner.train.checkpoint import checkpoints
from xlner.train.loop import fit
from xlner.train.objectives import LabelledWords
from xlner.train.run import RunFolder


def train(folder, *, epochs=2, steps=0):
    """The weights after that many epochs of four steps."""
    recipe = replace(
        RECIPE,
        optimization=replace(RECIPE.optimization, epochs=epochs, decay="constant", warmup_ratio=0.0),
        checkpoint=CheckpointRecipe(steps=steps),
    )
    network = tiny_model(word_piece_tokenizer())
    ready_to_train(network.recognizer, "embeddings+1", gradient_checkpointing=False)
    set_seed(0)
    folder.mkdir(exist_ok=True)
    run = RunFolder(folder, writes=True)
    fit(Accelerator(cpu=True), network, LabelledWords(text()), Unscored(), run, recipe, {})
    return network.state_dict()


def told(caplog):
    return [record.getMessage() for record in caplog.records if "computed once" in record.getMessage()]


def test_the_losses_are_those_of_a_run_that_computes_every_layer(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", logger="xlner")
    train(tmp_path / "once")
    lines = told(caplog)
    monkeypatch.setattr(loop, "computed_once", lambda *given, **named: nullcontext(False))
    train(tmp_path / "always")

    assert lines == ["the lowest layers (1) learn nothing and are computed once: 0 MiB of hidden states"]
    assert losses(tmp_path / "once") == pytest.approx(losses(tmp_path / "always"), rel=1e-4)


def test_a_run_that_is_taken_up_again_has_the_same_weights_to_the_last_bit(tmp_path):
    whole = train(tmp_path / "whole", steps=2)
    train(tmp_path / "again", steps=2)
    newest = checkpoints(tmp_path / "again" / "checkpoints")[-1]
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()

    assert are_equal(train(tmp_path / "again", steps=2), whole)


def test_one_epoch_computes_every_layer(tmp_path, caplog):
    caplog.set_level("INFO", logger="xlner")

    train(tmp_path / "run", epochs=1)

    assert told(caplog) == []
