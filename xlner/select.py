"""The sentences of raw text that would teach a model most, tagged by it, in the shapes that annotation tools import.

A sentence teaches by the entities that the model is expected to get wrong in it; of the most doubtful sentences those
are taken that differ most from one another by the model's hidden states, and nothing is taken twice.

Source: Zhdanov 2019 (arXiv:1901.05954), which clusters a multiple of what is asked for, weighted by doubt, and takes
from each cluster what is nearest to its centre.
"""

import heapq
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from xlner.decoding import ValidTags
from xlner.errors import CorpusError, ModelError
from xlner.tag_files.records import Record, TaggedRecord, in_chunks, record_words
from xlner.tagger import Tagger
from xlner.tags import OUTSIDE, Span

# Sentences among which diversity decides, for each one that is asked for.
CANDIDATES = 5
# Two sentences with this share of their different words in common are one, slightly changed.
ALIKE = 0.7
# A doubt of nothing at all would leave the clusters without a weight.
_LEAST_DOUBT = 1e-6
_NO_LETTER = regex.compile(r"[^\p{L}\p{N}]+")
_NUMBER = regex.compile(r"\p{N}+")

Values = NDArray[np.float64]


class Candidate(NamedTuple):
    """A tagged sentence; how doubtful each of its words is, (W,); and all of it."""

    record: TaggedRecord
    doubts: Values
    doubt: float


def select_sentences(
    tagger: Tagger, records: Iterable[Record], n: int, done: Iterable[Sequence[str]] = ()
) -> list[TaggedRecord]:
    """The sentences that would teach a model most, the best first, with the entities that it finds in them.

    Memory holds the candidates, five for each sentence that is asked for, and a number for each sentence that is read.

    Args:
        tagger: Of a transformer: its hidden states tell how sentences differ.
        records: Of raw text, each a sentence.
        n: How many are asked for; there may be fewer, if the text has fewer that differ.
        done: Words of sentences that are not to be selected again.

    Raises:
        CorpusError: If the text holds no sentence that is not done.
        ModelError: If the tagger has no hidden states.
    """
    network_of(tagger)
    seen = {sentence_key(words) for words in done}
    candidates = most_doubtful(tagger, _new_sentences(tagger, records, seen), CANDIDATES * n)
    if not candidates:
        raise CorpusError("no sentence to select: the text is empty, or all of it is done")
    return most_different(tagger, candidates, n)


def most_different(tagger: Tagger, candidates: Sequence[Candidate], n: int) -> list[TaggedRecord]:
    """Of candidates, the most doubtful first, n that differ; all that are no repeats if there are fewer."""
    order: Sequence[int] = range(len(candidates))
    if len(candidates) > n:
        order = spread(sentence_vectors(tagger, candidates), np.asarray([one.doubt for one in candidates]), n)
    return without_repeats([candidates[number].record for number in order], n)


def _new_sentences(tagger: Tagger, records: Iterable[Record], seen: set[int]) -> Iterator[Record]:
    """The records whose words, numbers and signs aside, were not seen before."""
    for record in records:
        words, _ = record_words(record, tagger.word_splitter)
        key = sentence_key(words)
        if words and key not in seen:
            seen.add(key)
            yield record


def most_doubtful(tagger: Tagger, records: Iterable[Record], n: int) -> list[Candidate]:
    """The n records of the greatest doubt, the greatest first."""
    decoder, begins = ValidTags(tagger.labels), _begins(tagger.labels.tags)
    best: list[tuple[float, int, Candidate]] = []
    number = 0
    for chunk in in_chunks(records):
        split = [record_words(record, tagger.word_splitter) for record in chunk]
        probs = tagger.probs([words for words, _ in split])
        found = decoder.entities(probs)
        for record, (words, offsets), rows, spans in zip(chunk, split, probs, found, strict=True):
            doubts = entity_doubts(rows.astype(np.float64), spans, begins)
            doubt = float(doubts.sum()) / len(words) ** 0.5
            candidate = Candidate(TaggedRecord(record, words, offsets, spans), doubts, doubt)
            number += 1
            # The number keeps the order of the text among equals, and candidates from being compared.
            entry = (doubt, -number, candidate)
            if len(best) < n:
                heapq.heappush(best, entry)
            else:
                heapq.heappushpop(best, entry)
    return [candidate for _, _, candidate in sorted(best, key=lambda entry: entry[:2], reverse=True)]


def entity_doubts(probs: Values, spans: Sequence[tuple[Span, float]], begins: Sequence[int]) -> Values:
    """How many entities of a sentence are expected to be wrong, word by word, (W,).

    An entity that was found counts by 1 less its score, shared among its words; a word outside counts by the
    probability that an entity begins there.

    Args:
        probs: Of its words, (W, C).
        spans: The entities found, with their scores.
        begins: The columns of tags that begin an entity.
    """
    doubts: Values = probs[:, begins].sum(axis=1)
    for span, score in spans:
        doubts[span.start : span.end] = (1.0 - score) / (span.end - span.start)
    return doubts


def _begins(tags: Sequence[str]) -> list[int]:
    """The numbers of the tags that may begin an entity: `B-X`, and `I-X` of a type without one."""
    entity_tags = [(number, tag) for number, tag in enumerate(tags) if tag != OUTSIDE]
    return [number for number, tag in entity_tags if tag[:2] == "B-" or f"B{tag[1:]}" not in tags]


# How sentences differ.


def network_of(tagger: Tagger) -> Any:
    """The network of a tagger, with an encoder whose hidden states can be looked at.

    Raises:
        ModelError: If it has none.
    """
    from xlner.models.inference import TorchBackend
    from xlner.models.joint import JointModel

    network = tagger.backend.model if isinstance(tagger.backend, TorchBackend) else None
    if not isinstance(network, JointModel):
        raise ModelError(
            f"{tagger.name}: an exported model or a compact student has no hidden states to compare sentences by; give "
            "the folder of the transformer that it was made from, or learnt from"
        )
    return network


def sentence_vectors(tagger: Tagger, candidates: Sequence[Candidate]) -> Values:
    """The mean of each sentence's hidden states of the last layer, weighted by the doubt of its words, (N, D).

    Their common mean is taken away, which in most encoders is the larger part, and their length is 1.
    """
    from xlner.models.inference import word_vectors

    windows, last = list(tagger.encoder.encode([one.record.words for one in candidates])), slice(-1, None)
    sums: Values | None = None
    for number, vectors in word_vectors(network_of(tagger), windows, tagger.encoder.pad_id, last, device=tagger.device):
        window = windows[number]
        if sums is None:
            sums = np.zeros((len(candidates), vectors.shape[1]))
        doubts = candidates[window.sentence].doubts[window.word_numbers] + _LEAST_DOUBT
        sums[window.sentence] += doubts @ vectors
    assert sums is not None
    sums /= np.asarray([one.doubts.sum() + _LEAST_DOUBT * len(one.doubts) for one in candidates])[:, None]
    sums -= sums.mean(axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return sums / np.where(lengths > 0, lengths, 1.0)


def spread(vectors: Values, doubts: Values, n: int) -> list[int]:
    """All sentences in an order in which any first n differ: one of each of n clusters, then the second of each, ...

    Args:
        vectors: Of the sentences, (N, D).
        doubts: Of the sentences, (N,): the weight of each in its cluster.
        n: How many clusters, at most N.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of sentences that are alike there are fewer clusters
        means = KMeans(n, n_init=1, max_iter=50, random_state=0)
        distances = means.fit(vectors, sample_weight=doubts + _LEAST_DOUBT).transform(vectors)
    clusters = means.labels_
    nearest = np.lexsort((-doubts, distances[np.arange(len(vectors)), clusters]))
    ranks, seen = np.zeros(len(vectors), dtype=np.int64), np.zeros(n, dtype=np.int64)
    for number in nearest:
        ranks[number] = seen[clusters[number]]
        seen[clusters[number]] += 1
    order: list[int] = np.lexsort((-doubts, ranks)).tolist()
    return order


# Nothing twice.


def sentence_key(words: Sequence[str]) -> int:
    """What sentences have in common that differ by case, signs and numbers alone."""
    return hash(_NO_LETTER.sub("", _NUMBER.sub("0", "".join(words).casefold())))


def without_repeats(records: Sequence[TaggedRecord], n: int) -> list[TaggedRecord]:
    """The first n records that are not nearly alike, those first that share no entity with one before."""
    chosen: list[tuple[int, set[str]]] = []
    names: set[str] = set()
    for may_share in (False, True):
        for number, record in enumerate(records):
            if len(chosen) == n:
                break
            found = {str(entity["text"]).casefold() for entity in record.entities()}
            words = {_NUMBER.sub("0", word.casefold()) for word in record.words}
            if not may_share and not names.isdisjoint(found):
                continue
            if any(len(words & others) >= ALIKE * len(words | others) for _, others in chosen):
                continue
            chosen.append((number, words))
            names |= found
    return [records[number] for number, _ in chosen]


# The shapes that annotation tools import. Offsets count characters.


class Shown(NamedTuple):
    """A sentence as a tool shows it: a text, where its words are, and the entities in words."""

    text: str
    offsets: Sequence[tuple[int, int]]
    spans: Sequence[Span]

    @classmethod
    def of(cls, record: TaggedRecord) -> "Shown":
        """A record; words without a text are joined by spaces."""
        spans = [span for span, _ in record.spans]
        if record.record.text is not None and record.offsets is not None:
            return cls(record.record.text, record.offsets, spans)
        ends = np.cumsum([len(word) + 1 for word in record.words]).tolist()
        offsets = [(end - 1 - len(word), end - 1) for word, end in zip(record.words, ends, strict=True)]
        return cls(" ".join(record.words), offsets, spans)

    def placed(self) -> Iterator[tuple[Span, int, int]]:
        """The entities with start and end in characters."""
        for span in self.spans:
            yield span, self.offsets[span.start][0], self.offsets[span.end - 1][1]


def _for_xlner(record: TaggedRecord, types: Sequence[str], model: str) -> dict[str, Any]:
    """A record of an annotation file, as `xlner tag` writes it."""
    content = {"words": record.words} if record.record.text is None else {"text": record.record.text}
    return {**content, "entities": record.entities(), "types": types}


def _for_prodigy(record: TaggedRecord, types: Sequence[str], model: str) -> dict[str, Any]:
    shown = Shown.of(record)
    last = len(shown.offsets) - 1
    tokens = [
        {
            "text": shown.text[start:end],
            "start": start,
            "end": end,
            "id": number,
            "ws": number < last and shown.offsets[number + 1][0] > end,
        }
        for number, (start, end) in enumerate(shown.offsets)
    ]
    spans = [
        {"start": start, "end": end, "token_start": span.start, "token_end": span.end - 1, "label": span.label}
        for span, start, end in shown.placed()
    ]
    return {"text": shown.text, "tokens": tokens, "spans": spans, "meta": {"model": model}}


def _for_label_studio(record: TaggedRecord, types: Sequence[str], model: str) -> dict[str, Any]:
    """A task with a prediction, for `<Labels name="label" toName="text">` over `<Text name="text" value="$text"/>`."""
    shown = Shown.of(record)
    result = [
        {
            "id": f"entity-{number}",
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {"start": start, "end": end, "text": shown.text[start:end], "labels": [span.label]},
        }
        for number, (span, start, end) in enumerate(shown.placed())
    ]
    return {"data": {"text": shown.text}, "predictions": [{"model_version": model, "result": result}]}


def _for_doccano(record: TaggedRecord, types: Sequence[str], model: str) -> dict[str, Any]:
    shown = Shown.of(record)
    return {"text": shown.text, "label": [[start, end, span.label] for span, start, end in shown.placed()]}


# A new tool is one function above and one line here.
SHAPES: dict[str, Callable[[TaggedRecord, Sequence[str], str], dict[str, Any]]] = {
    "xlner": _for_xlner,
    "prodigy": _for_prodigy,
    "labelstudio": _for_label_studio,
    "doccano": _for_doccano,
}


def as_text(records: Sequence[TaggedRecord], tool: str, types: Sequence[str], model: str) -> str:
    """The content of a file that a tool imports: JSON Lines, and for Label Studio one JSON array."""
    lines = [json.dumps(SHAPES[tool](record, types, model), ensure_ascii=False) for record in records]
    if tool == "labelstudio":
        return "[\n" + ",\n".join(lines) + "\n]\n"
    return "".join(f"{line}\n" for line in lines)
