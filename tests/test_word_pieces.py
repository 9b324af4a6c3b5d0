"""The pieces that the word encoder remembers are those that the tokenizer gives, whatever stands around a word."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
from conftest import LETTERS, SIGNS, TOKENIZERS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xlner import encode as alignment
from xlner.encode import WordEncoder, encodable
from xlner.words import begins_unspaced, unspaced_runs

ODD = [
    "",
    "\u200b",
    "\ufeff",
    "\u00ad",
    "\x00",
    "\u00a0",
    "\u3000",
    "\ufffd",
    "\ue000",
    "\u0301",
    "\ufe0f",
    "👩🏽\u200d🚀",
]
UNSPACED = ["北", "京", "大学", "，", "。", "12", "「", "が", "ㇳ", "ส", "วั", "ㇷ゚"]
PARTED = [
    "U.S.",
    "O'Brien",
    "a b",
    " a",
    "a ",
    "▁",
    "▁a",
    "Ġa",
    "##a",
    "[SEP]",
    "</s>",
    "<mask>",
    "北京大学",
    "x" * 150,
]
WORDS = st.sampled_from([*ODD, *PARTED, *UNSPACED, "Angela", "Merkel"]) | st.text(max_size=8)
SENTENCES = st.lists(st.lists(WORDS, max_size=12), max_size=6)


def wide(encoder):
    """The same encoder with windows so long that each sentence here is one."""
    encoder.room = encoder.max_length = 10_000
    return encoder


WIDE_ENCODERS = {name: wide(WordEncoder(make())) for name, make in TOKENIZERS.items()}


def pieces_by_the_tokenizer(encoder, words):
    """Pieces of each word of a sentence, asked from the tokenizer with all words at once."""
    row = [
        encoder.before_word + encodable(word) if word and not word[0].isspace() else encodable(word) for word in words
    ]
    encoded = encoder.tokenizer([row], is_split_into_words=True, add_special_tokens=False)
    pieces = [[] for _ in words]
    for piece, word in zip(encoded["input_ids"][0], encoded.word_ids(0), strict=True):
        pieces[word].append(piece)
    for run in unspaced_runs(words):
        pieces[run] = pieces_of_a_run(encoder, [encodable(word) for word in words[run]])
    return pieces


def pieces_of_a_run(encoder, words):
    """The pieces that begin in each word, by the places that the tokenizer tells of its pieces in running text."""
    lead = len(encoder.before_word)
    owner = [0] * lead + [number for number, word in enumerate(words) for _ in word] + [len(words) - 1]
    text = encoder.before_word + "".join(words)
    encoded = encoder.tokenizer([[text]], is_split_into_words=True, add_special_tokens=False)
    found = [(piece, encoded.token_to_chars(0, place)) for place, piece in enumerate(encoded["input_ids"][0])]
    if "[UNK]" in encoded.tokens(0):  # of WordPiece, which then knows nothing of the run
        return [list(encoder.pieces_of({word})[word]) for word in words]
    if found and encoded.tokens(0)[0] == encoder.space_mark:
        del found[0]
    pieces = [[] for _ in words]
    for piece, place in found:
        pieces[owner[place.start]].append(piece)
    return pieces


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
@settings(max_examples=200)
@given(sentences=SENTENCES)
@example(sentences=[[" 北"]])  # which brings its own space
def test_a_window_holds_the_pieces_that_the_tokenizer_gives_for_the_sentence(name, sentences):
    encoder = WIDE_ENCODERS[name]
    windows = {window.sentence: window for window in encoder.encode(sentences)}

    for number, words in enumerate(sentences):
        pieces = pieces_by_the_tokenizer(encoder, words) if words else []
        # A word of a script without spaces that stands alone has a test of its own.
        in_runs = {place for run in unspaced_runs(words) for place in range(run.start, run.stop)}
        pieces = [
            list(encoder.pieces_of({word})[word])
            if begins_unspaced(word.removeprefix(" ")) and place not in in_runs
            else found
            for place, (word, found) in enumerate(zip(words, pieces, strict=True))
        ]
        visible = [place for place, found in enumerate(pieces) if found]
        if not visible:
            assert number not in windows
            continue
        window = windows[number]
        assert window.piece_ids.tolist() == [*encoder.prefix, *chain.from_iterable(pieces), *encoder.suffix]
        assert window.word_numbers.tolist() == visible
        assert [window.piece_ids[place] for place in window.word_positions] == [pieces[word][0] for word in visible]


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_special_pieces_and_truncation_of_a_tokenizer_do_not_reach_the_words(name):
    tokenizer = TOKENIZERS[name]()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)

    (window,) = WordEncoder(tokenizer, 64).encode([["Angela", "Merkel", "und", "Berlin"]])

    (expected,) = WordEncoder(TOKENIZERS[name](), 64).encode([["Angela", "Merkel", "und", "Berlin"]])
    assert window.piece_ids.tolist() == expected.piece_ids.tolist()


def test_no_more_words_are_remembered_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(alignment, "KEPT_WORDS", 20)
    monkeypatch.setattr(alignment, "CHUNK_SENTENCES", 2)
    sentences = [[first + second for second in LETTERS[:5]] for first in LETTERS[:26]]
    encoder = WordEncoder(TOKENIZERS["unigram"]())

    windows = list(encoder.encode(sentences))

    assert len(encoder._known) <= 20 + 2 * 5
    fresh = [next(WordEncoder(encoder.tokenizer).encode([words])) for words in sentences]
    assert [window.piece_ids.tolist() for window in windows] == [window.piece_ids.tolist() for window in fresh]


def test_a_huge_word_is_not_remembered():
    encoder = WordEncoder(TOKENIZERS["unigram"]())

    list(encoder.encode([["ab" * 50_000, "Kiel"]]))

    assert set(encoder._known) == {"Kiel"}


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_threads_that_share_an_encoder_get_what_one_alone_gets(name, monkeypatch):
    monkeypatch.setattr(alignment, "KEPT_WORDS", 30)
    encoder, alone = WordEncoder(TOKENIZERS[name]()), WordEncoder(TOKENIZERS[name]())
    texts = [[[a + b + c for b in SIGNS[:4]] for a in LETTERS[:20]] for c in LETTERS[:12]]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: [window.piece_ids.tolist() for window in encoder.encode(text)], texts))

    assert together == [[window.piece_ids.tolist() for window in alone.encode(text)] for text in texts]
