"""Weights of teachers by the likeness of their languages to the target."""

import json
import shutil

import numpy as np
import pytest
from accelerate import Accelerator
from runs import sentences, write_conll, write_text

from xlner.config.schema import DistillRecipe, MixingRecipe
from xlner.errors import RecipeError
from xlner.jobs.inputs import teachers_of
from xlner.soft_labels.languages import effective_number, identify_languages, teacher_weights
from xlner.soft_labels.mix import taught_soft_labels

PER_LANGUAGE = MixingRecipe(weights="language")
PER_SENTENCE = MixingRecipe(weights="language", per="sentence")


@pytest.fixture(scope="module")
def clouds():
    """Vectors of three languages, the last of few sentences, and the languages' centres."""
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8, dtype=np.float32) * 4
    languages = np.repeat(np.arange(3), [200, 200, 50])
    return (centres[languages] + rng.normal(size=(450, 8)) + 7).astype(np.float32), languages, centres + 7


@pytest.fixture
def folder(tmp_path):
    """Text of `en` (small letters) and `es` (capitals and digits), and the target `de`, most of it like `es`."""
    for language, change in (("en", str.lower), ("es", lambda word: f"{word.upper()}9")):
        rows = [[(change(word), tag) for word, tag in row] for row in sentences(60, seed=1)]
        write_conll(tmp_path / "data" / language / "train.conll", rows)
    spanish = [[(f"{word.upper()}9", tag) for word, tag in row] for row in sentences(30, seed=2)]
    write_text(tmp_path / "data" / "de" / "train.txt", [*spanish, *sentences(10, seed=3)])
    return tmp_path


@pytest.fixture
def teacher(bert_folder, tmp_path):
    """A teacher that says that it is of a language."""

    def make(name, language):
        copy = tmp_path / name
        shutil.copytree(bert_folder, copy)
        settings = json.loads((copy / "xlner.json").read_text())
        (copy / "xlner.json").write_text(json.dumps({**settings, "language": language}))
        return str(copy)

    return make


def taught(folder, teachers, mixing):
    recipe = DistillRecipe(
        target="de",
        teacher=",".join(teachers),
        data=str(folder / "data"),
        soft_labels=str(folder / "store"),
        mixing=mixing,
    )
    return taught_soft_labels(teachers_of(recipe), folder / "data" / "de" / "train.txt", Accelerator(cpu=True), None)


def test_languages_are_told_apart_and_each_centre_is_like_its_own(clouds):
    vectors, languages, centres = clouds

    identifier = identify_languages(vectors, languages, 3)

    assert identifier.accuracy > 95
    assert identifier.probs(centres).argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(identifier.probs(centres).sum(axis=1), 1.0)


def test_a_sentence_between_two_languages_is_like_both(clouds):
    vectors, languages, centres = clouds

    probs = identify_languages(vectors, languages, 3).probs(centres[:2].mean(axis=0, keepdims=True))[0]

    assert probs[:2].min() > 0.2 > probs[2]


def test_the_same_sentences_give_the_same_identifier(clouds):
    first, second = (identify_languages(clouds[0], clouds[1], 3) for _ in range(2))

    assert np.array_equal(first.weights, second.weights)
    assert first[4:] == second[4:]


def test_vectors_that_tell_nothing_make_an_identifier_that_is_certain_of_nothing():
    vectors = np.random.default_rng(0).normal(size=(400, 100)).astype(np.float32)

    identifier = identify_languages(vectors, np.arange(400) % 2, 2)

    assert identifier.temperature > 2  # without it the regression, which overfits, would be sure
    assert identifier.probs(vectors[:50]).max() < 0.95


def test_teachers_of_one_language_share_its_weight():
    probs = np.asarray([[0.6, 0.4], [0.2, 0.8]])

    weights = teacher_weights(probs, np.asarray([0, 1, 0]))

    np.testing.assert_allclose(weights, [[0.3, 0.4, 0.3], [0.1, 0.8, 0.1]])


def test_the_effective_number_of_equal_weights_is_their_number():
    assert effective_number(np.asarray([0.25, 0.25, 0.25, 0.25, 0.0])) == pytest.approx(4)
    assert effective_number(np.asarray([1.0, 0.0])) == pytest.approx(1)


def test_the_teacher_of_the_language_that_the_target_is_like_weighs_most(folder, teacher):
    teachers = [teacher("a", "en"), teacher("b", "es"), teacher("c", "es")]

    found = taught(folder, teachers, PER_LANGUAGE)

    english, spanish, other = (row["weight"] for row in found.teachers)
    assert english + spanish + other == pytest.approx(1, abs=1e-5)
    assert spanish == other > 0.3


def test_weights_may_differ_from_sentence_to_sentence(folder, teacher, bert_folder):
    teachers = [teacher("a", "en"), teacher("b", "es")]
    config = json.loads((folder / "b" / "config.json").read_text())
    tags = list(config["id2label"].values())
    config["id2label"] = {str(number): tag for number, tag in enumerate(tags[2:] + tags[:2])}
    (folder / "b" / "config.json").write_text(json.dumps(config))

    both = [taught(folder, teachers, mixing) for mixing in (PER_LANGUAGE, PER_SENTENCE)]

    assert both[0].soft_labels.folder != both[1].soft_labels.folder
    assert [row["weight"] for row in both[0].teachers] == pytest.approx([row["weight"] for row in both[1].teachers])
    shares = []
    for number in (0, 35):  # like `es`, and like `en`
        english, spanish = (found.probs(number).astype(float) for found in both[1].by_model.values())
        spanish = spanish[:, [tags.index(tag) - 2 for tag in tags]]
        mixed = both[1].soft_labels.probs(number).astype(float)
        shares.append(float(((mixed - english) * (spanish - english)).sum() / ((spanish - english) ** 2).sum()))
        np.testing.assert_allclose(mixed, english + shares[-1] * (spanish - english), atol=0.01)
    assert shares[0] > shares[1] + 0.3


def test_what_is_missing_for_weights_by_language_is_told(folder, teacher, xlmr_folder):
    english, french, silent = teacher("a", "en"), teacher("b", "fr"), teacher("d", "")
    (folder / "data" / "it").mkdir()
    (folder / "data" / "it" / "train.txt").write_text("uno\ndue\n")

    for teachers, message in (
        ([english, silent], r"/d does not say its language; write .* into its xlner.json"),
        ([english, xlmr_folder], "does not say its language"),
        ([english, french], r"needs text of fr, for .*/b: no corpus at .*fr/train.conll"),
        ([english, teacher("c", "en")], "all teachers are of one language, en"),
        ([english, teacher("e", "it")], "it/train.txt has 2 sentences; 20 are needed"),
    ):
        with pytest.raises(RecipeError, match=message):
            taught(folder, teachers, PER_LANGUAGE)
