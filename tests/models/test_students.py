"""Compact students: their rows, their networks, their folder, and the same scores by every backend."""

import json
import re
import subprocess
import sys
import tomllib
from itertools import chain

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from xlner import load_tagger
from xlner.cli import app
from xlner.encode import PaddedWindows
from xlner.errors import ModelError
from xlner.models.compact import BODIES, new_network
from xlner.models.compact_folder import KNOWN, float_weights, load_network, open_student, write_student
from xlner.models.compact_words import (
    N_FEATURES,
    TEMPLATES,
    VOCABULARY_FILE,
    RowEncoder,
    Vocabulary,
    feature_rows,
    hashed_encoder,
    looked_up,
    word_features,
)
from xlner.models.settings import STUDENT_FILE, ModelSettings, Sizes, StudentSettings, read_student
from xlner.predict import word_probs
from xlner.spacy_component import make_component
from xlner.tag_files.job import model_fingerprint

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
FORMS = {"Anna": 5, "Kiel": 4, "in": 9, "lebt": 3, "1914": 2, "selten": 1}
SENTENCES = [["Anna", "lebt", "in", "Kiel"], ["Xaver"], ["in", "Kiel", "1999", "\u200b", "."] * 5, []]
WORDS = st.lists(st.text(min_size=1, max_size=30), max_size=40)


def numbered(max_words: int) -> RowEncoder:
    """Rows of two numbers: the length of a word and its first character."""
    return RowEncoder(lambda word: [len(word), ord(word[0])], 2, max_words, "numbered")


def make_student(folder, kind, decoder="softmax", precision="fp32"):
    """A folder with a network that has learnt nothing but says different things of different words."""
    vocabulary = Vocabulary.of_forms(FORMS, n_words=10, min_frequency=2)
    sizes = Sizes(vocabulary.n_words, vocabulary.n_characters, 6, 8, 4, 5, 7, 2, buckets=512)
    student = StudentSettings(kind, decoder, TAGS, sizes, max_words=6, precision=precision)
    encoder = hashed_encoder(6) if kind == "linear" else vocabulary.encoder(n_chars=8, max_words=6)
    torch.manual_seed(1)
    network = new_network(student, encoder.width)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    folder.mkdir(exist_ok=True)
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    write_student(folder, student, weights, ModelSettings(word_splitter="whitespace"))
    if kind != "linear":
        vocabulary.save(folder / VOCABULARY_FILE)
    return network.eval(), encoder


@given(WORDS, st.integers(4, 9))
def test_every_word_is_decided_once_and_its_row_stands_at_its_place(words, max_words):
    encoder = numbered(max_words)

    decided = []
    for window in encoder.encode([["other"], words], first_sentence=3):
        if window.sentence == 4:
            assert len(window.piece_ids) <= max_words * 2
            for place, number in zip(window.word_positions, window.word_numbers, strict=True):
                assert window.piece_ids[place : place + 2].tolist() == [len(words[number]), ord(words[number][0])]
            decided += window.word_numbers.tolist()

    assert decided == list(range(len(words)))


def test_rows_are_right_after_more_words_than_are_remembered(monkeypatch):
    monkeypatch.setattr("xlner.models.compact_words.KEPT_WORDS", 3)
    encoder = numbered(10)
    texts = [[letter * n for n in range(1, 8)] for letter in "abcd"]

    first = list(encoder.encode(texts[:1]))
    later = [window for text in texts for window in encoder.encode([text])]

    for window, words in zip([*first, *later], [texts[0], *texts], strict=True):
        assert window.piece_ids.reshape(-1, 2).tolist() == [[len(word), ord(word[0])] for word in words]


def test_a_vocabulary_keeps_the_most_frequent_words_in_lower_case_and_digits_as_0():
    vocabulary = Vocabulary.of_forms(FORMS | {"anna": 1, "1990": 1}, n_words=4, min_frequency=2)

    assert vocabulary.words == ("in", "anna", "kiel", "0000")
    assert looked_up("1914") == "0000"
    assert "A" in vocabulary.characters
    assert "s" not in vocabulary.characters  # it occurs once


def test_a_row_has_the_word_and_its_characters_and_a_long_word_keeps_its_ends(tmp_path):
    vocabulary = Vocabulary(("anna",), "Anamz")
    vocabulary.save(tmp_path / "v.json")
    encoder = Vocabulary.read(tmp_path / "v.json").encoder(n_chars=5, max_words=8)

    (window,) = encoder.encode([["Anna", "Annqqqqmz"]])

    assert window.piece_ids.tolist() == [2, 2, 3, 3, 4, 0, 1, 2, 3, 3, 5, 6]


def test_features_tell_words_apart_and_do_not_depend_on_the_batch():
    rows = np.asarray([[word_features(word) for word in ("Anna", "lebt", "in", "Kiel")]])
    alone = feature_rows(rows, 1 << 20)
    padded = np.concatenate([rows, np.zeros((1, 3, N_FEATURES), dtype=rows.dtype)], axis=1)

    assert alone.shape == (1, 4, len(TEMPLATES))
    assert (alone >= 0).all()
    assert (alone < 1 << 20).all()
    np.testing.assert_array_equal(feature_rows(padded, 1 << 20)[:, :4], alone)
    assert len(np.unique(alone[0, :, 0])) == 4  # four words, four rows of the first template
    assert len(np.unique(alone[0, 0])) > 30  # templates do not share a row


def test_features_fill_a_table_evenly():
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 1 << 31, (1, 2000, N_FEATURES))

    counts = np.bincount(feature_rows(rows, 1000).ravel(), minlength=1000)

    # 2,000 words of 42 templates on 1,000 rows: by chance 84 a row with a deviation of 9.
    assert counts.min() > 40
    assert counts.max() < 140


@pytest.mark.parametrize("decoder", ["softmax", "crf"])
@pytest.mark.parametrize("kind", sorted(BODIES))
def test_what_is_said_of_a_sentence_does_not_depend_on_its_batch(tmp_path, kind, decoder):
    make_student(tmp_path, kind, decoder)
    backend, encoder, _ = open_student(tmp_path)

    together = word_probs(backend, encoder, SENTENCES, n_tags=len(TAGS))
    alone = [word_probs(backend, encoder, [words], n_tags=len(TAGS))[0] for words in SENTENCES]

    for one, other, words in zip(together, alone, SENTENCES, strict=True):
        assert one.shape == (len(words), len(TAGS))
        np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_allclose(one.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("decoder", ["softmax", "crf"])
def test_the_linear_student_of_run_time_says_what_the_trained_one_says(tmp_path, decoder):
    network, encoder = make_student(tmp_path, "linear", decoder)
    backend, _, _ = open_student(tmp_path)
    windows = list(encoder.encode([["Anna", "lebt", "in", "Kiel"]]))
    rows = windows[0].piece_ids[None].astype(np.int64)
    mask = np.ones(rows.shape, dtype=bool)

    batch = PaddedWindows(rows, mask, windows[0].word_positions.astype(np.int64))

    (found,) = backend.logits([batch])

    expected = network(*map(torch.from_numpy, batch)).logits.detach().numpy()
    assert found.shape == (4, len(TAGS))
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_weights_say_nearly_the_same(tmp_path, precision):
    make_student(tmp_path / "whole", "linear")
    make_student(tmp_path / "small", "linear", precision=precision)

    whole, small = (
        word_probs(*open_student(tmp_path / name)[:2], SENTENCES, n_tags=len(TAGS)) for name in ("whole", "small")
    )

    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < sizes[0] * {"fp16": 0.55, "int8": 0.32}[precision]
    for one, other in zip(whole, small, strict=True):
        np.testing.assert_allclose(one, other, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_linear_student_is_opened_in_the_small_install(tmp_path, precision):
    make_student(tmp_path, "linear", "crf", precision)
    manual = (REPOSITORY / "docs" / "tagging.md").read_text(encoding="utf-8")
    small = set(manual.split("pip install numpy", 1)[1].splitlines()[0].split()) | {"numpy"}
    # What else xlner may use is hidden, rather than an environment made, for which a network would be needed. None in
    # sys.modules makes an import fail as if nothing were installed.
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    others = {re.split(r"[<>=\[]", name)[0].replace("-", "_") for name in wanted} - small
    ask = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(others - {'setuptools'})}));"
        "from xlner import load_tagger; print(load_tagger(sys.argv[1]).tag_words(['Anna', 'lebt', 'in', 'Kiel']))"
    )

    answer = subprocess.run([sys.executable, "-c", ask, str(tmp_path)], capture_output=True, text=True, check=False)

    assert {"safetensors", "torch", "transformers", "huggingface_hub"} <= others
    assert answer.stdout.strip() == str(load_tagger(tmp_path).tag_words(["Anna", "lebt", "in", "Kiel"])), answer.stderr


@pytest.mark.parametrize("kind", KNOWN)
def test_weights_are_read_as_safetensors_reads_them(tmp_path, kind):
    make_student(tmp_path, kind, "crf")

    found = float_weights(tmp_path, read_student(tmp_path))

    expected = load_file(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)


@settings(max_examples=60)
@given(st.data())
def test_damaged_weights_are_refused_by_name(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        make_student(folder, "linear")
        (folder / "model.safetensors").rename(folder / "whole")
    whole = (folder / "whole").read_bytes()
    start = data.draw(st.binary(max_size=30))
    damaged = start + whole[len(start) : data.draw(st.integers(0, len(whole)))]
    assume(damaged != whole)
    (folder / "model.safetensors").write_bytes(damaged)

    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_tagger(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_student_whose_weights_are_no_numbers_is_refused(tmp_path, number):
    make_student(tmp_path, "linear")
    weights = dict(load_file(tmp_path / "model.safetensors"))
    weights["body.table"] = weights["body.table"] * 0 + number
    save_file(weights, tmp_path / "model.safetensors")

    with pytest.raises(ModelError, match=r"model\.safetensors: body\.table has NaN or infinite numbers"):
        load_tagger(tmp_path)


@settings(max_examples=30)
@given(st.text(max_size=80))
def test_entities_of_any_text_are_slices_of_it(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "any-text"
    if not folder.exists():
        make_student(folder, "linear")

    for entity in load_tagger(folder).tag(text):
        assert text[entity.start : entity.end] == entity.text
        assert 0.0 <= entity.score <= 1.0


@pytest.mark.parametrize("kind", sorted(BODIES))
def test_a_stored_network_is_the_one_that_was_saved(tmp_path, kind):
    network, encoder = make_student(tmp_path, kind)

    found = load_network(tmp_path, read_student(tmp_path), encoder)

    for name, value in network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value)


def test_every_kind_can_be_opened():
    assert sorted(BODIES) == sorted(KNOWN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "found format 2, expected 1"),
        ({"kind": "pickle"}, "unknown kind of student 'pickle'"),
        ({"precision": "int4"}, "expected the settings of a compact student"),
        ({"tags": ["O", "PER"]}, "found tag 'PER'"),
        ({"max_words": 0}, "expected the settings of a compact student"),
        ({"surprise": 1}, "expected the settings of a compact student"),
    ],
)
def test_a_damaged_student_is_refused(tmp_path, change, message):
    make_student(tmp_path, "bilstm")
    content = json.loads((tmp_path / STUDENT_FILE).read_text())
    (tmp_path / STUDENT_FILE).write_text(json.dumps(content | change))

    with pytest.raises(Exception, match=message) as problem:
        load_tagger(tmp_path)

    assert type(problem.value).__module__ == "xlner.errors"


@pytest.mark.parametrize("name", ["model.safetensors", VOCABULARY_FILE])
@pytest.mark.parametrize("harm", ["missing", "cut", "another"])
def test_a_damaged_file_is_refused_by_its_name(tmp_path, name, harm):
    make_student(tmp_path, "bilstm", "crf")
    path = tmp_path / name
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif name == VOCABULARY_FILE:
        Vocabulary(("other",), "abc").save(path)
    else:
        make_student(tmp_path / "linear", "linear", "crf")
        path.write_bytes((tmp_path / "linear" / name).read_bytes())

    with pytest.raises(ModelError, match=name):
        load_tagger(tmp_path)


def test_a_linear_student_is_refused_on_another_device(tmp_path):
    make_student(tmp_path, "linear")

    with pytest.raises(ModelError, match="runs on the CPU alone"):
        load_tagger(tmp_path, device="cuda")


def test_commands_take_a_compact_student_as_any_other_model(tmp_path):
    make_student(tmp_path / "model", "linear")
    (tmp_path / "text.txt").write_text("Anna lebt in Kiel .\n", encoding="utf-8")
    (tmp_path / "gold.conll").write_text("Anna\tB-PER\nlebt\tO\n", encoding="utf-8")
    model = str(tmp_path / "model")

    tagged = CliRunner().invoke(app, ["tag", model, str(tmp_path / "text.txt")])
    checked = CliRunner().invoke(app, ["check-data", str(tmp_path / "gold.conll"), "--model", model])

    assert tagged.exit_code == 0, tagged.output
    assert checked.exit_code == 0, checked.output


def test_the_fingerprint_of_a_student_changes_with_its_weights(tmp_path):
    make_student(tmp_path, "linear")
    before = model_fingerprint(str(tmp_path))

    make_student(tmp_path, "linear", precision="fp16")

    assert model_fingerprint(str(tmp_path)) != before


def test_a_spacy_pipeline_keeps_a_copy_of_a_compact_student(tmp_path):
    spacy = pytest.importorskip("spacy")
    make_student(tmp_path / "model", "bilstm")
    component = make_component(spacy.blank("de"), "xlner", str(tmp_path / "model"), "text", True, "cpu")
    component.to_disk(tmp_path / "saved")

    copy = make_component(spacy.blank("de"), "xlner", "elsewhere", "text", True, "cpu").from_disk(tmp_path / "saved")

    assert copy.open().tag("Anna lebt in Kiel .") == component.open().tag("Anna lebt in Kiel .")


def test_several_students_tag_as_one_by_the_mean_of_what_they_say(tmp_path):
    names = []
    for kind in ("linear", "bilstm"):
        make_student(tmp_path / kind, kind)
        names.append(tmp_path / kind)
    sentences = [["Anna", "lebt", "in", "Kiel"], ["Ulm"]]

    ensemble = load_tagger(names)

    members = [load_tagger(name).probs(sentences) for name in names]
    for found, *rows in zip(ensemble.probs(sentences), *members, strict=True):
        np.testing.assert_allclose(found, np.mean(rows, axis=0), atol=1e-6)
    assert ensemble.name == f"{names[0]} + {names[1]}"
    assert ensemble.types == load_tagger(names[0]).types
    assert [e.text for e in ensemble.tag("Anna lebt in Kiel")] == [
        e.text for e in ensemble.tag_batch(["Anna lebt in Kiel"])[0]
    ]
    with pytest.raises(ModelError, match="several models have no one network"):
        ensemble.model  # noqa: B018


def test_models_that_share_no_words_do_not_tag_as_one(tmp_path):
    for kind in ("linear", "bilstm"):
        make_student(tmp_path / kind, kind)
    (tmp_path / "bilstm" / "xlner.json").write_text(json.dumps({"word_splitter": "unicode"}), encoding="utf-8")

    with pytest.raises(ModelError, match="split text into words in different ways"):
        load_tagger([tmp_path / "linear", tmp_path / "bilstm"])
    with pytest.raises(ModelError, match="found an empty list"):
        load_tagger([])
