"""Commands on corpora and raw text: check-data, convert, select, project.

What is slow to import is imported by the command that needs it. A parameter of a command is an option, which typer
reads from its signature: that is why commands have many, and some are long.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from xlner.commands.options import Columns, Device, Labels, Scheme, WordSplitter, as_options, options_of
from xlner.errors import CorpusError, StoppedError, exit_status, sigterm_as_ctrl_c

if TYPE_CHECKING:
    from xlner.corpora.spans import ReadingOptions
    from xlner.encode import WordEncoder
    from xlner.lint.check import CheckedCorpus

# The command `xlner check-data`: what a corpus is made of, all that is wrong with it, and a repaired copy.
#
# The status is 0 without errors, 1 with some (with `--strict` warnings count too), 2 if a file cannot be read at all.


def check_data(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Corpora: files, folders, hub:NAME.")],
    encoder: Annotated[str, typer.Option(help="Encoder whose pieces are counted: a folder or hub name.")] = "",
    model: Annotated[str, typer.Option(help="Tagger whose types are compared, and whose pieces are counted.")] = "",
    columns: Annotated[str, typer.Option(help="Columns of word and tag: 1,2 or 0,-1 or FORM,NER.")] = "auto",
    format: Annotated[str, typer.Option(help="conll, text, jsonl, ... or auto: by the name.")] = "auto",
    encoding: Annotated[str, typer.Option(help="Character encoding of text files.")] = "utf-8",
    scheme: Scheme = "auto",
    labels: Labels = "",
    word_splitter: WordSplitter = "unicode",
    limit: Annotated[int, typer.Option(min=0, help="Problems of each code that are listed.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, not text.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors for the status.")] = False,
    fix: Annotated[str, typer.Option(help="Write a repaired copy here; for several files into this folder.")] = "",
    fix_duplicates: Annotated[
        bool, typer.Option("--fix-duplicates", help="Leave sentences out that stand twice in a file.")
    ] = False,
) -> None:
    """Look corpora through: counts, lengths, and problems with file and line, by the codes of docs/errors.md."""
    from xlner.config.load import choose
    from xlner.corpora.lines import WARNING
    from xlner.corpora.spans import ReadingOptions
    from xlner.lint.check import CheckedCorpus, check_corpus, report_json, report_lines
    from xlner.words import WORD_SPLITTERS

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
        CorpusError: If two would have one name, a name tells another format, or a copy would replace its source.
    """
    from xlner.corpora.lines import SUFFIXES
    from xlner.files import check_writable, refuse_own_input

    target = Path(fix)
    if len(files) == 1 and not target.is_dir():
        if (format := SUFFIXES.get(target.suffix.lower(), "conll")) != "conll":
            raise CorpusError(
                f"--fix {fix}: the copy is CoNLL, and this name says {format}; name it .conll, and `xlner convert` "
                "makes another format of it"
            )
        copies = [target]
    else:
        copies = [target / f"{Path(source.replace(':', '-')).stem}.conll" for source in files]
    twice = [str(path) for path, number in Counter(copies).items() if number > 1]
    if twice:
        raise CorpusError(f"--fix {fix}: several files would be named {twice[0]}; repair them one by one")
    for source, copy in zip(files, copies, strict=True):
        refuse_own_input(copy, [source], "--fix")
        check_writable(copy)
    return copies


def _encoder(encoder: str, model: str) -> "tuple[WordEncoder | None, tuple[str, ...] | None]":
    """What counts pieces, and the types that the model knows; None for what was not asked for."""
    if not encoder and not model:
        return None, None
    from xlner.encode import WordEncoder, load_tokenizer
    from xlner.models.folder import read_settings
    from xlner.models.settings import is_compact, read_student
    from xlner.models.token_classifier import read_labels

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
    from xlner.corpora.lines import CODES, CorpusProblem
    from xlner.corpora.source import read_located
    from xlner.lint.repair import write_repaired
    from xlner.words import Sentence

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


# `xlner convert`: a corpus of any format in any other.


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="File, folder, or hub:NAME:SPLIT.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File, or folder of `datasets` (no suffix).")],
    from_format: Annotated[
        str,
        typer.Option(
            "--from", help="conll, text, csv, jsonl, json, brat, docbin, parquet, dataset; auto: by the name."
        ),
    ] = "auto",
    to_format: Annotated[
        str,
        typer.Option(
            "--to", help="conll, conllu, conllup, jsonl, spans, text, parquet, dataset, docbin; auto: by the name."
        ),
    ] = "auto",
    columns: Columns = "auto",
    scheme: Annotated[str, typer.Option(help="Tags read: auto, strict, or plain (types without prefixes).")] = "auto",
    to_scheme: Annotated[str, typer.Option(help="Tags written: iob2, iob1, bioes, bilou, plain.")] = "iob2",
    encoding: Annotated[str, typer.Option(help="Character encoding of the source; UTF-8 is written.")] = "utf-8",
    labels: Labels = "",
    word_splitter: WordSplitter = "unicode",
) -> None:
    """Convert a corpus; sentences stream through, and come out as they went in or not at all."""
    from tqdm import tqdm

    from xlner.config.load import choose
    from xlner.corpora.source import read_corpus
    from xlner.corpora.splits import CorpusTally
    from xlner.corpora.write import format_of, write_corpus
    from xlner.files import refuse_own_input
    from xlner.words import WORD_SPLITTERS

    split = choose(WORD_SPLITTERS, word_splitter, "--word-splitter")
    refuse_own_input(target, [source], "OUT")
    sentences = read_corpus(
        source,
        format=from_format,
        columns=columns,
        scheme=scheme,
        encoding=encoding,
        split_text=split,
        labels=labels,
    )
    tally = CorpusTally()
    with tqdm(sentences, unit=" sentences", disable=None, dynamic_ncols=True) as bar:
        write_corpus(tally.over(bar), target, format=to_format, scheme=to_scheme)
    found = tally.summary()
    n_entities = sum(found.entities.values())
    if n_entities and format_of(target, to_format) == "text":
        typer.echo(f"{target}: text has no place for labels; {n_entities:,} entities are left out", err=True)
    typer.echo(
        f"{target}: {found.sentences:,} sentences, {found.words:,} words, {n_entities:,} entities; "
        f"fingerprint {found.fingerprint}"
    )


# `xlner select`: what an annotator should look at first, as a file that an annotation tool imports.


def select(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Raw text, a sentence a line; - is the input.")],
    model: Annotated[str, typer.Option(help="Model folder such as runs/de/model, or hub name.")],
    n: Annotated[int, typer.Option(min=1, help="Sentences to select.")] = 100,
    to: Annotated[str, typer.Option(help="Tool to import it: prodigy, labelstudio, doccano; or xlner.")] = "xlner",
    out: Annotated[Path | None, typer.Option(help="File for the output. Default: stdout.")] = None,
    done: Annotated[
        list[str] | None, typer.Option(metavar="CORPUS", help="Sentences that are annotated already; several times.")
    ] = None,
    from_format: Annotated[
        str, typer.Option("--from", help="text, jsonl, json, conll, csv, parquet; auto: by the name, else text.")
    ] = "auto",
    encoding: Annotated[
        str, typer.Option(help="Character encoding of the text, and of what is done if not UTF-8; UTF-8 is written.")
    ] = "utf-8",
    device: Device = "cpu",
) -> None:
    """Select the sentences that would teach a model most, tagged by it, for an annotator to correct."""
    from tqdm import tqdm

    from xlner.config.load import choose
    from xlner.corpora.lines import refuse
    from xlner.files import refuse_own_input, replaced
    from xlner.select import SHAPES, as_text, done_sentences, select_sentences
    from xlner.tag_files.records import InputOptions, check_input, input_format, read_records
    from xlner.tagger import load_tagger

    choose(SHAPES, to, "--to")
    inputs = [(name, input_format(name, from_format)) for name in files]
    for name, format in inputs:
        check_input(name, format)
    if out is not None:
        refuse_own_input(out, [*files, *(done or ())], "--out")
    # Read and opened first, so that what is wrong is told before a model is loaded and before the work.
    known = [words for name in done or () for words in done_sentences(name, encoding)]
    with ExitStack() as opened:
        file: TextIO | None = None
        if out is not None:
            opened.enter_context(_can_be_stopped(out))
            file = opened.enter_context(opened.enter_context(replaced(out)).open("w", encoding="utf-8"))
        tagger = load_tagger(model, device=device)
        reading = InputOptions(refuse, encoding)
        records = chain.from_iterable(read_records(name, format, reading) for name, format in inputs)
        with tqdm(records, unit=" sentences", disable=None, dynamic_ncols=True) as bar:
            found = select_sentences(tagger, bar, n, known)
        content = as_text(found, to, tagger.types, Path(model).parent.name if Path(model).name == "model" else model)
        if file is None:
            typer.echo(content, nl=False)
        else:
            file.write(content)
    n_entities = sum(len(record.spans) for record in found)
    fewer = f"; the text has no more that differ (--n {n})" if len(found) < n else ""
    where = f"{out}: " if out is not None else ""
    typer.echo(f"{where}{len(found):,} sentences with {n_entities:,} entities to correct{fewer}", err=True)


# `xlner project`: labels carried over to translations.


SHOWN = 100  # pairs on the page of `project --show`


def project(
    source_model: Annotated[str, typer.Option(help="Model folder or hub name that tags the first column.")],
    parallel: Annotated[Path, typer.Option(metavar="FILE", help="SENTENCE<TAB>TRANSLATION on each line.")],
    out: Annotated[Path, typer.Option(help="Annotation file to write, such as de.jsonl; a summary goes beside it.")],
    encoder: Annotated[
        str, typer.Option(help="Whose hidden states align the words; default: those of the model itself.")
    ] = "",
    layer: Annotated[int, typer.Option(min=0, help="Of these hidden states, from 1; 0: the middle one.")] = 0,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Links between words of a lower score carry no entity.")
    ] = 0.4,
    max_pairs: Annotated[int, typer.Option(min=0, help="Read only so many pairs; 0: all.")] = 0,
    encoding: Annotated[str, typer.Option(help="Character encoding of the pairs; UTF-8 is written.")] = "utf-8",
    show: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Page to write: the first pairs, with lines between words.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Carry entities over to translations: annotations that teach a student, alone or beside a model."""
    from tqdm import tqdm

    from xlner.corpora.lines import existing_file
    from xlner.corpora.source import read_pairs
    from xlner.files import is_special, refuse_own_input, replaced, to_json
    from xlner.soft_labels.parallel import MAX_WORDS, Projection, links_page, open_reader
    from xlner.tagger import load_tagger
    from xlner.words import WORD_SPLITTERS, unicode_words

    if out.suffix != ".jsonl":
        raise CorpusError(f"--out {out}: expected a name that ends with .jsonl, as that of an annotation file")
    if show and show.suffix != ".html":
        raise CorpusError(f"--show {show}: expected a name that ends with .html, as that of a page")
    # Read and opened first, so that a wrong path or line is told before a model is loaded and before the work.
    existing_file(str(parallel))
    beside = out.with_suffix(".summary.json")
    refuse_own_input(out, [parallel], "--out")
    refuse_own_input(beside, [parallel], f"the summary beside --out {out}:")
    if show:
        refuse_own_input(show, [parallel], "--show")
    if not is_special(parallel):  # a pipe can be read but once
        for _ in islice(read_pairs(str(parallel), encoding, unicode_words), max_pairs or None):
            pass
    with _can_be_stopped(out), ExitStack() as opened:
        # What is entered last is put in place first: no summary or page tells of annotations that are not there.
        paths = [opened.enter_context(replaced(path)) for path in ([show] if show else []) + [beside, out]]
        *pages, figures, file = [opened.enter_context(path.open("w", encoding="utf-8")) for path in paths]
        tagger = load_tagger(source_model, device=device, precision="auto")
        reader = open_reader(tagger, encoder, layer)
        projection = Projection(tagger, reader, least_score=min_score, n_shown=SHOWN if show else 0)
        pairs = islice(read_pairs(str(parallel), encoding, WORD_SPLITTERS[tagger.word_splitter]), max_pairs or None)
        summary = projection.summary
        with tqdm(unit=" pairs", disable=None, dynamic_ncols=True) as bar:
            for number, records in enumerate(projection.records(pairs)):
                file.writelines(f"{to_json(record)}\n" for record in records)
                bar.update(summary.pairs - bar.n)
                if number == 0 and (doubt := summary.doubt_of_columns()):
                    bar.write(doubt, file=sys.stderr)
        if doubt := summary.doubt_of_pairs():
            typer.echo(doubt, err=True)
        if not summary.tagged:
            raise CorpusError(
                f"{parallel}: all of its {summary.pairs:,} pairs have a side of more than {MAX_WORDS} words; expected "
                "a sentence and its translation on each line"
            )
        if not summary.entities:
            raise CorpusError(
                f"{parallel}: {source_model} finds no entity in {summary.tagged:,} sentences of the first column, so "
                "there is nothing to carry over; is that column in the language of the model?"
            )
        if not summary.records:
            left_out = ", ".join(f"{number:,}: {reason}" for reason, number in summary.left_out.most_common())
            raise CorpusError(f"{parallel}: of {summary.pairs:,} pairs none is left ({left_out})")
        about = {"source_model": source_model, "encoder": encoder or source_model, "min_score": min_score}
        about |= {"layer": reader.layers.start, "parallel": parallel.name, "max_pairs": max_pairs}
        figures.write(to_json(about | summary.to_json(), indent=2) + "\n")
        for page in pages:
            title = f"The first {len(projection.shown):,} of {summary.pairs:,} pairs of {parallel}"
            page.write(links_page(projection.shown, title))
    for line in summary.lines():
        typer.echo(line)
    typer.echo(f"{out}: teacher={out}, and the sentences themselves as text={out}; {beside}: these figures")


@contextmanager
def _can_be_stopped(out: Path) -> Iterator[None]:
    """While entered, SIGTERM and Ctrl-C leave nothing unfinished behind and are told."""
    try:
        with sigterm_as_ctrl_c():
            yield
    except KeyboardInterrupt as stop:
        raise StoppedError(f"{out}: stopped; the same command begins anew", exit_status(stop)) from None
