"""`xlner export`: a trained tagger as a folder that needs no torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from xlner.export.parity import Attempt


def export(
    model: Annotated[str, typer.Argument(help="Model folder such as runs/de/model, or hub name.")],
    onnx: Annotated[
        Path,
        typer.Option(
            "--onnx", metavar="OUT", help="Folder to make, for ONNX Runtime (a linear student's needs NumPy alone)."
        ),
    ],
    int8: Annotated[bool, typer.Option("--int8", help="Weights as bytes: smaller and faster.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Compact students: weights in half the bytes.")] = False,
    corpus: Annotated[str, typer.Option(help="Sentences to compare on, best labelled; else a few built in.")] = "",
    sentences: Annotated[int, typer.Option(min=1, help="How many of them at most.")] = 2000,
    format: Annotated[str, typer.Option(help="Of the corpus: conll, text, ..., or auto: by its name.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Write it even if it differs too much.")] = False,
) -> None:
    """Export a tagger, and compare it with the original on real sentences; the comparison is kept as parity.json."""
    from itertools import islice

    from xlner.data.corpus import read_corpus
    from xlner.export.folder import export_model
    from xlner.export.sentences import SENTENCES

    gold = None
    words = list(SENTENCES)
    if corpus:
        # Opened first, so that a wrong path is told before a model is loaded.
        found = list(islice(read_corpus(corpus, format=format), sentences))
        words = [sentence.words for sentence in found]
        tags = [sentence.tags for sentence in found if sentence.tags is not None]
        gold = tags if len(tags) == len(words) else None
    if int8 and half:
        raise typer.BadParameter("--int8 and --half: give one of them")
    precision = "int8" if int8 else "fp16" if half else "fp32"
    published = export_model(model, onnx, words, gold, precision=precision, force=force, report=_tell)
    n_bytes = sum(path.stat().st_size for path in onnx.iterdir())
    typer.echo(f"{onnx}: {published.scheme}, {n_bytes / 1e6:,.1f} MB; {published.parity}")


def _tell(attempt: "Attempt") -> None:
    if not attempt.parity.acceptable:
        typer.echo(f"{attempt.scheme}: {attempt.parity}; this differs too much", err=True)
