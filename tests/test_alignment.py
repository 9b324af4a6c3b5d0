from itertools import pairwise

import numpy as np
import pytest
from conftest import SENTENCES, TOKENIZERS, byte_level_tokenizer, word_piece_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from xlner.data.alignment import CONTEXT_RATIO, WordEncoder, load_tokenizer, plan_windows
from xlner.data.batches import collate
from xlner.errors import ModelError

ENCODERS = {name: WordEncoder(make(), max_length=24) for name, make in TOKENIZERS.items()}
VANISHING = ["\u200b", "", "\ufeff", "\u0000"]


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_the_word_mask_is_true_on_the_first_piece_of_each_word(name):
    encoder = ENCODERS[name]
    sentence = ["Merkel", "kam", "."]

    windows = list(encoder.encode([sentence]))
    batch = collate(windows, encoder.pad_id)

    pieces = batch.input_ids[0]
    starts = batch.word_mask[0].nonzero().flatten().tolist()
    assert len(starts) == 3
    for start, end, word in zip(starts, [*starts[1:], len(pieces) - 1], sentence, strict=True):
        assert encoder.tokenizer.decode(pieces[start:end]).replace(" ", "") == word
    assert starts[0] == len(encoder.prefix)


@pytest.mark.parametrize("name", sorted(ENCODERS))
@given(
    lengths=st.lists(st.lists(st.integers(0, 40), max_size=40), max_size=4),
    data=st.data(),
)
def test_every_visible_word_is_decided_exactly_once(name, lengths, data):
    encoder = ENCODERS[name]
    nothing = st.sampled_from(VANISHING)
    sentences = [["ab" * (n // 2) + "c" * (n % 2) or data.draw(nothing) for n in row] for row in lengths]

    windows = list(encoder.encode(sentences, first_sentence=5))

    decided = sorted((window.sentence - 5, number) for window in windows for number in window.word_numbers.tolist())
    assert len(decided) == len(set(decided))
    visible = {
        (row, number)
        for row, words in enumerate(sentences)
        for number, word in enumerate(words)
        if word not in VANISHING
    }
    assert visible <= set(decided)
    for window in windows:
        assert len(window.piece_ids) <= 24
        assert window.piece_ids[: len(encoder.prefix)].tolist() == encoder.prefix
        assert window.piece_ids[-len(encoder.suffix) :].tolist() == encoder.suffix
        assert np.all(np.diff(window.word_numbers) > 0)
        assert np.all(np.diff(window.word_positions) > 0)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_a_word_has_the_same_first_piece_in_a_window_as_in_a_short_sentence(name):
    encoder = ENCODERS[name]
    sentence = " ".join(SENTENCES).split()

    windows = list(encoder.encode([sentence]))

    assert len(windows) > 1
    for window in windows:
        for position, number in zip(window.word_positions, window.word_numbers, strict=True):
            alone = next(encoder.encode([[sentence[number]]]))
            assert window.piece_ids[position] == alone.piece_ids[len(encoder.prefix)]


def test_words_that_tokenise_to_nothing_are_in_no_window_and_shift_no_other():
    windows = list(ENCODERS["word_piece"].encode([["\u200b", "Kiel", "", "und", "\ufeff"], ["\u200b"], []]))

    assert [window.word_numbers.tolist() for window in windows] == [[1, 3]]


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_a_word_longer_than_a_window_keeps_its_first_pieces(name):
    encoder = ENCODERS[name]

    windows = list(encoder.encode([["und", "ab" * 45, "die"]]))

    assert sorted(number for window in windows for number in window.word_numbers.tolist()) == [0, 1, 2]
    assert max(len(window.piece_ids) for window in windows) <= 24


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_a_lone_surrogate_is_encoded_like_an_unknown_character(name):
    broken, replaced = (next(ENCODERS[name].encode([["a" + char, "b"]])) for char in ("\ud83d", "\ufffd"))

    assert broken.piece_ids.tolist() == replaced.piece_ids.tolist()


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=80))
def test_planned_windows_fit_and_decide_each_word_once(lengths):
    room = 20

    plan = list(plan_windows(lengths, room))

    assert [word for _, decided in plan for word in decided] == list(range(len(lengths)))
    for shown, decided in plan:
        assert shown.start <= decided.start < decided.stop <= shown.stop
        assert sum(lengths[shown.start : shown.stop]) <= room
    ends = [shown.stop for shown, _ in plan]
    assert ends == sorted(set(ends))


def test_a_word_at_an_inner_edge_is_decided_where_it_has_context_on_both_sides():
    room = 40
    context = int(room * CONTEXT_RATIO)

    plan = list(plan_windows([1] * 200, room))

    for (shown, decided), (_, following) in pairwise(plan):
        assert shown.stop - decided.stop == context
        assert following.start == decided.stop
    assert all(decided.start - shown.start == context for shown, decided in plan[1:])


def test_a_huge_word_does_not_multiply_the_windows():
    plan = list(plan_windows(([1] * 100 + [100]) * 20, 110))

    assert len(plan) <= 60


def test_the_limit_is_the_smaller_one_of_tokenizer_and_request():
    assert WordEncoder(word_piece_tokenizer()).max_length == 64
    assert WordEncoder(word_piece_tokenizer(), 1000).max_length == 64
    assert WordEncoder(word_piece_tokenizer(), 32).max_length == 32


def test_a_limit_without_room_for_words_is_refused():
    with pytest.raises(ModelError, match="max_length is 5; it must leave room for 4 pieces"):
        WordEncoder(word_piece_tokenizer(), 5)


def test_an_encoder_that_has_only_a_sentencepiece_file_is_read(sentencepiece_folder):
    encoder = WordEncoder(load_tokenizer(sentencepiece_folder), 64)

    (window,) = encoder.encode([["Angela", "Merkel", "Kiel"]])

    pieces = encoder.tokenizer.convert_ids_to_tokens(window.piece_ids.tolist())
    assert [pieces[position][0] for position in window.word_positions] == ["▁", "▁", "▁"]
    assert encoder.tokenizer.decode(window.piece_ids, skip_special_tokens=True) == "Angela Merkel Kiel"


def test_byte_level_words_start_with_a_space_also_after_saving(tmp_path):
    byte_level_tokenizer().save_pretrained(tmp_path / "first")
    load_tokenizer(str(tmp_path / "first")).save_pretrained(tmp_path / "second")

    for folder in ("first", "second"):
        encoder = WordEncoder(load_tokenizer(str(tmp_path / folder)))
        (window,) = encoder.encode([["ab", "cd"]])
        pieces = encoder.tokenizer.convert_ids_to_tokens(window.piece_ids.tolist())
        assert [pieces[position] for position in window.word_positions] == ["Ġ", "Ġ"]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no tokenizer in this folder"):
        load_tokenizer(str(tmp_path))
