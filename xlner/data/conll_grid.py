"""The fast way through a file of columns: many sentences cut into cells at once, where nothing is out of order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from xlner.data.conll_columns import Columns


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
