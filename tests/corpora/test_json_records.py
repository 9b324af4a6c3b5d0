import json
import time

import pytest
from corpus_samples import KIEL, RAIN

from xlner.corpora.source import read_located
from xlner.corpora.spans import ReadingOptions
from xlner.errors import CorpusError
from xlner.words import Sentence, unicode_words

TEXT = "Angela Merkel in Kiel."


def jsonl(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("words", ["words", "tokens"])
@pytest.mark.parametrize("tags", ["tags", "ner_tags", "labels", "ner", "label", "NER-Tags", "iob2"])
def test_words_and_tags_are_read_under_their_usual_names(read, words, tags):
    content = jsonl({words: KIEL.words, tags: KIEL.tags, "id": 7}, {words: RAIN.words, tags: RAIN.tags})

    assert read(content, "x.jsonl") == [KIEL, RAIN]


def test_words_without_tags_stay_without(read):
    content = jsonl({"words": KIEL.words}, {"words": RAIN.words, "tags": None}, {"words": ["x"], "tags": [None]})

    assert read(content, "x.jsonl") == [Sentence(KIEL.words), Sentence(RAIN.words), Sentence(("x",))]


@pytest.mark.parametrize(
    "spans",
    [
        {"spans": [{"start": 0, "end": 13, "label": "PER"}, {"start": 17, "end": 21, "label": "LOC"}]},
        {"entities": [[17, 21, "LOC"], [0, 13, "PER"]]},
        {"label": [[0, 13, "PER"], [17, 21, "LOC"]]},
        {"spans": [{"start": 0, "end": 14, "label": "PER"}, {"start": 16, "end": 21, "label": "LOC"}]},
    ],
    ids=["Prodigy", "spaCy", "doccano", "white space at the ends"],
)
def test_spans_of_a_text_become_tags_of_its_words(read, spans):
    sentences = read(jsonl({"text": TEXT, **spans}), "x.jsonl", split_text=unicode_words)

    assert sentences == [Sentence((*KIEL.words, "."), (*KIEL.tags, "O"))]


def test_the_tokens_of_a_record_are_its_words(read):
    tokens = [{"start": 0, "end": 13}, {"start": 14, "end": 22}]

    assert read(jsonl({"text": TEXT, "tokens": tokens, "spans": []}), "x.jsonl") == [
        Sentence(("Angela Merkel", "in Kiel."), ("O", "O"))
    ]


def test_text_alone_has_no_labels_and_an_empty_list_of_spans_means_none_there(read):
    assert read(jsonl({"text": "es regnet"}, {"text": "es regnet", "spans": []}), "x.jsonl") == [
        Sentence(("es", "regnet")),
        Sentence(("es", "regnet"), ("O", "O")),
    ]


def test_what_an_annotator_rejected_is_passed_over(read):
    content = jsonl(*({"text": f"{answer} it", "answer": answer} for answer in ("accept", "reject", "ignore")))

    assert [sentence.words for sentence in read(content, "x.jsonl")] == [("accept", "it")]


@pytest.mark.parametrize("options", [{}, {"scheme": "ignore"}, {"columns": "words"}])
def test_words_that_an_annotator_rejected_are_passed_over_however_they_are_read(read, options):
    content = jsonl(*({"words": [answer], "answer": answer} for answer in ("accept", "reject", "ignore")))

    assert [sentence.words for sentence in read(content, "x.jsonl", **options)] == [("accept",)]


def test_offsets_count_characters_and_not_bytes(read):
    sentence = read(jsonl({"text": "Ö😀 Köln", "spans": [[3, 7, "LOC"]]}), "x.jsonl")[0]

    assert sentence == Sentence(("Ö😀", "Köln"), ("O", "B-LOC"))


@pytest.mark.parametrize(
    ("record", "code", "message"),
    [
        ("{", "XL020", "no JSON"),
        ("[1]", "XL020", "expected a JSON object"),
        ("[" * 100_000, "XL020", "no JSON"),
        ('{"id": 1}', "XL021", "expected the fields words and tags, or text and spans; found id"),
        ('{"words": "Kiel", "tags": ["O"]}', "XL021", "expected a list of words"),
        ('{"words": ["Kiel"], "tags": [3]}', "XL021", "expected a list of tags, as words such as B-PER"),
        ('{"words": ["Kiel", ""], "tags": ["O", "O"]}', "XL011", "word 1 is empty"),
        ('{"words": ["Kiel"], "tags": ["O", "O"]}', "XL016", "1 words, but 2 tags"),
        ('{"words": ["Kiel"], "tags": ["LOK"]}', "XL012", "found tag 'LOK'"),
        ('{"words": ["Kiel"], "tags": ["B_LOC"]}', "XL012", "word 1: found tag 'B_LOC'.*did you mean B-LOC"),
        ('{"text": "Kiel", "spans": [[0, 9, "LOC"]]}', "XL022", "none of a text of 4 characters"),
        ('{"text": "a  b", "spans": [[1, 3, "LOC"]]}', "XL022", "holds no word"),
        ('{"text": "Kiel", "spans": [[0, 4, ""]]}', "XL022", "of type ''"),
        ('{"text": "in Kiel", "spans": [[2, 6, "LOC"]]}', "XL024", "' Kie'.*inside a word; words there: 'Kiel'"),
        ('{"text": "a b c", "spans": [[0, 3, "X"], [2, 5, "Y"]]}', "XL023", "another one.*check-data --fix` keeps"),
        ('{"text": "Kiel", "spans": [{"start": 0, "end": 4, "text": "Kiel"}]}', "XL021", "0 to 4 'Kiel' has no label"),
        ('{"text": "Kiel", "spans": [[0, 4, ["A", "B"]]]}', "XL021", "0 to 4 '' has the labels A, B, of which tags"),
        ('{"text": "Kiel", "spans": [[0, 4, []]]}', "XL021", "0 to 4 '' has no label"),
        ('{"text": "Kiel", "spans": [{"start": 0, "label": "LOC"}]}', "XL021", "expected spans as"),
        ('{"text": "ab", "tokens": [{"start": 1, "end": 2}, {"start": 0, "end": 1}]}', "XL021", "does not follow"),
        ('{"text": "ab", "tokens": [{"start": 1, "end": 3}]}', "XL021", "behind the text of 2 characters"),
        ('{"text": "ab", "tokens": [{"start": 1e999, "end": 2}]}', "XL021", "expected spans as"),
        ('{"text": "ab", "spans": [[0, 1e999, "LOC"]]}', "XL021", "expected spans as"),
        ('{"text": "Kiel", "spans": [{"start": 0, "end": 4, "label": null}]}', "XL021", "expected spans as"),
        ('{"text": "Kiel", "spans": [[0, 4, {"a": 1}]]}', "XL021", "expected spans as"),
        ('{"text": "Kiel", "spans": [[0, 3.9, "LOC"]]}', "XL021", "expected spans as"),
        ('{"text": "Kiel", "spans": [[false, 4, "LOC"]]}', "XL021", "expected spans as"),
        ('{"words": ["\\ud800"]}', "XL026", "half a surrogate pair"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_line_and_code(read, record, code, message):
    content = '{"words": ["Regen"], "tags": ["O"]}\n\n' + record + "\n"

    with pytest.raises(CorpusError, match=rf"(?s)x\.jsonl:3.*{message}.*\[{code}\]"):
        read(content, "x.jsonl")


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"text": "in Kiel", "spans": [[2, 6, "LOC"]]}, Sentence(("in", "Kiel"), ("O", "B-LOC"))),
        (
            {"text": "a b c", "spans": [[0, 1, "X"], [0, 5, "Y"], [4, 5, "Z"]]},
            Sentence(("a", "b", "c"), ("B-Y", "I-Y", "I-Y")),
        ),
        ({"words": ["a\ud800"]}, Sentence(("a\ufffd",))),
        ({"words": ["Kiel", "x"], "tags": ["b_LOC", "O"]}, Sentence(("Kiel", "x"), ("B-LOC", "O"))),
    ],
)
def test_a_report_that_returns_gets_the_repair_that_it_was_told(tmp_path, record, sentence):
    (tmp_path / "x.jsonl").write_text(jsonl(record))
    problems = []

    found = list(read_located(tmp_path / "x.jsonl", "auto", ReadingOptions(report=problems.append)))

    assert [place.sentence for place in found] == [sentence]
    assert problems
    assert not any(problem.repair == "the sentence is left out" for problem in problems)


def test_one_broken_record_costs_one_sentence(tmp_path):
    (tmp_path / "x.jsonl").write_text(jsonl({"words": RAIN.words}) + "broken\n" + jsonl({"words": KIEL.words}))
    problems = []

    found = list(read_located(tmp_path / "x.jsonl", "auto", ReadingOptions(report=problems.append)))

    assert [place.sentence.words for place in found] == [RAIN.words, KIEL.words]
    assert [problem.code for problem in problems] == ["XL020"]


SPANS = [(0, 13, "PER"), (17, 21, "LOC")]
WORD_SPANS = [(0, 2, "PER"), (3, 4, "LOC")]
WHOLE = Sentence((*KIEL.words, "."), (*KIEL.tags, "O"))


def value(start, end, label):
    return {"start": start, "end": end, "text": TEXT[start:end], "labels": [label]}


LABEL_STUDIO = {
    "id": 1,
    "data": {"text": TEXT},
    "annotations": [
        {"result": [{"type": "choices", "from_name": "c", "value": {"choices": ["x"]}}], "was_cancelled": True},
        {
            "result": [
                *({"type": "labels", "from_name": "label", "value": value(*span)} for span in SPANS),
                {"type": "relation", "from_id": "a", "to_id": "b"},
                {"type": "choices", "from_name": "c", "value": {"choices": ["x"]}},
            ]
        },
    ],
}
DOCCANO = {
    "id": 1,
    "text": TEXT,
    "entities": [
        {"id": n, "label": label, "start_offset": a, "end_offset": b} for n, (a, b, label) in enumerate(SPANS)
    ],
    "relations": [{"id": 0, "from_id": 0, "to_id": 1, "type": "x"}],
}


@pytest.mark.parametrize(
    "record",
    [
        LABEL_STUDIO,
        {**LABEL_STUDIO, "data": {"my_text": TEXT}},
        {"id": 1, "text": TEXT, "label": [value(*span) for span in SPANS], "annotator": 1},
        DOCCANO,
        {"id": 1, "data": TEXT, "label": [list(span) for span in SPANS]},
        [TEXT, {"entities": SPANS}],
        {"text": TEXT, "ents": [{"start": a, "end": b, "label": label} for a, b, label in SPANS]},
        {"text": TEXT, "words": WHOLE.words, "tags": WHOLE.tags},
        {"text": TEXT, "tokens": WHOLE.words, "entities": SPANS},
        {"tokens": WHOLE.words, "entities": [{"start": a, "end": b, "type": c} for a, b, c in WORD_SPANS]},
        {"tokenized_text": WHOLE.words, "ner": [[0, 1, "PER"], [3, 3, "LOC"]]},
        {"tokens": [{"text": word, "ner": tag} for word, tag in zip(*WHOLE, strict=True)]},
        {"text": " ".join(WHOLE.words), "labels": WHOLE.tags},
    ],
    ids=["Label Studio", "other name", "JSON-MIN", "doccano", "old doccano", "spaCy 2", "displaCy", "text and words",
         "spans beside words", "spans of words", "GLiNER", "objects", "tags of a text"],
)  # fmt: skip
def test_records_of_the_usual_tools_are_read(read, record):
    expected = [WHOLE, WHOLE]

    assert read(jsonl(record, record), "x.jsonl", split_text=unicode_words) == expected
    assert read(json.dumps([record, record]), "x.json", split_text=unicode_words) == expected
    assert read(json.dumps([record, record], indent=1), "x.jsonl", split_text=unicode_words) == expected
    assert read(json.dumps({"data": [record, record]}), "x.json", split_text=unicode_words) == expected
    assert read(jsonl(record), "x.jsonl", split_text=unicode_words, scheme="ignore")[0].tags is None


def test_what_nobody_has_annotated_has_no_labels(read):
    task = {"id": 1, "data": {"text": "Kiel"}}
    done = {**task, "annotations": [{"result": []}]}

    assert read(json.dumps([task, {**task, "annotations": []}, done]), "x.json") == [
        Sentence(("Kiel",)),
        Sentence(("Kiel",)),
        Sentence(("Kiel",), ("O",)),
    ]


@pytest.mark.parametrize(
    ("record", "tags"),
    [
        ({"answer": "accept", "_view_id": "ner_manual"}, ("O",)),
        ({"answer": "accept", "_view_id": "spans_manual"}, ("O",)),
        ({"answer": "accept", "_view_id": "blocks", "tokens": [{"start": 0, "end": 4}]}, ("O",)),
        ({"answer": "accept", "_view_id": "classification"}, None),
        ({"id": 1, "annotator": 1, "annotation_id": 3, "created_at": "x", "updated_at": "x", "lead_time": 2.5}, ("O",)),
        ({"id": 1, "annotator": 1, "annotation_id": 3, "mood": "good"}, None),
        ({"id": 1}, None),
    ],
    ids=["Prodigy", "Prodigy's spans", "Prodigy's blocks", "classes", "JSON-MIN", "JSON-MIN of classes", "nobody"],
)
def test_what_an_annotator_left_unmarked_has_no_entity(read, record, tags):
    assert read(jsonl({"text": "Kiel", **record}), "x.jsonl") == [Sentence(("Kiel",), tags)]


def marked(start, end, text, label="LOC"):
    return {"start": start, "end": end, "text": text, "label": label}


@pytest.mark.parametrize(
    "record",
    [
        {"text": "Anna in Kiel", "spans": [marked(0, 4, "Kiel")]},
        {"id": 1, "text": "Anna in Kiel", "label": [{"start": 0, "end": 4, "text": "Kiel", "labels": ["LOC"]}]},
        {"data": {"text": "Anna in Kiel"}, "annotations": [{"result": [
            {"type": "labels", "from_name": "x", "value": {"start": 0, "end": 4, "text": "Kiel", "labels": ["LOC"]}}
        ]}]},
        {"text": "Anna in Kiel", "tokens": ["Anna", "in", "Kiel"], "spans": [marked(0, 4, "Kiel")]},
        {"tokens": ["Anna", "in", "Kiel"], "spans": [marked(0, 1, "Kiel")]},
    ],
    ids=["spans", "JSON-MIN", "Label Studio", "beside words", "of words"],
)  # fmt: skip
def test_offsets_that_hold_another_text_than_is_marked_are_refused(read, tmp_path, record):
    with pytest.raises(CorpusError, match=r"'LOC' holds 'Anna', and says that it is 'Kiel'.*bytes or UTF-16.*XL025"):
        read(jsonl(record), "x.jsonl")

    problems = []
    found = list(read_located(tmp_path / "x.jsonl", "auto", ReadingOptions(report=problems.append)))
    assert [one.sentence.tags for one in found] == [("O", "O", "O")]
    assert [problem.repair for problem in problems] == ["the span is left out"]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("St.  Pauli", marked(0, 10, "St. Pauli")),
        ("St.\nPauli", marked(0, 9, "St.\\nPauli")),
        ("Caf\u00e9 Vila", marked(0, 9, "Cafe\u0301 Vila")),
        ("Cafe\u0301 Vila", marked(0, 10, "Caf\u00e9 Vila")),
        ("St. Pauli", marked(0, 9, "")),
        ("St. Pauli", marked(0, 9, None)),
    ],
)
def test_white_space_and_normal_forms_of_what_is_marked_do_not_matter(read, text, span):
    assert read(jsonl({"text": text, "spans": [span]}), "x.jsonl", split_text=unicode_words)[0].tags[0] == "B-LOC"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"id": 1, "annotation_id": 7}, {"id": 1, "annotation_id": 8}),
        ({"_input_hash": 5, "_session_id": "x-anna"}, {"_input_hash": 5, "_session_id": "x-ben"}),
        ({"_input_hash": 5, "_annotator_id": "anna"}, {"_input_hash": 5, "_annotator_id": "ben"}),
    ],
    ids=["JSON-MIN", "Prodigy's sessions", "Prodigy's annotators"],
)
def test_of_several_annotators_of_a_task_the_first_is_believed(read, first, second):
    other = {"text": "Bonn", **dict.fromkeys(first, 9), "label": [[0, 4, "LOC"]]}
    records = [{"text": "Kiel", **first, "label": [[0, 4, "LOC"]]}, other, {"text": "Kiel", **second, "label": []}]

    assert read(jsonl(*records), "x.jsonl") == [Sentence(("Kiel",), ("B-LOC",)), Sentence(("Bonn",), ("B-LOC",))]
    assert len(read(jsonl(*records), "x.jsonl", scheme="ignore")) == 2
    # What the first one rejected is left to the second.
    if "_input_hash" in first:
        assert [one.tags for one in read(jsonl(records[0] | {"answer": "reject"}, records[2]), "x.jsonl")] == [("O",)]


def test_the_same_number_of_a_task_in_another_project_is_another_task(read):
    records = [{"id": 1, "annotation_id": number, "text": text} for number, text in enumerate(["Kiel", "Bonn"])]

    assert [one.words for one in read(jsonl(*records), "x.jsonl")] == [("Kiel",), ("Bonn",)]


@pytest.mark.parametrize("begin", ["[", "[\n", '{"data": [', '{"data":\n[', '{"data": [\n'])
@pytest.mark.parametrize("between", [",\n", ",\n\n  ", "\n,"])
@pytest.mark.parametrize("end", ["]", "]\n", "\n]"])
def test_an_array_with_a_record_a_line_is_read(read, begin, between, end):
    if between == "\n," and begin == '{"data": [':
        between = ",\n"  # its first line could be a broken record
    content = begin + between.join(json.dumps({"text": text, "label": []}) for text in ("Kiel", "Bonn")) + end

    assert len(read(content + ("}" if begin[0] == "{" else ""), "x.json")) == 2


def test_a_broken_first_record_is_told_as_one_line(read):
    for broken in ('{"words": ["a"]', '{"words": x,', '[{"words": ["a"]}, x,'):
        with pytest.raises(CorpusError, match=r"x\.jsonl:1: no JSON .*words"):
            read(broken + "\n" + jsonl({"words": ["Kiel"]}), "x.jsonl")


def test_offsets_in_units_of_javascript_are_told_by_what_is_marked(read):
    marked = {"start": 3, "end": 7, "text": "Kiel", "labels": ["LOC"]}

    assert read(jsonl({"text": "\U0001f600 Kiel", "label": [marked]}), "x.jsonl") == [
        Sentence(("\U0001f600", "Kiel"), ("O", "B-LOC"))
    ]
    with pytest.raises(CorpusError, match="the span 3 to 7 of type 'LOC' is none of a text of 6 characters"):
        read(jsonl({"text": "\U0001f600 Kiel", "label": [{**marked, "text": "Bonn"}]}), "x.jsonl")


@pytest.mark.parametrize(
    ("record", "named", "columns"),
    [
        ({"words": ["Kiel"], "mine": ["B-LOC"]}, "'mine' looks like tags", "words,mine"),
        ({"text": "Kiel", "mine": [[0, 4, "LOC"]]}, "'mine' looks like spans", "text,mine"),
        ({"words": ["Kiel"], "mine": [{"start": 0, "end": 1, "type": "LOC"}]}, "'mine' looks like spans", "words,mine"),
    ],
)
def test_labels_under_a_name_that_says_nothing_are_named_and_not_lost(read, record, named, columns):
    with pytest.raises(CorpusError, match=rf"{named}.*corpus\.columns={columns}"):
        read(jsonl(record), "x.jsonl")

    assert read(jsonl(record), "x.jsonl", columns=columns) == [Sentence(("Kiel",), ("B-LOC",))]
    assert read(jsonl(record), "x.jsonl", columns=columns.partition(",")[0]) == [Sentence(("Kiel",))]


def test_tags_of_another_task_beside_known_ones_are_passed_over(read):
    record = {"tokens": KIEL.words, "pos_tags": [1] * 4, "chunk_tags": ["B-NP"] * 4, "ner_tags": KIEL.tags}

    assert read(jsonl(record), "x.jsonl") == [KIEL]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["Kiel"], "ner_tags": "B-LOC"}, "expected a list of tags"),
        ({"tokens": ["Kiel"], "ner_tags": [1.5]}, "expected a list of tags"),
        ({"text": "Kiel", "entities": {"LOC": [[0, 4]]}}, "expected spans as"),
        (
            {"tokens": ["Kiel"], "entities": [{"start": 0, "end": 0, "type": "LOC"}]},
            "none of 1 words; expected the end",
        ),
        ({"text": "in Kiel", "tokens": ["Bonn"], "spans": [[0, 4, "LOC"]]}, "the words are not those of the text"),
    ],
)
def test_labels_of_another_form_are_refused_and_not_lost(read, record, message):
    with pytest.raises(CorpusError, match=message):
        read(jsonl(record), "x.jsonl")


def test_numbers_of_tags_are_read_by_their_names(read):
    names = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    record = {"tokens": KIEL.words, "ner_tags": [names.index(tag) for tag in KIEL.tags]}

    with pytest.raises(CorpusError, match=r"corpus\.labels=O,B-TYPE,I-TYPE"):
        read(jsonl(record), "x.jsonl")
    assert read(jsonl(record), "x.jsonl", labels=",".join(names)) == [KIEL]


def test_a_text_with_many_spans_is_read_in_time(read):
    n = 20_000
    record = {"text": "ab " * n, "spans": [[3 * k, 3 * k + 2, "X"] for k in range(n)] + [[0, 5, "X"]]}

    start = time.process_time()
    with pytest.raises(CorpusError, match="overlaps"):
        read(jsonl(record), "x.jsonl")

    assert time.process_time() - start < 5
