import string
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from xlner.data import conll, lines
from xlner.data.conll_writer import write_conll
from xlner.data.corpus import FORMATS, CorpusFingerprint, corpus_path, find_corpus, fingerprint, read_corpus
from xlner.errors import CorpusError, RecipeError, XlnerError
from xlner.labels import to_iob2
from xlner.text import Sentence

KIEL = Sentence(("Angela", "Merkel", "in", "Kiel"), ("B-PER", "I-PER", "O", "B-LOC"))
RAIN = Sentence(("Regen",), ("O",))


@pytest.fixture
def read(tmp_path):
    """Reads a text, given as str or bytes, as a file named corpus.conll."""

    def read_text(content, name="corpus.conll", **options):
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw)
        return list(read_corpus(tmp_path / name, **options))

    return read_text


# --- columns


TWO_COLUMNS = "Angela\tB-PER\nMerkel\tI-PER\nin\tO\nKiel\tB-LOC\n\nRegen\tO\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(TWO_COLUMNS, id="two columns"),
        pytest.param(TWO_COLUMNS.rstrip("\n"), id="no line end at the end"),
        pytest.param(TWO_COLUMNS.replace("\t", " "), id="spaces"),
        pytest.param(TWO_COLUMNS.replace("\t", "   "), id="several spaces"),
        pytest.param(TWO_COLUMNS.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(TWO_COLUMNS.replace("\n", "\r"), id="CR"),
        pytest.param(TWO_COLUMNS.replace("\n", " \n"), id="blanks at the line end"),
        pytest.param("\n \n" + TWO_COLUMNS.replace("\n\n", "\n\t\n\n \n"), id="more blank lines"),
        pytest.param("\ufeff" + TWO_COLUMNS, id="byte order mark"),
        pytest.param("-DOCSTART- -X- O\n\n" + TWO_COLUMNS, id="document start"),
        pytest.param(TWO_COLUMNS.replace("\n\n", "\n-DOCSTART-\tO\n"), id="document start between"),
        pytest.param("# global.columns = FORM NER\n# newdoc\n" + TWO_COLUMNS, id="comments"),
        pytest.param(
            "0\tAngela\tB-PER\n1\tMerkel\tI-PER\n2\tin\tO\n3\tKiel\tB-LOC\n\n0\tRegen\tO\n",
            id="WikiNEuRal",
        ),
        pytest.param(
            "Angela NNP B-NP B-PER\nMerkel NNP I-NP I-PER\nin IN B-PP O\nKiel NNP B-NP B-LOC\n\nRegen NN B-NP O\n",
            id="CoNLL-2003",
        ),
        pytest.param(
            "# newdoc id = n1\n# sent_id = n1-1\n# text = Angela Merkel in Kiel\n"
            "1\tAngela\tB-PER\t-\tme\n2\tMerkel\tI-PER\t-\tme\n3\tin\tO\t-\t-\n4\tKiel\tB-LOC\t-\tme\n\n"
            "# sent_id = n1-2\n# text = Regen\n1\tRegen\tO\t-\t-\n\n",
            id="Universal NER",
        ),
        pytest.param(
            "# source\n1\tAngela\tB-PER\tO\n2\tMerkel\tI-PER\tO\n3\tin\tO\tO\n4\tKiel\tB-LOC\tO\n\n1\tRegen\tO\tO\n",
            id="GermEval",
        ),
        pytest.param(
            "1\tAngela\tB-PER\n2\tMerkel\tI-PER\n3-4\tim\tO\n3\tin\tO\n3.1\tx\t_\n4\tKiel\tB-LOC\n\n1\tRegen\tO\n",
            id="ranges and left-out words",
        ),
    ],
)
def test_one_content_is_read_alike_from_all_kinds_of_columns(read, content):
    assert read(content) == [KIEL, RAIN]


def test_iob1_becomes_iob2(read):
    sentences = read("Paul\tI-PER\nEva\tB-PER\nKiel\tI-LOC\nBonn\tI-LOC\n")

    assert sentences == [Sentence(("Paul", "Eva", "Kiel", "Bonn"), ("B-PER", "B-PER", "B-LOC", "I-LOC"))]


@pytest.mark.parametrize("broken", ["I-PER", "O I-PER", "B-LOC I-PER", "B-PER I-PER O I-PER"])
def test_strict_refuses_the_first_tag_that_continues_nothing(read, broken):
    rows = [f"word\t{tag}" for tag in broken.split()]

    with pytest.raises(CorpusError, match=rf"corpus\.conll:{len(rows)}: I-PER continues no entity.*expected B-PER"):
        read("\n".join(rows), scheme="strict")


def test_strict_reads_clean_iob2(read):
    assert read(TWO_COLUMNS, scheme="strict") == [KIEL, RAIN]


def test_one_column_holds_words_without_tags(read):
    assert read("Angela\nMerkel\n\nRegen\n") == [Sentence(("Angela", "Merkel")), Sentence(("Regen",))]


def test_underscores_in_the_place_of_tags_leave_a_sentence_unlabelled(read):
    assert read("Angela\t_\nMerkel\t_\n\nRegen\tO\n") == [Sentence(("Angela", "Merkel")), RAIN]


@pytest.mark.parametrize(("content", "tags"), [("1\tO\n2\tO\n", ("O", "O")), ("1\t_\n2\t_\n", None)])
def test_numbers_beside_tags_are_words(read, content, tags):
    assert read(content) == [Sentence(("1", "2"), tags)]


def test_numbers_beside_words_count_them(read):
    assert read("1\tAngela\n2\tMerkel\n\n1\tRegen\n") == [Sentence(("Angela", "Merkel")), Sentence(("Regen",))]


def test_a_plain_conllu_file_gives_words_without_tags(read):
    rest = "_\tNOUN\t_\t_\t0\troot\t_\tSpaceAfter=No"

    assert read(f"# text = Regen.\n1\tRegen\t{rest}\n2\t.\t{rest}\n", "corpus.conllu") == [Sentence(("Regen", "."))]


@pytest.mark.parametrize("word", ["10\u00a0000", "\u3000", "a\u2028b", "a\x85b", "a\x0bb", "\u200b", "e\u0301", "\x1c"])
def test_only_tabs_spaces_and_line_ends_separate(read, word):
    assert read(f"{word}\tO\n") == [Sentence((word,), ("O",))]


def test_a_space_stays_in_a_word_where_tabs_separate(read):
    assert read("34 470\tO\nKiel\tB-LOC\n") == [Sentence(("34 470", "Kiel"), ("O", "B-LOC"))]


@pytest.mark.parametrize(
    ("line", "is_word"),
    [
        ("#\tO", True),
        ("#Kiel\tB-LOC", True),
        ("# O", True),
        ("# newdoc", False),
        ("# text = Kiel", False),
        ("#", False),
        ("# a\tb", False),
        ("#\tB-LOC\tO", False),
    ],
)
def test_a_hash_begins_a_comment_unless_the_line_looks_like_the_other_rows(read, line, is_word):
    sentence = read(f"{line}\nRegen\tO\n")[0]

    assert len(sentence.words) == 1 + is_word


def test_an_unlabelled_hash_is_a_word(read):
    assert read("#\t_\n\nRegen\tO\n") == [Sentence(("#",)), RAIN]


@pytest.mark.parametrize("columns", ["1,3", "1,-2", (1, 3), "(1, 3)", "[1,3]"])
def test_columns_are_counted_from_either_end(read, columns):
    assert read("a Kiel x B-LOC y\nb in x O y\n", columns=columns) == [Sentence(("Kiel", "in"), ("B-LOC", "O"))]


def test_a_single_column_number_reads_words_alone(read):
    assert read(TWO_COLUMNS, columns="0") == [Sentence(KIEL.words), Sentence(RAIN.words)]


def test_chosen_columns_skip_contractions_too(read):
    sentences = read("1-2\tim\tIN\tO\n1\tin\tIN\tO\n2\tdem\tDT\tO\n", columns="1,3")

    assert sentences == [Sentence(("in", "dem"), ("O", "O"))]


@pytest.mark.parametrize("columns", ["", "a,b", "0,1,2", "1,1", "0;1"])
def test_columns_that_are_no_two_numbers_are_refused_before_reading(tmp_path, columns):
    (tmp_path / "x.conll").write_text("a\tO\n")

    with pytest.raises(CorpusError, match=r"corpus\.columns is .*expected auto"):
        read_corpus(tmp_path / "x.conll", columns=columns)


@pytest.mark.parametrize(
    ("columns", "message"), [("0,2", r"column 2, but rows have 2 \(0 to 1\): 'Kiel B-LOC'"), ("1,-1", "both")]
)
def test_columns_that_the_file_does_not_have_are_refused(read, columns, message):
    with pytest.raises(CorpusError, match=message):
        read("Kiel\tB-LOC\n", columns=columns)


# --- bad input


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
        ("a\tO\nKiel\tS-LOC\n", r":2: found tag 'S-LOC'; .*IOBES and BILOU are not read"),
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
    with pytest.raises(RecipeError, match=r"unknown corpus\.format 'csv'; known: conll, text, dataset"):
        read(TWO_COLUMNS, format="csv")


def test_reading_is_a_stream(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text("Regen\tO\n\n" * 200_000 + "broken\n")

    sentences = read_corpus(path)

    assert [next(sentences) for _ in range(1000)] == [RAIN] * 1000


# --- files and formats


def test_lines_of_text_are_split_at_ascii_white_space_or_as_asked(read):
    content = "Angela Merkel  in\tKiel .\r\n\n10\u00a0000 x\n"

    assert [sentence.words for sentence in read(content, "a.txt")] == [
        ("Angela", "Merkel", "in", "Kiel", "."),
        ("10\u00a0000", "x"),
    ]
    assert read("ab", "b.txt", split_line=list) == [Sentence(("a", "b"))]


@pytest.mark.parametrize("suffix", [".conll", ".conllu", ".iob2", ".iob", ".bio", ".tsv", ".TSV"])
def test_files_of_columns_are_known_by_their_suffix(read, suffix):
    assert read(TWO_COLUMNS, "corpus" + suffix) == [KIEL, RAIN]


def test_an_unknown_suffix_is_refused_until_the_format_is_named(read):
    with pytest.raises(CorpusError, match=r"suffix '\.data' tells no format; known: \.conll, .*corpus\.format"):
        read(TWO_COLUMNS, "corpus.data")
    assert read(TWO_COLUMNS, "corpus.data", format="conll") == [KIEL, RAIN]


@pytest.mark.parametrize("format", ["auto", "conll", "text"])
def test_a_missing_file_is_refused_with_similar_names_first(tmp_path, format):
    for name in (*(f"a{number}" for number in range(20)), "train.conll"):
        (tmp_path / name).touch()

    with pytest.raises(CorpusError, match=r"no corpus at .*trian\.conll; .* holds: train\.conll"):
        read_corpus(tmp_path / "trian.conll", format=format)


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "train.conll").write_text(TWO_COLUMNS)

    with pytest.raises(CorpusError, match=r"is a folder; expected a file; it holds: train\.conll"):
        read_corpus(tmp_path, format="conll")


def test_the_file_of_a_split_is_found_by_the_order_of_suffixes(tmp_path):
    for name in ("train.iob2", "train.txt", "dev.conllu"):
        (tmp_path / "de").mkdir(exist_ok=True)
        (tmp_path / "de" / name).touch()

    assert corpus_path(tmp_path, "de", "train").name == "train.txt"
    assert find_corpus(str(tmp_path), "de", "dev") == tmp_path / "de" / "dev.conllu"
    assert find_corpus(tmp_path, "de", "test") is None


def test_a_missing_split_or_language_is_refused_with_what_there_is(tmp_path):
    (tmp_path / "de").mkdir()
    (tmp_path / "de" / "train.conll").touch()

    with pytest.raises(CorpusError, match=r"no corpus at .*test\.conll .*de holds: train\.conll"):
        corpus_path(tmp_path, "de", "test")
    with pytest.raises(CorpusError, match=r"no corpus at .*holds: de$"):
        corpus_path(tmp_path, "nl", "test")
    with pytest.raises(CorpusError, match=r"no corpus at .*nowhere"):
        corpus_path(tmp_path / "nowhere", "nl", "test")


# --- data sets


def data_set(words, tags, tag_type):
    features = Features({"tokens": List(Value("string")), "ner_tags": List(tag_type)})
    return Dataset.from_dict({"tokens": words, "ner_tags": tags}, features=features)


def test_a_saved_data_set_is_read_by_the_names_of_its_tags(tmp_path):
    named = data_set(
        [KIEL.words, (), RAIN.words],
        [[2, 0, 1, 3], [], [1]],
        ClassLabel(names=["I-PER", "O", "B-PER", "B-LOC"]),
    )
    named.save_to_disk(tmp_path / "named")
    data_set([KIEL.words, RAIN.words], [KIEL.tags, RAIN.tags], Value("string")).save_to_disk(tmp_path / "text")

    assert list(read_corpus(tmp_path / "named")) == [KIEL, RAIN]
    assert list(read_corpus(tmp_path / "text")) == [KIEL, RAIN]


def test_splits_of_a_saved_data_set_are_named_after_a_colon_or_found_as_folders(tmp_path):
    train = data_set([KIEL.words], [KIEL.tags], Value("string"))
    test = data_set([RAIN.words], [RAIN.tags], Value("string"))
    DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "de")

    assert list(read_corpus(f"{tmp_path}/de:test")) == [RAIN]
    assert list(read_corpus(corpus_path(tmp_path, "de", "train"))) == [KIEL]
    with pytest.raises(CorpusError, match="several splits; name one after a colon: train, test"):
        read_corpus(tmp_path / "de")
    with pytest.raises(CorpusError, match="no split 'dev'"):
        read_corpus(f"{tmp_path}/de:dev")


def test_words_without_labels_in_a_data_set_stay_without(tmp_path):
    data_set([RAIN.words], [[-1]], ClassLabel(names=["O"])).save_to_disk(tmp_path / "unnamed")
    Dataset.from_dict({"words": [list(KIEL.words)]}).save_to_disk(tmp_path / "untagged")

    assert list(read_corpus(tmp_path / "unnamed")) == [Sentence(RAIN.words)]
    assert list(read_corpus(tmp_path / "untagged")) == [Sentence(KIEL.words)]


@pytest.mark.parametrize(
    ("words", "tags", "tag_type", "message"),
    [
        ([["a"], ["a", "b"]], [["O"], ["O"]], Value("string"), "row 1: 2 words, but 1 tags"),
        ([["a", ""]], [["O", "O"]], Value("string"), "row 0: expected a list of words, none of them empty"),
        ([["a", None]], [["O", "O"]], Value("string"), "row 0: expected a list of words"),
        ([["a"]], [[0]], Value("int64"), "ner_tags holds .*int64.*numbers get their names by"),
        ([["a"], ["Kiel"]], [["O"], ["LOC"]], Value("string"), "row 1, word 'Kiel': found tag 'LOC'"),
        ([["Kiel"]], [[0]], ClassLabel(names=["LABEL_0"]), "row 0, word 'Kiel': found tag 'LABEL_0'"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused_with_the_row(tmp_path, words, tags, tag_type, message):
    data_set(words, tags, tag_type).save_to_disk(tmp_path / "set")

    with pytest.raises(CorpusError, match=message):
        list(read_corpus(tmp_path / "set"))


def test_folders_that_are_no_data_set_and_names_that_cannot_be_loaded_are_refused(tmp_path, monkeypatch):
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "text")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(CorpusError, match="no column tokens or words; columns there: text"):
        read_corpus(tmp_path / "text")
    with pytest.raises(CorpusError, match="no data set that `save_to_disk` made"):
        read_corpus(tmp_path)
    with pytest.raises(CorpusError, match="hub:nobody/nothing:train: the hub cannot be reached"):
        read_corpus("hub:nobody/nothing:train")


# --- writing and fingerprints


ODD_CHARACTERS = "#-_ \u00a0\u2028\u0085\u200b\u0301\u3000\ufeff\x0b\x1c\U0001f1e9" + "abO0B1" + string.punctuation
ODD_WORDS = st.one_of(
    st.text(ODD_CHARACTERS, min_size=1, max_size=6),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\t\r\n"), min_size=1, max_size=6),
    st.sampled_from(["#", "# O", "1", "2", "1-2", "O", "_", "B-PER"]),
).filter(lambda word: not word.startswith("-DOCSTART-"))
TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
TAGGED = st.lists(st.tuples(ODD_WORDS, TAGS), min_size=1, max_size=5).map(
    lambda rows: Sentence(tuple(word for word, _ in rows), to_iob2([tag for _, tag in rows]))
)
UNTAGGED = st.lists(ODD_WORDS, min_size=1, max_size=5).map(lambda words: Sentence(tuple(words)))


@settings(max_examples=200)
@given(TAGGED, st.lists(st.one_of(TAGGED, UNTAGGED), max_size=4))
def test_what_was_written_with_tags_is_read_back(first, others):
    if first.words[0].startswith("\ufeff"):
        first = RAIN
    sentences = [first, *others]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.conll")
        write_conll(sentences, path)

        assert list(read_corpus(path, columns="0,1")) == sentences
        assert list(read_corpus(path)) == sentences


@settings(max_examples=200)
@given(
    st.lists(
        st.lists(ODD_WORDS.filter(lambda word: " " not in word), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_words_that_were_written_alone_are_read_back(words):
    sentences = [Sentence(tuple(group)) for group in words]
    if words[0][0].startswith("\ufeff"):
        sentences = [Sentence(("x",)), *sentences]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.conll")
        write_conll(sentences, path)

        assert list(read_corpus(path)) == sentences


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([RAIN, Sentence(("",), ("O",))], "sentence 2: the word '' is empty"),
        ([Sentence(("a\tb",), ("O",))], r"the word 'a\\tb' holds a TAB or a line end"),
        ([Sentence(("a\nb",), ("O",))], "holds a TAB or a line end"),
        ([Sentence(("a\rb",), ("O",))], "holds a TAB or a line end"),
        ([Sentence(("a b",))], "holds a space"),
        ([Sentence(("-DOCSTART-",), ("O",))], "start of a document"),
        ([Sentence(("\ud800",), ("O",))], "half a surrogate pair"),
        ([Sentence(("\ufeffa",), ("O",))], "byte order mark"),
        ([Sentence((), ())], "0 words and 0 tags"),
        ([Sentence(("a",), ())], "1 words and 0 tags"),
        ([Sentence(("a",)), RAIN], "sentence 2 has tags, unlike the sentences before"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, sentences, message):
    path = tmp_path / "x.conll"
    path.write_text("as it was")

    with pytest.raises(CorpusError, match=message):
        write_conll(sentences, path)

    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    def interrupted():
        yield KIEL
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_conll(interrupted(), tmp_path / "x.conll")

    assert list(tmp_path.iterdir()) == []


def test_writing_through_a_link_keeps_the_link_and_where_no_file_can_be_is_refused(tmp_path):
    (tmp_path / "real.conll").touch()
    (tmp_path / "link.conll").symlink_to("real.conll")

    write_conll([RAIN], tmp_path / "link.conll")

    assert (tmp_path / "link.conll").is_symlink()
    assert (tmp_path / "real.conll").read_text() == "Regen\tO\n\n"
    with pytest.raises(CorpusError, match="cannot be written"):
        write_conll([RAIN], tmp_path / "real.conll" / "x.conll")


def test_a_corpus_can_be_rewritten_from_itself(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text(TWO_COLUMNS.replace("\t", "  "))

    write_conll(read_corpus(path), path)

    assert path.read_text() == TWO_COLUMNS + "\n"


def test_a_fingerprint_depends_on_the_content_alone(read):
    prints = {
        fingerprint(read(content)) for content in (TWO_COLUMNS, TWO_COLUMNS.replace("\t", "  "), "\n" + TWO_COLUMNS)
    }

    assert len(prints) == 1
    assert len(prints.pop()) == 12


def test_every_change_of_the_content_changes_the_fingerprint():
    variants = [
        [KIEL, RAIN],
        [RAIN, KIEL],
        [KIEL],
        [KIEL, RAIN, RAIN],
        [Sentence(KIEL.words), Sentence(RAIN.words)],
        [Sentence((*KIEL.words, *RAIN.words))],
        [KIEL, Sentence(RAIN.words, ("B-LOC",))],
        [KIEL, Sentence(("R", "egen"), ("O", "O"))],
    ]

    assert len({fingerprint(sentences) for sentences in variants}) == len(variants)


def test_a_stream_can_be_hashed_while_it_is_used():
    growing = CorpusFingerprint()
    for sentence in (KIEL, RAIN):
        growing.add(sentence)

    assert growing.hexdigest() == fingerprint(iter([KIEL, RAIN]))


@settings(max_examples=200)
@given(st.text(max_size=60), st.sampled_from(sorted(set(FORMATS) - {"dataset"})))
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


# --- real corpora


def count_words_and_sentences(path):
    """Words and sentences of files that begin each row with a number, counted without the reader."""
    rows = path.read_bytes().split(b"\n")
    n_words = sum(row[:1].isdigit() for row in rows)
    n_sentences = sum(row[:1].isdigit() and not after[:1].isdigit() for row, after in pairwise(rows))
    return n_words, n_sentences


@pytest.mark.parametrize(
    "name",
    [
        "wikineural/de/test.conllu",
        "wikineural/ru/val.conllu",
        "uner/en_ewt/en_ewt-ud-dev.iob2",
        "uner/de_pud/de_pud-ud-test.iob2",
        "uner/pt_bosque/pt_bosque-ud-dev.iob2",
        "uner/zh_gsd/zh_gsd-ud-train.iob2",
    ],
)
def test_real_files_are_read_word_for_word(shared, name):
    path = shared / "data" / name

    sentences = list(read_corpus(path))

    assert (sum(len(sentence.words) for sentence in sentences), len(sentences)) == count_words_and_sentences(path)


def test_inside_tags_without_a_beginning_in_the_english_corpus_begin_an_entity(shared):
    path = shared / "data" / "wikineural" / "en" / "val.conllu"

    n_begun = sum(tag.startswith("B-") for sentence in read_corpus(path) for tag in sentence.tags)

    # 19,182 B- tags in the file, and 439 I- tags that continue nothing.
    assert n_begun == 19_182 + 439
    with pytest.raises(CorpusError, match="continues no entity"):
        list(read_corpus(path, scheme="strict"))


def test_plain_text_is_one_sentence_a_line(shared):
    path = shared / "text" / "nl.txt"

    n_lines = sum(bool(line.strip()) for line in path.read_bytes().split(b"\n"))

    assert sum(1 for _ in read_corpus(path)) == n_lines
