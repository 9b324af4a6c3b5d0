"""Files of columns that do not keep to their format, as some corpora are published: read, cleaned and counted.

`read_corpus` refuses what it cannot read with certainty. Here, a row without a word (an invisible one, or none at
all) is left out, and told; a tag that is none is still refused with its line.
"""

import sys
from collections.abc import Callable, Iterable, Iterator

from xlner.corpora.spans import TagReader
from xlner.words import Sentence

Row = tuple[str, str]  # word and tag


def read_loose(lines: Iterable[str], parse: Callable[[str], Row], place: str) -> Iterator[Sentence]:
    """Sentences out of lines without their ends; blank lines separate them.

    Args:
        lines: Of a whole file.
        parse: The word (empty if there is none) and the tag of a line.
        place: Names the file in messages.

    Raises:
        CorpusError: At a tag that is none.
    """
    reader = TagReader("auto")
    words, tags, numbers = list[str](), list[str](), list[int]()
    n_dropped = 0
    for number, line in enumerate(lines, 1):
        if line.strip(" \t\r") and not line.startswith("-DOCSTART-"):
            word, tag = parse(line.rstrip("\r"))
            if not word.strip():
                n_dropped += 1
                continue
            words.append(word)
            tags.append(tag)
            numbers.append(number)
        elif words:
            yield _sentence(words, tags, numbers, reader, place)
            words, tags, numbers = [], [], []
    if words:
        yield _sentence(words, tags, numbers, reader, place)
    if n_dropped:
        print(f"{place}: left out {n_dropped:,} lines, which hold no word", file=sys.stderr)


def text_lines(content: bytes) -> list[str]:
    """The lines of UTF-8 text, or of latin-1 if it is no UTF-8; words may hold U+2028 and its like."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.split("\n")


def last_column(line: str) -> Row:
    """Word and tag of `word ... tag`, separated by TAB or by spaces; the tag alone has no word."""
    columns = line.split("\t") if "\t" in line else line.split(" ")
    columns = [column.strip(" ") for column in columns]
    columns = [column for column in columns if column]
    return (columns[0], columns[-1]) if len(columns) > 1 else ("", "O")


def _sentence(words: list[str], tags: list[str], numbers: list[int], reader: TagReader, place: str) -> Sentence:
    return Sentence(tuple(words), reader.read(tuple(tags), lambda position: f"{place}:{numbers[position]}"))
