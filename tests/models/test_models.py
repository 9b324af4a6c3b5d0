import json
import shutil

import pytest
import torch
from conftest import LABELS, tiny_model, unigram_tokenizer, word_piece_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from xlner.encode import WordEncoder, load_tokenizer
from xlner.errors import LabelError, ModelError
from xlner.models.folder import load_joint_model, read_settings, save_model
from xlner.models.inference import collate
from xlner.models.joint import SIMILARITIES
from xlner.models.settings import ModelSettings
from xlner.models.token_classifier import heeds_mask, load_recognizer, longest_input, new_recognizer
from xlner.tagger import load_tagger
from xlner.tags import LabelSet

WORDS = ["Angela", "Merkel", "besuchte", "Kiel", "."]


def batch_of(*sentences):
    encoder = WordEncoder(word_piece_tokenizer())
    return collate(list(encoder.encode(sentences)), encoder.pad_id)


@pytest.mark.parametrize("similarity", ["", *SIMILARITIES])
def test_a_saved_model_gives_the_same_outputs_when_it_is_loaded(tmp_path, similarity):
    tokenizer = word_piece_tokenizer()
    model = tiny_model(tokenizer, similarity=similarity)
    settings = ModelSettings("whitespace", 48, "de", similarity, 8 if similarity else 0)
    batch = batch_of(WORDS)

    save_model(tmp_path / "model", model, tokenizer, settings)
    loaded = load_joint_model(str(tmp_path / "model")).eval()

    assert read_settings(str(tmp_path / "model")) == settings
    before, after = (network(*batch) for network in (model, loaded))
    torch.testing.assert_close(after.logits, before.logits)
    if similarity:
        torch.testing.assert_close(after.projections, before.projections)
    else:
        assert after.projections is None


def test_saving_again_replaces_the_model_and_leaves_nothing_else(tmp_path):
    tokenizer = word_piece_tokenizer()
    model = tiny_model(tokenizer)
    save_model(tmp_path / "model", model, tokenizer, ModelSettings(language="de"))

    save_model(tmp_path / "model", model, tokenizer, ModelSettings(language="nl"))

    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert read_settings(str(tmp_path / "model")).language == "nl"


def test_a_model_folder_opens_in_plain_transformers(bert_folder):
    batch = batch_of(WORDS)

    plain = AutoModelForTokenClassification.from_pretrained(bert_folder).eval()
    tagger = pipeline("token-classification", model=bert_folder, tokenizer=AutoTokenizer.from_pretrained(bert_folder))

    ours = load_joint_model(bert_folder).eval()(*batch).logits
    theirs = plain(batch.input_ids, batch.attention_mask).logits.flatten(0, 1)[batch.words]
    torch.testing.assert_close(theirs, ours)
    assert {found["entity"] for found in tagger("Angela Merkel besuchte Kiel.")} <= set(LABELS.tags)


@pytest.mark.parametrize("similarity", sorted(SIMILARITIES))
def test_pairs_are_scored_by_the_projections_of_their_words(similarity):
    model = tiny_model(word_piece_tokenizer(), similarity=similarity)
    batch = batch_of(WORDS, WORDS[::-1])
    n_words = len(WORDS)
    pairs = torch.tensor([[1, 3], [n_words + 1, n_words + 2]])

    output = model(*batch, pairs)

    first, second = output.projections[[1, 3]], output.projections[[n_words + 1, n_words + 2]]
    torch.testing.assert_close(output.similarity_logits, model.similarity.score(first, second))
    torch.testing.assert_close(output.projections.norm(dim=-1), torch.ones(2 * n_words))


def test_a_network_without_a_similarity_head_gives_logits_alone():
    batch = batch_of(WORDS)

    output = tiny_model(word_piece_tokenizer())(*batch)

    assert output.logits.shape == (len(WORDS), len(LABELS.tags))
    assert (output.similarity_logits, output.projections) == (None, None)


def test_a_new_recognizer_has_the_tags_of_its_labels_in_their_order(tmp_path):
    labels = LabelSet(("O", "B-X", "I-X"))
    tiny_model(word_piece_tokenizer()).recognizer.bert.save_pretrained(tmp_path)

    model = new_recognizer(str(tmp_path), labels)

    assert LabelSet.of_model(model.config.id2label) == labels
    assert model.config.label2id == {"O": 0, "B-X": 1, "I-X": 2}


@pytest.mark.parametrize(("kind", "make"), [("bert", word_piece_tokenizer), ("xlm-roberta", unigram_tokenizer)])
def test_the_longest_input_is_what_the_network_takes(kind, make):
    tokenizer = make()
    model = tiny_model(tokenizer, kind=kind).recognizer

    longest = longest_input(model)

    assert longest == 64
    for length, works in ((longest, True), (longest + 1, False)):
        pieces = torch.full((1, length), 10)
        if works:
            model(pieces)
        else:
            with pytest.raises((IndexError, RuntimeError)):
                model(pieces)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "runs no remote code"),
        ({"_attn_implementation": "someone/kernel"}, "attention kernel from the hub"),
        ({"attn_implementation": "someone/kernel"}, "attention kernel from the hub"),
        ({"_attn_implementation_internal": "someone/kernel"}, "attention kernel from the hub"),
        ({"attn_implementation": {"": "someone/kernel"}}, "attention kernel from the hub"),
        ({"_experts_implementation": "someone/kernel"}, "attention kernel from the hub"),
        ({"text_config": {"_attn_implementation": "someone/kernel"}}, "attention kernel from the hub"),
        ({"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}, "runs no remote code"),
        ({"quantization_config": {"quant_method": "eetq"}}, "tells of quantized weights"),
        ({"transformers_weights": "../other.safetensors"}, "names its weights itself"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "encoder or an unnamed head"),
        ({"model_type": "nothing-known"}, "no model configuration"),
    ],
)
def test_a_configuration_that_asks_for_what_is_refused_is_named(bert_folder, tmp_path, change, message):
    folder = copied(bert_folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))

    with pytest.raises(ModelError, match=message):
        load_recognizer(str(folder))


def test_a_tagger_without_an_outside_is_refused(bert_folder, tmp_path):
    folder = copied(bert_folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["0"] = "NOUN"
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(LabelError, match=r"config\.json: a tagger needs the tag O; found NOUN, B-LOC"):
        load_recognizer(str(folder))


@pytest.mark.parametrize("load", [load_recognizer, load_tagger, load_tokenizer, load_joint_model])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.bin"])
def test_a_file_of_a_model_is_no_model_and_is_not_opened(bert_folder, tmp_path, load, name):
    folder = copied(bert_folder, tmp_path)
    (folder / "model.bin").write_bytes(b"\x80\x04cos\nsystem\n")

    with pytest.raises(ModelError, match=rf"{name}: is a file; give the folder of the model: {folder}$"):
        load(str(folder / name))


def test_a_network_does_not_change_by_being_tried():
    model = tiny_model(word_piece_tokenizer()).recognizer.train()
    state = torch.get_rng_state()

    assert (longest_input(model), heeds_mask(model)) == (64, True)

    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_with_several_ends_of_a_text_is_tried_on_its_other_pieces(bert_folder):
    recognizer = load_joint_model(bert_folder).recognizer
    recognizer.config.eos_token_id = [1, 2]

    assert heeds_mask(recognizer)


def test_pickled_weights_are_refused(bert_folder, tmp_path):
    folder = copied(bert_folder, tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(ModelError, match=r"pickled weights \(.bin\) are not read"):
        load_recognizer(str(folder))


def test_a_head_without_weights_is_refused(bert_folder, tmp_path):
    folder = copied(bert_folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    without_head = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(without_head, folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(ModelError, match=r"its weights lack classifier.bias, classifier.weight"):
        load_recognizer(str(folder))


def test_an_unknown_similarity_head_is_refused(bert_folder, tmp_path):
    folder = copied(bert_folder, tmp_path)
    (folder / "xlner.json").write_text('{"similarity": "euclid"}')

    with pytest.raises(ModelError, match="unknown similarity head 'euclid'; known: calibrated, cosine"):
        load_joint_model(str(folder))


def test_loading_a_model_writes_nothing_to_the_terminal(bert_folder, capfd):
    load_joint_model(bert_folder)

    assert capfd.readouterr() == ("", "")


def test_damaged_weights_are_refused(bert_folder, tmp_path):
    folder = copied(bert_folder, tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])

    with pytest.raises(ModelError, match="the weights could not be loaded"):
        load_recognizer(str(folder))


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"expected a model folder with config.json, found nothing"):
        load_recognizer(str(tmp_path))


def test_a_folder_that_does_not_exist_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        load_recognizer(str(tmp_path / "nope"))


@pytest.mark.parametrize("content", ["{", '{"unknown_key": 1}', "[]"])
def test_damaged_settings_are_refused(tmp_path, content):
    (tmp_path / "xlner.json").write_text(content)

    with pytest.raises(ModelError, match="expected the settings of an xlner model"):
        read_settings(str(tmp_path))


def copied(folder, place):
    return shutil.copytree(folder, place / "copy")
