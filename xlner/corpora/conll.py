"""Columns of text, a word a line, a blank line after each sentence, as CoNLL and its relatives: read and written."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

from xlner.corpora.columns import (
    CONLLU_NAMES,
    MISC_NAMES,
    OTHER_ID,
    Columns,
    Wanted,
    column_names,
    find_columns,
    look_like_tags,
    misc_value,
    parse_columns,
    place_columns,
    plain_name,
    report_lost_tag,
    unknown_misc_key,
)
from xlner.corpora.lines import OTHER_LINE_ENDS, read_chunks, refuse_other_line_ends
from xlner.corpora.problems import CorpusProblem, LeftOut, Located, Report
from xlner.corpora.schemes import UNLABELLED, TagReader, is_any_tag, is_tag, visible_label
from xlner.corpora.tables import find_table, numbered_rows, read_table
from xlner.errors import CorpusError
from xlner.tags import OUTSIDE
from xlner.words import Sentence, WordOffsets

# The fast way through a file of columns: many sentences cut into cells at once, where nothing is out of order.


@dataclass
class Grid:
    """The words and tags of a passage, an empty word between sentences; `text` is the passage as it stood."""

    words: list[str]
    tags: list[str]
    text: str
    has_comments: bool

    def sentences(self) -> Iterator[tuple[int, int]]:
        """Begin and end of each sentence, in words of the grid."""
        start = 0
        for _ in range(self.words.count("")):
            end = self.words.index("", start)
            yield start, end
            start = end + 1
        yield start, len(self.words)

    def line_of(self, number: int) -> int:
        """The line, from 0, of a word of the grid."""
        return self._lines[number]

    @cached_property
    def _lines(self) -> list[int]:
        lines = enumerate(self.text.split("\n"))
        return [line for line, row in lines if not (self.has_comments and _COMMENT.match(row))]


class GridReader:
    """Reads passages of a file whose columns are known."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        first = r"[0-9]++" if columns.has_ids else r"[^\t\n#][^\t\n]*+"
        others = ["\t" + ("[^\t\n]++" if n == columns.word else "[^\t\n]*+") for n in range(1, columns.width)]
        row = first + "".join(others) + r"\n"
        self._regular = re.compile(rf"(?:{row})++(?:\n(?:{row})++)*+\n")
        self._blank_row = "\n" + "\t" * (columns.width - 1) + "\n"

    def read(self, text: str) -> Grid | None:
        """The grid of a passage; None if it has lines that are neither rows, certain comments nor single blanks."""
        columns = self._columns
        # A line of a single column is looked at closely, for it may hold spaces.
        if columns.width == 1:
            return None
        # Where rows begin with a number, a line that begins with `#` and has no TAB is certainly a comment.
        rows = _COMMENTS.sub("", text) if columns.has_ids and "#" in text else text
        if not self._regular.fullmatch(rows):
            return None
        cells = rows[:-2].replace("\n\n", self._blank_row).replace("\n", "\t").split("\t")
        tags = [] if columns.tag is None else cells[columns.tag :: columns.width]
        return Grid(cells[columns.word :: columns.width], tags, text, columns.has_ids)


_COMMENT = re.compile(r"#[^\t\n]*+$")
_COMMENTS = re.compile(r"^#[^\t\n]*+\n", re.MULTILINE)


# Columns of text, a word a line and a blank line after each sentence, as CoNLL and its relatives have them.
#
# Columns end at a TAB, or at ASCII spaces in lines without a TAB, never at other white space: digits joined by
# a no-break space are one word. Every row of a file has as many columns as the others. No rows are blank lines
# and lines that begin with `-DOCSTART-` (both end a sentence), and comments.
#
# A file with a header, or with sentences that are told by numbers in place of blank lines, is a table (`word_tables`).
#
# A line that begins with `#` is a comment, unless it looks like any other row: it has as many columns as the
# rows of the file, and its tag (if the file has tags) is one. So `#<TAB>O` holds the word `#`, while
# `# newdoc` is a comment.


DOCUMENT_START = "-DOCSTART-"
LONGEST_SENTENCE = 100_000  # lines without a blank one, before the file is refused
N_SAMPLED = 50  # sentences that the columns are found from
# What separates sentences: blank lines, and the line of a document's start.
_GAP = re.compile(rf"(?:\A|\n)(?:(?:[ \t]*|{DOCUMENT_START}[^\n]*)\n)+")
# A line of which nothing can be seen, which is blank for a person.
_LOOKS_BLANK = re.compile(r"\n(?:[^\S\t\n]|[\u200b-\u200f\u2060\ufeff\u00ad])+(?=\n)")
_HAS_OTHER_LINE_END = re.compile(f"[{OTHER_LINE_ENDS}]")
# What may separate columns in other files: signs, and blanks that are no ASCII spaces.
_OTHER_SEPARATOR = re.compile(r"[,;|]|[^\S \t\n]|[\u200b\u2060\ufeff]")

Block = tuple[int, str]  # the number of the first line, and lines without a blank one


def read_conll(
    path: Path,
    *,
    columns: str | tuple[int, int],
    tag_reader: TagReader,
    encoding: str,
    split_text: Callable[[str], WordOffsets],
    report: Report,
) -> Iterator[Located]:
    """The sentences of a file of columns; for the arguments see `read_corpus`.

    Raises:
        CorpusError: At the first line that does not fit; the message names it.
    """
    return _Reader(path, parse_columns(columns), tag_reader, encoding, split_text, report).sentences()


class _Reader:
    """Reads one file: what is found out about it at its beginning holds for all of it."""

    def __init__(
        self,
        path: Path,
        wanted: Wanted,
        tag_reader: TagReader,
        encoding: str,
        split_text: Callable[[str], WordOffsets],
        report: Report,
    ) -> None:
        self._path = path
        self._wanted = wanted
        self._tag_reader = tag_reader
        self._encoding = encoding
        self._split_text = split_text
        self._report = report

    def sentences(self) -> Iterator[Located]:
        chunks = read_chunks(self._path, self._encoding, self._report)
        first = next(chunks, "")
        refuse_other_line_ends(self._path, first)
        chunks = chain([first], chunks)
        if table := find_table(self._path, first, self._wanted, self._tag_reader.ignores):
            rows = numbered_rows(chunks)
            yield from read_table(self._path, rows, table, self._tag_reader, self._split_text, self._report)
            return
        columns, grid_of = None, None
        for line, text in _passages(self._path, chunks):
            if columns is None or grid_of is None:
                columns = self._find_columns(text)
                if columns is None:
                    continue
                grid_of = GridReader(columns)
            if columns.tag is None and self._wanted is None and not self._tag_reader.ignores:
                _refuse_to_lose_tags(self._path, columns, line, text)
            if any(end in text for end in OTHER_LINE_ENDS):
                _refuse_rows_in_rows(self._path, columns, line, text)
            grid = grid_of.read(text)
            yield from self._irregular(columns, line, text) if grid is None else self._regular(columns, line, grid)

    def _find_columns(self, text: str) -> Columns | None:
        """The columns of the file, None if this beginning of it holds no row."""
        blocks = [block.split("\n") for _, block in islice(_blocks(1, text), N_SAMPLED)]
        rows, starts = _sampled_rows(blocks)
        if not rows:
            return None
        names = column_names([line for block in blocks for line in block])
        columns = (
            find_columns(rows, names, starts)
            if self._wanted is None
            else place_columns(self._path, rows, *self._wanted, names, starts)
        )
        if max(columns.word, -1 if columns.tag is None else columns.tag) >= columns.width:
            raise CorpusError(
                f"{self._path}: its header names {len(names)} columns ({' '.join(names)}), its rows have "
                f"{columns.width}; mend the header, or set corpus.columns=WORD,TAG"
            )
        if self._wanted is None and not self._tag_reader.ignores:
            _refuse_other_columns(self._path, columns, rows, names)
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
        if columns.width > 1 and not text.isascii():
            text = _LOOKS_BLANK.sub("\n", "\n" + text)[1:]
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
            tags = self._tags_of_misc(columns, tags, place)
        return Located(Sentence(words, self._tag_reader.read(tags, place)), place)

    def _tags_of_misc(self, columns: Columns, cells: Sequence[str], place: Callable[[int], str]) -> tuple[str, ...]:
        prefix = f"{columns.key}="
        found = [
            cell[len(prefix) :] if cell.startswith(prefix) and "|" not in cell else misc_value(cell, columns.key)
            for cell in cells
        ]
        if columns.missing == OUTSIDE and (OUTSIDE in found or UNLABELLED in found):
            position = next(number for number, value in enumerate(found) if value in (OUTSIDE, UNLABELLED))
            message = (
                f"{columns.key}={found[position]} here, where words before have no {columns.key}= at all; are those "
                f"in no entity, or without a label? expected {columns.key}=... at each word, or at entities only"
            )
            raise CorpusProblem("XL014", place(position), message)
        return tuple([columns.missing if value is None else value for value in found])

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
                if columns.tag is not None and not columns.key and not self._tag_reader.ignores:
                    report_lost_tag(row[0], row[columns.tag], place, self._report)
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


def _passages(path: Path, chunks: Iterator[str]) -> Iterator[Block]:
    """Parts of the file that end behind a gap, so that each holds whole sentences."""
    line, rest = 1, ""
    for chunk in chain(chunks, [""]):
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


def _refuse_to_lose_tags(path: Path, columns: Columns, line: int, text: str) -> None:
    """Tags in MISC may come so late that the beginning of the file, where columns are found, has none."""
    if columns.width != len(CONLLU_NAMES) or "=" not in text:
        return
    rows = ((number, row.split("\t")) for number, row in enumerate(text.split("\n"), line) if row[:1] != "#")
    cells = [(number, row[-1]) for number, row in rows if len(row) == columns.width and "=" in row[-1]]
    found = _late_key(cells) or _unknown_key(cells)
    if found:
        number, key = found
        raise CorpusError(
            f"{path}:{number}: a tag as {key}=... in the last column, but none before; "
            f"set corpus.columns=FORM,MISC:{key}, or corpus.columns=FORM to read words alone"
        )


def _late_key(cells: Sequence[tuple[int, str]]) -> tuple[int, str] | None:
    for number, cell in cells:
        for part in cell.split("|"):
            name, _, value = part.partition("=")
            if plain_name(name) in MISC_NAMES and is_any_tag(value):
                return number, name
    return None


def _unknown_key(cells: Sequence[tuple[int, str]]) -> tuple[int, str] | None:
    key = unknown_misc_key([cell for _, cell in cells])
    return next(((number, key) for number, cell in cells if misc_value(cell, key) is not None), None) if key else None


def _refuse_other_columns(path: Path, columns: Columns, rows: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    """Refuse a file whose tags would be lost, for nothing tells their column, or another sign separates columns.

    Raises:
        CorpusError: With the column, or the sign.
    """
    if columns.tag is not None:
        return
    for number in range(columns.width):
        if number != columns.word and look_like_tags(row[number] for row in rows):
            name = names[number] if len(names) == columns.width else str(number)
            word = names[columns.word] if len(names) == columns.width else str(columns.word)
            raise CorpusError(
                f"{path}: the column {name} looks like tags, but its name says nothing; set "
                f"corpus.columns={word},{name}, or corpus.columns={word} to read words alone"
            )
    if columns.width > 1:
        return
    separators = Counter(sign for row in rows for sign in set(_OTHER_SEPARATOR.findall(row[0])))
    for sign, number in separators.most_common(3):
        if number == len(rows) and look_like_tags(visible_label(row[0].rpartition(sign)[2]) for row in rows):
            shown = repr(sign) if sign.isascii() and sign.isprintable() else f"U+{ord(sign):04X}"
            raise CorpusError(
                f"{path}: word and tag are separated by {shown}, as in {rows[0][0][:40]!r}; expected a TAB or spaces"
                + ("; read it as a table: corpus.format=csv" if sign in ",;|" else "")
            )


def _refuse_rows_in_rows(path: Path, columns: Columns, line: int, text: str) -> None:
    """Refuse a line that holds several rows, separated by what ends no line here.

    Raises:
        CorpusProblem: With the line and the sign.
    """
    for number, row in enumerate(text.split("\n"), line):
        found = _HAS_OTHER_LINE_END.search(row)
        parts = [_split(part) for part in _HAS_OTHER_LINE_END.split(row) if part] if found else []
        # A word may hold such a sign: then what stands around it are no rows of their own.
        are_rows = len({len(part) for part in parts}) == 1 and all(
            len(part) > 1
            and part[0].strip()
            and is_any_tag(visible_label(part[-1]))
            and (not columns.has_ids or part[0].isdecimal())
            for part in parts
        )
        if found and len(parts) > 1 and are_rows:
            name = f"U+{ord(found.group()):04X}"
            message = f"{len(parts)} rows in one line, separated by {name}; lines end at LF, CRLF or CR"
            raise CorpusProblem("XL005", f"{path}:{number}", message)


def _is_hash_word(row: list[str], columns: Columns) -> bool:
    if len(row) != columns.width or columns.has_ids:
        return False
    return columns.tag is None or row[columns.tag] == UNLABELLED or is_tag(row[columns.tag])


def _split(line: str) -> list[str]:
    # `str.split()` would also cut at no-break and ideographic spaces, which are parts of words.
    return line.split("\t") if "\t" in line else [part for part in line.split(" ") if part]


def _sampled_rows(blocks: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[int]]:
    """The first rows of a file, of the most frequent width and no comments; and which of them begin a sentence."""
    lines = [line for block in blocks for line in block]
    # Where each line begins with `#`, words are told from comments by their TAB or their lack of spaces.
    are_hashes = all(line.startswith("#") for line in lines)
    certain = [
        [_split(line) for line in block if ("\t" in line or " " not in line if are_hashes else line[:1] != "#")]
        for block in blocks
    ]
    widths = Counter(len(row) for rows in certain for row in rows).most_common(1)
    rows, starts = list[list[str]](), list[int]()
    for block in certain:
        starts.append(len(rows))
        rows += [row for row in block if len(row) == widths[0][0]]
    return rows, starts


# Sentences as the text of files of columns, so that reading gives back the very same sentences.


def conll_blocks(sentences: Iterable[Sentence], path: Path) -> Iterator[str]:
    """Word and tag separated by a TAB, or words alone if the first sentence has no tags.

    In a file with tags, the words of a sentence without get `_`.

    Args:
        sentences: With as many tags as words, none of them empty.
        path: Names the file in messages.

    Raises:
        CorpusError: If a word or a tag could not be read back as it is (with a TAB or line end, ...), or if sentences
            with tags follow one without.
    """
    has_tags = None
    for number, (words, tags) in enumerate(sentences, 1):
        place = f"{path}: sentence {number}"
        if has_tags is None:
            has_tags = tags is not None
            if words[0].startswith("\ufeff"):
                raise CorpusError(f"{place}: the first word begins with a byte order mark (U+FEFF); remove it")
        if tags is not None and not has_tags:
            raise CorpusError(f"{place} has tags, unlike the sentences before; write them to files of their own")
        for word in words:
            if reason := _unreadable(word, has_tags):
                raise CorpusError(f"{place}: the word {word!r} {reason}; it could not be read back")
        if odd := next((tag for tag in set(tags or ()) if not {"\t", "\n", "\r"}.isdisjoint(tag)), ""):
            raise CorpusError(f"{place}: the tag {odd!r} holds a TAB or a line end; it could not be read back")
        if has_tags:
            tags = tags or (UNLABELLED,) * len(words)
            yield "".join([f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)]) + "\n"
        else:
            yield "\n".join(words) + "\n\n"


def conllu_blocks(sentences: Iterable[Sentence], path: Path, *, is_plus: bool) -> Iterator[str]:
    """CoNLL-U with tags in MISC (`NER=B-PER`), or CoNLL-U Plus with the columns ID, FORM and XLNER:NER.

    Raises:
        CorpusError: If a word or tag holds what ends a column, a line, or an entry of MISC.
    """
    if is_plus:
        yield "# global.columns = ID FORM XLNER:NER\n"
    for number, (words, tags) in enumerate(sentences, 1):
        place = f"{path}: sentence {number}"
        rows = []
        for position, (word, tag) in enumerate(zip(words, tags or [UNLABELLED] * len(words), strict=True), 1):
            if reason := _unreadable(word, has_tags=True, begins_line=False):
                raise CorpusError(f"{place}: the word {word!r} {reason}; it could not be read back")
            if any(char in "|\t\n\r" for char in tag):
                raise CorpusError(f"{place}: the tag {tag!r} holds a sign that separates; it could not be read back")
            rest = tag if is_plus else f"_\t_\t_\t_\t_\t_\t_\tNER={tag}"
            rows.append(f"{position}\t{word}\t{rest}\n")
        yield "".join(rows) + "\n"


def _unreadable(word: str, has_tags: bool, begins_line: bool = True) -> str:
    """What the reader would trip over in this word; empty for nearly all words."""
    if "\t" in word or "\n" in word or "\r" in word:
        return "holds a TAB or a line end"
    if " " in word and not has_tags:
        return "holds a space, which separates columns where there is no TAB"
    if begins_line and word.startswith(DOCUMENT_START):
        return "marks the start of a document"
    return ""
