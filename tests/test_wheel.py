import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.slow

BESIDE_THE_PACKAGE = ("pyproject.toml", "README.md", "LICENSE")


def run(*command: str, cwd: Path) -> str:
    """A module run by this Python, which sees no xlner but the installed one; its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outcome = subprocess.run([sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel, built of a copy (a build leaves files in the tree) and installed outside the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(REPOSITORY / "xlner", source / "xlner", ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE_THE_PACKAGE:
        shutil.copy(REPOSITORY / name, source)
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), cwd=source)
    (wheel,) = folder.glob("xlner-*.whl")
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel), cwd=folder)
    return folder / "site"


def test_the_wheel_brings_every_file_of_the_package(installed):
    folder = REPOSITORY / "xlner"
    wanted = {path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".py", ".typed", ".tsv")}

    missing = {path for path in wanted if not (installed / "xlner" / path).is_file()}

    assert not missing


def test_the_installed_package_is_imported_from_where_it_was_installed(installed, tmp_path):
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); import xlner, xlner.cli; print(xlner.cli.__file__)"

    assert Path(run("-c", program, cwd=tmp_path).strip()) == installed / "xlner" / "cli.py"


def test_the_installed_package_tells_spacy_of_its_component(installed):
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")

    assert "[spacy_factories]\nxlner = xlner.spacy_component:make_component" in entry_points.read_text()
