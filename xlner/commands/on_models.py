"""Commands on models and runs: evaluate, report, compare, rank-sources, export, push, serve.

What is slow to import is imported by the command that needs it. A parameter of a command is an option, which typer
reads from its signature: that is why commands have many, and some are long.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlner.commands.options import Columns, Device, Labels, Scheme
from xlner.errors import CorpusError, ModelError, RunError

if TYPE_CHECKING:
    from xlner.export.parity import Attempt
    from xlner.export.spacy_pipeline import Learning


# The command `xlner evaluate`: a model scored on labelled corpora.


def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder such as runs/de/model, or hub name.")],
    corpora: Annotated[list[str], typer.Argument(metavar="CORPUS...", help="Labelled corpora.")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON, not tables; a list for several corpora.")] = False,
    format: Annotated[str, typer.Option(help="conll, csv, jsonl, dataset, ... or auto: by the corpus' name.")] = "auto",
    columns: Columns = "auto",
    scheme: Scheme = "auto",
    labels: Labels = "",
    word_splitter: Annotated[str, typer.Option(help="How raw text with spans becomes words.")] = "unicode",
    labels_map: Annotated[
        str, typer.Option(help="Types renamed, merged or dropped: MISC=,PERSON=PER,GPE=LOC; *= drops all others.")
    ] = "",
    encoding: Annotated[str, typer.Option(help="Character encoding of the text.")] = "utf-8",
    device: Device = "cpu",
) -> None:
    """Score a model on labelled corpora: precision, recall and F1 of entities in percent, by seqeval."""
    from xlner.config.load import choose
    from xlner.corpora.source import read_corpus
    from xlner.corpora.splits import name_split, summarize
    from xlner.evaluate import check_types_in_common, evaluate_tags
    from xlner.files import to_json
    from xlner.tagger import load_tagger
    from xlner.tags import LabelMap, spans_of
    from xlner.words import WORD_SPLITTERS

    label_map = LabelMap.parse(labels_map)
    # Opened first, so that a wrong path is told before a model is loaded.
    split = choose(WORD_SPLITTERS, word_splitter, "--word-splitter")
    reading = {"format": format, "columns": columns, "scheme": scheme, "encoding": encoding, "labels": labels}
    streams = [read_corpus(path, split_text=split, **reading) for path in corpora]
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


# `xlner report`: runs on one page.


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, such as runs/de.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Also print the numbers as JSON, a list of runs.")] = False,
    data: Annotated[str, typer.Option(help="Folder of the corpora, where it is not the recipe's any more.")] = "",
    sentences: Annotated[
        int,
        typer.Option(
            min=0, help="Sentences of test and dev that models tag again, for scores and thresholds; 0: none."
        ),
    ] = 2000,
    device: Device = "cpu",
    tune: Annotated[
        bool, typer.Option("--tune/--no-tune", help="Store the best thresholds of dev in the model folder.")
    ] = True,
) -> None:
    """Tell of runs on one HTML page: scores, errors, calibration, thresholds, curves, teacher and student."""
    from xlner.files import to_json, write_text
    from xlner.report.gather import GatherOptions, gather
    from xlner.report.page import check_target, page

    check_target(out)
    options = GatherOptions(data=data, sentences=sentences, device=device, tunes=tune)
    found = [gather(path, options) for path in runs]
    write_text(out, page(found))
    for run in found:
        for note in run.notes:
            typer.echo(f"{run.path}: {note}", err=True)
        if run.tuning and run.tuning.stored:
            typer.echo(f"{run.tuning.stored}: thresholds tuned on {run.tuning.corpus}", err=True)
    if as_json:
        typer.echo(to_json([asdict(run) for run in found], indent=2))
    else:
        typer.echo(str(out))


# `xlner compare`: the results table of finished runs.


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    baseline: Annotated[
        str, typer.Option(help="Setting that the others are tested against, as the table calls it; default: the first.")
    ] = "",
    types: Annotated[bool, typer.Option("--types", help="Also a table for each entity type.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Also write all scores here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the table here: .png, .svg or .pdf.")] = None,
) -> None:
    """Compare finished runs: F1 by language, mean and deviation over seeds, and whether differences may be chance."""
    from xlner.compare import by_type, draw, markdown, read_run, settings_of, write_csv
    from xlner.files import replaced

    found = [read_run(path) for path in runs]
    table = settings_of(found)
    languages = sorted({run.language for run in found})
    base = baseline or next(iter(table))
    if base not in table:
        raise RunError(f"--baseline {base!r} is none of the settings: {', '.join(table)}")
    typer.echo("\n".join(markdown(table, found, languages, base)))
    if types:
        typer.echo("\n".join(by_type(table, languages)))
    try:
        if csv_file is not None:
            with replaced(csv_file) as unfinished:
                write_csv(unfinished, table)
        if plot is not None:
            kind = plot.suffix.lower().removeprefix(".") or "png"
            with replaced(plot) as unfinished:
                draw(table, languages).savefig(unfinished, format=kind, bbox_inches="tight", dpi=150)
    except ValueError as problem:  # matplotlib: no such kind of picture
        raise RunError(f"{plot}: cannot be written: {problem}") from problem


# `xlner rank-sources`: which of several teachers to choose for a language.


def rank_sources(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model folders or hub names: the teachers.")],
    target: Annotated[str, typer.Option(metavar="FILE", help="Raw text of the target language, or any corpus.")],
    data: Annotated[
        str, typer.Option(help="Folder with LANGUAGE/train of the models' languages: compare languages, too.")
    ] = "",
    sentences: Annotated[int, typer.Option(min=20, help="How many of each text are looked at.")] = 1000,
    format: Annotated[str, typer.Option(help="text, conll, jsonl, ... or auto: by the name.")] = "auto",
    encoding: Annotated[str, typer.Option(help="Character encoding of the text.")] = "utf-8",
    as_json: Annotated[bool, typer.Option("--json", help="JSON, not a table.")] = False,
    device: Device = "cpu",
) -> None:
    """Rank teachers for a language without labels: by sureness, agreement, and likeness of languages."""
    import torch
    from tqdm import tqdm

    from xlner.corpora.source import read_corpus
    from xlner.files import to_json
    from xlner.models.folder import read_settings
    from xlner.soft_labels.rank import rank, source_likeness, sources_of, unlike_types, view
    from xlner.tagger import fastest_device, load_tagger
    from xlner.words import unicode_words

    places = [os.path.realpath(name) if os.path.exists(name) else name for name in models]
    if twice := [name for number, name in enumerate(models) if places[number] in places[:number]]:
        raise ModelError(f"{', '.join(twice)}: given twice; a model agrees with itself, which tells nothing")
    text = read_corpus(target, format=format, scheme="ignore", encoding=encoding, split_text=unicode_words)
    words = [sentence.words for sentence in islice(text, sentences)]
    languages = [read_settings(name).language for name in models]
    sources = sources_of(models, data, sentences) if data else None
    views = []
    with tqdm(models, unit=" models", disable=None, dynamic_ncols=True) as bar:
        for name, language in zip(bar, languages, strict=True):
            # Opened within the call, so that one is closed before the next one is opened.
            views.append(view(name, language, load_tagger(name, device=device, precision="auto"), words))
    likenesses = None
    if sources:
        at = torch.device(fastest_device() if device == "auto" else device)
        likenesses = source_likeness(models[0], sources, words, sentences, at)
    for note in unlike_types(views):
        typer.echo(note, err=True)
    found = rank(views, sum(map(len, words)), likenesses)
    if as_json:
        typer.echo(to_json([one.to_json() for one in found], indent=2))
        return
    width = max(5, *(len(name) for name in models))
    typer.echo(f"{'model':{width}}  language  sureness  agreement  likeness  entities per 1,000 words")
    for one in found:
        agreement = "-" if one.agreement is None else f"{one.agreement:.2f}"
        likeness = "-" if one.likeness is None else f"{one.likeness:.3f}"
        typer.echo(
            f"{one.model:{width}}  {one.language or '-':8}  {one.sureness:8.3f}  {agreement:>9}  {likeness:>8}  "
            f"{one.entities:.1f}"
        )


# `xlner export`: a trained tagger as a folder that needs no torch, or as a pipeline of spaCy.


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
    web: Annotated[
        Path | None, typer.Option("--web", metavar="OUT", help="Folder to make: a compact student for browsers.")
    ] = None,
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(metavar="PLACE", help="web: this npm package, unpacked or as .tgz; else from the working folder."),
    ] = None,
    corpus: Annotated[
        str, typer.Option(help="onnx, web: sentences to compare on, best labelled; else a few built in.")
    ] = "",
    sentences: Annotated[int, typer.Option(min=1, help="onnx, web: how many of them at most.")] = 2000,
    format: Annotated[
        str, typer.Option(help="onnx, web: format of the corpus: conll, text, ..., or auto: by its name.")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="onnx, web: write it even if it differs too much.")] = False,
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
    browsers a compact student is compared, too, and gets a script and a page beside it. For spaCy a small pipeline of
    spaCy's own learns from what the tagger, or several, find in raw text.
    """
    if sum(target is not None for target in (onnx, web, spacy)) != 1:
        raise ModelError("name one folder to make: --onnx OUT, --web OUT, or --spacy OUT")
    if spacy is not None:
        if not text:
            raise CorpusError("--spacy needs raw text in the language of the model to learn from: give --text FILE")
        if min_score and not hard:
            raise ModelError("--min-score leaves out what is found with less, so it needs --hard")
        _require_spacy()
        from xlner.export.spacy_pipeline import Learning, build_wheel, check_target
        from xlner.files import check_writable

        check_target(spacy)
        for folder in filter(None, (spacy, wheel)):
            check_writable(folder / "meta.json")  # any name: what counts is that something can be put there
        learning = Learning(lang, not hard, min_score, patterns, seed, max_steps)
        _export_to_spacy(models, spacy, text, from_format, device, learning)
        if wheel is not None:
            typer.echo(str(build_wheel(spacy, wheel)))
        return
    _check_export(models, web, int8=int8, half=half)
    words, gold = _sentences_to_compare_on(corpus, sentences, format)
    if web is not None:
        from xlner.export.in_browser import export_to_browser

        published = export_to_browser(models[0], web, words, gold, runtime=onnxruntime_web, force=force, report=_tell)
    elif onnx is not None:
        from xlner.export.onnx import export_model

        precision = "int8" if int8 else "fp16" if half else "fp32"
        published = export_model(models[0], onnx, words, gold, precision=precision, force=force, report=_tell)
    n_bytes = sum(path.stat().st_size for path in (web or onnx or Path()).iterdir())
    typer.echo(f"{web or onnx}: {published.scheme}, {n_bytes / 1e6:,.1f} MB; {published.parity}")


def _require_spacy() -> None:
    """Raise, and say how to install it, if there is no spaCy."""
    try:
        import_module("xlner.export.spacy_pipeline")
    except ImportError as problem:
        raise ModelError(f"--spacy needs {problem.name}; install it by `pip install xlner[spacy]`") from None


def _check_export(models: Sequence[str], web: Path | None, *, int8: bool, half: bool) -> None:
    """Raise unless what is asked for goes together: one model, one number format."""
    if len(models) > 1:
        raise ModelError(f"{'--web' if web else '--onnx'} exports one model, found {len(models)}: {', '.join(models)}")
    if int8 and half:
        raise typer.BadParameter("--int8 and --half: give one of them")
    if half and web is not None:
        raise typer.BadParameter("--half: not with --web, which stores weights in bytes")


def _export_to_spacy(
    models: Sequence[str], target: Path, text: Sequence[str], from_format: str, device: str, learning: "Learning"
) -> None:
    """Train a pipeline of spaCy on what the models find in the text; what can be told at once is told before that."""
    from tqdm import tqdm

    from xlner.corpora.lines import refuse
    from xlner.export.spacy_pipeline import export_pipeline
    from xlner.models.folder import read_settings
    from xlner.tag_files.records import InputOptions, check_input, input_format, read_records
    from xlner.tagger import load_tagger

    formats = [input_format(name, from_format) for name in text]
    for name, format in zip(text, formats, strict=True):
        check_input(name, format)
    language = learning.language or read_settings(models[0]).language
    if not language:
        raise ModelError(f"{models[0]}: does not tell its language; give --lang, as in --lang de")
    taggers = [load_tagger(model, device=device, precision="auto") for model in models]
    reading = InputOptions(refuse)
    records = chain.from_iterable(
        read_records(name, format, reading) for name, format in zip(text, formats, strict=True)
    )
    with tqdm(unit=" tokens", unit_scale=True, disable=None, dynamic_ncols=True) as bar:
        trained = export_pipeline(taggers, records, target, learning._replace(language=language), bar.update)
    unknown = f", {trained.train.unknown:,} tokens unknown" if trained.train.unknown else ""
    n_bytes = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    typer.echo(
        f"{target}: learnt from {trained.train.documents:,} records, {trained.train.tokens:,} tokens, "
        f"{trained.train.entities:,} entities{unknown}; F1 {trained.agreement:.2f} against the model on "
        f"{trained.dev.documents:,} held out; {n_bytes / 1e6:,.1f} MB"
    )


def _sentences_to_compare_on(
    corpus: str, most: int, format: str
) -> tuple[Sequence[Sequence[str]], Sequence[Sequence[str]] | None]:
    """Words of some sentences, and their tags where all have them; read before a model is loaded."""
    from xlner.corpora.source import read_corpus
    from xlner.export.parity import built_in_sentences

    if not corpus:
        return built_in_sentences(), None
    found = list(islice(read_corpus(corpus, format=format), most))
    tags = [sentence.tags for sentence in found if sentence.tags is not None]
    return [sentence.words for sentence in found], tags if len(tags) == len(found) else None


def _tell(attempt: "Attempt") -> None:
    if not attempt.parity.acceptable:
        typer.echo(f"{attempt.scheme}: {attempt.parity}; this differs too much", err=True)


# `xlner push`: a trained tagger on the hub.


def push(
    model: Annotated[Path, typer.Argument(help="Folder of a model, of a compact student or of an exported one.")],
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Its name on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="A new one is seen by its owner alone.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "",
) -> None:
    """Publish a model on the Hugging Face hub."""
    from xlner.hub import push as push_folder

    typer.echo(push_folder(model, repository, private=private, message=message))


# `xlner serve`: tagging and comparing over HTTP.


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Model folders or hub names; NAME=MODEL gives it a name.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    device: Device = "cpu",
    workers: Annotated[int, typer.Option(min=1, help="Processes; each holds all models.")] = 1,
    queue: Annotated[int, typer.Option(min=1, help="Requests of a process that may wait; more get 429.")] = 64,
    max_chars: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = 100_000,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of a request.")] = 256,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 2_000_000,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a request may take.")] = 60.0,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may call, as https://example.org; none by default.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Where corrections made on the page are saved.")
    ] = None,
    browser: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="Of xlner export --web: the page can have the browser run it."),
    ] = None,
) -> None:
    """Tag and compare over HTTP, with a page that shows models side by side."""
    try:
        from xlner.web.serve import ServeSettings, run
    except ImportError as problem:
        if (problem.name or "").split(".")[0] not in ("fastapi", "uvicorn", "prometheus_client", "pydantic"):
            raise
        raise RunError(
            f"xlner serve needs {problem.name}, which is not installed: pip install 'xlner[serve]'"
        ) from None
    settings = ServeSettings(
        models=tuple(models),
        device=device,
        queue=queue,
        max_chars=max_chars,
        max_texts=max_texts,
        max_body=max_body,
        timeout=timeout,
        origins=tuple(allow_origin or ()),
        annotations=annotations,
        browser=tuple(browser or ()),
    )
    run(settings, host=host, port=port, workers=workers)
