"""Corpora on disk: found, and read as a stream of sentences.

Reading holds no more than a few sentences at a time. Tags come out as clean IOB2, whatever the file holds.
"""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from xlner.data.conll import read_conll
from xlner.data.dataset import HUB_PREFIX, read_dataset, split_source
from xlner.data.lines import read_lines
from xlner.errors import CorpusError
from xlner.recipe import choose
from xlner.text import Sentence

# What a file is by its suffix; in a folder of corpora, `find_corpus` takes the first of these that is there.
SUFFIXES = {
    ".conll": "conll",
    ".txt": "text",
    ".conllu": "conll",
    ".iob2": "conll",
    ".iob": "conll",
    ".bio": "conll",
    ".tsv": "conll",
}
N_LISTED = 12  # names that a message lists at most


class ReadingOptions(NamedTuple):
    """The arguments of `read_corpus`, for the readers of the formats; each takes those that it needs."""

    columns: str | tuple[int, int]
    scheme: str
    encoding: str
    split_line: Callable[[str], list[str]]


def split_at_blanks(line: str) -> list[str]:
    """The words of a line that is already split: ASCII white space alone separates them."""
    return [word for word in line.replace("\t", " ").split(" ") if word]


def read_corpus(
    path: str | Path,
    *,
    format: str = "auto",
    columns: str | tuple[int, int] = "auto",
    scheme: str = "auto",
    encoding: str = "utf-8",
    split_line: Callable[[str], list[str]] = split_at_blanks,
) -> Iterator[Sentence]:
    """The sentences of a corpus, one after the other, without reading it whole.

    Options and the path are checked at once, the contents as they are read.

    Args:
        path: A file; a folder made by `save_to_disk` of `datasets`, as `FOLDER` or `FOLDER:SPLIT`; or a data
            set of the hub, as `hub:NAME` or `hub:NAME:SPLIT`.
        format: A key of `FORMATS`, or `auto`: by the suffix.
        columns: Format conll: `auto`, or the columns of word and tag, from 0 or (below 0) from the end, as in
            `0,-1`; one number alone reads words without tags.
        scheme: `auto` reads IOB1, IOB2 and broken sequences as conlleval does; `strict` refuses an `I-X` that
            does not continue an X.
        encoding: Of text files. A byte order mark at the start of UTF-8 is dropped.
        split_line: Format text: turns a line into words; lines without words are skipped.

    Raises:
        CorpusError: If there is none, it holds no sentence, or at the first place that does not fit.
        RecipeError: If there is no such format.
    """
    source = str(path)
    name = _format_of(source) if format == "auto" else format
    read = choose(FORMATS, name, "corpus.format")
    return _at_least_one(read(source, ReadingOptions(columns, scheme, encoding, split_line)), source, name)


def corpus_path(data: str | Path, language: str, split: str) -> Path:
    """Where a split of a language is: `DATA/LANGUAGE/SPLIT` with the first of `SUFFIXES` that is there.

    Without any, a folder of that name may hold a data set that `save_to_disk` made.

    Raises:
        CorpusError: If there is none; the message lists what there is.
    """
    found = find_corpus(data, language, split)
    if found is None:
        wanted = Path(data, language, f"{split}.conll")
        raise CorpusError(f"no corpus at {wanted} (or .txt, .conllu, .iob2); {_neighbours(wanted)}")
    return found


def find_corpus(data: str | Path, language: str, split: str) -> Path | None:
    """As `corpus_path`, but None where there is no such file or folder."""
    folder = Path(data, language, split)
    candidates = (folder.with_name(split + suffix) for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), folder if folder.is_dir() else None)


def _format_of(source: str) -> str:
    if source.startswith(HUB_PREFIX) or split_source(source)[1] or Path(source).is_dir():
        return "dataset"
    suffix = Path(source).suffix.lower()
    if suffix not in SUFFIXES:
        _existing_file(source)
        raise CorpusError(
            f"{source}: the suffix {suffix!r} tells no format; known: {', '.join(SUFFIXES)}, folders of "
            f"`datasets` and hub:NAME; or set corpus.format to one of {', '.join(FORMATS)}"
        )
    return SUFFIXES[suffix]


def _at_least_one(sentences: Iterator[Sentence], source: str, name: str) -> Iterator[Sentence]:
    first = next(sentences, None)
    if first is None:
        raise CorpusError(f"{source}: no sentence in it; is it empty, or of another format than {name}?")
    yield first
    yield from sentences


def _existing_file(source: str) -> Path:
    path = Path(source)
    if path.is_dir():
        raise CorpusError(f"{path} is a folder; expected a file; it holds: {_listing(path, like=path.name)}")
    if not path.exists():
        raise CorpusError(f"no corpus at {path}; {_neighbours(path)}")
    return path


def _neighbours(path: Path) -> str:
    """What the nearest folder of this path that exists holds."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    return f"{folder} holds: {_listing(folder, like=path.relative_to(folder).parts[0])}"


def _listing(folder: Path, like: str) -> str:
    """Names of a folder, similar ones first."""
    names = sorted(entry.name for entry in folder.iterdir())
    similar = get_close_matches(like, names)
    listed = [*similar, *(name for name in names if name not in similar)][:N_LISTED]
    n_more = len(names) - len(listed)
    return (", ".join(listed) or "nothing") + (f" and {n_more:,} more" if n_more else "")


def _read_conll(source: str, options: ReadingOptions) -> Iterator[Sentence]:
    path = _existing_file(source)
    return read_conll(path, columns=options.columns, scheme=options.scheme, encoding=options.encoding)


def _read_text(source: str, options: ReadingOptions) -> Iterator[Sentence]:
    return _text_sentences(_existing_file(source), options)


def _text_sentences(path: Path, options: ReadingOptions) -> Iterator[Sentence]:
    for lines in read_lines(path, options.encoding):
        for line in lines:
            if words := options.split_line(line):
                yield Sentence(tuple(words))


def _read_dataset(source: str, options: ReadingOptions) -> Iterator[Sentence]:
    return read_dataset(source, scheme=options.scheme)


# A new format is one function above and one line here; recipes name it by its key.
FORMATS: dict[str, Callable[[str, ReadingOptions], Iterator[Sentence]]] = {
    "conll": _read_conll,
    "text": _read_text,
    "dataset": _read_dataset,
}
