"""Selection by certainty: `xlner/soft_labels/steps.py`."""

import pytest

from xlner.soft_labels.steps import is_broken, most_certain


def test_the_most_certain_entities_of_each_type_are_kept():
    types = ["LOC", "PER", "LOC", "LOC", "PER", "LOC"]
    scores = [0.5, 0.3, 0.9, 0.7, 0.2, 0.7]

    kept = most_certain(types, scores, 0.5)

    assert kept.tolist() == [False, True, True, True, False, False]


@pytest.mark.parametrize(("share", "expected"), [(0.8, 8), (0.81, 9), (1.0, 10), (0.001, 1)])
def test_the_share_that_is_kept_is_rounded_up(share, expected):
    assert most_certain(["LOC"] * 10, [0.5] * 10, share).sum() == expected


def test_a_text_without_entities_has_none_to_keep():
    assert most_certain([], [], 0.5).tolist() == []


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-LOC I-LOC I-LOC O", False),
        ("B-LOC B-LOC", False),
        ("", False),
        ("I-LOC", True),
        ("O I-LOC", True),
        ("B-PER I-LOC", True),
        ("B-LOC I-LOC I-PER", True),
    ],
)
def test_a_sequence_is_broken_where_an_entity_goes_on_that_has_not_begun(tags, expected):
    assert is_broken(tags.split()) == expected
