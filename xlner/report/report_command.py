"""The command `xlner report`; what is slow to import is imported once it runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


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
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ..., or auto.")] = "cpu",
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
