"""Corpora of any format as a stream of sentences; files of translations."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from xlner.config.load import choose
from xlner.corpora.columns import look_like_tags, parse_columns
from xlner.corpora.conll import read_conll
from xlner.corpora.docbin import read_docbin
from xlner.corpora.hf_datasets import HUB_PREFIX, read_dataset, read_parquet, split_source
from xlner.corpora.json_records import read_jsonl
from xlner.corpora.lines import SUFFIXES, existing_file, read_chunks, read_lines, refuse_other_line_ends
from xlner.corpora.problems import CorpusProblem, Located, Report, everywhere, refuse
from xlner.corpora.schemes import IGNORE, TagReader
from xlner.corpora.spans import read_brat
from xlner.corpora.tables import read_csv
from xlner.errors import CorpusError, is_visible
from xlner.tags import OUTSIDE, to_iob2
from xlner.words import Sentence, WordOffsets

# Corpora of any format as a stream of sentences.
#
# Reading holds no more than a few sentences at a time. Tags come out as clean IOB2, whatever the file holds.


SplitText = Callable[[str], WordOffsets]
_WORD = re.compile(r"[^ \t]+")
N_SAMPLED = 200  # lines of a text that are looked at, lest they are columns


def split_at_blanks(text: str) -> WordOffsets:
    """The words of a line that is already split: ASCII white space alone separates them."""
    return [match.span() for match in _WORD.finditer(text)]


class ReadingOptions(NamedTuple):
    """The arguments of `read_corpus`, for the readers of the formats; each takes those that it needs."""

    columns: str | tuple[int, int] = "auto"
    scheme: str = "auto"
    encoding: str = "utf-8"
    split_text: SplitText = split_at_blanks
    report: Report = refuse
    labels: str = ""

    def tag_reader(self) -> TagReader:
        """What reads the tags of one corpus."""
        return TagReader(self.scheme, self.report, self.labels)


def read_corpus(
    path: str | Path,
    *,
    format: str = "auto",
    columns: str | tuple[int, int] = "auto",
    scheme: str = "auto",
    encoding: str = "utf-8",
    split_text: SplitText = split_at_blanks,
    labels: str = "",
) -> Iterator[Sentence]:
    """The sentences of a corpus, one after the other, without reading it whole.

    Options and the path are checked at once, the contents as they are read.

    Args:
        path: A file; a folder of brat files; a folder made by `save_to_disk` of `datasets`, as `FOLDER` or
            `FOLDER:SPLIT`; or a data set of the hub, as `hub:NAME`, `hub:NAME:SPLIT` or, with a
            configuration, `hub:OWNER/NAME/CONFIGURATION:SPLIT`.
        format: A key of `FORMATS`, or `auto`: by the suffix.
        columns: `auto`, or the columns of word and tag, from 0 or (below 0) from the end or by name, as in `0,-1`,
            `FORM,NER` or (a key of CoNLL-U's last column) `FORM,MISC:NER`; one alone reads words without tags.
            Records and data sets have fields in their place, by name.
        scheme: `auto` reads IOB1, IOB2, BIOES, BILOU and broken sequences as conlleval does; `strict` refuses
            an `I-X` that does not continue an X; `plain` reads types without prefixes; `ignore` reads no labels,
            and finds no fault with them.
        encoding: Of text files. A byte order mark at the start of UTF-8 is dropped.
        split_text: Formats text, jsonl and brat: where the words of a text are, as `split_words` tells; lines
            without words are skipped.
        labels: The tags that numbers stand for, in the order of the numbers from 0 on: `O,B-PER,I-PER`.

    Raises:
        CorpusError: If there is none, it holds no sentence, or at the first place that does not fit.
        RecipeError: If there is no such format.
    """
    options = ReadingOptions(columns, scheme, encoding, split_text, labels=labels)
    return (sentence for sentence, _ in read_located(path, format, options))


def read_located(path: str | Path, format: str, options: ReadingOptions) -> Iterator[Located]:
    """As `read_corpus`, each sentence with its place, and problems handed to `options.report`."""
    source = str(path)
    name = _format_of(source) if format == "auto" else format
    read = choose(FORMATS, name, "corpus.format")
    return _at_least_one(_with_visible_tags(read(source, options), options.report), source, name, options.report)


def _format_of(source: str) -> str:
    if source.startswith(HUB_PREFIX) or split_source(source)[1]:
        return "dataset"
    if Path(source).is_dir():
        return "brat" if any(Path(source).glob("*.ann")) else "dataset"
    suffix = Path(source).suffix.lower()
    if suffix not in SUFFIXES:
        existing_file(source)
        raise CorpusError(
            f"{source}: the suffix {suffix!r} tells no format; known: {', '.join(SUFFIXES)}, folders of "
            f"`datasets` or brat, and hub:NAME; or set corpus.format to one of {', '.join(FORMATS)}"
        )
    return SUFFIXES[suffix]


def _at_least_one(sentences: Iterator[Located], source: str, name: str, report: Report) -> Iterator[Located]:
    first = next(sentences, None)
    if first is None:
        message = f"no sentence in it; is it empty, or of another format than {name}?"
        report(CorpusProblem("XL004", source, message, "nothing is read"))
        return
    yield first
    yield from sentences


def _with_visible_tags(sentences: Iterator[Located], report: Report) -> Iterator[Located]:
    """The sentences, tags with control characters reported: they would act on terminals and break columns."""
    seen: set[str] = set()
    for sentence, place in sentences:
        tags = sentence.tags or ()
        if not seen.issuperset(tags):
            for position, tag in enumerate(tags):
                if not is_visible(tag):
                    message = f"found tag {tag!a}; expected no control characters, TABs or line ends in it"
                    report(CorpusProblem("XL012", place(position), message, "read as O"))
            tags = to_iob2([tag if is_visible(tag) else OUTSIDE for tag in tags])
            seen.update(set(tags) & set(sentence.tags or ()))
            sentence = Sentence(sentence.words, tags)
        yield Located(sentence, place)


def _read_conll(source: str, options: ReadingOptions) -> Iterator[Located]:
    return read_conll(
        existing_file(source),
        columns=options.columns,
        tag_reader=options.tag_reader(),
        encoding=options.encoding,
        split_text=options.split_text,
        report=options.report,
    )


def _read_csv(source: str, options: ReadingOptions) -> Iterator[Located]:
    return read_csv(
        existing_file(source),
        wanted=parse_columns(options.columns),
        tag_reader=options.tag_reader(),
        encoding=options.encoding,
        split_text=options.split_text,
        report=options.report,
    )


def _read_text(source: str, options: ReadingOptions) -> Iterator[Located]:
    return _text_sentences(existing_file(source), options)


def _text_sentences(path: Path, options: ReadingOptions) -> Iterator[Located]:
    n_before, is_first = 0, True
    for chunk in read_chunks(path, options.encoding, options.report):
        if is_first:
            refuse_other_line_ends(path, chunk)
            _refuse_columns(path, chunk)
            is_first = False
        lines = chunk.removesuffix("\n").split("\n")
        for number, line in enumerate(lines, n_before + 1):
            if words := options.split_text(line):
                sentence = Sentence(tuple([line[start:end] for start, end in words]))
                yield Located(sentence, everywhere(f"{path}:{number}"))
        n_before += len(lines)


def _refuse_columns(path: Path, beginning: str) -> None:
    """Refuse columns of words and tags, of which each row would be a sentence."""
    rows = [line.split() for line in beginning.split("\n", N_SAMPLED)[:N_SAMPLED] if line.strip()]
    is_of_columns = len(rows) > 1 and len({len(row) for row in rows[:-1]} - {1}) == 1 and len(rows[0]) > 1
    if is_of_columns and look_like_tags(row[-1] for row in rows[:-1]):
        raise CorpusError(
            f"{path}: expected a sentence a line, found words and tags in columns: {' '.join(rows[0])[:60]!r}; set "
            "corpus.format=conll"
        )


def _read_jsonl(source: str, options: ReadingOptions) -> Iterator[Located]:
    return read_jsonl(
        existing_file(source),
        wanted=parse_columns(options.columns),
        tag_reader=options.tag_reader(),
        encoding=options.encoding,
        split_text=options.split_text,
        report=options.report,
    )


def _read_brat(source: str, options: ReadingOptions) -> Iterator[Located]:
    return read_brat(
        source,
        encoding=options.encoding,
        split_text=options.split_text,
        report=options.report,
        ignores_tags=options.scheme == IGNORE,
    )


def _read_docbin(source: str, options: ReadingOptions) -> Iterator[Located]:
    scheme = IGNORE if options.scheme == IGNORE else "auto"
    return read_docbin(existing_file(source), tag_reader=TagReader(scheme, options.report))


def _read_parquet(source: str, options: ReadingOptions) -> Iterator[Located]:
    return read_parquet(
        existing_file(source),
        wanted=parse_columns(options.columns),
        tag_reader=options.tag_reader(),
        split_text=options.split_text,
        report=options.report,
    )


def _read_dataset(source: str, options: ReadingOptions) -> Iterator[Located]:
    return read_dataset(
        source,
        wanted=parse_columns(options.columns),
        tag_reader=options.tag_reader(),
        split_text=options.split_text,
        report=options.report,
    )


# A new format is one function above and one line here; recipes name it by its key.
FORMATS: dict[str, Callable[[str, ReadingOptions], Iterator[Located]]] = {
    "conll": _read_conll,
    "text": _read_text,
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "json": _read_jsonl,
    "brat": _read_brat,
    "docbin": _read_docbin,
    "parquet": _read_parquet,
    "dataset": _read_dataset,
}


# Files of translations: a sentence, a TAB and its translation on each line.


def read_pairs(path: str, encoding: str, split_text: SplitText) -> Iterator[tuple[Sentence, Sentence]]:
    """The translations of a file, in order; empty lines are skipped.

    Args:
        path: The file.
        encoding: Of the file.
        split_text: Where the words of a text are, as `split_words` tells.

    Raises:
        CorpusError: If there is no such file, or at the first line that is no pair.
    """
    n_pairs = 0
    for number, line in read_lines(existing_file(path), encoding):
        if not line.strip():
            continue
        texts = line.split("\t")
        sides = [Sentence(tuple(text[start:end] for start, end in split_text(text))) for text in texts]
        if len(sides) != 2 or not all(side.words for side in sides):
            found = f"{len(texts)} columns" if len(texts) != 2 else "an empty one"
            raise CorpusError(
                f'{path}:{number}: expected "SENTENCE<TAB>TRANSLATION", found {found}: {line[:60]!r}; '
                "remove the line, or cut the columns that are too many"
            )
        n_pairs += 1
        yield sides[0], sides[1]
    if not n_pairs:
        raise CorpusError(f"{path}: expected translations, found no line with text; leave out parallel=, or fill it")
