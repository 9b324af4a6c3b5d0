"""`xlner export --spacy`: silver annotation, soft targets, and a pipeline that spaCy opens without xlner."""

import json
import subprocess
import sys
import zipfile
from itertools import pairwise

import numpy as np
import pytest
from conftest import SENTENCES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from runs import sentences, write_text
from typer.testing import CliRunner

from xlner.cli import app
from xlner.errors import CorpusError, ModelError, RecipeError
from xlner.tag_files.records import Record
from xlner.tagger import load_tagger
from xlner.tags import LabelSet

spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'xlner[spacy]'")

from spacy.tokens import Doc, Span  # noqa: E402
from spacy.training import Example  # noqa: E402

from xlner.export.spacy_pipeline import (  # noqa: E402
    SOFT_NER,
    TAGS,
    TOKEN_PROBS,
    Learning,
    blank,
    closed_targets,
    export_pipeline,
    one_tagger,
    open_targets,
    silver_docs,
    token_probs,
)

TAGS_OF_TWO = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
ACTIONS = ["O", "B-LOC", "I-LOC", "L-LOC", "U-LOC", "B-PER", "I-PER", "L-PER", "U-PER"]


@pytest.fixture(scope="module")
def tagger(bert_folder):
    return load_tagger(bert_folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file of raw text: 200 lines."""
    path = tmp_path_factory.mktemp("raw") / "de.txt"
    write_text(path, sentences(200, seed=1))
    return path


@pytest.fixture(scope="module")
def trained(bert_folder, text, tmp_path_factory):
    """A pipeline that the command has trained, from soft labels, with a rule and a wheel; and what it told."""
    place = tmp_path_factory.mktemp("spacy")
    rules = place / "rules.jsonl"
    rules.write_text('{"label": "ORG", "pattern": "Novatec"}\n', encoding="utf-8")
    told = export(
        bert_folder,
        *("--spacy", place / "de_small", "--text", text, "--max-steps", 40),
        *("--patterns", rules, "--wheel", place / "wheels"),
    )
    return place / "de_small", told


def export(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def text_record(text):
    return Record(1, "here", text, None, None, {"text": text})


def word_record(words):
    return Record(1, "here", None, tuple(words), None, {"words": words})


def test_a_silver_document_has_the_entities_that_the_tagger_finds(tagger):
    docs = list(silver_docs(blank("de"), one_tagger([tagger]), map(text_record, SENTENCES)))

    for doc, sentence in zip(docs, SENTENCES, strict=True):
        spans = {doc.char_span(e.start, e.end, e.label, alignment_mode="expand") for e in tagger.tag(sentence)}
        assert {(e.start, e.end, e.label_) for e in doc.ents} <= {(s.start, s.end, s.label_) for s in spans}
        assert {t.i for e in doc.ents for t in e} == {t.i for s in spans for t in s}
        assert all(token.ent_iob != 0 for token in doc)
        assert doc.text == sentence


def test_words_that_are_given_stay_the_tokens(tagger):
    words = ["Jean-Claude", "und", "O'Brien", "z.B.", "18-jährig"]

    (doc,) = silver_docs(blank("de"), one_tagger([tagger]), [word_record(words)])

    assert [token.text for token in doc] == words
    assert [f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" for t in doc] == tagger.tag_words(words)
    np.testing.assert_allclose(doc.user_data[TOKEN_PROBS], tagger_probs(tagger, words), atol=1e-5)


def tagger_probs(tagger, words):
    (probs,) = tagger.probs([words])
    order = [tagger.labels.tags.index(tag) for tag in LabelSet.of_types(tagger.labels.types).tags]
    return probs[:, order]


@pytest.mark.parametrize("least", [0.3, 0.6, 1.0])
def test_what_is_less_likely_than_the_least_score_is_unknown_and_not_outside(tagger, least):
    words = SENTENCES[0].split()
    ((spans, probs),) = [(tagger.spans_in_sentences([words])[0], tagger_probs(tagger, words))]

    (doc,) = silver_docs(blank("de"), one_tagger([tagger]), [word_record(words)], min_score=least)

    certain = {(s.start, s.end, s.label) for s, score in spans if score >= least}
    inside = {n for start, end, _ in certain for n in range(start, end)}
    doubted = {n for s, score in spans if score < least for n in range(s.start, s.end)}
    doubted |= {n for n in range(len(words)) if n not in inside and probs[n, 0] < least}
    assert {(e.start, e.end, e.label_) for e in doc.ents} == certain
    assert {token.i for token in doc if token.ent_iob == 0} == doubted


def test_records_without_words_are_left_out(tagger):
    docs = list(silver_docs(blank("de"), one_tagger([tagger]), map(text_record, ["", "  ", "Kiel", "\u200b"])))

    assert [doc.text for doc in docs] == ["Kiel"]


def test_several_taggers_speak_with_the_mean_of_their_probabilities(tagger, xlmr_folder):
    other = load_tagger(xlmr_folder)
    words = SENTENCES[1].split()

    (found,) = one_tagger([tagger, other]).probs([words])

    first, second = (one_tagger([one]).probs([words])[0] for one in (tagger, other))
    np.testing.assert_allclose(found, (first + second) / 2, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_taggers_of_different_types_are_refused(tagger):
    class Fewer:
        types = ("PER",)

    with pytest.raises(ModelError, match=r"^model 2 knows the types PER, the first one LOC"):
        one_tagger([tagger, Fewer()])


@pytest.mark.slow
@given(
    cuts=st.sets(st.integers(1, 11)),
    word_cuts=st.sets(st.integers(1, 11)),
    rows=arrays.arrays(np.float32, (12, 5), elements=st.floats(0.0625, 1.0, width=32)),
)
def test_each_token_has_the_probabilities_of_a_word_that_it_shares_characters_with(cuts, word_cuts, rows):
    rows = rows / rows.sum(axis=1, keepdims=True)
    offsets = spans_between(word_cuts)
    doc = Doc(
        spacy.blank("xx").vocab,
        words=["abcdefghijkl"[a:b] for a, b in spans_between(cuts)],
        spaces=[False] * (len(cuts) + 1),
    )

    found = token_probs(doc, offsets, rows[: len(offsets)], LabelSet(TAGS_OF_TWO))

    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    for token in doc:
        touched = [n for n, (a, b) in enumerate(offsets) if a < token.idx + len(token) and b > token.idx]
        assert found[token.i, 0] == min(rows[n, 0] for n in touched)
        if offsets[touched[0]][0] < token.idx:
            assert not found[token.i, 1::2].any()


def spans_between(cuts):
    edges = [0, *sorted(cuts), 12]
    return list(pairwise(edges))


def test_soft_targets_by_hand():
    probs = np.array([[0.1, 0.0, 0.0, 0.9, 0.0], [0.2, 0.0, 0.0, 0.2, 0.6], [1.0, 0, 0, 0, 0]], dtype=np.float32)

    closed = closed_targets(probs, TAGS_OF_TWO, ACTIONS)

    # It begins, and goes on with probability 0.6; the second I-PER cannot be where nothing is open.
    by_hand = [
        {"O": 0.1, "B-PER": 0.54, "U-PER": 0.36},
        {"O": 0.5, "U-PER": 0.5},
        {"O": 1.0},
    ]
    np.testing.assert_allclose(closed, [[row.get(name, 0.0) for name in ACTIONS] for row in by_hand], atol=1e-6)
    np.testing.assert_allclose(open_targets(probs), [[0.0, 0.6], [0.0, 0.0], [0.0, 0.0]], atol=1e-6)


@given(arrays.arrays(np.float32, (6, 5), elements=st.floats(0.0, 1.0, width=32)))
def test_soft_targets_are_probabilities_of_actions_that_are_open_to_choice(probs):
    closed = closed_targets(probs, TAGS_OF_TWO, ACTIONS)

    sums = closed.sum(axis=1)
    assert np.all(np.isclose(sums, 1, atol=1e-4) | (sums == 0))
    assert not closed[:, [ACTIONS.index(name) for name in ("I-LOC", "L-LOC", "I-PER", "L-PER")]].any()
    assert not closed[-1, [ACTIONS.index(name) for name in ("B-LOC", "B-PER")]].any()


def soft_and_hard(words, probs):
    """A soft recognizer and spaCy's own with the same weights, and a document that both may learn from."""
    found = []
    for factory in (SOFT_NER, "ner"):
        nlp = spacy.blank("de")
        recognizer = nlp.add_pipe(factory, name="ner")
        reference = Doc(nlp.vocab, words=words)
        reference.set_ents([Span(reference, 0, 2, "PER"), Span(reference, 3, 4, "LOC")], default="outside")
        reference.user_data[TOKEN_PROBS], reference.user_data[TAGS] = probs, list(TAGS_OF_TWO)
        example = Example(Doc(nlp.vocab, words=words), reference)
        nlp.initialize(lambda example=example: [example])
        found.append((nlp, recognizer, example))
    found[0][1].model.from_bytes(found[1][1].model.to_bytes())
    return found


def test_targets_that_are_certain_teach_what_the_annotation_teaches():
    words = ["Angela", "Merkel", "besucht", "Kiel"]
    certain = np.eye(5, dtype=np.float32)[[3, 4, 0, 1]]
    gradients = []

    for _, recognizer, example in soft_and_hard(words, certain):
        recognizer.update([example])  # hands the probabilities to the document
        states, golds, _ = recognizer.moves.init_gold_batch([example])
        scores = np.linspace(-1, 1, recognizer.moves.n_moves, dtype=np.float32)[None, :].copy()
        gradients.append(np.array(recognizer.get_batch_loss(states, golds, scores, None)))

    names = [recognizer.moves.get_class_name(n) for n in range(recognizer.moves.n_moves)]
    assert gradients[0][0, names.index("B-PER")] == gradients[0].min()
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-6)


@pytest.mark.slow
def test_probabilities_are_learnt_as_such():
    words = ["Angela", "Merkel", "besucht", "Kiel"]
    probs = np.array(
        [[0.3, 0.0, 0.0, 0.7, 0.0], [0.2, 0, 0, 0.2, 0.6], [1, 0, 0, 0, 0], [0.4, 0.6, 0, 0, 0]], dtype=np.float32
    )
    (nlp, recognizer, example), _ = soft_and_hard(words, probs)
    optimizer = nlp.create_optimizer()

    for learn_rate in (1e-3, 1e-4):
        optimizer.learn_rate = learn_rate
        for _ in range(100):
            nlp.update([example], sgd=optimizer)

    (state,) = recognizer.moves.init_batch([example.predicted])
    model, _ = recognizer.model.begin_update([example.predicted])
    scores = np.asarray(model.predict([state]))[0]
    shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    expected = closed_targets(probs, TAGS_OF_TWO, [recognizer.moves.get_class_name(n) for n in range(len(shares))])
    np.testing.assert_allclose(shares, expected[0], atol=0.1)


@pytest.mark.slow
def test_the_command_tells_what_it_has_made(trained):
    folder, told = trained

    assert told.exit_code == 0, told.stderr
    assert told.stdout.startswith(f"{folder}: learnt from 190 records, ")
    assert " on 10 held out; " in told.stdout
    assert sorted(path.name for path in folder.parent.iterdir()) == ["de_small", "rules.jsonl", "wheels"]


@pytest.mark.slow
def test_the_pipeline_opens_where_xlner_cannot_be_imported(trained):
    folder, _ = trained
    without_xlner = (  # neither its modules nor the entry points that its installation made
        "import importlib.metadata as installed, sys; sys.modules['xlner'] = None; every = installed.distributions; "
        "installed.distributions = lambda **how: (one for one in every(**how) if one.name != 'xlner'); "
    )
    ask = (
        f"{without_xlner} import spacy; nlp = spacy.load({str(folder)!r}); "
        "print(nlp.pipe_names, nlp.get_pipe_meta('ner').factory); "
        "print([(e.text, e.label_) for e in nlp('es regnet bei Novatec .').ents if e.label_ == 'ORG'])"
    )

    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)

    assert answer.stdout == "['tok2vec', 'ner', 'entity_ruler'] ner\n[('Novatec', 'ORG')]\n"


def test_the_folder_tells_nothing_of_where_it_was_made(trained):
    folder, _ = trained
    config, meta = (folder / "config.cfg").read_text(), json.loads((folder / "meta.json").read_text())

    assert "train = null" in config
    assert "dev = null" in config
    assert "xlner" not in config
    assert str(folder.parent) not in config + json.dumps(meta)
    assert (meta["lang"], meta["name"]) == ("de", "small")


def test_the_wheel_holds_the_pipeline(trained):
    folder, told = trained

    (wheel,) = (folder.parent / "wheels").iterdir()

    assert wheel.name == "de_small-0.0.0-py3-none-any.whl"
    assert told.stdout.splitlines()[-1] == str(wheel)
    names = zipfile.ZipFile(wheel).namelist()
    assert {"de_small/__init__.py", "de_small/de_small-0.0.0/config.cfg", "de_small/de_small-0.0.0/ner/model"} <= {
        *names
    }


@pytest.mark.slow
def test_the_same_seed_makes_the_same_pipeline(tagger, tmp_path):
    records = [word_record([word for word, _ in sentence]) for sentence in sentences(60, seed=1)]

    for name, seed in (("first", 3), ("second", 3), ("third", 4)):
        export_pipeline([tagger], records, tmp_path / name, Learning("de", seed=seed, max_steps=5))

    weights = [(tmp_path / name / "ner" / "model").read_bytes() for name in ("first", "second", "third")]
    assert weights[0] == weights[1] != weights[2]


def test_hard_labels_with_a_least_score_are_counted(bert_folder, text, tmp_path):
    told = export(
        bert_folder, "--spacy", tmp_path / "out", "--text", text, "--hard", "--min-score", 0.6, "--max-steps", 3
    )

    assert told.exit_code == 0, told.stderr
    assert " tokens unknown; F1 " in told.stdout


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--spacy", "out"], CorpusError, "give --text FILE"),
        (["--spacy", "out", "--text", "nope.txt"], CorpusError, "nope.txt"),
        (["--spacy", "taken", "--text", "text"], ModelError, "taken: exists and holds file"),
        (["--spacy", "out", "--text", "text", "--lang", "qq"], ModelError, "no tokenizer for the language 'qq'"),
        (["--spacy", "out", "--text", "text", "--min-score", "0.5"], ModelError, "needs --hard"),
        (["--spacy", "out", "--text", "text", "--patterns", "bad.jsonl"], RecipeError, "cannot read it as rules"),
        (["--spacy", "out", "--text", "text", "--patterns", "nope.jsonl"], RecipeError, "cannot read it as rules"),
        (["--spacy", "out", "--text", "text", "--patterns", "empty.jsonl"], RecipeError, "holds no rule"),
        (["--spacy", "out", "--text", "short.txt"], CorpusError, "no entity in the 0 records to hold out"),
        (["--spacy", "out", "--onnx", "out"], ModelError, "name one folder to make"),
        ([], ModelError, "name one folder to make"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_written(
    bert_folder, tmp_path, monkeypatch, arguments, error, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "text").write_text("Anna lebt in Kiel .\n" * 30)
    (tmp_path / "short.txt").write_text("Anna lebt in Kiel .\n")
    (tmp_path / "bad.jsonl").write_text('{"label": "ORG"}\n')
    (tmp_path / "empty.jsonl").touch()

    told = export(bert_folder, *arguments)

    assert isinstance(told.exception, error)
    assert message in str(told.exception)
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_tell_its_language_needs_it_named(xlmr_folder, text, tmp_path):
    told = export(xlmr_folder, "--spacy", tmp_path / "out", "--text", text)

    assert isinstance(told.exception, ModelError)
    assert "does not tell its language; give --lang" in str(told.exception)


def test_without_spacy_it_is_told_how_to_install_it(bert_folder, text, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("xlner.export.spacy_pipeline")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setitem(sys.modules, "spacy.tokens", None)

    told = export(bert_folder, "--spacy", tmp_path / "out", "--text", text)

    assert isinstance(told.exception, ModelError)
    assert "install it by `pip install xlner[spacy]`" in str(told.exception)


def test_several_models_cannot_become_one_graph(bert_folder, tmp_path):
    told = export(bert_folder, bert_folder, "--onnx", tmp_path / "out")

    assert isinstance(told.exception, ModelError)
    assert "--onnx exports one model, found 2" in str(told.exception)
