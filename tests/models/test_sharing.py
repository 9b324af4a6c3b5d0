"""Teachers with one encoder for both tasks, or with one for each."""

import pytest
import torch
from conftest import tiny_model, word_piece_tokenizer
from runs import DISTILL, TEACHER, TINY, run_script
from safetensors.torch import load_file

from xlner.config.load import load_recipe
from xlner.config.schema import OptimizationRecipe
from xlner.encode import WordEncoder
from xlner.models.folder import load_joint_model, read_settings, save_model
from xlner.models.inference import collate
from xlner.models.joint import JointModel
from xlner.models.settings import ModelSettings
from xlner.models.token_classifier import second_network
from xlner.train.loop import make_optimizer

PAIRS = torch.tensor([[0, 1], [4, 5]])


def separate_model(similarity="calibrated"):
    """A tiny teacher whose second encoder differs from the first."""
    model = tiny_model(word_piece_tokenizer(), similarity=similarity)
    evaluator = second_network(model.recognizer)
    with torch.no_grad():
        for parameter in evaluator.parameters():
            parameter.add_(0.01)
    return JointModel(model.recognizer, model.similarity, evaluator)


def tokens():
    encoder = WordEncoder(word_piece_tokenizer())
    return collate(list(encoder.encode([["Kiel", "ist", "kalt", "."], ["Ulm", "auch", "."]])), encoder.pad_id)


def trained_by(model, loss):
    model.zero_grad()
    loss.backward()
    return {name.split(".")[0] for name, values in model.named_parameters() if values.grad is not None}


def test_two_encoders_share_nothing():
    model, batch = separate_model(), tokens()

    def output():
        return model(*batch, PAIRS)

    assert trained_by(model, output().logits.sum()) == {"recognizer"}
    assert trained_by(model, output().similarity_logits.sum()) == {"evaluator", "similarity"}


def test_one_encoder_learns_from_both_tasks():
    model, batch = tiny_model(word_piece_tokenizer(), similarity="calibrated"), tokens()

    output = model(*batch, PAIRS)

    assert trained_by(model, output.similarity_logits.sum()) == {"recognizer", "similarity"}


@pytest.mark.parametrize("similarity", ["calibrated", "cosine"])
def test_every_weight_that_is_to_be_trained_gets_a_gradient(similarity):
    model, batch = separate_model(similarity), tokens()

    output = model(*batch, PAIRS)
    (output.logits.square().sum() + output.similarity_logits.square().sum()).backward()

    assert not [name for name, values in model.named_parameters() if values.requires_grad and values.grad is None]


def test_a_saved_teacher_of_two_encoders_gives_the_same_outputs_when_it_is_loaded(tmp_path):
    model, batch = separate_model(), tokens()
    settings = ModelSettings(similarity="calibrated", projection_size=8, sharing="separate")

    save_model(tmp_path / "model", model, word_piece_tokenizer(), settings)
    loaded = load_joint_model(str(tmp_path / "model")).eval()

    before, after = (network(*batch) for network in (model.eval(), loaded))
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.projections, before.projections)


def test_both_encoders_have_the_learning_rate_of_encoders():
    model = separate_model()

    optimizer = make_optimizer(model, OptimizationRecipe(learning_rate=1e-5, head_learning_rate=1e-3))

    rates = {id(values): group["lr"] for group in optimizer.param_groups for values in group["params"]}
    for network in (model.recognizer, model.evaluator):
        assert {rates[id(values)] for values in network.base_model.parameters()} == {1e-5}


@pytest.fixture(scope="module")
def separate_teacher(tiny_encoder, small_data, tmp_path_factory):
    place = tmp_path_factory.mktemp("separate")
    arguments = [f"encoder={tiny_encoder}", f"data={small_data}", *TINY, "similarity.kind=cosine", "sharing=separate"]
    arguments.append("similarity_weight=1")
    finished = run_script(TEACHER, *arguments, "run=first", cwd=place)
    assert (finished.status, finished.messages) == (0, [])
    return place / "runs" / "first" / "model"


@pytest.mark.slow
def test_both_encoders_of_a_separate_teacher_learn(separate_teacher, tiny_encoder):
    start = load_file(f"{tiny_encoder}/model.safetensors")
    name = "encoder.layer.1.output.dense.weight"

    recognizer = load_file(separate_teacher / "model.safetensors")[f"bert.{name}"]
    evaluator = load_file(separate_teacher / "evaluator.safetensors")[f"bert.{name}"]

    assert not torch.equal(recognizer, start[name])
    assert not torch.equal(evaluator, start[name])
    assert not torch.equal(recognizer, evaluator)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["authors", "blog", "pooled"])
def test_a_student_of_two_encoders_has_one(separate_teacher, small_data, tmp_path, variant):
    arguments = ["target=de", f"variant={variant}", f"teacher={separate_teacher}", f"data={small_data}", *TINY]

    finished = run_script(DISTILL, *arguments, "run=student", cwd=tmp_path)

    assert (finished.status, finished.messages) == (0, [])
    model = tmp_path / "runs" / "student" / "model"
    assert not (model / "evaluator.safetensors").exists()
    assert read_settings(str(model)).sharing == "joint"


@pytest.mark.slow
def test_a_teacher_says_how_often_o_is_right(separate_teacher, small_data):
    lines = (small_data / "en" / "train.conll").read_text(encoding="utf-8").split("\n")
    tags = [line.split("\t")[1] for line in lines if line]

    share = read_settings(str(separate_teacher)).outside_share

    assert share == pytest.approx(tags.count("O") / len(tags))


def test_teachers_share_by_default():
    assert load_recipe("teacher", ["language=en"]).sharing == "joint"
