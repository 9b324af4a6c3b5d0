"""Text files of corpora: where they lie, their lines, and what can be wrong with them, by code.

A reader hands each problem to a `Report`. The usual one, `refuse`, raises it. A report that returns makes the reader go
on with the repair that the problem names: so one and the same reader reads strictly, lists all that is wrong
(`xlner check-data`), and repairs (`--fix`). docs/errors.md explains the codes.

A line ends at LF, CRLF, CR (and what broken programs make of CRLF: CR CR LF, LF CR), and at nothing else: a word may
hold U+2028 or U+0085, where `str.splitlines` would cut. A file whose lines all end at such a one is refused.
"""

import codecs
import os
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

from xlner.errors import CorpusError
from xlner.files import shipped
from xlner.words import Sentence

Part = TypeVar("Part")
Found = TypeVar("Found")

ERROR, WARNING = "error", "warning"


class Code(NamedTuple):
    """A kind of problem: errors stop a strict reader, warnings are told by `xlner check-data` alone."""

    severity: str
    title: str


class CorpusProblem(CorpusError):  # noqa: N818 - a CorpusError with a code and a place
    """One problem at one place."""

    def __init__(self, code: str, place: str, message: str, repair: str = "the sentence is left out") -> None:
        """Say what was found where, what was expected, the way out, and what reading on makes of it."""
        super().__init__(f"{place}: {message} [{code}]")
        self.code = code
        explained = shipped("docs/errors.md")
        self.hint = f"`xlner check-data FILE` lists all problems of a corpus; {explained} explains {code}"
        self.place = place
        self.message = message
        self.repair = repair


class LeftOut(Exception):  # noqa: N818 - it is a way out of a sentence, not an error
    """Ends the reading of a sentence whose problems were reported and cannot be repaired."""


Report = Callable[[CorpusProblem], None]


def refuse(problem: CorpusProblem) -> NoReturn:
    """The strict report: the first problem ends the reading."""
    raise problem


CODES: dict[str, Code] = {
    "XL001": Code(ERROR, "bytes that are not of this encoding"),
    "XL002": Code(ERROR, "a line too long to be one"),
    "XL003": Code(ERROR, "no end of a sentence for many lines"),
    "XL004": Code(ERROR, "no sentence in the file"),
    "XL005": Code(ERROR, "lines that end at what is no line end"),
    "XL010": Code(ERROR, "a row with another number of columns"),
    "XL011": Code(ERROR, "an empty word"),
    "XL012": Code(ERROR, "an unknown tag"),
    "XL013": Code(ERROR, "a tag that continues no entity"),
    "XL014": Code(ERROR, "words without a label beside words with one"),
    "XL015": Code(ERROR, "a tag where there is no word"),
    "XL016": Code(ERROR, "more or fewer tags than words"),
    "XL017": Code(WARNING, "a B- in a file of IOB1"),
    "XL020": Code(ERROR, "a record that is no JSON object"),
    "XL021": Code(ERROR, "a record without the fields that are needed"),
    "XL022": Code(ERROR, "a span outside its text"),
    "XL023": Code(ERROR, "spans that overlap"),
    "XL024": Code(ERROR, "a span that begins or ends inside a word"),
    "XL025": Code(ERROR, "an annotation that cannot be understood"),
    "XL026": Code(ERROR, "half a surrogate pair"),
    "XL030": Code(WARNING, "a word that nobody can see"),
    "XL031": Code(WARNING, "a word that begins with a byte order mark"),
    "XL032": Code(WARNING, "white space inside a word"),
    "XL033": Code(WARNING, "a control or zero-width character inside a word"),
    "XL034": Code(WARNING, "a character that was lost (U+FFFD)"),
    "XL035": Code(WARNING, "UTF-8 that was read as another encoding"),
    "XL036": Code(WARNING, "look-alike letters of two scripts in one word"),
    "XL040": Code(WARNING, "a sentence that stands twice in a file"),
    "XL041": Code(WARNING, "the same words with other tags"),
    "XL042": Code(WARNING, "a sentence that stands in another file too"),
    "XL043": Code(WARNING, "a type with few examples"),
    "XL044": Code(WARNING, "types that look alike"),
    "XL045": Code(WARNING, "sentences without labels beside sentences with labels"),
    "XL046": Code(WARNING, "numbers in the place of words"),
    "XL047": Code(WARNING, "a sentence that may be several"),
    "XL048": Code(WARNING, "sentences of one word each"),
    "XL050": Code(WARNING, "a word that the tokenizer makes nothing of"),
    "XL051": Code(WARNING, "a word that the encoder does not know at all"),
    "XL052": Code(WARNING, "a sentence longer than the encoder's window"),
    "XL053": Code(WARNING, "a type that the model lacks"),
    "XL054": Code(WARNING, "a type of the model that the corpus lacks"),
}


class Located(NamedTuple):
    """A sentence, and what gives the place (file and line, or the like) of its n-th word."""

    sentence: Sentence
    place: Callable[[int], str]


def everywhere(place: str) -> Callable[[int], str]:
    """One place for all words: that of a line which holds the whole sentence."""
    return lambda _: place


def by_word(place: str) -> Callable[[int], str]:
    """A place with the number of the word, from 1: `x.jsonl:3, word 2`."""
    return lambda position: f"{place}, word {position + 1}"


def each(records: Iterable[Part], read: Callable[[Part], Found | None]) -> Iterator[Found]:
    """What is read of each record; those that are left out, and those that hold nothing, are passed over."""
    for record in records:
        try:
            found = read(record)
        except LeftOut:
            continue
        if found is not None:
            yield found


CHUNK_SIZE = 1 << 18  # characters, or bytes in the search for a broken one
LONGEST_LINE = 1_000_000  # characters; a file without line ends would fill the memory
# Programs that translate CRLF once too often write CR CR LF; LF CR is the line end of some old systems.
_LINE_END = re.compile(r"\r\r?\n|\n\r(?!\n)|\r")
# What ends a line elsewhere, and is part of one here.
OTHER_LINE_ENDS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
FEWEST_LINE_ENDS = 3  # in a line that ends at LF, before they are taken for line ends
_OTHER_LINE_END = re.compile(f"[{OTHER_LINE_ENDS}]")
# The first bytes of files that are no text, and what to do with them.
_NO_TEXT = {
    b"\x1f\x8b": "compressed by gzip; unpack it, as in `gunzip -k FILE`",
    b"BZh91AY&": "compressed by bzip2; unpack it, as in `bunzip2 -k FILE`",
    b"\xfd7zXZ": "compressed by xz; unpack it, as in `unxz -k FILE`",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard; unpack it, as in `unzstd FILE`",
    b"PK\x03\x04": "a ZIP archive or an Office document; unpack it, or save the table as CSV",
    b"PAR1\x15": "Parquet; give it the suffix .parquet",
    b"%PDF-": "a PDF; extract its text first",
    b"\xd0\xcf\x11\xe0": "an Office document; save the table as CSV",
}
# What `surrogateescape` makes of bytes that do not decode.
_BROKEN = re.compile("[\udc80-\udcff]")


def read_chunks(path: Path, encoding: str, report: Report = refuse) -> Iterator[str]:
    """The text of a file in pieces that end at line ends, with LF alone as the line end.

    A `report` that returns gets each broken byte of UTF-8, which is then read as cp1252.

    Raises:
        CorpusError: If the file cannot be opened or decoded, or has a line longer than `LONGEST_LINE`.
    """
    rest, line = "", 1
    is_utf8 = is_utf_8(encoding)
    # Bytes are repaired in a second reading only: checking each chunk for them would slow down all others.
    errors = "surrogateescape" if is_utf8 and report is not refuse else "strict"
    try:
        with path.open(encoding="utf-8-sig" if is_utf8 else encoding, errors=errors, newline="") as file:
            while chunk := file.read(CHUNK_SIZE):
                # A line end of several characters stays in one chunk.
                while chunk[-1] in "\r\n" and (following := file.read(1)):
                    chunk += following
                if line == 1 and not rest:
                    _refuse_other_content(path, chunk, encoding)
                if "\r" in chunk:
                    chunk = _LINE_END.sub("\n", chunk)
                if errors != "strict" and not chunk.isascii():
                    chunk = _mend(chunk, path, line + rest.count("\n"), report)
                end = chunk.rfind("\n") + 1
                if not end:
                    rest += chunk
                    if len(rest) > LONGEST_LINE:
                        message = (
                            f"a line of more than {LONGEST_LINE:,} characters; expected one word or one sentence a line"
                        )
                        raise CorpusProblem("XL002", f"{path}:{line}", message)
                    continue
                text = rest + chunk[:end]
                rest = chunk[end:]
                yield text
                line += text.count("\n")
    except UnicodeError:
        raise CorpusProblem("XL001", *_undecodable(path, encoding)) from None
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be read: {problem.strerror}") from problem
    if rest:
        yield rest


def read_lines(path: Path, encoding: str, report: Report = refuse) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, from 1, and without their ends; otherwise as `read_chunks`."""
    return numbered(read_chunks(path, encoding, report))


def read_beginning(path: Path, encoding: str, report: Report) -> tuple[str, Iterator[str]]:
    """The first chunk of a file, and all of them, the first one included; otherwise as `read_chunks`."""
    chunks = read_chunks(path, encoding, report)
    first = next(chunks, "")
    return first, chain([first], chunks)


def numbered(chunks: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines of chunks with their numbers, from 1, and without their ends."""
    n_before = 0
    for text in chunks:
        lines = text.removesuffix("\n").split("\n")
        yield from enumerate(lines, n_before + 1)
        n_before += len(lines)


def refuse_other_line_ends(path: Path, beginning: str) -> None:
    """Refuse a file whose lines end at nothing that ends one here: all of it would be a single sentence.

    Raises:
        CorpusProblem: With what ends them.
    """
    text = beginning.strip(OTHER_LINE_ENDS + "\n ")
    found = None if "\n" in text else _OTHER_LINE_END.search(text)
    if found:
        number, name = text.count(found.group()), f"U+{ord(found.group()):04X}"
        if "\n" in beginning and number < FEWEST_LINE_ENDS:
            return
        message = (
            f"all of the file is one line, with {number:,} times {name} in it; lines end at LF, CRLF or CR: "
            f"replace {name} by LF"
        )
        raise CorpusProblem("XL005", str(path), message)


def other_content(beginning: bytes) -> str:
    """What a file is that is no text, with the way out; empty for text, and for what is not known."""
    return next((what for magic, what in _NO_TEXT.items() if beginning.startswith(magic)), "")


def likely_encoding(beginning: bytes, broken: int) -> str:
    """The encoding that a file probably has whose byte `broken` does not decode; `beginning` are its first two."""
    if beginning in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    # Bytes 0x80 to 0x9f are control characters in latin-1, but letters and quotes in cp1252.
    return "latin-1" if broken >= 0xA0 else "cp1252"


def is_utf_8(encoding: str) -> bool:
    """Whether this is a name of UTF-8.

    Raises:
        CorpusError: If it is the name of no encoding.
    """
    try:
        return codecs.lookup(encoding).name == "utf-8"
    except LookupError:
        raise CorpusError(f"corpus.encoding is {encoding!r}; expected one such as utf-8, latin-1 or cp1252") from None


def half_of_utf_16(text: str) -> str:
    """The kind of UTF-16 of text that was read as if each of its bytes were a character; else empty."""
    start = text[:1000]
    if start[:2] in ("\xff\xfe", "\xfe\xff", "\udcff\udcfe", "\udcfe\udcff"):
        return "utf-16"  # the mark tells which; the other names would take it for a character
    if len(start) < 2:
        return ""
    zeros = {name: start[place::2].count("\0") for name, place in (("utf-16-be", 0), ("utf-16-le", 1))}
    likely, other = sorted(zeros, key=lambda name: -zeros[name])
    # Packed files have zeros, too, but not in every other place.
    if zeros[likely] * 3 < len(start) or zeros[other] * 4 > zeros[likely]:
        return ""
    return likely


def _refuse_other_content(path: Path, beginning: str, encoding: str) -> None:
    if "\0" in beginning[:1000] and (likely := half_of_utf_16(beginning)):
        message = f"every other byte is zero; is the file {likely}? then set corpus.encoding={likely}"
        raise CorpusProblem("XL001", f"{path}:1", message)
    if what := other_content(beginning[:8].encode(encoding, "surrogateescape")):
        raise CorpusError(f"{path}: is no text but {what}")


def _mend(chunk: str, path: Path, line: int, report: Report) -> str:
    """The chunk with its broken bytes read as cp1252, each line that has some reported."""
    first_of_line = dict[int, int]()
    for match in _BROKEN.finditer(chunk):
        first_of_line.setdefault(chunk.count("\n", 0, match.start()), ord(match.group()) - 0xDC00)
    likely = likely_encoding(b"", min(first_of_line.values(), default=0))
    is_mixed = any(char > "\x7f" for char in _BROKEN.sub("", chunk)) if first_of_line else False
    way_out = (
        "other lines are, so this one is of another encoding than the file"
        if is_mixed
        else f"is the file {likely}? then set corpus.encoding={likely}"
    )
    for number, byte in first_of_line.items():
        message = f"byte 0x{byte:02x} is not utf-8; {way_out}"
        report(CorpusProblem("XL001", f"{path}:{line + number}", message, "such bytes are read as cp1252"))
    return _BROKEN.sub(_as_cp1252, chunk) if first_of_line else chunk


def _as_cp1252(match: re.Match[str]) -> str:
    byte = bytes([ord(match.group()) - 0xDC00])
    try:
        return byte.decode("cp1252")
    except UnicodeDecodeError:  # five bytes that cp1252 does not use
        return byte.decode("latin-1")


def _undecodable(path: Path, encoding: str) -> tuple[str, str]:
    """Where the bytes stop being text of this encoding, and which other encoding they may be of."""
    decoder = codecs.getincrementaldecoder(encoding)()
    n_bytes, line, chunk = 0, 1, b"?"
    with path.open("rb") as file:
        beginning = file.read(8)
        file.seek(0)
        while chunk:
            chunk = file.read(CHUNK_SIZE)
            n_pending = len(decoder.getstate()[0])
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as problem:
                before, byte = problem.object[: problem.start], problem.object[problem.start]
                found = f"byte 0x{byte:02x} at offset {n_bytes - n_pending + problem.start} is not {encoding}"
                likely = likely_encoding(beginning[:2], byte)
                what = other_content(beginning)
                convert = f"set corpus.encoding={likely}, or convert it: iconv -f {likely} -t utf-8"
                way_out = f"the file is {what}" if what else f"is the file {likely}? then {convert}"
                return f"{path}:{line + before.count(10)}", f"{found}; {way_out}"
            except UnicodeError:
                break
            n_bytes += len(chunk)
    return str(path), f"the file is not {encoding}; set corpus.encoding to its encoding"


# What a file is by its suffix; in a folder of corpora, `find_corpus` takes the first of these that is there.
SUFFIXES = {
    ".conll": "conll",
    ".txt": "text",
    ".conllu": "conll",
    ".conllup": "conll",
    ".iob2": "conll",
    ".iob": "conll",
    ".bio": "conll",
    ".tsv": "conll",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".spacy": "docbin",
    ".csv": "csv",
    ".json": "json",
    ".ann": "brat",
}
N_LISTED = 12  # names that a message lists at most


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


def text_path(text: str, data: str | Path, language: str) -> Path:
    """Where an unlabelled text is: where `text` says, or if that is empty, the `train` of a language.

    Raises:
        CorpusError: If it is not there.
    """
    if not text:
        return corpus_path(data, language, "train")
    return existing_text(text)


def existing_text(source: str) -> Path:
    """The path, if a file or a folder is there.

    Raises:
        CorpusError: If not; the message lists what there is.
    """
    return Path(source) if os.path.isdir(source) else existing_file(source)


def find_corpus(data: str | Path, language: str, split: str) -> Path | None:
    """As `corpus_path`, but None where there is no such file or folder."""
    folder = Path(data, language, split)
    candidates = (folder.with_name(split + suffix) for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), folder if folder.is_dir() else None)


def existing_file(source: str) -> Path:
    """The path, if a file is there.

    Raises:
        CorpusError: If not; the message lists what there is.
    """
    path = Path(source)
    if os.path.isdir(path):  # which has an answer for names that are too long, too
        raise CorpusError(f"{path} is a folder; expected a file; it holds: {_listing(path, like=path.name)}")
    if not os.path.exists(path):
        raise CorpusError(f"no corpus at {path}; {_neighbours(path)}")
    return path


def _neighbours(path: Path) -> str:
    """What the nearest folder of this path that exists holds."""
    folder = next(parent for parent in path.parents if os.path.isdir(parent))
    return f"{folder} holds: {_listing(folder, like=path.relative_to(folder).parts[0])}"


def _listing(folder: Path, like: str) -> str:
    """Names of a folder, similar ones first."""
    names = sorted(entry.name for entry in folder.iterdir())
    similar = get_close_matches(like, names)
    listed = [*similar, *(name for name in names if name not in similar)][:N_LISTED]
    n_more = len(names) - len(listed)
    return (", ".join(listed) or "nothing") + (f" and {n_more:,} more" if n_more else "")
