"""A trained pipeline as a wheel, which `pip` installs; made offline, by `spacy package` and `build`."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from spacy.cli.package import package

from xlner.errors import ModelError


def build_wheel(pipeline: Path, folder: Path) -> Path:
    """The wheel of a pipeline, named as its `meta.json` says.

    Args:
        pipeline: A folder that `spacy.load` opens.
        folder: Where to put it; a wheel of the same name is replaced.

    Raises:
        ModelError: If `build` or `setuptools` is not installed, or fails.
    """
    with tempfile.TemporaryDirectory() as place:
        # Only the sources: spaCy would let `build` fetch setuptools from the network.
        with contextlib.redirect_stdout(sys.stderr):
            package(pipeline, Path(place), create_sdist=False, create_wheel=False)
        (source,) = Path(place).iterdir()
        done = subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        found = sorted(source.glob("dist/*.whl"))
        if done.returncode or not found:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no wheel was made"]
            raise ModelError(
                f"{pipeline}: is written, but cannot be packaged ({reason[0].strip()}); "
                "a wheel needs `pip install build setuptools`"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(found[0], folder / found[0].name))
