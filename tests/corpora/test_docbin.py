import pytest
import spacy
from corpus_samples import KIEL, RAIN
from spacy.tokens import Doc, DocBin, Span

from xlner.corpora.source import read_corpus
from xlner.corpora.write import write_corpus
from xlner.errors import CorpusError
from xlner.words import Sentence


@pytest.fixture
def nlp():
    return spacy.blank("de")


def test_what_spacy_wrote_is_read(tmp_path, nlp):
    doc = nlp("Angela Merkel in Kiel")
    doc.ents = [Span(doc, 0, 2, "PER"), Span(doc, 3, 4, "LOC")]
    DocBin(docs=[doc, nlp("Regen")]).to_disk(tmp_path / "x.spacy")

    assert list(read_corpus(tmp_path / "x.spacy")) == [KIEL, Sentence(RAIN.words)]


def test_sentences_of_a_document_are_told_apart_and_white_space_is_no_word(tmp_path, nlp):
    doc = Doc(nlp.vocab, words=["Kiel", "\n", "Es", "regnet"], sent_starts=[True, False, True, False])
    doc.ents = [Span(doc, 0, 1, "LOC")]
    DocBin(docs=[doc]).to_disk(tmp_path / "x.spacy")

    sentences = list(read_corpus(tmp_path / "x.spacy"))

    assert sentences == [Sentence(("Kiel",), ("B-LOC",)), Sentence(("Es", "regnet"), ("O", "O"))]


def test_tokens_of_which_nothing_is_said_have_no_label(tmp_path, nlp):
    partly = nlp("Angela Merkel in Kiel")
    partly.set_ents([Span(partly, 0, 2, "PER")], default="missing")
    DocBin(docs=[partly]).to_disk(tmp_path / "x.spacy")

    with pytest.raises(CorpusError, match=r"word 3: found '_' \(no label\) beside tags"):
        list(read_corpus(tmp_path / "x.spacy"))
    assert list(read_corpus(tmp_path / "x.spacy", scheme="ignore")) == [Sentence(KIEL.words)]


def test_spacy_reads_what_was_written(tmp_path, nlp):
    write_corpus([KIEL, RAIN], tmp_path / "x.spacy")

    docs = list(DocBin().from_disk(tmp_path / "x.spacy").get_docs(nlp.vocab))

    assert [[(entity.text, entity.label_) for entity in doc.ents] for doc in docs] == [
        [("Angela Merkel", "PER"), ("Kiel", "LOC")],
        [],
    ]


@pytest.mark.parametrize("content", [b"", b"no DocBin", b"\x78\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_file_that_is_no_docbin_is_refused(tmp_path, content):
    (tmp_path / "x.spacy").write_bytes(content)

    with pytest.raises(CorpusError, match=r"x\.spacy: spaCy cannot read it as a DocBin"):
        list(read_corpus(tmp_path / "x.spacy"))


def test_a_word_of_white_space_is_not_written(tmp_path):
    with pytest.raises(CorpusError, match=r"sentence 1: the word .* is white space"):
        write_corpus([Sentence(("\u3000",))], tmp_path / "x.spacy")
