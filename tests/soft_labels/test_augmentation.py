"""New sentences for a teacher to label: of the text's own words, the same for the same seed, none of held-out ones."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import DISTILL, TINY, brief, report_of, run_well
from test_compact_runs import SMALL

from xlner.config.load import load_recipe
from xlner.corpora.source import read_corpus
from xlner.encode import Window
from xlner.jobs.student import held_out_of, training_text
from xlner.soft_labels.augment import LONGEST_PART, WordClasses, augmented, find_classes
from xlner.train.batches import Plan

NO_CLASSES = WordClasses({}, (), ())
TEXT = [
    f"{name} {verb} in {place} .".split()
    for name in ("Anna", "Boris")
    for verb in ("lebt", "wohnt")
    for place in ("Kiel", "Ulm", "Wien")
] * 3


def classes(seed=0):
    return find_classes(TEXT, n_classes=4, min_frequency=3, rng=np.random.default_rng(seed))


def test_words_that_stand_in_like_places_are_of_one_class():
    found = classes().class_of

    assert found["Anna"] == found["Boris"] != found["lebt"]
    assert found["Kiel"] == found["Ulm"] == found["Wien"]
    assert found["lebt"] == found["wohnt"]


def test_a_word_is_exchanged_with_words_of_its_class_as_often_as_they_occur():
    rng = np.random.default_rng(0)
    some = WordClasses({"a": 0, "b": 0}, (("a", "b"),), (np.asarray([0.75, 0.25]),))

    drawn = Counter(some.like("b", rng) for _ in range(2000))

    assert drawn["a"] / 2000 == pytest.approx(0.75, abs=0.04)
    assert some.like("unknown", rng) == "unknown"


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=9), max_size=6), st.integers(0, 3), st.integers(0, 99))
def test_new_sentences_are_made_of_the_words_of_the_text_and_the_mask(sentences, n, seed):
    found = list(augmented(sentences, n, NO_CLASSES, "[MASK]", seed))

    assert len(found) == n * sum(map(bool, sentences))
    assert found == list(augmented(iter(sentences), n, NO_CLASSES, "[MASK]", seed))
    longest = max(map(len, sentences), default=0)
    for words in found:
        assert 1 <= len(words) <= 2 * longest
        assert set(words) <= {"[MASK]", *(word for sentence in sentences for word in sentence)}


def test_some_words_are_hidden_some_exchanged_some_sentences_cut_and_some_joined():
    long = [[*words, *words] for words in TEXT] * 20

    found = list(augmented(long, 1, classes(), "[MASK]", seed=3))

    n_words = sum(map(len, found))
    assert sum(word == "[MASK]" for words in found for word in words) / n_words == pytest.approx(0.1, abs=0.02)
    assert sum(len(words) <= LONGEST_PART for words in found) / len(found) == pytest.approx(0.25, abs=0.06)
    assert sum(len(words) > 10 for words in found) / len(found) == pytest.approx(0.1, abs=0.05)
    whole = [(old, new) for old, new in zip(long, found, strict=True) if len(new) == 10]
    changes = [a != b for old, new in whole for a, b in zip(old, new, strict=True) if b != "[MASK]"]
    assert 0.02 < np.mean(changes) < 0.15


def test_held_out_sentences_are_those_that_no_window_of_training_shows(recipe_of):
    held_out = held_out_of(40, recipe_of(holdout_ratio=0.25))
    words = np.arange(3, dtype=np.int32)
    windows = [Window(number // 2, words, words, words) for number in range(80)]
    soft_labels = SimpleNamespace(weights=lambda sentence: np.ones(3), probs=lambda sentence: np.ones((3, 2)))
    student = SimpleNamespace(soft_labels=soft_labels, encoder=SimpleNamespace(pad_id=0))

    text = training_text(student, windows, held_out, "none")

    shown = text.windows(Plan(np.arange(len(text.lengths)), (0,)))
    assert len(held_out) == 10
    assert [window.sentence for window in shown] == [n // 2 for n in range(80) if n // 2 not in held_out]
    assert not {window.sentence for window in shown} & held_out


@pytest.fixture
def recipe_of():
    return lambda **keys: load_recipe("distill", ["target=de", *(f"{key}={value}" for key, value in keys.items())])


@pytest.mark.slow
def test_a_student_learns_from_new_sentences_that_its_teacher_labelled(teacher, small_data, tmp_path):
    arguments = ("target=de", f"teacher={teacher / 'model'}", f"data={small_data}", *TINY, *SMALL, "compact.augment=2")

    run_well(DISTILL, *brief(arguments, 2), "student=linear", "holdout_ratio=0.2", "run=a", cwd=tmp_path)

    (path,) = (tmp_path / "runs" / "soft-labels").rglob("augmented-*.jsonl")
    known = set((small_data / "de" / "train.txt").read_text(encoding="utf-8").split())
    new = list(read_corpus(path))
    assert len(new) == 2 * 48
    assert {word for sentence in new for word in sentence.words} <= known | {"[MASK]"}
    assert report_of(tmp_path / "runs" / "a")["training"]["steps"] == 2 * (48 * 3 // 8)


@pytest.mark.slow
def test_a_changed_bit_in_any_cache_is_noticed_and_the_student_is_the_same(teacher, small_data, tmp_path):
    arguments = (
        "target=de",
        f"teacher={teacher / 'model'},{teacher / 'model'}/",  # twice, so that there is a mixture
        f"data={small_data}",
        *TINY,
        *SMALL,
        "compact.augment=1",
        "student=linear",
        "holdout_ratio=0.2",
    )
    run_well(DISTILL, *arguments, "run=a", cwd=tmp_path)
    caches = [path for path in (tmp_path / "runs" / "soft-labels").rglob("*") if path.suffix in {".arrow", ".json"}]
    kinds = {path.name.partition("-")[0].partition(".")[0] for path in caches}
    for path in caches:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)

    again = run_well(DISTILL, *arguments, "run=b", cwd=tmp_path)

    assert kinds >= {"soft_labels", "part", "windows", "mixture", "scores", "augmented"}
    assert "; made again" in again.stdout
    assert "; scored again" in again.stdout
    models = [sorted((tmp_path / "runs" / name / "model").iterdir()) for name in ("a", "b")]
    first, second = ([path.read_bytes() for path in model if path.suffix != ".md"] for model in models)
    assert first == second
