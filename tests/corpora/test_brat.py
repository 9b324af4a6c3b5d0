import pytest

from xlner.corpora.source import ReadingOptions, read_corpus, read_located
from xlner.errors import CorpusError
from xlner.words import Sentence, unicode_words

TEXT = "Angela Merkel in Kiel.\n\nEs regnete in Köln.\n"
NOTES = (
    "T1\tPER 0 13\tAngela Merkel\nT2\tLOC 17 21\tKiel\nR1\tLives Arg1:T1 Arg2:T2\nT3\tLOC 38 42\tKöln\n#1\tNote T3\tx\n"
)
SENTENCES = [
    Sentence(("Angela", "Merkel", "in", "Kiel", "."), ("B-PER", "I-PER", "O", "B-LOC", "O")),
    Sentence(("Es", "regnete", "in", "Köln", "."), ("O", "O", "O", "B-LOC", "O")),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "a.ann").write_text(NOTES)
    return tmp_path


@pytest.mark.parametrize("name", ["", "a.ann"])
def test_lines_are_sentences_and_spans_their_tags(folder, name):
    assert list(read_corpus(folder / name, split_text=unicode_words)) == SENTENCES


def test_documents_of_a_folder_come_in_the_order_of_their_names(folder):
    (folder / "0.txt").write_text("Regen\n")
    (folder / "0.ann").touch()

    sentences = list(read_corpus(folder, split_text=unicode_words))

    assert sentences == [Sentence(("Regen",), ("O",)), *SENTENCES]


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("T4\tPER 0 6;7 13\tAngela Merkel", "a span of several parts"),
        ("T4\tPER zero 6\tAngela", "no start and end"),
        ("T4\tPER 0 6\tMerkel", "the text there is 'Angela'"),
        ("T4\tLOC 17 30\t", "a span over the end of a line"),
    ],
)
def test_an_annotation_that_cannot_be_understood_is_refused_with_its_line(folder, note, message):
    (folder / "a.ann").write_text(NOTES + note + "\n")

    with pytest.raises(CorpusError, match=rf"a\.ann:6: {message}.*\[XL025\]"):
        list(read_corpus(folder, split_text=unicode_words))

    problems = []
    options = ReadingOptions(split_text=unicode_words, report=problems.append)
    assert [found.sentence for found in read_located(folder, "auto", options)] == SENTENCES
    assert len(problems) == 1


def test_a_text_without_annotations_beside_it_is_refused(folder):
    (folder / "a.txt").unlink()

    with pytest.raises(CorpusError, match=r"no file .*a\.txt; brat keeps"):
        list(read_corpus(folder))
