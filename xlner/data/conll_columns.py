"""Which column of a file of columns holds the words and which the tags: asked for, or found out."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from xlner.data.schemes import UNLABELLED, is_any_tag
from xlner.errors import CorpusError

CONLLU_NAMES = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
GLOBAL_COLUMNS = "# global.columns ="
# What a column of tags or a key of the column MISC is called; the part before a colon names a project.
_TAG_NAMES = ("NER", "NE", "NER_TAG", "NER_TAGS", "ENTITY", "TAG", "TAGS")
_WORD_NAMES = ("FORM", "WORD", "TOKEN", "WORDS", "TOKENS")
# CoNLL-U counts words from 1; `3-4` is a contraction of words that follow, `5.1` a word left out.
_WORD_ID = re.compile(r"\d+", re.ASCII)
OTHER_ID = re.compile(r"\d+[-.]\d+", re.ASCII)

Column = int | str  # counted from 0 or (below 0) from the end, or a name
Wanted = tuple[Column, Column | None] | None  # word and tag; None: to be found out


class Columns(NamedTuple):
    """Where rows hold what; `tag` is None without tags, `has_ids` is True where column 0 counts words.

    With a `key`, the column of tags is CoNLL-U's MISC, and the tag stands in it as `key=TAG`.
    """

    width: int
    word: int
    tag: int | None
    has_ids: bool
    key: str = ""

    def __str__(self) -> str:
        """As messages show it: `3 columns (index, word, tag)`."""
        names = {self.word: "word", self.tag: "tag"} | ({0: "index"} if self.has_ids else {})
        return f"{self.width} columns ({', '.join(names.get(column, '-') for column in range(self.width))})"


def parse_columns(columns: str | tuple[int, int]) -> Wanted:
    """The columns of word and tag; None for `auto`, and no tag where one column stands alone.

    Raises:
        CorpusError: If it is neither `auto` nor one or two different columns.
    """
    if columns == "auto":
        return None
    parts = columns.strip("()[] ").split(",") if isinstance(columns, str) else columns
    word, *others = [_parse_column(part) for part in parts]
    if len(others) > 1 or others == [word] or "" in (word, *others):
        raise CorpusError(
            f"corpus.columns is {columns!r}; expected auto, or the columns of word and tag, counted from 0 "
            "(below 0: from the end) or by name, such as 0,1 or 0,-1 or FORM,NER; one alone reads the words only"
        )
    return word, others[0] if others else None


def _parse_column(part: str | int) -> Column:
    text = str(part).strip()
    if re.fullmatch(r"-?\d+", text, re.ASCII):
        return int(text)
    return text if re.fullmatch(r"[^\W\d][\w:.-]*", text) else ""


def column_names(lines: Sequence[str]) -> tuple[str, ...]:
    """The names that `# global.columns = ...` of CoNLL-U Plus gives to the columns; empty without such a line."""
    line = next((line for line in lines if line.replace(" ", "").startswith("#global.columns=")), "")
    return tuple(line.partition("=")[2].split())


def find_columns(rows: Sequence[Sequence[str]], names: Sequence[str] = ()) -> Columns:
    """The columns of the known formats, told apart by names, by their number and by whether the first counts words.

    These are `word`; `word tag`; `word ... tag` (CoNLL-2002, CoNLL-2003); `index word`; `index word tag ...`
    (WikiNEuRal, Universal NER, GermEval); `index word ... tag`; CoNLL-U with tags in MISC or without; CoNLL-U
    Plus.
    """
    width = len(rows[0])
    has_ids = width > 1 and _count_words([row[0] for row in rows])
    if len(names) == width:
        word, tag = _named(names, _WORD_NAMES), _named(names, _TAG_NAMES)
        if word is not None:
            return Columns(width, word, tag, has_ids and 0 not in (word, tag))
    if width == 1:
        return Columns(width, 0, None, has_ids)
    # Numbers may be words themselves, as in the row `2026<TAB>O`.
    if not has_ids or (width == 2 and (_are_tags(rows, 1) or {row[1] for row in rows} == {UNLABELLED})):
        return Columns(width, 0, width - 1, False)
    tagged = [column for column in (2, width - 1) if 1 < column < width and _are_tags(rows, column)]
    if not tagged and width == len(CONLLU_NAMES):
        key = misc_key(rows)
        return Columns(width, 1, width - 1 if key else None, has_ids, key)
    if not tagged and width == 2:
        return Columns(width, 1, None, has_ids)
    return Columns(width, 1, tagged[0] if tagged else 2, has_ids)


def place_columns(
    path: object, rows: Sequence[Sequence[str]], word: Column, tag: Column | None, names: Sequence[str]
) -> Columns:
    """The columns that the user asked for.

    Raises:
        CorpusError: If the file has no such columns, or both are the same.
    """
    width = len(rows[0])
    key = ""
    if isinstance(tag, str) and tag.upper().startswith("MISC:"):
        tag, key = "MISC", tag[len("MISC:") :]
    if not names and width == len(CONLLU_NAMES):
        names = CONLLU_NAMES
    word_column = _placed(path, rows, word, names)
    tag_column = None if tag is None else _placed(path, rows, tag, names)
    if word_column == tag_column:
        raise CorpusError(f"{path}: corpus.columns names column {word_column} of {width} for both word and tag")
    has_ids = 0 not in (word_column, tag_column) and _count_words([row[0] for row in rows])
    return Columns(width, word_column, tag_column, has_ids, key)


def _placed(path: object, rows: Sequence[Sequence[str]], column: Column, names: Sequence[str]) -> int:
    width = len(rows[0])
    if isinstance(column, str):
        found = _named(names, (column.upper(),))
        if found is None:
            known = f"the file's columns are {', '.join(names)}" if names else "the file names no columns"
            raise CorpusError(
                f"{path}: corpus.columns asks for the column {column!r}, but {known}; count them from 0 instead, "
                f"or name them by a first line '{GLOBAL_COLUMNS} ...'"
            )
        return found
    if not -width <= column < width:
        raise CorpusError(
            f"{path}: corpus.columns asks for column {column}, but rows have {width} (0 to {width - 1}): "
            f"{' '.join(rows[0])[:80]!r}"
        )
    return column % width


def _named(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    """The first column of one of these names, with or without the project before a colon."""
    for number, name in enumerate(names):
        if name.upper() in wanted or name.upper().rpartition(":")[2] in wanted:
            return number
    return None


def misc_key(rows: Sequence[Sequence[str]]) -> str:
    """The key in MISC under which words carry tags, or nothing."""
    for row in rows:
        for part in row[-1].split("|"):
            name, _, value = part.partition("=")
            if name.upper() in _TAG_NAMES and (is_any_tag(value) or value == UNLABELLED):
                return name
    return ""


def _count_words(ids: Sequence[str]) -> bool:
    """Whether these are the numbers of words, from 0 or 1 on and anew in each sentence."""
    counts = [int(text) for text in ids if _WORD_ID.fullmatch(text)]
    n_others = sum(OTHER_ID.fullmatch(text) is not None for text in ids)
    if not counts or len(counts) + n_others < len(ids):
        return False
    return all(after in (0, 1, before + 1) for before, after in pairwise([0, *counts]))


def _are_tags(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether most of a column are tags; a few may be misspelt, and are reported with their line later."""
    labelled = Counter(is_any_tag(row[column]) for row in rows if row[column] != UNLABELLED)
    return labelled[True] > labelled[False]
