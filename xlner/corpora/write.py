"""Corpora written in any format, so that reading gives back the very same sentences.

What a format cannot hold is refused with the place, never changed in silence. A file or folder appears whole or
not at all.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from xlner.arrow_files import in_blocks
from xlner.config.load import choose
from xlner.corpora.conll import DOCUMENT_START
from xlner.corpora.lines import SUFFIXES
from xlner.corpora.spans import UNLABELLED, write_tags
from xlner.corpora.stored import docbin_bytes
from xlner.errors import CorpusError, has_half_characters
from xlner.files import replaced
from xlner.tags import Span, spans_of
from xlner.words import Sentence, WordOffsets

ROWS_PER_GROUP = 1000  # sentences of a Parquet row group
N_AHEAD = 10_000  # sentences without tags that are held back until it is known whether some have tags


def write_corpus(sentences: Iterable[Sentence], path: Path, *, format: str = "auto", scheme: str = "iob2") -> None:
    """Write sentences, one after the other, as they come.

    Args:
        sentences: Any number of them; a file may hold some without tags beside some with.
        path: The file, or (format dataset) the folder; what is there is replaced when all is written.
        format: A key of `WRITERS`, or `auto`: by the suffix; without a suffix a `dataset`.
        scheme: Of the tags; formats with spans (`spans`, `docbin`) have no use for it.

    Raises:
        CorpusError: If a sentence cannot be written so that it is read back as it is.
        RunError: If the disk refuses.
        RecipeError: If there is no such format.
    """
    write = choose(WRITERS, format_of(path, format), "format to write")
    write(_checked(sentences, path, scheme), path)


def format_of(path: Path, format: str = "auto") -> str:
    """The format that is asked for, or (`auto`) that the suffix tells; without a suffix `dataset`.

    Raises:
        CorpusError: If the suffix tells none.
    """
    if format != "auto":
        return format
    suffix = path.suffix.lower()
    if not suffix:
        return "dataset"
    if suffix in WRITTEN_SUFFIXES:
        return WRITTEN_SUFFIXES[suffix]
    raise CorpusError(
        f"{path}: the suffix {suffix!r} tells no format to write; known: {', '.join(WRITTEN_SUFFIXES)}, or none for a "
        f"folder of `datasets`; or name one: {', '.join(WRITERS)}"
    )


def _checked(sentences: Iterable[Sentence], path: Path, scheme: str) -> Iterator[Sentence]:
    """The sentences with their tags in the scheme, what no format holds refused."""
    for number, (words, tags) in enumerate(sentences, 1):
        place = f"{path}: sentence {number}"
        if not words or (tags is not None and len(tags) != len(words)):
            raise CorpusError(f"{place} has {len(words)} words and {len(tags or ())} tags; expected one tag a word")
        for word in words:
            if not word:
                raise CorpusError(f"{place}: the word '' is empty; it could not be read back")
            if has_half_characters(word):
                raise CorpusError(f"{place}: the word {word!a} holds half a surrogate pair, which is no character")
        yield Sentence(words, tags if tags is None or scheme == "iob2" else write_tags(tags, scheme))


def write_lines(blocks: Iterable[str], path: Path) -> None:
    """Write text, piece by piece; the file appears whole or not at all."""
    with replaced(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(blocks)


def _text_lines(sentences: Iterable[Sentence], path: Path) -> Iterator[str]:
    """Words with a space between; tags have no place here, which the caller knows."""
    for number, (words, _) in enumerate(sentences, 1):
        broken = [word for word in words if any(char in " \t\n\r" for char in word)]
        if broken:
            raise CorpusError(f"{path}: sentence {number}: the word {broken[0]!r} holds a space or line end")
        if number == 1 and words[0].startswith("\ufeff"):
            raise CorpusError(f"{path}: the first word begins with a byte order mark (U+FEFF); remove it")
        yield " ".join(words) + "\n"


def _record_of_words(sentence: Sentence) -> str:
    fields = {"words": sentence.words} | ({} if sentence.tags is None else {"tags": sentence.tags})
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _record_of_spans(sentence: Sentence) -> str:
    offsets, end = [], -1
    for word in sentence.words:
        offsets.append((end + 1, end + 1 + len(word)))
        end = offsets[-1][1]
    spans = None if sentence.tags is None else spans_of(sentence.tags)
    return json.dumps(record_of_spans(" ".join(sentence.words), offsets, spans), ensure_ascii=False) + "\n"


def record_of_spans(text: str, words: WordOffsets, spans: Iterable[Span] | None) -> dict[str, object]:
    """A text in Prodigy's form: its tokens, and its spans in characters and tokens; no spans where nobody looked."""
    tokens = [
        {"text": text[start:end], "start": start, "end": end, "id": number, "ws": text[end : end + 1].isspace()}
        for number, (start, end) in enumerate(words)
    ]
    fields: dict[str, object] = {"text": text, "tokens": tokens}
    if spans is not None:
        fields["spans"] = [
            {
                "start": words[start][0],
                "end": words[end - 1][1],
                "token_start": start,
                "token_end": end - 1,
                "label": label,
            }
            for label, start, end in spans
        ]
    return fields


def _write_docbin(sentences: Iterable[Sentence], path: Path) -> None:
    content = docbin_bytes(sentences)
    with replaced(path) as unfinished:
        unfinished.write_bytes(content)


def _write_parquet(sentences: Iterable[Sentence], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(
        [("tokens", pyarrow.list_(pyarrow.string())), ("ner_tags", pyarrow.list_(pyarrow.string()))]
    )
    with replaced(path) as unfinished, parquet.ParquetWriter(unfinished, schema) as file:
        for rows in in_blocks(sentences, ROWS_PER_GROUP):
            columns = [[sentence.words for sentence in rows], [sentence.tags for sentence in rows]]
            file.write_table(pyarrow.table(columns, schema=schema))


def _write_dataset(sentences: Iterable[Sentence], path: Path) -> None:
    from datasets import Dataset, Features, List, Value

    def check(folder: Path) -> None:
        if any(folder.iterdir()) and not (folder / "dataset_info.json").is_file():
            raise CorpusError(f"{folder} holds other things than a data set; give another folder, or an empty one")

    # As Parquet first: the table then lies on the disk and not in memory.
    with replaced(path, check) as unfinished:
        parquet_file = unfinished.with_name(unfinished.name + ".parquet")
        cache = unfinished.with_name(unfinished.name + ".cache")
        try:
            _write_parquet(sentences, parquet_file)
            features = Features({"tokens": List(Value("string")), "ner_tags": List(Value("string"))})
            Dataset.from_parquet(str(parquet_file), features=features, cache_dir=str(cache)).save_to_disk(unfinished)
        finally:
            parquet_file.unlink(missing_ok=True)
            shutil.rmtree(cache, ignore_errors=True)


def conll_blocks(sentences: Iterable[Sentence], path: Path) -> Iterator[str]:
    """Word and tag separated by a TAB, or words alone if none of the first `N_AHEAD` sentences has tags.

    In a file with tags, the words of a sentence without get `_`.

    Args:
        sentences: With as many tags as words, none of them empty.
        path: Names the file in messages.

    Raises:
        CorpusError: If a word or a tag could not be read back as it is (with a TAB or line end, ...), or if sentences
            with tags follow too many without.
    """
    stream = iter(sentences)
    beginning: list[Sentence] = []
    has_tags = False
    while not has_tags and len(beginning) < N_AHEAD and (sentence := next(stream, None)):
        beginning.append(sentence)
        has_tags = sentence.tags is not None
    for number, (words, tags) in enumerate(chain(beginning, stream), 1):
        place = f"{path}: sentence {number}"
        if number == 1 and words[0].startswith("\ufeff"):
            raise CorpusError(f"{place}: the first word begins with a byte order mark (U+FEFF); remove it")
        if tags is not None and not has_tags:
            raise CorpusError(
                f"{place} has tags, unlike the {number - 1:,} before; write another format, such as .jsonl, or move a "
                "sentence with tags to the beginning"
            )
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


# A new format to write is one function above and one line here.
WRITERS: dict[str, Callable[[Iterable[Sentence], Path], None]] = {
    "conll": lambda sentences, path: write_lines(conll_blocks(sentences, path), path),
    "conllu": lambda sentences, path: write_lines(conllu_blocks(sentences, path, is_plus=False), path),
    "conllup": lambda sentences, path: write_lines(conllu_blocks(sentences, path, is_plus=True), path),
    "jsonl": lambda sentences, path: write_lines(map(_record_of_words, sentences), path),
    "spans": lambda sentences, path: write_lines(map(_record_of_spans, sentences), path),
    "text": lambda sentences, path: write_lines(_text_lines(sentences, path), path),
    "parquet": _write_parquet,
    "dataset": _write_dataset,
    "docbin": _write_docbin,
}
WRITTEN_SUFFIXES = {suffix: name for suffix, name in SUFFIXES.items() if name in WRITERS} | {
    ".conllu": "conllu",
    ".conllup": "conllup",
}
