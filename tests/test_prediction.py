import numpy as np
import pytest
import torch
from conftest import LABELS, SENTENCES, tiny_model, word_piece_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from xlner.decoding import ValidTags
from xlner.encode import WordEncoder
from xlner.models.inference import sentence_probs, word_outputs
from xlner.models.joint import SIMILARITIES
from xlner.predict import decide_tags
from xlner.tags import LabelSet, Span, spans_of, to_iob2

CPU = torch.device("cpu")
TWO = LabelSet(("O", "B-X", "I-X", "B-Y", "I-Y"))
LOOSE = LabelSet(TWO.tags, begins=False)


@pytest.fixture(scope="module")
def encoder():
    return WordEncoder(word_piece_tokenizer())


@pytest.fixture(scope="module")
def model():
    return tiny_model(word_piece_tokenizer(), similarity="calibrated")


@pytest.fixture(scope="module")
def sentences():
    words = [sentence.split() for sentence in SENTENCES]
    return [*words, [], ["\u200b"], [word for sentence in words * 3 for word in sentence], ["Kiel"]]


def probs_of(*tags, sure=0.9):
    """Probabilities whose likeliest tags are these; a None becomes a row of zeros."""
    rows = np.zeros((len(tags), 5), dtype=np.float32)
    for row, tag in zip(rows, tags, strict=True):
        if tag is not None:
            row[:] = (1 - sure) / 4
            row[TWO.ids([tag])] = sure
    return rows


def test_a_word_has_the_softmax_of_the_logits_at_its_first_piece(model, encoder):
    (window,) = encoder.encode([SENTENCES[0].split()])

    ((number, output),) = word_outputs(model, [window], encoder.pad_id, device=CPU)

    pieces = torch.from_numpy(window.piece_ids).long()[None]
    logits = model.recognizer(pieces).logits[0, window.word_positions]
    assert number == 0
    np.testing.assert_allclose(output.probs, logits.softmax(dim=-1).detach().numpy(), atol=1e-6)
    assert output.probs.dtype == np.float32


@pytest.mark.parametrize("batch_pieces", [1, 50, 4096])
def test_outputs_do_not_depend_on_the_batches(model, encoder, sentences, batch_pieces):
    windows = list(encoder.encode(sentences))
    alone = [dict(word_outputs(model, [window], encoder.pad_id, device=CPU))[0] for window in windows]

    found = dict(word_outputs(model, windows, encoder.pad_id, device=CPU, batch_pieces=batch_pieces))

    assert sorted(found) == list(range(len(windows)))
    for number, expected in enumerate(alone):
        np.testing.assert_allclose(found[number].probs, expected.probs, atol=1e-5)


def test_the_longest_windows_come_first(model, encoder, sentences):
    windows = list(encoder.encode(sentences))

    order = [number for number, _ in word_outputs(model, windows, encoder.pad_id, device=CPU)]

    lengths = [len(windows[number].piece_ids) for number in order]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("name", sorted(SIMILARITIES))
def test_projections_are_given_where_they_are_asked_for(encoder, name):
    model = tiny_model(word_piece_tokenizer(), similarity=name)
    windows = list(encoder.encode([SENTENCES[0].split()]))

    without, with_them = (
        dict(word_outputs(model, windows, encoder.pad_id, device=CPU, with_projections=asked))[0]
        for asked in (False, True)
    )

    assert without.projections is None
    np.testing.assert_allclose(np.linalg.norm(with_them.projections, axis=1), np.ones(5), atol=1e-6)


def test_a_model_without_similarity_head_has_no_projections_to_give(encoder):
    model = tiny_model(word_piece_tokenizer())
    windows = list(encoder.encode([SENTENCES[0].split()]))

    ((_, output),) = word_outputs(model, windows, encoder.pad_id, device=CPU, with_projections=True)

    assert output.projections is None


@pytest.mark.parametrize("training", [False, True])
def test_dropout_is_off_while_predicting_and_the_mode_is_as_before_after_it(encoder, training):
    model = tiny_model(word_piece_tokenizer()).train(training)
    windows = list(encoder.encode([SENTENCES[0].split()]))

    first, second = (dict(word_outputs(model, windows, encoder.pad_id, device=CPU))[0] for _ in range(2))

    np.testing.assert_array_equal(first.probs, second.probs)
    assert model.training == training


def test_gradients_can_be_taken_between_two_windows(model, encoder, sentences):
    for _ in word_outputs(model, list(encoder.encode(sentences)), encoder.pad_id, device=CPU):
        weight = torch.ones(2, requires_grad=True)

        weight.sum().backward()

        assert not torch.is_inference_mode_enabled()


def test_bfloat16_gives_nearly_the_same_probabilities_in_float32(model, encoder):
    windows = list(encoder.encode([SENTENCES[0].split()]))

    ((_, exact),) = word_outputs(model, windows, encoder.pad_id, device=CPU)
    ((_, quick),) = word_outputs(model, windows, encoder.pad_id, device=CPU, autocast_dtype=torch.bfloat16)

    assert quick.probs.dtype == np.float32
    np.testing.assert_allclose(quick.probs, exact.probs, atol=0.1)


def test_every_word_of_every_sentence_has_a_row(model, encoder, sentences):
    found = sentence_probs(model, encoder, [*sentences, ["und", "\u200b", "Kiel"]], device=CPU)

    assert [probs.shape for probs in found] == [(len(words), 7) for words in [*sentences, range(3)]]
    np.testing.assert_allclose(found[-1].sum(axis=1), [1, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(found[sentences.index(["\u200b"])], np.zeros((1, 7)))


def test_no_sentences_give_no_probabilities(model, encoder):
    assert sentence_probs(model, encoder, [], device=CPU) == []


@given(st.lists(st.sampled_from(TWO.tags), max_size=8))
def test_the_likeliest_tags_of_a_model_of_unknown_scheme_are_repaired(tags):
    assert decide_tags(probs_of(*tags), LOOSE) == to_iob2(tags)


@given(st.lists(st.sampled_from(TWO.tags), max_size=8))
def test_likeliest_tags_that_are_valid_are_decided(tags):
    valid = to_iob2(tags)

    assert decide_tags(probs_of(*valid), TWO) == valid


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (("B-X", None, "I-X"), ("B-X", "I-X", "I-X")),
        (("I-X", None, None, "I-X"), ("B-X", "I-X", "I-X", "I-X")),
        (("B-X", None, "B-X"), ("B-X", "O", "B-X")),
        (("B-X", None, "I-Y"), ("B-X", "O", "B-Y")),
        (("B-X", None, "O"), ("B-X", "O", "O")),
        (("O", None, "I-X"), ("O", "O", "B-X")),
        ((None, "I-X", None), ("O", "B-X", "O")),
        ((None,), ("O",)),
        ((), ()),
    ],
)
def test_a_word_without_probabilities_is_inside_an_entity_or_outside(tags, expected):
    assert decide_tags(probs_of(*tags), LOOSE) == expected
    if to_iob2([tag or "O" for tag in tags]) == tuple(tag or "O" for tag in tags):
        assert decide_tags(probs_of(*tags), TWO) == expected


def test_the_score_of_a_model_of_unknown_scheme_is_the_mean_over_words_that_have_probabilities():
    probs = np.concatenate([probs_of("B-X", sure=0.9), probs_of(None), probs_of("I-X", sure=0.5), probs_of("O")])

    (((span, score),),) = ValidTags(LOOSE).entities([probs])

    assert span == Span("X", 0, 3)
    assert type(score) is float
    assert score == pytest.approx(0.7)


@given(st.lists(st.sampled_from([*TWO.tags, None]), max_size=8))
def test_entities_with_scores_are_those_of_the_tags(tags):
    probs = probs_of(*tags, sure=1.0)

    (found,) = ValidTags(LOOSE).entities([probs])

    assert [span for span, _ in found] == spans_of(decide_tags(probs, LOOSE))
    assert all(score == 1.0 for _, score in found)


def test_the_random_model_predicts_different_tags(model, encoder, sentences):
    found = {
        tag for probs in sentence_probs(model, encoder, sentences, device=CPU) for tag in decide_tags(probs, LABELS)
    }

    assert len(found) > 3  # otherwise the tests above would show little
