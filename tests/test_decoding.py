"""The likeliest valid tags and the probabilities of entities, against all sequences written out."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlner.decoding import ValidTags
from xlner.tags import LabelSet, Span, spans_of, split_tag

LABELS = LabelSet.of_types(["LOC", "PER"])
SHUFFLED = LabelSet(("I-PER", "B-LOC", "O", "B-PER", "I-LOC"))


def is_valid(tags, labels=LABELS):
    before = "O"
    for tag in tags:
        prefix, name = split_tag(tag)
        if prefix == "I" and f"B-{name}" in labels.tags and split_tag(before)[1] != name:
            return False
        before = tag
    return True


def sequences(probs, labels):
    """All valid sequences with their products."""
    for ids in product(range(len(labels.tags)), repeat=len(probs)):
        tags = [labels.tags[number] for number in ids]
        if is_valid(tags, labels):
            yield tags, float(np.prod([probs[word, number] for word, number in enumerate(ids)]))


@st.composite
def probabilities(draw):
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = generator.normal(scale=draw(st.sampled_from([0.5, 2.0, 6.0])), size=(draw(st.integers(1, 4)), 5))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@settings(max_examples=150)
@given(probs=probabilities(), labels=st.sampled_from([LABELS, SHUFFLED]))
def test_no_valid_sequence_is_likelier(probs, labels):
    path = ValidTags(labels).likeliest(probs)

    tags = [labels.tags[number] for number in path]
    own = np.prod(probs[np.arange(len(probs)), path])
    assert is_valid(tags, labels)
    assert own == pytest.approx(max(value for _, value in sequences(probs, labels)), rel=1e-6)


@settings(max_examples=100)
@given(sentences=st.lists(probabilities(), max_size=5), labels=st.sampled_from([LABELS, SHUFFLED]))
def test_an_entity_is_as_probable_as_the_sequences_that_have_it(sentences, labels):
    found = ValidTags(labels).entities(sentences)

    for probs, entities in zip(sentences, found, strict=True):
        every = list(sequences(probs, labels))
        total = sum(value for _, value in every)
        assert [span for span, _ in entities] == list(
            spans_of([labels.tags[number] for number in ValidTags(labels).likeliest(probs)])
        )
        for span, score in entities:
            with_it = sum(value for tags, value in every if span in spans_of(tags))
            assert score == pytest.approx(with_it / total, rel=1e-5, abs=1e-9)


def test_sentences_do_not_influence_each_other():
    generator = np.random.default_rng(0)
    sentences = [generator.dirichlet(np.ones(5), size=size) for size in (1, 7, 3, 0, 30)]

    together = ValidTags(LABELS).entities(sentences)

    for probs, entities in zip(sentences, together, strict=True):
        ((alone),) = ValidTags(LABELS).entities([probs])
        assert [span for span, _ in alone] == [span for span, _ in entities]
        np.testing.assert_allclose([score for _, score in alone], [score for _, score in entities])


def test_an_illegal_inside_tag_becomes_a_beginning_or_nothing():
    # O, B-LOC, I-LOC, B-PER, I-PER: an I-PER without a beginning.
    beginning = np.array([[0.1, 0.0, 0.0, 0.4, 0.5], [0.9, 0.02, 0.02, 0.03, 0.03]])
    nothing = np.array([[0.4, 0.05, 0.0, 0.05, 0.5], [0.9, 0.02, 0.02, 0.03, 0.03]])

    tags = ValidTags(LABELS)

    assert spans_of(tags.tags(beginning)) == [Span("PER", 0, 1)]
    assert spans_of(tags.tags(nothing)) == []


def test_neighbours_of_one_type_stay_two():
    probs = np.full((3, 5), 0.02)
    probs[[0, 1, 2], [3, 3, 4]] = 0.92  # B-PER, B-PER, I-PER

    ((entities),) = ValidTags(LABELS).entities([probs])

    assert [span for span, _ in entities] == [Span("PER", 0, 1), Span("PER", 1, 3)]


def test_a_model_of_unknown_scheme_may_begin_with_inside_and_scores_by_the_mean():
    loose = LabelSet(LABELS.tags, begins=False)
    probs = np.array(
        [[0.1, 0.0, 0.0, 0.1, 0.8], [0.0, 0.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.1, 0.6], [1.0, 0, 0, 0, 0]]
    )

    ((entities),) = ValidTags(loose).entities([probs])

    assert entities == [(Span("PER", 0, 3), pytest.approx(0.7))]


def test_a_word_without_probabilities_is_inside_where_both_neighbours_are():
    sure = {
        "B": [0.02, 0.02, 0.01, 0.9, 0.05],
        "I": [0.02, 0.02, 0.01, 0.05, 0.9],
        "O": [0.9, 0.025, 0.025, 0.025, 0.025],
    }
    tags = ValidTags(LABELS)

    def spans(*words):
        return spans_of(tags.tags(np.array([sure.get(word, [0.0] * 5) for word in words])))

    assert spans("B", "?", "I") == [Span("PER", 0, 3)]
    assert spans("B", "?", "O") == [Span("PER", 0, 1)]
    assert spans("O", "?", "O") == []
    assert spans("?") == []


def test_a_type_without_a_beginning_tag_may_start_inside():
    labels = LabelSet(("O", "I-PER"))
    tags = ValidTags(labels)

    ((entities),) = tags.entities([np.array([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1]])])

    assert [span for span, _ in entities] == [Span("PER", 0, 2)]


def test_a_sentence_without_words_has_no_entities():
    assert ValidTags(LABELS).entities([np.zeros((0, 5))]) == [[]]
