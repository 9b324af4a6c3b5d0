"""The similarity task beside the recognizer: word pairs, and losses weighted by alpha, beta and gamma.

Two words of a pair of sentences carry the same tag, or they do not. A teacher with a similarity head learns to tell
(`LabelledPairs`), its student imitates it (`SoftPairs`), and what the student learns of a word or a pair is weighted
by how sure the teacher is. Nothing outside this file knows of pairs or towers; without it there is no similarity task.

Both towers share their weights, so the sentences of both lie in one batch, the first tower's in its first half.
Shapes: N words, the first tower's first, C tags, Q word pairs, E projection width.

Source: Li et al. 2022 (2022.acl-long.14), section 3; the variants are explained in `docs/method.md`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from xlner.config.load import PUBLISHED, choose
from xlner.config.schema import LossRecipe, PairsRecipe, WeightsRecipe
from xlner.encode import Window
from xlner.errors import RecipeError
from xlner.hub import is_there
from xlner.models.folder import read_settings
from xlner.models.inference import TokenBatch
from xlner.models.settings import ModelSettings
from xlner.soft_labels.store import SoftLabels
from xlner.tags import split_tag
from xlner.train.batches import Plan
from xlner.train.objectives import LabelledText, Objective, SoftText, WordLoss, token_cross_entropy

# Which words are compared.


def sample_word_pairs(
    first_tags: Sequence[NDArray[np.int64]],
    second_tags: Sequence[NDArray[np.int64]],
    per_sentence: int,
    balance: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw word pairs, half of equal and half of different tag, without drowning entity words in `O`.

    A sentence of the first tower meets every sentence of the second tower of its micro-batch: they are encoded
    anyway, and most single sentences hold too few tags to show each against each. A tag that makes up the share f
    of the words is drawn in proportion to f to the power of `balance`.

    Args:
        first_tags: Tag ids of the words of each sentence of the first tower.
        second_tags: The same for the second tower.
        per_sentence: Word pairs per sentence of the first tower.
        balance: 0 draws every tag that occurs equally often, 1 as often as it occurs.
        rng: Source of all draws.

    Returns:
        Places of the first and of the second words, counted through the words of each tower. Empty where no
        balanced pairs exist: no words, or but one tag.
    """
    first = np.concatenate(first_tags) if len(first_tags) else np.zeros(0, dtype=np.int64)
    second = np.concatenate(second_tags) if len(second_tags) else np.zeros(0, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.int64)
    if not len(first) or not len(second):
        return nothing, nothing
    n_tags = int(max(first.max(), second.max())) + 1
    first_counts, second_counts = np.bincount(first, minlength=n_tags), np.bincount(second, minlength=n_tags)
    # Mass of each combination of tags (a, b): the product of what either tag is drawn with in its tower.
    mass = _tempered(first_counts, balance)[:, None] * _tempered(second_counts, balance)[None, :]
    equal = np.sqrt(np.diag(mass))  # the square root, or O would win twice over
    different = mass - np.diag(np.diag(mass))
    if not equal.sum() or not different.sum():
        return nothing, nothing
    n_half = max(1, per_sentence * len(first_tags) // 2)
    same_tag = rng.choice(n_tags, size=n_half, p=equal / equal.sum())
    other = rng.choice(n_tags * n_tags, size=n_half, p=(different / different.sum()).ravel())
    wanted_first = np.concatenate([same_tag, other // n_tags])
    wanted_second = np.concatenate([same_tag, other % n_tags])
    return _draw(first, first_counts, wanted_first, rng), _draw(second, second_counts, wanted_second, rng)


def _tempered(counts: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    return np.where(counts > 0, np.maximum(counts / counts.sum(), 1e-12) ** balance, 0.0)


def _draw(
    tags: NDArray[np.int64], counts: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """A random word of each wanted tag."""
    by_tag = np.argsort(tags, kind="stable")
    starts = np.cumsum(counts) - counts
    drawn: NDArray[np.int64] = by_tag[starts[wanted] + (rng.random(len(wanted)) * counts[wanted]).astype(np.int64)]
    return drawn


class _PairDraw:
    """Draws the word pairs of batches as a recipe says."""

    def __init__(self, recipe: PairsRecipe) -> None:
        self._recipe = recipe

    def pairs(self, tags: Sequence[NDArray[np.int64]], plan: Plan) -> NDArray[np.int64]:
        """Numbers of the first and of the second words of each pair among all words of a batch, (2, Q)."""
        n_first = sum(len(words) for words in tags[: plan.half])
        rng = np.random.default_rng(plan.seed)
        recipe = self._recipe
        first, second = sample_word_pairs(
            tags[: plan.half], tags[plan.half :], recipe.per_sentence, recipe.balance, rng
        )
        return np.stack([first, second + n_first])


# Losses of pairs, and how far pairs and their words are trusted: pure functions of tensors, in float32.
#
# Weights lie in [0, 1]. Whose outputs they are made from, whether a gradient flows back into these, and whether they
# are averaged over a batch is up to the caller.


def similarity_cross_entropy(similarity_logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of similarities.

    Args:
        similarity_logits: Logits that two words carry the same tag, (Q,).
        target: Gold 0 or 1, or the teacher's similarity in [0, 1], (Q,); no gradient flows into it.

    Returns:
        Nats per word pair, (Q,).
    """
    return F.binary_cross_entropy_with_logits(similarity_logits.float(), target.detach().float(), reduction="none")


def squared_margin(similarity: Tensor) -> Tensor:
    """Beta: (2 s - 1)^2, which is 0 for an undecided similarity of 0.5 and 1 at both ends; (Q,) to (Q,)."""
    return (2.0 * similarity.float() - 1.0).square()


def raised_margin(similarity: Tensor) -> Tensor:
    """Beta as in the published code: min(1, (2 s - 1)^2 + 0.5); (Q,) to (Q,)."""
    return (squared_margin(similarity) + 0.5).clamp_max(1.0)


def agreement(first_probs: Tensor, second_probs: Tensor, similarity: Tensor) -> Tensor:
    """Gamma: 1 - |s_p - s|, where s_p is the probability, by the recognizer, that both words have one tag.

    Args:
        first_probs: Tag probabilities of the first words, (Q, C).
        second_probs: Tag probabilities of the second words, (Q, C).
        similarity: What the similarity head says, (Q,).

    Returns:
        (Q,); 1 where recognizer and similarity head say the same.
    """
    same_tag = (first_probs.float() * second_probs.float()).sum(dim=-1)
    return 1.0 - (same_tag - similarity.float()).abs()


def cosine_agreement(first_probs: Tensor, second_probs: Tensor, similarity: Tensor) -> Tensor:
    """Gamma as published: 1 - |sigma(cos(p_1, p_2)) - s|, which never says 0 or 1 by p alone; as for `agreement`."""
    same_tag = F.cosine_similarity(first_probs.float(), second_probs.float(), dim=-1).sigmoid()
    return 1.0 - (same_tag - similarity.float()).abs()


def gamma_of_words(gamma: Tensor, places: Tensor, n_places: int) -> Tensor:
    """What a word's recognizer loss takes from gamma: the mean over the pairs that the word is in, 1 if in none.

    Args:
        gamma: Agreement of each pair, (Q,).
        places: Flat place of one word of each pair, (Q,).
        n_places: How many flat places there are.

    Returns:
        (n_places,).
    """
    total = torch.zeros(n_places, dtype=gamma.dtype, device=gamma.device).index_add_(0, places, gamma)
    pairs = torch.zeros_like(total).index_add_(0, places, torch.ones_like(gamma))
    return torch.where(pairs > 0, total / pairs.clamp_min(1.0), torch.ones_like(total))


def _full_beta(similarity: Tensor) -> Tensor:
    return torch.ones_like(similarity, dtype=torch.float32)


def _full_gamma(first_probs: Tensor, second_probs: Tensor, similarity: Tensor) -> Tensor:
    return torch.ones_like(similarity, dtype=torch.float32)


# A new weighting is one function above and one line here; recipes name it by its key.
BETAS: dict[str, Callable[[Tensor], Tensor]] = {
    "squared_margin": squared_margin,
    "raised_margin": raised_margin,
    "one": _full_beta,
}
GAMMAS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "agreement": agreement,
    "cosine_agreement": cosine_agreement,
    "one": _full_gamma,
}


class PairWeights(NamedTuple):
    """How far a pair is trusted: beta by its similarity, gamma by how well recognizer and similarity head agree."""

    beta: Callable[[Tensor], Tensor]
    gamma: Callable[[Tensor, Tensor, Tensor], Tensor]

    @classmethod
    def of(cls, recipe: WeightsRecipe) -> "PairWeights":
        """Those that a recipe names.

        Raises:
            RecipeError: If a name stands in no table.
        """
        return cls(choose(BETAS, recipe.beta, "weights.beta"), choose(GAMMAS, recipe.gamma, "weights.gamma"))


def uses_pairs(loss: LossRecipe, weights: WeightsRecipe) -> bool:
    """Whether a student's loss looks at word pairs at all."""
    return loss.similarity_weight > 0 or weights.gamma != "one"


# A teacher's objective: gold tags of words, and whether the words of a pair have the same.


class LabelledPairBatch(NamedTuple):
    """Labelled sentence pairs; `tag_ids` (N,), `word_pairs` (2, Q) numbers of words, `same_tag` (Q,) 0 or 1."""

    tokens: TokenBatch
    tag_ids: Tensor
    word_pairs: Tensor
    same_tag: Tensor


class LabelledPairs(Objective[LabelledPairBatch]):
    """Cross-entropy of words against gold tags and of word pairs against their sameness, each a mean."""

    def __init__(self, text: LabelledText, pairs: PairsRecipe, share: float) -> None:
        """Keep them; `share` is that of the similarity."""
        self._text, self._draw, self.lengths = text, _PairDraw(pairs), text.lengths
        self.terms = {"recognizer": 1.0, "similarity": share}

    def batch(self, plan: Plan) -> LabelledPairBatch:
        """See `Objective.batch`."""
        tokens, tags = self._text.batch(plan)
        tag_ids = np.concatenate(tags)
        first, second = pairs = self._draw.pairs(tags, plan)
        same_tag = (tag_ids[first] == tag_ids[second]).astype(np.float32)
        return LabelledPairBatch(tokens, *map(torch.from_numpy, (tag_ids, pairs, same_tag)))

    def counts(self, batch: LabelledPairBatch) -> dict[str, int]:
        """Words and word pairs."""
        return {"recognizer": len(batch.tag_ids), "similarity": len(batch.same_tag)}

    def loss_sums(self, network: nn.Module, batch: LabelledPairBatch) -> dict[str, Tensor]:
        """See `Objective.loss_sums`; the network is a `JointModel` with a head."""
        output = network(*batch.tokens, batch.word_pairs)
        return {
            "recognizer": token_cross_entropy(output.logits, batch.tag_ids).sum(),
            "similarity": similarity_cross_entropy(output.similarity_logits, batch.same_tag).sum(),
        }


# A student's objective: soft labels of words, and the teacher's similarity of word pairs.
#
#     L = share * mean gamma beta L_sim + 1/2 mean gamma alpha L_ner (first tower) + 1/2 the same (second tower)
#
# The weights are the teacher's, one for each word and pair (`SoftPairs`), or the student's, one for the batch
# (`BatchWeightedPairs`).


class SoftPairBatch(NamedTuple):
    """Unlabelled sentence pairs with their soft labels.

    `probs` (N, C) and `trust` (N,) as in `SoftBatch`; `in_first_tower` (N,); `word_pairs` (2, Q) numbers of words;
    `similarity` (Q,) in [0, 1], what the teacher says of them.
    """

    tokens: TokenBatch
    probs: Tensor
    trust: Tensor
    in_first_tower: Tensor
    word_pairs: Tensor
    similarity: Tensor

    @property
    def trust_of_pairs(self) -> Tensor:
        """The product of how far both words of each pair are trusted, (Q,)."""
        return self.trust[self.word_pairs].prod(dim=0)


class SoftPairs(Objective[SoftPairBatch]):
    """The loss with the teacher's weights: no gradient flows through them."""

    def __init__(
        self, text: SoftText, loss: WordLoss, shares: LossRecipe, weights: PairWeights, pairs: PairsRecipe
    ) -> None:
        """Keep what the loss is made of.

        Args:
            text: What the student learns from.
            loss: How far it is from the teacher in a word.
            shares: Of the two tasks; without one of the similarity the pairs weigh words alone.
            weights: Of pairs.
            pairs: How word pairs are drawn.
        """
        self._text, self._loss, self._weights, self._draw = text, loss, weights, _PairDraw(pairs)
        self.lengths = text.lengths
        half = shares.recognizer_weight / 2
        self.terms = {"similarity": shares.similarity_weight, "recognizer_first": half, "recognizer_second": half}
        # Pairs are drawn by the names of tags, so that the order in which a teacher counts them changes nothing.
        tags = text.soft_labels.card.tags
        by_name = sorted(tags, key=lambda tag: split_tag(tag)[::-1])
        self._rank = np.asarray([by_name.index(tag) for tag in tags], dtype=np.int64)

    def batch(self, plan: Plan) -> SoftPairBatch:
        """See `Objective.batch`."""
        windows = self._text.windows(plan)
        tokens, probs, trust = self._text.batch(windows)
        lengths = [len(window.word_numbers) for window in windows]
        likeliest = self._rank[probs.argmax(dim=-1).numpy()]
        pairs = self._draw.pairs(np.split(likeliest, np.cumsum(lengths)[:-1]), plan)
        similarity = _said_of_pairs(self._text.soft_labels, windows, pairs)
        return SoftPairBatch(
            tokens,
            probs,
            trust,
            torch.arange(len(probs)) < sum(lengths[: plan.half]),
            torch.from_numpy(pairs),
            torch.from_numpy(similarity),
        )

    def counts(self, batch: SoftPairBatch) -> dict[str, int]:
        """Word pairs, and words of either tower."""
        n_first = int(batch.in_first_tower.sum())
        return {
            "similarity": len(batch.similarity),
            "recognizer_first": n_first,
            "recognizer_second": len(batch.trust) - n_first,
        }

    def loss_sums(self, network: nn.Module, batch: SoftPairBatch) -> dict[str, Tensor]:
        """See `Objective.loss_sums`; the network is a `JointModel`."""
        output = network(*batch.tokens, batch.word_pairs if self.terms["similarity"] else None)
        first_probs, second_probs = batch.probs[batch.word_pairs]
        gamma = self._weights.gamma(first_probs, second_probs, batch.similarity)
        # A pair counts for both of its words.
        weights = self._loss.weights(batch.probs, batch.trust) * gamma_of_words(
            gamma.repeat(2), batch.word_pairs.flatten(), len(batch.trust)
        )
        similarity = torch.zeros((), device=gamma.device)
        if output.similarity_logits is not None:
            values = similarity_cross_entropy(output.similarity_logits, batch.similarity)
            similarity = (values * gamma * self._weights.beta(batch.similarity) * batch.trust_of_pairs).sum()
        values = self._loss.distance(output.logits, batch.probs) * weights
        first = batch.in_first_tower
        return {
            "similarity": similarity,
            "recognizer_first": values[first].sum(),
            "recognizer_second": values[~first].sum(),
        }


class BatchWeightedPairs(SoftPairs):
    """The loss with the student's own weights, each a mean over the batch, with a gradient through them.

        L = gamma ( share * beta BCE(s_p, s_T) + 1/2 share * (alpha_1 CE_1 + alpha_2 CE_2) )

    s_T is the teacher's similarity, s_z and s_p the cosines of the student's scores and of its probabilities, squashed.
    Alpha is a mean over the words of a tower, beta over the pairs by s_z, gamma over the pairs by s_p and s_z. A batch
    is a micro-batch of one process, which is therefore never computed in parts; how many of them a step has changes the
    weights a little.
    """

    in_parts = False

    def loss_sums(self, network: nn.Module, batch: SoftPairBatch) -> dict[str, Tensor]:
        """See `Objective.loss_sums`; the network is a `TwoHeadStudent`."""
        logits = network(*batch.tokens, batch.in_first_tower).float()
        probs = logits.softmax(dim=-1)
        first_scores, second_scores = logits[batch.word_pairs]
        first_probs, second_probs = probs[batch.word_pairs]
        of_scores = F.cosine_similarity(first_scores, second_scores, dim=-1).sigmoid()
        gamma = _mean(self._weights.gamma(first_probs, second_probs, of_scores))
        values = similarity_cross_entropy(F.cosine_similarity(first_probs, second_probs, dim=-1), batch.similarity)
        losses, alphas = self._loss.distance(logits, batch.probs) * batch.trust, self._loss.alpha(probs)
        sums = {"similarity": gamma * _mean(self._weights.beta(of_scores)) * (values * batch.trust_of_pairs).sum()}
        first = batch.in_first_tower
        for name, words in (("recognizer_first", first), ("recognizer_second", ~first)):
            alpha = alphas[words].sum() / words.sum().clamp_min(1)
            sums[name] = gamma * alpha * losses[words].sum()
        return sums


def _said_of_pairs(soft_labels: SoftLabels, windows: Sequence[Window], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the teacher says of word pairs, (Q,), from the projections that are stored."""
    if not pairs.size:
        return np.zeros(0, dtype=np.float32)
    by_window = [soft_labels.projections(window.sentence)[window.word_numbers] for window in windows]
    projections = np.concatenate(by_window).astype(np.float32)
    return soft_labels.similarities(*projections[pairs])


def _mean(weights: Tensor) -> Tensor:
    """The mean over the pairs of a batch; 1 where there are none."""
    return weights.mean() if weights.numel() else torch.ones((), device=weights.device)


# What is refused before a teacher labels a whole text.


def check_published(variant: str, teachers: Sequence[str]) -> None:
    """Refuse what a published variant cannot learn from: a teacher of another make.

    Args:
        variant: Of the recipe; others than the published ones are not looked at.
        teachers: The models among the teachers, by folder or hub name.

    Raises:
        RecipeError: With the teacher, what it is, and what would be right.
    """
    if variant not in PUBLISHED:
        return
    way = f"train one with train_teacher.py recipe={variant}, or take another variant"
    if not teachers:
        raise RecipeError(f"variant={variant} needs a teacher with a similarity head, found annotations alone; {way}")
    for teacher in teachers:
        if not is_there(teacher):
            continue  # of a teacher that is not there somebody else tells
        found = read_settings(teacher)
        if (found.similarity, found.sharing) != ("cosine", "separate"):
            raise RecipeError(
                f"{teacher}: variant={variant} needs a teacher with an encoder for each task and the cosine of "
                f"hidden states (sharing=separate similarity.kind=cosine); this one has {_make_of(found)}; {way}"
            )


def _make_of(settings: ModelSettings) -> str:
    if not settings.similarity:
        return "no similarity head"
    encoders = "an encoder for each task" if settings.sharing == "separate" else "one encoder for both tasks"
    return f"{encoders} (sharing={settings.sharing}) and similarity.kind={settings.similarity}"


def check_similarity(teachers: Sequence[str], models: Sequence[str]) -> None:
    """Refuse teachers without the head that a loss of word pairs needs; one with it is enough.

    Args:
        teachers: All of them, by name.
        models: Those that are no annotation files.

    Raises:
        RecipeError: With the way out.
    """
    if any(read_settings(name).similarity for name in models):
        return
    way = "set loss.similarity_weight=0 and weights.gamma=one (or variant=pooled)"
    if len(teachers) == 1 and models:
        raise RecipeError(
            f"{models[0]}: this teacher has no similarity head; {way}, or train it with similarity_weight above 0"
        )
    raise RecipeError(f"{', '.join(teachers)}: none of these teachers has a similarity head; {way}")
