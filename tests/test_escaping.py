import json

import pytest

from xlner.config.schema import CorpusRecipe
from xlner.corpora.splits import read_labelled
from xlner.corpora.write import conll_blocks
from xlner.errors import CorpusError, LabelError, as_code, for_csv, for_markdown, for_terminal
from xlner.files import to_json
from xlner.tags import LabelSet
from xlner.words import Sentence


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("PER", "PER"),
        ("loss.recognizer=squared_error", "loss.recognizer=squared_error"),
        ("_x_ *y* `z`", r"\_x\_ \*y\* \`z\`"),
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("[a](http://b.c) www.d.e f@g.h", r"\[a\](http:\//b.c) www\.d.e f\@g.h"),
        ("a|b\n# c", r"a\|b\\n\# c"),
        ("\x1b[2J\u202e", r"\\x1b\[2J\\u202e"),
        ("地名", "地名"),
    ],
)
def test_a_name_in_markdown_is_shown_as_it_is_and_does_nothing(name, shown):
    assert for_markdown(name) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a=1, b=x", "`a=1, b=x`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("a|b\nc", r"`a\|b\nc`")],
)
def test_a_name_as_code_in_a_table_ends_neither_the_code_nor_the_cell(name, shown):
    assert as_code(name) == shown


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_a_cell_that_a_spreadsheet_would_compute_is_text(name):
    assert for_csv(name) == f"'{name}"
    assert for_csv(f"a{name}") == f"a{name}"


def test_a_terminal_gets_no_control_characters():
    assert for_terminal("a\x1b[2Jb\x07\u200f\ud800é") == r"a\x1b[2Jb\x07\u200f\ud800é"


@pytest.mark.parametrize("sign", ["\t", "\n", "\x1b", "\u202e", "\u2028"])
def test_tags_of_a_model_hold_no_control_characters(sign):
    with pytest.raises(LabelError, match="expected no control characters"):
        LabelSet.of_types([f"LOC{sign}X"])


@pytest.mark.parametrize("sign", ["\t", "\n", "\x1b"])
def test_tags_of_a_corpus_with_control_characters_are_refused(read, sign):
    record = {"words": ["Kiel"], "tags": [f"B-LOC{sign}X"]}

    with pytest.raises(CorpusError, match=r"corpus\.jsonl:1.*expected no control characters"):
        read(json.dumps(record) + "\n", "corpus.jsonl")


@pytest.mark.parametrize(("sign", "tag"), [("\u202e", "B-LOCX"), ("\u2028", "B-LOC X")])
def test_what_nobody_sees_in_a_tag_of_a_corpus_does_not_come_into_the_program(read, sign, tag):
    (sentence,) = read(json.dumps({"words": ["Kiel"], "tags": [f"B-LOC{sign}X"]}) + "\n", "corpus.jsonl")

    assert sentence.tags == (tag,)


@pytest.mark.parametrize("sign", ["\t", "\n", "\r"])
def test_a_tag_that_would_end_a_column_is_not_written(tmp_path, sign):
    with pytest.raises(CorpusError, match=r"sentence 1: the tag .* holds a TAB or a line end"):
        list(conll_blocks([Sentence(("Kiel",), (f"B-A{sign}B",))], tmp_path / "x.conll"))


@pytest.mark.parametrize("sign", ["\t", "\n", "\r"])
def test_a_word_that_no_file_of_columns_could_hold_is_refused_before_training(tmp_path, sign):
    path = tmp_path / "dev.jsonl"
    path.write_text(json.dumps({"words": ["Kiel", f"a{sign}b"], "tags": ["B-LOC", "O"]}) + "\n")

    with pytest.raises(CorpusError, match=r"sentence 1: the word 'a\\.b' holds a TAB or a line end"):
        read_labelled(path, CorpusRecipe())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            {"a": float("nan"), "b": [1.5, float("inf")], "c": (-float("inf"),)},
            '{"a": null, "b": [1.5, null], "c": [null]}',
        ),
        (
            {"a": {"b": float("nan")}, "c": "NaN é", "d": True, "e": None},
            '{"a": {"b": null}, "c": "NaN é", "d": true, "e": null}',
        ),
        ([1, 2.5, "x"], '[1, 2.5, "x"]'),
    ],
)
def test_json_has_null_for_numbers_that_are_none(content, text):
    assert to_json(content) == text


def test_what_json_lacks_is_made_text_before_numbers_are_looked_at():
    assert to_json({"a": 1 + 2j, "b": float("nan")}, default=lambda value: [float("inf"), str(value)]) == (
        '{"a": [null, "(1+2j)"], "b": null}'
    )
