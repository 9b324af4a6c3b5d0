"""Tables of words and texts, as spreadsheets and annotation tools write them: CSV, headers, numbers of sentences."""

import pytest
from corpus_samples import KIEL, RAIN

from xlner.errors import CorpusError
from xlner.words import Sentence, unicode_words

ROWS = [
    (number, word, tag)
    for number, (words, tags) in enumerate([KIEL, RAIN])
    for word, tag in zip(words, tags, strict=True)
]


WORDS = [row[1:] for row in ROWS]
COUNTED = [(7, number, place, word, tag) for place, (number, word, tag) in enumerate(ROWS)]


def table(rows, delimiter="\t", end="\n"):
    return "".join(delimiter.join(map(str, row)) + end for row in rows)


SPARSE = [("Sentence #", "Word", "POS", "Tag")] + [
    (f"Sentence: {number}" if number * 4 == place else "", word, "NN", tag)
    for place, (number, word, tag) in enumerate(ROWS)
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tsv", table(ROWS)),
        ("x.conll", table(ROWS, " ")),
        ("x.tsv", table([("sentence_id", "word", "tag"), *ROWS])),
        ("x.tsv", table([(0, *row) for row in ROWS])),
        ("x.tsv", table([("doc", "sent", "idx", "token", "ner"), *COUNTED])),
        ("x.tsv", table(SPARSE)),
        ("x.tsv", table(SPARSE[1:])),
        ("x.csv", table(SPARSE, ",", "\r\n")),
        ("x.csv", table([("Satz", "Wort", "Label"), *ROWS], ";")),
        ("x.csv", table([(f"s{n}", w, t) for n, w, t in ROWS], "|")),
        ("x.csv", "word,tag\n" + table(WORDS[:4], ",") + ",\n" + table(WORDS[4:], ",")),
        ("x.conll", "word\ttag\n" + table(WORDS[:4]) + "\n" + table(WORDS[4:])),
        ("x.tsv", table([(p if n == 0 else 0, w, t) for p, (n, w, t) in enumerate(ROWS)])),
    ],
    ids=["ids", "spaces", "header", "two ids", "names", "sparse", "sparse, no header", "Kaggle", "Excel", "bars",
         "blank rows", "header of columns", "numbers of words alone"],
)  # fmt: skip
def test_rows_become_sentences_by_their_numbers(read, name, content):
    assert read(content, name) == [KIEL, RAIN]
    assert read(content, name, scheme="ignore") == [Sentence(KIEL.words), Sentence(RAIN.words)]


def test_cells_in_quotation_marks_hold_delimiters_and_quotation_marks(read):
    content = 'sentence,word,tag\n1,"a,b",O\n1,"""",O\n2,",",O\n'

    assert read(content, "x.csv") == [Sentence(("a,b", '"'), ("O", "O")), Sentence((",",), ("O",))]


def test_texts_of_a_table_are_unlabelled_sentences(read):
    content = 'id,text\n1,Anna lebt.\n2,"In Kiel, heute"\n'

    assert [sentence.words for sentence in read(content, "x.csv", split_text=unicode_words)] == [
        ("Anna", "lebt", "."),
        ("In", "Kiel", ",", "heute"),
    ]
    assert read("text\nAnna lebt, hier\n", "x.csv") == [Sentence(("Anna", "lebt,", "hier"))]


@pytest.mark.parametrize("cell", ["B-PER O", "['B-PER', 'O']", "B-PER,O"])
def test_tags_beside_a_text_belong_to_its_words(read, cell):
    assert read(f'id;text;labels\n1;Anna lebt;"{cell}"\n', "x.csv") == [Sentence(("Anna", "lebt"), ("B-PER", "O"))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a,b\n1,2\n", "no column tells that it holds words or texts; its first row is 'a | b'"),
        ("x.csv", "word,tag\nAnna,B-PER\nKiel\n", r":3: expected 2 columns \(word, tag\), found 1: 'Kiel'"),
        ("x.csv", 'word,tag\n"Anna,B-PER\nKiel,O\n', r":2: no CSV .*is a quotation mark not closed"),
        ("x.csv", "word,tag\nAnna,B-PER\n,O\n", ":3: empty word"),
        ("x.csv", "word,mine\nAnna,B-PER\nlebt,O\n", r"'mine' looks like tags.*corpus\.columns=word,mine"),
        ("x.csv", "text,tags\nAnna lebt,B-PER\n", ":2: 2 words between spaces, but 1 tags"),
        ("x.tsv", 'sentence_id\tword\ttag\n1\tAnna\tO\n1\t"\t"\tO\n', ":3: expected 3 columns .*found 4.*as CSV"),
        ("x.csv", "sentence,word,tag\n1,Anna,PER\n", r":2: found tag 'PER'.*corpus\.scheme=plain"),
        ("x.tsv", "1\tAnna\tO\n2-3\tim\tB-LOC\n2\tin\tO\n1\tx\tO\n2\ty\tO\n", ":2: the tag B-LOC stands at 2-3"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_with_its_line(read, name, content, message):
    with pytest.raises(CorpusError, match=message):
        read(content, name)


def test_columns_of_a_table_are_asked_for_by_name_or_number(read):
    content = "nr,mine,gold,other\n0,Anna,B-PER,O\n0,lebt,O,O\n1,hier,O,B-LOC\n"

    by_name, by_number = read(content, "x.csv", columns="mine,other"), read(content, "x.csv", columns="1,2")

    assert by_name == [Sentence(("Anna", "lebt"), ("O", "O")), Sentence(("hier",), ("B-LOC",))]
    assert by_number == [Sentence(("Anna", "lebt"), ("B-PER", "O")), Sentence(("hier",), ("O",))]
