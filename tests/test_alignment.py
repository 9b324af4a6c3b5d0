from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from conftest import SENTENCES, TOKENIZERS, byte_level_tokenizer, word_piece_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from xlner.encode import CONTEXT_RATIO, StoredTokenizer, WordEncoder, load_tokenizer, plan_windows, read_tokenizer
from xlner.errors import ModelError
from xlner.models.inference import collate
from xlner.models.settings import ModelSettings
from xlner.predict import go_on
from xlner.words import split_words

ENCODERS = {name: WordEncoder(make(), max_length=24) for name, make in TOKENIZERS.items()}
VANISHING = ["\u200b", "", "\ufeff", "\u0000"]


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_words_stand_where_their_first_pieces_are(name):
    encoder = ENCODERS[name]
    sentence = ["Merkel", "kam", "."]

    windows = list(encoder.encode([sentence]))
    batch = collate(windows, encoder.pad_id)

    pieces = batch.input_ids[0]
    starts = batch.words.tolist()
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


# How tokenizers of today tell where a word begins, and how those of other scripts do.
RUNNING = "Angela Merkel besuchte Kiel in 2024 , O'Brien auch ."
LLAMA = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
SPACES = partial(pre_tokenizers.ByteLevel, add_prefix_space=False)
MARKS = {
    "llama": ("bpe", [pre_tokenizers.Split(Regex(LLAMA), "isolated"), SPACES(use_regex=False)], None),
    "digits": ("bpe", [pre_tokenizers.Digits(), pre_tokenizers.Punctuation(), SPACES()], None),
    "gemma": ("bytes", pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁")),
    "llama 2": ("bytes", None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])),
    "always": ("unigram", pre_tokenizers.Metaspace(prepend_scheme="always"), None),
    "first": ("unigram", pre_tokenizers.Metaspace(prepend_scheme="first"), None),
    "never": ("unigram", pre_tokenizers.Metaspace(prepend_scheme="never"), None),
    "spaces": ("unigram", pre_tokenizers.WhitespaceSplit(), None),
}
BYTES = [f"<0x{number:02X}>" for number in range(256)]


def marked_tokenizer(kind, more=()):
    """Trained on a few sentences, so that pieces with and without the mark of a word's start differ."""
    model, splitter, normalizer = MARKS[kind]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if model == "unigram":
        backend = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=model == "bytes"))
        alphabet = pre_tokenizers.ByteLevel.alphabet() if model == "bpe" else []
        special += BYTES if model == "bytes" else []
        trainer = trainers.BpeTrainer(
            vocab_size=450, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        splitter = pre_tokenizers.Sequence(splitter) if model == "bpe" else splitter
    # Gemma and Llama 2 were trained on words, though their tokenizers do not cut text.
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next") if model == "bytes" else splitter
    backend.normalizer = normalizer
    backend.train_from_iterator([*SENTENCES, RUNNING, *more] * 3, trainer)
    if model == "bytes":
        backend.pre_tokenizer = splitter or pre_tokenizers.Sequence([])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return StoredTokenizer(backend, 128, 1)


@pytest.mark.parametrize("kind", sorted(MARKS))
def test_words_of_a_list_have_the_pieces_of_running_text(kind):
    tokenizer = marked_tokenizer(kind)
    encoder = WordEncoder(tokenizer)

    (window,) = encoder.encode([RUNNING.split()])

    # The first word of a text has a mark or none; here it is like the others.
    running = tokenizer.backend_tokenizer.encode(f"x {RUNNING}").ids
    pieces = window.piece_ids[len(encoder.prefix) :].tolist()
    assert pieces == running[-len(pieces) :]
    assert len(window.word_positions) == len(RUNNING.split())


@pytest.mark.parametrize("kind", sorted(MARKS))
@pytest.mark.parametrize("text", ["在北京", "東京タワー", "กรุงเทพ"])
def test_words_of_a_script_without_spaces_have_the_pieces_of_running_text_and_no_piece_for_a_space(kind, text):
    encoder = WordEncoder(marked_tokenizer(kind, [f"x {text}", text]))
    words = [text[start:end] for start, end in split_words(text)]

    (window,) = encoder.encode([["x", *words]])

    backend = encoder.tokenizer.backend_tokenizer
    ours = [backend.id_to_token(piece) for piece in window.piece_ids.tolist()]
    running = backend.encode(f"{encoder.before_word}{text}", add_special_tokens=False).tokens
    mark = encoder.space_mark
    expected = running[1:] if running[0] == mark else running
    assert ours[-1 - len(expected) : -1] == expected
    assert mark not in ours[2:] if mark else kind == "spaces"
    assert "".join(ours).replace(mark or "▁", "") == "<s>x" + "".join(running).replace(mark or "▁", "") + "</s>"


def encoder_of_pieces(pieces):
    """A tokenizer as those of XLM-R, of these pieces alone: the earlier in the list, the likelier."""
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    backend = Tokenizer(models.Unigram([*vocabulary, *((one, -1.0 - n) for n, one in enumerate(pieces))], unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return WordEncoder(StoredTokenizer(backend, 128, 1))


def test_a_piece_of_several_words_is_that_of_the_first_and_no_window_decides_the_others():
    encoder = encoder_of_pieces(["▁", "北京", "大学", "在", "2", "。", "▁Kiel", "x", "K", "i", "e", "l"])

    (window,) = encoder.encode([["在", "北", "京", "大", "学", "。", "Kiel", "北", "京"]])

    names = [encoder.tokenizer.backend_tokenizer.id_to_token(piece) for piece in window.piece_ids]
    assert names == ["<s>", "在", "北京", "大学", "。", "▁Kiel", "北京", "</s>"]
    assert window.word_numbers.tolist() == [0, 1, 3, 5, 6, 7]
    assert window.word_positions.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_long_text_without_spaces_is_cut_by_parts_and_what_word_piece_does_not_know_word_by_word():
    vocabulary = {name: n for n, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ก", "##า", "า", "x", "##x"])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    encoder = WordEncoder(StoredTokenizer(backend, 512, 0))

    def names(words):
        (window,) = encoder.encode([words])
        return [backend.id_to_token(piece) for piece in window.piece_ids[1:-1]]

    assert names(["ก", "า"]) == ["ก", "##า"]
    assert names(["ก", "า", "ข", "า"]) == ["ก", "า", "[UNK]", "า"]
    assert names(["ก", *"า" * 120]) == ["ก", *["##า"] * 99, "า", *["##า"] * 20]


def test_words_in_the_middle_of_a_piece_go_on_as_the_word_before_them():
    tags = ("O", "B-LOC", "I-LOC", "B-PER")
    seen = [[0.1, 0.5, 0.3, 0.1], [0.0] * 4, [0.0] * 4, [0.7, 0.1, 0.2, 0.0], [0.0] * 4]
    probs = [np.array(seen, dtype=np.float32), np.zeros((2, 4), dtype=np.float32)]

    go_on(probs, [["東", "京", "都", "Kiel", "\u200b"], ["Kiel", "in"]], tags)

    assert probs[0].tolist() == pytest.approx(
        np.array([seen[0], [0.1, 0.0, 0.8, 0.1], [0.1, 0.0, 0.8, 0.1], seen[3], seen[4]])
    )
    assert not probs[1].any()


def test_a_model_of_spaced_languages_has_no_entity_begin_right_behind_one_of_its_type():
    tags = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    seen = np.array([[0.1, 0.8, 0.1, 0, 0], [0.0, 0.4, 0.1, 0.5, 0], [0.2, 0, 0, 0.8, 0]], dtype=np.float32)
    words = ["東", "京", "都"]

    as_it_is, mended, apart = ([seen.copy()] for _ in range(3))
    go_on(as_it_is, [words], tags)
    go_on(mended, [words], tags, spaced=True)
    go_on(apart, [["Kiel", "und", "Bonn"]], tags, spaced=True)

    expected = [[0.1, 0.8, 0.1, 0, 0], [0, 0.04, 0.46, 0.5, 0], [0.2, 0, 0, 0.4, 0.4]]
    np.testing.assert_allclose(mended[0], expected, atol=1e-6)
    assert (as_it_is[0] == seen).all()
    assert (apart[0] == seen).all()


@pytest.mark.parametrize(
    ("language", "expected"),
    [("en", True), ("de", True), ("", False), ("zh", False), ("zh-TW", False), ("ja_gsd", False), ("TH", False)],
)
def test_a_model_tells_by_its_language_whether_it_has_learnt_spaces_alone(language, expected):
    assert ModelSettings(language=language).spaced is expected


def test_a_word_with_a_mark_keeps_it_beside_chinese():
    encoder = WordEncoder(marked_tokenizer("always"))

    (window,) = encoder.encode([["北", "Kiel", "京"]])

    alone = {word: encoder.pieces_of({word})[word] for word in ("北", "Kiel", "京")}
    assert window.piece_ids.tolist() == [*encoder.prefix, *alone["北"], *alone["Kiel"], *alone["京"], *encoder.suffix]
    assert encoder.tokenizer.backend_tokenizer.id_to_token(alone["Kiel"][0]).startswith("▁")


def test_an_exported_tokenizer_marks_words_as_the_original_does(tmp_path):
    tokenizer = marked_tokenizer("gemma")
    (tmp_path / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")

    windows = [
        next(WordEncoder(one).encode([RUNNING.split()])).piece_ids.tolist()
        for one in (tokenizer, read_tokenizer(tmp_path / "tokenizer.json", max_length=128, pad_id=1))
    ]

    assert windows[0] == windows[1]


def test_a_word_that_is_nothing_gets_no_mark_either():
    encoder = WordEncoder(marked_tokenizer("never"))

    (window,) = encoder.encode([["Kiel", "", "in"]])

    assert window.word_numbers.tolist() == [0, 2]


def test_a_tokenizer_whose_pieces_reach_over_words_is_refused():
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], show_progress=False)
    backend.train_from_iterator(SENTENCES * 3, trainer)

    with pytest.raises(ModelError, match=r"other pieces of words in a list than of the same words in running text"):
        WordEncoder(StoredTokenizer(backend, 128, 1))


@pytest.mark.parametrize("text", ["анна живёт в москве", "北京 大学", "مدينة"])
def test_special_pieces_stand_where_they_belong_also_in_vocabularies_of_another_script(text):
    special = ["<s>", "<pad>", "</s>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator([text] * 9, trainers.BpeTrainer(special_tokens=special, show_progress=False))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )

    encoder = WordEncoder(StoredTokenizer(backend, 64, 1))

    assert (encoder.prefix, encoder.suffix) == ([0], [2])


def test_a_vocabulary_that_makes_nothing_of_any_word_is_refused():
    backend = Tokenizer(models.BPE())

    with pytest.raises(ModelError, match="tokenizer makes"):
        WordEncoder(StoredTokenizer(backend, 64, 1))
