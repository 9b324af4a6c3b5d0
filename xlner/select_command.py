"""`xlner select`: what an annotator should look at first, as a file that an annotation tool imports."""

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer


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
    encoding: Annotated[str, typer.Option(help="Character encoding of the text; the output is UTF-8.")] = "utf-8",
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ..., or auto.")] = "cpu",
) -> None:
    """Select the sentences that would teach a model most, tagged by it, for an annotator to correct."""
    from tqdm import tqdm

    from xlner.config.load import choose
    from xlner.corpora.lines import refuse
    from xlner.corpora.source import read_corpus
    from xlner.files import refuse_own_input, replaced
    from xlner.select import SHAPES, as_text, select_sentences
    from xlner.tag_files.records import InputOptions, check_input, input_format, read_records
    from xlner.tagger import load_tagger

    choose(SHAPES, to, "--to")
    inputs = [(name, input_format(name, from_format)) for name in files]
    for name, format in inputs:
        check_input(name, format)
    if out is not None:
        refuse_own_input(out, [*files, *(done or ())], "--out")
    annotated = [read_corpus(name, scheme="ignore") for name in done or ()]
    tagger = load_tagger(model, device=device)
    reading = InputOptions(refuse, encoding)
    records = chain.from_iterable(read_records(name, format, reading) for name, format in inputs)
    known = [sentence.words for sentence in chain.from_iterable(annotated)]
    with tqdm(records, unit=" sentences", disable=None, dynamic_ncols=True) as bar:
        found = select_sentences(tagger, bar, n, known)
    content = as_text(found, to, tagger.types, Path(model).parent.name if Path(model).name == "model" else model)
    if out is None:
        typer.echo(content, nl=False)
    else:
        with replaced(out) as unfinished:
            unfinished.write_text(content, encoding="utf-8")
    n_entities = sum(len(record.spans) for record in found)
    fewer = f"; the text has no more that differ (--n {n})" if len(found) < n else ""
    where = f"{out}: " if out is not None else ""
    typer.echo(f"{where}{len(found):,} sentences with {n_entities:,} entities to correct{fewer}", err=True)
