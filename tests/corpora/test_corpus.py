from itertools import pairwise

import pytest
from corpus_samples import KIEL, RAIN, TWO_COLUMNS

from xlner.corpora.identity import CorpusFingerprint, fingerprint
from xlner.corpora.lines import corpus_path, find_corpus
from xlner.corpora.source import read_corpus
from xlner.errors import CorpusError
from xlner.words import Sentence


def test_lines_of_text_are_split_at_ascii_white_space_or_as_asked(read):
    content = "Angela Merkel  in\tKiel .\r\n\n10\u00a0000 x\n"

    assert [sentence.words for sentence in read(content, "a.txt")] == [
        ("Angela", "Merkel", "in", "Kiel", "."),
        ("10\u00a0000", "x"),
    ]
    assert read("ab", "b.txt", split_text=lambda line: [(0, 1), (1, 2)]) == [Sentence(("a", "b"))]


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
