"""Whole adaptations through the launch script: a tiny encoder that goes on reading 60 sentences."""

import json
import signal
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, byte_level_tokenizer, save_tiny_encoder, tiny_model
from runs import ADAPT, TEACHER, TINY, metrics, run_on_two, run_script, sentences, stop_at, write_text
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from xlner.config.load import load_recipe
from xlner.models.token_classifier import load_recognizer

pytestmark = pytest.mark.slow

OWN = [argument for argument in TINY if "pairs." not in argument and "epochs" not in argument]
BRIEF = ("target=de", "optimization.epochs=4", "run=first", *OWN)
STEPS_PER_EPOCH = 8  # 57 sentences in batches of 8, three held out


@pytest.fixture(scope="module")
def adapting(tiny_encoder, small_data):
    """The arguments of an adaptation."""
    return (f"encoder={tiny_encoder}", f"data={small_data}", *BRIEF)


@pytest.fixture(scope="module")
def adapted(adapting, tmp_path_factory):
    """The folder of a finished adaptation, and what it said; not to be changed."""
    place = tmp_path_factory.mktemp("adapted")
    finished = run_script(ADAPT, *adapting, cwd=place)
    assert (finished.status, finished.messages) == (0, [])
    return place / "runs" / "first", finished.stdout


@pytest.fixture
def strange(tmp_path):
    """A data folder with text in a script that the tiny encoder does not know."""
    (tmp_path / "data" / "el").mkdir(parents=True)
    lines = ["ο γάτος κοιμάται στο σπίτι", "η γάτα τρέχει στο δρόμο", "ο γάτος τρέχει"] * 20
    (tmp_path / "data" / "el" / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "data"


def weights_of(run):
    return load_file(run / "model" / "model.safetensors")


def are_equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without(arguments, *names):
    """The arguments but those of some keys."""
    return [argument for argument in arguments if argument.partition("=")[0] not in names]


def report_of(run):
    return json.loads((run / "report.json").read_text())


def refused(finished):
    (message,) = finished.messages
    assert finished.status == 2
    return message


def test_a_finished_adaptation_leaves_a_recipe_metrics_a_plain_encoder_and_a_report(adapted):
    run, _ = adapted

    names = sorted(path.name for path in run.iterdir())
    assert names == ["checkpoints", "metrics.jsonl", "model", "recipe.yaml", "report.json", "status.json"]
    assert sorted(path.name for path in (run / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_recipe_beside_the_result_is_that_of_the_run(adapted, adapting):
    run, _ = adapted

    assert load_recipe("adapt", [f"target={run / 'recipe.yaml'}"]) == load_recipe("adapt", [*adapting])


def test_hidden_pieces_of_text_that_was_held_out_are_told_better_than_before(adapted):
    run, _ = adapted

    losses = report_of(run)["held_out_loss"]
    assert losses["after"] < losses["before"] - 0.5
    told = {line["step"]: line["held_out_loss"] for line in metrics(run) if "held_out_loss" in line}
    assert list(told) == [STEPS_PER_EPOCH * epoch for epoch in (1, 2, 3, 4)]
    assert losses["after"] == pytest.approx(min(told.values()), abs=1e-4)


def test_the_last_encoder_is_kept_where_that_is_asked(adapting, tmp_path):
    finished = run_script(ADAPT, *adapting, "selection=last", "checkpoint.steps=8", cwd=tmp_path)

    run = tmp_path / "runs" / "first"
    last = load_file(run / "checkpoints" / f"step-{4 * STEPS_PER_EPOCH}" / "model.safetensors")
    kept = weights_of(run)
    assert finished.status == 0
    assert {f"network.{name}" for name in kept} <= last.keys() | {"network.cls.predictions.decoder.weight"}
    assert all(torch.equal(tensor, last[f"network.{name}"]) for name, tensor in kept.items() if "decoder" not in name)


def test_transformers_opens_the_result_with_its_head(adapted):
    folder = adapted[0] / "model"

    network, loaded = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not loaded["missing_keys"]
    logits = network(**tokenizer("es regnet [MASK]", return_tensors="pt")).logits
    assert logits.shape[-1] == len(tokenizer)


def test_a_teacher_starts_from_the_result(adapted, small_data, tmp_path):
    folder = adapted[0] / "model"

    rates = ("optimization.learning_rate=0", "optimization.epochs=1", "run=first")
    tiny = without(TINY, "optimization.learning_rate", "optimization.epochs")
    finished = run_script(TEACHER, f"encoder={folder}", f"data={small_data}", *tiny, *rates, cwd=tmp_path)

    assert finished.status == 0
    before, after = load_file(folder / "model.safetensors"), weights_of(tmp_path / "runs" / "first")
    body = {name for name in before if name.startswith("bert.")}
    assert body
    assert all(torch.equal(before[name], after[name]) for name in body)


def test_a_fresh_head_is_spoken_of_and_a_stored_one_is_taken(adapted, adapting, tmp_path):
    run, said = adapted

    again = run_script(ADAPT, f"encoder={run / 'model'}", *adapting[1:], cwd=tmp_path)

    assert "has no head that tells hidden pieces, and gets a fresh one; such an encoder may lose more" in said
    assert "fresh" not in again.stdout
    losses = report_of(tmp_path / "runs" / "first")["held_out_loss"]
    assert losses["before"] == pytest.approx(report_of(run)["held_out_loss"]["after"], abs=1e-4)


def test_of_a_tagger_only_the_body_is_taken(bert_folder, adapting, tmp_path):
    arguments = [*without(adapting, "encoder", "optimization.learning_rate"), "optimization.learning_rate=0"]

    finished = run_script(ADAPT, f"encoder={bert_folder}", *arguments, cwd=tmp_path)

    model = tmp_path / "runs" / "first" / "model"
    tagger, encoder = load_recognizer(bert_folder)[0].state_dict(), load_file(model / "model.safetensors")
    body = {name for name in tagger if name.startswith("bert.")}
    assert finished.status == 0
    assert all(torch.equal(tagger[name], encoder[name]) for name in body)
    assert not [name for name in encoder if "classifier" in name]
    assert "B-PER" not in (model / "config.json").read_text()


def test_a_terminated_adaptation_goes_on_as_if_it_had_never_been_stopped(adapted, adapting, tmp_path):
    run = tmp_path / "runs" / "first"

    first = run_script(ADAPT, *adapting, cwd=tmp_path, meanwhile=stop_at(11, run, signal.SIGTERM))
    second = run_script(ADAPT, *adapting, cwd=tmp_path)

    assert (first.status, len(first.messages), second.status) == (143, 1, 0)
    assert "going on from runs/first/checkpoints/step-" in second.stdout
    assert are_equal(weights_of(run), weights_of(adapted[0]))
    assert [line["step"] for line in metrics(run)] == [line["step"] for line in metrics(adapted[0])]


def test_two_processes_make_the_weights_of_one(still_encoder, small_data, tmp_path):
    arguments = (f"encoder={still_encoder}", f"data={small_data}", *BRIEF[:1], *BRIEF[2:], "optimization.epochs=1")
    places = [tmp_path / name for name in ("one", "two")]
    for place in places:
        place.mkdir()

    one = run_script(ADAPT, *arguments, "optimization.accumulation=2", cwd=places[0])
    two = run_on_two(ADAPT, *arguments, cwd=places[1])

    assert [one.status, *(finished.status for finished in two)] == [0, 0, 0]
    first, second = (weights_of(place / "runs" / "first") for place in places)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-5, rtol=1e-4)
    losses = [report_of(place / "runs" / "first")["held_out_loss"]["after"] for place in places]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_new_pieces_make_unknown_text_known(tiny_encoder, strange, tmp_path):
    arguments = (f"encoder={tiny_encoder}", f"data={strange}", "target=el", *BRIEF[1:], "vocabulary.new_pieces=50")

    finished = run_script(ADAPT, *arguments, cwd=tmp_path)

    assert (finished.status, finished.messages) == (0, [])
    run = tmp_path / "runs" / "first"
    pieces = report_of(run)["pieces"]
    assert (pieces["before"]["unknown_share"], pieces["after"]["unknown_share"]) == (1.0, 0.0)
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert len(tokenizer) == pieces["before"]["vocabulary"] + pieces["after"]["new_pieces"]
    assert weights_of(run)["bert.embeddings.word_embeddings.weight"].shape[0] == len(tokenizer)
    assert "100.00 % of them unknown" in finished.stdout


def test_a_stopped_run_with_new_pieces_goes_on_with_the_same(tiny_encoder, strange, tmp_path):
    arguments = (f"encoder={tiny_encoder}", f"data={strange}", "target=el", *BRIEF[1:], "vocabulary.new_pieces=50")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    stop = stop_at(5, parted / "runs" / "first", signal.SIGTERM)

    run_script(ADAPT, *arguments, cwd=whole)
    stopped = run_script(ADAPT, *arguments, cwd=parted, meanwhile=stop)
    run_script(ADAPT, *arguments, cwd=parted)

    assert stopped.status == 143
    assert are_equal(weights_of(whole / "runs" / "first"), weights_of(parted / "runs" / "first"))


def test_text_of_which_nothing_is_known_is_refused(tiny_encoder, strange, tmp_path):
    arguments = (f"encoder={tiny_encoder}", f"data={strange}", "target=el", *BRIEF[1:])

    message = refused(run_script(ADAPT, *arguments, cwd=tmp_path))

    assert message.startswith("the tokenizer knows nothing of the text ('ο γάτος")
    assert "set vocabulary.new_pieces" in message


def test_translations_and_other_text_are_read_too(adapting, small_data, tmp_path):
    write_text(tmp_path / "en.txt", sentences(60, seed=9))
    (tmp_path / "pairs.tsv").write_text("es regnet\tit rains\n\nheute in Kiel\ttoday in Kiel\n", encoding="utf-8")

    finished = run_script(ADAPT, *adapting, "parallel=pairs.tsv", "other_text=en.txt", "other_share=0.25", cwd=tmp_path)

    assert finished.status == 0
    # A quarter of all: 57 sentences and 2 pairs, and 20 others.
    expected = {"trained": 57, "held_out": 3, "pairs": 2, "other": 20}
    found = report_of(tmp_path / "runs" / "first")["text"]
    assert len(found.pop("fingerprint")) == 12
    assert found == expected


@pytest.mark.parametrize(
    ("line", "found"),
    [("nothing beside it", "1 columns"), ("a\tb\tc", "3 columns"), ("a\t ", "no TRANSLATION")],
)
def test_a_line_that_is_no_pair_is_named(adapting, tmp_path, line, found):
    (tmp_path / "pairs.tsv").write_text(f"es regnet\tit rains\n{line}\n", encoding="utf-8")

    message = refused(run_script(ADAPT, *adapting, "parallel=pairs.tsv", cwd=tmp_path))

    assert message.startswith(f'pairs.tsv:2: expected "SENTENCE<TAB>TRANSLATION", found {found}: {line!r}')


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("data=nowhere", "no corpus at nowhere/de/train.conll"),
        ("encoder=./nowhere", "./nowhere: no such folder"),
        ("parallel=nowhere.tsv", "no corpus at nowhere.tsv"),
        ("other_text=nowhere.txt", "no corpus at nowhere.txt"),
        ("masking.ratio=0", "masking.ratio is 0; it must be between"),
        ("masking.as_mask=0.95", "masking: as_mask=0.95 and as_random=0.1; they may be 1 together at most"),
        ("holdout_ratio=0", "selection=best needs text that is held out"),
        ("holdout_ratio=0.001", "DATA/de/train.txt: found 60 sentences, of which holdout_ratio=0.001 is none"),
    ],
)
def test_what_cannot_be_is_refused_with_one_message(adapting, small_data, tmp_path, argument, message):
    others = without(adapting, argument.partition("=")[0])

    told = refused(run_script(ADAPT, *others, argument, cwd=tmp_path))

    assert told.replace(str(small_data), "DATA").startswith(message)
    assert not (tmp_path / "runs" / "first").exists()


def test_an_encoder_without_a_mask_is_refused(adapting, tmp_path):
    tokenizer = byte_level_tokenizer()
    tiny_model(tokenizer).recognizer.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")

    message = refused(run_script(ADAPT, "encoder=./encoder", *adapting[1:], cwd=tmp_path))

    assert message.startswith("./encoder: its tokenizer has no mask piece")


def test_an_encoder_that_lacks_weights_of_its_body_is_refused(adapting, tmp_path):
    folder = Path(save_tiny_encoder(tmp_path / "encoder", dropout=0.0))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))

    message = refused(run_script(ADAPT, "encoder=./encoder", *adapting[1:], cwd=tmp_path))

    assert message.startswith("./encoder: no whole encoder, its weights lack bert.encoder.layer.2.")


def test_each_recipe_is_that_of_its_language():
    for path in (REPOSITORY / "recipes" / "adapt").glob("*.yaml"):
        recipe = load_recipe("adapt", [f"target={path.stem}"], REPOSITORY / "recipes")

        assert recipe.target == path.stem
