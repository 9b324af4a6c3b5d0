import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from xlner.errors import LabelError
from xlner.tags import LabelSet, Span, spans_of, split_tag, tags_of, to_iob2

# All neighbourhoods of a tag come up: same and other type, after O, B and I.
TAG_SEQUENCES = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-A-B", "I-A-B"]), max_size=12)


@given(TAG_SEQUENCES)
def test_spans_are_the_entities_that_seqeval_finds(tags):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [(label, start, end + 1) for label, start, end in get_entities(tags)]

    assert spans_of(tags) == expected


@given(TAG_SEQUENCES)
def test_turning_tags_into_iob2_keeps_the_entities_and_changes_nothing_the_second_time(tags):
    once = to_iob2(tags)

    assert spans_of(once) == spans_of(tags)
    assert to_iob2(once) == once


@given(TAG_SEQUENCES)
def test_in_iob2_every_inside_tag_continues_its_entity(tags):
    clean = to_iob2(tags)

    assert all(tag[0] != "I" or before[1:] == tag[1:] for before, tag in zip(("O", *clean), clean, strict=False))


@given(TAG_SEQUENCES)
def test_spans_and_tags_turn_into_each_other(tags):
    spans = spans_of(tags)

    assert spans_of(tags_of(spans, len(tags))) == spans


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("I-PER I-PER O", [Span("PER", 0, 2)]),
        ("I-PER B-PER", [Span("PER", 0, 1), Span("PER", 1, 2)]),
        ("B-PER I-LOC", [Span("PER", 0, 1), Span("LOC", 1, 2)]),
        ("O O", []),
        ("", []),
    ],
)
def test_iob1_and_broken_sequences_mean_what_conlleval_reads(tags, spans):
    assert spans_of(tags.split()) == spans


def test_entities_side_by_side_stay_apart():
    assert tags_of([], 2) == ("O", "O")
    assert tags_of([Span("PER", 0, 1), Span("PER", 1, 3)], 3) == ("B-PER", "B-PER", "I-PER")


@pytest.mark.parametrize("tag", ["", "b-PER", "B_PER", "X-PER", "PER", "B-", "B", "_", "o", "S-PER"])
def test_what_is_no_tag_is_refused_with_what_was_found(tag):
    with pytest.raises(LabelError, match="expected O, B-TYPE or I-TYPE") as refusal:
        split_tag(tag)

    assert repr(tag) in str(refusal.value)


def test_a_type_may_hold_a_dash():
    assert split_tag("B-ORG-GOV") == ("B", "ORG-GOV")


def test_the_ids_of_a_label_set_do_not_depend_on_the_order_of_the_types():
    assert LabelSet.of_types(["PER", "LOC", "PER"]) == LabelSet.of_types(["LOC", "PER"])
    assert LabelSet.of_types(["PER", "LOC"]).tags == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_a_label_set_of_a_model_follows_its_ids():
    labels = LabelSet.of_model({1: "O", 0: "B-PER"})

    assert labels.tags == ("B-PER", "O")
    assert labels.outside_id == 1
    assert labels.types == ("PER",)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ((), "needs the tag O"),
        (("B-PER",), "needs the tag O"),
        (("O", "O"), "once"),
        (("O", "PER"), "expected O"),
    ],
)
def test_a_label_set_that_could_not_be_decoded_is_refused(tags, message):
    with pytest.raises(LabelError, match=message):
        LabelSet(tags)


def test_ids_are_found_by_name_and_an_unknown_tag_gets_a_hint():
    labels = LabelSet.of_types(["PER", "LOC"])

    assert labels.ids(["I-PER", "O"]) == [4, 0]
    with pytest.raises(LabelError, match="did you mean 'B-PER'"):
        labels.ids(["B-PERS"])
