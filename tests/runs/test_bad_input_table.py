"""The table of bad inputs, row by row: what the readers of corpora make of each. See also `test_bad_input_words.py`."""

import time

import pytest
from typer.testing import CliRunner

from xlner.cli import app
from xlner.config.schema import CorpusRecipe
from xlner.corpora.source import read_corpus
from xlner.corpora.splits import read_labelled, repeated_sentences
from xlner.errors import CorpusError, LabelError
from xlner.soft_labels.label import target_stream, text_fingerprint
from xlner.tags import LabelMap
from xlner.words import Sentence

NOTHING_WORDS = ["\u200b", "\u200c", "\ufeff", "\u00ad", "\x01", "\u200f", "\u00a0", "\u3000", "\ufffd", "\ue000"]


def columns(*rows):
    return "".join(f"{word}\t{tag}\n" for word, tag in rows)


@pytest.mark.parametrize("content", ["", "\n\n", " \n\t\n"])
@pytest.mark.parametrize("name", ["x.conll", "x.txt"])
def test_row_empty_text_reader_says_that_there_is_no_sentence(read, name, content):
    with pytest.raises(CorpusError, match="no sentence in it"):
        read(content, name)


def test_row_empty_text_reader_skips_empty_sentences_between_others(read):
    assert read("\n\nRegen\tO\n\n\n\nKiel\tB-LOC\n\n") == [
        Sentence(("Regen",), ("O",)),
        Sentence(("Kiel",), ("B-LOC",)),
    ]
    assert read("Regen\n\n\u200b\n \nKiel\n", "x.txt")[-1] == Sentence(("Kiel",))


@pytest.mark.parametrize("word", NOTHING_WORDS)
def test_row_word_that_tokenises_to_nothing_reader_keeps_the_word_and_its_tag(read, word):
    content = columns(("Kiel", "B-LOC"), (word, "I-LOC"), ("Nord", "I-LOC"))

    assert read(content) == [Sentence(("Kiel", word, "Nord"), ("B-LOC", "I-LOC", "I-LOC"))]


def test_row_word_that_tokenises_to_nothing_reader_refuses_a_word_of_no_characters(read):
    with pytest.raises(CorpusError, match=r":2: empty word"):
        read(columns(("Kiel", "B-LOC"), ("", "O")))


@pytest.mark.parametrize("word", ["\u0301", "\ufe0f", "👩🏽\u200d🚀", "🇩🇪"])
def test_row_combining_mark_alone_vs16_emoji_reader_keeps_the_word(read, word):
    assert read(columns((word, "B-LOC"), ("a", "O"))) == [Sentence((word, "a"), ("B-LOC", "O"))]


def test_row_lone_surrogate_reader_names_the_byte(read):
    with pytest.raises(CorpusError, match=r"conll:1: byte 0xed at offset 1 is not utf-8"):
        read("a\ud83d\tO\n".encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("length", [500, 300_000])
def test_row_long_word_reader_keeps_it_whole(read, length):
    assert read(columns(("x" * length, "B-PER")))[0].words == ("x" * length,)


def test_row_longer_than_the_maximum_reader_cuts_no_sentence(read):
    (sentence,) = read(columns(*[("Kiel", "B-LOC")] * 3000))

    assert len(sentence.words) == len(sentence.tags) == 3000


def test_row_ragged_line_reader_gives_file_line_and_text(read):
    with pytest.raises(CorpusError, match=r"corpus\.conll:2: expected 2 columns .*found 1: 'Kiel'"):
        read("a\tO\nKiel\nb\tO\n")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("I-PER I-PER O", "B-PER I-PER O"),
        ("B-PER I-LOC O", "B-PER B-LOC O"),
        ("O I-LOC B-LOC", "O B-LOC B-LOC"),
    ],
)
def test_row_bio_broken_reader_repairs_it(read, tags, expected):
    rows = [(f"w{number}", tag) for number, tag in enumerate(tags.split())]

    assert read(columns(*rows))[0].tags == tuple(expected.split())


def test_row_bio_broken_reader_refuses_it_in_strict_mode(read):
    with pytest.raises(CorpusError, match=r":2: "):
        read(columns(("Kiel", "O"), ("Nord", "I-LOC")), scheme="strict")


@pytest.mark.parametrize("tag", ["b-PER", "B_PER", "X-PER", "", "None", "PER"])
def test_row_unknown_prefix_or_tag_reader_refuses_it_with_its_line(read, tag):
    with pytest.raises(CorpusError, match=r"corpus\.conll:2: "):
        read(columns(("a", "O"), ("Kiel", tag)))


def test_row_unknown_prefix_or_tag_check_data_lists_all_of_them_where_the_reader_stops_at_the_first(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text(columns(("a", "O"), ("Kiel", "X-PER"), ("b", "O"), ("Bonn", "Y-LOC")))

    with pytest.raises(CorpusError, match="X-PER") as refusal:
        list(read_corpus(path))
    listed = CliRunner().invoke(app, ["check-data", str(path)])

    assert "xlner check-data" in refusal.value.hint
    assert f"{path}:2: found tag 'X-PER'" in listed.stdout
    assert f"{path}:4: found tag 'Y-LOC'" in listed.stdout
    assert listed.exit_code == 1


def test_row_unknown_prefix_or_tag_reader_takes_an_underscore_throughout_as_unlabelled(read):
    assert read(columns(("a", "_"), ("Kiel", "_")))[0].tags is None


def test_row_label_set_is_not_the_models_reader_has_a_map_and_refuses_what_is_not_there(read):
    tags = read(columns(("Anna", "B-PERSON"), ("a", "O"), ("Kiel", "B-GPE"), ("X", "B-MISC")))[0].tags

    assert LabelMap.parse("PERSON=PER,GPE=LOC,MISC=").apply(tags) == ("B-PER", "O", "B-LOC", "O")
    with pytest.raises(LabelError, match="did you mean PERSON"):
        LabelMap.parse("PERSN=PER").check(["PERSON", "GPE"], "corpus.conll")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", ["x.conll", "x.txt"])
def test_row_bom_and_crlf_reader_drops_them(read, start, end, name):
    content = start + end.join([b"Regen\tO" if name == "x.conll" else b"Regen", b"", b""])

    assert [sentence.words for sentence in read(content, name)] == [("Regen",)]


def test_row_latin_1_reader_names_the_byte_and_the_likely_encoding(read):
    content = "España\tB-LOC\n".encode("latin-1")

    with pytest.raises(CorpusError, match=r":1: byte 0xf1 at offset 4 .*corpus\.encoding=latin-1"):
        read(content)
    assert read(content, encoding="latin-1")[0].words == ("España",)


@pytest.mark.parametrize("separator", ["\t", " ", "  "])
def test_row_tab_or_spaces_and_nbsp_reader_parts_at_the_one_and_not_at_the_other(read, separator):
    words = read(f"10\u00a0000{separator}O\nKiel{separator}B-LOC\n")[0].words

    assert words == ("10\u00a0000", "Kiel")


def test_row_docstart_and_comments_reader_skips_them(read):
    content = "-DOCSTART- -X- O O\n\n# sent_id = 1\nKiel NNP B-NP B-LOC\n"

    assert read(content) == [Sentence(("Kiel",), ("B-LOC",))]


def test_row_global_columns_reader_takes_the_columns_they_name(read):
    content = "# global.columns = ID FORM UPOS MISC:NER\n1\tKiel\tPROPN\tB-LOC\n2\tist\tAUX\tO\n"

    assert read(content) == [Sentence(("Kiel", "ist"), ("B-LOC", "O"))]


def test_row_a_real_number_sign_reader_takes_it_as_a_word(read):
    content = columns(("#", "O"), ("#Kiel", "B-LOC"), ("ist", "O"))

    assert read(f"# text = # #Kiel ist\n{content}") == [Sentence(("#", "#Kiel", "ist"), ("O", "B-LOC", "O"))]


def test_row_rtl_and_bidi_reader_keeps_the_order_of_the_file(read):
    rows = [("שלום", "O"), ("Kiel", "B-LOC"), ("\u200fאבג\u200e", "O")]

    assert read(columns(*rows))[0].words == tuple(word for word, _ in rows)


@pytest.mark.parametrize("word", ["é", "e\u0301", "ﬁ", "Å"])
def test_row_nfc_nfd_reader_normalises_nothing(read, word):
    assert read(columns((word, "O")))[0].words == (word,)
    assert read(f"{word}\n", "x.txt")[0].words == (word,)


def test_row_huge_file_reader_gives_the_first_sentence_before_it_has_read_the_rest(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text("Regen\tO\n\n" * 1_000_000)
    start = time.process_time()

    assert next(read_corpus(path)).words == ("Regen",)

    assert time.process_time() - start < 1


def test_row_huge_line_reader_refuses_it(read):
    with pytest.raises(CorpusError, match=r"conll:2: a line of more than 1,000,000 characters"):
        read("Regen\tO\n" + "x" * 2_000_000)


def test_row_duplicate_train_and_test_sentences_are_counted_and_told(tmp_path):
    for name, words in (("train", "a b c a"), ("test", "a x a b y")):
        rows = "\n".join(columns((word, "B-PER"), (".", "O")) for word in words.split())
        (tmp_path / f"{name}.conll").write_text(rows)
    train, test = (read_labelled(tmp_path / f"{name}.conll", CorpusRecipe()) for name in ("train", "test"))

    assert repeated_sentences(train, [test]) == [f"{test.path}: 3 sentences also stand in {train.path}"]
    assert repeated_sentences(test, []) == []


def test_labels_of_target_text_are_not_looked_at(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("Anna\tB-PER\nlebt\t_\n\nBo\tPER\nkam\to\n")

    words = list(target_stream(path, CorpusRecipe()))
    mark = text_fingerprint(path, CorpusRecipe())
    path.write_text("Anna\nlebt\n\nBo\nkam\n")

    assert words == [Sentence(("Anna", "lebt")), Sentence(("Bo", "kam"))]
    assert (mark.labelled, mark.n_sentences) == (True, 2)
    assert text_fingerprint(path, CorpusRecipe()) == mark._replace(labelled=False)
