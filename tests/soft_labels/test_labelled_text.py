"""Labelled source sentences beside the target text."""

import numpy as np
import pytest
from accelerate import Accelerator
from runs import DISTILL, brief, report_of, run_script, run_well

from xlner.arrow_files import RowWriter
from xlner.corpora.splits import Corpus
from xlner.soft_labels.labelled import with_source
from xlner.soft_labels.store import COLUMNS, SoftLabelCard, SoftLabels, part_path, soft_row, write_card

TAGS = ("I-LOC", "O", "B-LOC")
TARGET = [["Ulm", "ist", "kalt"], ["In", "Kiel"]]
SOURCE = [("Oslo", "is", "far"), ("Rio", "Grande"), ("It", "rains"), ("Ann", "left")]
SOURCE_TAGS = [("B-LOC", "O", "O"), ("B-LOC", "I-LOC"), ("O", "O"), ("B-PER", "O")]


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    with RowWriter(part_path(folder, 0), COLUMNS) as writer:
        writer.write([soft_row(words, np.full((len(words), 3), 1 / 3), np.ones((len(words), 2))) for words in TARGET])
    write_card(folder, SoftLabelCard("t", "c", TAGS, 2, 1.0, 0.0, 2, 5, 1))
    return SoftLabels(folder)


def mixed(target, tmp_path, share):
    source = Corpus("train", tmp_path / "train.conll", SOURCE, SOURCE_TAGS, "abc")
    return with_source(target, source, share, None, Accelerator(cpu=True))


def test_the_target_comes_first_and_as_it_was(target, tmp_path):
    found = mixed(target, tmp_path, 0.5)

    for number, words in enumerate(TARGET):
        assert found.words(number) == words
        np.testing.assert_array_equal(found.probs(number), target.probs(number))
        np.testing.assert_array_equal(found.projections(number), target.projections(number))


@pytest.mark.parametrize(("share", "n_source"), [(0.34, 1), (0.5, 2), (0.6, 3), (0.9, 4)])
def test_so_many_source_sentences_follow_as_make_up_the_share(target, tmp_path, share, n_source):
    found = mixed(target, tmp_path, share)

    assert (len(found), found.card.n_sentences) == (2 + n_source, 2 + n_source)
    assert found.card.n_words == 5 + sum(len(found.words(2 + number)) for number in range(n_source))


def test_gold_tags_have_probability_one_by_their_name(target, tmp_path):
    found = mixed(target, tmp_path, 0.9)

    place = [found.words(number) for number in range(6)].index(["Rio", "Grande"])
    assert found.probs(place).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert found.weights(place).tolist() == [1, 1]


def test_a_word_of_a_type_that_the_student_does_not_know_is_not_learnt_from(target, tmp_path):
    found = mixed(target, tmp_path, 0.9)

    place = [found.words(number) for number in range(6)].index(["Ann", "left"])
    assert found.weights(place).tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["pooled", "calibrated"])
def test_a_student_learns_from_both_languages(learning, variant, tmp_path):
    arguments = [argument for argument in brief(learning) if not argument.startswith("variant=")]

    run_well(DISTILL, *arguments, f"variant={variant}", "source.share=0.4", "run=first", cwd=tmp_path)

    (folder,) = (tmp_path / "runs" / "soft-labels").glob("**/source-*")
    found = SoftLabels(folder)
    assert len(found) == 100  # 60 target sentences, 40 source ones
    assert report_of(tmp_path / "runs" / "first")["text"]["sentences"] == 60
    with_projections = any(np.any(found.projections(number)) for number in range(60, 100))
    assert with_projections == (variant == "calibrated")


@pytest.mark.slow
def test_a_source_without_labelled_text_is_named(learning, tmp_path):
    finished = run_script(DISTILL, *learning, "source.share=0.4", "source.language=fr", "run=x", cwd=tmp_path)

    (message,) = finished.messages
    assert finished.status == 2
    assert "fr" in message
    assert not (tmp_path / "runs" / "soft-labels").exists()  # told before a teacher labels the text
