"""The table of bad inputs, row by row: word encoder and tagger, with WordPiece and Unigram tokenizers.

What the readers make of each row is in `test_bad_input_table.py`.
"""

import time
import unicodedata
import warnings

import numpy as np
import pytest
import torch
from conftest import LABELS, TOKENIZERS

from xlner import load_tagger
from xlner.encode import WordEncoder
from xlner.errors import LabelError
from xlner.evaluate import evaluate_tags
from xlner.predict import decide_tags
from xlner.tags import LabelMap, LabelSet, spans_of

CPU = torch.device("cpu")
FOLDERS = {"word_piece": "bert_folder", "unigram": "xlmr_folder"}
NOTHING_WORDS = ["", "\u200b", "\u200c", "\ufeff", "\u00ad", "\x01", "\u200f", "\u00a0", "\u3000", "\ufffd", "\ue000"]
LONELY = ["\u0301", "\ufe0f", "👩🏽\u200d🚀", "🇩🇪", "1\ufe0f\u20e3"]


@pytest.fixture(params=sorted(FOLDERS))
def kind(request):
    return request.param


@pytest.fixture
def encoder(kind):
    return WordEncoder(TOKENIZERS[kind](), 64)


@pytest.fixture
def tagger(request, kind):
    return load_tagger(request.getfixturevalue(FOLDERS[kind]))


def first_pieces(encoder, words):
    """The first piece of each word that has pieces, by its number."""
    return {
        number: int(window.piece_ids[place])
        for window in encoder.encode([words])
        for place, number in zip(window.word_positions, window.word_numbers.tolist(), strict=True)
    }


def offsets_hold(text, entities):
    return all(text[entity.start : entity.end] == entity.text != "" for entity in entities)


def test_row_empty_text_encoder_makes_no_window(encoder):
    assert list(encoder.encode([[], []])) == []
    assert list(encoder.encode([])) == []


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b\ufeff\u00ad"])
def test_row_empty_text_tagger_gives_an_empty_list(tagger, text):
    assert (tagger.tag(text), tagger.tag_words([]), tagger.tag_batch([])) == ([], [], [])


@pytest.mark.parametrize("word", NOTHING_WORDS)
def test_row_word_that_tokenises_to_nothing_encoder_shifts_no_other_word(encoder, word):
    alone = first_pieces(encoder, ["Angela", "und", "Berlin"])

    found = first_pieces(encoder, ["Angela", word, "und", word, word, "Berlin"])

    assert [found[number] for number in (0, 2, 5)] == [alone[number] for number in (0, 1, 2)]


@pytest.mark.parametrize("word", NOTHING_WORDS)
def test_row_word_that_tokenises_to_nothing_tagger_gives_each_word_one_tag(tagger, word):
    for words in ([word], [word] * 3, ["Angela", word, "Merkel"], [word, "Kiel", word]):
        tags = tagger.tag_words(words)

        assert len(tags) == len(words)
        assert set(tags) <= set(LABELS.tags)


@pytest.mark.parametrize("word", NOTHING_WORDS)
def test_row_word_that_tokenises_to_nothing_tagger_makes_no_entity_of_nothing(tagger, word):
    text = f"Angela{word} Merkel {word} besuchte {word}Kiel{word}"

    entities = tagger.tag(text)

    assert offsets_hold(text, entities)
    assert all(entity.text.strip(f"{word} ") for entity in entities) or word in ("\ufffd", "\ue000")


def test_row_word_that_tokenises_to_nothing_is_inside_an_entity_or_outside():
    probs = np.zeros((4, len(LABELS.tags)), dtype=np.float32)
    for row, tag in ((0, "B-PER"), (2, "I-PER")):
        probs[row, LABELS.tags.index(tag)] = 1

    assert decide_tags(probs, LABELS) == ("B-PER", "I-PER", "I-PER", "O")


@pytest.mark.parametrize("word", LONELY)
def test_row_combining_mark_alone_vs16_emoji_each_word_has_one_tag(encoder, tagger, word):
    assert {0, 2} <= first_pieces(encoder, ["Kiel", word, "und"]).keys()
    assert len(tagger.tag_words(["Kiel", word, "und"])) == 3
    assert offsets_hold(f"Kiel {word} und{word}", tagger.tag(f"Kiel {word} und{word}"))


def test_row_lone_surrogate_encoder_takes_u_fffd_with_a_warning(encoder):
    with pytest.warns(UserWarning, match="lone surrogates"):
        found = first_pieces(encoder, ["Kiel\ud83d", "und"])

    assert found == first_pieces(encoder, ["Kiel\ufffd", "und"])


def test_row_lone_surrogate_tagger_keeps_the_offsets_and_the_text(tagger):
    text = "Angela\udc80 Merkel \ud83d besuchte Kiel."

    with pytest.warns(UserWarning, match="lone surrogates"):
        entities = tagger.tag(text)

    replaced = tagger.tag(text.replace("\udc80", "\ufffd").replace("\ud83d", "\ufffd"))
    assert [(entity.label, entity.start, entity.end) for entity in entities] == [
        (entity.label, entity.start, entity.end) for entity in replaced
    ]
    assert offsets_hold(text, entities)


def test_row_lone_surrogate_is_the_only_thing_that_is_warned_of(tagger):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tagger.tag("Angela Merkel 👩🏽\u200d🚀 \ufffd")


@pytest.mark.parametrize("word", ["x" * 500, "x" * 300_000, "ä." * 150_000, "北" * 300_000])
def test_row_long_word_encoder_caps_its_pieces(encoder, word):
    windows = list(encoder.encode([["Kiel", word, "und"]]))

    assert sorted(number for window in windows for number in window.word_numbers.tolist()) == [0, 1, 2]
    assert max(len(window.piece_ids) for window in windows) <= 64
    assert len(windows) <= 3


def test_row_long_word_takes_linear_time(encoder, tagger):
    def seconds(length):
        start = time.process_time()
        list(encoder.encode([["ab." * length]]))
        tagger.tag("ab" * length)
        return time.process_time() - start

    seconds(1000)
    short, long = min(seconds(30_000) for _ in range(3)), seconds(300_000)

    assert long < 40 * short + 0.5  # 10 times as long; quadratic time would be 100 times


def test_row_longer_than_the_maximum_each_word_is_decided_once(encoder, tagger):
    words = ["Angela", "besuchte", "Kiel", "."] * 300

    windows = list(encoder.encode([words]))

    assert sorted(number for window in windows for number in window.word_numbers.tolist()) == list(range(1200))
    assert len(tagger.tag_words(words)) == 1200
    text = " ".join(words)
    assert tagger.tag(text)[-1].end > len(text) - 100


@pytest.mark.parametrize("tags", ["I-PER I-PER O O", "O B-LOC I-PER O", "B-PER B-PER I-LOC I-LOC"])
def test_row_bio_broken_outputs_of_a_model_are_repaired(tags):
    probs = np.zeros((4, len(LABELS.tags)), dtype=np.float32)
    probs[range(4), [LABELS.tags.index(tag) for tag in tags.split()]] = 1

    decided = decide_tags(probs, LabelSet(LABELS.tags, begins=False))

    assert spans_of(decided) == spans_of(tags.split())
    assert all(tag[0] != "I" or before[2:] == tag[2:] for before, tag in zip(("O", *decided), decided, strict=False))


def test_row_label_set_is_not_the_models_evaluation_says_the_difference_and_takes_a_map(tagger):
    gold, found = [["B-PERSON", "O"]], tagger.tag_sentences([["Anna", "kam"]])

    with pytest.raises(LabelError, match="the model predicts LOC, ORG, PER, the corpus has PERSON: no type in common"):
        evaluate_tags(tagger.types, gold, found)
    label_map = LabelMap.parse("PERSON=PER,ORG=")
    report = evaluate_tags(tagger.types, gold, found, label_map).report

    assert (report.unknown_to_model, report.absent_from_corpus, report.left_out) == ((), ("LOC",), ("ORG",))


@pytest.mark.parametrize(
    "text", ["שלום Angela Merkel בקיל", "أنجيلا ميركل \u202bKiel\u202c زارت", "\u200fKiel\u200e, שלום."]
)
def test_row_rtl_and_bidi_offsets_are_those_of_the_text_in_memory(tagger, text):
    assert offsets_hold(text, tagger.tag(text))
    assert [char for word in tagger.words(text) for char in word if char.isalpha()] == [c for c in text if c.isalpha()]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKD"])
def test_row_nfc_nfd_offsets_are_those_of_the_text_as_given(encoder, tagger, form):
    text = unicodedata.normalize(form, "Müller besuchte Köln, Łódź und São Paulo.")

    entities = tagger.tag(text)

    assert offsets_hold(text, entities)
    assert "".join(tagger.words(text)) == text.replace(" ", "")
    assert len(first_pieces(encoder, tagger.words(text))) == len(tagger.words(text)) == 9


def test_row_nfc_nfd_a_mark_stays_with_its_letter(tagger):
    text = unicodedata.normalize("NFD", "Mu\u0308ller é")

    assert tagger.words(text) == text.split(" ")


@pytest.mark.parametrize("text", ["10\u00a0000 Kiel", "a\u3000b", "Nord\u00a0Kap"])
def test_row_nbsp_parts_words_of_raw_text_and_offsets_hold(tagger, text):
    assert tagger.words(text) == text.split()
    assert offsets_hold(text, tagger.tag(text))


def test_row_huge_text_is_tagged_to_its_end(tagger):
    text = "Angela Merkel besuchte Kiel . " * 1500

    entities = tagger.tag(text)

    assert offsets_hold(text, entities)
    assert entities[-1].end > len(text) - 100
