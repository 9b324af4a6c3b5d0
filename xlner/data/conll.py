"""Columns of text, a word a line and a blank line after each sentence, as CoNLL and its relatives have them.

Columns end at a TAB, or at ASCII spaces in lines without a TAB, never at other white space: digits joined by
a no-break space are one word. Every row of a file has as many columns as the others. No rows are blank lines
and lines that begin with `-DOCSTART-` (both end a sentence), and comments.

A line that begins with `#` is a comment, unless it looks like any other row: it has as many columns as the
rows of the file, and its tag (if the file has tags) is one. So `#<TAB>O` holds the word `#`, while
`# newdoc` is a comment.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from xlner.data.conll_columns import (
    CONLLU_NAMES,
    OTHER_ID,
    Columns,
    Wanted,
    column_names,
    find_columns,
    misc_key,
    parse_columns,
    place_columns,
)
from xlner.data.conll_grid import Grid, GridReader
from xlner.data.lines import read_chunks
from xlner.data.located import Located
from xlner.data.problems import CorpusProblem, LeftOut, Report
from xlner.data.schemes import UNLABELLED, TagReader, is_tag
from xlner.errors import CorpusError
from xlner.labels import OUTSIDE
from xlner.text import Sentence

DOCUMENT_START = "-DOCSTART-"
LONGEST_SENTENCE = 100_000  # lines without a blank one, before the file is refused
N_SAMPLED = 50  # sentences that the columns are found from
# What separates sentences: blank lines, and the line of a document's start.
_GAP = re.compile(rf"(?:\A|\n)(?:(?:[ \t]*|{DOCUMENT_START}[^\n]*)\n)+")

Block = tuple[int, str]  # the number of the first line, and lines without a blank one


def read_conll(
    path: Path, *, columns: str | tuple[int, int], scheme: str, encoding: str, report: Report
) -> Iterator[Located]:
    """The sentences of a file of columns; for the arguments see `read_corpus`.

    Raises:
        CorpusError: At the first line that does not fit; the message names it.
    """
    return _Reader(path, parse_columns(columns), TagReader(scheme, report), encoding, report).sentences()


class _Reader:
    """Reads one file: what is found out about it at its beginning holds for all of it."""

    def __init__(self, path: Path, wanted: Wanted, tag_reader: TagReader, encoding: str, report: Report) -> None:
        self._path = path
        self._wanted = wanted
        self._tag_reader = tag_reader
        self._encoding = encoding
        self._report = report

    def sentences(self) -> Iterator[Located]:
        columns, grid_of = None, None
        for line, text in _passages(self._path, self._encoding, self._report):
            if columns is None or grid_of is None:
                columns = self._find_columns(text)
                if columns is None:
                    continue
                grid_of = GridReader(columns)
            if columns.tag is None and columns.width == len(CONLLU_NAMES):
                _refuse_to_lose_tags(self._path, line, text)
            grid = grid_of.read(text)
            yield from self._irregular(columns, line, text) if grid is None else self._regular(columns, line, grid)

    def _find_columns(self, text: str) -> Columns | None:
        """The columns of the file, None if this beginning of it holds no row."""
        lines = [line for _, block in islice(_blocks(1, text), N_SAMPLED) for line in block.split("\n")]
        rows = _sampled_rows(lines)
        if not rows:
            return None
        names = column_names(lines)
        columns = (
            find_columns(rows, names) if self._wanted is None else place_columns(self._path, rows, *self._wanted, names)
        )
        if max(columns.word, -1 if columns.tag is None else columns.tag) >= columns.width:
            raise CorpusError(
                f"{self._path}: its header names {len(names)} columns ({' '.join(names)}), its rows have "
                f"{columns.width}; mend the header, or set corpus.columns"
            )
        return columns

    def _regular(self, columns: Columns, line: int, grid: Grid) -> Iterator[Located]:
        """The sentences of a passage in which nothing is out of order."""
        for start, end in grid.sentences():
            words, tags = tuple(grid.words[start:end]), tuple(grid.tags[start:end])
            try:
                yield self._located(columns, words, tags, _Rows(self._path, line, grid, start).place)
            except LeftOut:
                continue

    def _irregular(self, columns: Columns, line: int, text: str) -> Iterator[Located]:
        """The sentences of a passage that must be looked at line by line."""
        for first, block in _blocks(line, text):
            try:
                numbers, rows = self._pick_rows(columns, first, block)
                words = tuple([row[columns.word] for row in rows])
                tags = () if columns.tag is None else tuple([row[columns.tag] for row in rows])
                if words:
                    yield self._located(columns, words, tags, _placing(self._path, numbers))
            except LeftOut:
                continue

    def _located(
        self, columns: Columns, words: tuple[str, ...], tags: tuple[str, ...], place: Callable[[int], str]
    ) -> Located:
        if "" in words:
            for position in (position for position, word in enumerate(words) if not word):
                self._report(CorpusProblem("XL011", place(position), f"empty word; expected {columns}"))
            raise LeftOut
        if columns.tag is None:
            return Located(Sentence(words), place)
        if columns.key:
            tags = tuple([_value(cell, columns.key) for cell in tags])
        return Located(Sentence(words, self._tag_reader.read(tags, place)), place)

    def _pick_rows(self, columns: Columns, first: int, text: str) -> tuple[list[int], list[list[str]]]:
        """The rows of a block that hold words, and their line numbers."""
        numbers, rows, is_broken = [], [], False
        for number, line in enumerate(text.split("\n"), first):
            row = _split(line)
            place = f"{self._path}:{number}"
            if line.startswith("#") and not _is_hash_word(row, columns):
                continue
            if len(row) != columns.width:
                spaced = (
                    "" if "\t" in line or len(row) < columns.width else "; a word with a space? separate columns by TAB"
                )
                message = f"expected {columns}, found {len(row)}: {line[:80]!r}{spaced}"
                self._report(CorpusProblem("XL010", place, message))
                is_broken = True
            elif columns.has_ids and OTHER_ID.fullmatch(row[0]):
                if columns.tag is not None and not columns.key and is_tag(row[columns.tag]) and row[columns.tag] != "O":
                    message = (
                        f"the tag {row[columns.tag]} stands at {row[0]}, no word of its own; "
                        "expected tags at the words with whole numbers"
                    )
                    self._report(CorpusProblem("XL015", place, message, "the tag is left out"))
            else:
                numbers.append(number)
                rows.append(row)
        if is_broken:
            raise LeftOut
        return numbers, rows


class _Rows:
    """Where the rows of a sentence of a grid stand; found out only when somebody asks."""

    __slots__ = ("_first", "_grid", "_line", "_path")

    def __init__(self, path: Path, line: int, grid: Grid, first: int) -> None:
        self._path, self._line, self._grid, self._first = path, line, grid, first

    def place(self, position: int) -> str:
        return f"{self._path}:{self._line + self._grid.line_of(self._first + position)}"


def _placing(path: Path, numbers: Sequence[int]) -> Callable[[int], str]:
    return lambda position: f"{path}:{numbers[position]}"


def _passages(path: Path, encoding: str, report: Report) -> Iterator[Block]:
    """Parts of the file that end behind a gap, so that each holds whole sentences."""
    line, rest = 1, ""
    for chunk in chain(read_chunks(path, encoding, report), [""]):
        # Blank lines behind the last sentence end it as they end the others.
        text = rest + chunk if chunk else rest.rstrip("\n") + "\n\n"
        end = text.rfind("\n\n") + 2
        if end < 2:
            end = max((gap.end() for gap in _GAP.finditer(text)), default=0)
        rest = text[end:]
        if end:
            yield line, text[:end]
            line += text.count("\n", 0, end)
        if rest.count("\n") > LONGEST_SENTENCE:
            message = f"no blank line in {LONGEST_SENTENCE:,} lines from here on; expected one after each sentence"
            raise CorpusProblem("XL003", f"{path}:{line}", message)


def _blocks(line: int, text: str) -> Iterator[Block]:
    """The sentences of a passage that begins at a line, comments included."""
    start = 0
    for gap in _GAP.finditer(text):
        if gap.start() > start:
            yield line, text[start : gap.start()]
        line += text.count("\n", start, gap.end())
        start = gap.end()


def _refuse_to_lose_tags(path: Path, line: int, text: str) -> None:
    """Tags in MISC may come so late that the beginning of the file, where columns are found, has none."""
    rows = enumerate(text.split("\n"), line)
    late = ((number, misc_key([row.split("\t")])) for number, row in rows if "=" in row and not row.startswith("#"))
    number, key = next((found for found in late if found[1]), (0, ""))
    if key:
        raise CorpusError(
            f"{path}:{number}: a tag as {key}=... in the last column, but none before; "
            f"set corpus.columns=FORM,MISC:{key}"
        )


def _is_hash_word(row: list[str], columns: Columns) -> bool:
    if len(row) != columns.width or columns.has_ids:
        return False
    return columns.tag is None or row[columns.tag] == UNLABELLED or is_tag(row[columns.tag])


def _split(line: str) -> list[str]:
    # `str.split()` would also cut at no-break and ideographic spaces, which are parts of words.
    return line.split("\t") if "\t" in line else [part for part in line.split(" ") if part]


def _value(cell: str, key: str) -> str:
    """The tag in a cell such as `SpaceAfter=No|NER=B-PER`; without one, the word is in no entity."""
    parts = (part.partition("=") for part in cell.split("|"))
    return next((value for name, _, value in parts if name == key), OUTSIDE)


def _sampled_rows(lines: Sequence[str]) -> list[list[str]]:
    """The first rows of a file: those of the most frequent width, without what may be comments."""
    # Where each line begins with `#`, words are told from comments by their TAB or their lack of spaces.
    certain = [line for line in lines if not line.startswith("#")] or [
        line for line in lines if "\t" in line or " " not in line
    ]
    rows = [_split(line) for line in certain]
    widths = Counter(len(row) for row in rows).most_common(1)
    return [row for row in rows if len(row) == widths[0][0]]
