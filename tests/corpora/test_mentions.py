"""Strings without offsets: where they stand in a text."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlner.corpora.mentions import locate


def places(text, *mentions):
    """What was found, as the stretches of the text themselves."""
    return [None if found is None else [text[start:end] for start, end in found] for found in locate(text, mentions)]


def test_a_string_is_found_at_all_of_its_places_as_whole_words():
    text = "Kiel, Kieler und Kiel-Gaarden; Kiel"

    assert locate(text, ["Kiel"]) == [[(0, 4), (17, 21), (31, 35)]]


def test_longer_strings_come_first_and_places_do_not_overlap():
    text = "Anna Braun und Anna in Braun"

    assert places(text, "Anna", "Anna Braun", "Braun") == [["Anna"], ["Anna Braun"], ["Braun"]]
    assert locate(text, ["Anna", "Anna Braun", "Braun"])[0] == [(15, 19)]
    assert places("Anna Braun", "Anna", "Anna Braun", "Anna Braun") == [[], ["Anna Braun"], []]


@pytest.mark.parametrize(
    ("text", "mention", "found"),
    [
        ("in New\u00a0 York.", "New York", "New\u00a0 York"),
        ("in New York.", " New\nYork ", "New York"),
        ("Cafe\u0301 Vila", "Caf\u00e9", "Cafe\u0301"),
        ("Caf\u00e9 Vila", "Cafe\u0301", "Caf\u00e9"),
        ("\uff29\uff22\uff2d \u682a", "IBM", "\uff29\uff22\uff2d"),
        ("von O\u2019Neill", "O'Neill", "O\u2019Neill"),
        ("Baden\u2011Baden", "Baden-Baden", "Baden\u2011Baden"),
        ("Ki\u00adel", "Kiel", "Ki\u00adel"),
        ("\u6211\u5728\u5317\u4eac\u5927\u5b66", "\u5317\u4eac", "\u5317\u4eac"),
        ("\uc11c\uc6b8\uc5d0\uc11c", "\uc11c\uc6b8", "\uc11c\uc6b8"),
        ("이것은 이가 이", "이가", "이가"),
        ("서울에서는", "서울", "서울"),
        ("김민수씨가", "김민수", "김민수"),
        ("IBM은", "IBM", "IBM"),
        ("부산입니다.", "부산", "부산"),
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "\U0001f1eb\U0001f1f7", "\U0001f1eb\U0001f1f7"),
        ("Siemens-Chef", "Siemens", "Siemens"),
    ],
    ids=["white space", "white space of the string", "composed", "decomposed", "wide letters", "apostrophe", "hyphen",
         "soft hyphen", "no spaces", "Korean particle", "Korean word", "two particles", "polite particle",
         "particle behind Latin", "Korean verb", "flags", "compound"],
)  # fmt: skip
def test_forms_of_a_character_count_as_the_same(text, mention, found):
    assert places(text, mention) == [[found]]


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("Berliner", "Berlin"),
        ("Hannah", "Anna"),
        ("kiel", "Kiel"),
        ("Ki\u00adel", "Ki"),
        ("Cafe\u0301s", "Cafe"),
        ("\ud14c\uc11c\uc6b8", "\uc11c\uc6b8"),
        ("이것", "이"),
        ("김치", "김"),
        ("서울대학교", "서울"),
        ("서울에서도시", "서울"),
        ("Kiel", "\u200b"),
        ("", "Kiel"),
    ],
    ids=["longer word", "inside a word", "small letter", "part of a word", "part of a letter", "end of a word",
         "Korean pronoun", "Korean noun", "Korean compound", "more than a particle", "nothing visible", "no text"],
)  # fmt: skip
def test_what_the_text_does_not_hold_is_nowhere(text, mention):
    assert locate(text, [mention]) == [None]


@given(st.lists(st.sampled_from(["Anna", "Kiel", "e\u0301", "\u5317", "-", "x1"]), min_size=1, max_size=6))
def test_each_word_of_a_text_is_found_whatever_its_normal_form(words):
    text = " ".join(words)

    found = locate(text, [unicodedata.normalize("NFC", word) for word in dict.fromkeys(words)])

    assert all(found)
    spans = sorted(span for places in found for span in places or ())
    assert [text[start:end] for start, end in spans] == words


def test_long_runs_of_flags_and_of_equal_strings_are_read_in_time():
    n = 50_000

    start = time.process_time()
    assert locate("\U0001f1e9\U0001f1ea" * n, ["x"]) == [None]
    assert [len(found or ()) for found in locate("Kiel " * n, ["Kiel", "Kiel Kiel"])] == [0, n // 2]

    assert time.process_time() - start < 5
