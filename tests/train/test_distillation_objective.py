"""The student's loss against `docs/method.md`, written once more as slow loops over words and pairs."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import SENTENCES, tiny_model, word_piece_tokenizer

from xlner.config.load import VARIANTS, load_recipe
from xlner.config.schema import CorpusRecipe
from xlner.encode import WordEncoder
from xlner.jobs.transformer_student import student_objective
from xlner.models.folder import load_joint_model
from xlner.models.inference import collate
from xlner.models.joint import JointOutput, TwoHeadStudent
from xlner.soft_labels.label import soft_labels_of
from xlner.train.batches import Plan
from xlner.train.mtmt import BETAS, GAMMAS, SoftPairBatch
from xlner.train.objectives import ALPHAS, SoftText

ENCODER = WordEncoder(word_piece_tokenizer())
N_FIRST, N_TAGS = 3, 7
WORDS = [sentence.split() for sentence in SENTENCES]
WINDOWS = list(ENCODER.encode(WORDS))
# Word pairs as ((sentence, word), (sentence, word)): the first tower holds sentences 0 to 2, the second 3 and 4. Some
# words are in several pairs, most are in none.
PAIRS = [((0, 0), (3, 1)), ((0, 0), (4, 2)), ((2, 4), (3, 1)), ((1, 1), (4, 8)), ((2, 4), (4, 2))]


# The number of each word (sentence, word) among all words of the batch.
PLACES = {
    word: place
    for place, word in enumerate((sentence, number) for sentence, row in enumerate(WORDS) for number in range(len(row)))
}
TEXT = SimpleNamespace(lengths=[], soft_labels=SimpleNamespace(card=SimpleNamespace(tags=("O", "B-X", "I-X"))))


def objective_of(variant, *arguments, text=TEXT):
    return student_objective(load_recipe("distill", ["target=de", f"variant={variant}", *arguments]), text)


def stacked(objective, numbers):
    """The numbers of the terms of a loss, in their order."""
    return torch.stack([torch.as_tensor(numbers[name]) for name in objective.terms])


@pytest.fixture(scope="module")
def student():
    return tiny_model(word_piece_tokenizer(), similarity="calibrated")


def network_of(student, variant):
    """What the loss of a variant is computed with: the student, or the student with a layer for each tower."""
    if variant != "blog":
        return student
    torch.manual_seed(11)
    return TwoHeadStudent(student, is_trained=False).eval()


def soft_batch(*, extra_padding=0):
    """A batch of sentence pairs with random soft labels; batches of words alone have the same parts."""
    generator = torch.Generator().manual_seed(3)
    tokens = collate(WINDOWS, ENCODER.pad_id)
    width = tokens.input_ids.shape[1]
    tokens = tokens._replace(
        input_ids=torch.nn.functional.pad(tokens.input_ids, (0, extra_padding), value=ENCODER.pad_id),
        attention_mask=torch.nn.functional.pad(tokens.attention_mask, (0, extra_padding)),
        words=tokens.words // width * (width + extra_padding) + tokens.words % width,
    )
    n_words = len(PLACES)
    return SoftPairBatch(
        tokens,
        (3 * torch.randn(n_words, N_TAGS, generator=generator)).softmax(dim=-1),
        torch.ones(n_words),
        torch.tensor([sentence < N_FIRST for sentence, _ in PLACES]),
        torch.tensor([[PLACES[pair[tower]] for pair in PAIRS] for tower in (0, 1)]),
        torch.rand(len(PAIRS), generator=generator),
    )


def student_says(student):
    """Logits and projection of each word, one sentence after the other, without any padding."""
    logits, projections = {}, {}
    for sentence, window in enumerate(WINDOWS):
        pieces = torch.from_numpy(window.piece_ids).long()[None]
        with torch.no_grad():
            words = torch.from_numpy(window.word_positions).long()
            output = student(pieces, torch.ones_like(pieces, dtype=torch.bool), words)
        for number in range(len(words)):
            logits[sentence, number] = output.logits[number].tolist()
            projections[sentence, number] = output.projections[number].tolist()
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
    """A variant of `docs/method.md` whose weights are the teacher's, one for each word and pair."""

    loss: Callable[..., float]
    weighted: bool = True
    beta: Callable[..., float] = lambda s_teacher: (2 * s_teacher - 1) ** 2
    same_tag: Callable[..., float] = dot


def cross_entropy(student, teacher):
    return -sum(t * math.log(a) for a, t in zip(student, teacher, strict=True))


def summed_error(student, teacher):
    return sum((a - t) ** 2 for a, t in zip(student, teacher, strict=True))


def binary_cross_entropy(student, teacher):
    return -teacher * math.log(student) - (1 - teacher) * math.log(1 - student)


SLOW = {
    "calibrated": Slow(cross_entropy),
    "tsl": Slow(lambda student, teacher: summed_error(student, teacher) / len(teacher), weighted=False),
    "authors": Slow(
        summed_error,
        beta=lambda s_teacher: min(1, (2 * s_teacher - 1) ** 2 + 0.5),
        same_tag=sigmoid_of_cosine,
    ),
}


def softmax(logits):
    return [math.exp(value) for value in log_softmax(logits)]


def teacher_says(batch):
    """The teacher's probabilities of each word, and its similarity of each pair."""
    p = {word: batch.probs[place].tolist() for word, place in PLACES.items()}
    return p, dict(zip(PAIRS, batch.similarity.tolist(), strict=True))


def slow_sums(student, batch, slow):
    """The three sums of `docs/method.md` and their counts, in plain Python."""
    logits, projections = student_says(student)
    scale, offset = student.similarity.curve()
    similarities = {
        (one, other): sigmoid(scale * dot(projections[one], projections[other]) + offset) for one, other in PAIRS
    }
    return slow_sums_of(logits, similarities, batch, slow)


def slow_sums_of(logits, similarities, batch, slow):
    """The same of a student's scores of each word and its similarity of each pair."""
    p, s = teacher_says(batch)
    q = {word: softmax(values) for word, values in logits.items()}
    similarity, gammas_of = 0.0, {word: [] for word in logits}
    for (one, other), s_teacher in s.items():
        gamma = 1 - abs(slow.same_tag(p[one], p[other]) - s_teacher)
        gammas_of[one].append(gamma)
        gammas_of[other].append(gamma)
        similarity += gamma * slow.beta(s_teacher) * binary_cross_entropy(similarities[one, other], s_teacher)
    towers = [0.0, 0.0]
    for word in logits:
        loss = slow.loss(q[word], p[word])
        alpha = max(p[word]) ** 2
        gamma = mean(gammas_of[word]) if gammas_of[word] else 1.0
        towers[word[0] >= N_FIRST] += gamma * alpha * loss if slow.weighted else loss
    counts = [len(PAIRS), *(sum(len(WORDS[i]) for i in tower) for tower in ((0, 1, 2), (3, 4)))]
    return [similarity, *towers], counts


def slow_authors(logits, similarities, batch):
    """The loss of the published code."""
    sums, counts = slow_sums_of(logits, similarities, batch, SLOW["authors"])
    similarity, first, second = (total / count for total, count in zip(sums, counts, strict=True))
    return 0.5 * similarity + 0.5 * first + 0.5 * second


def slow_blog(logits, similarities, batch):
    """The loss of the post, without its slips; the student's similarities are made of its scores."""
    p, s_teacher = teacher_says(batch)
    q = {word: softmax(values) for word, values in logits.items()}
    s_z = {(one, other): sigmoid_of_cosine(logits[one], logits[other]) for one, other in PAIRS}
    s_p = {(one, other): sigmoid_of_cosine(q[one], q[other]) for one, other in PAIRS}
    gamma = 1 - mean([abs(s_p[pair] - s_z[pair]) for pair in PAIRS])
    beta = mean([(2 * s_z[pair] - 1) ** 2 for pair in PAIRS])
    similarity = mean([binary_cross_entropy(s_p[pair], s_teacher[pair]) for pair in PAIRS])
    total = beta * similarity
    for tower in ((0, 1, 2), (3, 4)):
        words = [word for word in logits if word[0] in tower]
        alpha = mean([max(q[word]) ** 2 for word in words])
        total += alpha * mean([cross_entropy(q[word], p[word]) for word in words])
    return gamma * total


SLOW_TOTALS = {"authors": slow_authors, "blog": slow_blog}


@pytest.mark.parametrize("variant", sorted(SLOW_TOTALS))
def test_the_loss_and_the_gradient_of_a_published_variant_are_those_of_slow_loops(variant):
    batch, objective, slow = soft_batch(), objective_of(variant), SLOW_TOTALS[variant]
    batch = batch._replace(probs=batch.probs.double())
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(len(PLACES), N_TAGS, generator=generator)
    pair_logits = torch.randn(len(PAIRS), generator=generator)
    outputs = [logits.requires_grad_(), pair_logits.requires_grad_()]

    def network(ids, mask, words, fourth):
        return logits if variant == "blog" else JointOutput(logits, pair_logits, None)

    sums, counts = objective.loss_sums(network, batch), objective.counts(batch)
    total = sum(share * sums[name] / counts[name] for name, share in objective.terms.items())
    gradients = torch.autograd.grad(total, outputs, allow_unused=True)

    scores = {word: logits.detach()[place].tolist() for word, place in PLACES.items()}
    pair_scores = pair_logits.tolist()

    def slow_total():
        return slow(scores, {pair: sigmoid(z) for pair, z in zip(PAIRS, pair_scores, strict=True)}, batch)

    def slope(row, number, step=1e-5):
        start = row[number]
        row[number] = start + step
        above = slow_total()
        row[number] = start - step
        below = slow_total()
        row[number] = start
        return (above - below) / (2 * step)

    assert total.item() == pytest.approx(slow_total(), rel=1e-5)
    expected = torch.zeros_like(logits)
    for word in list(scores)[::3]:
        expected[PLACES[word]] = torch.tensor([slope(scores[word], tag) for tag in range(N_TAGS)])
    looked_at = expected != 0
    assert looked_at.sum() > 50
    torch.testing.assert_close(gradients[0][looked_at], expected[looked_at], rtol=1e-2, atol=1e-6)
    if variant == "authors":
        slopes = torch.tensor([slope(pair_scores, number) for number in range(len(PAIRS))])
        torch.testing.assert_close(gradients[1], slopes, rtol=1e-2, atol=1e-6)


def test_the_batch_weights_of_the_post_are_those_of_the_batch_as_it_is():
    batch, objective = soft_batch(), objective_of("blog")
    logits = torch.randn(len(PLACES), N_TAGS, generator=torch.Generator().manual_seed(6))
    no_pairs = batch._replace(word_pairs=batch.word_pairs[:, :0], similarity=batch.similarity[:0])
    one_tower = no_pairs._replace(in_first_tower=torch.ones_like(batch.in_first_tower))

    found = [stacked(objective, objective.loss_sums(lambda *inputs: logits, made)) for made in (no_pairs, one_tower)]

    # Without a pair nothing disagrees (gamma is 1), and an empty tower has nothing to say.
    assert found[0][0] == found[1][0] == found[1][2] == 0
    probs = logits.softmax(dim=-1)
    losses = -(batch.probs * probs.log()).sum(dim=-1)
    alpha = probs.amax(dim=-1).square().mean()
    torch.testing.assert_close(found[1][1], alpha * losses.sum())


def test_each_tower_of_the_post_has_scores_of_its_own(student):
    batch = soft_batch()
    network = network_of(student, "blog")
    tokens = batch.tokens

    with torch.no_grad():
        logits = network(*tokens, batch.in_first_tower)
        hidden = student.recognizer.bert(tokens.input_ids, tokens.attention_mask).last_hidden_state
        hidden = hidden.flatten(0, 1)[tokens.words]

    first = batch.in_first_tower
    for layer, tower in ((student.recognizer.classifier, first), (network.second, ~first)):
        expected = hidden[tower].numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        np.testing.assert_allclose(logits[tower].numpy(), expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(network.second.weight, student.recognizer.classifier.weight)


def test_a_trained_student_gives_both_towers_its_scores(student):
    network = TwoHeadStudent(student, is_trained=True)

    assert torch.equal(network.second.weight, student.recognizer.classifier.weight)
    assert network.second.weight is not student.recognizer.classifier.weight


@pytest.mark.parametrize("variant", sorted(SLOW))
def test_the_loss_is_that_of_the_method(student, variant):
    batch = soft_batch()
    objective = objective_of(variant)

    sums = stacked(objective, objective.loss_sums(student, batch))
    counts = stacked(objective, objective.counts(batch))

    expected_sums, expected_counts = slow_sums(student, batch, SLOW[variant])
    if variant == "tsl":  # single sentences, no similarity
        expected_sums, expected_counts = [sum(expected_sums[1:])], [sum(expected_counts[1:])]
    torch.testing.assert_close(sums, torch.tensor(expected_sums), rtol=1e-4, atol=1e-5)
    assert counts.tolist() == expected_counts


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
@pytest.mark.parametrize(("variant", "flows"), [("authors", False), ("calibrated", False), ("blog", True)])
def test_a_gradient_flows_through_the_weights_of_the_blog_variant_alone(student, variant, flows, name, monkeypatch):
    table = {"alpha": ALPHAS, "beta": BETAS, "gamma": GAMMAS}[name]
    chosen = getattr(load_recipe("distill", ["target=de", f"variant={variant}"]).weights, name)
    weight, seen = table[chosen], []

    def watched(*outputs):
        seen.append(weight(*outputs))
        return seen[-1]

    monkeypatch.setitem(table, chosen, watched)
    objective_of(variant).loss_sums(network_of(student, variant), soft_batch())

    assert [values.requires_grad for values in seen] == [flows]


def test_gamma_reaches_the_recognizer_alone_where_there_is_no_similarity_loss(student):
    batch = soft_batch()

    objective = objective_of("calibrated", "loss.similarity_weight=0")
    sums = stacked(objective, objective.loss_sums(student, batch))

    (_, *expected), _ = slow_sums(student, batch, SLOW["calibrated"])
    torch.testing.assert_close(sums, torch.tensor([0.0, *expected]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_padding_changes_nothing(student, variant):
    objective, network = objective_of(variant), network_of(student, variant)

    sums = objective.loss_sums(network, soft_batch())
    padded = objective.loss_sums(network, soft_batch(extra_padding=9))

    torch.testing.assert_close(padded, sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_words_that_are_not_trusted_teach_nothing(student, variant):
    objective, batch, network = objective_of(variant), soft_batch(), network_of(student, variant)
    trust = torch.ones(len(PLACES))
    trust[[0, 5, 9]] = 0.0
    untrusted, other = batch._replace(trust=trust), batch.probs.clone()
    other[5] = 1 / N_TAGS  # in no pair, so that it weighs on nobody else

    sums = objective.loss_sums(network, untrusted)

    torch.testing.assert_close(objective.loss_sums(network, untrusted._replace(probs=other)), sums)
    assert objective.loss_sums(network, batch._replace(probs=other)) != objective.loss_sums(network, batch)


def agreeing(student, batch):
    """The batch with soft labels that are what the student says itself."""
    with torch.no_grad():
        output = student(*batch.tokens, batch.word_pairs)
    return batch._replace(probs=output.logits.softmax(dim=-1), similarity=output.similarity_logits.sigmoid())


def gradient(student, objective, batch):
    student.zero_grad()
    sum(objective.loss_sums(student, batch).values()).backward()
    return max(float(p.grad.abs().max()) for p in student.parameters() if p.grad is not None)


# Where a gradient flows through the weights, the student lowers its loss by lowering these.
@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - {"blog"}))
def test_a_student_that_agrees_on_both_sentences_of_each_pair_gets_no_gradient(student, variant):
    batch = agreeing(student, soft_batch())

    assert gradient(student, objective_of(variant), batch) < 1e-3


@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - {"blog"}))
def test_the_soft_labels_of_one_sentence_do_not_supervise_another(student, variant):
    batch = agreeing(student, soft_batch())

    swapped = batch._replace(probs=batch.probs.flip(0))

    assert gradient(student, objective_of(variant), swapped) > (0.1 / N_TAGS if variant == "tsl" else 0.1)


@pytest.mark.parametrize("variant", ["authors", "blog", "calibrated"])
def test_each_tower_is_supervised_by_its_own_sentences(student, variant):
    objective, batch = objective_of(variant), agreeing(student, soft_batch())
    network = network_of(student, variant)
    changed = batch._replace(probs=batch.probs.clone())

    changed.probs[~batch.in_first_tower] = 1 / N_TAGS

    before, after = objective.loss_sums(network, batch), objective.loss_sums(network, changed)
    if variant == "blog":  # whose gamma is the student's
        assert before["recognizer_first"] == after["recognizer_first"]
    assert before["recognizer_second"] != after["recognizer_second"]


def test_the_agreement_of_the_teachers_in_one_tower_weighs_on_both(student):
    objective, batch = objective_of("calibrated"), soft_batch()
    surer = batch._replace(similarity=batch.similarity.round())

    before, after = (stacked(objective, objective.loss_sums(student, made)) for made in (batch, surer))

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
    text = SoftText(windows, np.arange(len(windows)), soft_labels, ENCODER.pad_id)
    objective = objective_of("calibrated", "pairs.per_sentence=8", "pairs.balance=0", text=text)
    batch = objective.batch(Plan(np.asarray([4, 0, 2, 1, 3]), (0,)))
    student = load_joint_model(bert_folder).eval()

    recognizer = objective_of("tsl", text=text).loss_sums(student, batch)["recognizer"]
    output = student(*batch.tokens, batch.word_pairs)

    assert recognizer < 1e-5 * len(batch.trust)
    torch.testing.assert_close(output.similarity_logits.sigmoid(), batch.similarity, atol=0.01, rtol=0)
