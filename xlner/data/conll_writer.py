"""Writing corpora in our own format, so that reading gives back the very same sentences."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from xlner.data.conll import DOCUMENT_START
from xlner.data.schemes import UNLABELLED
from xlner.errors import CorpusError
from xlner.text import Sentence


def write_conll(sentences: Iterable[Sentence], path: Path) -> None:
    """Write word and tag separated by a TAB, or words alone if the first sentence has no tags.

    The file appears whole or not at all. In a file with tags, the words of a sentence without get `_`.

    Raises:
        CorpusError: If a word could not be read back as it is (empty, with a TAB or line end, ...), if
            sentences with tags follow one without, or if the disk refuses.
    """
    # A link stays a link: the file behind it is replaced.
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(_blocks(sentences, path))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be written: {problem.strerror}") from problem
    finally:
        # Inside a folder that could not be made there is nothing to remove either.
        if target.parent.is_dir():
            unfinished.unlink(missing_ok=True)


def _blocks(sentences: Iterable[Sentence], path: Path) -> Iterator[str]:
    has_tags = None
    for number, (words, tags) in enumerate(sentences, 1):
        place = f"{path}: sentence {number}"
        if has_tags is None:
            has_tags = tags is not None
            if words and words[0].startswith("\ufeff"):
                raise CorpusError(f"{place}: the first word begins with a byte order mark (U+FEFF); remove it")
        if not words or (tags is not None and len(tags) != len(words)):
            raise CorpusError(f"{place} has {len(words)} words and {len(tags or ())} tags; expected one tag a word")
        if tags is not None and not has_tags:
            raise CorpusError(f"{place} has tags, unlike the sentences before; write them to files of their own")
        for word in words:
            if reason := _unreadable(word, has_tags):
                raise CorpusError(f"{place}: the word {word!r} {reason}; it could not be read back")
        if has_tags:
            tags = tags or (UNLABELLED,) * len(words)
            yield "".join([f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)]) + "\n"
        else:
            yield "\n".join(words) + "\n\n"


def _unreadable(word: str, has_tags: bool) -> str:
    """What the reader would trip over in this word; empty for nearly all words."""
    if not word:
        return "is empty"
    if "\t" in word or "\n" in word or "\r" in word:
        return "holds a TAB or a line end"
    if " " in word and not has_tags:
        return "holds a space, which separates columns where there is no TAB"
    if word.startswith(DOCUMENT_START):
        return "marks the start of a document"
    if not word.isascii() and any("\ud800" <= char <= "\udfff" for char in word):
        return "holds half a surrogate pair, which is no character"
    return ""
