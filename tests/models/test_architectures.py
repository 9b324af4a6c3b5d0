"""Networks of other makes than BERT: how much they take at once, whether padding matters, and what is refused."""

import json

import pytest
import torch
from conftest import LABELS, SENTENCES, byte_level_tokenizer, word_piece_tokenizer
from runs import ADAPT, DISTILL, TEACHER, TINY, run_script
from transformers import AutoConfig, AutoModelForTokenClassification

from xlner import load_tagger
from xlner.encode import load_tokenizer
from xlner.errors import ModelError
from xlner.models.shrink import check_reducible, reduced
from xlner.models.token_classifier import heeds_mask, longest_input, new_recognizer
from xlner.network_outputs import TorchBackend, word_encoder

POSITIONS = 40
# The names that configurations have for the same sizes; each takes those that it knows.
SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "emb_dim", "n_embd", "embedding_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 2),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_ff", "d_inner"), 24),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), POSITIONS),
    "d_kv": 8,
}
SPECIAL = {
    "fnet": {"use_tpu_fourier_optimizations": False},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_head": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "longformer": {"attention_window": [8, 8]},
    "mobilebert": {"true_hidden_size": 16, "intra_bottleneck_size": 16},
    "nystromformer": {"segment_means_seq_len": 8, "num_landmarks": 8},
}
BY_BYTES = ("gpt2", "gpt_neo", "xlnet", "t5")


def tokenizer_for(kind):
    return byte_level_tokenizer() if kind in BY_BYTES else word_piece_tokenizer()


def network(kind, **changed):
    """A random network whose weights are large, so that its tags vary."""
    tokenizer = tokenizer_for(kind)
    tags = {
        "id2label": dict(enumerate(LABELS.tags)),
        "label2id": {tag: number for number, tag in enumerate(LABELS.tags)},
    }
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **tags}
    known = AutoConfig.for_model(kind)
    named = SIZES.keys() & known.to_dict().keys()
    config = AutoConfig.for_model(
        kind, **{name: SIZES[name] for name in named}, **sizes, **SPECIAL.get(kind, {}), **changed
    )
    torch.manual_seed(0)
    found = AutoModelForTokenClassification.from_config(config).eval()
    with torch.no_grad():
        for values in found.parameters():
            if values.dim() > 1:
                values.mul_(3)
    return found


def saved(folder, kind, **changed):
    network(kind, **changed).save_pretrained(folder)
    tokenizer_for(kind).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "longest"),
    [
        *(
            (kind, POSITIONS)
            for kind in ("bert", "gpt2", "gpt_neo", "biogpt", "roformer", "mpt", "nystromformer", "yoso")
        ),
        *((kind, POSITIONS - 1) for kind in ("roberta", "ibert")),  # padding's positions come first, pad is piece 0
        *((kind, None) for kind in ("xlnet", "t5", "bloom")),
    ],
)
def test_a_network_takes_as_many_pieces_as_it_has_positions_for(kind, longest):
    model = network(kind)

    assert longest_input(model) == longest
    model(torch.full((1, longest or 3 * POSITIONS), 10))
    if longest:
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, longest + 1), 10))


@pytest.mark.parametrize("kind", ["gpt2", "biogpt", "mpt", "nystromformer", "longformer", "xlnet", "t5"])
def test_a_text_of_any_length_is_tagged_by_any_network(tmp_path, kind):
    tagger = load_tagger(saved(tmp_path, kind))
    words = " ".join(SENTENCES * 4).split()

    tags = tagger.tag_words(words)

    assert len(tags) == len(words)
    assert len(set(tags)) > 1


@pytest.mark.parametrize(("kind", "heeds"), [("bert", True), ("mpt", True), ("fnet", False), ("funnel", False)])
def test_a_text_has_the_same_entities_alone_and_in_a_batch_also_where_padding_matters(tmp_path, kind, heeds):
    tagger = load_tagger(saved(tmp_path, kind))
    texts = [*SENTENCES, "Kiel", " ".join(SENTENCES)]

    together = tagger.tag_batch(texts)

    assert heeds_mask(tagger.model.recognizer) is heeds
    found = [[(entity.text, entity.label) for entity in entities] for entities in together]
    assert found == [[(entity.text, entity.label) for entity in tagger.tag(text)] for text in texts]
    assert sum(map(len, found)) > 3


def test_a_batch_of_several_lengths_is_put_together_again():
    model = network("bert")
    ids = torch.randint(5, 40, (3, 9)).numpy()
    mask = torch.tensor([[True] * 9, [True] * 4 + [False] * 5, [True] * 9]).numpy()

    (whole,), (parted,) = (
        TorchBackend(model, torch.device("cpu"), heeds_mask=heeds).logits([(ids, mask)]) for heeds in (True, False)
    )

    assert torch.allclose(*(torch.from_numpy(scores[mask]) for scores in (whole, parted)), atol=1e-4)


def test_a_network_that_lets_padding_in_is_refused_for_training(tmp_path):
    folder = saved(tmp_path, "fnet")

    with pytest.raises(ModelError, match=r"FNetForTokenClassification says of a sentence depends on the padding") as no:
        word_encoder(folder, network("fnet"))

    assert str(no.value).startswith(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("canine", "CanineForTokenClassification has no table of pieces, it reads characters"),
        ("bros", "BrosForTokenClassification does not run on pieces and their mask alone: .*bbox"),
    ],
)
def test_a_network_that_needs_more_than_pieces_is_refused_in_a_line(tmp_path, small_data, kind, message):
    folder = saved(tmp_path / "model", kind)

    with pytest.raises(ModelError, match=message):
        load_tagger(folder)
    if kind == "bros":
        teaching = run_script(TEACHER, f"encoder={folder}", f"data={small_data}", *TINY, "run=x", cwd=tmp_path)
        assert teaching.status == 2
        assert "does not run on pieces and their mask alone" in teaching.messages[-1]
        assert "Traceback" not in teaching.stderr


def test_an_encoder_without_a_fast_tokenizer_is_refused_by_its_name(tmp_path, tiny_encoder, monkeypatch):
    tokenizer = load_tokenizer(tiny_encoder)
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    monkeypatch.setattr("xlner.network_outputs.load_tokenizer", lambda name, revision: tokenizer)

    with pytest.raises(ModelError, match=rf"{tiny_encoder}: \w+ is no fast tokenizer; xlner needs word boundaries"):
        word_encoder(tiny_encoder, network("bert"))


def head_of(folder):
    return new_recognizer(str(folder), LABELS)


@pytest.mark.parametrize("n_outputs", [2, len(LABELS.tags), 9])
def test_a_head_without_names_is_not_taken_over_whatever_its_size(tmp_path, n_outputs):
    unnamed = {"id2label": {number: f"LABEL_{number}" for number in range(n_outputs)}}
    tags = {f"LABEL_{number}": number for number in range(n_outputs)}
    old = AutoModelForTokenClassification.from_config(
        AutoConfig.from_pretrained(saved(tmp_path, "bert"), **unnamed, label2id=tags)
    )
    old.save_pretrained(tmp_path)

    new = head_of(tmp_path)

    assert new.classifier.weight.shape == (len(LABELS.tags), 16)
    assert new.config.id2label == dict(enumerate(LABELS.tags))
    alike = (new.classifier.weight[:, None] == old.classifier.weight[None]).all(dim=-1)
    assert not alike.any()
    assert torch.equal(new.bert.embeddings.word_embeddings.weight, old.bert.embeddings.word_embeddings.weight)


def test_a_head_with_names_is_taken_over_by_name(tmp_path):
    folder = saved(tmp_path, "bert")
    old = AutoModelForTokenClassification.from_pretrained(folder)
    config = json.loads((tmp_path / "config.json").read_text())
    order = [*LABELS.tags[3:], "B-NEW", *LABELS.tags[1:3]]
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"id2label": dict(enumerate(order)), "label2id": {tag: n for n, tag in enumerate(order)}})
    )

    new = head_of(tmp_path)

    for number, tag in enumerate(LABELS.tags):
        same = (
            torch.equal(new.classifier.weight[number], old.classifier.weight[order.index(tag)])
            if tag in order
            else False
        )
        assert same is (tag in order)


def test_weights_of_other_sizes_than_the_configuration_says_are_named(tmp_path):
    folder = saved(tmp_path, "bert")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 50}))

    for load in (load_tagger, head_of):
        with pytest.raises(
            ModelError, match=r"position_embeddings.weight of \(40, 16\), config.json asks for \(50, 16\)"
        ):
            load(folder)


REDUCED = {
    "n_layers": {"n_layers": 1},
    "feed_forward": {"feed_forward": 8},
    "pieces": {"piece_ids": list(range(100))},
}


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("bert", set()),
        ("distilbert", set()),
        ("longformer", set()),
        ("xlm", {"feed_forward"}),
        ("flaubert", {"feed_forward"}),
        ("gpt2", {"feed_forward"}),
        ("mobilebert", {"feed_forward"}),
        ("t5", set()),
        ("esm", {"n_layers"}),
        ("funnel", {"n_layers", "feed_forward"}),
    ],
)
def test_a_network_is_made_smaller_or_it_is_told_before_any_work(kind, refused):
    model = network(kind)

    for what, settings in REDUCED.items():
        early = {key: value for key, value in settings.items() if key != "piece_ids"} | {
            "fewer_pieces": what == "pieces"
        }
        early.setdefault("n_layers", 2)
        if what in refused:
            with pytest.raises(ModelError, match=r"^reduction"):
                reduced(model, **settings)
            with pytest.raises(ModelError, match=r"^reduction"):
                check_reducible(model.config, **early)
            continue
        check_reducible(model.config, **early)
        smaller = reduced(model, **settings)
        assert sum(map(torch.numel, smaller.parameters())) < sum(map(torch.numel, model.parameters()))
        ids = torch.arange(10, 30)[None]
        if what == "pieces":
            torch.testing.assert_close(smaller(ids).logits, model(ids).logits)


@pytest.mark.parametrize("kind", ["bert", "mpt"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, kind, number):
    model = network(kind)
    with torch.no_grad():
        list(model.parameters())[-3].view(-1)[0] = number
    model.save_pretrained(tmp_path)
    tokenizer_for(kind).save_pretrained(tmp_path)

    for load in (load_tagger, head_of):
        with pytest.raises(ModelError, match="its weights have NaN or infinite numbers in"):
            load(str(tmp_path))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_are_no_tags(tmp_path, number):
    tagger = load_tagger(saved(tmp_path, "bert"))
    with torch.no_grad():
        tagger.model.recognizer.classifier.bias[0] = number

    with pytest.raises(ModelError, match="scores are NaN or infinite for 2 of 2 words"):
        tagger.tag_words(["in", "Kiel"])


def test_what_fails_inside_a_network_is_told_in_a_line(tmp_path):
    tagger = load_tagger(saved(tmp_path, "bert"))
    tagger.encoder.max_length = tagger.encoder.room = 1000

    with pytest.raises(ModelError, match=r"BertForTokenClassification fails at 1 windows of \d+ numbers: "):
        tagger.tag(" ".join(SENTENCES))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("bros", (), "BrosForTokenClassification does not run on pieces and their mask alone"),
        ("gpt2", ("loss.masked_weight=0.1",), "its tokenizer has no mask piece"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_told_before_a_teacher_labels_anything(
    learning, tmp_path, kind, settings, message
):
    folder = saved(tmp_path / "encoder", kind)

    refused = run_script(DISTILL, *learning, f"encoder={folder}", "run=x", *settings, cwd=tmp_path)

    assert refused.status == 2
    assert message in refused.messages[-1]
    assert not (tmp_path / "runs" / "soft-labels").exists()


@pytest.mark.slow
def test_an_encoder_without_a_mask_is_not_adapted(small_data, tmp_path):
    folder = saved(tmp_path / "encoder", "roberta")
    settings = json.loads((tmp_path / "encoder" / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("mask_token")
    (tmp_path / "encoder" / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")

    refused = run_script(ADAPT, f"encoder={folder}", "target=de", f"data={small_data}", "run=x", cwd=tmp_path)

    assert refused.status == 2
    assert f"{folder}: its tokenizer has no mask piece" in refused.messages[-1]
