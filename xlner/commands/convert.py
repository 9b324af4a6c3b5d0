"""`xlner convert`: a corpus of any format in any other."""

from pathlib import Path
from typing import Annotated

import typer


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
    columns: Annotated[
        str, typer.Option(help="Columns of word and tag, from 0, from the end, or by name: 1,2 or 0,-1 or FORM,NER.")
    ] = "auto",
    scheme: Annotated[str, typer.Option(help="Tags read: auto, strict, or plain (types without prefixes).")] = "auto",
    to_scheme: Annotated[str, typer.Option(help="Tags written: iob2, iob1, bioes, bilou, plain.")] = "iob2",
    encoding: Annotated[str, typer.Option(help="Character encoding of the source; UTF-8 is written.")] = "utf-8",
    labels: Annotated[str, typer.Option(help="What tags that are numbers mean: O,B-PER,I-PER,...")] = "",
    word_splitter: Annotated[str, typer.Option(help="How raw text becomes words.")] = "unicode",
) -> None:
    """Convert a corpus; sentences stream through, and come out as they went in or not at all."""
    from tqdm import tqdm

    from xlner.data.corpus import read_corpus
    from xlner.data.summaries import CorpusTally
    from xlner.data.writing import format_of, write_corpus
    from xlner.recipe import choose
    from xlner.splitting import WORD_SPLITTERS

    split = choose(WORD_SPLITTERS, word_splitter, "--word-splitter")
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
