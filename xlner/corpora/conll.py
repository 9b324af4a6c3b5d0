"""Files of rows read: columns of text as CoNLL and its relatives have them, CSV, and tables.

In columns of text, a line is a word and a blank line follows each sentence. Columns end at a TAB, or at ASCII spaces in
lines without a TAB, never at other white space: digits joined by a no-break space are one word. Every row of a file has
as many columns as the others. No rows are blank lines and lines that begin with `-DOCSTART-` (both end a sentence), and
comments: a line that begins with `#` is one, unless it looks like any other row, with as many columns and (if the file
has tags) a tag, which may be misspelt where TABs separate. So `#<TAB>O` holds the word `#`, while `# newdoc` is a
comment.

In a table, which has a header or numbers of sentences, a row is a word (with its tag), or a text. Words of one sentence
have one number, or the number stands at the first of them alone; without numbers of sentences, blank rows separate
them, or the number of a word that goes back. CSV comes with commas, semicolons, bars or TABs, and quotation marks;
tables in other files have no quotation marks.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path

from xlner.corpora.columns import (
    CONLLU_NAMES,
    MISC_NAMES,
    N_SAMPLED,
    OTHER_ID,
    TAG_IN_CELL,
    Columns,
    cells_of,
    column_names,
    find_columns,
    find_table,
    look_like_tags,
    misc_value,
    parse_columns,
    place_columns,
    plain_name,
    refuse_unknown_tags,
    table_columns,
    unknown_misc_key,
)
from xlner.corpora.lines import (
    OTHER_LINE_ENDS,
    CorpusProblem,
    LeftOut,
    Located,
    each,
    everywhere,
    existing_file,
    numbered,
    read_beginning,
    refuse_other_line_ends,
)
from xlner.corpora.spans import (
    UNLABELLED,
    Place,
    ReadingOptions,
    TagReader,
    checked_text,
    is_any_tag,
    is_tag,
    visible_label,
)
from xlner.errors import CorpusError, has_half_characters
from xlner.tags import OUTSIDE
from xlner.words import Sentence

DOCUMENT_START = "-DOCSTART-"
LONGEST_SENTENCE = 100_000  # lines without a blank one, before the file is refused
SENTENCES_SAMPLED = 50  # that the columns are found from
DELIMITERS = ",;\t|"
# What separates sentences: blank lines, and the line of a document's start.
_GAP = re.compile(rf"(?:\A|\n)(?:(?:[ \t]*|{DOCUMENT_START}[^\n]*)\n)+")
# A line of which nothing can be seen, which is blank for a person.
_LOOKS_BLANK = re.compile(r"\n(?:[^\S\t\n]|[\u200b-\u200f\u2060\ufeff\u00ad])+(?=\n)")
_HAS_OTHER_LINE_END = re.compile(f"[{OTHER_LINE_ENDS}]")
# What may separate columns in other files: signs, and blanks that are no ASCII spaces.
_OTHER_SEPARATOR = re.compile(r"[,;|]|[^\S \t\n]|[\u200b\u2060\ufeff]")
_COMMENT = re.compile(r"#[^\t\n]*+$")
_COMMENTS = re.compile(r"^#[^\t\n]*+\n", re.MULTILINE)

Block = tuple[int, str]  # the number of the first line, and lines without a blank one
Row = tuple[int, list[str]]  # the number of its line, and its cells


def read_conll(source: str, options: ReadingOptions) -> Iterator[Located]:
    """The sentences of a file of columns."""
    return RowReader(source, options).columns_of_text()


def read_csv(source: str, options: ReadingOptions) -> Iterator[Located]:
    """The sentences of a CSV file."""
    reader = RowReader(source, options)

    def sentences() -> Iterator[Located]:
        columns, rows = reader.csv()
        if columns is not None:
            yield from reader.table(rows, columns)

    return sentences()


class RowReader:
    """Reads one file: what is found out about it at its beginning holds for all of it."""

    def __init__(self, source: str, options: ReadingOptions) -> None:
        self._path = existing_file(source)
        self._wanted = parse_columns(options.columns)
        self._tag_reader = TagReader(options.scheme, options.report, options.labels)
        self._options = options
        self._report = options.report

    def columns_of_text(self) -> Iterator[Located]:
        """The sentences of a file of columns, which may be a table."""
        first, chunks = read_beginning(self._path, self._options.encoding, self._report)
        refuse_other_line_ends(self._path, first)
        if table := find_table(self._path, first, self._wanted, self._tag_reader.ignores):
            yield from self.table(_numbered_rows(chunks, table.width), table)
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

    def csv(self) -> tuple[Columns | None, Iterator[Row]]:
        """What a CSV file holds, and its rows, the header among them; no columns where there is no row."""
        first, chunks = read_beginning(self._path, self._options.encoding, self._report)
        rows = _csv_rows(self._path, chunks, _delimiter(first))
        sampled = list(islice(rows, N_SAMPLED))
        filled = [cells for _, cells in sampled if any(cells)]
        columns = table_columns(self._path, filled, self._wanted, self._tag_reader.ignores) if filled else None
        return columns, chain(sampled, rows)

    def table(self, rows: Iterable[Row], columns: Columns) -> Iterator[Located]:
        """The sentences of a table; rows without cells, or with empty ones only, end one."""
        if columns.is_text:
            yield from each(self.texts(rows, columns), partial(self._text, columns))
        else:
            yield from each(self._blocks(rows, columns), partial(self._sentence, columns))

    def texts(self, rows: Iterable[Row], columns: Columns) -> Iterator[Row]:
        """The filled rows below the header, what does not fit reported."""
        for line, cells in _body(rows, columns):
            if len(cells) == columns.width and any(cells):
                yield line, cells
            elif any(cells):
                self._report(self._misfit(line, cells, columns))

    def _misfit(self, line: int, cells: Sequence[str], columns: Columns) -> CorpusProblem:
        quoted = "; a TAB in quotation marks? save the file as CSV, with the suffix .csv" if '"' in cells else ""
        message = f"expected {columns}, found {len(cells)}: {' | '.join(cells)[:80]!r}{quoted}"
        return CorpusProblem("XL010", f"{self._path}:{line}", message)

    def _text(self, columns: Columns, row: Row) -> Located | None:
        place, tags = f"{self._path}:{row[0]}", "" if columns.tag is None else row[1][columns.tag]
        text = checked_text(row[1][columns.word], place, self._report)
        if self._tag_reader.ignores or not tags.strip():
            sentence = self._options.split(text)
            return Located(sentence, everywhere(place)) if sentence.words else None
        words, found = tuple(text.split()), tuple(TAG_IN_CELL.findall(tags))
        if len(words) != len(found):
            message = f"{len(words)} words between spaces, but {len(found)} tags"
            self._report(CorpusProblem("XL016", place, message))
            raise LeftOut
        return Located(Sentence(words, self._tag_reader.read(found, everywhere(place))), everywhere(place))

    def _blocks(self, rows: Iterable[Row], columns: Columns) -> Iterator[list[Row]]:
        """The rows of each sentence of a table; one with a row of another width is left out."""
        block: list[Row] = []
        number, is_broken, last = [""] * len(columns.sentence), False, -1
        for line, cells in _body(rows, columns):
            is_filled = any(cells)
            is_row, begins = is_filled and len(cells) == columns.width, not is_filled
            if is_row:
                found = [cells[column] for column in columns.sentence]
                begins = any(new not in ("", old) for new, old in zip(found, number, strict=True))
                if begins:
                    number = [new or old for new, old in zip(found, number, strict=True)]
                if columns.ids is not None:
                    if self._is_no_word(columns, line, cells):
                        continue
                    text = cells[columns.ids]
                    index = int(text.partition(".")[0]) if text.isdecimal() else last + 1
                    begins = begins or (not columns.sentence and index <= last)
                    last = index
            if begins:
                if block and not is_broken:
                    yield block
                block, is_broken = [], False
            if is_row:
                block.append((line, cells))
            elif is_filled:
                is_broken = True
                self._report(self._misfit(line, cells, columns))
        if block and not is_broken:
            yield block

    def _is_hash_word(self, columns: Columns, line: str, cells: Sequence[str]) -> bool:
        """Whether a line that begins with `#` is a row, and no comment."""
        if len(cells) != columns.width or columns.ids is not None:
            return False
        if columns.tag is None or self._tag_reader.knows(cells[columns.tag]):
            return True
        # Most comments have a space behind the sign.
        return not line.startswith("# ") and ("\t" in line or self._tag_reader.may_mean(cells[columns.tag]))

    def _is_no_word(self, columns: Columns, line: int, cells: Sequence[str]) -> bool:
        """Whether a row is no word of its own, such as the contraction `3-4`; its tag is reported."""
        if columns.ids is None or not OTHER_ID.fullmatch(cells[columns.ids]):
            return False
        if columns.tag is not None and not columns.key and not self._tag_reader.ignores:
            number, tag = cells[columns.ids], cells[columns.tag]
            if is_tag(tag) and tag != OUTSIDE:
                message = (
                    f"the tag {tag} stands at {number}, no word of its own; expected tags at the words with whole "
                    "numbers"
                )
                self._report(CorpusProblem("XL015", f"{self._path}:{line}", message, "the tag is left out"))
        return True

    def _sentence(self, columns: Columns, block: Sequence[Row]) -> Located | None:
        """The sentence of some rows, all of the right width."""
        place = partial(_place_of_row, self._path, block)
        words = tuple([cells[columns.word] for _, cells in block])
        text = "".join(words)
        if "\n" in text:
            position = next(position for position, word in enumerate(words) if "\n" in word)
            message = "a line end in a word; is a quotation mark not closed?"
            self._report(CorpusProblem("XL011", place(position), message))
            raise LeftOut
        if has_half_characters(text):
            words = tuple([checked_text(word, place(n), self._report) for n, word in enumerate(words)])
        tags = () if columns.tag is None else tuple([cells[columns.tag] for _, cells in block])
        return self._located(columns, words, tags, place) if words else None

    def _located(self, columns: Columns, words: tuple[str, ...], tags: tuple[str, ...], place: Place) -> Located:
        if "" in words:
            for position in (position for position, word in enumerate(words) if not word):
                self._report(CorpusProblem("XL011", place(position), f"empty word; expected {columns}"))
            raise LeftOut
        if columns.tag is None:
            return Located(Sentence(words), place)
        if columns.key:
            tags = _tags_of_misc(columns, tags, place)
        return Located(Sentence(words, self._tag_reader.read(tags, place)), place)

    def _find_columns(self, text: str) -> Columns | None:
        """The columns of the file, None if this beginning of it holds no row."""
        blocks = [block.split("\n") for _, block in islice(_text_blocks(1, text), SENTENCES_SAMPLED)]
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
        if self._wanted is None and columns.tag is None and not self._tag_reader.ignores:
            refuse_unknown_tags(self._path, columns._replace(names=names), rows)
            if columns.width == 1:
                _refuse_other_separator(self._path, rows)
        return columns

    def _regular(self, columns: Columns, line: int, grid: "Grid") -> Iterator[Located]:
        """The sentences of a passage in which nothing is out of order."""

        def sentence(bounds: tuple[int, int]) -> Located:
            start, end = bounds
            words, tags = tuple(grid.words[start:end]), tuple(grid.tags[start:end])
            return self._located(columns, words, tags, partial(grid.place, self._path, line, start))

        return each(grid.sentences(), sentence)

    def _irregular(self, columns: Columns, line: int, text: str) -> Iterator[Located]:
        """The sentences of a passage that must be looked at line by line."""
        if columns.width > 1 and not text.isascii():
            text = _LOOKS_BLANK.sub("\n", "\n" + text)[1:]

        def sentence(block: Block) -> Located | None:
            return self._sentence(columns, self._pick_rows(columns, *block))

        return each(_text_blocks(line, text), sentence)

    def _pick_rows(self, columns: Columns, first: int, text: str) -> list[Row]:
        """The rows of a block that hold words."""
        rows, is_broken = list[Row](), False
        for number, line in enumerate(text.split("\n"), first):
            row = cells_of(line)
            if line.startswith("#") and not self._is_hash_word(columns, line, row):
                continue
            if len(row) != columns.width:
                spaced = (
                    "" if "\t" in line or len(row) < columns.width else "; a word with a space? separate columns by TAB"
                )
                message = f"expected {columns}, found {len(row)}: {line[:80]!r}{spaced}"
                self._report(CorpusProblem("XL010", f"{self._path}:{number}", message))
                is_broken = True
            elif not self._is_no_word(columns, number, row):
                rows.append((number, row))
        if is_broken:
            raise LeftOut
        return rows


def _place_of_row(path: Path, block: Sequence[Row], position: int) -> str:
    return f"{path}:{block[position][0]}"


def _tags_of_misc(columns: Columns, cells: Sequence[str], place: Callable[[int], str]) -> tuple[str, ...]:
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


# The fast way through columns of text: many sentences cut into cells at once, where nothing is out of order.


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

    def place(self, path: Path, line: int, first: int, position: int) -> str:
        """Where a word stands, counted from a first one; `line` is that of the passage. Found out when it is asked."""
        return f"{path}:{line + self._lines[first + position]}"

    @cached_property
    def _lines(self) -> list[int]:
        lines = enumerate(self.text.split("\n"))
        return [line for line, row in lines if not (self.has_comments and _COMMENT.match(row))]


class GridReader:
    """Reads passages of a file whose columns are known."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        first = r"[0-9]++" if columns.ids is not None else rf"(?!{DOCUMENT_START})[^\t\n#][^\t\n]*+"
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
        rows = _COMMENTS.sub("", text) if columns.ids is not None and "#" in text else text
        if not self._regular.fullmatch(rows):
            return None
        cells = rows[:-2].replace("\n\n", self._blank_row).replace("\n", "\t").split("\t")
        tags = [] if columns.tag is None else cells[columns.tag :: columns.width]
        return Grid(cells[columns.word :: columns.width], tags, text, columns.ids is not None)


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


def _text_blocks(line: int, text: str) -> Iterator[Block]:
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


def _refuse_other_separator(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Refuse a file whose words and tags are separated by another sign than TAB and spaces."""
    separators = Counter(sign for row in rows for sign in set(_OTHER_SEPARATOR.findall(row[0])))
    for sign, number in separators.most_common(3):
        if number == len(rows) and look_like_tags(visible_label(row[0].rpartition(sign)[2]) for row in rows):
            shown = repr(sign) if sign.isascii() and sign.isprintable() else f"U+{ord(sign):04X}"
            raise CorpusError(
                f"{path}: word and tag are separated by {shown}, as in {rows[0][0][:40]!r}; expected a TAB or spaces"
                + ("; read it as a table: corpus.format=csv" if sign in ",;|" else "")
            )


def _refuse_rows_in_rows(path: Path, columns: Columns, line: int, text: str) -> None:
    """Refuse a line that holds several rows, separated by what ends no line here."""
    for number, row in enumerate(text.split("\n"), line):
        found = _HAS_OTHER_LINE_END.search(row)
        parts = [cells_of(part) for part in _HAS_OTHER_LINE_END.split(row) if part] if found else []
        # A word may hold such a sign: then what stands around it are no rows of their own.
        are_rows = len({len(part) for part in parts}) == 1 and all(
            len(part) > 1
            and part[0].strip()
            and is_any_tag(visible_label(part[-1]))
            and (columns.ids is None or part[0].isdecimal())
            for part in parts
        )
        if found and len(parts) > 1 and are_rows:
            name = f"U+{ord(found.group()):04X}"
            message = f"{len(parts)} rows in one line, separated by {name}; lines end at LF, CRLF or CR"
            raise CorpusProblem("XL005", f"{path}:{number}", message)


def _sampled_rows(blocks: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[int]]:
    """The first rows of a file, of the most frequent width and no comments; and which of them begin a sentence."""
    lines = [line for block in blocks for line in block]
    # Where each line begins with `#`, words are told from comments by their TAB or their lack of spaces.
    are_hashes = all(line.startswith("#") for line in lines)
    certain = [
        [cells_of(line) for line in block if ("\t" in line or " " not in line if are_hashes else line[:1] != "#")]
        for block in blocks
    ]
    widths = Counter(len(row) for rows in certain for row in rows).most_common(1)
    rows, starts = list[list[str]](), list[int]()
    for block in certain:
        starts.append(len(rows))
        rows += [row for row in block if len(row) == widths[0][0]]
    return rows, starts


# Rows of tables.


def _body(rows: Iterable[Row], columns: Columns) -> Iterator[Row]:
    """The rows below the header."""
    is_first = bool(columns.names)
    for line, cells in rows:
        if is_first and any(cells):
            is_first = False
            continue
        yield line, cells


def _numbered_rows(chunks: Iterable[str], width: int) -> Iterator[Row]:
    """The rows of a table without quotation marks, comments left out; a blank line is a row without cells."""
    delimiter = ""
    for number, line in numbered(chunks):
        if not line.strip() or line.startswith(DOCUMENT_START):
            yield number, []
            continue
        if not delimiter and line[0] != "#":
            delimiter = "\t" if "\t" in line else " "
        cells = cells_of(line, delimiter)
        if line[0] != "#" or len(cells) == width:
            yield number, cells


def _delimiter(beginning: str) -> str:
    """The sign that separates cells: what stands most often in the first row; none that occurs if nothing does."""
    first = next((line for line in beginning.split("\n") if line.strip()), "")
    outside = re.sub(r'"[^"]*"', "", first)
    counts = {sign: outside.count(sign) for sign in DELIMITERS}
    best = max(counts, key=lambda sign: counts[sign])
    return best if counts[best] else "\x1f"


def _csv_rows(path: Path, chunks: Iterable[str], delimiter: str) -> Iterator[Row]:
    reader = csv.reader(_lines(chunks), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as problem:
        message = f"no CSV ({problem}); is a quotation mark not closed, or not doubled inside a cell?"
        raise CorpusProblem("XL010", f"{path}:{line}", message) from None


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    """Lines with their ends, LF alone."""
    for chunk in chunks:
        lines = chunk.split("\n")
        yield from (line + "\n" for line in lines[:-1])
        if lines[-1]:
            yield lines[-1]
