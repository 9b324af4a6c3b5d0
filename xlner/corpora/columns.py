"""Which column, field or key of a file holds the words and which the tags: asked for, known by name, or found out.

Names are compared without case, signs and the project before a colon: `NER_TAGS`, `ner-tags` and `XLNER:nerTags` are
one name. The names of tags stand in the order in which they are believed where a record has several.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from xlner.corpora.spans import UNLABELLED, is_any_tag, visible_label
from xlner.errors import CorpusError
from xlner.tags import OUTSIDE


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORD_NAMES = _names(
    "words tokens word token form forms surface wordform tokentext tokenizedtext wort wörter mot mots palabra palabras "
    "parola parole palavra palavras woord woorden słowo слово"
)
_OF_ENTITIES = _names(
    "nertags ner nertag nerlabels nerlabel netags netag ne nes namedentity namedentities entitytags entitytag "
    "entitylabels entitylabel entities entity iob2 iob iobtag iobtags bio biotags biotag bioes bilou biluo"
)
TAG_NAMES = (*_OF_ENTITIES, *_names("tags labels tag label gold goldtags etikett etikette etiqueta étiquette"))
# `name` is what NorNE calls its tags; elsewhere a name is something else, so it counts as a key of MISC only.
MISC_NAMES = (*TAG_NAMES, "name", "names")
# Keys of MISC that hold nothing but entities, so that types without prefixes count as tags there, too.
SURE_MISC_NAMES = tuple(name for name in _OF_ENTITIES if name not in ("entity", "entities"))
SPAN_NAMES = _names("spans entities ents labels label annotations annotation ner namedentities")
TEXT_NAMES = _names("text texts content data texte texto testo tekst текст")
LABEL_NAMES = _names("label labels type entity entitytype entitygroup entitylabel tag class category")
START_NAMES = _names("start startoffset startchar startpos begin beginoffset")
END_NAMES = _names("end endoffset endchar endpos stop")
SENTENCE_NAMES = _names(
    "sentence sentenceid sentenceno sentencenumber sentencenr sentid sid sentenceidx sentenceindex sent sentidx sentno "
    "satz satzid satznr phrase phraseid frase fraseid zin zinid docid documentid doc document docno"
)
INDEX_NAMES = _names("id tokenid wordid index idx tokenidx tokenno wordno position unnamed0 nr")
# Other columns of the formats at hand: they tell a header, and are not read.
OTHER_NAMES = _names("pos lemma upos xpos feats head deprel deps misc postag postags chunk chunktags lang space")
_KNOWN_NAMES = {*WORD_NAMES, *TEXT_NAMES, *TAG_NAMES, *SENTENCE_NAMES, *INDEX_NAMES, *OTHER_NAMES}

# A tag of an entity in IOB, BIOES or BILOU.
_ENTITY_TAG = re.compile(r"[BIESULMW]-\S.*", re.DOTALL)


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """A name as the lists above have it."""
    return re.sub(r"[\W_]", "", name.rpartition(":")[2].casefold())


def find_name(names: Iterable[str], known: Sequence[str]) -> str | None:
    """The first of these names, in the order of the known ones; None if none is known."""
    by_plain_name: dict[str, str] = {}
    for name in names:
        by_plain_name.setdefault(plain_name(name), name)
    # Records are many, and most of their names unknown: then the known ones need not be gone through.
    if by_plain_name.keys().isdisjoint(known):
        return None
    return next((by_plain_name[name] for name in known if name in by_plain_name), None)


def value_of(record: Mapping[str, Any], known: Sequence[str]) -> Any:
    """The value under the first known name; KeyError if there is no such field."""
    name = find_name(record, known)
    if name is None:
        raise KeyError(known[0])
    return record[name]


def look_like_tags(values: Iterable[object]) -> bool:
    """Whether these are tags beyond doubt: all are, and some begin or continue an entity."""
    found = {value for value in values if value not in (None, "_", "")}
    entities = {value for value in found if isinstance(value, str) and _ENTITY_TAG.fullmatch(value)}
    return found - entities <= {OUTSIDE} and any(str(value)[0] in "BSU" for value in entities)


# Columns of files of rows.


CONLLU_NAMES = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
GLOBAL_COLUMNS = "# global.columns ="
# Words are counted by whole numbers, by some programs as `3.0`; `3-4` is a contraction of words that follow, `5.1` a
# word left out.
_WORD_ID = re.compile(r"\d+(\.0)?", re.ASCII)
OTHER_ID = re.compile(r"\d+-\d+|\d+\.\d*[1-9]", re.ASCII)
# A number, or what ends in one: `Sentence: 12`, `doc3-s7`.
_SENTENCE_ID = re.compile(r"(.*[\W_A-Za-z])?\d+(\.0)?", re.ASCII)
_NUMBERS = re.compile(r"[\d\W_]*", re.ASCII)
TAG_IN_CELL = re.compile(r"[^\s,'\"\[\]()]+")
# How a cell begins that holds spans, as JSON or as Python writes them: `[{"start"`, `[(0, 4, 'PER')]`, `{'entities'`.
_SPANS_IN_CELL = re.compile(r"\s*(?:[\[(]\s*)*(?:[\[(]\s*[\[({]|\{)\s*['\"\d]")
N_SAMPLED = 2000  # rows that a table is known by

Column = int | str  # counted from 0 or (below 0) from the end, or a name
Wanted = tuple[Column, Column | None] | None  # word and tag; None: to be found out


class Columns(NamedTuple):
    """Where rows hold what; `tag` is None without tags.

    With `is_text`, `word` is the column of whole texts. `ids` is the column that counts words, `sentence` are those
    whose values tell sentences; `names` is empty where a table has no header. With a `key`, the column of tags is
    CoNLL-U's MISC, and the tag stands in it as `key=TAG`; `missing` is the tag of words without the key: `O` where a
    file names entities only, `_` where it names `O` as well.
    """

    width: int
    word: int
    tag: int | None = None
    ids: int | None = None
    key: str = ""
    missing: str = OUTSIDE
    is_text: bool = False
    sentence: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As messages show it: `3 columns (index, word, tag)`."""
        names = {self.word: "text" if self.is_text else "word", self.tag: "tag", self.ids: "index"}
        names |= dict.fromkeys(self.sentence, "sentence")
        return f"{self.width} columns ({', '.join(names.get(column, '-') for column in range(self.width))})"

    def called(self, column: int) -> str:
        """The name of a column, or else its number."""
        return self.names[column] if len(self.names) == self.width else str(column)


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


def find_columns(rows: Sequence[Sequence[str]], names: Sequence[str] = (), starts: Sequence[int] = (0,)) -> Columns:
    """The columns of the known formats, told apart by names, by their number and by whether the first counts words.

    These are `word`; `word tag`; `word ... tag` (CoNLL-2002, CoNLL-2003); `index word`; `index word tag ...`
    (WikiNEuRal, Universal NER, GermEval); `index word ... tag`; CoNLL-U with tags in MISC or without; CoNLL-U
    Plus.

    `rows` are of one width, `starts` those that begin a sentence; `names` are empty where the file has none.
    """
    width = len(rows[0])
    ids = 0 if width > 1 and count_words([row[0] for row in rows], starts) else None
    if len(names) == width:
        word, tag = _named(names, WORD_NAMES), _named(names, TAG_NAMES)
        if word is not None:
            misc = _named(names, ("misc",)) if tag is None else None
            key = "" if misc is None else misc_key(rows, misc)
            ids = None if 0 in (word, tag) else ids
            return Columns(width, word, misc if key else tag, ids, key, missing_tag(rows, misc, key))
    if width == 1:
        return Columns(width, 0)
    if width == len(CONLLU_NAMES) and (ids is not None or _has_heads(rows)):
        key = misc_key(rows, width - 1)
        tagged = next(_tag_columns(rows, 2), None)
        return Columns(width, 1, width - 1 if key else tagged, ids, key, missing_tag(rows, width - 1, key))
    # Numbers may be words themselves, as in the row `2026<TAB>O`.
    if ids is None or (width == 2 and (_are_tags(rows, 1) or {row[1] for row in rows} == {UNLABELLED})):
        others = [] if _are_tags(rows, width - 1) else list(_tag_columns(rows, 1))
        return Columns(width, 0, others[0] if len(others) == 1 else width - 1)
    if width == 2:
        return Columns(width, 1, None, ids)
    known = [column for column in (2, width - 1) if _are_tags(rows, column)]
    others = known or list(_tag_columns(rows, 2))
    return Columns(width, 1, others[0] if others else 2, ids)


def place_columns(
    path: object,
    rows: Sequence[Sequence[str]],
    word: Column,
    tag: Column | None,
    names: Sequence[str],
    starts: Sequence[int] = (0,),
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
    has_ids = 0 not in (word_column, tag_column) and count_words([row[0] for row in rows], starts)
    ids = 0 if has_ids else None
    return Columns(width, word_column, tag_column, ids, key, missing_tag(rows, tag_column, key))


def _placed(path: object, rows: Sequence[Sequence[str]], column: Column, names: Sequence[str]) -> int:
    width = len(rows[0])
    if isinstance(column, str):
        found = _asked_for(names, column)
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


def _named(names: Sequence[str], known: Sequence[str]) -> int | None:
    """The column of the first known name."""
    name = find_name([name for name in names if name], known)
    return None if name is None else list(names).index(name)


def _asked_for(names: Sequence[str], name: str) -> int | None:
    """The column of this very name, or else with another project before the colon, or otherwise written."""
    matches = (
        lambda other: other.upper() == name.upper(),
        lambda other: other.upper().rpartition(":")[2] == name.upper(),
        lambda other: plain_name(other) == plain_name(name),
    )
    found = (number for fits in matches for number, other in enumerate(names) if fits(other))
    return next(found, None)


def misc_key(rows: Sequence[Sequence[str]], column: int) -> str:
    """The key in MISC under which words carry tags, or nothing."""
    for row in rows:
        for part in row[column].split("|"):
            name, _, value = part.partition("=")
            known = plain_name(name)
            if known in MISC_NAMES and (is_any_tag(value) or value == UNLABELLED):
                return name
            if known in SURE_MISC_NAMES and value:
                return name
    return ""


def unknown_misc_key(cells: Sequence[str]) -> str:
    """A key of no known name in MISC whose values are tags, or nothing."""
    values: dict[str, set[str]] = {}
    for cell in cells:
        for part in cell.split("|"):
            name, equals, value = part.partition("=")
            if equals:
                values.setdefault(name, set()).add(value)
    return next((name for name, found in values.items() if look_like_tags(found)), "")


def misc_value(cell: str, key: str) -> str | None:
    """The tag in a cell such as `SpaceAfter=No|NER=B-PER`; None without one."""
    parts = (part.partition("=") for part in cell.split("|"))
    return next((value for name, _, value in parts if name == key), None)


def missing_tag(rows: Sequence[Sequence[str]], column: int | None, key: str) -> str:
    """What a word without the key is: without a label where other words have `O`, or where all have the key."""
    if not key or column is None:
        return OUTSIDE
    values = [misc_value(row[column], key) for row in rows if not OTHER_ID.fullmatch(row[0])]
    return UNLABELLED if None not in values or OUTSIDE in values or UNLABELLED in values else OUTSIDE


def count_words(ids: Sequence[str], starts: Sequence[int]) -> bool:
    """Whether these are the numbers of words: rising in each sentence, wherever they begin, gaps or not."""
    counts = [int(text.partition(".")[0]) for text in ids if _WORD_ID.fullmatch(text)]
    n_others = sum(OTHER_ID.fullmatch(text) is not None for text in ids)
    if not counts or 10 * (len(counts) + n_others) < 9 * len(ids):
        return False
    if len(ids) == 1 and counts[0] > 1:
        return False
    if len(counts) < len(ids):  # contractions do not count, so sentences are told by what begins anew
        return all(before < after or after <= 1 for before, after in pairwise(counts))
    begins = set(starts)
    return all(
        before < after or place in begins or after <= 1 for place, (before, after) in enumerate(pairwise(counts), 1)
    )


def number_sentences(ids: Sequence[str]) -> bool:
    """Whether these are the numbers of sentences: the same in all rows of one, or only in its first row."""
    given = [text for text in ids if text]
    if not given or not ids[0] or not all(map(_SENTENCE_ID.fullmatch, given)):
        return False
    changes = [text for before, text in pairwise(["", *given]) if text != before]
    # Given once for each sentence, or the same for most neighbours.
    return 5 * len(changes) <= 4 * len(ids) and (len(given) == len(ids) or len(given) == len(changes))


def _has_heads(rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows of ten columns are those of CoNLL-U, whose seventh is the number of another word."""
    heads = {row[6] for row in rows} - {UNLABELLED}
    return bool(heads) and all(map(_WORD_ID.fullmatch, heads))


def _are_tags(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether most of a column are tags; a few may be misspelt, and are reported with their line later."""
    labelled = Counter(is_any_tag(visible_label(row[column])) for row in rows if row[column] != UNLABELLED)
    return labelled[True] > labelled[False]


def _tag_columns(rows: Sequence[Sequence[str]], first: int) -> Iterator[int]:
    """The columns from the first on that are tags beyond doubt."""
    return (column for column in range(first, len(rows[0])) if look_like_tags(row[column] for row in rows))


def refuse_unknown_tags(path: object, columns: Columns, rows: Sequence[Sequence[str]]) -> None:
    """Refuse a file whose tags would be lost, for nothing tells their column."""
    for column in range(columns.width):
        cells: Iterable[str] = (row[column] for row in rows)
        if columns.is_text:
            cells = [tag for cell in cells for tag in TAG_IN_CELL.findall(cell)]
        if column != columns.word and look_like_tags(cells):
            word, name = columns.called(columns.word), columns.called(column)
            raise CorpusError(
                f"{path}: the column {name!r} looks like tags, but its name says nothing; set "
                f"corpus.columns={word},{name}, or corpus.columns={word} to read words alone"
            )


# Tables: files of rows with a header, or with numbers of sentences in place of blank lines.


def find_table(path: object, beginning: str, wanted: Wanted, ignores_tags: bool) -> Columns | None:
    """What a file of columns is if it is a table, told by its beginning; None if it is none, as most are."""
    lines = beginning.split("\n", N_SAMPLED)[:N_SAMPLED]
    first = next((line for line in lines if line.strip() and line[0] != "#"), "")
    # Columns are separated by spaces in CoNLL only, and there nothing has a header or number of sentences.
    if not first:
        return None
    delimiter = "\t" if "\t" in first else " "
    rows, starts, is_after_gap = list[list[str]](), list[int](), True
    width = len(cells_of(first, delimiter))
    for line in lines:
        cells = cells_of(line, delimiter)
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
        return table_columns(path, rows, wanted, ignores_tags)
    ids = [row[0] for row in rows]
    if width < 2 or (wanted is not None and 0 in wanted) or (width == 2 and _are_tags(rows, 1)):
        return None
    places = set(starts)
    if number_sentences(ids) and any(
        after in ("", before) and place not in places for place, (before, after) in enumerate(pairwise(ids), 1)
    ):
        return table_columns(path, rows, wanted, ignores_tags)
    # Words are counted, but no blank line separates sentences.
    counted = [(number, text) for number, text in enumerate(ids) if text.isdecimal()]
    begins = [0, *(number for (_, before), (number, text) in pairwise(counted) if int(text) <= int(before))]
    if len(starts) > 1 or len(begins) < 2 or not count_words(ids, begins):
        return None
    columns = find_columns(rows, (), begins) if wanted is None else place_columns(path, rows, *wanted, (), begins)
    return columns if columns.ids is not None and not columns.key else None


def table_columns(path: object, rows: Sequence[list[str]], wanted: Wanted, ignores_tags: bool) -> Columns:
    """What the columns of a table hold, told by their names, and where there are none by what stands in them.

    Raises:
        CorpusError: If nothing tells the column of words or texts, or that of tags.
    """
    has_names = _is_header(rows[0], at_least=1) or _names_wanted(rows[0], wanted) or _stands_over_tags(rows, wanted)
    names = tuple(rows[0]) if has_names else ()
    width = len(rows[0])
    content = [row for row in rows[bool(names) :] if len(row) == width]
    if wanted is not None:
        return _table_asked_for(path, content or [list(names)], wanted, names)
    if not names:
        return _table_by_content(path, content)
    word, text = _named(names, WORD_NAMES), _named(names, TEXT_NAMES)
    tag = _named([name if place != word else "" for place, name in enumerate(names)], TAG_NAMES)
    if word is None:
        # `Sentence` is the text of a row where no column has words, and `Sentence #` its number.
        if text is None:
            text = _named([name if "#" not in name else "" for name in names], SENTENCE_NAMES)
        if text is None:
            raise CorpusError(
                f"{path}: no column of words or texts among {', '.join(names)}; name those of word and tag with "
                "corpus.columns, as in corpus.columns=Word,Tag"
            )
        if tag is not None and not look_like_tags(cell for row in content for cell in TAG_IN_CELL.findall(row[tag])):
            tag = None
        if tag is None and not ignores_tags:
            _refuse_spans(path, names, text, content)
        columns = Columns(width, text, tag, is_text=True, names=names)
    else:
        sentence = tuple(n for n, name in enumerate(names) if plain_name(name) in SENTENCE_NAMES and n != word)
        index = _named(names, INDEX_NAMES)
        if index is not None and not sentence and number_sentences([row[index] for row in content]):
            sentence, index = (index,), None
        if index is not None and not sentence:
            ids = [row[index] for row in content]
            begins = [0, *(n for n, text in enumerate(ids) if text in ("0", "1"))]
            index = index if len(begins) > 2 and count_words(ids, begins) else None
        columns = Columns(width, word, tag, index, sentence=sentence, names=names)
    if columns.tag is None and not ignores_tags:
        refuse_unknown_tags(path, columns, content)
    return columns


def _refuse_spans(path: object, names: Sequence[str], text: int, rows: Sequence[Sequence[str]]) -> None:
    """Refuse a table of texts with a column of spans, whose name says so: they would be lost."""
    for column, name in enumerate(names):
        is_of_labels = column != text and plain_name(name) in (*TAG_NAMES, *SPAN_NAMES)
        if is_of_labels and any(_SPANS_IN_CELL.match(row[column]) for row in rows):
            raise CorpusError(
                f"{path}: the column {name!r} holds spans; export JSON or JSON-MIN instead of a table, or write JSON "
                f'Lines such as {{"text": "Anna lebt", "spans": [[0, 4, "PER"]]}}; or set corpus.columns={names[text]} '
                "to read without labels"
            )


def _table_asked_for(
    path: object, rows: Sequence[list[str]], wanted: tuple[Column, Column | None], names: tuple[str, ...]
) -> Columns:
    columns = place_columns(path, rows, *wanted, names)
    if names and plain_name(names[columns.word]) in TEXT_NAMES:
        return Columns(columns.width, columns.word, columns.tag, is_text=True, names=names)
    taken = (columns.word, columns.tag)
    ids = [n for n, name in enumerate(names) if plain_name(name) in SENTENCE_NAMES and n not in taken]
    if not ids and 0 not in taken and number_sentences([row[0] for row in rows]):
        ids = [0]
    return columns._replace(ids=None if 0 in ids else columns.ids, sentence=tuple(ids), names=names)


def _table_by_content(path: object, rows: Sequence[list[str]]) -> Columns:
    width = len(rows[0])
    first = 0
    while first < width - 1 and number_sentences([row[first] for row in rows]):
        first += 1
    rest = [row[first:] for row in rows]
    columns = find_columns(rest)
    is_named = columns.tag is not None and _are_tags(rest, columns.tag)
    # Words are not numbers and signs alone for long.
    has_words = not all(_NUMBERS.fullmatch(row[columns.word]) for row in rest[:N_SAMPLED])
    if not (first or is_named) or (columns.tag is not None and not is_named and width - first > 1) or not has_words:
        raise CorpusError(
            f"{path}: no column tells that it holds words or texts; its first row is {' | '.join(rows[0])[:60]!r}; "
            "expected a header with the names word and tag, or text; or set corpus.columns=WORD,TAG"
        )
    tag = None if columns.tag is None else columns.tag + first
    ids = None if columns.ids is None else first
    return Columns(width, columns.word + first, tag, ids, sentence=tuple(range(first)))


def cells_of(line: str, delimiter: str = "") -> list[str]:
    """The cells of a line, at TABs or, where it has none (or as asked), spaces."""
    if delimiter == "\t" or (not delimiter and "\t" in line):
        return line.split("\t")
    # `str.split()` would also cut at no-break and ideographic spaces, which are parts of words.
    return [cell for cell in line.split(" ") if cell]


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
