"""brat standoff: `NAME.txt` with `NAME.ann` beside it, a sentence a line; typed spans alone are read.

Relations, events, attributes and notes are passed over.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from xlner.data.annotated_text import TextSpan, checked_text, tagged_words
from xlner.data.corpus_files import existing_file
from xlner.data.lines import read_chunks, read_lines
from xlner.data.located import Located, everywhere
from xlner.data.problems import CorpusProblem, Report
from xlner.data.schemes import visible_label
from xlner.errors import CorpusError
from xlner.splitting import WordOffsets
from xlner.text import Sentence


def read_brat(
    source: str, *, encoding: str, split_text: Callable[[str], WordOffsets], report: Report, ignores_tags: bool
) -> Iterator[Located]:
    """The sentences of a folder of such files (in the order of their names), or of one `.ann` or `.txt`.

    Raises:
        CorpusError: If one of the two files is missing.
    """
    path = Path(source)
    notes = sorted(path.glob("*.ann")) if path.is_dir() else [existing_file(source).with_suffix(".ann")]
    if not notes:
        raise CorpusError(f"{path}: no annotation in this folder; expected NAME.txt and NAME.ann")
    missing = [file for note in notes for file in (note, note.with_suffix(".txt")) if not file.is_file()]
    if missing:
        raise CorpusError(f"no file {missing[0]}; brat keeps NAME.txt and NAME.ann side by side")
    return (sentence for note in notes for sentence in _document(note, encoding, split_text, report, ignores_tags))


def _document(
    notes: Path, encoding: str, split_text: Callable[[str], WordOffsets], report: Report, ignores_tags: bool
) -> Iterator[Located]:
    path = notes.with_suffix(".txt")
    text = "".join(read_chunks(path, encoding, report))
    spans = [] if ignores_tags else sorted(_spans(notes, text, encoding, report), key=lambda span: span.start)
    start, n_seen = 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        end = start + len(line)
        here = []
        while n_seen < len(spans) and spans[n_seen].start <= end:
            label, first, last, place = spans[n_seen]
            here.append(TextSpan(label, first - start, last - start, place))
            n_seen += 1
        if words := split_text(line):
            place = f"{path}:{number}"
            clean = checked_text(line, place, report)
            if ignores_tags:
                sentence = Sentence(tuple([clean[first:last] for first, last in words]))
            else:
                sentence = tagged_words(clean, words, here, report)
            yield Located(sentence, everywhere(place))
        else:
            for label, first, last, place in here:
                message = f"the span {first + start} to {last + start} of type {label!r} holds no word"
                report(CorpusProblem("XL022", place, message, "the span is left out"))
        start = end + 1


def _spans(path: Path, text: str, encoding: str, report: Report) -> Iterator[TextSpan]:
    """The text-bound annotations (`T1<TAB>PER 0 5<TAB>words`) that lie within one line of the text."""
    for number, line in read_lines(path, encoding, report):
        if not line.startswith("T"):
            continue
        place = f"{path}:{number}"
        _, _, rest = line.partition("\t")
        description, _, covered = rest.partition("\t")
        label, _, ranges = description.partition(" ")
        try:
            bounds = [int(bound) for bound in ranges.replace(";", " ").split(" ")]
        except ValueError:
            bounds = []
        if reason := _unusable(text, bounds, covered):
            message = f"{reason}: {line[:80]!r}; expected 'T1<TAB>TYPE START END<TAB>TEXT'"
            report(CorpusProblem("XL025", place, message, "the annotation is left out"))
        else:
            yield TextSpan(visible_label(label), bounds[0], bounds[1], place)


def _unusable(text: str, bounds: Sequence[int], covered: str) -> str:
    """Why an annotation is no span of one line; empty if it is one."""
    if len(bounds) < 2 or len(bounds) % 2:
        return "no start and end"
    if len(bounds) > 2:
        return "a span of several parts, which tags cannot tell"
    start, end = bounds
    if not 0 <= start < end <= len(text):
        return f"a span outside the text of {len(text)} characters"
    if "\n" in text[start:end]:
        return "a span over the end of a line, and so of a sentence"
    if covered and text[start:end] != covered:
        return f"the text there is {text[start:end][:40]!r} (is NAME.txt another version, or does it have CRLF?)"
    return ""
