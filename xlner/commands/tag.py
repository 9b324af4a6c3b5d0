"""`xlner tag`: files of text or words tagged, from file to file or from the standard input to the standard output."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlner import __version__
from xlner.commands.options import Device
from xlner.errors import CorpusError, LabelError, StoppedError, exit_status, sigterm_as_ctrl_c

if TYPE_CHECKING:
    from xlner.tag_files.job import FileTagging, InputFile
    from xlner.tag_files.output import BadRecords, StandardOutput
    from xlner.tag_files.records import InputOptions, Wanted
    from xlner.tagger import Tagger, Threshold


# What a format was called before.
_OLD_NAMES = {"json": "jsonl"}


def tag(
    model: Annotated[str, typer.Argument(help="Model folder such as runs/de/model, or hub name.")],
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="What to tag; - or none is the standard input.")
    ] = None,
    out: Annotated[
        str, typer.Option(help="File for the output; a folder, or NAME/, gets a file for each input. Default: stdout.")
    ] = "",
    from_format: Annotated[
        str,
        typer.Option(
            "--from", help="text (a text a line), jsonl, json, conll, csv, parquet; auto: by the name, else text."
        ),
    ] = "auto",
    to_format: Annotated[
        str,
        typer.Option("--to", "--format", help="jsonl, conll, text (marked), docbin, parquet; auto: by the names."),
    ] = "auto",
    on_error: Annotated[
        str, typer.Option(help="stop at a record that cannot be read, or skip it: it is told and left out.")
    ] = "stop",
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Begin anew, or go on where an earlier start with --out stopped.")
    ] = False,
    columns: Annotated[
        str, typer.Option(help="conll, csv: the column of words (or texts), as in 1 or FORM; auto: found out.")
    ] = "auto",
    encoding: Annotated[str, typer.Option(help="Character encoding of the input; the output is UTF-8.")] = "utf-8",
    device: Device = "cpu",
    threshold: Annotated[
        str,
        typer.Option(
            metavar="SCORE", help="Leave out entities of a lower score, a probability; tuned: that of xlner report."
        ),
    ] = "0",
    types: Annotated[str, typer.Option(help="Leave out entities of other types than these, as in PER,LOC.")] = "",
    part: Annotated[
        str, typer.Option(metavar="N/OF", help="A corpus in shards: tag the part 3/16 of it, say, in a job of a queue.")
    ] = "",
    engine: Annotated[str, typer.Option(help="ray: a corpus in shards, tagged by workers on a Ray cluster.")] = "",
    address: Annotated[
        str, typer.Option(help="Of the cluster: auto, or HOST:6379. Default: Ray is started here.")
    ] = "",
    workers: Annotated[int, typer.Option(help="Ray: models that are held open; 0: one for each CPU.")] = 0,
) -> None:
    """Tag text or words, record by record. With --out, a command that was stopped goes on when it is given again.

    With --part or --engine the input is one file, folder or quoted glob, which is tagged in shards into the folder
    --out: what `xlner tag-corpus` does, whose keys set all that is not an option here.
    """
    if part or engine or address or workers:
        given = {"--from": from_format != "auto", "--to": to_format != "auto", "--fresh": fresh, "--types": bool(types)}
        given |= {"--columns": columns != "auto", "--encoding": encoding != "utf-8", "--threshold": threshold != "0"}
        keys = {"model": model, "input": files or [], "output": out, "on_error": on_error, "cpu": device == "cpu"}
        keys |= {"part": part, "engine": engine or "processes", "address": address, "workers": workers}
        _tag_corpus(keys, [name for name, is_given in given.items() if is_given])
        return
    from tqdm import tqdm

    from xlner.config.load import choose
    from xlner.tag_files.job import Tagging
    from xlner.tag_files.output import BadRecords
    from xlner.tag_files.records import InputOptions, Wanted

    stops = choose({"stop": True, "skip": False}, on_error, "--on-error")
    inputs = _inputs(files or ["-"], from_format)
    wanted = Wanted(_threshold(threshold), tuple([name.strip() for name in types.split(",")]) if types else None)
    with tqdm(unit=" words", unit_scale=True, disable=None, dynamic_ncols=True) as bar:
        bad_records = BadRecords(stops=stops, tell=lambda line: bar.write(line, file=sys.stderr))
        options = InputOptions(bad_records.report, encoding, columns)
        if not out:
            output = _standard_output(inputs, to_format, bad_records)
            Tagging(inputs, options, bad_records).tag(output, _tagger(model, device, wanted), bar.update, wanted)
            return
        tagging = {
            target: _file_tagging(model, group, target, format, options, bad_records, wanted, fresh)
            for target, format, group in _targets(inputs, Path(out), out.endswith("/"), to_format)
        }
        _run(tagging, model, device, wanted, bar.update)


def _tag_corpus(keys: dict[str, Any], given: Sequence[str]) -> None:
    """Tag a corpus in shards, by the keys of a `TagRecipe`; `given` are options that are not for that."""
    from xlner.config.schema import TagRecipe

    if given:
        raise CorpusError(f"{given[0]} is not for --part and --engine, which tag all records of a corpus, in UTF-8")
    if len(keys["input"]) != 1 or "-" in keys["input"] or not keys["output"]:
        raise CorpusError("--part and --engine take one file, folder or quoted glob, and a folder for --out")
    recipe = TagRecipe(**keys | {"input": keys["input"][0]})
    from xlner.tag_files.engines import tag_corpus

    try:
        with sigterm_as_ctrl_c():
            tag_corpus(recipe)
    except KeyboardInterrupt as stop:
        message = "stopped; the same command goes on from the shards that are published"
        raise StoppedError(message, exit_status(stop)) from None


def _inputs(files: Sequence[str], from_format: str) -> "Sequence[InputFile]":
    """The files with their formats, each seen to be readable."""
    from xlner.tag_files.job import InputFile
    from xlner.tag_files.records import check_input, input_format

    inputs = [InputFile(name, input_format(name, from_format)) for name in files]
    for name, format in inputs:
        check_input(name, format)
    return inputs


def _threshold(text: str) -> "Threshold":
    """The score that is asked for.

    Raises:
        typer.BadParameter: If it is no probability.
    """
    if text == "tuned":
        return "tuned"
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0.0 <= score <= 1.0:
        raise typer.BadParameter(
            f"{text!r} is no number from 0 to 1; expected one, or tuned", param_hint="'--threshold'"
        )
    return score


def _standard_output(inputs: "Sequence[InputFile]", to_format: str, bad_records: "BadRecords") -> "StandardOutput":
    from xlner.config.load import choose
    from xlner.tag_files.output import LINE_FORMATS, PART_FORMATS, StandardOutput, line_rendering

    format = _OLD_NAMES.get(to_format, to_format)
    if format == "auto":
        format = "conll" if inputs[0].format == "conll" else "jsonl"
    if format in PART_FORMATS:
        raise CorpusError(f"--to {format} is written to a file: give --out FILE")
    choose(LINE_FORMATS, format, "--to")
    return StandardOutput(line_rendering(format, bad_records))


def _targets(
    inputs: "Sequence[InputFile]", out: Path, is_folder: bool, to_format: str
) -> "list[tuple[Path, str, Sequence[InputFile]]]":
    """Each file to write, its format, and the inputs that go into it."""
    from xlner.config.load import choose
    from xlner.corpora.lines import SUFFIXES
    from xlner.corpora.stored import tagged_docbin
    from xlner.files import check_writable, is_special, refuse_own_input
    from xlner.tag_files.output import OUTPUT_SUFFIXES

    asked = _OLD_NAMES.get(to_format, to_format)
    if asked != "auto":
        choose(OUTPUT_SUFFIXES, asked, "--to")
    if is_folder or out.is_dir():
        kept = OUTPUT_SUFFIXES.keys() - {"text"}
        formats = [asked if asked != "auto" else one.format if one.format in kept else "jsonl" for one in inputs]
        stems = ["stdin" if one.name == "-" else Path(one.name).stem for one in inputs]
        targets: list[tuple[Path, str, Sequence[InputFile]]] = [
            (out / f"{stem}{OUTPUT_SUFFIXES[format]}", format, [one])
            for stem, format, one in zip(stems, formats, inputs, strict=True)
        ]
    else:
        format = SUFFIXES.get(out.suffix.lower(), "") if asked == "auto" else asked
        if format not in OUTPUT_SUFFIXES:
            raise CorpusError(
                f"--out {out}: the suffix tells no format to write; known: {', '.join(OUTPUT_SUFFIXES.values())}; "
                f"or name it by --to: {', '.join(OUTPUT_SUFFIXES)}; or end it with a slash, for a folder"
            )
        targets = [(out, format, inputs)]
    if special := [str(path) for path, _, _ in targets if is_special(path)]:
        raise CorpusError(
            f"--out {out}: {special[0]} is a device or a pipe; leave --out away, "
            "and the output goes to the standard output, > redirects it"
        )
    # A link stays a link: what it points to is written.
    targets = [
        (Path(os.path.realpath(path)) if path.is_symlink() else path, format, group) for path, format, group in targets
    ]
    twice = [str(path) for path, number in Counter(path for path, _, _ in targets).items() if number > 1]
    if twice:
        raise CorpusError(f"--out {out}: several files would be named {twice[0]}; tag them one by one")
    for target, format, _ in targets:
        refuse_own_input(target, [one.name for one in inputs if one.name != "-"], "--out")
        check_writable(target)
        if format == "docbin":
            tagged_docbin(())  # fails at once where there is no spaCy
    return targets


def _file_tagging(
    model: str,
    inputs: "Sequence[InputFile]",
    target: Path,
    format: str,
    options: "InputOptions",
    bad_records: "BadRecords",
    wanted: "Wanted",
    fresh: bool,
) -> "FileTagging":
    from xlner.hub import find_file
    from xlner.models.settings import THRESHOLDS_FILE, parse_thresholds
    from xlner.tag_files.job import FileTagging, State, file_marks, model_fingerprint

    is_stdin = any(name == "-" for name, _ in inputs)
    depends_on: dict[str, Any] = {
        "input": [] if is_stdin else file_marks(name for name, _ in inputs),
        "input format": ", ".join(sorted({one.format for one in inputs})),
        "model": model_fingerprint(model),
        "output format": format,
        "columns": options.columns,
        "encoding": options.encoding,
        "version of xlner": __version__,
    }
    if wanted.threshold:
        tuned = find_file(model, THRESHOLDS_FILE) if wanted.threshold == "tuned" else None
        depends_on["threshold"] = parse_thresholds(tuned) if tuned else wanted.threshold
    if wanted.types is not None:
        depends_on["types"] = ", ".join(wanted.types)
    state = State(target, depends_on, is_kept=not is_stdin)
    if fresh:
        state.discard()
    return FileTagging(inputs, target, format, options, bad_records, state)


def _tagger(model: str, device: str, wanted: "Wanted") -> "Tagger":
    """The opened model."""
    from xlner.tagger import load_tagger

    tagger = load_tagger(model, device=device)
    if unknown := sorted(set(wanted.types or ()) - set(tagger.types)):
        raise LabelError(f"--types names {', '.join(unknown)}; {model} knows {', '.join(tagger.types)}")
    return tagger


def _run(
    tagging: "Mapping[Path, FileTagging]",
    model: str,
    device: str,
    wanted: "Wanted",
    tell_words: Callable[[int], object],
) -> None:
    """Tag what is left of each file; all states are kept until the last one is done."""
    tagger = _tagger(model, device, wanted)
    for target, work in tagging.items():
        began, n_before = time.monotonic(), work.progress.n_words
        try:
            with sigterm_as_ctrl_c():
                work.run(tagger, tell_words, wanted)
        except KeyboardInterrupt as stop:
            ways = (
                "the same command goes on from there"
                if work.can_go_on
                else "the standard input cannot be taken up again"
            )
            raise StoppedError(
                f"{target}: stopped after {work.progress.as_text()}; {ways}", exit_status(stop)
            ) from None
        per_second = (work.progress.n_words - n_before) / (time.monotonic() - began)
        typer.echo(f"{target}: {work.progress.as_text()}; {per_second:,.0f} words/s")
    for work in tagging.values():
        work.forget()
