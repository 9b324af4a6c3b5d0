"""The command `xlner serve`; what it needs is imported when it runs, so that `--help` is quick."""

from typing import Annotated

import typer

from xlner.errors import RunError


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Model folders or hub names; NAME=MODEL gives it a name.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ..., or auto.")] = "cpu",
    workers: Annotated[int, typer.Option(min=1, help="Processes; each holds all models.")] = 1,
    queue: Annotated[int, typer.Option(min=1, help="Requests of a process that may wait; more get 429.")] = 64,
    max_chars: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = 100_000,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of a request.")] = 256,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 2_000_000,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a request may take.")] = 60.0,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may call, as https://example.org; none by default.")
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
    )
    run(settings, host=host, port=port, workers=workers)
