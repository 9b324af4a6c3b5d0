"""Silver annotation: text that taggers have tagged, as documents that spaCy learns from.

A document has the tokens of spaCy's own tokenizer, because these are what the pipeline will see. Shapes: W words, T
tokens of spaCy, C tags in IOB2.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from xlner.decoding import ValidTags
from xlner.errors import ModelError
from xlner.labels import OUTSIDE, LabelMap, LabelSet
from xlner.mixing.tags import TagReading
from xlner.prediction import Probs
from xlner.splitting import WordOffsets
from xlner.tagger import Tagger
from xlner.tagging.records import Record, in_chunks, record_words

# In `doc.user_data` of a silver document: the probabilities of its tokens' tags, (T, C), and which tags these are.
TOKEN_PROBS = "xlner_token_probs"
TAGS = "xlner_tags"


class SilverCounts(NamedTuple):
    """What a silver corpus holds; `unknown` counts the tokens that are annotated neither as entity nor as outside."""

    documents: int = 0
    tokens: int = 0
    entities: int = 0
    unknown: int = 0

    def with_doc(self, doc: Doc) -> "SilverCounts":
        """The counts with one document more."""
        unknown = sum(token.ent_iob == 0 for token in doc)
        return SilverCounts(
            self.documents + 1, self.tokens + len(doc), self.entities + len(doc.ents), self.unknown + unknown
        )


class Ensemble:
    """One tagger, or several that know the same types and speak with one voice: the mean of their probabilities."""

    def __init__(self, taggers: Sequence[Tagger]) -> None:
        """Hold them against each other.

        Args:
            taggers: At least one; text is cut into words as the first one has learnt to.

        Raises:
            ModelError: If they know different types.
        """
        self._taggers = taggers
        self._readings = [TagReading.of(tagger.labels.tags, LabelMap({})) for tagger in taggers]
        # Where the taggers' entities may begin with I-X, those of the ensemble may, too.
        self.labels = LabelSet(self._readings[0].labels.tags, all(tagger.labels.begins for tagger in taggers))
        for number, reading in enumerate(self._readings[1:], 2):
            if reading.labels != self.labels:
                raise ModelError(
                    f"model {number} knows the types {', '.join(reading.labels.types)}, the first one "
                    f"{', '.join(self.labels.types)}; taggers that label together must know the same"
                )

    @property
    def word_splitter(self) -> str:
        """How text is cut into words."""
        return self._taggers[0].word_splitter

    def probs(self, sentences: Sequence[Sequence[str]]) -> list[Probs]:
        """The probabilities of `labels` for the words of each sentence, (W, C) each.

        The row of a word is zero where no tagger sees it.
        """
        of_each = [
            [reading.iob2(probs) for probs in tagger.probs(sentences)]
            for tagger, reading in zip(self._taggers, self._readings, strict=True)
        ]
        return [_mean(probs) for probs in zip(*of_each, strict=True)]


def _mean(probs: Sequence[NDArray[np.float64]]) -> Probs:
    total = np.sum(probs, axis=0)
    weight = total.sum(axis=1, keepdims=True)
    mean: Probs = (total / np.where(weight > 0, weight, 1.0)).astype(np.float32)
    return mean


def silver_docs(
    nlp: Language, ensemble: Ensemble, records: Iterable[Record], *, min_score: float = 0.0
) -> Iterator[Doc]:
    """The records as documents with the entities that the taggers find; those without a word are left out.

    Text becomes spaCy's tokens, and entities are widened to whole ones; words that a record brings stay the tokens.
    Each document carries the probabilities of its tokens' tags, too.

    Args:
        nlp: Its tokenizer makes the tokens.
        ensemble: What tags.
        records: Of an input file.
        min_score: What is less likely than this is unknown, spaCy's *missing*, not outside: the tokens of an entity
            with a lower score, and tokens outside entities with a lower probability of being there.
    """
    decoder = ValidTags(ensemble.labels)
    for chunk in in_chunks(records):
        split = [record_words(record, ensemble.word_splitter) for record in chunk]
        probs = ensemble.probs([words for words, _ in split])
        for record, (words, offsets), rows, found in zip(chunk, split, probs, decoder.entities(probs), strict=True):
            if not words:
                continue
            if record.text is None or offsets is None:
                doc = Doc(nlp.vocab, words=list(words))
                offsets = [(token.idx, token.idx + len(token)) for token in doc]
            else:
                doc = nlp.make_doc(record.text)
            scores: dict[Span, float] = {}
            for (label, start, end), score in found:
                span = doc.char_span(offsets[start][0], offsets[end - 1][1], label, alignment_mode="expand")
                if span is not None:  # it never is, but spaCy's types say so
                    scores.setdefault(span, score)
            of_tokens = token_probs(doc, offsets, rows, ensemble.labels)
            _annotate(doc, scores, of_tokens, min_score)
            doc.user_data[TOKEN_PROBS] = of_tokens
            doc.user_data[TAGS] = list(ensemble.labels.tags)
            yield doc


def _annotate(doc: Doc, scores: dict[Span, float], probs: Probs, min_score: float) -> None:
    """Set the entities; of two that share a token the longer one stays."""
    entities = filter_spans(scores)
    certain = [entity for entity in entities if scores[entity] >= min_score]
    inside = {token.i for entity in certain for token in entity}
    # A token of white space has no probabilities; it is surely no entity.
    doubtful = [n for n in range(len(doc)) if n not in inside and probs[n].any() and probs[n, 0] < min_score]
    doubtful += [token.i for entity in entities if scores[entity] < min_score for token in entity]
    doc.set_ents(certain, missing=[doc[n : n + 1] for n in sorted(set(doubtful))], default="outside")


def token_probs(doc: Doc, offsets: WordOffsets, probs: Probs, labels: LabelSet) -> Probs:
    """The probabilities of words' tags as those of spaCy's tokens.

    Of several words within a token the one speaks that is least likely to be outside. A word of several tokens
    begins an entity with its first one: B-X of the others is I-X.

    Args:
        doc: Its tokens.
        offsets: Of each word, (W), in characters of the document.
        probs: Of the words, (W, C).
        labels: Their tags: `O`, then B and I of each type.

    Returns:
        (T, C); zeros for tokens without a word.
    """
    assert labels.tags[0] == OUTSIDE
    found = np.zeros((len(doc), probs.shape[1]), dtype=np.float32)
    word = 0
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        while word < len(offsets) and offsets[word][1] <= start:
            word += 1
        last = word
        while last < len(offsets) and offsets[last][0] < end:
            last += 1
        if last == word or token.is_space:
            continue
        speaking = word + int(probs[word:last, 0].argmin())
        row = probs[speaking].copy()
        if offsets[word][0] < start:  # the word has begun in a token before
            row[2::2] += row[1::2]
            row[1::2] = 0.0
        found[token.i] = row
    return found
