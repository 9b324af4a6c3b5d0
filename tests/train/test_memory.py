"""A training step whose memory runs out is taken anew in smaller parts, and the run goes on with these."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from conftest import LABELS, SENTENCES, tiny_model, word_piece_tokenizer
from runs import are_equal, lines_with

from xlner.config.schema import CheckpointRecipe, HardwareRecipe, OptimizationRecipe, TeacherRecipe
from xlner.encode import WordEncoder
from xlner.errors import RunError
from xlner.train.checkpoint import checkpoints, read_progress
from xlner.train.loop import Validation, fit
from xlner.train.objectives import LabelledText, LabelledWords
from xlner.train.run import RunFolder

pytestmark = pytest.mark.slow

RECIPE = TeacherRecipe(
    optimization=OptimizationRecipe(epochs=2, batch_size=16, batch_pieces=0, log_steps=1, learning_rate=1e-3),
    hardware=HardwareRecipe(cpu=True, precision="fp32"),
)
TOLD = "CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation"


class Unscored(Validation):
    score_name = "score"

    def score(self, network):
        return 0.0, {}

    def keep(self, network):
        pass


class Memory:
    """Lets the last layer fail on batches of more pieces, as a GPU does late in a pass, once they have come `after`."""

    def __init__(self, n_pieces, after=0, error=torch.OutOfMemoryError):
        self.n_pieces, self.after, self.error, self.n_failures = n_pieces, after, error, 0

    def check(self, layer, inputs):
        if inputs[0][..., 0].numel() <= self.n_pieces:
            return
        self.after -= 1
        if self.after < 0:
            self.n_failures += 1
            raise self.error(TOLD)


def text():
    """Sixty sentences of several lengths."""
    encoder = WordEncoder(word_piece_tokenizer())
    words = [line.split()[: 2 + number % 7] for number in range(12) for line in SENTENCES]
    draw = np.random.default_rng(0)
    tag_ids = [draw.integers(0, len(LABELS.tags), len(row)) for row in words]
    return LabelledText(list(encoder.encode(words)), tag_ids, encoder.pad_id)


def train(folder, *, memory=None, dropout=0.1, steps=0, **keys):
    """The weights after two epochs of four steps, and where the run stands."""
    recipe = replace(
        RECIPE, optimization=replace(RECIPE.optimization, **keys), checkpoint=CheckpointRecipe(steps=steps)
    )
    network = tiny_model(word_piece_tokenizer())
    for part in network.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = dropout
    if memory is not None:
        network.recognizer.classifier.register_forward_pre_hook(memory.check)
    set_seed(0)
    folder.mkdir(exist_ok=True)
    run = RunFolder(folder, writes=True)
    progress = fit(Accelerator(cpu=True), network, LabelledWords(text()), Unscored(), run, recipe, {})
    return network.state_dict(), progress


def losses(folder):
    return [line["loss"] for line in lines_with(folder, "loss")]


def test_what_fits_in_the_end_is_what_a_run_with_that_bound_has_from_the_first_step_on(tmp_path, caplog):
    memory = Memory(n_pieces=90)

    found, progress = train(tmp_path / "found", memory=memory)
    told, _ = train(tmp_path / "told", batch_pieces=progress.batch_pieces)
    whole, _ = train(tmp_path / "whole")

    assert memory.n_failures >= 2
    assert 0 < progress.batch_pieces <= 90
    assert are_equal(found, told)
    assert losses(tmp_path / "found") == losses(tmp_path / "told")
    assert not are_equal(found, whole)  # the parts drop out other units
    warnings = [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()]
    assert len(warnings) == memory.n_failures
    assert warnings[-1].endswith(f"goes on with optimization.batch_pieces={progress.batch_pieces}, at the same result")


# Losses are compared: gradients that are mere rounding become large in Adam.
def test_without_dropout_a_run_whose_memory_runs_out_on_the_way_learns_as_one_that_has_enough(tmp_path):
    memory = Memory(n_pieces=90, after=3)

    _, progress = train(tmp_path / "found", memory=memory, dropout=0.0)
    train(tmp_path / "whole", dropout=0.0)

    assert (memory.n_failures > 0, progress.step) == (True, 8)
    assert losses(tmp_path / "found") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_a_stopped_run_goes_on_with_the_bound_that_it_had_found(tmp_path):
    whole, progress = train(tmp_path / "whole", memory=Memory(n_pieces=90), steps=2)
    memory = Memory(n_pieces=90)
    train(tmp_path / "again", memory=memory, steps=2)
    # The newest checkpoint is that of the end; the one before it is where a killed run would stand.
    newest = checkpoints(tmp_path / "again" / "checkpoints")[-1]
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    n_before = memory.n_failures

    again, _ = train(tmp_path / "again", memory=memory, steps=2)

    (left, *_) = checkpoints(tmp_path / "again" / "checkpoints")
    assert read_progress(left).batch_pieces == progress.batch_pieces
    assert memory.n_failures == n_before
    assert are_equal(again, whole)


def test_where_two_windows_do_not_fit_the_run_ends_and_says_what_needs_less(tmp_path):
    with pytest.raises(
        RunError, match=r"^step 1 \(epoch 1\): out of memory with \d+ pieces, .*2\.00 GiB.*checkpointing"
    ):
        train(tmp_path, memory=Memory(n_pieces=5))


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match=r"^shapes differ$"):
        train(tmp_path, memory=Memory(n_pieces=5, error=lambda told: RuntimeError("shapes differ")))
