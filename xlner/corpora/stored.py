"""Corpora that libraries store: data sets of Hugging Face `datasets`, Parquet, spaCy's DocBin.

Of data sets only stored tables are read; code is never run. Their rows are read as the records of `jsonl`, and tags are
taken by name, never by number. spaCy, the extra `spacy`, holds a whole DocBin in memory; corpora larger than that are
kept in several files.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xlner.corpora.columns import (
    SPAN_NAMES,
    TAG_NAMES,
    TEXT_NAMES,
    WORD_NAMES,
    Wanted,
    find_name,
    look_like_tags,
    parse_columns,
    plain_name,
)
from xlner.corpora.json_records import JsonRecord, RecordReader
from xlner.corpora.lines import Located, Part, by_word, each, existing_file
from xlner.corpora.spans import UNLABELLED, ReadingOptions, TagReader
from xlner.errors import CorpusError
from xlner.tags import OUTSIDE, Span
from xlner.words import Sentence

if TYPE_CHECKING:
    from datasets import Dataset
    from spacy.tokens import DocBin
    from spacy.tokens import Span as SpacySpan
    from spacy.vocab import Vocab

HUB_PREFIX = "hub:"
ROWS_READ = 1000  # rows of a table that are in memory at a time
# What pyarrow, `datasets` and spaCy raise at damaged files, beside pyarrow's own exceptions.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError)
_DAMAGE_OF_DOCBINS = (*_DAMAGE, EOFError, zlib.error)


# Data sets: folders of `save_to_disk`, names on the hub, Parquet files.


class _Fields(NamedTuple):
    """The columns of a data set: those wanted of its records, all that are read, and lists that may be tags."""

    wanted: Wanted
    read: list[str]
    doubtful: list[str]


def read_dataset(source: str, options: ReadingOptions) -> Iterator[Located]:
    """The sentences of a data set; its split may be left out of the source where there is only one."""
    wanted, tag_reader = parse_columns(options.columns), TagReader(options.scheme, options.report, options.labels)
    rows = _load_hub(source) if source.startswith(HUB_PREFIX) else _load_folder(source)
    fields = _fields(source, rows.features, wanted, tag_reader)
    rows = rows.select_columns(fields.read)
    # It is read where it lies: at offsets that point beyond its file the process would die.
    next(undamaged(source, (rows.data.table.validate(full=True) for _ in range(1))))
    reader = RecordReader(options, fields.wanted, tag_reader)
    return _rows(source, rows.with_format(None).iter(ROWS_READ), fields, reader)


def read_parquet(source: str, options: ReadingOptions) -> Iterator[Located]:
    """The sentences of a Parquet file with the columns of a data set; a few row groups are in memory at a time."""
    import pyarrow
    from datasets import Features
    from pyarrow import parquet

    path = existing_file(source)
    wanted, tag_reader = parse_columns(options.columns), TagReader(options.scheme, options.report, options.labels)
    try:
        file = parquet.ParquetFile(path)
        features = Features.from_arrow_schema(file.schema_arrow)
    except (*_DAMAGE, pyarrow.ArrowException) as problem:
        raise CorpusError(f"{path}: cannot be read as Parquet: {problem}") from problem
    fields = _fields(source, features, wanted, tag_reader)
    batches = (batch.to_pydict() for batch in file.iter_batches(ROWS_READ, columns=fields.read))
    return _rows(source, batches, fields, RecordReader(options, fields.wanted, tag_reader))


def _rows(
    source: str, batches: Iterable[Mapping[str, list[Any]]], fields: _Fields, reader: RecordReader
) -> Iterator[Located]:
    def records() -> Iterator[JsonRecord]:
        number = 0
        for batch in undamaged(source, batches):
            for name in fields.doubtful:
                if look_like_tags(tag for tags in batch[name] if tags for tag in tags):
                    raise _unknown_tags(source, fields.read[0], name)
            for values in zip(*(batch[name] for name in fields.read), strict=True):
                yield JsonRecord(f"{source}, row {number}", dict(zip(fields.read, values, strict=True)))
                number += 1

    return each(records(), reader.read)


def undamaged(source: str, parts: Iterable[Part]) -> Iterator[Part]:
    """The parts of a stored corpus, one after the other.

    Raises:
        CorpusError: At the first one that is damaged, as the checks of Parquet and Arrow cover only some of a file, and
            spaCy tells it only when it is asked for a value.
    """
    import pyarrow

    waiting = iter(parts)
    while True:
        try:
            part = next(waiting)
        except StopIteration:
            return
        except (*_DAMAGE_OF_DOCBINS, pyarrow.ArrowException) as problem:
            reason = " ".join(str(problem).split()) or type(problem).__name__
            raise CorpusError(f"{source}: is damaged: {reason}; fetch or make it again") from problem
        yield part


def _fields(source: str, features: Mapping[str, Any], wanted: Wanted, tag_reader: TagReader) -> _Fields:
    """The columns of words or texts and, where there is one, of tags or spans."""
    columns = list(features)
    asked = None if wanted is None else [name if name is None else _asked_for(source, columns, name) for name in wanted]
    words = asked[0] if asked else find_name(columns, WORD_NAMES)
    is_text = words is None or (asked is not None and plain_name(words) in TEXT_NAMES)
    words = words if words is not None else find_name(columns, TEXT_NAMES)
    if words is None:
        raise CorpusError(
            f"{source}: no column tokens, words or text; columns there: {', '.join(columns)}; "
            "set corpus.columns=WORDS,TAGS if they have other names"
        )
    rest = [name for name in columns if name != words]
    if tag_reader.ignores:
        return _Fields(None if is_text else (words, None), [words], [])
    if is_text:
        spans = asked[1] if asked else find_name(rest, (*SPAN_NAMES, *TAG_NAMES))
        tokens = find_name(rest, WORD_NAMES)
        read = [name for name in (words, spans, tokens) if name is not None]
        return _Fields((words, spans) if spans else None, read, [])
    tags = asked[1] if asked else find_name([name for name in rest if _is_list(features[name])], TAG_NAMES)
    if tags is None:
        doubtful = [] if asked else list(_possible_tags(source, words, features, rest))
        return _Fields((words, None), [words, *doubtful], doubtful)
    _name_numbers(source, features[tags], tags, tag_reader)
    return _Fields((words, tags), [words, tags], [])


def _asked_for(source: str, columns: Sequence[str], name: object) -> str:
    found = find_name(columns, (plain_name(str(name)),))
    if found is None:
        raise CorpusError(f"{source}: corpus.columns asks for the column {name!r}; columns there: {', '.join(columns)}")
    return found


def _is_list(feature: Any) -> bool:
    from datasets import Sequence

    return isinstance(feature, Sequence)


def _possible_tags(source: str, words: str, features: Mapping[str, Any], columns: Sequence[str]) -> Iterator[str]:
    """Lists of texts, which may be tags."""
    from datasets import ClassLabel, Value

    for name in columns:
        values = features[name].feature if _is_list(features[name]) else None
        if isinstance(values, ClassLabel) and look_like_tags(values.names):
            raise _unknown_tags(source, words, name)
        if isinstance(values, Value) and "string" in values.dtype:
            yield name


def _unknown_tags(source: str, words: str, name: str) -> CorpusError:
    return CorpusError(
        f"{source}: the column {name!r} looks like tags, but its name says nothing; set corpus.columns={words},{name}, "
        f"or corpus.columns={words} to read without labels"
    )


def split_source(source: str) -> tuple[str, str]:
    """A folder or `hub:NAME`, and the split, which is empty where none is named."""
    if source.startswith(HUB_PREFIX):
        name, _, split = source.removeprefix(HUB_PREFIX).partition(":")
        return HUB_PREFIX + name, split
    folder, _, split = source.rpartition(":")
    return (folder, split) if folder and Path(folder).is_dir() and not Path(source).is_dir() else (source, "")


def _load_folder(source: str) -> "Dataset":
    import pyarrow
    from datasets import load_from_disk

    folder, split = split_source(source)
    try:
        return _pick_split(source, load_from_disk(folder), split)
    except (*_DAMAGE, pyarrow.ArrowException) as problem:
        raise CorpusError(
            f"{source}: no data set that `save_to_disk` made: {problem}; to read a file in it, name it"
        ) from problem


def _load_hub(source: str) -> "Dataset":
    from datasets import load_dataset

    name, split = split_source(source)
    owner, _, rest = name.removeprefix(HUB_PREFIX).partition("/")
    short, _, configuration = rest.partition("/")
    name = f"{owner}/{short}" if short else owner
    try:
        return _pick_split(source, load_dataset(name, configuration or None), split)
    except ConnectionError as problem:
        raise CorpusError(
            f"{source}: the hub cannot be reached ({problem}); where there is a network, save it once by "
            f"datasets.load_dataset({name!r}).save_to_disk(FOLDER), and give FOLDER:SPLIT"
        ) from problem
    except RuntimeError as problem:
        if "script" not in str(problem):
            raise
        raise CorpusError(
            f"{source}: this data set is a Python script, which is not run; look for a copy in parquet"
        ) from problem
    except (OSError, ValueError) as problem:
        raise CorpusError(
            f"{source}: cannot be loaded: {problem}; if it needs more than a name, save it once by "
            "datasets.load_dataset(...).save_to_disk(FOLDER), and give FOLDER:SPLIT"
        ) from problem


def _pick_split(source: str, loaded: "Dataset | dict[str, Dataset]", split: str) -> "Dataset":
    if not isinstance(loaded, dict):
        if split and str(loaded.split) != split:
            raise CorpusError(f"{source}: holds one data set without splits; leave out ':{split}'")
        return loaded
    if not split and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        found = f"no split {split!r}" if split else "several splits"
        raise CorpusError(f"{source}: {found}; name one after a colon: {', '.join(loaded)}")
    return loaded[split]


def _name_numbers(source: str, feature: Any, column: str, tag_reader: TagReader) -> None:
    """Have the reader know the name of each number in a column of tags, unless it holds the names."""
    from datasets import ClassLabel, Sequence, Value

    values = feature.feature if isinstance(feature, Sequence) else None
    if isinstance(values, ClassLabel):
        tag_reader.name_numbers(values.names)
    elif not (isinstance(values, Value) and ("string" in values.dtype or ("int" in values.dtype and tag_reader.names))):
        raise CorpusError(
            f"{source}: the column {column} holds {values or feature}; expected lists of names or of ClassLabel "
            "numbers; numbers get their names by corpus.labels=O,B-TYPE,I-TYPE,..., in the order of the numbers, or in "
            f"Python by dataset.cast_column({column!r}, List(ClassLabel(names=[...])))"
        )


# DocBin files (`.spacy`), by spaCy itself: the extra `spacy`.


def read_docbin(source: str, options: ReadingOptions) -> Iterator[Located]:
    """The sentences of a DocBin, or its documents where they have no sentences; tokens of white space are left out."""
    path = existing_file(source)
    tag_reader = TagReader(options.scheme if options.ignores_tags else "auto", options.report)
    doc_bin, vocab = _spacy()
    try:
        docs = doc_bin().from_disk(path).get_docs(vocab())
    except _DAMAGE_OF_DOCBINS as problem:
        raise CorpusError(f"{path}: spaCy cannot read it as a DocBin ({problem})") from problem

    def sentence(found: tuple[int, Sentence]) -> Located:
        (words, tags), place = found[1], by_word(f"{path}: document {found[0]}")
        return Located(Sentence(words, None if tags is None else tag_reader.read(tags, place)), place)

    sentences = (
        [_row(span) for span in (list(doc.sents) if doc.has_annotation("SENT_START") else [doc[:]])] for doc in docs
    )
    documents = enumerate(undamaged(str(path), sentences), 1)
    return each(((number, row) for number, rows in documents for row in rows if row.words), sentence)


def docbin_bytes(sentences: Iterable[Sentence]) -> bytes:
    """A DocBin of sentences, one a document."""
    doc_bin, vocab = _spacy()
    from spacy.tokens import Doc

    store, words_only = doc_bin(store_user_data=False), vocab()
    for number, (words, tags) in enumerate(sentences, 1):
        if blank := next((word for word in words if word.isspace()), ""):
            raise CorpusError(f"sentence {number}: the word {blank!r} is white space, which spaCy takes for no word")
        store.add(Doc(words_only, words=list(words), ents=None if tags is None else list(tags)))
    return bytes(store.to_bytes())


def tagged_docbin(tagged: Iterable[tuple[Sequence[str], Sequence[bool], Sequence[tuple[Span, float]]]]) -> bytes:
    """A DocBin of tagged texts, one a document.

    Args:
        tagged: Words, whether a space follows each, and entities with their scores. The entities become `doc.ents`,
            and with their scores `doc.spans["xlner"]`, as the component of spaCy sets them.
    """
    doc_bin, vocab = _spacy()
    from spacy.tokens import Doc
    from spacy.tokens import Span as SpacySpan

    store, words_only = doc_bin(store_user_data=False), vocab()
    for words, spaces, spans in tagged:
        doc = Doc(words_only, words=list(words), spaces=list(spaces))
        doc.set_ents(
            found := [SpacySpan(doc, start, end, label) for (label, start, end), _ in spans], default="outside"
        )
        doc.spans["xlner"] = found
        doc.spans["xlner"].attrs["scores"] = [score for _, score in spans]
        store.add(doc)
    return bytes(store.to_bytes())


def merge_docbins(paths: Sequence[Path]) -> bytes:
    """The documents of several DocBins in one."""
    doc_bin, _ = _spacy()
    store = doc_bin(store_user_data=False)
    for path in paths:
        store.merge(doc_bin(store_user_data=False).from_disk(path))
    return bytes(store.to_bytes())


def _spacy() -> "tuple[type[DocBin], type[Vocab]]":
    try:
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab
    except ImportError:
        raise CorpusError("DocBin files need spaCy; install it by `pip install xlner[spacy]`") from None
    return DocBin, Vocab


def _row(span: "SpacySpan") -> Sentence:
    """A sentence with the tags as they stand in it."""
    tokens = [token for token in span if not token.text.isspace()]
    words = tuple([token.text for token in tokens])
    if not span.doc.has_annotation("ENT_IOB"):
        return Sentence(words)
    # Nobody has said anything of a token without one of the letters.
    marks = [(token.ent_iob_, token.ent_type_) for token in tokens]
    return Sentence(words, tuple([f"{b}-{type}" if type else OUTSIDE if b else UNLABELLED for b, type in marks]))
