"""The sentences of raw text that would teach a model most, tagged by it, in the shapes that annotation tools import.

A sentence teaches by the entities that the model is expected to get wrong in it; of the most doubtful sentences, of
which no two are nearly alike, those are taken that differ most from one another by the model's hidden states.

Source: Zhdanov 2019 (arXiv:1901.05954), which clusters a multiple of what is asked for, weighted by doubt, and takes
from each cluster what is nearest to its centre.
"""

import json
import math
import warnings
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from xlner.corpora.columns import SPAN_NAMES, TAG_NAMES, find_name
from xlner.corpora.json_records import JsonRecord, RecordReader, read_json_records, record_fields
from xlner.corpora.lines import SUFFIXES, CorpusProblem, is_utf_8, refuse
from xlner.corpora.source import names_types_alone, read_corpus
from xlner.corpora.spans import IGNORE, ReadingOptions, TagReader
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
# Marks are vowels in Hindi and Thai; those that give an emoji its colour are none.
_NO_LETTER = regex.compile(r"[^\p{L}\p{M}\p{N}]|\p{Variation_Selector}")
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
        n: How many are asked for; there are fewer only where the text has no more that differ.
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
    """Of candidates, the most doubtful first, n that differ; all if there are fewer."""
    order: Sequence[int] = range(len(candidates))
    if len(candidates) > n:
        order = spread(sentence_vectors(tagger, candidates), np.asarray([one.doubt for one in candidates]), n)
    return new_entities_first([candidates[number].record for number in order], n)


def _new_sentences(tagger: Tagger, records: Iterable[Record], seen: set[int]) -> Iterator[Record]:
    """The records whose words, numbers and signs aside, were not seen before."""
    for record in records:
        words, _ = record_words(record, tagger.word_splitter)
        key = sentence_key(words)
        if words and key not in seen:
            seen.add(key)
            yield record


def most_doubtful(tagger: Tagger, records: Iterable[Record], n: int) -> list[Candidate]:
    """The n records of the greatest doubt of which no two are nearly alike, the greatest first; fewer if there are."""
    decoder, begins = ValidTags(tagger.labels), _begins(tagger.labels.tags)
    pool = _Pool(n)
    for chunk in in_chunks(records):
        split = [record_words(record, tagger.word_splitter) for record in chunk]
        probs = tagger.probs([words for words, _ in split])
        found = decoder.entities(probs)
        for record, (words, offsets), rows, spans in zip(chunk, split, probs, found, strict=True):
            doubts = entity_doubts(rows.astype(np.float64), spans, begins)
            doubt = float(doubts.sum()) / len(words) ** 0.5
            pool.add(Candidate(TaggedRecord(record, words, offsets, spans), doubts, doubt))
    return pool.candidates()


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
        means = KMeans(n, n_init=1, max_iter=50, random_state=0).fit(vectors, sample_weight=doubts + _LEAST_DOUBT)
    clusters = means.labels_
    # To their own centres alone: N x n distances would be gigabytes for some thousand clusters.
    distances = np.linalg.norm(vectors - means.cluster_centers_[clusters], axis=1)
    nearest = np.lexsort((-doubts, distances))
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


class _Pool:
    """Of all candidates that are added the n most doubtful ones, of which no two are nearly alike.

    Sentences are alike by the share of their different words that they have in common. Those that may be are found by
    words that two of them must have in common.

    Source: Bayardo et al. 2007 (Scaling up all pairs similarity search), section 4, for the common words.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._n_added = 0
        # By doubt and, among equals, the order of the text: the least first.
        self._ranks: list[_Rank] = []
        self._kept: dict[_Rank, tuple[Candidate, set[str]]] = {}
        self._by_mark: defaultdict[str, set[_Rank]] = defaultdict(set)

    def add(self, candidate: Candidate) -> None:
        """Keep a candidate, in the place of one that is less doubtful, or do not."""
        self._n_added += 1
        rank = (candidate.doubt, -self._n_added)
        is_full = len(self._ranks) == self._n
        if is_full and rank < self._ranks[0]:
            return
        words = {_NUMBER.sub("0", word.casefold()) for word in candidate.record.words}
        marks = _marks(words)
        near = set[_Rank]().union(*(self._by_mark[mark] for mark in marks if mark in self._by_mark))
        alike = [other for other in near if _are_alike(words, self._kept[other][1])]
        # It would take the place of several: then the pool would be short of what it had no place for before.
        if len(alike) > 1 or (alike and rank < alike[0]):
            return
        if alike or is_full:
            self._remove(alike[0] if alike else self._ranks[0])
        insort(self._ranks, rank)
        self._kept[rank] = candidate, words
        for mark in marks:
            self._by_mark[mark].add(rank)

    def candidates(self) -> list[Candidate]:
        """What is kept, the most doubtful first."""
        return [self._kept[rank][0] for rank in reversed(self._ranks)]

    def _remove(self, rank: "_Rank") -> None:
        del self._ranks[bisect_left(self._ranks, rank)]
        _, words = self._kept.pop(rank)
        for mark in _marks(words):
            self._by_mark[mark].discard(rank)
            if not self._by_mark[mark]:
                del self._by_mark[mark]


_Rank = tuple[float, int]


def _are_alike(words: set[str], others: set[str]) -> bool:
    return len(words & others) >= ALIKE * len(words | others)


def _marks(words: set[str]) -> list[str]:
    """Words of a sentence of which a sentence that is alike has at least one among its own; long ones, as few share."""
    n_shared = math.ceil(ALIKE * len(words))  # with any that is alike
    return sorted(words, key=lambda word: (-len(word), word))[: len(words) - n_shared + 1]


def new_entities_first(records: Sequence[TaggedRecord], n: int) -> list[TaggedRecord]:
    """The first n records, those before the others that share no entity with one before."""
    chosen: list[TaggedRecord] = []
    others: list[TaggedRecord] = []
    names: set[str] = set()
    for record in records:
        found = {str(entity["text"]).casefold() for entity in record.entities()}
        if names.isdisjoint(found):
            chosen.append(record)
            names |= found
        else:
            others.append(record)
    return [*chosen, *others][:n]


# What is done.


def done_sentences(source: str, encoding: str = "utf-8") -> list[Sequence[str]]:
    """The words of the sentences that somebody has annotated, rejected or skipped.

    Where nobody has, as in raw text or in a file that a tool is to import, these are all.

    Args:
        source: A corpus, or what a tool exports.
        encoding: Of what is not UTF-8; tools write UTF-8, whatever the text was.

    Raises:
        CorpusError: If there is none, it holds no sentence, or at the first place that does not fit.
    """
    try:
        return _read_done(source, "utf-8")
    except CorpusError:
        if is_utf_8(encoding):
            raise
        return _read_done(source, encoding)


def _read_done(source: str, encoding: str) -> list[Sequence[str]]:
    path = Path(source)
    if SUFFIXES.get(path.suffix.lower()) not in ("json", "jsonl") or not path.is_file():
        return [sentence.words for sentence in read_corpus(source, scheme=IGNORE, encoding=encoding)]
    reader = RecordReader(ReadingOptions(scheme=IGNORE, encoding=encoding), None, TagReader(IGNORE))
    seen: list[Sequence[str]] = []
    unseen: list[Sequence[str]] = []
    for place, value in read_json_records(path, encoding, refuse):
        if names_types_alone(value):
            continue
        # Without its answer a record is read that was rejected.
        asked = {name: field for name, field in value.items() if name != "answer"} if isinstance(value, dict) else value
        if found := reader.read(JsonRecord(place, asked)):
            (seen if _is_seen(value) else unseen).append(found.sentence.words)
    if not seen and not unseen:
        refuse(CorpusProblem("XL004", source, "no sentence in it; is it empty?"))
    return seen or unseen


def _is_seen(value: Any) -> bool:
    """Whether somebody annotated, rejected or skipped a record, as far as its tool tells."""
    # Label Studio lists what was skipped as an annotation, too.
    if isinstance(value, dict) and isinstance(value.get("data"), dict):
        return bool(value.get("annotations") or value.get("completions"))
    # The answer is Prodigy's, the number that of Label Studio's JSON-MIN.
    fields = [name for name, field in (record_fields(value) or {}).items() if field is not None]
    return "answer" in fields or "annotation_id" in fields or find_name(fields, (*SPAN_NAMES, *TAG_NAMES)) is not None


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
