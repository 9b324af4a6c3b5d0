import json

import pytest
import torch
from conftest import LABELS, SENTENCES, tiny_model, word_piece_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score

from xlner.encode import WordEncoder
from xlner.errors import LabelError
from xlner.evaluate import EntityCounts, Report, Score, evaluate_tags, score_tags, seqeval_report
from xlner.network_outputs import predict_sentences

CPU = torch.device("cpu")
# Two broken sequences in three: an I- that begins an entity, or changes its type.
TAG = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-work-of-art", "I-work-of-art"])
CORPUS = st.lists(st.lists(st.tuples(TAG, TAG), max_size=8), max_size=6).map(
    lambda sentences: (
        [[gold for gold, _ in sentence] for sentence in sentences],
        [[predicted for _, predicted in sentence] for sentence in sentences],
    )
)


@pytest.fixture(scope="module")
def network():
    tokenizer = word_piece_tokenizer()
    return tiny_model(tokenizer), WordEncoder(tokenizer), LABELS


def close(report, other):
    assert report.types.keys() == other.types.keys()
    for ours, theirs in [(report.overall, other.overall), *((report.types[t], other.types[t]) for t in report.types)]:
        assert vars(ours) == pytest.approx(vars(theirs))


def test_an_entity_counts_if_type_and_both_ends_are_right():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    predicted = [["B-PER", "O", "O", "B-LOC"], ["B-PER", "O"]]

    report = score_tags(gold, predicted)

    assert report.overall == Score(precision=100 / 3, recall=100 / 3, f1=100 / 3, support=3)
    assert report.types == {"LOC": Score(100.0, 50.0, 200 / 3, 2), "PER": Score(0.0, 0.0, 0.0, 1)}


@given(CORPUS)
def test_our_counts_give_the_numbers_of_seqeval_whatever_the_tags(corpus):
    gold, predicted = corpus

    ours, quoted = score_tags(gold, predicted), seqeval_report(gold, predicted)

    close(ours, quoted)
    if ours.types:
        scores = [score(gold, predicted, zero_division=0) for score in (precision_score, recall_score, f1_score)]
        assert [quoted.overall.precision, quoted.overall.recall, quoted.overall.f1] == pytest.approx(
            [100 * score for score in scores]
        )


@given(CORPUS, st.integers(0, 6))
def test_counts_of_parts_add_up_to_those_of_the_whole_also_as_plain_numbers(corpus, cut):
    (gold, predicted), types = corpus, ("LOC", "PER", "work-of-art")
    parts = [EntityCounts.of(types, gold[part], predicted[part]) for part in (slice(cut), slice(cut, None))]

    summed = torch.tensor([part.to_list() for part in parts]).sum(dim=0).tolist()

    whole = EntityCounts.of(types, gold, predicted)
    assert parts[0] + parts[1] == EntityCounts.from_list(types, summed) == whole
    assert whole.report() == score_tags(gold, predicted)


def test_no_entity_anywhere_scores_zero_and_does_not_fail():
    assert seqeval_report([["O"], []], [["O"], []]) == score_tags([], []) == Report(Score(0.0, 0.0, 0.0, 0), {})


@pytest.mark.parametrize(("gold", "predicted"), [([["O"]], []), ([["O"]], [["O", "O"]])], ids=["sentences", "words"])
def test_gold_and_predicted_tags_of_different_number_are_refused(gold, predicted):
    with pytest.raises(ValueError, match=r"sentence 1|shorter"):
        score_tags(gold, predicted)


def test_an_entity_of_a_type_that_was_not_announced_is_refused():
    with pytest.raises(LabelError, match="found entities of LOC; expected PER alone"):
        EntityCounts.of(["PER"], [["B-LOC"]], [["O"]])


def test_a_report_as_json_holds_percent_and_support():
    report = score_tags([["B-PER", "O"]], [["B-PER", "B-PER"]])

    content = json.loads(json.dumps(report.to_json()))

    expected = {"precision": 50.0, "recall": 100.0, "f1": pytest.approx(200 / 3), "support": 1}
    assert content == {"overall": expected, "types": {"PER": expected}}


def test_the_table_is_aligned_and_ends_with_all_entities():
    table = score_tags([["B-PER", "B-organisation"]], [["B-PER", "O"]]).table()

    assert table.splitlines() == [
        "type          precision  recall      F1  entities",
        "PER              100.00  100.00  100.00         1",
        "organisation       0.00    0.00    0.00         1",
        "all              100.00   50.00   66.67         2",
    ]


def report_of(network, sentences, tags):
    return evaluate_tags(network[2].types, tags, predict_sentences(*network, sentences, device=CPU)).report


@pytest.mark.parametrize("batch_pieces", [10, 4096])
def test_each_word_of_each_sentence_gets_a_tag(network, batch_pieces):
    sentences = [sentence.split() for sentence in SENTENCES] + [[], ["\u200b"], ["Kiel"] * 200]

    found = predict_sentences(*network, sentences, device=CPU, batch_pieces=batch_pieces)

    assert [len(tags) for tags in found] == [len(words) for words in sentences]
    assert {tag for tags in found for tag in tags} <= set(LABELS.tags)


def test_a_model_is_perfect_on_its_own_predictions(network):
    sentences = [sentence.split() for sentence in SENTENCES]
    tags = predict_sentences(*network, sentences, device=CPU)

    report = report_of(network, sentences, tags)

    assert report.overall.f1 == 100.0
    assert report.overall.support > 3
    assert report.unknown_to_model == ()


def test_types_that_only_one_side_has_are_named_and_count_as_errors(network):
    sentences = [["Angela", "Merkel", "und", "die", "Hanse"]]

    report = report_of(network, sentences, [["B-PER", "I-PER", "O", "O", "B-MISC"]])

    assert report.unknown_to_model == ("MISC",)
    assert report.absent_from_corpus == ("LOC", "ORG")
    assert report.types["MISC"] == Score(0.0, 0.0, 0.0, 1)
    assert report.notes() == [
        "the model does not know MISC: each such entity is a miss",
        "the corpus has no LOC, ORG: each such prediction is an error",
    ]


def test_a_corpus_that_shares_no_type_with_the_model_is_refused_with_both_sets(network):
    with pytest.raises(LabelError, match="the model predicts LOC, ORG, PER, the corpus has GENE: no type in common"):
        report_of(network, [["p53"]], [["B-GENE"]])


def test_a_corpus_without_any_entity_is_scored(network):
    assert report_of(network, [["Kiel"]], [["O"]]).overall.recall == 0.0
