"""`xlner export --spacy`: what the options mean, and what is told."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import typer

from xlner.errors import CorpusError, ModelError


class SpacyOptions(NamedTuple):
    """The options of `xlner export` that are about spaCy."""

    text: Sequence[str]
    from_format: str
    language: str
    soft: bool
    min_score: float
    patterns: Path | None
    seed: int
    max_steps: int
    wheel: Path | None
    device: str


def export_to_spacy(models: Sequence[str], target: Path, options: SpacyOptions) -> None:
    """Train a pipeline of spaCy on what the models find in the text.

    Raises:
        ModelError: If spaCy is not installed, the folder is taken, or the language is not known.
        CorpusError: If no text is given, or it cannot be read.
    """
    if not options.text:
        raise CorpusError("--spacy needs raw text in the language of the model to learn from: give --text FILE")
    if options.soft and options.min_score:
        raise ModelError("--min-score leaves out what is found with less, so it needs --hard")
    try:
        from xlner.spacy_pipeline.export import check_target, export_pipeline
        from xlner.spacy_pipeline.wheel import build_wheel
    except ImportError as problem:
        raise ModelError(f"--spacy needs {problem.name}; install it by `pip install xlner[spacy]`") from None
    from tqdm import tqdm

    from xlner.data.problems import refuse
    from xlner.models.folder import read_settings
    from xlner.tagger import load_tagger
    from xlner.tagging.reading import InputOptions, check_input, input_format, read_records

    # What can be told at once is told before a model is loaded.
    check_target(target)
    formats = [input_format(name, options.from_format) for name in options.text]
    for name, format in zip(options.text, formats, strict=True):
        check_input(name, format)
    language = options.language or read_settings(models[0]).language
    if not language:
        raise ModelError(f"{models[0]}: does not tell its language; give --lang, as in --lang de")
    taggers = [load_tagger(model, device=options.device, precision="auto") for model in models]
    reading = InputOptions(refuse)
    records = chain.from_iterable(
        read_records(name, format, reading) for name, format in zip(options.text, formats, strict=True)
    )
    with tqdm(unit=" tokens", unit_scale=True, disable=None, dynamic_ncols=True) as bar:
        trained = export_pipeline(
            taggers,
            records,
            target,
            language=language,
            soft=options.soft,
            min_score=options.min_score,
            patterns=options.patterns,
            seed=options.seed,
            max_steps=options.max_steps,
            tell_tokens=bar.update,
        )
    unknown = f", {trained.train.unknown:,} tokens unknown" if trained.train.unknown else ""
    n_bytes = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    typer.echo(
        f"{target}: learnt from {trained.train.documents:,} records, {trained.train.tokens:,} tokens, "
        f"{trained.train.entities:,} entities{unknown}; F1 {trained.agreement:.2f} against the model on "
        f"{trained.dev.documents:,} held out; {n_bytes / 1e6:,.1f} MB"
    )
    if options.wheel is not None:
        typer.echo(str(build_wheel(target, options.wheel)))
