"""What a run tells of its teacher's labels without any target label, against numbers worked out by hand."""

import numpy as np
import pytest

from xlner.soft_labels.pooling import LabelChanges, label_changes, mean_sureness

TAGS = ("O", "B-LOC", "I-LOC", "B-PER")
BEFORE = np.array(
    [[0.1, 0.8, 0.1, 0.0], [0.2, 0.1, 0.7, 0.0], [0.9, 0.1, 0.0, 0.0], [0.4, 0.0, 0.0, 0.6], [0.0, 0.0, 0.0, 0.0]]
)
# B-LOC becomes I-LOC (no change), I-LOC becomes O, O becomes B-PER, B-PER becomes B-LOC; the last word was not seen.
AFTER = np.array(
    [[0.1, 0.2, 0.7, 0.0], [0.6, 0.1, 0.3, 0.0], [0.3, 0.1, 0.0, 0.6], [0.1, 0.5, 0.0, 0.4], [0.0, 0.0, 0.0, 0.0]]
)


def test_changes_are_counted_by_type_over_the_words_that_were_seen():
    found = label_changes([(BEFORE, AFTER)], TAGS, "O")

    assert (found.words, found.entity_words) == (4, 3)
    assert (found.removed, found.added, found.retyped) == (1, 1, 1)
    assert found.sureness == pytest.approx((0.8 + 0.7 + 0.6) / 3)
    assert found.changed_share == pytest.approx(1.0)


def test_sureness_is_the_mean_over_words_taken_for_entities():
    assert mean_sureness([BEFORE, np.zeros((0, 4))], 0) == pytest.approx((0.8 + 0.7 + 0.6) / 3)
    assert mean_sureness([np.array([[0.9, 0.1, 0.0, 0.0]])], 0) == 0.0
    # Words that were not seen are none, wherever O stands.
    assert mean_sureness([np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.0, 0.0, 0.0]])], 2) == pytest.approx(0.8)


def test_a_text_without_sentences_has_no_changes():
    assert label_changes([], TAGS, "O") == LabelChanges(0, 0, 0.0, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        (LabelChanges(1000, 100, 0.9, 5, 1, 3), None),
        (LabelChanges(1000, 0, 0.0, 0, 0, 0), None),
        (LabelChanges(1000, 100, 0.5, 5, 1, 3), "the teacher is 50 % sure"),
        (LabelChanges(1000, 100, 0.7, 30, 1, 3), "denoising changed 34 labels for every 100 words"),
    ],
)
def test_there_is_a_doubt_where_there_is_reason_for_one(changes, doubt):
    found = changes.doubts()

    assert found == [] if doubt is None else found[0].startswith(doubt)


def test_the_line_tells_how_sure_the_teacher_is_and_what_was_changed():
    line = LabelChanges(1000, 100, 0.914, 5, 1, 3).line()

    assert "100 of 1,000 words (10.0 %) for entities and is 91 % sure" in line
    assert "made 5 O and gave 3 another type, and it added 1" in line
