"""A training job from the command line, alone or as one of the processes that `accelerate launch` starts.

Nothing that takes time is imported before it is needed: help is quick, and a process is bound to its launcher at once.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def launch(kind: str, arguments: Sequence[str] | None = None) -> int:
    """Run a job; the exit status: 0 done, 2 refused, 130 or 143 stopped.

    Args:
        kind: A key of `xlner.config.load.KINDS`.
        arguments: `key=value` texts, or `--help`; None: those of the command line.
    """
    end_with_the_launcher()  # before the imports below, which take seconds
    from xlner.config.load import explain, load_recipe
    from xlner.errors import StoppedError, XlnerError, lines_for_terminal
    from xlner.files import StandardOutput
    from xlner.signals import exit_status, sigterm_as_ctrl_c

    given = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, StandardOutput):  # that of the command `xlner`, which would end
        sys.stdout.failed = _output_failed
    elif sys.stdout is sys.__stdout__:
        sys.stdout = StandardOutput.taken(_output_failed)
    if not given or {"-h", "--help", "help"} & set(given):
        print(explain(kind), flush=True)  # noqa: T201
        return 0
    show_messages()
    try:
        with sigterm_as_ctrl_c():
            _job(kind)(load_recipe(kind, given))
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)  # noqa: T201
        return stopped.exit_status
    except XlnerError as problem:
        print(lines_for_terminal(problem.as_text()), file=sys.stderr)  # noqa: T201
        return 2
    except OSError as problem:  # of a name that is given, as one that is too long
        if problem.filename is None:
            raise
        print(f"{problem.filename}: {problem.strerror}", file=sys.stderr)  # noqa: T201
        return 2
    except RuntimeError as problem:
        from xlner.train.run import LOST_PROCESS, is_lost_process

        if not is_lost_process(problem):
            raise
        print(LOST_PROCESS, file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt as stop:
        print("stopped; the same command goes on from what the run has saved", file=sys.stderr)  # noqa: T201
        return exit_status(stop)
    return 0


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


def end_with_the_launcher() -> None:
    """Have SIGTERM sent to this process when `accelerate launch` dies, which forwards no signal to a single process.

    Otherwise training would go on where nobody sees it, and a requeued job would find its run folder locked.
    """
    if sys.platform != "linux" or "ACCELERATE_MIXED_PRECISION" not in os.environ:  # which the launcher always sets
        return
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != launcher:  # it died in between
        os.kill(os.getpid(), signal.SIGTERM)


def _job(kind: str) -> Callable[[Any], object]:
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
    from xlner.tag_files.job import tag_corpus

    return tag_corpus


def _output_failed(problem: OSError) -> None:
    """Go on: what a run has to give lies in its folder."""
    if not isinstance(problem, BrokenPipeError):
        reason = problem.strerror or problem
        print(f"the standard output cannot be written: {reason}; the run goes on", file=sys.stderr)  # noqa: T201
