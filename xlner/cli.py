"""The command `xlner`: train, tag, evaluate, and what there is around them.

Results go to stdout, everything else to stderr; the lines that a training prints are its result, too.

A mistake that the user can mend ends with its message and status 2, Ctrl-C with 130. What is slow to import
is imported by the command that needs it, so that `--help` is quick.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from xlner import __version__
from xlner.commands import as_options, check_data, compare, convert, export, options_of
from xlner.errors import CorpusError, RunError, StoppedError, XlnerError, lines_for_terminal
from xlner.files import StandardOutput, to_json
from xlner.launcher import launch
from xlner.report.report_command import report
from xlner.tag_files.command import tag
from xlner.web.serve_command import serve

app = typer.Typer(
    help="Named-entity taggers for languages without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Keys = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Keys of the recipe; --help lists all.")]
# Their words are those of the launch scripts, `--help` included, which lists the keys of the recipe.
_OF_RECIPES: dict[str, Any] = {"add_help_option": False, "context_settings": {"ignore_unknown_options": True}}

Model = Annotated[str, typer.Argument(help="Model folder such as runs/de/model, or hub name.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ..., or auto.")]
Encoding = Annotated[str, typer.Option(help="Character encoding of the text.")]


def main() -> None:
    """Run the command line."""
    try:
        if sys.stdout is None or sys.stdout is sys.__stdout__:
            sys.stdout = StandardOutput.taken(_output_failed)
        try:
            app()
        finally:
            sys.stdout.flush()
    except XlnerError as problem:
        if told := as_options(problem.as_text(), _options(sys.argv[1:])):
            typer.echo(lines_for_terminal(told), err=True)
        raise SystemExit(problem.exit_status if isinstance(problem, StoppedError) else 2) from None
    except OSError as problem:  # of a name that is given, as one that is too long
        if problem.filename is None:
            raise
        typer.echo(f"{problem.filename}: {problem.strerror}", err=True)
        raise SystemExit(2) from None


def _output_failed(problem: OSError) -> None:
    """End the command; where the reader has seen enough there is nothing to tell."""
    if isinstance(problem, BrokenPipeError):
        raise StoppedError("", 128 + 13)  # as of a process that SIGPIPE ends
    raise RunError(f"the standard output cannot be written: {problem.strerror or problem}") from problem


def _options(arguments: Sequence[str]) -> set[str]:
    """The options of the command that these arguments call."""
    commands = getattr(typer.main.get_command(app), "commands", {})
    return options_of(next((commands[name] for name in arguments if name in commands), None))


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"xlner {__version__}")
        raise typer.Exit


@app.callback()
def _xlner(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(**_OF_RECIPES)
def train_teacher(keys: Keys = None) -> None:
    """Train a teacher on labelled source text."""
    raise typer.Exit(launch("teacher", keys or []))


@app.command(**_OF_RECIPES)
def distill(keys: Keys = None) -> None:
    """Distil a student from a teacher, on unlabelled target text."""
    raise typer.Exit(launch("distill", keys or []))


@app.command(**_OF_RECIPES)
def adapt(keys: Keys = None) -> None:
    """Adapt an encoder to a language, by raw text."""
    raise typer.Exit(launch("adapt", keys or []))


app.command()(tag)


@app.command(**_OF_RECIPES)
def tag_corpus(keys: Keys = None) -> None:
    """Tag a corpus in shards, by many processes and machines."""
    raise typer.Exit(launch("tag", keys or []))


@app.command()
def evaluate(
    model: Model,
    corpora: Annotated[list[str], typer.Argument(metavar="CORPUS...", help="Labelled corpora.")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON, not tables; a list for several corpora.")] = False,
    format: Annotated[str, typer.Option(help="conll, csv, jsonl, dataset, ... or auto: by the corpus' name.")] = "auto",
    columns: Annotated[
        str, typer.Option(help="Columns of word and tag, from 0, from the end, or by name: 1,2 or 0,-1 or FORM,NER.")
    ] = "auto",
    scheme: Annotated[str, typer.Option(help="auto, strict, or plain: types without prefixes.")] = "auto",
    labels: Annotated[str, typer.Option(help="What tags that are numbers mean: O,B-PER,I-PER,...")] = "",
    word_splitter: Annotated[str, typer.Option(help="How raw text with spans becomes words.")] = "unicode",
    labels_map: Annotated[
        str, typer.Option(help="Types renamed, merged or dropped: MISC=,PERSON=PER,GPE=LOC; *= drops all others.")
    ] = "",
    encoding: Encoding = "utf-8",
    device: Device = "cpu",
) -> None:
    """Score a model on labelled corpora: precision, recall and F1 of entities in percent, by seqeval."""
    from xlner.config.load import choose
    from xlner.corpora.source import read_corpus
    from xlner.corpora.splits import name_split, summarize
    from xlner.evaluate import check_types_in_common, evaluate_tags
    from xlner.tagger import load_tagger
    from xlner.tags import LabelMap, spans_of
    from xlner.words import WORD_SPLITTERS

    label_map = LabelMap.parse(labels_map)
    # Opened first, so that a wrong path is told before a model is loaded.
    split = choose(WORD_SPLITTERS, word_splitter, "--word-splitter")
    streams = [
        read_corpus(
            path,
            format=format,
            columns=columns,
            scheme=scheme,
            encoding=encoding,
            split_text=split,
            labels=labels,
        )
        for path in corpora
    ]
    tagger = load_tagger(model, device=device)
    found = []
    for path, stream in zip(corpora, streams, strict=True):
        sentences = list(stream)
        words = [sentence.words for sentence in sentences]
        tags = [sentence.tags for sentence in sentences if sentence.tags is not None]
        if n_bare := len(words) - len(tags):
            raise CorpusError(f"{path}: {n_bare:,} of {len(words):,} sentences have no tags; expected labelled ones")
        types = {span.label for row in tags for span in spans_of(row)}
        label_map.check({*types, *tagger.types}, f"{path} or the model")
        check_types_in_common(tagger.types, tags, label_map)
        report = evaluate_tags(tagger.types, tags, tagger.tag_sentences(words), label_map).report
        summary = summarize(sentences)
        mark, name = summary.fingerprint, name_split(summary, path)
        for note in report.notes():
            typer.echo(f"{path}: {note}", err=True)
        if not as_json:
            known_as = f", {name}" if name else ""
            typer.echo(f"{path} ({len(words):,} sentences, fingerprint {mark}{known_as})\n{report.table()}\n")
        content = report.to_json() | {"corpus": mark, "corpus_name": name or None}
        if label_map:
            content["labels"] = {"map": str(label_map), "counted": report.counted, "left_out": report.left_out}
        found.append(content)
    if as_json:
        typer.echo(to_json(found[0] if len(found) == 1 else found, indent=2))


app.command()(check_data)
app.command()(convert)
app.command()(export)
app.command()(compare)
app.command()(report)
app.command()(serve)
