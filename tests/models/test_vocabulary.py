"""New pieces: learnt from a text, added to a tokenizer's own model, and their rows in the network."""

import json
from collections import Counter

import pytest
import torch
from conftest import byte_level_tokenizer, tiny_model, unigram_tokenizer, word_piece_tokenizer
from tokenizers import pre_tokenizers

from xlner.errors import ModelError
from xlner.models.masked_lm import extend_embeddings, load_masked_network
from xlner.models.vocabulary import extend_tokenizer

TEXT = "這樣 是 簡單 的 Häuserkampf in Häusern ΑΘΗΝΑ und Αθηνα , ein Haus am Hang"
WORDS = Counter(dict.fromkeys(TEXT.split(), 10))
MAKERS = {"word_piece": word_piece_tokenizer, "unigram": unigram_tokenizer}
KINDS = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def new_pieces(extension):
    found = {number: piece for piece, number in extension.tokenizer.get_vocab().items()}
    return [found[number] for number in range(extension.first_id, len(found))]


def masked_network(make, tmp_path):
    kind = "bert" if make is word_piece_tokenizer else "xlm-roberta"
    tiny_model(make(), kind=kind).recognizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    return load_masked_network(str(tmp_path))[0]


@KINDS
def test_old_pieces_keep_their_ids_and_new_ones_follow(make):
    tokenizer = make()

    extension = extend_tokenizer(tokenizer, WORDS, 40, 2)

    after = extension.tokenizer.get_vocab()
    assert {piece: after[piece] for piece in tokenizer.get_vocab()} == tokenizer.get_vocab()
    assert extension.first_id == len(tokenizer)
    assert sorted(after.values()) == list(range(len(tokenizer) + len(extension.parts)))


@KINDS
def test_what_was_unknown_is_known_afterwards(make):
    tokenizer = make()

    extended = extend_tokenizer(tokenizer, WORDS, 100, 2).tokenizer

    assert tokenizer.unk_token_id in tokenizer(TEXT)["input_ids"]
    assert tokenizer.unk_token_id not in extended(TEXT)["input_ids"]


# Characters come before longer pieces: words that are not in the text are made of them.
@KINDS
def test_so_are_other_words_of_the_same_characters(make):
    extended = extend_tokenizer(make(), WORDS, 100, 2).tokenizer

    assert extended.unk_token_id not in extended("單這樣 ΑΝΘ")["input_ids"]


@KINDS
def test_no_more_pieces_are_added_than_asked_and_unknown_characters_first(make):
    extension = extend_tokenizer(make(), WORDS, 5, 2)

    assert len(new_pieces(extension)) == 5
    assert all(len(piece.removeprefix("##")) == 1 for piece in new_pieces(extension))
    assert extension.parts == [[]] * 5


@KINDS
def test_what_is_rarer_than_asked_is_not_added(make):
    words = WORDS + Counter({"ωψ": 2})

    pieces = new_pieces(extend_tokenizer(make(), words, 200, 3))

    assert pieces
    assert not [piece for piece in pieces if "ω" in piece or "ψ" in piece]


@KINDS
def test_new_pieces_are_no_added_tokens_that_would_match_within_words(make):
    tokenizer = make()

    extended = extend_tokenizer(tokenizer, WORDS, 100, 2).tokenizer

    assert extended.get_added_vocab() == tokenizer.get_added_vocab()
    assert extended.all_special_ids == tokenizer.all_special_ids
    assert extended("a b", "c")["input_ids"] == tokenizer("a b", "c")["input_ids"]


def test_a_word_piece_goes_on_as_one_and_does_not_begin_within_a_word():
    extension = extend_tokenizer(word_piece_tokenizer(), Counter({"Haus": 50, "am": 3}), 20, 2)

    assert "Haus" in new_pieces(extension)
    assert extension.tokenizer.tokenize("Haus xHaus") == ["Haus", "x", "##H", "##a", "##u", "##s"]


@KINDS
def test_the_parts_of_a_new_piece_are_what_the_old_tokenizer_made_of_it(make):
    tokenizer = make()
    extension = extend_tokenizer(tokenizer, Counter({"Haus": 50, "Hausarrest": 50}), 20, 2)

    parts = dict(zip(new_pieces(extension), extension.parts, strict=True))

    (whole,) = [piece for piece in parts if piece.strip("▁") == "Haus"]
    assert tokenizer.convert_ids_to_tokens(parts[whole]) == tokenizer.tokenize("Haus")


def test_added_tokens_beyond_the_vocabulary_keep_their_ids():
    tokenizer = word_piece_tokenizer()
    tokenizer.add_tokens(["<url>", "<mail>"])

    extension = extend_tokenizer(tokenizer, WORDS, 10, 2)

    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<url>", "<mail>")]
    assert [extension.tokenizer.convert_tokens_to_ids(token) for token in ("<url>", "<mail>")] == ids
    assert extension.first_id == max(ids) + 1


def test_the_same_text_gives_the_same_pieces():
    first, second = (new_pieces(extend_tokenizer(word_piece_tokenizer(), WORDS, 30, 2)) for _ in range(2))

    assert first == second


@KINDS
def test_an_extended_tokenizer_reads_back_as_it_was_saved(make, tmp_path):
    extended = extend_tokenizer(make(), WORDS, 30, 2).tokenizer

    extended.save_pretrained(tmp_path)

    again = type(extended).from_pretrained(tmp_path)
    assert again.get_vocab() == extended.get_vocab()
    assert again.tokenize(TEXT) == extended.tokenize(TEXT)
    kept = json.loads((tmp_path / "tokenizer.json").read_text())
    assert len(kept["added_tokens"]) == len(extended.get_added_vocab())


def test_a_tokenizer_that_merges_is_refused_and_told_why():
    with pytest.raises(ModelError, match=r"of the kind BPE, .* set vocabulary\.new_pieces=0, or take an encoder with"):
        extend_tokenizer(byte_level_tokenizer(), WORDS, 10, 2)


@KINDS
def test_old_rows_stay_and_new_ones_are_the_means_of_their_parts(make, tmp_path):
    network = masked_network(make, tmp_path)
    before = network.get_input_embeddings().weight.detach().clone()
    n = len(before)

    extend_embeddings(network, n, [[5, 6], []], torch.Generator().manual_seed(1))

    after = network.get_input_embeddings().weight
    assert torch.equal(after[:n], before)
    torch.testing.assert_close(after[n], before[5:7].mean(dim=0))
    assert (after[n + 1] - before.mean(dim=0)).abs().max() < 3 * before.std()
    assert network.config.vocab_size == n + 2


@KINDS
def test_head_and_embeddings_stay_one_table_and_the_bias_grows_with_it(make, tmp_path):
    network = masked_network(make, tmp_path)
    n = network.config.vocab_size

    extend_embeddings(network, n, [[5, 6]], torch.Generator())

    head = network.get_output_embeddings()
    assert head.weight is network.get_input_embeddings().weight
    assert head.bias.shape == (n + 1,)
    assert network(input_ids=torch.tensor([[5, n]])).logits.shape == (1, 2, n + 1)


def test_pieces_without_parts_differ_from_each_other(tmp_path):
    network = masked_network(word_piece_tokenizer, tmp_path)
    n = network.config.vocab_size

    extend_embeddings(network, n, [[], []], torch.Generator().manual_seed(1))

    first, second = network.get_input_embeddings().weight[n:]
    assert not torch.allclose(first, second)


def test_without_new_pieces_the_network_stays_as_it_is(tmp_path):
    network = masked_network(word_piece_tokenizer, tmp_path)
    n = network.config.vocab_size

    extend_embeddings(network, n, [], torch.Generator())

    assert network.config.vocab_size == n


def test_pieces_are_learnt_with_the_mark_that_words_have_in_running_text():
    tokenizer = unigram_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")

    extension = extend_tokenizer(tokenizer, WORDS, 100, 2)

    assert {"▁Häuser", "▁Haus"} & set(new_pieces(extension))
    assert "▁" in "".join(extension.tokenizer.tokenize("in Häusern")[1:])


def test_a_character_of_a_script_without_spaces_gets_no_piece_with_a_space():
    characters = Counter(dict.fromkeys("這樣是簡單的", 10))

    pieces = new_pieces(extend_tokenizer(unigram_tokenizer(), characters, 100, 2))

    assert sorted(pieces) == sorted("這樣是簡單的")
