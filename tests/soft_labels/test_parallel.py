"""Words aligned by hidden states, entities carried over, and `xlner project` on good and bad files."""

import json
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
from xlner.soft_labels.parallel import Links, Projection, ProjectionSummary, align_words, carried_over, open_reader
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


def links_to(*places, scores=None):
    return Links(np.asarray(places), np.asarray(scores or [float(place >= 0) for place in places]))


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
        (links_to(0, 3, 4, 1, scores=[1, 0.8, 0.1, 1]), ((3, 4), 0.4)),  # the second link is too weak
        (links_to(0, -1, -1, 1), None),
        (links_to(0, 3, 5, 4), None),  # what lies between is of another word
        (links_to(0, 3, 7, 1), None),  # too far from one another
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

    (records,) = projection.records([*COPIES, COPIES[0], (long, long)])

    assert len(records) == len(COPIES)
    assert projection.summary.left_out == {
        "longer than 400 words": 1,
        "the translation stood there before": 1,
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
        (b"Anna lebt.\t\n", [], "pairs.tsv:1: expected"),
        (b"a\tb\tc\n", [], "found 3 columns"),
        (b"", [], "found no line with text"),
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
    pairs = write_pairs(tmp_path / "pairs.tsv", [(text, text) for text in SENTENCES])

    status, _, told = xlner("project", "--source-model", bashful, "--parallel", pairs, "--out", tmp_path / "de.jsonl")

    assert status == 2
    assert f"finds no entity in {len(SENTENCES)} sentences of the first column" in told
    assert not (tmp_path / "de.jsonl").exists()


def test_the_output_may_not_be_the_input(bert_folder, tmp_path, xlner):
    pairs = write_pairs(tmp_path / "pairs.jsonl", [("Kiel", "Kiel")])

    status, _, told = xlner("project", "--source-model", bert_folder, "--parallel", pairs, "--out", pairs)

    assert status == 2
    assert f"this is the input {pairs} itself" in told


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


def test_what_hints_at_a_wrong_file_is_told():
    swapped = ProjectionSummary(pairs=10, sureness=(0.8, 0.9))
    slipped = ProjectionSummary(pairs=10, sureness=(0.9, 0.8))
    slipped.left_out["no translations of one another"] = 3

    assert [line for line in swapped.doubts() if "are the columns swapped?" in line]
    assert [line for line in slipped.doubts() if "slipped by a line" in line]
    assert not list(ProjectionSummary(pairs=10, sureness=(0.9, 0.8)).doubts())


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
