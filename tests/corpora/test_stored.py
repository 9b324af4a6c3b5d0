import pytest
import spacy
from corpus_samples import KIEL, RAIN
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from spacy.tokens import Doc, DocBin, Span

from xlner.corpora.lines import corpus_path
from xlner.corpora.source import read_corpus, read_located
from xlner.corpora.spans import ReadingOptions
from xlner.corpora.write import write_corpus
from xlner.errors import CorpusError
from xlner.words import Sentence


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
        ([["a", ""]], [["O", "O"]], Value("string"), "row 0: word 1 is empty; expected none of them empty"),
        ([["a", None]], [["O", "O"]], Value("string"), "row 0: expected a list of words"),
        ([["a"]], [[0]], Value("int64"), "ner_tags holds .*int64.*numbers get their names by"),
        ([["a"], ["Kiel"]], [["O"], ["LOC"]], Value("string"), "row 1, word 1: found tag 'LOC'"),
        ([["Kiel"]], [[0]], ClassLabel(names=["LABEL_0"]), "row 0, word 1: found tag 'LABEL_0'"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused_with_the_row(tmp_path, words, tags, tag_type, message):
    data_set(words, tags, tag_type).save_to_disk(tmp_path / "set")

    with pytest.raises(CorpusError, match=message):
        list(read_corpus(tmp_path / "set"))


def test_folders_that_are_no_data_set_and_names_that_cannot_be_loaded_are_refused(tmp_path, monkeypatch):
    Dataset.from_dict({"title": ["a"]}).save_to_disk(tmp_path / "text")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(CorpusError, match="no column tokens, words or text; columns there: title"):
        read_corpus(tmp_path / "text")
    with pytest.raises(CorpusError, match="no data set that `save_to_disk` made"):
        read_corpus(tmp_path)
    with pytest.raises(CorpusError, match="hub:nobody/nothing:train: the hub cannot be reached"):
        read_corpus("hub:nobody/nothing:train")


def test_offsets_that_point_beyond_the_file_are_refused(tmp_path):
    words = ["Angela", "Merkel", "in", "Kiel"]
    data_set([words], [["O"] * 4], Value("string")).save_to_disk(tmp_path / "damaged")
    (table,) = (tmp_path / "damaged").glob("*.arrow")
    ends = b"".join(offset.to_bytes(4, "little") for offset in (0, 6, 12, 14, 18))
    content = table.read_bytes()
    assert content.count(ends) == 1

    table.write_bytes(content.replace(ends, ends[:-4] + (1 << 30).to_bytes(4, "little")))

    with pytest.raises(CorpusError, match=r"damaged: is damaged: .*; fetch or make it again"):
        list(read_corpus(tmp_path / "damaged"))


@pytest.mark.parametrize("words", ["tokens", "words", "form"])
@pytest.mark.parametrize("tags", ["ner_tags", "labels", "ner", "label", "NER"])
def test_words_and_tags_of_a_table_are_read_under_their_usual_names(tmp_path, words, tags):
    rows = {"id": ["1"], words: [list(KIEL.words)], "pos_tags": [["X"] * 4], tags: [list(KIEL.tags)]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "x.parquet")

    assert list(read_corpus(tmp_path / "x.parquet")) == [KIEL]
    assert list(read_corpus(tmp_path / "x.parquet", columns=words)) == [Sentence(KIEL.words)]


def test_tags_under_a_name_that_says_nothing_are_named_and_not_lost(tmp_path):
    named = Features(
        {"tokens": List(Value("string")), "mine": List(ClassLabel(names=["O", "B-PER", "I-PER", "B-LOC"]))}
    )
    by_number = Dataset.from_dict({"tokens": [KIEL.words], "mine": [[1, 2, 0, 3]]}, features=named)
    by_name = Dataset.from_dict({"tokens": [KIEL.words], "mine": [KIEL.tags]})

    for number, rows in enumerate((by_number, by_name)):
        path = tmp_path / f"{number}.parquet"
        rows.to_parquet(path)
        with pytest.raises(CorpusError, match=r"'mine' looks like tags.*corpus\.columns=tokens,mine"):
            list(read_corpus(path))
        assert list(read_corpus(path, columns="tokens,mine")) == [KIEL]
        assert list(read_corpus(path, scheme="ignore")) == [Sentence(KIEL.words)]


def test_numbers_and_missing_tags_of_a_table_are_what_they_are(tmp_path):
    numbers = {"tokens": [KIEL.words, RAIN.words], "ner_tags": [[1, 2, 0, 3], [-100]]}
    Dataset.from_dict(numbers).to_parquet(tmp_path / "numbers.parquet")
    Dataset.from_dict({"tokens": [["a", "b"]], "tags": [["O", None]]}).to_parquet(tmp_path / "missing.parquet")

    with pytest.raises(CorpusError, match=r"corpus\.labels=O,B-TYPE,I-TYPE"):
        list(read_corpus(tmp_path / "numbers.parquet"))
    named = list(read_corpus(tmp_path / "numbers.parquet", labels="O,B-PER,I-PER,B-LOC"))
    assert named == [KIEL, Sentence(RAIN.words)]
    with pytest.raises(CorpusError, match=r"found '_' \(no label\) beside tags"):
        list(read_corpus(tmp_path / "missing.parquet"))


def test_texts_with_spans_in_a_table_are_read(tmp_path):
    entities = [[{"start": 0, "end": 13, "label": "PER"}, {"start": 17, "end": 21, "label": "LOC"}]]
    Dataset.from_dict({"text": [" ".join(KIEL.words)], "entities": entities}).to_parquet(tmp_path / "x.parquet")

    assert list(read_corpus(tmp_path / "x.parquet")) == [KIEL]


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


def test_a_sentence_of_a_docbin_that_cannot_be_repaired_costs_no_other_one(tmp_path, nlp):
    words = ["Anna", "lebt"]
    docs = [Doc(nlp.vocab, words=words, ents=["B-PER", "O"]), Doc(nlp.vocab, words=words, ents=["B-PER", ""])]
    DocBin(docs=docs).to_disk(tmp_path / "a.spacy")
    problems = []

    found = list(read_located(tmp_path / "a.spacy", "auto", ReadingOptions(report=problems.append)))

    assert [sentence for sentence, _ in found] == [Sentence(("Anna", "lebt"), ("B-PER", "O"))]
    assert [(problem.code, problem.place) for problem in problems] == [
        ("XL014", f"{tmp_path / 'a.spacy'}: document 2, word 2")
    ]
