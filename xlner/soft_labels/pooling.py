"""Pooled soft labels: what a teacher says of a word, weighed against what it says of words in like places."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlner.config.schema import MOST_STRENGTH, PoolingRecipe

# How sure a teacher is of its labels, and what denoising changed: what can be known without any target label.
#
# `docs/results.md` says what is known of these numbers.


# Both lie beyond what the runs of docs/results.md had (sure by 0.72 to 0.93; at most 14 changed labels in 100 with the
# real encoder), all of whose students ended above their teachers: what is told of is a case that nobody has measured.
UNSURE = 0.6
MUCH_CHANGED = 0.3  # per word that the teacher takes for an entity


@dataclass(frozen=True)
class LabelChanges:
    """What became of a teacher's labels, counted in words that the teacher could see.

    `sureness` is the mean of the highest probability over the words that the teacher takes for (parts of) entities, 0
    where there are none. `removed` words were of an entity and are `O` now, `added` the other way round, `retyped` are
    of an entity of another type; a new border alone is no change.
    """

    words: int
    entity_words: int
    sureness: float
    removed: int
    added: int
    retyped: int

    @property
    def changed_share(self) -> float:
        """Changed words per word that the teacher takes for an entity."""
        return (self.removed + self.added + self.retyped) / max(1, self.entity_words)

    def to_json(self) -> dict[str, float]:
        """For report.json."""
        return {**asdict(self), "sureness": round(self.sureness, 4)}

    def line(self) -> str:
        """What a person is told."""
        share = 100 * self.entity_words / max(1, self.words)
        return (
            f"the teacher takes {self.entity_words:,} of {self.words:,} words ({share:.1f} %) for entities and is "
            f"{100 * self.sureness:.0f} % sure of them; of their labels denoising made {self.removed:,} O and gave "
            f"{self.retyped:,} another type, and it added {self.added:,}"
        )

    def doubts(self) -> list[str]:
        """Why the student may end below its teacher; what finds no entity at all is told elsewhere."""
        if not self.entity_words:
            return []
        if self.sureness < UNSURE:
            return [
                f"the teacher is {100 * self.sureness:.0f} % sure of what it takes for entities, as teachers are that "
                "hardly know a language: look at what the student finds before you use it"
            ]
        if self.changed_share > MUCH_CHANGED:
            return [
                f"denoising changed {100 * self.changed_share:.0f} labels for every 100 words of entities: if you have "
                "labelled sentences, compare with denoising=none"
            ]
        return []


def mean_sureness(sentences: Iterable[NDArray[np.floating]], outside: int) -> float:
    """`LabelChanges.sureness` of tag probabilities, (W, C) a sentence; rows of zeros are words not seen."""
    total, count = 0.0, 0
    for probs in sentences:
        if len(probs):
            highest = probs.max(axis=1)[(probs.argmax(axis=1) != outside) & probs.any(axis=1)]
            total, count = total + float(highest.sum()), count + len(highest)
    return total / count if count else 0.0


def label_changes(
    pairs: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]], tags: tuple[str, ...], outside: str
) -> LabelChanges:
    """Compare a teacher's labels with what was made of them.

    Args:
        pairs: Probabilities of a sentence before and after, both (W, C).
        tags: Of the columns.
        outside: The tag of words outside entities.
    """
    # Of each tag the number of its type, 0 for `O`: B and I of a type are one.
    names = [tag.partition("-")[2] if tag != outside else "" for tag in tags]
    numbers = {name: number for number, name in enumerate(sorted({*names}))}
    type_of = np.asarray([numbers[name] for name in names])
    none = type_of[tags.index(outside)]
    words = entity_words = removed = added = retyped = 0
    total = 0.0
    for before, after in pairs:
        seen = np.any(before, axis=1)
        old, new = type_of[before[seen].argmax(axis=1)], type_of[after[seen].argmax(axis=1)]
        total += float(before[seen].max(axis=1)[old != none].sum()) if seen.any() else 0.0
        words, entity_words = words + int(seen.sum()), entity_words + int((old != none).sum())
        removed, added = (
            removed + int(((old != none) & (new == none)).sum()),
            added + int(((old == none) & (new != none)).sum()),
        )
        retyped += int(((old != none) & (new != none) & (old != new)).sum())
    return LabelChanges(words, entity_words, total / entity_words if entity_words else 0.0, removed, added, retyped)


# A teacher in a language that it was not trained on errs by the sentence: it takes `der` for a place here and there,
# and a noun for a person once in five times. What it says on the average of all places with the same word, the same
# neighbour or the same pattern of capitals is right more often. Per word i, with p its probabilities:
#
#     log q_i = (1 - sum_k w_ik) log p_i + sum_k w_ik log m_ik + constant        w_ik = weight_k n_ik / (n_ik + DOUBT)
#
# m_ik is the mean of p over the n_ik *other* words of the text with the same key of kind k. The weights are multiplied
# by a strength, 1 where the teacher is sure and more where it is not: a good teacher loses by what helps a poor one.
# Nothing here knows a language, and no label is read.
#
# Shapes: W words of a sentence, C tags, K kinds of keys. A word that the teacher could not see has a row of zeros, and
# keeps it.


Probs = NDArray[np.float64]

# With so many other places, half of a kind's weight counts; one place alone says little.
DOUBT = 2.0
# The smallest probability that is told from zero: fp16 stores 0 below 6e-8, and one zero would veto all other voices.
LEAST = 1e-6
# `strength_for`: how sure a teacher must be to be pooled with strength 1, and what a lack of sureness adds. From the F1
# of soft labels on dev sets of pt, it, pl and fr, a strong and a weak encoder (docs/results.md).
SURE, STRENGTH_PER_DOUBT = 0.9, 2.0
# Where so few of the words that begin with a letter begin with a capital, nothing is pooled: a script without capitals,
# or a text in small letters. In texts of 12 languages with capitals 15 to 42 % of them do.
FEW_CAPITALS = 0.02
# A word takes part in the shift of `O` as far as its label is doubtful: by 1 - max p, times this, and at most fully.
SHIFT_PER_DOUBT = 1.5


def outline(word: str) -> str:
    """`A` for a word that starts with a capital, `a` for a small letter, `0` for a digit, else the word itself.

    A script without capitals has neither: there a word is its own outline, so that it is alike to nothing but itself.
    One outline for all of its words would pool names with everything else.
    """
    first = word[:1]
    if first.isupper() or first.istitle():
        return "A"
    if first.islower():
        return "a"
    return "0" if first.isdigit() else word


def word_keys(words: Sequence[str]) -> list[str]:
    """The word itself."""
    return list(words)


def left_keys(words: Sequence[str]) -> list[str]:
    """The word before, and the outline of the word."""
    return [f"{left}\t{outline(word)}" for left, word in zip(["", *words[:-1]], words, strict=True)]


def right_keys(words: Sequence[str]) -> list[str]:
    """The word after, and the outline of the word."""
    return [f"{right}\t{outline(word)}" for word, right in zip(words, [*words[1:], ""], strict=True)]


def outline_keys(words: Sequence[str]) -> list[str]:
    """The outlines of the word and of two words on either side."""
    outlines = ["", "", *(outline(word) for word in words), "", ""]
    return ["\t".join(outlines[place : place + 5]) for place in range(len(words))]


class Capitals:
    """How many words of a text begin with a capital, of those that begin with a letter."""

    def __init__(self) -> None:
        self._capitals = self._letters = 0

    def add(self, words: Iterable[str]) -> None:
        """Take in the words of a sentence."""
        for word in words:
            self._letters += word[:1].isalpha()
            self._capitals += outline(word) == "A"

    @property
    def are_few(self) -> bool:
        """Whether there are too few for pooling, which gains by telling names from words written like them."""
        return self._capitals <= FEW_CAPITALS * self._letters


class TagMeans:
    """Mean tag probabilities of the words that share a key; grows with each sentence."""

    def __init__(self, n_tags: int) -> None:
        self._numbers: dict[str, int] = {}
        self._sums = np.zeros((1024, n_tags))
        self._counts = np.zeros(1024, dtype=np.int64)

    def add(self, keys: Sequence[str], probs: Probs) -> None:
        """Take in the words of a sentence: their keys, (W,), and probabilities, (W, C)."""
        places = np.asarray([self._numbers.setdefault(key, len(self._numbers)) for key in keys], dtype=np.int64)
        while len(self._numbers) > len(self._counts):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        np.add.at(self._sums, places, probs)
        np.add.at(self._counts, places, 1)

    def of_others(self, keys: Sequence[str], probs: Probs) -> tuple[Probs, NDArray[np.int64]]:
        """Per word of a sentence that was added before: the mean of the other words with its key, and their number.

        Returns:
            (W, C), zeros where there is no other word, and (W,).
        """
        places = np.asarray([self._numbers[key] for key in keys], dtype=np.int64)
        others = self._counts[places] - 1
        # Sums of many floats less one of them may end up a hair below zero.
        means = np.maximum(self._sums[places] - probs, 0.0) / np.maximum(others, 1)[:, None]
        return np.where(others[:, None] > 0, means, 0.0), others


def pool(probs: Probs, means: Probs, counts: NDArray[np.int64], weights: Sequence[float]) -> Probs:
    """The formula at the head of this module.

    Args:
        probs: What the teacher says of the words, (W, C).
        means: What it says of the other words with the same key, (K, W, C).
        counts: How many of these there are, (K, W).
        weights: Of the kinds of keys, (K,); together at most 1.

    Returns:
        Tag probabilities, (W, C), each row summing to 1.
    """
    share = np.asarray(weights)[:, None] * counts / (counts + DOUBT)
    logs = (1.0 - share.sum(axis=0))[:, None] * np.log(probs + LEAST)
    logs = logs + (share[:, :, None] * np.log(means + LEAST)).sum(axis=0)
    return _normalised(logs)


def entity_margins(probs: Probs, outside: int) -> Probs:
    """How much likelier the likeliest entity tag is than `O`, in nats, (W,): below 0 where `O` is chosen."""
    logs = np.log(probs + LEAST)
    margins: Probs = np.delete(logs, outside, axis=1).max(axis=1) - logs[:, outside]
    return margins


def outside_shift(margins: Probs, source_share: float, strength: float) -> float:
    """What to add to the logits of `O`, so that a language with too many entities gets fewer.

    Args:
        margins: `entity_margins` of all words of the text.
        source_share: Share of `O` among the words of the teacher's labelled text.
        strength: 0 leaves the share of words for which `O` is chosen as it is, 1 makes it the source's.

    Returns:
        Nats; 0 where `O` is chosen as often as in the source or more often.
    """
    share = float((margins <= 0.0).mean()) if len(margins) else 1.0
    if share >= source_share:
        return 0.0
    return max(0.0, float(np.quantile(margins, share + strength * (source_share - share))))


def shift_outside(probs: Probs, outside: int, shift: float) -> Probs:
    """Probabilities, (W, C), after adding `shift` to the logit of `O`, as far as a word is doubtful."""
    logs = np.log(probs + LEAST)
    logs[:, outside] += shift * np.minimum(1.0, SHIFT_PER_DOUBT * (1.0 - probs.max(axis=1)))
    return _normalised(logs)


def strength_for(sureness: float) -> float:
    """By what to multiply the weights of a teacher that is so sure (`Sureness.mean`) of what it takes for entities."""
    return float(np.clip(1.0 + STRENGTH_PER_DOUBT * (SURE - sureness), 1.0, MOST_STRENGTH))


def weights_for(recipe: PoolingRecipe, sentences: Iterable[NDArray[np.floating]], outside: int) -> dict[str, float]:
    """The weights of a recipe times its strength, which `auto` derives from the teacher's labels, (W, C) a sentence."""
    strength = recipe.fixed_strength
    if strength is None:
        strength = strength_for(mean_sureness(sentences, outside))
    return {name: weight * strength for name, weight in recipe.weights.items()}


class Outside(NamedTuple):
    """What is known of `O`: its tag id, its share of the source's words (0: not known), how far to follow that."""

    tag_id: int
    source_share: float
    strength: float


def pooled_probs(
    sentences: Callable[[], Iterable[tuple[Sequence[str], NDArray[np.floating]]]],
    weights: Mapping[str, float],
    outside: Outside,
    *,
    temperature: float = 1.0,
) -> Iterator[Probs]:
    """The pooled probabilities of a text, sentence by sentence; goes through it three times, in memory for keys alone.

    Args:
        sentences: Starts over at each call: the words of each sentence and their probabilities, (W, C).
        weights: Of the kinds of keys by name; a kind of weight 0 takes no part.
        outside: For `outside_shift`, after pooling.
        temperature: Divides the logits in the end; below 1 it sharpens.
    """
    used = {name: weight for name, weight in weights.items() if weight}
    tables: dict[str, TagMeans] = {}
    capitals = Capitals()
    for words, probs in sentences():
        capitals.add(words)
        seen = np.any(probs, axis=1)
        for name in used:
            table = tables.setdefault(name, TagMeans(probs.shape[1]))
            keys = KEYS[name](words)
            table.add([keys[place] for place in np.flatnonzero(seen)], probs[seen].astype(np.float64))

    if capitals.are_few:
        used = {}

    def pooled() -> Iterator[tuple[NDArray[np.bool_], Probs]]:
        """Which words of a sentence the teacher saw, and the pooled probabilities of these."""
        for words, probs in sentences():
            seen, kept = np.any(probs > 0, axis=1), probs.astype(np.float64)
            kept = kept[seen]
            if not used or not len(kept):
                yield seen, kept
                continue
            columns = {name: KEYS[name](words) for name in used}
            found = [
                tables[name].of_others([keys[place] for place in np.flatnonzero(seen)], kept)
                for name, keys in columns.items()
            ]
            means, counts = np.stack([mean for mean, _ in found]), np.stack([count for _, count in found])
            yield seen, pool(kept, means, counts, list(used.values()))

    shift = 0.0
    if outside.strength and outside.source_share:
        margins = [entity_margins(kept, outside.tag_id) for _, kept in pooled()]
        together = np.concatenate(margins) if margins else np.zeros(0)
        shift = outside_shift(together, outside.source_share, outside.strength)
    for seen, kept in pooled():
        result = np.zeros((len(seen), kept.shape[1]))
        shifted = shift_outside(kept, outside.tag_id, shift) if shift else kept
        result[seen] = shifted if temperature == 1.0 else _normalised(np.log(shifted + LEAST) / temperature)
        yield result


def _normalised(logs: Probs) -> Probs:
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    probs: Probs = powers / powers.sum(axis=1, keepdims=True)
    return probs


# A new kind of like places is one function above and one line here; recipes give each its weight.
KEYS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "word": word_keys,
    "left": left_keys,
    "right": right_keys,
    "outline": outline_keys,
}
