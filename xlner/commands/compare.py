"""`xlner compare`: the results table of finished runs."""

from pathlib import Path
from typing import Annotated

import typer


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
    from xlner.comparison.runs import read_run, settings_of
    from xlner.comparison.table import by_type, draw, markdown, write_csv
    from xlner.errors import RunError
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
