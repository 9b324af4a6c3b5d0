import tempfile
from pathlib import Path

import pytest
from corpus_samples import RAIN, TWO_COLUMNS
from hypothesis import given, settings
from hypothesis import strategies as st

from xlner.corpora import conll, lines
from xlner.corpora.source import read_corpus
from xlner.errors import CorpusError, RecipeError, XlnerError
from xlner.tags import to_iob2
from xlner.words import Sentence


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tO\nKiel\tB-LOC\tO\n", r":2: expected 2 columns \(word, tag\), found 3: 'Kiel\\tB-LOC\\tO'"),
        ("a O\nb O\nNew York B-LOC\n", r":3: expected 2 columns .* found 3: .*separate columns by TAB"),
        ("a\tO\n\nb\tO\nKiel\n", r":4: expected 2 columns \(word, tag\), found 1: 'Kiel'"),
        ("0\ta\tO\n1\tb\n", r":2: expected 3 columns \(index, word, tag\), found 2"),
        ("0\ta\tO\n1\tb\tO\n\n0\tc\n", r":4: expected 3 columns \(index, word, tag\), found 2"),
        ("a\tO\nKiel\tb-LOC\n", r":2: found tag 'b-LOC'; .*did you mean B-LOC\?"),
        ("a\tO\nKiel\tB_LOC\n", r":2: found tag 'B_LOC'; .*did you mean B-LOC\?"),
        ("Kiel\tB_LOC\n", r":1: found tag 'B_LOC'; .*did you mean B-LOC\?"),
        ("a\tO\nKiel\tX-LOC\n", r":2: found tag 'X-LOC'; expected O, B-TYPE or I-TYPE; .*corpus\.columns"),
        ("a\tO\nKiel\tLOC\n", r":2: found tag 'LOC'"),
        ("a\tO\nKiel\t\n", r":2: found tag ''; .*empty here"),
        ("a\tO\nKiel\tNone\n", r":2: found tag 'None'"),
        ("a\tO\nKiel\t_\n", r":2: found '_' \(no label\) beside tags"),
        ("# x\n\na\tO\n# y\n\tO\n", r":5: empty word"),
        ("1-2\tim\tB-LOC\n1\tin\tO\n2\tdem\tO\n", r":1: the tag B-LOC stands at 1-2"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_its_line(read, content, message):
    with pytest.raises(CorpusError, match=r"corpus\.conll" + message):
        read(content)


def test_line_numbers_hold_behind_comments_and_over_chunks(read, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK_SIZE", 7)
    content = "# a comment\n" + "Kiel\tB-LOC\n\n" * 100 + "# another\nKiel\tLOC\n"

    with pytest.raises(CorpusError, match=r"corpus\.conll:203: found tag 'LOC'"):
        read(content)


@pytest.mark.parametrize("content", ["", "\n", " \n\t\n", "# newdoc id = 1\n", "-DOCSTART- O\n", "\ufeff"])
def test_a_file_without_sentences_is_refused(read, content):
    with pytest.raises(CorpusError, match="no sentence in it"):
        read(content)


def test_a_latin_1_file_is_refused_with_the_place_and_the_way_out(read, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK_SIZE", 5)
    content = "Straße\tO\nEspaña\tB-LOC\n".encode("latin-1")

    with pytest.raises(CorpusError, match=r"conll:1: byte 0xdf at offset 4 is not utf-8.*corpus\.encoding=latin-1"):
        read(content)
    assert read(content, encoding="latin-1")[0].words == ("Straße", "España")


def test_the_offset_of_a_broken_byte_counts_bytes_not_characters(read, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK_SIZE", 3)

    with pytest.raises(CorpusError, match=r"conll:2: byte 0x93 at offset 8 .*corpus\.encoding=cp1252"):
        read("äö\tO\n".encode() + b"x\x93\tO\n")


def test_a_character_that_the_file_ends_in_is_refused(read):
    with pytest.raises(CorpusError, match=r"conll:2: byte 0xc3 at offset 4 is not utf-8"):
        read(b"a\tO\n\xc3")


def test_a_utf_16_file_is_recognised(read):
    content = "Straße\tO\n".encode("utf-16")

    with pytest.raises(CorpusError, match=r"corpus\.encoding=utf-16"):
        read(content)
    assert read(content, encoding="utf-16")[0].words == ("Straße",)


@pytest.mark.parametrize("encoding", ["utf8", "UTF-8", "utf_8"])
def test_a_byte_order_mark_is_dropped_under_every_name_of_utf_8(read, encoding):
    assert read("\ufeffRegen\tO\n", encoding=encoding) == [RAIN]


def test_an_unknown_encoding_is_refused(read):
    with pytest.raises(CorpusError, match=r"corpus\.encoding is 'klingon'"):
        read("Regen\tO\n", encoding="klingon")


def test_a_line_that_would_fill_the_memory_is_refused(read, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK_SIZE", 10)
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)

    with pytest.raises(CorpusError, match=r"conll:2: a line of more than 100 characters"):
        read("Regen\tO\n" + "x" * 200)


def test_a_file_without_blank_lines_is_refused(read, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK_SIZE", 10)
    monkeypatch.setattr(conll, "LONGEST_SENTENCE", 20)

    with pytest.raises(CorpusError, match=r"conll:3: no blank line in 20 lines"):
        read("Regen\tO\n\n" + "x\tO\n" * 30)


def test_words_of_any_length_are_read(read):
    word = "x" * 300_000

    assert read(f"{word}\tO\n") == [Sentence((word,), ("O",))]


def test_an_unknown_scheme_or_format_is_refused(read):
    with pytest.raises(CorpusError, match=r"corpus\.scheme is 'bilou'"):
        read(TWO_COLUMNS, scheme="bilou")
    with pytest.raises(RecipeError, match=r"unknown corpus\.format 'xml'; known: conll, text, csv, jsonl"):
        read(TWO_COLUMNS, format="xml")


def test_reading_is_a_stream(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text("Regen\tO\n\n" * 200_000 + "broken\n")

    sentences = read_corpus(path)

    assert [next(sentences) for _ in range(1000)] == [RAIN] * 1000


@settings(max_examples=200)
@given(st.text(max_size=60), st.sampled_from(["conll", "text", "jsonl"]))
def test_any_text_is_read_or_refused_with_a_reason(content, format):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.conll")
        path.write_bytes(content.encode("utf-8", "surrogatepass"))

        sentences, refusal = read_or_refusal(path, format)

    assert not refusal or str(path) in refusal
    assert all(words and all(words) for words, _ in sentences)
    labelled = [(words, tags) for words, tags in sentences if tags is not None]
    assert all(len(tags) == len(words) and to_iob2(tags) == tags for words, tags in labelled)


def read_or_refusal(path, format):
    try:
        return list(read_corpus(path, format=format)), ""
    except XlnerError as refusal:
        return [], str(refusal)
