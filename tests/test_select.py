"""Sentences for an annotator: which ones, and in which shapes; and back from the tools."""

import json
from itertools import combinations

import numpy as np
import pytest
from conftest import SENTENCES
from test_students import make_student

from xlner.corpora.source import read_annotations, read_corpus
from xlner.errors import CorpusError
from xlner.select import (
    ALIKE,
    as_text,
    done_sentences,
    entity_doubts,
    most_doubtful,
    new_entities_first,
    select_sentences,
    sentence_key,
    spread,
)
from xlner.tag_files.records import Record, TaggedRecord
from xlner.tagger import load_tagger
from xlner.tags import Span
from xlner.words import split_words, unicode_words

TOWNS = ("Kiel", "Ulm", "Wien", "Graz", "Bonn", "Jena", "Trier", "Mainz")
YEARS = ("früher", "heute", "bald", "nie", "manchmal")
TEXTS = [f"{one} schlug {two} {YEARS[place % 5]}." for place, (one, two) in enumerate(combinations(TOWNS, 2))]


@pytest.fixture(scope="module")
def tagger(bert_folder):
    return load_tagger(bert_folder)


@pytest.fixture
def select(xlner, bert_folder):
    """Runs `xlner select` with the tiny model in this process; gives its status, stdout and stderr."""
    return lambda *arguments, model=bert_folder: xlner("select", "--model", model, *arguments)


def records(texts):
    return [Record(number, "", text, None, None, {}) for number, text in enumerate(texts)]


def tagged(text, *spans):
    """A text whose entities, in words between spaces, are certain."""
    offsets = split_words(text, "whitespace")
    words = tuple([text[start:end] for start, end in offsets])
    return TaggedRecord(records([text])[0], words, offsets, [(Span(*span), 1.0) for span in spans])


def texts_of(found):
    return [record.record.text for record in found]


def test_a_sentence_is_as_doubtful_as_entities_are_expected_to_be_wrong():
    probs = np.asarray([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]])

    doubts = entity_doubts(probs, [(Span("A", 1, 3), 0.6)], [1])

    np.testing.assert_allclose(doubts, [0.2, 0.2, 0.2, 0.0])


def test_the_first_n_of_an_order_are_of_n_clusters_the_most_doubtful_first():
    angles = [0.0, 0.1, 0.2, 2.0, 2.1, 2.2, 4.0, 4.1, 4.2]
    vectors = np.asarray([[np.cos(angle), np.sin(angle)] for angle in angles])
    doubts = np.asarray([1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0])

    order = spread(vectors, doubts, 3)

    assert order[:3] == [4, 7, 1]
    assert sorted(order) == list(range(9))


def test_entities_are_shared_only_where_no_others_are_left():
    found = [
        tagged("Anna lebt heute in Kiel", ("PER", 0, 1), ("LOC", 4, 5)),
        tagged("Gestern kam anna zu spät", ("PER", 2, 3)),
        tagged("Boris fuhr 1999 nach Ulm", ("PER", 0, 1), ("LOC", 4, 5)),
        tagged("Ulm liegt an der Donau", ("LOC", 0, 1)),
        tagged("Es regnet"),
    ]

    assert new_entities_first(found, 2) == [found[0], found[2]]
    assert new_entities_first(found, 9) == [found[0], found[2], found[4], found[1], found[3]]


def are_alike(one, other):
    one, other = ({word.casefold() for word in record.words} for record in (one, other))
    return len(one & other) >= ALIKE * len(one | other)


def test_sentences_that_are_nearly_alike_take_no_places_of_others(tagger):
    letters = "abcdefghijklmnopqrstuvwxyz"
    repeats = [f"Am Montag spielt die Mannschaft aus {one}{one} in Kiel gegen Ulm" for one in letters]
    others = [" ".join(f"{one}{other}" for other in letters[:8]) for one in letters]

    found = most_doubtful(tagger, records([*repeats, *others]), len(others) + 1)
    repeated = [one for one in found if one.record.record.text in repeats]

    assert len(found) == len(others) + 1
    assert len(repeated) == 1
    doubts = [most_doubtful(tagger, records([text]), 1)[0].doubt for text in repeats]
    assert repeated[0].doubt == pytest.approx(max(doubts))
    assert len(select_sentences(tagger, records([*repeats, *others]), 10)) == 10


@pytest.mark.parametrize("n", [1, 5, 12, 40])
def test_the_most_doubtful_ones_differ_and_are_as_many_as_there_are(tagger, n):
    words = np.random.default_rng(0).choice([*TOWNS, *YEARS], size=(60, 5))

    found = most_doubtful(tagger, records([" ".join(row) for row in words]), n)

    assert not any(are_alike(one.record, other.record) for one, other in combinations(found, 2))
    doubts = [one.doubt for one in found]
    assert doubts == sorted(doubts, reverse=True)
    assert len(found) == n


def test_selected_sentences_differ_and_hold_what_the_tagger_finds(tagger):
    texts = [TEXTS[0].upper(), *TEXTS, *TEXTS]

    found = select_sentences(tagger, records(texts), 6)

    assert len(found) == 6
    assert not any(are_alike(one, other) for one, other in combinations(found, 2))
    for record in found:
        assert [entity["text"] for entity in record.entities()] == [one.text for one in tagger.tag(record.record.text)]
    assert texts_of(select_sentences(tagger, records(texts), 6)) == texts_of(found)


def test_sentences_that_are_done_are_not_selected_again(tagger):
    done = [tagger.words(text.upper()) for text in TEXTS[:20]]

    found = select_sentences(tagger, records(TEXTS), 50, done)

    assert found
    assert set(texts_of(found)) <= set(TEXTS[20:])
    with pytest.raises(CorpusError, match="no sentence to select: the text is empty, or all of it is done"):
        select_sentences(tagger, records(TEXTS), 5, [tagger.words(text) for text in TEXTS])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Am 3. Mai in Kiel!", "am 14. mai in kiel", True),
        ("Ich \u2764\ufe0f Kiel", "Ich \u2764 Kiel", True),
        ("\u0930\u093e\u092e", "\u0930\u092e", False),  # Hindi: Ram, and rum, without a vowel
        ("\u0e44\u0e01\u0e25\u0e49", "\u0e44\u0e01\u0e25", False),  # Thai: near, and far
    ],
    ids=["case", "emoji", "hindi", "thai"],
)
def test_sentences_are_one_that_differ_by_case_signs_and_numbers_alone(one, other, same):
    keys = [sentence_key(unicode_words_of(text)) for text in (one, other)]

    assert (keys[0] == keys[1]) == same


def unicode_words_of(text):
    return [text[start:end] for start, end in unicode_words(text)]


LABEL_STUDIO = [
    {"data": {"text": "Kiel"}, "annotations": [{"result": [], "was_cancelled": False}]},
    {"data": {"text": "Ulm"}, "annotations": [{"result": [], "was_cancelled": True}]},
    {"data": {"text": "Wien"}, "annotations": [], "predictions": [{"result": []}]},
]
PRODIGY = [{"text": text, "answer": said} for text, said in zip(TOWNS, ("accept", "reject", "ignore"), strict=False)]


@pytest.mark.parametrize(
    ("exported", "done"),
    [
        (LABEL_STUDIO, ["Kiel", "Ulm"]),
        (LABEL_STUDIO[2:], ["Wien"]),
        ([*PRODIGY, {"text": "Graz", "spans": None}], ["Kiel", "Ulm", "Wien"]),
        (PRODIGY[1:2], ["Ulm"]),
        ([{"text": "Kiel", "annotation_id": 1}, {"text": "Ulm"}], ["Kiel"]),
        ([{"text": "Kiel", "label": []}, {"text": "Ulm", "label": [[0, 3, "LOC"]]}, {"text": "Bonn"}], ["Kiel", "Ulm"]),
        ([{"types": ["LOC"]}, {"text": "Kiel", "entities": []}], ["Kiel"]),
        ([{"text": "Kiel"}, {"text": "Ulm"}], ["Kiel", "Ulm"]),
    ],
    ids=["label studio", "no annotation", "prodigy", "rejected", "json-min", "spans", "annotations", "text"],
)
@pytest.mark.parametrize("is_array", [False, True])
def test_what_somebody_saw_is_done_and_of_a_file_without_labels_all(tmp_path, exported, done, is_array):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(exported) if is_array else "\n".join(map(json.dumps, exported)), encoding="utf-8")

    assert [" ".join(words) for words in done_sentences(str(path))] == done


def test_done_files_are_of_utf_8_or_else_of_the_encoding_of_the_text(tmp_path):
    for encoding in ("utf-8", "latin-1"):
        path = tmp_path / f"{encoding}.conll"
        path.write_text("Köln B-LOC\n", encoding=encoding)
        assert done_sentences(str(path), "latin-1") == [("Köln",)]

    (tmp_path / "empty.jsonl").touch()
    for path, message in ((tmp_path / "latin-1.conll", "not utf-8"), (tmp_path / "empty.jsonl", "no sentence in it")):
        with pytest.raises(CorpusError, match=message):
            done_sentences(str(path))


@pytest.fixture(scope="module")
def found(tagger):
    """Sentences of texts, and one of words alone."""
    of_words = Record(9, "", None, ("Anna", "lebt", "in", "Kiel", "."), None, {})
    return select_sentences(tagger, [*records(["\U0001f600 " + text for text in SENTENCES]), of_words], 9)


def expected(found):
    return [(record.words, record.tags) for record in found]


def written(tmp_path, found, tool, name):
    path = tmp_path / name
    path.write_text(as_text(found, tool, ("LOC", "ORG", "PER"), "de"), encoding="utf-8")
    return path


@pytest.mark.parametrize("tool", ["xlner", "prodigy", "doccano"])
def test_what_a_tool_imports_is_read_back_as_it_was_found(tmp_path, found, tool):
    path = written(tmp_path, found, tool, "import.jsonl")

    back = [(sentence.words, sentence.tags) for sentence in read_corpus(path, split_text=unicode_words)]

    assert back == expected(found)
    assert any(tag != "O" for _, tags in back for tag in tags)


def test_what_label_studio_exports_is_read_back_and_a_prediction_is_no_annotation(tmp_path, found):
    path = written(tmp_path, found, "labelstudio", "import.json")
    tasks = json.loads(path.read_text(encoding="utf-8"))

    unread = list(read_corpus(path, split_text=unicode_words))
    for number, task in enumerate(tasks):
        task |= {"id": number, "annotations": [{"result": task["predictions"][0]["result"], "was_cancelled": False}]}
    (tmp_path / "export.json").write_text(json.dumps(tasks))

    assert all(sentence.tags is None for sentence in unread)
    back = [(one.words, one.tags) for one in read_corpus(tmp_path / "export.json", split_text=unicode_words)]
    assert back == expected(found)


def test_the_default_output_is_an_annotation_file(tmp_path, found):
    annotations = read_annotations(written(tmp_path, found, "xlner", "notes.jsonl"))

    assert annotations.types == ("LOC", "ORG", "PER")
    for record in found:
        assert len(annotations.of(record.words).spans) == len(record.spans)


def test_the_command_writes_a_file_or_the_standard_output(select, tmp_path):
    (tmp_path / "raw.txt").write_text("\n".join([*TEXTS, "", *TEXTS]), encoding="utf-8")

    status, out, _ = select(tmp_path / "raw.txt", "--n", 3, "--to", "doccano")
    again = select(tmp_path / "raw.txt", "--n", 3, "--to", "doccano", "--out", tmp_path / "out.jsonl")

    assert (status, len(out.splitlines())) == (0, 3)
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == out
    assert again[0] == 0
    assert again[2].startswith(f"{tmp_path / 'out.jsonl'}: 3 sentences with ")


def test_what_is_selected_from_is_not_written_over(select, tmp_path):
    (tmp_path / "raw.txt").write_text("\n".join(TEXTS), encoding="utf-8")

    for options in (["--out", tmp_path / "raw.txt"], ["--done", tmp_path / "d.txt", "--out", tmp_path / "d.txt"]):
        (tmp_path / "d.txt").write_text("Kiel\n", encoding="utf-8")
        status, _, told = select(tmp_path / "raw.txt", *options)
        assert (status, "this is the input" in told) == (2, True)

    assert (tmp_path / "raw.txt").read_text(encoding="utf-8") == "\n".join(TEXTS)


def test_fewer_sentences_than_asked_for_are_told_and_done_ones_left_out(select, tmp_path):
    (tmp_path / "raw.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (tmp_path / "done.txt").write_text("\n".join(TEXTS[1:]), encoding="utf-8")

    status, out, told = select(tmp_path / "raw.txt", "--n", 1000, "--done", tmp_path / "done.txt")

    assert (status, [json.loads(line)["text"] for line in out.splitlines()]) == (0, TEXTS[:1])
    assert "1 sentences with " in told
    assert told.rstrip().endswith("to correct; the text has no more that differ (--n 1000)")


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"", [], "no sentence to select: the text is empty, or all of it is done"),
        (b" \n\n", [], "no sentence to select"),
        ("Köln\n".encode("latin-1"), [], "byte 0xf6 is not utf-8; is it latin-1? then give --encoding latin-1"),
        (b"Kiel", ["--to", "brat"], "brat"),
        (b"Kiel", ["--n", "0"], "--n"),
        (b"Kiel", ["--done", "nowhere.conll"], "nowhere.conll"),
    ],
    ids=["empty", "blank", "encoding", "tool", "number", "done"],
)
def test_what_cannot_be_selected_from_is_refused(select, tmp_path, content, arguments, message):
    (tmp_path / "raw.txt").write_bytes(content)

    status, out, told = select(tmp_path / "raw.txt", *arguments)

    assert (status, out) == (2, "")
    assert message in told


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--out", None, "is a folder; expected a file there, or nothing"),
        ("--done", "Köln\n".encode("latin-1"), "byte 0xf6 at offset 1 is not utf-8"),
        ("--done", b"", "no sentence in it"),
    ],
    ids=["out", "encoding", "empty"],
)
def test_a_wrong_path_is_told_before_the_model_is_opened(select, tmp_path, option, content, message):
    (tmp_path / "raw.txt").write_text("Kiel", encoding="utf-8")
    (tmp_path / "other.txt").mkdir() if content is None else (tmp_path / "other.txt").write_bytes(content)

    status, out, told = select(tmp_path / "raw.txt", option, tmp_path / "other.txt", model=str(tmp_path / "no-model"))

    assert (status, out) == (2, "")
    assert message in told


def test_nothing_is_left_of_an_output_where_nothing_is_selected(select, tmp_path):
    (tmp_path / "raw.txt").write_text("Kiel", encoding="utf-8")
    (tmp_path / "out.jsonl").write_text("before", encoding="utf-8")

    status, _, told = select(tmp_path / "raw.txt", "--done", tmp_path / "raw.txt", "--out", tmp_path / "out.jsonl")

    assert (status, "no sentence to select" in told) == (2, True)
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"raw.txt", "out.jsonl"}


def test_a_model_without_hidden_states_is_refused(select, tmp_path):
    make_student(tmp_path / "model", "linear")
    (tmp_path / "raw.txt").write_text("Kiel", encoding="utf-8")

    status, _, told = select(tmp_path / "raw.txt", model=str(tmp_path / "model"))

    assert status == 2
    assert "has no hidden states to compare sentences by; give the folder of the transformer" in told


def test_text_of_another_encoding_is_read_by_it(select, tmp_path):
    (tmp_path / "raw.txt").write_bytes("Köln liegt am Rhein\n".encode("latin-1"))

    status, out, _ = select(tmp_path / "raw.txt", "--encoding", "latin-1")

    assert (status, json.loads(out)["text"]) == (0, "Köln liegt am Rhein")
