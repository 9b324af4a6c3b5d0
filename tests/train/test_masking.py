"""Which pieces are hidden, what stands in their place, and the head that tells them."""

import json

import numpy as np
import pytest
import torch
from conftest import TOKENIZERS, byte_level_tokenizer, unigram_tokenizer, word_piece_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import BertConfig, BertForMaskedLM, XLMRobertaConfig, XLMRobertaForMaskedLM

from xlner.config.schema import MaskingRecipe
from xlner.encode import WordEncoder
from xlner.errors import ModelError
from xlner.models.masked_lm import MaskedModel
from xlner.train.batches import Plan
from xlner.train.masking import HiddenPieces, Masker, TextRows, pair_rows, sentence_rows
from xlner.words import Sentence

ENCODERS = {name: WordEncoder(TOKENIZERS[name]()) for name in ("word_piece", "unigram")}
WORDS = ("Angela", "Merkel", "Kiel", "und", "die", "Berlin", "xyz", "a", ".", "Zug")
SENTENCES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), min_size=1, max_size=6)


def masked(name, sentences, recipe, seed=0):
    """The windows of sentences before and after, and the hidden places."""
    encoder = ENCODERS[name]
    windows = list(sentence_rows(encoder, sentences))
    return windows, *Masker(encoder.tokenizer, recipe).mask(windows, np.random.default_rng(seed))


def together(windows):
    return np.concatenate([window.piece_ids for window in windows])


def words_of(windows):
    """For each piece of all windows the number of its word; special pieces count with the word before them."""
    starts, offset = [], 0
    for window in windows:
        starts += [offset + place for place in window.word_positions]
        offset += len(window.piece_ids)
    return np.searchsorted(starts, np.arange(offset), side="right") - 1


@pytest.mark.parametrize("name", sorted(ENCODERS))
@given(sentences=SENTENCES, ratio=st.floats(0.05, 0.6), seed=st.integers(0, 99))
def test_as_many_pieces_are_hidden_as_asked_as_nearly_as_whole_words_allow(name, sentences, ratio, seed):
    windows, _, places = masked(name, sentences, MaskingRecipe(ratio=ratio), seed)

    special = set(ENCODERS[name].tokenizer.all_special_ids)
    n_ordinary = sum(piece not in special for piece in together(windows))
    longest = max(map(len, sentences_in_pieces(name, sentences)))
    assert len(places) >= 1
    assert abs(len(places) - ratio * n_ordinary) <= longest


def sentences_in_pieces(name, sentences):
    return [ENCODERS[name].tokenizer.tokenize(word) for words in sentences for word in words]


@pytest.mark.parametrize("name", sorted(ENCODERS))
@given(sentences=SENTENCES, seed=st.integers(0, 99))
def test_a_word_is_hidden_whole_or_not_at_all(name, sentences, seed):
    windows, _, places = masked(name, sentences, MaskingRecipe(ratio=0.3), seed)

    words, special = words_of(windows), ENCODERS[name].tokenizer.all_special_ids
    ordinary = ~np.isin(together(windows), special)
    hidden = np.isin(words, words[places]) & ordinary
    assert np.flatnonzero(hidden).tolist() == places.tolist()


@pytest.mark.parametrize("whole_words", [True, False])
@pytest.mark.parametrize("name", sorted(ENCODERS))
@given(sentences=SENTENCES, seed=st.integers(0, 99))
def test_special_pieces_are_never_hidden_and_all_others_stay_as_they_are(name, whole_words, sentences, seed):
    recipe = MaskingRecipe(ratio=0.5, whole_words=whole_words)

    windows, shown, places = masked(name, sentences, recipe, seed)

    before, after = together(windows), together(shown)
    assert not np.isin(before[places], ENCODERS[name].tokenizer.all_special_ids).any()
    others = np.delete(np.arange(len(before)), places)
    assert (before[others] == after[others]).all()


@pytest.mark.parametrize("whole_words", [True, False])
def test_what_the_tokenizer_does_not_know_is_not_hidden(whole_words):
    sentences = [["ω", "Kiel", "ψ"]] * 20
    recipe = MaskingRecipe(ratio=0.9, whole_words=whole_words)

    windows, _, places = masked("word_piece", sentences, recipe)

    assert len(places) > 20
    assert ENCODERS["word_piece"].tokenizer.unk_token_id not in together(windows)[places]


def test_of_a_text_without_any_known_piece_nothing_is_hidden():
    _, _, places = masked("word_piece", [["ω", "ψ"]], MaskingRecipe())

    assert len(places) == 0


def test_the_same_seed_hides_the_same_and_another_one_something_else():
    sentences = [["Angela", "Merkel", "und", "Kiel", "."]] * 10

    _, first, _ = masked("word_piece", sentences, MaskingRecipe(), seed=1)
    _, again, _ = masked("word_piece", sentences, MaskingRecipe(), seed=1)
    _, other, _ = masked("word_piece", sentences, MaskingRecipe(), seed=2)

    assert (together(first) == together(again)).all()
    assert not (together(first) == together(other)).all()


def test_most_hidden_pieces_are_masks_some_are_random_and_the_rest_as_they_were():
    windows, shown, places = masked("word_piece", [["a", "Kiel", "b"]] * 4000, MaskingRecipe(ratio=0.5))

    before, after = together(windows)[places], together(shown)[places]
    is_mask = after == ENCODERS["word_piece"].tokenizer.mask_token_id
    assert is_mask.mean() == pytest.approx(0.8, abs=0.02)
    assert (after == before).mean() == pytest.approx(0.1, abs=0.02)
    assert not np.isin(after[~is_mask], ENCODERS["word_piece"].tokenizer.all_special_ids).any()


def test_a_batch_tells_what_was_hidden_and_where():
    encoder = ENCODERS["unigram"]
    rows = TextRows(sentence_rows(encoder, [["Angela", "Merkel"], ["in", "Kiel", "und", "Berlin", "."]]))
    objective = HiddenPieces(rows, Masker(encoder.tokenizer, MaskingRecipe(ratio=0.4, as_mask=1, as_random=0)), 1)

    batch = objective.batch(Plan(np.array([1, 0]), (3, 4, 5)))

    seen = batch.tokens.input_ids.flatten()
    assert (seen[batch.masked_places] == encoder.tokenizer.mask_token_id).all()
    seen[batch.masked_places] = batch.masked_ids
    restored = seen.view(2, -1)
    for row, number in enumerate((1, 0)):
        assert restored[row][batch.tokens.attention_mask[row]].tolist() == rows[number].piece_ids.tolist()


def test_a_tokenizer_without_a_mask_is_refused():
    with pytest.raises(ModelError, match="has no mask piece; expected an encoder that was trained on masked pieces"):
        Masker(byte_level_tokenizer(), MaskingRecipe())


@given(sentences=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=60), min_size=1, max_size=4))
def test_rows_hold_every_word_once_in_its_order(sentences):
    encoder = WordEncoder(word_piece_tokenizer(), 16)

    rows = TextRows(sentence_rows(encoder, sentences))

    assert max(rows.lengths) <= 16
    assert rows.n_words == sum(map(len, sentences))
    for number, words in enumerate(sentences):
        mine = [rows[row] for row in range(len(rows)) if rows[row].sentence == number]
        found = [piece for row in mine for piece in row.piece_ids[1:-1]]
        assert found == [
            piece for word in words for piece in encoder.tokenizer(word, add_special_tokens=False)["input_ids"]
        ]


def test_rows_hold_the_whole_of_a_text_whose_pieces_hold_several_words():
    tokenizer = unigram_tokenizer()
    text = "北京大学在北京" * 4
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["model"]["vocab"] += [["北京", -3.0], ["大学", -3.0], ["在", -4.0]]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    encoder = WordEncoder(tokenizer, 12)

    rows = TextRows(sentence_rows(encoder, [tuple(text), tuple(text[:7])]))

    shown = [tokenizer.decode(rows[row].piece_ids, skip_special_tokens=True) for row in range(len(rows))]
    assert "".join(shown).replace(" ", "") == text + text[:7]
    assert [rows[row].sentence for row in range(len(rows))] == [0, 0, 1]


@pytest.mark.parametrize("make", [word_piece_tokenizer, unigram_tokenizer])
def test_a_translation_is_one_input_as_the_tokenizer_joins_two_texts(make):
    tokenizer = make()
    encoder = WordEncoder(tokenizer)
    pair = (Sentence(("Angela", "und", "Kiel")), Sentence(("die", "Berlin")))

    (row,) = pair_rows(encoder, [pair])

    assert row.piece_ids.tolist() == tokenizer("Angela und Kiel", "die Berlin")["input_ids"]
    starts = tokenizer.convert_ids_to_tokens(row.piece_ids[row.word_positions].tolist())
    assert [start.replace("▁", "") for start in starts] == ["Angela", "und", "Ki", "die", "Ber"]


def test_a_long_translation_keeps_the_whole_words_that_fit_on_either_side():
    encoder = WordEncoder(word_piece_tokenizer(), 16)
    pair = (Sentence(("Kiel",) * 30), Sentence(("die",) * 30))

    (row,) = pair_rows(encoder, [pair])

    tokens = encoder.tokenizer.convert_ids_to_tokens(row.piece_ids.tolist())
    assert tokens == ["[CLS]", *["Ki", "##el"] * 3, "[SEP]", *["die"] * 6, "[SEP]"]


@pytest.mark.parametrize(
    ("network", "config"),
    [(BertForMaskedLM, BertConfig), (XLMRobertaForMaskedLM, XLMRobertaConfig)],
)
def test_the_head_tells_hidden_pieces_as_it_does_when_it_looks_at_all(network, config):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    whole = network(config(vocab_size=40, max_position_embeddings=20, **sizes)).eval()
    ids, mask, places = torch.randint(4, 40, (3, 6)), torch.ones(3, 6, dtype=torch.bool), torch.tensor([1, 8, 17])

    logits = MaskedModel(whole)(ids, mask, places)

    expected = whole(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)[places]
    torch.testing.assert_close(logits, expected)
