"""Text of any characters: entities are slices of it, and the same alone and beside others."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import fuzzing

from xlner.tagger import load_tagger
from xlner.words import WORD_SPLITTERS, split_words

SNIPPETS = [
    *("Angela Merkel", "Kiel", "O'Brien", "z.B.", "U.S.", "J. R. Smith", "l'Italia", "AT&T", "18-jährig"),
    *("www.xlner.example/a?b", "e\u0301", "Ko\u0308ln", "\u1112\u1161\u11ab", "\u0301" * 30),
    *("\u200b", "\u200d", "\u00ad", "\ufeff", "\u2028", "\x85", "\x1c", "\0", "\ud800", "\udfff", "\ud83d\ude00"),
    *("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea\U0001f1e9", "\u0627\u064e\u0644\u0642"),
    *("\u202eKiel\u202c", "\u2067\u05e9\u05dc\u05d5\u05dd\u2069", "\u0e44\u0e17\u0e22", "北京市", "東京タワー"),
    *("a" * 700, "京" * 300, "x-" * 150, "1.2" * 150, "'" * 200, "[CLS]", "[SEP]", "[MASK]", "<s>", "##a", "▁a"),
    *("ﬁ", "İ", "ß", "Ǆ", "\U000e0041", "\U0010ffff", "\uffff", "\uf8ff", "¼", "²", "K", "Ⅷ"),
]
PARTS = st.sampled_from([*SNIPPETS, " ", " ", "\n", "\t", ". "]) | st.text(st.characters(), max_size=6)
TEXT = st.lists(PARTS, max_size=12).map("".join)


@pytest.fixture(scope="module", params=["bert_folder", "xlmr_folder"])
def tagger(request):
    return load_tagger(request.getfixturevalue(request.param), batch_pieces=300)


@fuzzing
@given(texts=st.lists(TEXT, min_size=1, max_size=5))
def test_entities_are_slices_of_their_text_and_the_same_in_any_company(tagger, texts):
    together = tagger.tag_batch(texts)

    for text, entities in zip(texts, together, strict=True):
        assert all(text[entity.start : entity.end] == entity.text for entity in entities)
        assert all(before.end <= after.start for before, after in pairwise(entities))
        assert all(0.0 <= entity.score <= 1.0 and entity.text.strip() for entity in entities)
        alone = tagger.tag(text)
        assert [entity[:4] for entity in alone] == [entity[:4] for entity in entities]
        assert [entity.score for entity in alone] == pytest.approx([entity.score for entity in entities], abs=1e-4)


@fuzzing
@given(words=st.lists(TEXT, max_size=20))
def test_each_word_has_one_tag_whatever_it_is(tagger, words):
    assert len(tagger.tag_words(words)) == len(words)


@pytest.mark.parametrize("splitter", sorted(WORD_SPLITTERS))
@fuzzing
@given(text=TEXT)
def test_words_are_in_order_and_leave_out_nothing_that_can_be_seen(splitter, text):
    words = split_words(text, splitter)

    assert all(start < end for start, end in words)
    assert all(before[1] <= after[0] for before, after in pairwise(words))
    covered = {place for start, end in words for place in range(start, end)}
    assert not [char for place, char in enumerate(text) if place not in covered and char.isalnum()]
