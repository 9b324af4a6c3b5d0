"""The command `xlner check-data`: what a corpus is made of, all that is wrong with it, and a repaired copy.

The status is 0 without errors, 1 with some (with `--strict` warnings count too), 2 if a file cannot be read at all.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlner.commands.advice import as_options, options_of
from xlner.errors import CorpusError

if TYPE_CHECKING:
    from xlner.data.alignment import WordEncoder
    from xlner.data.checks import CheckedCorpus
    from xlner.data.corpus import ReadingOptions


def check_data(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Corpora: files, folders, hub:NAME.")],
    encoder: Annotated[str, typer.Option(help="Encoder whose pieces are counted: a folder or hub name.")] = "",
    model: Annotated[str, typer.Option(help="Tagger whose types are compared, and whose pieces are counted.")] = "",
    columns: Annotated[str, typer.Option(help="Columns of word and tag: 1,2 or 0,-1 or FORM,NER.")] = "auto",
    format: Annotated[str, typer.Option(help="conll, text, jsonl, ... or auto: by the name.")] = "auto",
    encoding: Annotated[str, typer.Option(help="Character encoding of text files.")] = "utf-8",
    scheme: Annotated[str, typer.Option(help="auto, strict, or plain: types without prefixes.")] = "auto",
    labels: Annotated[str, typer.Option(help="What tags that are numbers mean: O,B-PER,I-PER,...")] = "",
    word_splitter: Annotated[str, typer.Option(help="How raw text becomes words.")] = "unicode",
    limit: Annotated[int, typer.Option(min=0, help="Problems of each code that are listed.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, not text.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors for the status.")] = False,
    fix: Annotated[str, typer.Option(help="Write a repaired copy here; for several files into this folder.")] = "",
    fix_duplicates: Annotated[
        bool, typer.Option("--fix-duplicates", help="Leave sentences out that stand twice in a file.")
    ] = False,
) -> None:
    """Look corpora through: counts, lengths, and problems with file and line, by the codes of docs/errors.md."""
    from xlner.data.check_report import report_json, report_lines
    from xlner.data.checks import CheckedCorpus, check_corpus
    from xlner.data.corpus import ReadingOptions
    from xlner.data.problems import WARNING
    from xlner.recipe import choose
    from xlner.splitting import WORD_SPLITTERS

    if fix_duplicates and not fix:
        raise CorpusError("--fix-duplicates needs --fix, which says where the repaired copy goes")
    copies = _copies(files, fix) if fix else []
    splitter = choose(WORD_SPLITTERS, word_splitter, "--word-splitter")
    options = ReadingOptions(columns, scheme, encoding, splitter, labels=labels)
    known_options = options_of(context.command)
    tokenizer, model_types = _encoder(encoder, model)
    checked: list[CheckedCorpus] = []
    for number, source in enumerate(files):
        others = [corpus.known for corpus in checked]
        found = check_corpus(
            source, format, options, limit=limit, others=others, encoder=tokenizer, model_types=model_types
        )
        checked.append(found)
        if not as_json:
            typer.echo(as_options("\n".join(report_lines(found)), known_options))
        if copies:
            lines = _repair(found, copies[number], format, options, fix_duplicates)
            typer.echo("\n".join([*lines, ""]), err=as_json)
    n_errors = sum(corpus.findings.total() for corpus in checked)
    n_warnings = sum(corpus.findings.total(WARNING) for corpus in checked)
    if as_json:
        content = {"files": list(map(report_json, checked)), "errors": n_errors, "warnings": n_warnings}
        typer.echo(as_options(json.dumps(content, indent=2, ensure_ascii=False), known_options))
    else:
        typer.echo("\n".join([*_overlaps(checked), f"{_plural(n_errors, 'error')}, {_plural(n_warnings, 'warning')}"]))
    if n_errors or (strict and n_warnings):
        raise typer.Exit(1)


def _copies(files: Sequence[str], fix: str) -> list[Path]:
    """Where the repaired copy of each file goes.

    Raises:
        CorpusError: If two would have one name, or a copy would replace what it is made of.
    """
    target = Path(fix)
    if len(files) == 1 and not target.is_dir():
        copies = [target]
    else:
        copies = [target / f"{Path(source.replace(':', '-')).stem}.conll" for source in files]
    twice = [str(path) for path, number in Counter(copies).items() if number > 1]
    if twice:
        raise CorpusError(f"--fix {fix}: several files would be named {twice[0]}; repair them one by one")
    for source, copy in zip(files, copies, strict=True):
        if Path(source).exists() and copy.exists() and os.path.samefile(source, copy):
            raise CorpusError(f"--fix {fix}: this is {source} itself; give the copy another name")
    return copies


def _encoder(encoder: str, model: str) -> "tuple[WordEncoder | None, tuple[str, ...] | None]":
    """What counts pieces, and the types that the model knows; None for what was not asked for."""
    if not encoder and not model:
        return None, None
    from xlner.data.alignment import WordEncoder, load_tokenizer
    from xlner.models.encoder import read_labels
    from xlner.models.folder import read_settings
    from xlner.students.settings import is_compact, read_student

    if model and is_compact(Path(model)):
        # It has no pieces of its own.
        counted = WordEncoder(load_tokenizer(encoder)) if encoder else None
        return counted, read_student(Path(model)).labels.types
    types = read_labels(model).types if model else None
    max_length = read_settings(model).max_length if model and not encoder else 0
    return WordEncoder(load_tokenizer(encoder or model), max_length or None), types


def _repair(
    found: "CheckedCorpus", copy: Path, format: str, options: "ReadingOptions", fix_duplicates: bool
) -> Iterator[str]:
    """Write the repaired copy; tells what was done."""
    from xlner.data.corpus import read_located
    from xlner.data.problems import CODES, CorpusProblem
    from xlner.data.repairs import write_repaired
    from xlner.text import Sentence

    def go_on(_: CorpusProblem) -> None:
        pass

    def read() -> Iterator[Sentence]:
        return (sentence for sentence, _ in read_located(found.source, format, options._replace(report=go_on)))

    n_written, repairs = write_repaired(read, copy, fix_duplicates=fix_duplicates)
    repairs += found.findings.repairs
    yield f"  repaired copy: {copy}: {n_written:,} sentences of {found.profile.n_sentences:,} that could be read"
    for (code, repair), number in sorted(repairs.items()):
        yield f"    {number:,} x {code} {CODES[code].title}: {repair}"
    if not repairs:
        yield "    nothing had to be repaired"


def _overlaps(checked: "Sequence[CheckedCorpus]") -> Iterator[str]:
    """A line for each two files that share sentences."""
    for corpus in checked:
        for source, number in corpus.n_shared.items():
            yield f"{_plural(number, 'sentence')} of {corpus.source} also in {source}"


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
