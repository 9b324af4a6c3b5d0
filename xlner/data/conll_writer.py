"""Sentences as the text of files of columns, so that reading gives back the very same sentences."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from xlner.data.conll import DOCUMENT_START
from xlner.data.schemes import UNLABELLED
from xlner.errors import CorpusError
from xlner.text import Sentence


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
