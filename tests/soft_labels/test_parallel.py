"""Words aligned by hidden states, entities carried over, and `xlner project` on good and bad files."""

import json
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
from accelerate import Accelerator
from conftest import LABELS, SENTENCES, tiny_model, word_piece_tokenizer

from xlner.config.schema import DistillRecipe
from xlner.corpora.source import read_annotations, read_corpus
from xlner.jobs.inputs import teachers_of
from xlner.models.folder import save_model
from xlner.models.settings import ModelSettings
from xlner.soft_labels.mix import taught_soft_labels
from xlner.soft_labels.parallel import (
    NO_TRANSLATION,
    TOO_LONG,
    Links,
    Projection,
    ProjectionSummary,
    align_words,
    carried_over,
    open_reader,
    surer_of_second,
)
from xlner.tagger import load_tagger
from xlner.tags import Span
from xlner.words import Sentence

COPIES = [(Sentence(tuple(text.split())), Sentence(tuple(text.split()))) for text in SENTENCES]


@pytest.fixture(scope="module")
def bashful(tmp_path_factory):
    """A model that finds nothing."""
    tokenizer = word_piece_tokenizer()
    model = tiny_model(tokenizer)
    model.recognizer.classifier.bias.data[LABELS.outside_id] = 100.0
    folder = tmp_path_factory.mktemp("bashful") / "model"
    save_model(folder, model, tokenizer, ModelSettings(language="en"))
    return folder


def write_pairs(path, pairs):
    path.write_text("".join(f"{one}\t{other}\n" for one, other in pairs), encoding="utf-8")
    return path


def links_to(*places, scores=None, back=(), n_words=9, starts=None, starts_there=None):
    """Links of words, or of units where `starts` are given; `back` are pairs of words there and here beside them."""
    most_similar = np.full(n_words, -1)
    for there, here in [*back, *((place, here) for here, place in enumerate(places) if place >= 0)]:
        most_similar[there] = here
    return Links(
        np.asarray(places),
        np.asarray(scores or [float(place >= 0) for place in places]),
        most_similar,
        np.asarray(starts or range(len(places) + 1)),
        np.asarray(starts_there or range(n_words + 1)),
    )


def test_words_are_linked_whatever_their_order():
    vectors = np.eye(4, dtype=np.float32)

    links = align_words(vectors, vectors[[2, 0, 3, 1]])

    assert links.to.tolist() == [1, 3, 0, 2]
    assert links.scores.min() > 0.99
    assert links.strength > 0.99


def test_of_two_words_that_are_most_like_one_word_the_nearer_one_is_linked():
    source = np.asarray([[1.0, 0.0], [0.9, 0.3]], dtype=np.float32)
    target = np.asarray([[1.0, 0.1]], dtype=np.float32)

    links = align_words(source, target)

    assert links.to.tolist() == [0, -1]
    assert 0.5 < links.scores[0] < 0.9  # there is a rival
    assert links.strength == links.scores[0] / 2


def test_links_are_the_same_from_both_sides():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(9, 5)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)

    there, back = align_words(source, target), align_words(target, source)

    pairs = {(i, j) for i, j in enumerate(there.to.tolist()) if j >= 0}
    assert pairs == {(i, j) for j, i in enumerate(back.to.tolist()) if i >= 0}
    np.testing.assert_allclose(sorted(there.scores[there.to >= 0]), sorted(back.scores[back.to >= 0]))


def test_words_that_the_encoder_did_not_see_are_linked_to_nothing():
    source = np.asarray([[0.0, 0.0], [1.0, 0.0]], dtype=np.float32)

    assert align_words(source, source).to.tolist() == [-1, 1]
    assert align_words(source, np.zeros((3, 2), dtype=np.float32)).to.tolist() == [-1, -1]
    assert align_words(source, np.zeros((0, 2), dtype=np.float32)).to.tolist() == [-1, -1]
    assert align_words(np.zeros((0, 2), dtype=np.float32), source).strength == 1.0


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        (links_to(0, 3, 4, 1), ((3, 5), 1.0)),
        (links_to(0, 4, 3, 1), ((3, 5), 1.0)),  # the other way round
        (links_to(0, 3, 5, 1), ((3, 6), 1.0)),  # a word between them that is linked to nothing
        (links_to(0, 3, -1, 1), ((3, 4), 0.5)),  # half of the words
        (links_to(0, 3, 4, 1, scores=[1, 0.8, 0.6, 1]), ((3, 5), 0.7)),
        (links_to(0, 3, 6, 1, scores=[1, 0.8, 0.1, 1]), ((3, 4), 0.4)),  # the second link is too weak
        (links_to(0, 3, 4, 1, back=[(2, 0), (5, 3)]), ((3, 5), 1.0)),  # words beside them are like others
        (links_to(0, -1, -1, 1), None),
        (links_to(0, 3, 5, 4), None),  # what lies between is of another word
        (links_to(0, 3, 7, 1), None),  # too far from one another
        (links_to(0, 3, 4, 1, back=[(5, 2)]), None),  # the word behind is of the entity, too
        (links_to(0, 3, 4, 1, back=[(2, 1)]), None),  # the word before
        (links_to(0, 3, 4, 1, scores=[1, 0.8, 0.1, 1]), None),  # the word behind is linked to it, too weakly
    ],
)
def test_an_entity_arrives_where_its_words_do(links, expected):
    found = carried_over(Span("PER", 1, 3), links, least_score=0.3)

    if expected is None:
        assert found is None
    else:
        place, score = expected
        assert found[0] == Span("PER", *place)
        assert found[1] == pytest.approx(score)


def test_a_name_of_more_words_in_the_translation_is_not_cut():
    netherlands, lives = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    source = np.asarray([lives, netherlands], dtype=np.float32)
    target = np.asarray([lives, [0.9, 0.0, 0.4], [0.8, 0.0, 0.6]], dtype=np.float32)  # vive Países Bajos

    links = align_words(source, target)

    assert links.to.tolist() == [0, 1]
    assert links.back.tolist() == [0, 1, 1]
    assert carried_over(Span("LOC", 1, 2), links) is None


def test_words_that_one_piece_holds_are_linked_as_one():
    piece, other = [1.0, 0.0], [0.0, 1.0]
    source = np.asarray([piece, piece, piece, other], dtype=np.float32)  # 在上海 。
    target = np.asarray([other, piece, piece], dtype=np.float32)

    links = align_words(source, target)

    assert links.to.tolist() == [1, 0]
    assert links.strength > 0.99
    assert carried_over(Span("LOC", 0, 3), links)[0] == Span("LOC", 1, 3)
    assert carried_over(Span("LOC", 1, 3), links) is None  # it begins within the piece
    assert carried_over(Span("LOC", 0, 2), links) is None
    assert [link[:2] for link in links.of_words()] == [(0, 1), (1, 2), (2, 2), (3, 0)]


def test_a_sentence_linked_to_itself_returns_whole_whatever_its_pieces():
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(6, 64)), [1, 3, 2, 1, 4, 1], axis=0).astype(np.float32)

    links = align_words(vectors, vectors)

    assert links.to.tolist() == list(range(6))
    assert links.strength > 0.99
    assert [link[:2] for link in links.of_words()] == [(word, word) for word in range(12)]


def test_a_sentence_that_is_its_own_translation_keeps_all_its_entities(bert_folder):
    tagger = load_tagger(bert_folder)
    projection = Projection(tagger, open_reader(tagger, "", 0), least_score=0.0)

    (records,) = projection.records(COPIES)

    expected = tagger.spans_in_sentences([source.words for source, _ in COPIES])
    assert sum(map(len, expected)) == projection.summary.written > 0
    for record, (source, _), spans in zip(records, COPIES, expected, strict=True):
        assert record["words"] == list(source.words)
        found = [(one["label"], one["start"], one["end"]) for one in record["spans"]]
        assert found == [tuple(span) for span, _ in spans]
        assert all(one["score"] <= score + 1e-4 for one, (_, score) in zip(record["spans"], spans, strict=True))
    assert projection.summary.round_trip > 0.9


def test_of_a_sentence_whose_entities_did_not_all_arrive_nothing_is_said(bert_folder):
    tagger = load_tagger(bert_folder)
    projection = Projection(tagger, open_reader(tagger, "", 1), least_score=1.0)

    (records,) = projection.records(COPIES)

    assert all(not record["spans"] for record in records)
    assert projection.summary.left_out["an entity was not aligned"] == len(COPIES) - len(records) > 0


def test_long_sentences_and_repeated_translations_are_left_out_and_counted(bert_folder):
    tagger = load_tagger(bert_folder)
    projection = Projection(tagger, open_reader(tagger, "", 0), least_score=0.0)
    long = Sentence(("Kiel",) * 401)

    first = COPIES[0][1].words
    joined = Sentence((f"{first[0]}{first[1]}", *first[2:]))  # other words, but the same letters find its record

    (records,) = projection.records([*COPIES, COPIES[0], (joined, joined), (long, long)])

    assert len(records) == len(COPIES)
    assert projection.summary.left_out == {
        "longer than 400 words": 1,
        "the translation stood there before": 2,
    }


def test_the_file_is_a_teacher_and_a_text_and_the_summary_lies_beside_it(bert_folder, tmp_path, xlner):
    pairs = write_pairs(tmp_path / "pairs.tsv", [(text, text) for text in SENTENCES])
    out = tmp_path / "de.jsonl"

    status, told, _ = xlner(
        "project", "--source-model", bert_folder, "--parallel", pairs, "--out", out, "--min-score", "0"
    )

    summary = json.loads((tmp_path / "de.summary.json").read_text())
    text = list(read_corpus(out, scheme="ignore"))
    assert status == 0
    assert (summary["layer"], summary["parallel"], summary["max_pairs"]) == (1, "pairs.tsv", 0)
    assert f"{100 * summary['round_trip']:.1f} % of the words return" in told
    assert summary["records"] == len(text) == len(SENTENCES)
    assert read_annotations(out).count(sentence.words for sentence in text) == (len(text), 0)
    assert summary["written"] == sum(entity["carried"] for entity in summary["entities"].values()) > 0


@pytest.mark.parametrize("others", ["", "{model},"], ids=["alone", "beside a model"])
def test_what_is_written_teaches(others, bert_folder, tmp_path, xlner):
    pairs = write_pairs(tmp_path / "pairs.tsv", [(text, text) for text in SENTENCES])
    out = tmp_path / "de.jsonl"
    xlner("project", "--source-model", bert_folder, "--parallel", pairs, "--out", out, "--min-score", "0")
    recipe = DistillRecipe(target="de", teacher=f"{others.format(model=bert_folder)}{out}", encoder=bert_folder)
    recipe = replace(recipe, text=str(out), soft_labels=str(tmp_path / "store"))

    taught = taught_soft_labels(teachers_of(recipe), out, Accelerator(cpu=True), None)

    soft_labels, annotations = taught.soft_labels, read_annotations(out)
    assert len(soft_labels) == len(SENTENCES)
    for number in range(len(soft_labels)):
        probs = soft_labels.probs(number)
        for span in annotations.of(soft_labels.words(number)).spans:
            inside = [tag for tag in soft_labels.card.tags if tag.endswith(span.label)]
            assert probs[:, [soft_labels.card.tags.index(tag) for tag in inside]].max() > 0.4 * span.score


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (b"Anna lebt.\tAnna lives.\nKiel.\n", [], 'pairs.tsv:2: expected "SENTENCE<TAB>TRANSLATION", found 1 columns'),
        (b"Anna lebt.\t\n", [], 'pairs.tsv:1: expected "SENTENCE<TAB>TRANSLATION", found no TRANSLATION'),
        ("\u200b\tAnna lebt.\n".encode(), [], "found no SENTENCE"),
        (b"a\tb\tc\n", [], "found 3 columns"),
        (b"", [], "pairs.tsv: expected translations, found no line with text\n"),
        (b"Kiel " * 401 + b"\tKiel\n", [], "all of its 1 pairs have a side of more than 400 words"),
        ("Köln\tKöln\n".encode("latin-1"), [], "pairs.tsv"),
        (b"a\tb\n", ["--layer", "99"], "expected one of them"),
        (b"a\tb\n", ["--encoder", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_carried_over_is_told_and_nothing_is_written(
    content, options, expected, bert_folder, tmp_path, xlner
):
    (tmp_path / "pairs.tsv").write_bytes(content)
    arguments = ["--source-model", bert_folder, "--parallel", tmp_path / "pairs.tsv", "--out", tmp_path / "de.jsonl"]

    status, _, told = xlner("project", *arguments, *options)

    assert status == 2
    assert expected in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.tsv"]


def test_a_model_that_finds_nothing_in_the_first_column_is_told(bashful, tmp_path, xlner):
    long = "Kiel " * 401
    pairs = write_pairs(tmp_path / "pairs.tsv", [*[(text, text) for text in SENTENCES], (long, long)])

    status, _, told = xlner("project", "--source-model", bashful, "--parallel", pairs, "--out", tmp_path / "de.jsonl")

    assert status == 2
    assert f"finds no entity in {len(SENTENCES)} sentences of the first column" in told  # the long one is none
    assert not (tmp_path / "de.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "out", "show", "option"),
    [
        ("pairs.jsonl", "pairs.jsonl", "page.html", "--out pairs.jsonl"),
        ("pairs.html", "de.jsonl", "pairs.html", "--show pairs.html"),
        ("de.summary.json", "de.jsonl", "page.html", "the summary beside --out de.jsonl: de.summary.json"),
    ],
)
def test_no_output_may_be_the_input(name, out, show, option, bert_folder, tmp_path, monkeypatch, xlner):
    monkeypatch.chdir(tmp_path)
    pairs = write_pairs(tmp_path / name, [("Kiel", "Kiel")])
    options = ["--source-model", bert_folder, "--parallel", name]

    status, _, told = xlner("project", *options, "--out", out, "--show", show)

    assert status == 2
    assert f"{option}: this is the input {name} itself" in told
    assert pairs.read_text(encoding="utf-8") == "Kiel\tKiel\n"


def test_a_line_that_is_no_pair_is_told_before_a_model_is_opened(tmp_path, xlner):
    pairs = write_pairs(tmp_path / "pairs.tsv", [("Kiel", "Kiel")] * 300)
    with pairs.open("a", encoding="utf-8") as file:
        file.write("only one side\n")
    options = ["--source-model", tmp_path / "no-model", "--parallel", pairs, "--out", tmp_path / "de.jsonl"]

    _, _, of_all = xlner("project", *options)
    _, _, of_the_first = xlner("project", *options, "--max-pairs", "300")

    assert "pairs.tsv:301: expected" in of_all
    assert "no-model: no such folder" in of_the_first


def test_a_pipe_is_read_once(bert_folder, tmp_path, xlner):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as file:
        file.writelines(f"{text}\t{text}\n" for text in SENTENCES)
    options = ["--parallel", f"/dev/fd/{reading}", "--out", tmp_path / "de.jsonl", "--min-score", "0"]

    status, _, _ = xlner("project", "--source-model", bert_folder, *options)

    os.close(reading)
    assert status == 0
    assert len((tmp_path / "de.jsonl").read_text(encoding="utf-8").splitlines()) == len(SENTENCES)


def test_annotations_that_cannot_be_put_in_place_leave_no_summary_or_page(bert_folder, tmp_path, xlner):
    pairs = write_pairs(tmp_path / "pairs.tsv", [(text, text) for text in SENTENCES])
    (tmp_path / "de.jsonl").symlink_to("/dev/full")
    options = ["--out", tmp_path / "de.jsonl", "--show", tmp_path / "page.html", "--min-score", "0"]

    status, _, told = xlner("project", "--source-model", bert_folder, "--parallel", pairs, *options)

    assert status == 2
    assert "de.jsonl: cannot be written" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["de.jsonl", "pairs.tsv"]


def test_a_command_that_is_stopped_says_so_and_leaves_nothing(bert_folder, tmp_path, xlner):
    pairs = tmp_path / "pairs.tsv"
    os.mkfifo(pairs)
    held = []

    def stop_when_it_reads():
        held.append(pairs.open("w"))  # returns once the other end is opened
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_it_reads)
    stopper.start()
    status, _, told = xlner(
        "project", "--source-model", bert_folder, "--parallel", pairs, "--out", tmp_path / "de.jsonl"
    )
    stopper.join()
    held[0].close()

    assert status == 143
    assert "de.jsonl: stopped; the same command begins anew" in told
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.tsv"]


def test_a_page_has_the_name_of_one_so_that_it_replaces_no_text(bert_folder, tmp_path, xlner):
    pairs = write_pairs(tmp_path / "pairs.tsv", [("Kiel", "Kiel")])

    status, _, told = xlner(
        "project", "--source-model", bert_folder, "--parallel", pairs, "--out", tmp_path / "a.jsonl", "--show", pairs
    )

    assert status == 2
    assert "expected a name that ends with .html" in told
    assert pairs.read_text(encoding="utf-8") == "Kiel\tKiel\n"


def test_a_page_that_cannot_be_written_is_told_before_the_work(tmp_path, xlner):
    pairs = write_pairs(tmp_path / "pairs.tsv", [("Kiel", "Kiel")])
    options = ["--out", tmp_path / "a.jsonl", "--show", pairs / "links.html"]

    status, _, told = xlner("project", "--source-model", tmp_path / "no-model", "--parallel", pairs, *options)

    assert status == 2
    assert f"{pairs / 'links.html'}: " in told
    assert "no-model" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.tsv"]


@pytest.mark.parametrize(
    ("sureness", "surer", "is_told"),
    [
        ((0.80, 0.90), (3.0, 200), True),
        ((0.80, 0.90), (3.0, 20), False),  # in too few pairs
        ((0.89, 0.90), (1.0, 200), False),  # within the error of a sample
        ((0.90, 0.80), (-3.0, 200), False),
    ],
)
def test_columns_look_swapped_if_the_model_is_clearly_surer_of_the_second(sureness, surer, is_told):
    doubt = ProjectionSummary(pairs=300, sureness=sureness, surer=surer).doubt_of_columns()

    assert ("are the columns swapped?" in doubt) == is_told


def test_surer_is_counted_in_standard_errors_of_pairs_with_entities_on_both_sides():
    first = [np.asarray([[0.3, 0.7], [0.3, 0.7]]), np.asarray([[0.4, 0.6]]), np.asarray([[1.0, 0.0]])]
    second = [np.asarray([[0.2, 0.8]]), np.asarray([[0.1, 0.9], [1.0, 0.0]]), np.asarray([[0.1, 0.9]])]

    errors, n_pairs = surer_of_second(first, second, outside=0)

    # By 0.1 and 0.3: a mean of 0.2, a deviation of 0.1 * sqrt(2), and so a standard error of 0.1.
    assert errors == pytest.approx(2.0)
    assert n_pairs == 2


def test_pairs_that_look_slipped_are_told_among_those_that_were_looked_at():
    slipped = ProjectionSummary(pairs=110)
    slipped.left_out.update({NO_TRANSLATION: 3, TOO_LONG: 100})

    assert "3 of 10 pairs look like no translations" in slipped.doubt_of_pairs()
    assert not ProjectionSummary(pairs=10).doubt_of_pairs()


def test_the_page_of_links_shows_the_first_pairs_and_runs_nothing_of_them(bert_folder, tmp_path, xlner):
    hostile = "Angela </script><script>alert(1)</script> <!-- Merkel"
    parallel = write_pairs(tmp_path / "pairs.tsv", [(hostile, hostile), *[(text, text) for text in SENTENCES]])
    page = tmp_path / "links.html"

    options = ["--out", tmp_path / "a.jsonl", "--show", page]
    status, _, problem = xlner("project", "--source-model", bert_folder, "--parallel", parallel, *options)

    assert status == 0, problem
    html = page.read_text(encoding="utf-8")
    assert html.count("<script") == html.count("</script>") == 2
    content = json.loads(html.split('id="content">')[1].split("</script>")[0])
    first, *others = content["pairs"]
    assert "".join(first["source"]) == hostile.replace(" ", "")
    assert [pair["source"] for pair in others] == [pair["target"] for pair in others]
    for pair in content["pairs"]:
        # A sentence that is its own translation: each word is linked to itself, for sure but where it stands twice.
        assert all(
            source == target or pair["source"].count(pair["source"][source]) > 1 for source, target, *_ in pair["links"]
        )
        assert pair["carried"] == pair["entities"] or pair["left_out"]
        inside = {word for one in pair["entities"] for word in range(one["start"], one["end"])}
        assert all((link[0] in inside) == link[3] for link in pair["links"])
    assert any(pair["entities"] for pair in content["pairs"])
