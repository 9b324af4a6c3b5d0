import string
import tempfile
from pathlib import Path

import pytest
from corpus_samples import KIEL, RAIN, TWO_COLUMNS
from hypothesis import given, settings
from hypothesis import strategies as st

from xlner.corpora.source import read_corpus
from xlner.corpora.write import write_corpus
from xlner.errors import CorpusError, RunError
from xlner.tags import to_iob2
from xlner.words import Sentence

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
        write_corpus(sentences, path)

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
        write_corpus(sentences, path)

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
        write_corpus(sentences, path)

    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    def interrupted():
        yield KIEL
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_corpus(interrupted(), tmp_path / "x.conll")

    assert list(tmp_path.iterdir()) == []


def test_writing_through_a_link_keeps_the_link_and_where_no_file_can_be_is_refused(tmp_path):
    (tmp_path / "real.conll").touch()
    (tmp_path / "link.conll").symlink_to("real.conll")

    write_corpus([RAIN], tmp_path / "link.conll")

    assert (tmp_path / "link.conll").is_symlink()
    assert (tmp_path / "real.conll").read_text() == "Regen\tO\n\n"
    with pytest.raises(RunError, match="cannot be written"):
        write_corpus([RAIN], tmp_path / "real.conll" / "x.conll")


def test_a_corpus_can_be_rewritten_from_itself(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text(TWO_COLUMNS.replace("\t", "  "))

    write_corpus(read_corpus(path), path)

    assert path.read_text() == TWO_COLUMNS + "\n"
