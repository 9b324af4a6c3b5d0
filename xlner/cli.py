"""The program `xlner`: its commands, what it says when something goes wrong, and with which status it ends.

What is slow to import is imported by the command that needs it, so that `--help` is quick. The status is 0 for done, 2
for refused, 130 or 143 for stopped by Ctrl-C or SIGTERM.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Annotated, Any, NamedTuple

import typer

from xlner import __version__
from xlner.commands.on_models import compare, evaluate, export, push, rank_sources, report, serve
from xlner.commands.on_text import check_data, convert, project, select
from xlner.commands.options import as_options, options_of
from xlner.commands.tag import tag
from xlner.errors import RunError, StoppedError, XlnerError, exit_status, lines_for_terminal, sigterm_as_ctrl_c

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

app = typer.Typer(
    help="Named-entity taggers for languages without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; None: the arguments of this process."""
    end_with_the_launcher()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if sys.stdout is None or sys.stdout is sys.__stdout__:
            sys.stdout = StandardOutput.taken(_output_failed)
        try:
            app(given)
        finally:
            sys.stdout.flush()
    except XlnerError as problem:
        if told := as_options(problem.as_text(), _options(given)):
            typer.echo(lines_for_terminal(told), err=True)
        raise SystemExit(problem.exit_status if isinstance(problem, StoppedError) else 2) from None
    except OSError as problem:  # of a name that is given, as one that is too long
        if problem.filename is None:
            raise
        typer.echo(f"{problem.filename}: {problem.strerror}", err=True)
        raise SystemExit(2) from None


def end_with_the_launcher() -> None:
    """Have SIGTERM sent to this process when `accelerate launch` dies, which forwards no signal to a single process.

    Otherwise training would go on where nobody sees it, and a requeued job would find its run folder locked. Called
    before a job is imported, which takes seconds.
    """
    if sys.platform != "linux" or "ACCELERATE_MIXED_PRECISION" not in os.environ:  # which the launcher always sets
        return
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != launcher:  # it died in between
        os.kill(os.getpid(), signal.SIGTERM)


def _output_failed(problem: OSError) -> None:
    """End the command; where the reader has seen enough there is nothing to tell."""
    if isinstance(problem, BrokenPipeError):
        raise StoppedError("", 128 + 13)  # as of a process that SIGPIPE ends
    raise RunError(f"the standard output cannot be written: {problem.strerror or problem}") from problem


class StandardOutput(TextIOWrapper):
    """The standard output, whose errors are told: a full disk behind `>`, or a reader that has gone, as `head` does.

    After an error what is written goes nowhere.
    """

    @classmethod
    def taken(cls, failed: Callable[[OSError], None]) -> "StandardOutput":
        """Put one in the place of `sys.stdout`, in UTF-8.

        Args:
            failed: Gets the first error; it raises another, or the program goes on without an output.

        Raises:
            RunError: If it is closed.
        """
        if sys.stdout is None:
            raise RunError("the standard output is closed; give it somewhere to go, such as > /dev/null")
        sys.stdout.flush()
        out = os.fdopen(sys.stdout.fileno(), "wb", closefd=False)
        # Names of files may hold bytes that are no UTF-8; stderr writes them so, too.
        output = cls(out, encoding="utf-8", errors="backslashreplace", line_buffering=sys.stdout.isatty())
        output.failed = failed
        return output

    failed: Callable[[OSError], None]

    def write(self, text: str) -> int:
        """Write text; how many characters were taken."""
        with self._errors():
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Have all that was written on its way."""
        with self._errors():
            super().flush()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            self.failed(problem)


def _options(arguments: Sequence[str]) -> set[str]:
    """The options of the command that these arguments call."""
    commands = getattr(typer.main.get_command(app), "commands", {})
    return options_of(next((commands[name] for name in arguments if name in commands), None))


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"xlner {__version__}")
        raise typer.Exit


@app.callback()
def _xlner(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


# Jobs, whose arguments are the keys of a recipe; alone, or as one of the processes that `accelerate launch` starts.


class Job(NamedTuple):
    """A command that is a job: a key of `xlner.config.load.KINDS`, and what `xlner --help` says of it."""

    kind: str
    help: str


def run_job(kind: str, arguments: Sequence[str]) -> None:
    """Run a job, or print its help.

    Args:
        kind: A key of `xlner.config.load.KINDS`.
        arguments: `key=value` texts, or `--help`.

    Raises:
        XlnerError: If it is refused or stopped.
    """
    from xlner.config.load import explain, load_recipe

    if isinstance(sys.stdout, StandardOutput):
        sys.stdout.failed = _go_on_without_output
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        typer.echo(explain(kind))
        return
    show_messages()
    try:
        with sigterm_as_ctrl_c():
            recipe = load_recipe(kind, arguments)  # what is wrong with it is told before torch is imported
            _work(kind)(recipe)
    except RuntimeError as problem:
        from xlner.train.run import LOST_PROCESS, is_lost_process

        if not is_lost_process(problem):
            raise
        raise RunError(LOST_PROCESS) from problem
    except KeyboardInterrupt as stop:
        message = "stopped; the same command goes on from what the run has saved"
        raise StoppedError(message, exit_status(stop)) from None


def show_messages() -> None:
    """Print what the package logs, plain lines on the standard output; in Python, the user's own handlers decide."""
    logger = logging.getLogger("xlner")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _work(kind: str) -> Callable[[Any], object]:
    """What does the work; each brings its own libraries."""
    if kind == "teacher":
        from xlner.jobs.teacher import train_teacher

        return train_teacher
    if kind == "distill":
        from xlner.jobs.distill import distill

        return distill
    if kind == "adapt":
        from xlner.jobs.adapt import adapt_encoder

        return adapt_encoder
    from xlner.tag_files.engines import tag_corpus

    return tag_corpus


def _go_on_without_output(problem: OSError) -> None:
    """Go on: what a run has to give lies in its folder."""
    if not isinstance(problem, BrokenPipeError):
        reason = problem.strerror or problem
        typer.echo(f"the standard output cannot be written: {reason}; the run goes on", err=True)


# A new command is one function in `commands/` and one line here; this is their order in `xlner --help`.
COMMANDS: dict[str, Job | Callable[..., None]] = {
    "train-teacher": Job("teacher", "Train a teacher on labelled source text."),
    "distill": Job("distill", "Distil a student from a teacher, on unlabelled target text."),
    "adapt": Job("adapt", "Adapt an encoder to a language, by raw text."),
    "tag": tag,
    "tag-corpus": Job("tag", "Tag a corpus in shards, by many processes and machines."),
    "evaluate": evaluate,
    "check-data": check_data,
    "convert": convert,
    "select": select,
    "export": export,
    "compare": compare,
    "report": report,
    "project": project,
    "rank-sources": rank_sources,
    "push": push,
    "serve": serve,
}


def _add(name: str, command: Job | Callable[..., None]) -> None:
    if not isinstance(command, Job):
        app.command(name)(command)
        return

    # Its words are those of the recipe, `--help` included, which lists the keys.
    @app.command(name, help=command.help, add_help_option=False, context_settings={"ignore_unknown_options": True})
    def run(
        keys: Annotated[
            list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Keys of the recipe; --help lists all.")
        ] = None,
    ) -> None:
        run_job(command.kind, keys or [])


for _name, _command in COMMANDS.items():
    _add(_name, _command)
