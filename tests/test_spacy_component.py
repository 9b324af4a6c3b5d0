import json
import multiprocessing
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint

import pytest
import spacy
from conftest import REPOSITORY, SENTENCES
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from test_forks import threads

import xlner.spacy_component
from xlner.errors import ModelError, RecipeError
from xlner.tagger import load_tagger

TEXT = "Angela Merkel besuchte Kiel.\n\n  Anna O'Brien sprach in Köln-Nord mit Jean-Claude."


@pytest.fixture(scope="module")
def tagger(bert_folder):
    return load_tagger(bert_folder)


@pytest.fixture(scope="module")
def pipeline(bert_folder):
    """Makes a pipeline of a blank German and the component with some options."""

    def make(**options):
        nlp = spacy.blank("de")
        nlp.add_pipe("xlner", config={"model": bert_folder, **options})
        return nlp

    return make


@pytest.fixture(scope="module")
def pipelines(pipeline):
    """A pipeline for each source of words."""
    return {words: pipeline(words=words) for words in ("text", "tokens")}


def spans(doc):
    return [(entity.start, entity.end, entity.label_) for entity in doc.ents]


def test_a_document_has_the_entities_of_its_text_with_their_scores(pipelines, tagger):
    doc = pipelines["text"](SENTENCES[0])

    entities = tagger.tag(SENTENCES[0])
    assert [(e.text, e.label_, e._.xlner_score) for e in doc.ents] == [
        (e.text, e.label, pytest.approx(e.score, abs=1e-5)) for e in entities
    ]
    assert [(e.start, e.end, e.label_) for e in doc.spans["xlner"]] == spans(doc)
    assert doc.spans["xlner"].attrs["scores"] == [e._.xlner_score for e in doc.ents]


def test_given_tokens_are_tagged_as_the_words_that_they_are(pipelines, tagger):
    words = ["Jean-Claude", "und", "O'Brien", "in", "Köln-Nord"]
    doc = Doc(pipelines["tokens"].vocab, words=words)

    doc = pipelines["tokens"](doc)

    assert [f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" for t in doc] == tagger.tag_words(words)


@settings(max_examples=40)
@given(
    words=st.sampled_from(["text", "tokens"]),
    text=st.text(st.sampled_from("AbMKäl  \n\t.-'1京\u200b\u00ad"), max_size=60),
)
def test_any_text_keeps_its_tokens_and_gets_entities_that_do_not_overlap(pipelines, words, text):
    nlp = pipelines[words]

    doc = nlp(text)

    assert [token.text for token in doc] == [token.text for token in nlp.make_doc(text)]
    assert all(0 <= entity._.xlner_score <= 1 and entity.text.strip() for entity in doc.ents)
    covered = [token.i for entity in doc.ents for token in entity]
    assert len(covered) == len(set(covered))


@pytest.mark.parametrize("words", ["text", "tokens"])
def test_a_document_longer_than_the_window_is_tagged_to_its_end(pipelines, words):
    doc = pipelines[words](" ".join(SENTENCES * 10))

    assert doc.ents[-1].end_char > len(doc.text) * 0.9


@pytest.mark.parametrize("text", ["", " ", "\n \t", "\u200b"])
def test_a_document_without_words_has_no_entities(pipelines, text):
    assert [len(nlp(text).ents) for nlp in pipelines.values()] == [0, 0]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_stream_of_documents_gets_what_each_gets_alone(pipelines, batch_size):
    texts = [*SENTENCES, "", TEXT]
    nlp = pipelines["text"]

    documents = list(nlp.pipe(iter(texts), batch_size=batch_size))

    assert [spans(doc) for doc in documents] == [spans(nlp(text)) for text in texts]


def test_entities_that_are_there_already_stay_unless_they_shall_be_overwritten(pipeline, pipelines):
    def prepared(nlp):
        doc = nlp.make_doc(SENTENCES[0])
        doc.set_ents([Span(doc, 0, 3, label="TITLE")])
        return doc

    kept = pipelines["text"](prepared(pipelines["text"]))
    nlp = pipeline(overwrite_ents=True)
    replaced = nlp(prepared(nlp))

    assert spans(kept)[0] == (0, 3, "TITLE")
    assert kept.ents[0]._.xlner_score is None
    assert spans(replaced) == [(e.start, e.end, e.label_) for e in replaced.spans["xlner"]]
    assert set(spans(kept)[1:]) <= set(spans(replaced))


def test_two_components_keep_their_entities_and_scores_apart(pipelines, bert_folder, xlmr_folder):
    nlp = spacy.blank("de")
    for name, model in (("one", bert_folder), ("two", xlmr_folder)):
        nlp.add_pipe("xlner", name=name, config={"model": str(model)})

    doc = nlp(SENTENCES[0])

    first = pipelines["text"](SENTENCES[0])
    assert [(e.start, e.end, e.label_) for e in doc.spans["xlner.one"]] == spans(first)
    assert doc.spans["xlner.two"].attrs["scores"]
    assert all(entity._.xlner_score is not None for entity in doc.ents)
    scores = {(e.start, e.end, e.label_): e._.xlner_score for e in doc.ents}
    assert {key: scores[key] for key in spans(first)} == {
        (e.start, e.end, e.label_): e._.xlner_score for e in first.ents
    }


def test_a_saved_pipeline_needs_the_first_model_no_more(bert_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "model")
    nlp = spacy.blank("de")
    nlp.add_pipe("xlner", config={"model": str(folder)})
    before = spans(nlp(SENTENCES[0]))

    nlp.to_disk(tmp_path / "pipeline")
    shutil.rmtree(folder)
    (tmp_path / "pipeline").rename(tmp_path / "elsewhere")

    assert before
    assert spans(spacy.load(tmp_path / "elsewhere")(SENTENCES[0])) == before


def test_a_pipeline_is_saved_where_it_was_loaded(pipeline, tmp_path):
    pipeline().to_disk(tmp_path / "pipeline")
    nlp = spacy.load(tmp_path / "pipeline")

    nlp.to_disk(tmp_path / "pipeline")

    assert spans(spacy.load(tmp_path / "pipeline")(SENTENCES[0])) == spans(pipeline()(SENTENCES[0]))


def test_entities_and_scores_survive_a_docbin(pipelines):
    doc = pipelines["text"](SENTENCES[0])

    (stored,) = DocBin(docs=[doc]).get_docs(pipelines["text"].vocab)

    assert spans(stored) == spans(doc)
    assert [e._.xlner_score for e in stored.ents] == [e._.xlner_score for e in doc.ents]


def test_the_entry_point_of_the_package_names_the_factory():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    ((name, value),) = project["entry-points"]["spacy_factories"].items()

    factory = EntryPoint(name, value, "spacy_factories").load()

    assert name == "xlner"
    assert factory is xlner.spacy_component.make_component


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": ""}, ModelError, 'name the model: nlp.add_pipe("xlner"'),
        ({"words": "letters"}, RecipeError, "unknown words of the component xlner 'letters'; known: text, tokens"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_at_once(pipeline, options, error, message):
    with pytest.raises(error, match="^" + message.replace("(", "[(]")):
        pipeline(**options)


def test_a_model_that_is_not_there_is_told_with_the_first_document_and_when_saving(pipeline, tmp_path):
    nlp = pipeline(model=str(tmp_path / "nope"))

    with pytest.raises(ModelError, match="no such folder"):
        nlp("Kiel")
    with pytest.raises(ModelError, match="no such folder"):
        nlp.to_disk(tmp_path / "pipeline")


# Threads that computed before the fork are missing behind it; where processes are spawned, the tagger is sent to them.
ON_PROCESSES = """
import json, multiprocessing, sys
import spacy

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[3])
    nlp = spacy.blank("de")
    nlp.add_pipe("xlner", config={"model": sys.argv[1]})
    texts = json.loads(sys.argv[2])

    def found(documents):
        return [[(e.start, e.end, e.label_, round(e._.xlner_score, 4)) for e in doc.ents] for doc in documents]

    alone = found(nlp.pipe(texts, batch_size=20))
    assert any(alone)
    assert found(nlp.pipe(texts, batch_size=20, n_process=2)) == alone
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_processes_of_spacy_find_what_the_parent_found_before(method, bert_folder, tmp_path):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    script = tmp_path / "on_processes.py"  # a file, since spawned processes read it again
    script.write_text(ON_PROCESSES, encoding="utf-8")
    command = [sys.executable, str(script), bert_folder, json.dumps([" ".join(SENTENCES)] * 40), method]

    done = subprocess.run(command, env=threads(2), cwd=tmp_path, capture_output=True, text=True, timeout=170)

    assert done.returncode == 0, done.stderr[-2000:]
