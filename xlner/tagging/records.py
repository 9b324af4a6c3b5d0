"""Records: a text, or a list of words, on its way from an input file to an output file, and the tagging of many.

Words that a record brings are tagged as they are; only text is split, as the tagger itself splits it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xlner.labels import Span, tags_of
from xlner.splitting import WordOffsets, split_words
from xlner.tagger import Tagger
from xlner.text import Entity

if TYPE_CHECKING:
    from pyarrow import RecordBatch

CHUNK_RECORDS = 512  # records tagged together: enough to fill batches, few enough for any memory
CHUNK_CHARACTERS = 1 << 18  # the same bound where records are long


class Record(NamedTuple):
    """A record of an input file.

    `number` is its place among the records of the file, from 1, and `place` tells it to a person. `offsets` are
    those of the words in the text; None where they are for the tagger to find, or where there is no text. `fields`
    are the fields of the record, for the output; of a row of Parquet only those that were looked at, as all others
    stay in `row`.
    """

    number: int
    place: str
    text: str | None
    words: tuple[str, ...] | None
    offsets: WordOffsets | None
    fields: Mapping[str, Any]
    row: "ArrowRow | None" = None


class ArrowRow(NamedTuple):
    """A row of Parquet as it was read: Arrow holds values that Python cannot, such as dates behind the year 9999."""

    batch: "RecordBatch"
    number: int


class TaggedRecord(NamedTuple):
    """A record with its entities in words, each with its score; `offsets` is None where it has no text."""

    record: Record
    words: tuple[str, ...]
    offsets: WordOffsets | None
    spans: list[tuple[Span, float]]

    @property
    def tags(self) -> tuple[str, ...]:
        """The IOB2 tag of each word."""
        return tags_of([span for span, _ in self.spans], len(self.words))

    def entities(self) -> list[dict[str, Any]]:
        """The entities as the output tells them: `start` and `end` count characters of a text, otherwise words."""
        return [self._entity(span, score) for span, score in self.spans]

    def _entity(self, span: Span, score: float) -> dict[str, Any]:
        start, end = span.start, span.end
        if self.record.text is None or self.offsets is None:
            text = " ".join(self.words[start:end])
        else:
            start, end = self.offsets[start][0], self.offsets[end - 1][1]
            text = self.record.text[start:end]
        return Entity(text, span.label, start, end, score).to_dict()


def in_chunks(records: Iterable[Record], n_records: int = CHUNK_RECORDS) -> Iterator[list[Record]]:
    """Lists of records to be tagged together; nothing is read ahead of the list that is given."""
    chunk: list[Record] = []
    n_characters = 0
    for record in records:
        chunk.append(record)
        n_characters += len(record.text) if record.text is not None else sum(map(len, record.words or ()))
        if len(chunk) >= n_records or n_characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, n_characters = [], 0
    if chunk:
        yield chunk


class Wanted(NamedTuple):
    """Which entities are kept: those of at least this score, and of these types; None: of all."""

    threshold: float = 0.0
    types: tuple[str, ...] | None = None


EVERYTHING = Wanted()


def tag_records(tagger: Tagger, records: Sequence[Record], wanted: Wanted = EVERYTHING) -> list[TaggedRecord]:
    """The records with those of their entities that are wanted."""
    split = [record_words(record, tagger.word_splitter) for record in records]
    found = tagger.spans_in_sentences([words for words, _ in split], threshold=wanted.threshold, types=wanted.types)
    return [
        TaggedRecord(record, words, offsets, spans)
        for record, (words, offsets), spans in zip(records, split, found, strict=True)
    ]


def record_words(record: Record, splitter: str) -> tuple[tuple[str, ...], WordOffsets | None]:
    """The words of a record, and where they are in its text; None where it has none."""
    if record.text is None or record.words is not None:
        return record.words or (), record.offsets
    offsets = split_words(record.text, splitter) if record.offsets is None else record.offsets
    return tuple([record.text[start:end] for start, end in offsets]), offsets
