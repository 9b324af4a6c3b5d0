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
from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple

from xlner.data.lines import read_lines
from xlner.data.schemes import UNLABELLED, TagReader, is_tag
from xlner.errors import CorpusError
from xlner.text import Sentence

DOCUMENT_START = "-DOCSTART-"
LONGEST_SENTENCE = 100_000  # lines without a blank one, before the file is refused
N_SAMPLED = 50  # sentences that the columns are found from
CONLLU_WIDTH = 10
# CoNLL-U counts words from 1; `3-4` is a contraction of words that follow, `5.1` a word left out.
_WORD_ID = re.compile(r"\d+", re.ASCII)
_OTHER_ID = re.compile(r"\d+[-.]\d+", re.ASCII)

Block = tuple[int, list[str]]  # the number of the first line, and lines without a blank one


class Columns(NamedTuple):
    """Where rows hold what; `tag` is None without tags, `has_ids` is True where column 0 counts words."""

    width: int
    word: int
    tag: int | None
    has_ids: bool

    def __str__(self) -> str:
        """As messages show it: `3 columns (index, word, tag)`."""
        names = {self.word: "word", self.tag: "tag"} | ({0: "index"} if self.has_ids else {})
        return f"{self.width} columns ({', '.join(names.get(column, '-') for column in range(self.width))})"


def read_conll(path: Path, *, columns: str | tuple[int, int], scheme: str, encoding: str) -> Iterator[Sentence]:
    """The sentences of a file of columns; for the arguments see `read_corpus`.

    Raises:
        CorpusError: At the first line that does not fit; the message names it.
    """
    wanted = parse_columns(columns)
    tag_reader = TagReader(scheme)
    return _sentences(path, wanted, tag_reader, encoding)


def parse_columns(columns: str | tuple[int, int]) -> tuple[int, int | None] | None:
    """The numbers of the columns of word and tag; None for `auto`, and no tag where one number stands alone.

    Raises:
        CorpusError: If it is neither `auto` nor one or two different numbers.
    """
    if columns == "auto":
        return None
    parts = columns.strip("()[] ").split(",") if isinstance(columns, str) else columns
    try:
        word, *others = [int(part) for part in parts]
    except ValueError:
        others = [0, 0]
    if len(others) > 1 or others == [word]:
        raise CorpusError(
            f"corpus.columns is {columns!r}; expected auto, or the columns of word and tag, counted from 0 "
            "(below 0: from the end), such as 0,1 or 0,-1; a single number reads the words alone"
        )
    return word, others[0] if others else None


def _sentences(
    path: Path, wanted: tuple[int, int | None] | None, tag_reader: TagReader, encoding: str
) -> Iterator[Sentence]:
    blocks = _blocks(path, encoding)
    sample = list(islice(blocks, N_SAMPLED))
    rows = _sampled_rows(sample)
    if not rows:
        return
    columns = _find_columns(rows) if wanted is None else _place_columns(path, rows, *wanted)
    for block in chain(sample, blocks):
        sentence = _sentence(path, columns, tag_reader, block)
        if sentence.words:
            yield sentence


def _blocks(path: Path, encoding: str) -> Iterator[Block]:
    first, held = 1, list[str]()
    for chunk in read_lines(path, encoding):
        lines = held + chunk
        start = 0
        ends = [n for n, line in enumerate(lines) if not line.strip(" \t") or line.startswith(DOCUMENT_START)]
        for end in ends:
            if end > start:
                yield first + start, lines[start:end]
            start = end + 1
        held = lines[start:]
        first += start
        if len(held) > LONGEST_SENTENCE:
            raise CorpusError(
                f"{path}:{first}: no blank line in {LONGEST_SENTENCE:,} lines from here on; expected "
                "one after each sentence"
            )
    if held:
        yield first, held


def _sentence(path: Path, columns: Columns, tag_reader: TagReader, block: Block) -> Sentence:
    """One sentence, without words if the block holds comments only."""
    first, lines = block
    numbers: Sequence[int] = range(first, first + len(lines))
    rows = [line.split("\t") for line in lines]
    if not _are_plain(rows, columns):
        numbers, rows = _pick_rows(path, columns, block)
    words = tuple([row[columns.word] for row in rows])
    if "" in words:
        raise CorpusError(f"{path}:{numbers[words.index('')]}: empty word; expected {columns}")
    if columns.tag is None or not words:
        return Sentence(words)
    tag_column = columns.tag
    return Sentence(words, tag_reader.read(tuple([row[tag_column] for row in rows]), lambda n: f"{path}:{numbers[n]}"))


def _are_plain(rows: list[list[str]], columns: Columns) -> bool:
    """Whether every line is a row as it should be: separated by TABs, no comment, no range of words."""
    # A line of a single column is looked at closely, for it may hold spaces.
    if columns.width == 1 or {*map(len, rows)} != {columns.width}:
        return False
    if columns.has_ids:
        return "".join([row[0] for row in rows]).isdecimal()
    return "#" not in {row[0][:1] for row in rows}


def _pick_rows(path: Path, columns: Columns, block: Block) -> tuple[list[int], list[list[str]]]:
    """The rows of a block that hold words, and their line numbers."""
    numbers, rows = [], []
    for number, line in enumerate(block[1], block[0]):
        row = _split(line)
        if line.startswith("#") and not _is_hash_word(row, columns):
            continue
        if len(row) != columns.width:
            hint = "" if "\t" in line or len(row) < columns.width else "; a word with a space? separate columns by TAB"
            raise CorpusError(f"{path}:{number}: expected {columns}, found {len(row)}: {line[:80]!r}{hint}")
        if columns.has_ids and _OTHER_ID.fullmatch(row[0]):
            if columns.tag is not None and is_tag(row[columns.tag]) and row[columns.tag] != "O":
                raise CorpusError(
                    f"{path}:{number}: the tag {row[columns.tag]} stands at {row[0]}, no word of its own; "
                    "expected tags at the words with whole numbers"
                )
            continue
        numbers.append(number)
        rows.append(row)
    return numbers, rows


def _is_hash_word(row: list[str], columns: Columns) -> bool:
    if len(row) != columns.width or columns.has_ids:
        return False
    return columns.tag is None or row[columns.tag] == UNLABELLED or is_tag(row[columns.tag])


def _split(line: str) -> list[str]:
    # `str.split()` would also cut at no-break and ideographic spaces, which are parts of words.
    return line.split("\t") if "\t" in line else [part for part in line.split(" ") if part]


def _sampled_rows(sample: list[Block]) -> list[list[str]]:
    """The first rows of a file: those of the most frequent width, without what may be comments."""
    lines = [line for _, block in sample for line in block]
    # Where each line begins with `#`, words are told from comments by their TAB or their lack of spaces.
    certain = [line for line in lines if not line.startswith("#")] or [
        line for line in lines if "\t" in line or " " not in line
    ]
    rows = [_split(line) for line in certain]
    widths = Counter(len(row) for row in rows).most_common(1)
    return [row for row in rows if len(row) == widths[0][0]]


def _find_columns(rows: list[list[str]]) -> Columns:
    """The columns of the known formats, told apart by their number and by whether the first counts words.

    These are `word`; `word tag`; `word ... tag` (CoNLL-2002, CoNLL-2003); `index word`; `index word tag ...`
    (WikiNEuRal, Universal NER, GermEval); `index word ... tag`; CoNLL-U without tags.
    """
    width = len(rows[0])
    has_ids = width > 1 and _count_words([row[0] for row in rows])
    if width == 1:
        return Columns(width, 0, None, has_ids)
    # Numbers may be words themselves, as in the row `2026<TAB>O`.
    if not has_ids or (width == 2 and (_are_tags(rows, 1) or {row[1] for row in rows} == {UNLABELLED})):
        return Columns(width, 0, width - 1, False)
    tagged = [column for column in (2, width - 1) if 1 < column < width and _are_tags(rows, column)]
    if not tagged and width in (2, CONLLU_WIDTH):
        return Columns(width, 1, None, has_ids)
    return Columns(width, 1, tagged[0] if tagged else 2, has_ids)


def _place_columns(path: Path, rows: list[list[str]], word: int, tag: int | None) -> Columns:
    """The columns that the user asked for."""
    width = len(rows[0])
    outside = [column for column in (word, tag) if column is not None and not -width <= column < width]
    if outside:
        raise CorpusError(
            f"{path}: corpus.columns asks for column {outside[0]}, but rows have {width} (0 to {width - 1}): "
            f"{' '.join(rows[0])[:80]!r}"
        )
    word_column = word % width
    tag_column = None if tag is None else tag % width
    if word_column == tag_column:
        raise CorpusError(f"{path}: corpus.columns names column {word_column} of {width} for both word and tag")
    has_ids = 0 not in (word_column, tag_column) and _count_words([row[0] for row in rows])
    return Columns(width, word_column, tag_column, has_ids)


def _count_words(ids: list[str]) -> bool:
    """Whether these are the numbers of words, from 0 or 1 on and anew in each sentence."""
    counts = [int(text) for text in ids if _WORD_ID.fullmatch(text)]
    n_others = sum(_OTHER_ID.fullmatch(text) is not None for text in ids)
    if not counts or len(counts) + n_others < len(ids):
        return False
    return all(after in (0, 1, before + 1) for before, after in pairwise([0, *counts]))


def _are_tags(rows: list[list[str]], column: int) -> bool:
    """Whether most of a column are tags; a few may be misspelt, and are reported with their line later."""
    labelled = [row[column] for row in rows if row[column] != UNLABELLED]
    return sum(map(is_tag, labelled)) * 2 > len(labelled)
