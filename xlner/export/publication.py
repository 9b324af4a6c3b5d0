"""What exports of whole folders share: where they may be written, and that only what agrees with the original stays."""

import shutil
from collections.abc import Callable
from pathlib import Path

from xlner.errors import ModelError
from xlner.export.parity import Attempt, Reference
from xlner.tagger import load_tagger


def check_target(target: Path, model: str, what: str, is_earlier: Callable[[], bool]) -> None:
    """Refuse a folder that an export would overwrite.

    Args:
        target: To be written, or replaced.
        model: The original.
        what: The export makes, as messages call it.
        is_earlier: Whether the target, which holds something, is such an export; asked for nothing else.

    Raises:
        ModelError: If it is a file, the original itself, or holds other things.
    """
    if target.resolve() == Path(model).resolve():
        raise ModelError(f"{target}: is the model itself; give another folder")
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target}: is a file; expected a folder to write, or nothing")
    if target.is_dir() and any(target.iterdir()) and not is_earlier():
        raise ModelError(f"{target}: holds other things than {what}; give another or an empty folder")


def compared(
    unfinished: Path, model: str, scheme: str, reference: Reference, *, force: bool, report: Callable[[Attempt], None]
) -> Attempt:
    """Hold a written folder against the original; one that differs too much is removed, unless it is forced.

    Args:
        unfinished: The folder.
        model: The original, as messages call it.
        scheme: How its weights are stored.
        reference: What the original said.
        force: Keep it even if it differs too much.
        report: Called with the result before that is decided.

    Raises:
        ModelError: If it differs too much.
    """
    result = Attempt(scheme, reference.compare(load_tagger(unfinished)))
    report(result)
    if not result.parity.acceptable and not force:
        shutil.rmtree(unfinished, ignore_errors=True)  # the disk must not speak over the reason
        raise ModelError(f"{model}: differs too much after the export: {result.scheme}: {result.parity}")
    return result
