"""The student's loss against `docs/method.md`, written once more as slow loops over words and pairs."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import SENTENCES, tiny_model, word_piece_tokenizer

from xlner.data.alignment import WordEncoder
from xlner.data.batches import collate
from xlner.data.pair_batches import PairDraw, SoftBatch, SoftPairs
from xlner.data.pairs import PairPlan
from xlner.models.folder import load_joint_model
from xlner.recipe import VARIANTS, load_recipe
from xlner.sections import CorpusRecipe
from xlner.training.labelling import soft_labels_of
from xlner.training.objective import make_objective

ENCODER = WordEncoder(word_piece_tokenizer())
N_FIRST, N_TAGS = 3, 7
WORDS = [sentence.split() for sentence in SENTENCES]
WINDOWS = list(ENCODER.encode(WORDS))
# Word pairs as ((sentence, word), (sentence, word)): the first tower holds sentences 0 to 2, the second 3 and 4. Some
# words are in several pairs, most are in none.
PAIRS = [((0, 0), (3, 1)), ((0, 0), (4, 2)), ((2, 4), (3, 1)), ((1, 1), (4, 8)), ((2, 4), (4, 2))]


def objective_of(variant, *arguments):
    return make_objective(load_recipe("distill", ["target=de", f"variant={variant}", *arguments]))


@pytest.fixture(scope="module")
def student():
    return tiny_model(word_piece_tokenizer(), similarity="calibrated")


def place_of(word, width):
    sentence, number = word
    return sentence * width + int(WINDOWS[sentence].word_positions[number])


def soft_batch(*, extra_padding=0):
    """A batch with random soft labels; what lies in masked positions is as wild as it can be."""
    generator = torch.Generator().manual_seed(3)
    tokens = collate(WINDOWS, ENCODER.pad_id)
    tokens = tokens._replace(
        input_ids=torch.nn.functional.pad(tokens.input_ids, (0, extra_padding), value=ENCODER.pad_id),
        attention_mask=torch.nn.functional.pad(tokens.attention_mask, (0, extra_padding)),
        word_mask=torch.nn.functional.pad(tokens.word_mask, (0, extra_padding)),
    )
    n_words = int(tokens.word_mask.sum())
    teacher_probs = torch.zeros(*tokens.input_ids.shape, N_TAGS)
    teacher_probs[tokens.word_mask] = (3 * torch.randn(n_words, N_TAGS, generator=generator)).softmax(dim=-1)
    width = tokens.input_ids.shape[1]
    return SoftBatch(
        tokens,
        teacher_probs,
        torch.tensor([[place_of(pair[tower], width) for pair in PAIRS] for tower in (0, 1)]),
        torch.rand(len(PAIRS), generator=generator),
        torch.arange(len(WINDOWS)) < N_FIRST,
        tokens.word_mask.float(),
        torch.randn(n_words, 32, generator=torch.Generator().manual_seed(4)),
    )


def student_says(student):
    """Logits and projection of each word, one sentence after the other, without any padding."""
    logits, projections = {}, {}
    for sentence, window in enumerate(WINDOWS):
        pieces = torch.from_numpy(window.piece_ids).long()[None]
        with torch.no_grad():
            output = student(pieces, torch.ones_like(pieces, dtype=torch.bool))
        for number, place in enumerate(window.word_positions):
            logits[sentence, number] = output.logits[0, int(place)].tolist()
            projections[sentence, number] = output.projections[0, int(place)].tolist()
    return logits, projections


def log_softmax(logits):
    total = math.log(sum(math.exp(logit) for logit in logits))
    return [logit - total for logit in logits]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def sigmoid_of_cosine(one, other):
    return sigmoid(dot(one, other) / math.sqrt(dot(one, one) * dot(other, other)))


def mean(values):
    return sum(values) / len(values)


class Slow(NamedTuple):
    """A variant of `docs/method.md`; `beta` takes s of teacher and student, and all of the student in the batch."""

    squared: bool
    weighted: bool = True
    beta: Callable[..., float] = lambda s_teacher, s_student, of_students: (2 * s_teacher - 1) ** 2
    same_tag: Callable[..., float] = dot
    student_probs: bool = False


SLOW = {
    "calibrated": Slow(squared=False),
    "tsl": Slow(squared=True, weighted=False),
    "authors": Slow(
        squared=True,
        beta=lambda s_teacher, s_student, of_students: min(1, (2 * s_teacher - 1) ** 2 + 0.5),
        same_tag=sigmoid_of_cosine,
    ),
    "blog": Slow(
        squared=False,
        beta=lambda s_teacher, s_student, of_students: mean([(2 * s - 1) ** 2 for s in of_students]),
        same_tag=sigmoid_of_cosine,
        student_probs=True,
    ),
}


def slow_sums(student, batch, slow):
    """The three sums of `docs/method.md` and their counts, in plain Python."""
    logits, projections = student_says(student)
    width = batch.tokens.input_ids.shape[1]
    p = {word: batch.teacher_probs.view(-1, N_TAGS)[place_of(word, width)].tolist() for word in logits}
    q = {word: [math.exp(value) for value in log_softmax(values)] for word, values in logits.items()}
    s = dict(zip(PAIRS, batch.teacher_similarity.tolist(), strict=True))
    scale, offset = student.similarity.curve()
    s_students = {
        (one, other): sigmoid(scale * dot(projections[one], projections[other]) + offset) for one, other in PAIRS
    }
    similarity, gammas_of = 0.0, {word: [] for word in logits}
    for (one, other), s_teacher in s.items():
        compared = q if slow.student_probs else p
        gamma = 1 - abs(slow.same_tag(compared[one], compared[other]) - s_teacher)
        gammas_of[one].append(gamma)
        gammas_of[other].append(gamma)
        s_student = s_students[one, other]
        cross_entropy = -s_teacher * math.log(s_student) - (1 - s_teacher) * math.log(1 - s_student)
        similarity += gamma * slow.beta(s_teacher, s_student, s_students.values()) * cross_entropy
    towers = [0.0, 0.0]
    for word in logits:
        if slow.squared:
            loss = sum((a - b) ** 2 for a, b in zip(q[word], p[word], strict=True))
        else:
            loss = -sum(t * math.log(a) for a, t in zip(q[word], p[word], strict=True))
        alpha = max(p[word]) ** 2
        gamma = mean(gammas_of[word]) if gammas_of[word] else 1.0
        towers[word[0] >= N_FIRST] += gamma * alpha * loss if slow.weighted else loss
    counts = [len(PAIRS), *(sum(len(WORDS[i]) for i in tower) for tower in ((0, 1, 2), (3, 4)))]
    return [similarity, *towers], counts


@pytest.mark.parametrize("variant", sorted(SLOW))
def test_the_loss_is_that_of_the_method(student, variant):
    batch = soft_batch()
    objective = objective_of(variant)

    sums = objective.loss_sums(student, batch)
    counts = objective.counts(batch)

    expected_sums, expected_counts = slow_sums(student, batch, SLOW[variant])
    if variant == "tsl":
        expected_sums[0] = 0.0  # single sentences, no similarity
    torch.testing.assert_close(sums, torch.tensor(expected_sums), rtol=1e-4, atol=1e-5)
    assert counts.tolist() == expected_counts


@pytest.mark.parametrize("name", ["beta", "gamma"])
@pytest.mark.parametrize(("variant", "flows"), [("authors", False), ("calibrated", False), ("blog", True)])
def test_a_gradient_flows_through_the_weights_of_the_blog_variant_alone(student, variant, flows, name):
    objective = objective_of(variant)
    seen = []
    weight = objective._asdict()[name]

    def watched(*outputs):
        seen.append(weight(*outputs))
        return seen[-1]

    objective._replace(**{name: watched}).loss_sums(student, soft_batch())

    assert [values.requires_grad for values in seen] == [flows]


def test_the_authors_constants_are_those_of_their_code():
    recipe = load_recipe("distill", ["target=de", "variant=authors"])

    assert recipe.loss.similarity_weight == 0.5
    assert recipe.optimization.learning_rate == 5e-6
    assert recipe.optimization.head_learning_rate == pytest.approx(recipe.optimization.learning_rate / 1000)
    assert recipe.optimization.weight_decay == 0  # Adam


def test_the_blog_trains_heads_as_fast_as_the_encoder():
    recipe = load_recipe("distill", ["target=de", "variant=blog"])

    assert recipe.optimization.head_learning_rate == recipe.optimization.learning_rate


def test_gamma_reaches_the_recognizer_alone_where_there_is_no_similarity_loss(student):
    batch = soft_batch()

    sums = objective_of("calibrated", "loss.similarity_weight=0").loss_sums(student, batch)

    (_, *expected), _ = slow_sums(student, batch, SLOW["calibrated"])
    torch.testing.assert_close(sums, torch.tensor([0.0, *expected]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_padding_changes_nothing(student, variant):
    objective = objective_of(variant)

    sums = objective.loss_sums(student, soft_batch())
    padded = objective.loss_sums(student, soft_batch(extra_padding=9))

    torch.testing.assert_close(padded, sums, rtol=1e-5, atol=1e-5)
    assert objective.counts(soft_batch(extra_padding=9)).tolist() == objective.counts(soft_batch()).tolist()


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_what_lies_outside_the_words_has_no_influence(student, variant):
    objective, batch = objective_of(variant), soft_batch()
    mask = batch.tokens.word_mask[:, :, None]

    wild = batch._replace(teacher_probs=torch.where(mask, batch.teacher_probs, 1e6))

    torch.testing.assert_close(objective.loss_sums(student, wild), objective.loss_sums(student, batch))


def agreeing(student, batch):
    """The batch with soft labels that are what the student says itself."""
    with torch.no_grad():
        output = student(batch.tokens.input_ids, batch.tokens.attention_mask, batch.word_pairs)
    return batch._replace(
        teacher_probs=output.logits.softmax(dim=-1), teacher_similarity=output.similarity_logits.sigmoid()
    )


def gradient(student, objective, batch):
    student.zero_grad()
    objective.loss_sums(student, batch).sum().backward()
    return max(float(p.grad.abs().max()) for p in student.parameters() if p.grad is not None)


# Where a gradient flows through the weights, the student lowers its loss by lowering these.
@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - {"blog"}))
def test_a_student_that_agrees_on_both_sentences_of_each_pair_gets_no_gradient(student, variant):
    batch = agreeing(student, soft_batch())

    assert gradient(student, objective_of(variant), batch) < 1e-3


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_the_soft_labels_of_one_sentence_do_not_supervise_another(student, variant):
    batch = agreeing(student, soft_batch())

    swapped = batch._replace(teacher_probs=batch.teacher_probs[[3, 1, 2, 0, 4]])

    assert gradient(student, objective_of(variant), swapped) > 0.1


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_each_tower_is_supervised_by_its_own_sentences(student, variant):
    objective, batch = objective_of(variant), agreeing(student, soft_batch())
    mixed = torch.full((N_TAGS,), 1 / N_TAGS)
    changed = batch._replace(teacher_probs=batch.teacher_probs.clone())

    changed.teacher_probs[N_FIRST:][batch.tokens.word_mask[N_FIRST:]] = mixed

    before, after = objective.loss_sums(student, batch), objective.loss_sums(student, changed)
    if not objective.uses_similarity:
        assert before[1] == after[1]
    assert before[2] != after[2]


def test_the_agreement_of_the_teachers_in_one_tower_weighs_on_both(student):
    objective, batch = objective_of("calibrated"), soft_batch()
    surer = batch._replace(teacher_similarity=batch.teacher_similarity.round())

    before, after = objective.loss_sums(student, batch), objective.loss_sums(student, surer)

    assert (before != after).all()


# The student is the teacher, and its soft labels come from disk: each must land on the very word it was made of.
def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(bert_folder, tmp_path):
    (tmp_path / "train.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    soft_labels = soft_labels_of(
        bert_folder,
        tmp_path / "train.txt",
        corpus=CorpusRecipe(),
        store=tmp_path / "labels",
        root=tmp_path,
        accelerator=Accelerator(cpu=True),
        autocast_dtype=None,
    )
    windows = list(ENCODER.encode([soft_labels.words(number) for number in range(len(soft_labels))]))
    pairs = SoftPairs(windows, soft_labels, ENCODER.pad_id, PairDraw(per_sentence=8, balance=0.0))
    batch = pairs.batch(PairPlan(np.asarray([4, 0, 2]), np.asarray([1, 3]), (0,)))
    student = load_joint_model(bert_folder).eval()

    recognizer = objective_of("tsl").loss_sums(student, batch)
    output = student(batch.tokens.input_ids, batch.tokens.attention_mask, batch.word_pairs)

    n_words = int(batch.tokens.word_mask.sum())
    assert recognizer.sum() < 1e-5 * n_words
    torch.testing.assert_close(output.similarity_logits.sigmoid(), batch.teacher_similarity, atol=0.01, rtol=0)
