"""A transformer student of fewer layers, narrower ones and fewer pieces, and hidden states that it imitates."""

import json
import re
from collections import Counter

import pytest
import torch
from conftest import SENTENCES, byte_level_tokenizer, tiny_model, unigram_tokenizer, word_piece_tokenizer
from runs import DISTILL, brief, report_of, run_script, run_well, weights_of
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AlbertForTokenClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from xlner import load_tagger
from xlner.config.schema import ReductionRecipe
from xlner.encode import WordEncoder, load_tokenizer
from xlner.errors import ModelError
from xlner.jobs.transformer_student import smaller_network
from xlner.models.shrink import check_reducible, reduced, spread
from xlner.models.vocabulary import prune_tokenizer

MAKERS = {"bert": word_piece_tokenizer, "xlm-roberta": unigram_tokenizer}
WORDS = [sentence.split() for sentence in SENTENCES[:3]]
NEW_WORDS = ["Siemensstadt", "Zeit", "Mün", "gAb", "x", "北"]


def uses_of(tokenizer):
    encoder = WordEncoder(tokenizer)
    return Counter(int(piece) for window in encoder.encode(WORDS) for piece in window.piece_ids)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_words_of_the_text_become_the_same_pieces(make):
    tokenizer = make()

    pruned, piece_ids = prune_tokenizer(tokenizer, uses_of(tokenizer), 1)

    assert len(pruned) == len(piece_ids) < len(tokenizer)
    for words in WORDS:
        before = tokenizer(words, is_split_into_words=True)["input_ids"]
        after = pruned(words, is_split_into_words=True)["input_ids"]
        assert [piece_ids[number] for number in after] == before
    assert tokenizer.convert_ids_to_tokens(piece_ids) == pruned.convert_ids_to_tokens(list(range(len(pruned))))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_new_words_of_known_characters_stay_known(make):
    tokenizer = make()

    pruned, _ = prune_tokenizer(tokenizer, uses_of(tokenizer), 1000)  # no piece is that frequent

    for word in NEW_WORDS[:3]:
        assert pruned.unk_token_id not in pruned(word, add_special_tokens=False)["input_ids"]
    assert "Angela" not in pruned.get_vocab()
    assert pruned.unk_token_id in pruned("北", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_pruned_tokenizer_reads_back_as_it_was_saved(make, tmp_path):
    tokenizer = make()
    pruned, _ = prune_tokenizer(tokenizer, uses_of(tokenizer), 1)

    pruned.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))

    assert again.get_vocab() == pruned.get_vocab()
    assert again.all_special_ids == pruned.all_special_ids
    assert again(NEW_WORDS, is_split_into_words=True) == pruned(NEW_WORDS, is_split_into_words=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda cls, sep: processors.BertProcessing(sep, cls),
        lambda cls, sep: processors.RobertaProcessing(sep, cls),
        lambda cls, sep: processors.Sequence([processors.BertProcessing(sep, cls)]),
    ],
    ids=["bert", "roberta", "sequence"],
)
def test_special_pieces_of_every_kind_of_template_are_renumbered(make):
    pieces = ["[PAD]", "[UNK]", "Angela", "a", "##a", "[CLS]", "[SEP]"]
    backend = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = make(("[CLS]", 5), ("[SEP]", 6))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )

    pruned, piece_ids = prune_tokenizer(tokenizer, {3: 1}, 1)

    assert piece_ids == [0, 1, 3, 4, 5, 6]
    assert pruned("a")["input_ids"] == [4, 2, 5]


def test_a_vocabulary_of_merges_is_refused():
    with pytest.raises(ModelError, match=r"of the kind BPE.*set reduction\.min_frequency=0, or take an encoder with"):
        prune_tokenizer(byte_level_tokenizer(), {}, 1)


@pytest.mark.parametrize("kind", MAKERS)
def test_without_pieces_that_do_not_occur_a_network_says_the_same(kind):
    tokenizer = MAKERS[kind]()
    network = tiny_model(tokenizer, kind=kind).recognizer
    encoder = WordEncoder(tokenizer, 64)

    windows = list(encoder.encode(WORDS))
    smaller, own = smaller_network(network, encoder, windows, ReductionRecipe(layers=2))

    assert smaller.get_input_embeddings().num_embeddings == len(own.tokenizer) < len(tokenizer)
    assert (smaller.config.pad_token_id, own.pad_id) == (own.tokenizer.pad_token_id, own.tokenizer.pad_token_id)
    for before, after in zip(windows, own.encode(WORDS), strict=True):
        said, says = (
            part(input_ids=torch.from_numpy(window.piece_ids).long()[None]).logits
            for part, window in ((network, before), (smaller, after))
        )
        torch.testing.assert_close(says, said)


def test_layers_are_kept_from_the_first_to_the_last():
    assert [spread(12, n) for n in (1, 2, 3, 6, 12)] == [
        [0],
        [0, 11],
        [0, 6, 11],
        [0, 2, 4, 7, 9, 11],
        list(range(12)),
    ]


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_left_keeps_its_weights(kind):
    network = tiny_model(MAKERS[kind](), kind=kind).recognizer

    smaller = reduced(network, n_layers=1, feed_forward=16)

    layer, kept = (part.base_model.encoder.layer[0] for part in (network, smaller))
    assert (smaller.config.num_hidden_layers, len(smaller.base_model.encoder.layer)) == (1, 1)
    assert torch.equal(kept.attention.self.query.weight, layer.attention.self.query.weight)
    assert torch.equal(smaller.classifier.weight, network.classifier.weight)
    into, out = layer.intermediate.dense.weight, layer.output.dense.weight
    chosen = sorted((into.norm(dim=1) * out.norm(dim=0)).tolist(), reverse=True)[:16]
    left = kept.intermediate.dense.weight.norm(dim=1) * kept.output.dense.weight.norm(dim=0)
    assert sorted(left.tolist(), reverse=True) == pytest.approx(chosen)


def test_units_without_weight_are_not_missed():
    network = tiny_model(word_piece_tokenizer()).recognizer
    for layer in network.base_model.encoder.layer:
        layer.output.dense.weight.data[:, 1::2] = 0.0

    smaller = reduced(network, feed_forward=32)

    ids = torch.arange(5, 30)[None]
    torch.testing.assert_close(smaller(input_ids=ids).logits, network(input_ids=ids).logits)


def test_more_than_there_is_is_refused():
    network = tiny_model(word_piece_tokenizer()).recognizer

    with pytest.raises(ModelError, match=r"reduction\.layers is 3; BertForTokenClassification has 2 layers of its own"):
        reduced(network, n_layers=3)
    with pytest.raises(ModelError, match=r"reduction\.feed_forward is 65; BertForTokenClassification has 64 units"):
        reduced(network, feed_forward=65)


def test_layers_that_share_their_weights_are_refused():
    config = AlbertConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=4,
        intermediate_size=32,
    )

    for settings in ({"n_layers": 2}, {"feed_forward": 16}):
        with pytest.raises(ModelError, match=r"layers of AlbertForTokenClassification share their weights"):
            reduced(AlbertForTokenClassification(config), **settings)
        with pytest.raises(ModelError, match=r"layers of AlbertForTokenClassification share their weights"):
            check_reducible(config, **settings)


def test_fewer_pieces_leave_the_layers_that_share_their_weights_as_they_are():
    network = AlbertForTokenClassification(
        AlbertConfig(vocab_size=50, embedding_size=8, hidden_size=16, num_attention_heads=2, num_hidden_layers=4)
    ).eval()

    smaller = reduced(network, n_layers=4, piece_ids=range(40))

    ids = torch.arange(5, 30)[None]
    torch.testing.assert_close(smaller(input_ids=ids).logits, network(input_ids=ids).logits)


@pytest.fixture(scope="module")
def small(learning):
    """The arguments of a run of a smaller transformer, but its name."""
    others = [argument for argument in learning if "variant" not in argument]
    return (*others, "student=transformer", "variant=pooled", "denoising=none")


@pytest.mark.slow
def test_a_smaller_student_learns_what_its_teacher_says(small, teacher, tmp_path):
    run_well(DISTILL, *brief(small, 10), "run=small", cwd=tmp_path)

    run = tmp_path / "runs" / "small"
    report, model = report_of(run), run / "model"
    scores = report["scores"]
    config, before = (json.loads((folder / "config.json").read_text()) for folder in (model, teacher / "model"))
    assert scores["student"]["overall"]["f1"] > 0.9 * scores["teacher"]["overall"]["f1"]
    assert report["parameters"] == sum(values.numel() for values in weights_of(run).values())
    assert (before["num_hidden_layers"], config["num_hidden_layers"]) == (2, 1)
    assert config["vocab_size"] == len(load_tokenizer(str(model))) < before["vocab_size"]
    assert [(entity.text, entity.label) for entity in load_tagger(model).tag("Anna lebt in Kiel .")] == [
        ("Anna", "PER"),
        ("Kiel", "LOC"),
    ]
    opened = pipeline("token-classification", model=str(model), aggregation_strategy="first")
    assert [found["word"] for found in opened("Anna lebt in Kiel .")] == ["Anna", "Kiel"]


@pytest.mark.slow
def test_too_many_layers_are_told_in_a_line(small, tmp_path):
    refused = run_script(DISTILL, *small, "run=small", "reduction.layers=7", cwd=tmp_path)

    assert refused.status == 2
    assert re.fullmatch(r"reduction\.layers is 7; \S+/model has 2", refused.messages[-1])
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_vocabulary_of_merges_is_told_before_a_teacher_labels_anything(small, small_data, tmp_path):
    encoder = tmp_path / "encoder"
    tokenizer = byte_level_tokenizer()
    tiny_model(tokenizer, kind="xlm-roberta").recognizer.base_model.save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)

    refused = run_script(DISTILL, *small, f"encoder={encoder}", "run=small", cwd=tmp_path)

    assert refused.status == 2
    assert refused.messages[-1].startswith(
        f"{encoder}: its tokenizer is of the kind BPE, whose pieces are made of each"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_another_encoder_can_be_made_smaller_too(small, tiny_encoder, tmp_path):
    arguments = ("run=small", f"encoder={tiny_encoder}", "reduction.feed_forward=16", "reduction.min_frequency=0")
    run_well(DISTILL, *brief(small), *arguments, cwd=tmp_path)

    config = json.loads((tmp_path / "runs" / "small" / "model" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (1, 16)
    assert config["vocab_size"] == len(load_tokenizer(tiny_encoder))
