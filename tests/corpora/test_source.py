import json
import time
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from corpus_samples import KIEL, RAIN, TWO_COLUMNS
from hypothesis import given
from hypothesis import strategies as st

from xlner.corpora.lines import corpus_path, find_corpus
from xlner.corpora.source import Annotation, ScoredSpan, align, read_annotations, read_corpus, read_located, visible
from xlner.corpora.spans import ReadingOptions
from xlner.corpora.splits import CorpusFingerprint, fingerprint
from xlner.corpora.write import write_corpus
from xlner.errors import CorpusError
from xlner.soft_labels.mix import AnnotationMember
from xlner.tags import LabelMap, LabelSet
from xlner.words import Sentence, unicode_words


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


def test_two_lines_of_text_that_end_with_what_could_be_a_tag_are_text(read):
    assert [one.words for one in read("Streit um die U-Bahn\nRegen im Norden\n", "x.txt")] == [
        ("Streit", "um", "die", "U-Bahn"),
        ("Regen", "im", "Norden"),
    ]


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


BRAT_TEXT = "Angela Merkel in Kiel.\n\nEs regnete in Köln.\n"
NOTES = (
    "T1\tPER 0 13\tAngela Merkel\nT2\tLOC 17 21\tKiel\nR1\tLives Arg1:T1 Arg2:T2\nT3\tLOC 38 42\tKöln\n#1\tNote T3\tx\n"
)
SENTENCES = [
    Sentence(("Angela", "Merkel", "in", "Kiel", "."), ("B-PER", "I-PER", "O", "B-LOC", "O")),
    Sentence(("Es", "regnete", "in", "Köln", "."), ("O", "O", "O", "B-LOC", "O")),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text(BRAT_TEXT)
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


TEXT = "Anna Braun lebt in Kiel."
WORDS = ["Anna", "Braun", "lebt", "in", "Kiel", "."]
PERSON = {"start": 0, "end": 10, "label": "PER", "score": 0.75}
PLACE = {"start": 19, "end": 23, "label": "LOC"}
LABELS = LabelSet.of_types(["LOC", "PER"])


@pytest.fixture
def read_notes(tmp_path):
    """Reads records, or lines, as an annotation file."""

    def read_records(*records):
        path = tmp_path / "notes.jsonl"
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        path.write_text("\n".join(lines), encoding="utf-8")
        return read_annotations(path)

    return read_records


def member(annotations, labels=LABELS, rename="", outside=1.0):
    return AnnotationMember(annotations, LabelMap.parse(rename), labels, outside)


def record_of(*spans, types=None):
    """Of `TEXT`."""
    return {"text": TEXT, "spans": list(spans), **({"types": types} if types is not None else {})}


def at(span, start, end):
    """The same span elsewhere."""
    return {**span, "start": start, "end": end}


@pytest.mark.parametrize(
    "record",
    [
        record_of(PERSON, PLACE),
        {"text": "\tAnna  Braun lebt\u00a0in Ki\u00adel .", "spans": [at(PERSON, 1, 12), at(PLACE, 21, 26)]},
        {"words": WORDS, "spans": [at(PERSON, 0, 2), at(PLACE, 4, 5)]},
        {"words": ["Anna", "Braun lebt", "in", "Kiel", "."], "spans": [at(PERSON, 0, 1), at(PLACE, 3, 4)]},
    ],
    ids=["characters", "other white space", "words", "other words"],
)
def test_a_record_finds_its_sentence_and_its_words(read_notes, record):
    annotations = read_notes(record)

    said = annotations.of(WORDS)

    spans = align(said, WORDS).spans
    assert spans[-1] == ScoredSpan("LOC", 4, 5, 1.0)
    assert (spans[0].label, spans[0].start, spans[0].score) == ("PER", 0, 0.75)
    assert annotations.of(["Anna", "lebt"]) is None


def test_a_word_in_a_span_has_its_score_and_the_others_are_outside(read_notes):
    said = member(read_notes({"types": ["LOC", "PER"]}, record_of(PERSON)), outside=0.25).of(0, WORDS)

    # O, B-LOC, I-LOC, B-PER, I-PER
    assert said.probs[0].tolist() == [0.25, 0, 0, 0.75, 0]
    assert said.probs[1].tolist() == [0.25, 0, 0, 0, 0.75]
    assert said.probs[2].tolist() == [1, 0, 0, 0, 0]
    assert said.trust.tolist() == [1, 1, 0.25, 0.25, 0.25, 0.25]
    assert said.known.all()


def test_an_annotator_abstains_on_sentences_without_a_record(read_notes):
    said = member(read_notes(record_of(PERSON))).of(0, ["Kiel", "."])

    assert not said.probs.any()
    assert not said.trust.any()
    assert not said.known.any()


def test_what_an_annotator_did_not_accept_says_nothing(read_notes):
    other = {"text": "Kiel", "spans": [{"start": 0, "end": 4, "label": "ORG"}]}

    annotations = read_notes(
        record_of(PERSON) | {"answer": "accept"}, *(other | {"answer": a} for a in ("reject", "ignore"))
    )

    assert (len(annotations), annotations.types) == (1, ("PER",))
    assert annotations.of(["Kiel"]) is None


@pytest.mark.parametrize(
    ("records", "known"),
    [
        ([record_of(PERSON)], [1, 0, 0, 1, 1]),
        ([record_of(), {"text": "Kiel", "spans": [{"start": 0, "end": 4, "label": "LOC"}]}], [1, 1, 1, 0, 0]),
        ([{"types": ["LOC", "PER"]}, record_of(PERSON)], [1, 1, 1, 1, 1]),
        ([{"types": ["LOC", "PER"]}, record_of(types=["LOC"])], [1, 1, 1, 0, 0]),
        ([record_of(PERSON), record_of(PLACE)], [1, 1, 1, 1, 1]),
        ([record_of(types=["LOC"]), record_of(PERSON, types=["PER"])], [1, 1, 1, 1, 1]),
        ([{"types": ["LOC"]}, record_of(PERSON, types=["PER"]), record_of(PLACE)], [1, 1, 1, 1, 1]),
        ([{"types": ["LOC"]}, record_of(PLACE), record_of(PERSON, types=["PER"])], [1, 1, 1, 1, 1]),
        ([record_of(PERSON), record_of({"text": "Bonn", "label": "LOC"})], [1, 1, 1, 1, 1]),
        ([record_of({"text": "Anna Braun", "label": "PER"}, {"text": "Anna", "label": "LOC"})], [1, 1, 1, 1, 1]),
    ],
    ids=["its own", "those of the file", "of the first record", "of the record", "of both records", "of both lists",
         "its own and the first record's", "the first record's and its own", "of a string that is nowhere",
         "of a string in a longer one"],
)  # fmt: skip
def test_an_annotator_knows_the_types_that_it_looked_for(read_notes, records, known):
    said = member(read_notes(*records)).of(0, WORDS)

    assert said.known.astype(int).tolist() == known


def test_types_of_annotations_are_renamed_and_dropped(read_notes):
    spans = [{**PERSON, "label": "person"}, {**PLACE, "label": "sight"}]

    said = member(read_notes(record_of(*spans)), rename="person=PER,sight=").of(0, WORDS)

    assert said.probs[:2].argmax(axis=1).tolist() == [3, 4]
    assert said.probs[4].tolist() == [1, 0, 0, 0, 0]
    assert said.known.astype(int).tolist() == [1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 9), [(0, 2)]),  # "Anna Brau": most of the second word
        ((2, 4), [(0, 1)]),  # half of "Anna"
        ((3, 4), []),  # a quarter of it
        ((3, 11), [(1, 2)]),  # the last letter of "Anna", and the first of "lebt"
    ],
)
def test_a_span_that_cuts_words_takes_those_of_which_it_covers_half(read_notes, span, expected):
    start, end = span
    found = align(read_notes(record_of({"start": start, "end": end, "label": "PER"})).of(WORDS), WORDS)

    assert [(span.start, span.end) for span in found.spans] == expected
    assert (found.n_cut, found.n_lost) == (1, int(not expected))


def test_of_spans_that_overlap_the_highest_score_wins_then_the_longer_one():
    spans = [ScoredSpan("LOC", 0, 9, 0.6), ScoredSpan("PER", 0, 4, 0.9), ScoredSpan("ORG", 4, 13, 0.6)]
    spans.append(ScoredSpan("MISC", 9, 13, 0.6))

    found = align(Annotation(tuple(spans), ("LOC",)), WORDS)

    assert found.spans == [ScoredSpan("PER", 0, 1, 0.9), ScoredSpan("ORG", 1, 3, 0.6)]
    assert found.n_overlapping == 2


def test_many_spans_of_a_long_sentence_are_found_in_time():
    n = 20_000
    words = ["Anna", "lebt"] * (n // 2)
    # Each word, each pair of words, and all of them; what has the higher score stays.
    spans = [ScoredSpan("A", 4 * k, 4 * k + 4, 0.9) for k in range(0, n, 2)]
    spans += [ScoredSpan("B", 4 * k, 4 * k + 8, 0.5) for k in range(n - 1)] + [ScoredSpan("C", 0, 4 * n, 0.1)]

    start = time.process_time()
    found = align(Annotation(tuple(spans), ("A",)), words)

    assert time.process_time() - start < 5
    assert found.spans == [ScoredSpan("A", k, k + 1, 0.9) for k in range(0, n, 2)]
    assert found.n_overlapping == n


def test_what_became_of_the_spans_is_told(read_notes):
    spans = [{**PERSON, "end": 9}, {**PLACE, "start": 22}, PLACE, {**PLACE, "label": "PER", "score": 0.1}]
    one = member(read_notes(record_of(*spans)))

    one.of(0, WORDS)

    told = one.as_text().partition(": ")[2]
    assert told == (
        "4 spans in this text; 2 begin or end inside a word; 1 hold no word and are left out; "
        "1 give way to one of a higher score"
    )


@given(st.lists(st.text(alphabet="ab ß\u00ad\u200d\t", max_size=4), min_size=1, max_size=5), st.data())
def test_spans_of_whole_words_come_back_as_they_were(words, data):
    words = [f"x{word}" for word in words]  # none invisible
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    offsets = np.cumsum([0, *(len(visible(word)) for word in words)]).tolist()

    found = align(Annotation((ScoredSpan("A", offsets[start], offsets[end], 0.5),), ("A",)), words)

    assert found == ([ScoredSpan("A", start, end, 0.5)], 0, 0, 0)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("{", "XL020", "no JSON"),
        ("[1]", "XL020", "expected a JSON object, found"),
        ({"txt": "a"}, "XL021", "a record has no key 'txt'; known: text, words, tokens, spans, entities, types"),
        ({"spans": []}, "XL021", "expected text or words; found spans"),
        ({"text": "a", "spans": [], "entities": []}, "XL021", "found spans and entities; expected one of them"),
        ({"types": ["PER"]}, "XL021", "expected text or words"),
        ({"text": 3}, "XL021", "expected a text; found 3"),
        ({"text": " \u200b"}, "XL021", "a record without a visible character"),
        ({"words": "a b"}, "XL021", "expected a list of words"),
        ({"words": ["a", ""]}, "XL011", "word 1 is empty"),
        ({"text": "a", "spans": {}}, "XL021", "expected a list of spans"),
        ({"text": "a", "types": "PER"}, "XL021", "expected types as a list of names; found PER"),
        (record_of([0, 4, "PER"]), "XL021", "expected a span with start, end and label"),
        (record_of({**PLACE, "scores": 1}), "XL021", "a span has no key 'scores'"),
        (record_of({**PLACE, "start": 1.5}), "XL021", "expected start and end as whole numbers; found 1.5 and 23"),
        (record_of({**PLACE, "label": ""}), "XL021", "expected a type as label; found ''"),
        (record_of({**PLACE, "end": 25}), "XL022", "the span 19 to 25 of type 'LOC' is none of a text of 24 char"),
        ({"words": ["a"], "spans": [PLACE]}, "XL022", "is none of a text of 1 words"),
        (record_of({**PLACE, "end": 19}), "XL022", "the span 19 to 19"),
        (record_of({**PLACE, "score": 1.01}), "XL025", "the score of a span of type 'LOC' is 1.01; expected a number"),
        (record_of({**PLACE, "score": "high"}), "XL025", "is 'high'; expected a number in"),
        (record_of({**PLACE, "label": "PERS"}, types=["PER"]), "XL025", "none of the types PER; did you mean 'PER'"),
        ({"text": "\ud800"}, "XL026", "half a surrogate pair"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_understood_is_refused_with_its_line(read_notes, line, code, message):
    with pytest.raises(CorpusError) as caught:
        read_notes(record_of(PERSON), "", line)

    assert "notes.jsonl:3: " in str(caught.value)
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"[{code}]")


def test_strings_without_offsets_are_found_in_their_text_or_counted(read_notes):
    strings = [
        {"text": "Braun", "label": "PER", "score": 0.5},
        {"text": "Anna  Braun", "label": "PER"},
        {"text": "Kiel", "label": "LOC"},
        {"text": "Kiel", "label": "LOC"},
        {"text": "Bonn", "label": "LOC"},
    ]
    of_text = {"text": TEXT + " Kiel!", "entities": strings}
    of_words = {"words": WORDS, "entities": strings}
    annotations = read_notes(of_text, of_words)

    found = annotations.of([*WORDS, "Kiel", "!"])

    expected = [ScoredSpan("LOC", 4, 5, 1.0), ScoredSpan("LOC", 6, 7, 1.0)]
    assert align(found, [*WORDS, "Kiel", "!"]).spans == [ScoredSpan("PER", 0, 2, 1.0), *expected]
    assert align(annotations.of(WORDS), WORDS).spans == [ScoredSpan("PER", 0, 2, 1.0), expected[0]]
    assert annotations.about([WORDS]).endswith(
        f"2 records, 1 sentences of the text have one; 1 speak of no sentence of it; 2 strings stand nowhere in their "
        f"sentence, as 'Bonn' ({annotations.path}:1); 2 strings give way to a longer or an earlier one, as 'Braun' "
        f"({annotations.path}:1)"
    )


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ({"text": " ", "label": "PER"}, "expected a string as text of a span; found ' '"),
        ({"text": 3, "label": "PER"}, "expected a string as text of a span; found '3'"),
        ({"text": "Anna"}, "expected a type as label; found None"),
        ({"text": "Anna", "label": "LOK"}, "the label 'LOK' is none of the types LOC, PER; did you mean 'LOC'"),
        ({"text": "Anna", "label": "PER", "score": 2}, "the score of a span of type 'PER' is 2"),
        ({"label": "PER"}, "expected a span with start, end and label, or with text and label"),
    ],
)
def test_a_string_that_says_too_little_is_refused_with_its_line(read_notes, string, message):
    with pytest.raises(CorpusError, match=rf"notes\.jsonl:1: {message}"):
        read_notes(record_of(string, types=["LOC", "PER"]))


@pytest.mark.parametrize(
    ("record", "spans"),
    [
        ({"text": TEXT}, [{"start": 0, "end": 4, "label": "LOC"}, {"start": 11, "end": 15, "label": "LOC"}]),
        ({"text": TEXT}, [{"start": 19, "end": 99, "label": "LOC"}]),
        ({"text": TEXT}, [{"start": 23, "end": 19, "label": "LOC"}]),
        ({"words": WORDS}, [{"start": 0, "end": 1, "label": "LOC"}]),
    ],
    ids=["elsewhere", "behind the text", "backwards", "of words"],
)
def test_a_text_beside_offsets_that_hold_another_one_is_looked_for(read_notes, record, spans):
    strings = [{**span, "text": "Kiel"} for span in spans]

    annotations = read_notes({**record, "entities": [*strings, {"text": "Bonn", "start": 0, "end": 4, "label": "LOC"}]})

    assert align(annotations.of(WORDS), WORDS).spans == [ScoredSpan("LOC", 4, 5, 1.0)]
    place = f"({annotations.path}:1)"
    assert annotations.about([WORDS]).endswith(
        f"1 strings stand nowhere in their sentence, as 'Bonn' {place}; "
        f"1 strings are not what their start and end hold, and are marked where they stand, as 'Kiel' {place}"
    )


def test_a_text_that_its_offsets_hold_is_marked_there_alone(read_notes):
    text = "Caf\u00e9  Vila, Caf\u00e9 Vila"
    spans = [{"start": 0, "end": 10, "text": "Cafe\u0301 Vila", "label": "LOC"}]

    said = read_notes({"text": text, "spans": spans}).of(text.replace(",", " ,").split())

    assert (len(said.spans), said.odd_strings) == (1, ())


def test_strings_that_give_way_are_told(read_notes):
    strings = [
        {"text": "Kiel", "label": "LOC"},
        {"text": "Kiel", "label": "ORG"},
        {"text": "Anna Braun", "label": "PER"},
        {"text": "Anna", "label": "PER"},
    ]

    annotations = read_notes({"text": TEXT, "entities": strings})

    assert annotations.types == ("LOC", "ORG", "PER")
    assert annotations.about([WORDS]).endswith(
        f"2 strings give way to a longer or an earlier one, as 'Kiel' ({annotations.path}:1)"
    )


def test_a_file_of_strings_none_of_which_is_in_its_sentence_is_refused(read_notes):
    with pytest.raises(
        CorpusError, match=r"none of its 1 strings stands in its sentence, as 'Bonn' \(.*notes\.jsonl:1"
    ):
        read_notes(record_of({"text": "Bonn", "label": "LOC"}), record_of())


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("written", [["Zürich", "ist"], ["서울에서", "이것"], ["Orléans", "ấm"]])
def test_a_record_finds_its_sentence_in_any_normal_form(read_notes, form, written):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    text, words = unicodedata.normalize(form, " ".join(written)), [unicodedata.normalize(other, w) for w in written]
    spans = [
        {"start": 0, "end": text.index(" "), "label": "LOC"},
        {"start": text.index(" ") + 1, "end": len(text), "label": "PER"},
    ]

    for record in ({"text": text, "spans": spans}, {"text": text, "spans": [{"text": words[1], "label": "PER"}]}):
        assert align(read_notes(record).of(words), words).spans[-1] == ScoredSpan("PER", 1, 2, 1.0)
    assert align(read_notes({"text": text, "spans": spans}).of(words), words) == (
        [ScoredSpan("LOC", 0, 1, 1.0), ScoredSpan("PER", 1, 2, 1.0)],
        0,
        0,
        0,
    )


@pytest.mark.parametrize(
    "labels",
    [
        {"tags": ["B-PER", "O"]},
        {"ner_tags": [1, 0]},
        {"label": [[0, 4, "PER"]]},
        {"labels": [{"start": 0, "end": 4, "label": "PER"}]},
        {"annotations": [{"start": 0, "end": 4, "label": "PER"}]},
    ],
)
def test_labels_of_a_corpus_are_refused_and_not_passed_over(read_notes, labels):
    (name,) = labels
    for sentence in ({"text": "Anna lebt"}, {"words": ["Anna", "lebt"]}):
        with pytest.raises(CorpusError, match=rf"notes\.jsonl:2: found labels as '{name}'; .*--to spans`"):
            read_notes({"types": ["PER"]}, {**sentence, **labels})
    assert len(read_notes({"types": ["PER"]}, {"text": "Anna lebt", "spans": [], **labels})) == 1
    assert len(read_notes({"types": ["PER"]}, {"text": "Anna lebt", "label": "positive", "tags": []})) == 1


def test_patterns_among_annotations_are_told(read_notes):
    with pytest.raises(CorpusError, match="patterns are given as patterns=FILE"):
        read_notes({"label": "LOC", "pattern": "Kiel"})


def test_what_xlner_tag_writes_is_an_annotation_file_as_it_is(read_notes):
    place = {"text": "Kiel", "label": "LOC", "start": 19, "end": 23, "score": 0.5}
    of_text = {"id": 7, "text": TEXT, "entities": [place]}
    of_words = {"words": WORDS, "tags": ["O"] * 6, "entities": [{**place, "start": 4, "end": 5}]}
    of_both = {"id": 7, "text": TEXT, "tokens": WORDS, "tags": ["O"] * 6, "entities": [place]}

    for record in (of_text, of_words, of_both):
        assert align(read_notes(record).of(WORDS), WORDS).spans == [ScoredSpan("LOC", 4, 5, 0.5)]


def test_types_that_look_equal_are_one_type(read_notes):
    records = [record_of({**PLACE, "label": label}) for label in ("LOC", "LOC\u200b", "\ufeffLOC", " LOC\u00a0")]

    assert read_notes(*records).types == ("LOC",)


def test_a_corpus_of_spans_is_an_annotation_file_as_it_is(tmp_path):
    tags = ("B-PER", "I-PER", "O", "O", "B-LOC", "O")
    write_corpus([Sentence(tuple(WORDS), tags)], tmp_path / "gold.jsonl", format="spans")

    annotations = read_annotations(tmp_path / "gold.jsonl")

    said = member(annotations).of(0, WORDS)
    assert [LABELS.tags[number] for number in said.probs.argmax(axis=1)] == list(tags)


def test_a_file_without_records_or_types_or_no_file_at_all_is_refused(read_notes, tmp_path):
    with pytest.raises(CorpusError, match="expected annotations, one JSON record a line; found none"):
        read_notes({"types": ["PER"]})
    with pytest.raises(CorpusError, match="no span in 1 records, and no types; which ones were looked for"):
        read_notes(record_of())
    with pytest.raises(CorpusError, match=r"teacher=.*nope.jsonl: no such file"):
        read_annotations(tmp_path / "nope.jsonl")


def test_records_are_counted_against_the_text(read_notes):
    annotations = read_notes(record_of(PERSON), record_of(PLACE), {"text": "Ein anderer Satz."})

    assert annotations.count([WORDS, ["Ja"], WORDS]) == (2, 1)
    with pytest.raises(CorpusError, match="none of its 2 records speaks of a sentence of the target text"):
        annotations.count([["Ja"]])
