"""Patterns of spaCy's EntityRuler as an annotator."""

import json
import sys

import pytest

from xlner.corpora.patterns import read_patterns
from xlner.corpora.source import ScoredSpan, align
from xlner.errors import CorpusError
from xlner.words import unicode_words

PATTERNS = [
    {"label": "LOC", "pattern": "Rio"},
    {"label": "LOC", "pattern": "Rio de Janeiro", "id": "rio"},
    {"label": "EMAIL", "pattern": [{"TEXT": {"REGEX": "^[^@]+@[^@]+$"}}]},
    {"label": "ORG", "pattern": [{"IS_TITLE": True, "OP": "+"}, {"LOWER": {"IN": ["gmbh", "ag"]}}]},
]


@pytest.fixture
def patterns_of(tmp_path):
    """Reads records as a file of patterns."""
    pytest.importorskip("spacy")

    def read(*records):
        path = tmp_path / "names.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return read_patterns(path, unicode_words)

    return read


def spans(patterns, text):
    words = text.split()
    return align(patterns.of(words), words).spans


def test_phrases_and_words_by_their_attributes_are_found_the_longest_first(patterns_of):
    patterns = patterns_of(*PATTERNS)

    assert patterns.types == ("EMAIL", "LOC", "ORG")
    assert spans(patterns, "Rio de Janeiro e Rio : a@b.de") == [
        ScoredSpan("LOC", 0, 3, 1.0),
        ScoredSpan("LOC", 4, 5, 1.0),
        ScoredSpan("EMAIL", 6, 7, 1.0),
    ]
    assert spans(patterns, "die Siemens Energy AG") == [ScoredSpan("ORG", 1, 4, 1.0)]
    assert spans(patterns, "rio") == []


def test_a_phrase_is_found_in_any_normal_form(patterns_of):
    patterns = patterns_of({"label": "LOC", "pattern": "Orle\u0301ans"})

    assert spans(patterns, "Orl\u00e9ans Orle\u0301ans") == [ScoredSpan("LOC", n, n + 1, 1.0) for n in (0, 1)]


@pytest.mark.parametrize(
    "attributes",
    [
        {"TEXT": "Orle\u0301ans"},
        {"LOWER": "orle\u0301ans"},
        {"TEXT": {"IN": ["x", "Orle\u0301ans"]}},
        {"TEXT": {"REGEX": "^Orle\u0301"}},
        {"TEXT": {"REGEX": {"IN": ["^Orle\u0301"]}}},
    ],
)
def test_words_by_their_attributes_are_found_in_any_normal_form(patterns_of, attributes):
    patterns = patterns_of({"label": "LOC", "pattern": [attributes]})

    assert spans(patterns, "Orl\u00e9ans Orle\u0301ans x")[:2] == [ScoredSpan("LOC", n, n + 1, 1.0) for n in (0, 1)]


def test_of_matches_that_share_a_word_the_longest_counts(patterns_of):
    patterns = patterns_of(
        {"label": "A", "pattern": [{"IS_TITLE": True, "OP": "+"}]},
        {"label": "B", "pattern": [{"LOWER": "und"}, {"IS_TITLE": True}]},
        {"label": "C", "pattern": "und"},
    )

    assert spans(patterns, "Anna Braun und Eva und") == [
        ScoredSpan("A", 0, 2, 1.0),
        ScoredSpan("B", 2, 4, 1.0),
        ScoredSpan("C", 4, 5, 1.0),
    ]


def test_of_equal_matches_that_of_the_first_pattern_counts(patterns_of):
    patterns = patterns_of({"label": "PER", "pattern": [{"TEXT": "Paris"}]}, {"label": "LOC", "pattern": "Paris"})

    assert spans(patterns, "Paris") == [ScoredSpan("PER", 0, 1, 1.0)]


def test_what_patterns_find_in_a_text_is_told_and_nothing_is_refused(patterns_of):
    patterns = patterns_of(*PATTERNS)

    told = patterns.about([["Rio"], ["Rio", "e", "Rio"], ["x"]])

    assert told == f"{patterns.path}: 4 patterns find 3 entities in 2 sentences; 3 find nothing"
    with pytest.raises(CorpusError, match="none of its 4 patterns finds anything in the target text"):
        patterns.about([["x"]])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"label": "A", "pattern": [{"TEXT": {"REGEX": "["}}]}, "no regular expression: unterminated character set"),
        ({"label": "A", "pattern": [{"POS": "NOUN"}]}, "the pattern asks for POS, which only a trained pipeline tells"),
        ({"label": "A", "pattern": [{"_": {"x": 1}}]}, "the pattern asks for _, which only a trained pipeline tells"),
        ({"label": "A", "pattern": [{"IS_STOP": True}]}, "asks for IS_STOP; stop words differ by language; list them"),
        ({"label": "A", "pattern": [{"TEXT": "x", "spacy": False}]}, "the pattern asks for SPACY; words of a corpus"),
        ({"label": "A", "pattern": [{"LOWR": "x"}]}, "spaCy does not take this pattern: .*LOWR.* not permitted"),
        ({"label": "A", "pattern": [{"OP": "{2"}]}, "spaCy does not take this pattern"),
        ({"label": "A", "pattern": " "}, "the pattern ' ' holds no word"),
        ({"label": "A", "pattern": []}, "expected a phrase as pattern, or a list of words as objects"),
        ({"label": "A", "pattern": ["x"]}, "expected a phrase as pattern, or a list of words as objects"),
        ({"label": "A"}, "expected a phrase as pattern, or a list of words as objects; found None"),
        ({"label": " ", "pattern": "x"}, "expected a type as label; found ' '"),
        ({"text": "Anna", "spans": []}, "expected a type as label; found None"),
    ],
)
def test_a_pattern_that_cannot_be_understood_is_refused_with_its_line(patterns_of, record, message):
    with pytest.raises(CorpusError, match=rf"names\.jsonl:2: .*{message}"):
        patterns_of(PATTERNS[0], record)


def test_a_file_that_is_not_there_or_empty_is_refused(patterns_of, tmp_path):
    with pytest.raises(CorpusError, match=r"patterns=.*nowhere\.jsonl: no such file"):
        read_patterns(tmp_path / "nowhere.jsonl", unicode_words)
    with pytest.raises(CorpusError, match="expected label and pattern as JSON, one a line; found none"):
        patterns_of()


def test_without_spacy_the_extra_is_named(patterns_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)

    with pytest.raises(CorpusError, match=r"needs spaCy; install it by `pip install xlner\[spacy\]`"):
        patterns_of(*PATTERNS)
