"""Tables of sentences with words and numbered tags: parquet files of the hub, and lines of JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xlner.corpora.spans import TagReader
from xlner.errors import CorpusError
from xlner.words import Sentence


def read_parquet(path: Path) -> Iterator[Sentence]:
    """The columns `tokens` and `ner_tags`, the names of the tags as the file itself tells them.

    Raises:
        CorpusError: If the file is broken, or has no such columns or names.
    """
    try:
        table = pq.read_table(path, columns=["tokens", "ner_tags"])
        description = json.loads((table.schema.metadata or {})[b"huggingface"])
        feature = description["info"]["features"]["ner_tags"]
        names = feature.get("feature", feature)["names"]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, AttributeError) as problem:
        raise CorpusError(
            f"{path}: expected a table of the hub with tokens, ner_tags and the names of the tags: {problem!r}"
        ) from problem
    rows = zip(table["tokens"].to_pylist(), table["ner_tags"].to_pylist(), strict=True)
    return _sentences(rows, names, str(path))


def read_json_lines(lines: Iterable[str], names: Sequence[str], place: str) -> Iterator[Sentence]:
    """Objects with `tokens` and `ner_tags`, a line each; `names` tells what the numbers mean.

    Raises:
        CorpusError: If a line is no such object, or has a number without a name.
    """
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
                rows.append((row["tokens"], row["ner_tags"]))
            except (ValueError, KeyError, TypeError) as problem:
                raise CorpusError(
                    f"{place}:{number}: expected an object with tokens and ner_tags, found {line[:80]!r}"
                ) from problem
    return _sentences(rows, names, place)


def _is_labelled(words: Any, tags: Any, n_names: int) -> bool:
    if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
        return False
    return all(isinstance(word, str) for word in words) and all(
        isinstance(tag, int) and 0 <= tag < n_names for tag in tags
    )


def _sentences(rows: Iterable[tuple[list[str], list[int]]], names: Sequence[str], place: str) -> Iterator[Sentence]:
    reader = TagReader("auto")
    for number, (words, tags) in enumerate(rows, 1):
        if not _is_labelled(words, tags, len(names)):
            raise CorpusError(
                f"{place}, row {number}: expected words and a number below {len(names)} for each, found "
                f"{str(words)[:60]} and {str(tags)[:60]}"
            )
        pairs = [(word, names[tag]) for word, tag in zip(words, tags, strict=True) if word.strip()]
        if pairs:
            named = tuple(tag for _, tag in pairs)
            row = f"{place}, row {number}"
            yield Sentence(tuple(word for word, _ in pairs), reader.read(named, partial("{}, word {}".format, row)))
