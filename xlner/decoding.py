"""From tag probabilities to entities: the likeliest valid tag sequence, and how probable each entity of it is.

Words are tagged independently of one another, so that the likeliest tags may not fit together (`I-PER` after `O`).
Here only valid IOB2 sequences count: `I-X` stands after `B-X` or `I-X`. A sequence is as probable as the product of
its tags' probabilities, divided by the sum of that over all valid sequences. A word without probabilities (a row of
zeros, since it tokenises to nothing) lets its neighbours decide. Shapes: S sentences, W words, C tags.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xlner.tags import OUTSIDE, LabelSet, Span, may_follow, spans_of, split_tag, to_iob2

Probs = NDArray[np.floating]
Forward = NDArray[np.float64]

# Of what is chosen here; whoever changes which tags or scores come out of the same probabilities adds 1, so that stored
# scores of another number are not used any more.
DECODING = 2  # 2: text without spaces
# Sentences whose sums are computed side by side; those of like length, or padding would be most of the work.
CHUNK_SENTENCES = 256
# Keeps sequences apart from impossible ones where a softmax says 0.
LEAST = 1e-30
# A word without probabilities is O, unless its neighbours want it inside.
DRAW = 1e-6


# Log weight of what must not be: far below any score, and yet a number.
IMPOSSIBLE = -1e4


def valid_steps(tags: Sequence[str], *, begins: bool = True) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tag may follow which, (C, C) from row to column, and which may come first, (C,).

    Args:
        tags: In the order of a model's outputs.
        begins: Whether entities begin with `B-X`; else, as of a type without a `B-X`, `I-X` may follow anything.
    """
    free = [not (begins and tag[:2] == "I-" and f"B{tag[1:]}" in tags) for tag in tags]
    steps = [[anywhere or may_follow(before, tag) for tag, anywhere in zip(tags, free, strict=True)] for before in tags]
    return np.asarray(steps, dtype=bool), np.asarray(free, dtype=bool)


def penalties(tags: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """0 for what may be and `IMPOSSIBLE` for what may not: of pairs (C, C), and of first tags (C,)."""
    pairs, first = (np.where(allowed, 0.0, IMPOSSIBLE).astype(np.float32) for allowed in valid_steps(tags))
    return pairs, first


class ValidTags:
    """The valid sequences of one label set: the likeliest one, and how probable its entities are."""

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self._valid, self._free = valid_steps(labels.tags, begins=labels.begins)
        # Ids of the tags that need a certain one before, and of the B that goes with each.
        self._inside = np.flatnonzero(~self._free)
        begin = [labels.tags.index(f"B{labels.tags[number][1:]}") for number in self._inside]
        self._begin = np.asarray(begin, dtype=np.int64)

    def likeliest(self, probs: Probs) -> NDArray[np.int64]:
        """Tag ids of the likeliest valid sequence of a sentence, (W,), from its probabilities (W, C)."""
        filled = self._filled(probs)
        best: NDArray[np.int64] = filled.argmax(axis=1)
        if self._valid[[self.labels.outside_id, *best[:-1]], best].all():
            return best  # nothing is likelier than the likeliest tag of each word
        return self._viterbi(np.log(filled + LEAST))

    def tags(self, probs: Probs) -> tuple[str, ...]:
        """The likeliest valid sequence of a sentence as clean IOB2 tags, (W,)."""
        if not len(probs):
            return ()
        chosen = [self.labels.tags[number] for number in self.likeliest(probs)]
        seen: NDArray[np.bool_] = np.any(probs, axis=1)
        return to_iob2(chosen if self.labels.begins else _without_gaps(chosen, seen))

    def _viterbi(self, logs: Forward) -> NDArray[np.int64]:
        n_words, n_tags = logs.shape
        origins = np.zeros((n_words, n_tags), dtype=np.int64)
        score = np.where(self._free, logs[0], -np.inf)
        for word in range(1, n_words):
            top = int(score.argmax())
            origin, reached = np.full(n_tags, top), np.full(n_tags, score[top])
            from_begin, from_inside = score[self._begin], score[self._inside]
            origin[self._inside] = np.where(from_begin >= from_inside, self._begin, self._inside)
            reached[self._inside] = np.maximum(from_begin, from_inside)
            score, origins[word] = reached + logs[word], origin
        path = np.zeros(n_words, dtype=np.int64)
        path[-1] = score.argmax()
        for word in range(n_words - 1, 0, -1):
            path[word - 1] = origins[word, path[word]]
        return path

    def entities(self, sentences: Sequence[Probs]) -> list[list[tuple[Span, float]]]:
        """The entities of each sentence's likeliest valid sequence, with their probabilities.

        Args:
            sentences: Tag probabilities, (W, C) each; W differs.

        Returns:
            Per sentence its entities in order. The probability of an entity is that of just this span having just
            this type, over all valid sequences; for a model whose entities may begin with `I-X`, the mean
            probability of the tags that were chosen.
        """
        found: list[list[tuple[Span, float]]] = [[] for _ in sentences]
        with_entities = []
        for number, probs in enumerate(sentences):
            if spans := spans_of(self.tags(probs)):
                with_entities.append((number, spans))
        with_entities.sort(key=lambda item: len(sentences[item[0]]))
        for start in range(0, len(with_entities), CHUNK_SENTENCES):
            chunk = with_entities[start : start + CHUNK_SENTENCES]
            score = self._span_probabilities if self.labels.begins else _mean_probabilities
            scores = score([sentences[number] for number, _ in chunk], [spans for _, spans in chunk])
            for (number, spans), of_spans in zip(chunk, scores, strict=True):
                found[number] = list(zip(spans, of_spans, strict=True))
        return found

    def _span_probabilities(self, sentences: Sequence[Probs], spans: Sequence[Sequence[Span]]) -> list[list[float]]:
        """By the forward-backward algorithm, all sentences side by side; (Rabiner 1989, section III)."""
        n_words = max(map(len, sentences))
        probs = np.zeros((n_words, len(sentences), len(self.labels.tags)))
        probs[:, :, self.labels.outside_id] = 1.0  # what pads is surely outside, and so changes nothing
        for number, own in enumerate(sentences):
            probs[: len(own), number] = self._filled(own) + LEAST
        forward, scales = self._forward(probs)
        after = self._after(probs, scales)
        known = {tag: number for number, tag in enumerate(self.labels.tags)}
        found = []
        for number, of_sentence in enumerate(spans):
            scores = []
            for label, start, end in of_sentence:
                tags = [known[tag] for tag in (f"B-{label}", f"I-{label}") if tag in known]
                first, inside = tags[0], tags[-1]
                within = float(np.prod(probs[start + 1 : end, number, inside] / scales[start + 1 : end, number]))
                scores.append(min(1.0, float(forward[start, number, first]) * within * float(after[end - 1, number])))
            found.append(scores)
        return found

    def _forward(self, probs: Forward) -> tuple[Forward, Forward]:
        """Probabilities of each tag given the words so far, (W, S, C), and what they were divided by, (W, S)."""
        forward, scales = np.zeros_like(probs), np.zeros(probs.shape[:2])
        current = np.where(self._free, probs[0], 0.0)
        for word in range(len(probs)):
            if word:
                reached = np.ones_like(current)
                reached[:, self._inside] = current[:, self._begin] + current[:, self._inside]
                current = probs[word] * reached
            scales[word] = current.sum(axis=1)
            current = current / scales[word][:, None]
            forward[word] = current
        return forward, scales

    def _after(self, probs: Forward, scales: Forward) -> Forward:
        """What the words after each word say for an entity to end there, (W, S), as a factor."""
        ends = np.ones(probs.shape[:2])
        following = np.ones(probs.shape[1:])
        for word in range(len(probs) - 2, -1, -1):
            weighted = probs[word + 1] * following / scales[word + 1][:, None]
            ends[word] = weighted[:, self._free].sum(axis=1)
            following = np.repeat(ends[word][:, None], probs.shape[2], axis=1)
            following[:, self._begin] += weighted[:, self._inside]
            following[:, self._inside] += weighted[:, self._inside]
        return ends

    def _filled(self, probs: Probs) -> Forward:
        """The probabilities; words without any are inside or, by a hair, rather outside, and begin nothing."""
        filled = probs.astype(np.float64)
        empty = ~probs.any(axis=1)
        if empty.any():
            filled[np.ix_(empty, ~self._free)] = 0.5
            filled[empty, self.labels.outside_id] = 0.5 + DRAW
        return filled


def _without_gaps(tags: Sequence[str], seen: NDArray[np.bool_]) -> list[str]:
    """The tags, those of words without probabilities inside where the words around them are."""
    filled = list(tags)
    after = OUTSIDE
    following = [OUTSIDE] * len(tags)
    for word in range(len(tags) - 1, -1, -1):
        following[word] = after
        after = tags[word] if seen[word] else after
    for word in range(1, len(tags)):
        before = split_tag(filled[word - 1])[1]
        if not seen[word] and before and following[word] == f"I-{before}":
            filled[word] = following[word]
    return filled


def _mean_probabilities(sentences: Sequence[Probs], spans: Sequence[Sequence[Span]]) -> list[list[float]]:
    """Of the likeliest tags of each entity; words without probabilities have no say."""
    best = [probs.max(axis=1) for probs in sentences]
    return [
        [min(1.0, float(values[start:end][values[start:end] > 0].mean())) for _, start, end in of_sentence]
        for values, of_sentence in zip(best, spans, strict=True)
    ]
