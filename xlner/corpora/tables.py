"""Tables: rows with a header, or with numbers of sentences, as spreadsheets and annotation tools write them.

A row is a word (with its tag), or a text. Words of one sentence have one number, or the number stands at the first of
them alone; without numbers of sentences, blank rows separate them, or the number of a word that goes back. CSV comes
with commas, semicolons, bars or TABs, and quotation marks; tables in other files have no quotation marks.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple

from xlner.corpora.columns import (
    INDEX_NAMES,
    OTHER_ID,
    OTHER_NAMES,
    SENTENCE_NAMES,
    TAG_NAMES,
    TEXT_NAMES,
    WORD_NAMES,
    Wanted,
    count_words,
    find_columns,
    find_name,
    hold_no_letters,
    look_like_tags,
    number_sentences,
    place_columns,
    plain_name,
    report_lost_tag,
)
from xlner.corpora.lines import read_chunks
from xlner.corpora.problems import CorpusProblem, LeftOut, Located, Report, everywhere
from xlner.corpora.schemes import UNLABELLED, TagReader, is_any_tag, visible_label
from xlner.corpora.spans import checked_text
from xlner.errors import CorpusError
from xlner.tags import OUTSIDE
from xlner.words import Sentence, WordOffsets

N_SAMPLED = 2000  # rows that a table is known by
DELIMITERS = ",;\t|"
_KNOWN_NAMES = {*WORD_NAMES, *TEXT_NAMES, *TAG_NAMES, *SENTENCE_NAMES, *INDEX_NAMES, *OTHER_NAMES}
_TAG_IN_CELL = re.compile(r"[^\s,'\"\[\]()]+")

Row = tuple[int, list[str]]  # the number of its line, and its cells


class Table(NamedTuple):
    """Where the rows of a table hold what: either words, or texts.

    `sentence` are the columns whose values tell sentences, `numbers` the one that counts words. `names` is empty where
    there is no header.
    """

    width: int
    word: int | None = None
    tag: int | None = None
    text: int | None = None
    sentence: tuple[int, ...] = ()
    numbers: int | None = None
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As messages show it: `3 columns (sentence, word, tag)`."""
        names = {self.word: "word", self.tag: "tag", self.text: "text", self.numbers: "index"}
        names |= dict.fromkeys(self.sentence, "sentence")
        return f"{self.width} columns ({', '.join(names.get(column, '-') for column in range(self.width))})"


def find_table(path: Path, beginning: str, wanted: Wanted, ignores_tags: bool) -> Table | None:
    """What a file of columns is if it is a table; None if it is none, as most are.

    Args:
        path: Names the file in messages.
        beginning: Of the file; its last line may be cut.
        wanted: Columns that the user asked for.
        ignores_tags: Whether it is no harm if tags are lost.
    """
    lines = beginning.split("\n", N_SAMPLED)[:N_SAMPLED]
    first = next((line for line in lines if line.strip() and line[0] != "#"), "")
    # Columns are separated by spaces in CoNLL only, and there nothing has a header or number of sentences.
    if not first:
        return None
    delimiter = "\t" if "\t" in first else " "
    rows, starts, is_after_gap = list[list[str]](), list[int](), True
    width = len(_cells(first, delimiter))
    for line in lines:
        cells = _cells(line, delimiter)
        if line[:1] == "#" and len(cells) != width:
            continue
        if not line.strip():
            is_after_gap = True
        elif len(cells) == width:
            if is_after_gap:
                starts.append(len(rows))
            rows.append(cells)
            is_after_gap = False
    if _is_header(rows[0], at_least=2) or _names_wanted(rows[0], wanted):
        return _table(path, rows, wanted, ignores_tags)
    ids = [row[0] for row in rows]
    if width < 2 or (wanted is not None and 0 in wanted) or (width == 2 and _are_any_tags([row[1] for row in rows])):
        return None
    places = set(starts)
    if number_sentences(ids) and any(
        after in ("", before) and place not in places for place, (before, after) in enumerate(pairwise(ids), 1)
    ):
        return _table(path, rows, wanted, ignores_tags)
    # Words are counted, but no blank line separates sentences.
    counted = [(number, text) for number, text in enumerate(ids) if text.isdecimal()]
    begins = [0, *(number for (_, before), (number, text) in pairwise(counted) if int(text) <= int(before))]
    if len(starts) > 1 or len(begins) < 2 or not count_words(ids, begins):
        return None
    columns = find_columns(rows, (), begins) if wanted is None else place_columns(path, rows, *wanted, (), begins)
    return Table(width, columns.word, columns.tag, numbers=0) if columns.has_ids and not columns.key else None


def read_csv(
    path: Path,
    *,
    wanted: Wanted,
    tag_reader: TagReader,
    encoding: str,
    split_text: Callable[[str], WordOffsets],
    report: Report,
) -> Iterator[Located]:
    """The sentences of a CSV file; for the arguments see `read_corpus`.

    Raises:
        CorpusError: At the first row that does not fit, or if nothing tells what the columns are.
    """
    table, rows = open_csv(path, wanted, encoding, report, tag_reader.ignores)
    if table is not None:
        yield from read_table(path, rows, table, tag_reader, split_text, report)


def open_csv(
    path: Path, wanted: Wanted, encoding: str, report: Report, ignores_tags: bool
) -> tuple[Table | None, Iterator[Row]]:
    """What a CSV file holds, and its rows, the header among them; no table where there is no row."""
    chunks = read_chunks(path, encoding, report)
    first = next(chunks, "")
    delimiter = _delimiter(first)
    rows = _csv_rows(path, chain([first], chunks), delimiter)
    sampled = list(islice(rows, N_SAMPLED))
    filled = [cells for _, cells in sampled if any(cells)]
    table = _table(path, filled, wanted, ignores_tags) if filled else None
    return table, chain(sampled, rows)


def numbered_rows(chunks: Iterable[str]) -> Iterator[Row]:
    """The rows of a table without quotation marks, comments left out; a blank line is a row without cells."""
    line, delimiter, n_delimiters = 0, "", 0
    for chunk in chunks:
        for row in chunk.removesuffix("\n").split("\n"):
            line += 1
            if not row.strip() or row.startswith("-DOCSTART-"):
                yield line, []
                continue
            if not delimiter and row[0] != "#":
                delimiter = "\t" if "\t" in row else " "
                n_delimiters = row.count(delimiter)
            if row[0] == "#" and row.count(delimiter or "\t") != n_delimiters:
                continue
            yield line, _cells(row, delimiter)


def read_table(
    path: Path,
    rows: Iterable[Row],
    table: Table,
    tag_reader: TagReader,
    split_text: Callable[[str], WordOffsets],
    report: Report,
) -> Iterator[Located]:
    """The sentences of a table.

    Args:
        path: Names the file in messages.
        rows: All rows; those without cells, or with empty ones only, end a sentence.
        table: What the columns hold.
        tag_reader: Reads the tags.
        split_text: Where the words of a text are.
        report: Gets what is wrong.
    """
    if table.text is not None:
        yield from _texts(path, rows, table, tag_reader, split_text, report)
        return
    for block in _sentences(path, rows, table, report, tag_reader.ignores):
        try:
            yield _sentence(path, block, table, tag_reader, report)
        except LeftOut:
            continue


def body(rows: Iterable[Row], table: Table) -> Iterator[Row]:
    """The rows below the header."""
    is_first = bool(table.names)
    for line, cells in rows:
        if is_first and any(cells):
            is_first = False
            continue
        yield line, cells


def _sentences(
    path: Path, rows: Iterable[Row], table: Table, report: Report, ignores_tags: bool
) -> Iterator[list[Row]]:
    """The rows of each sentence; a sentence with a row of another width is left out."""
    block: list[Row] = []
    number, is_broken = [""] * len(table.sentence), False
    last = -1
    for line, cells in body(rows, table):
        is_row = len(cells) == table.width
        begins = not any(cells)
        if is_row and not begins:
            found = [cells[column] for column in table.sentence]
            begins = any(new not in ("", old) for new, old in zip(found, number, strict=True))
            if begins:
                number = [new or old for new, old in zip(found, number, strict=True)]
            if table.numbers is not None:
                if OTHER_ID.fullmatch(cells[table.numbers]):
                    if table.tag is not None and not ignores_tags:
                        report_lost_tag(cells[table.numbers], cells[table.tag], f"{path}:{line}", report)
                    continue
                index = int(cells[table.numbers].partition(".")[0]) if cells[table.numbers].isdecimal() else last + 1
                begins = begins or (not table.sentence and index <= last)
                last = index
        if begins:
            if block and not is_broken:
                yield block
            block, is_broken = [], False
        if is_row and any(cells):
            block.append((line, cells))
        elif any(cells):
            is_broken = True
            quoted = "; a TAB in quotation marks? save the file as CSV, with the suffix .csv" if '"' in cells else ""
            message = f"expected {table}, found {len(cells)}: {' | '.join(cells)[:80]!r}{quoted}"
            report(CorpusProblem("XL010", f"{path}:{line}", message))
    if block and not is_broken:
        yield block


def _sentence(path: Path, block: Sequence[Row], table: Table, tag_reader: TagReader, report: Report) -> Located:
    def place(position: int) -> str:
        return f"{path}:{block[position][0]}"

    assert table.word is not None
    words = tuple([cells[table.word] for _, cells in block])
    for position, word in enumerate(words):
        if not word or "\n" in word:
            what = "a line end in a word; is a quotation mark not closed?" if word else f"empty word; expected {table}"
            report(CorpusProblem("XL011", place(position), what))
            raise LeftOut
    words = tuple([checked_text(word, place(number), report) for number, word in enumerate(words)])
    if table.tag is None:
        return Located(Sentence(words), place)
    return Located(Sentence(words, tag_reader.read(tuple([cells[table.tag] for _, cells in block]), place)), place)


def _texts(
    path: Path,
    rows: Iterable[Row],
    table: Table,
    tag_reader: TagReader,
    split_text: Callable[[str], WordOffsets],
    report: Report,
) -> Iterator[Located]:
    assert table.text is not None
    for line, cells in body(rows, table):
        if not any(cells):
            continue
        place = f"{path}:{line}"
        if len(cells) != table.width:
            report(CorpusProblem("XL010", place, f"expected {table}, found {len(cells)}: {' | '.join(cells)[:80]!r}"))
            continue
        text = checked_text(cells[table.text], place, report)
        try:
            if table.tag is None or tag_reader.ignores or not cells[table.tag].strip():
                words = tuple([text[start:end] for start, end in split_text(text)])
                if words:
                    yield Located(Sentence(words), everywhere(place))
                continue
            words, tags = tuple(text.split()), tuple(_TAG_IN_CELL.findall(cells[table.tag]))
            if len(words) != len(tags):
                report(CorpusProblem("XL016", place, f"{len(words)} words between spaces, but {len(tags)} tags"))
                continue
            yield Located(Sentence(words, tag_reader.read(tags, everywhere(place))), everywhere(place))
        except LeftOut:
            continue


def _table(path: Path, rows: Sequence[list[str]], wanted: Wanted, ignores_tags: bool) -> Table:
    """What the columns hold, told by their names, and where there are none by what stands in them.

    Raises:
        CorpusError: If nothing tells the column of words or texts, or that of tags.
    """
    has_names = _is_header(rows[0], at_least=1) or _names_wanted(rows[0], wanted) or _stands_over_tags(rows, wanted)
    names = tuple(rows[0]) if has_names else ()
    width = len(rows[0])
    content = [row for row in rows[bool(names) :] if len(row) == width]
    if wanted is not None:
        return _asked_for(path, content or [list(names)], wanted, names)
    if not names:
        return _by_content(path, content)
    word, text = _column(names, WORD_NAMES), _column(names, TEXT_NAMES)
    tag = _column([name if place != word else "" for place, name in enumerate(names)], TAG_NAMES)
    if word is None and text is None:
        # `Sentence` is the text of a row where no column has words.
        text = _column(names, SENTENCE_NAMES)
    if word is None:
        assert text is not None
        tag = tag if tag is not None and _hold_tags_of_texts(content, tag) else None
        table = Table(width, None, tag, text, names=names)
    else:
        sentence = tuple(n for n, name in enumerate(names) if plain_name(name) in SENTENCE_NAMES and n != word)
        index = _column(names, INDEX_NAMES)
        if index is not None and not sentence and number_sentences([row[index] for row in content]):
            sentence, index = (index,), None
        if index is not None and not sentence and not _count(content, index):
            index = None
        table = Table(width, word, tag, None, sentence, index, names)
    if table.tag is None and not ignores_tags:
        _refuse_unknown_tags(path, content, table)
    return table


def _asked_for(
    path: Path, rows: Sequence[list[str]], wanted: tuple[int | str, int | str | None], names: tuple[str, ...]
) -> Table:
    columns = place_columns(path, rows, *wanted, names)
    taken = (columns.word, columns.tag)
    ids = [n for n, name in enumerate(names) if plain_name(name) in SENTENCE_NAMES and n not in taken]
    if not ids and 0 not in taken and number_sentences([row[0] for row in rows]):
        ids = [0]
    if names and plain_name(names[columns.word]) in TEXT_NAMES:
        return Table(columns.width, None, columns.tag, columns.word, names=names)
    index = 0 if columns.has_ids and 0 not in ids else None
    return Table(columns.width, columns.word, columns.tag, None, tuple(ids), index, names)


def _by_content(path: Path, rows: Sequence[list[str]]) -> Table:
    width = len(rows[0])
    first = 0
    while first < width - 1 and number_sentences([row[first] for row in rows]):
        first += 1
    rest = [row[first:] for row in rows]
    columns = find_columns(rest)
    is_named = columns.tag is not None and _are_any_tags([row[columns.tag] for row in rest])
    has_words = not hold_no_letters([row[columns.word] for row in rest[:N_SAMPLED]])
    if not (first or is_named) or (columns.tag is not None and not is_named and width - first > 1) or not has_words:
        raise CorpusError(
            f"{path}: no column tells that it holds words or texts; its first row is {' | '.join(rows[0])[:60]!r}; "
            "expected a header with the names word and tag, or text; or set corpus.columns=WORD,TAG"
        )
    tag = None if columns.tag is None else columns.tag + first
    index = first if columns.has_ids else None
    return Table(width, columns.word + first, tag, None, tuple(range(first)), index)


def _refuse_unknown_tags(path: Path, rows: Sequence[list[str]], table: Table) -> None:
    for column in range(table.width):
        cells = [row[column] for row in rows]
        if table.text is not None:
            cells = [tag for cell in cells if column != table.text for tag in _TAG_IN_CELL.findall(cell)]
        if column != table.word and look_like_tags(cells):
            words = table.names[table.word if table.word is not None else table.text or 0]
            name = table.names[column]
            raise CorpusError(
                f"{path}: the column {name!r} looks like tags, but its name says nothing; set "
                f"corpus.columns={words},{name}, or corpus.columns={words} to read words alone"
            )


def _cells(line: str, delimiter: str) -> list[str]:
    return line.split("\t") if delimiter == "\t" else [cell for cell in line.split(" ") if cell]


def _is_header(cells: Sequence[str], at_least: int) -> bool:
    """Whether a row names columns: one of words or texts, and so many of a known name in all."""
    if any(cell in (OUTSIDE, UNLABELLED) or cell.isdecimal() for cell in cells) or look_like_tags(cells[-1:]):
        return False
    known = {plain_name(cell) for cell in cells} & _KNOWN_NAMES
    has_content = not known.isdisjoint((*WORD_NAMES, *TEXT_NAMES)) or ("sentence" in known and len(known) > 1)
    return has_content and len(known) >= at_least


def _names_wanted(cells: Sequence[str], wanted: Wanted) -> bool:
    asked = [name for name in wanted or () if isinstance(name, str)]
    return bool(asked) and {plain_name(name) for name in asked} <= {plain_name(cell) for cell in cells}


def _stands_over_tags(rows: Sequence[list[str]], wanted: Wanted) -> bool:
    """Whether the first row is a header because what it has in the column of tags is no tag, unlike all below."""
    column = None if wanted is None else wanted[1]
    if not isinstance(column, int) or not -len(rows[0]) <= column < len(rows[0]) or is_any_tag(rows[0][column]):
        return False
    return look_like_tags(row[column] for row in rows[1:] if len(row) == len(rows[0]))


def _column(names: Sequence[str], known: Sequence[str]) -> int | None:
    name = find_name([name for name in names if name], known)
    return None if name is None else list(names).index(name)


def _count(rows: Sequence[list[str]], column: int) -> bool:
    ids = [row[column] for row in rows]
    begins = [0, *(n for n, text in enumerate(ids) if text in ("0", "1"))]
    return len(begins) > 2 and count_words(ids, begins)


def _are_any_tags(cells: Sequence[str]) -> bool:
    found = Counter(is_any_tag(visible_label(cell)) for cell in cells if cell != UNLABELLED)
    return found[True] > found[False]


def _hold_tags_of_texts(rows: Sequence[list[str]], column: int) -> bool:
    return look_like_tags(tag for row in rows for tag in _TAG_IN_CELL.findall(row[column]))


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
