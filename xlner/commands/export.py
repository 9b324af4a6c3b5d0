"""`xlner export`: a trained tagger as a folder that needs no torch, or as a pipeline of spaCy."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlner.commands.export_spacy import SpacyOptions, export_to_spacy
from xlner.errors import ModelError

if TYPE_CHECKING:
    from xlner.export.parity import Attempt


def export(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Model folder or hub name; with --spacy also several.")
    ],
    onnx: Annotated[
        Path | None, typer.Option("--onnx", metavar="OUT", help="Folder to make, for ONNX Runtime or NumPy.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="onnx: weights as bytes, smaller and faster.")] = False,
    half: Annotated[
        bool, typer.Option("--half", help="onnx: no graph, but weights in half the bytes, for torch or NumPy.")
    ] = False,
    corpus: Annotated[
        str, typer.Option(help="onnx: sentences to compare on, best labelled; else a few built in.")
    ] = "",
    sentences: Annotated[int, typer.Option(min=1, help="onnx: how many of them at most.")] = 2000,
    format: Annotated[
        str, typer.Option(help="onnx: format of the corpus: conll, text, ..., or auto: by its name.")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="onnx: write it even if it differs too much.")] = False,
    spacy: Annotated[
        Path | None, typer.Option("--spacy", metavar="OUT", help="Folder to make: a pipeline that spaCy trains.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="spacy: raw text to learn from, as `xlner tag` reads it; may be given several times."),
    ] = None,
    from_format: Annotated[
        str, typer.Option("--from", help="spacy: text, jsonl, conll, parquet; auto: by the name, else text.")
    ] = "auto",
    lang: Annotated[str, typer.Option(help="spacy: language of its tokenizer; default: the model's own.")] = "",
    hard: Annotated[
        bool, typer.Option("--hard/--soft", help="spacy: learn from the entities found, or from their probabilities.")
    ] = False,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="spacy, with --hard: what is less likely than this is unknown.")
    ] = 0.0,
    patterns: Annotated[
        Path | None, typer.Option(metavar="FILE", help="spacy: rules of its entity_ruler (JSONL); they come last.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="spacy: of the weights and the order.")] = 0,
    max_steps: Annotated[int, typer.Option(min=1, help="spacy: batches to learn from, at most.")] = 20_000,
    wheel: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="spacy: where to put a wheel of the pipeline.")
    ] = None,
    device: Annotated[str, typer.Option(help="spacy: where the models compute: cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Export a tagger.

    For ONNX Runtime it is compared with the original on real sentences; the comparison is kept as parity.json. For
    spaCy a small pipeline of spaCy's own learns from what the tagger, or several, find in raw text.
    """
    if (onnx is None) == (spacy is None):
        raise ModelError("name one folder to make: --onnx OUT, or --spacy OUT")
    if spacy is not None:
        options = SpacyOptions(
            text or [], from_format, lang, not hard, min_score, patterns, seed, max_steps, wheel, device
        )
        export_to_spacy(models, spacy, options)
    elif onnx is not None:
        if len(models) > 1:
            raise ModelError(f"--onnx exports one model, found {len(models)}: {', '.join(models)}")
        if int8 and half:
            raise typer.BadParameter("--int8 and --half: give one of them")
        precision = "int8" if int8 else "fp16" if half else "fp32"
        _export_to_onnx(models[0], onnx, precision, corpus, sentences, format, force)


def _export_to_onnx(
    model: str, onnx: Path, precision: str, corpus: str, sentences: int, format: str, force: bool
) -> None:
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
    published = export_model(model, onnx, words, gold, precision=precision, force=force, report=_tell)
    n_bytes = sum(path.stat().st_size for path in onnx.iterdir())
    typer.echo(f"{onnx}: {published.scheme}, {n_bytes / 1e6:,.1f} MB; {published.parity}")


def _tell(attempt: "Attempt") -> None:
    if not attempt.parity.acceptable:
        typer.echo(f"{attempt.scheme}: {attempt.parity}; this differs too much", err=True)
