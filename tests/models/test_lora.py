"""Adapters in place of the encoder's weights: what learns, what a saved model holds, and whole runs with them."""

import shutil
import signal
import sys

import pytest
import torch
from conftest import tiny_model, word_piece_tokenizer
from runs import (
    DISTILL,
    STEPS_PER_EPOCH,
    TEACHER,
    TINY,
    are_equal,
    brief,
    lines_with,
    report_of,
    run_on_two,
    run_script,
    run_well,
    stop_at,
    weights_of,
)
from test_architectures import network
from transformers import AutoModelForTokenClassification

from xlner.config.load import load_recipe
from xlner.errors import ModelError, RecipeError
from xlner.jobs.transformer_student import TransformerStudent
from xlner.models.folder import load_joint_model, save_model
from xlner.models.joint import JointModel
from xlner.models.settings import ModelSettings
from xlner.models.token_classifier import (
    add_adapters,
    load_classifier,
    load_recognizer,
    ready_to_train,
    save_weights,
    second_network,
)

IDS = torch.arange(5, 29).reshape(2, 12)
RANK = "optimization.lora=4"


@pytest.fixture
def peft():
    """The optional package."""
    return pytest.importorskip("peft")


def with_trained_adapters(model):
    """The model with adapters that change what it computes, as if they had learnt."""
    add_adapters(model, 4)
    generator = torch.Generator().manual_seed(1)
    for name, values in model.named_parameters():
        if ".lora_B." in name:
            values.data.copy_(0.1 * torch.randn(values.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "albert", "deberta-v2", "distilbert", "electra", "modernbert", "xlm"]
)
def test_transformers_opens_a_saved_model_and_finds_what_the_adapted_network_finds(peft, kind, tmp_path):
    model = network(kind)
    plain_names = set(model.state_dict())
    plain = model(IDS).logits
    adapted = with_trained_adapters(model)(IDS).logits
    before = {name: values.clone() for name, values in model.state_dict().items()}

    save_weights(model, tmp_path)

    opened = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    assert (adapted - plain).abs().max() > 1e-2
    torch.testing.assert_close(opened(IDS).logits, adapted, atol=1e-4, rtol=1e-4)
    assert set(opened.state_dict()) == plain_names
    assert are_equal(model.state_dict(), before)  # training goes on from it


def test_a_network_with_fresh_adapters_computes_what_it_computed(peft):
    model = network("bert")
    before = model(IDS).logits

    add_adapters(model, 4)

    torch.testing.assert_close(model(IDS).logits, before)


def test_adapters_and_the_head_learn_and_nothing_else(peft):
    model = network("bert")
    ready_to_train(model, "none", gradient_checkpointing=True, lora=4)

    model.train()(IDS).logits.square().sum().backward()

    learning = {name for name, values in model.named_parameters() if values.grad is not None}
    assert learning == {name for name, values in model.named_parameters() if values.requires_grad}
    assert {name for name in learning if ".lora_" not in name} == {"classifier.weight", "classifier.bias"}
    assert len(learning) == 2 + 2 * 6 * 2  # A and B of the six linear layers of each of two layers


def test_frozen_layers_get_no_adapters(peft):
    model = network("bert")

    ready_to_train(model, "embeddings+1", gradient_checkpointing=False, lora=4)

    adapted = {name for name, values in model.named_parameters() if values.requires_grad and ".lora_" in name}
    assert adapted
    assert all(name.startswith("bert.encoder.layer.1.") for name in adapted)


def test_an_encoder_that_is_frozen_as_a_whole_has_nothing_to_adapt(peft):
    with pytest.raises(ModelError, match=r"optimization.lora=4: BertModel has no linear layer that is trained"):
        ready_to_train(network("bert"), "embeddings+2", gradient_checkpointing=False, lora=4)


def test_adapters_of_two_encoders_are_merged_into_each(peft, tmp_path):
    model = tiny_model(word_piece_tokenizer(), similarity="calibrated")
    recognizer = with_trained_adapters(model.recognizer)
    evaluator = second_network(recognizer)
    for name, values in evaluator.named_parameters():
        if ".lora_B." in name:
            values.data.neg_()
    both = JointModel(recognizer, model.similarity, evaluator).eval()
    settings = ModelSettings(similarity="calibrated", projection_size=8, sharing="separate")

    save_model(tmp_path / "model", both, word_piece_tokenizer(), settings)

    opened = load_joint_model(str(tmp_path / "model")).eval()
    batch = IDS, torch.ones_like(IDS), torch.arange(24)
    before, after = both(*batch), opened(*batch)
    torch.testing.assert_close(after.logits, before.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.projections, before.projections, atol=1e-4, rtol=1e-4)


def test_without_the_package_one_line_tells_how_to_get_it_before_a_text_is_labelled(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    student = load_recipe("distill", ["target=de", "teacher=nowhere", RANK])

    for ask in (lambda: add_adapters(network("bert"), 4), lambda: TransformerStudent.check(student)):
        with pytest.raises(ModelError, match=r"^optimization.lora=4: .*pip install 'xlner\[lora\]'$"):
            ask()


@pytest.mark.parametrize(
    ("kind", "keys", "told"),
    [
        ("distill", ["student=bilstm"], "leave out optimization.lora"),
        ("distill", ["gold=few.conll"], "optimization.lora=4: .* set gold_tunes_teacher=false"),
        ("adapt", [], "optimization.lora=4: .* learns with all of its weights"),
    ],
)
def test_what_adapters_do_not_go_with_is_refused_by_name(kind, keys, told):
    with pytest.raises(RecipeError, match=told):
        load_recipe(kind, [RANK, "target=de", *keys])


@pytest.fixture(scope="module")
def retraining(teacher, small_data):
    """The arguments of a run that starts from a teacher and learns that people are places, and places people."""
    swapped = "labels.map=PER=LOC,LOC=PER"
    return (
        f"encoder={teacher / 'model'}",
        f"data={small_data}",
        "similarity_weight=1",
        *TINY,
        swapped,
        RANK,
        "run=first",
    )


@pytest.fixture(scope="module")
def adapted_teacher(retraining, tmp_path_factory):
    """A finished teacher of both tasks that learnt by adapters; not to be changed."""
    pytest.importorskip("peft")
    place = tmp_path_factory.mktemp("adapted")
    run_well(TEACHER, *retraining, cwd=place)
    return place / "runs" / "first"


@pytest.mark.slow
def test_a_teacher_learns_by_adapters_and_its_folder_is_one_without_them(adapted_teacher, teacher):
    after, before = weights_of(adapted_teacher), weights_of(teacher)

    assert report_of(adapted_teacher)["scores"]["test"]["overall"]["f1"] > 60
    assert {name: values.shape for name, values in after.items()} == {name: v.shape for name, v in before.items()}
    changed = {name for name, values in before.items() if not torch.equal(values, after[name])}
    layers = {name for name, values in before.items() if ".layer." in name and values.dim() == 2}
    heads = {"classifier.weight", "classifier.bias", "projection.weight", "scale", "offset"}
    assert changed == layers | heads


@pytest.mark.slow
def test_a_stopped_run_with_adapters_goes_on_as_if_it_had_never_been_stopped(adapted_teacher, retraining, tmp_path):
    run = tmp_path / "runs" / "first"
    stop = stop_at(STEPS_PER_EPOCH + 3, run, signal.SIGINT)

    first = run_script(TEACHER, *retraining, cwd=tmp_path, meanwhile=stop)
    run_well(TEACHER, *retraining, cwd=tmp_path)

    assert first.status == 130
    assert are_equal(weights_of(run), weights_of(adapted_teacher))
    assert [line["dev_f1"] for line in lines_with(run, "dev_f1")] == [
        line["dev_f1"] for line in lines_with(adapted_teacher, "dev_f1")
    ]


@pytest.mark.slow
def test_a_student_learns_by_adapters_that_are_computed_twice(peft, learning, teacher, tmp_path):
    saving = (RANK, "optimization.gradient_checkpointing=true")

    run_well(DISTILL, *brief(learning, 2), *saving, "run=first", cwd=tmp_path)

    report = report_of(tmp_path / "runs" / "first")
    recognizer = load_classifier(str(teacher / "model"))
    assert report["parameters"] == sum(values.numel() for values in recognizer.parameters())
    assert report["scores"]["student"]["overall"]["f1"] > 40


@pytest.mark.slow
def test_two_processes_and_two_encoders_learn_by_adapters(peft, teaching, tmp_path):
    arguments = (*brief(teaching), RANK, "sharing=separate", "run=first")

    finished = run_on_two(TEACHER, *arguments, cwd=tmp_path)

    assert [one.status for one in finished] == [0, 0], finished
    assert load_joint_model(str(tmp_path / "runs" / "first" / "model")).evaluator is not None


def test_a_folder_with_an_adapter_is_refused_with_or_without_peft(bert_folder, tmp_path):
    shutil.copytree(bert_folder, tmp_path / "model")
    (tmp_path / "model" / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')

    with pytest.raises(ModelError, match=r"is an adapter .adapter_config.json.; merge it into its model"):
        load_recognizer(str(tmp_path / "model"))
