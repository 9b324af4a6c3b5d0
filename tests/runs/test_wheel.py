import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest
from conftest import REPOSITORY

KINDS = (".py", ".typed", ".tsv", ".txt", ".html", ".css", ".js", ".svg")
DEPENDENCIES = Path(numpy.__file__).parents[1]  # where what xlner needs is installed
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, python: str | Path = sys.executable) -> str:
    """A module run by a Python that sees no xlner but the installed one; its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outcome = subprocess.run([python, *command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the repository (a build leaves files in the tree), in a folder that is named as the package is."""
    folder = tmp_path_factory.mktemp("clone") / "xlner"
    for name in ("xlner", "recipes", "data_scripts", "docs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=clone)
    (path,) = folder.glob("xlner-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel, installed outside the tree."""
    site = tmp_path_factory.mktemp("installed") / "site"
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel, cwd=wheel.parent)
    return site


@pytest.fixture(scope="module")
def editable(clone, tmp_path_factory) -> Path:
    """What an editable install of the clone puts among the installed packages."""
    folder = tmp_path_factory.mktemp("editable")
    build = "import sys, hatchling.build; print(hatchling.build.build_editable(sys.argv[1]))"
    name = run("-c", build, folder, cwd=clone).strip()
    with zipfile.ZipFile(folder / name) as files:
        files.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_brings_every_file_of_the_package(installed):
    folder = REPOSITORY / "xlner"
    wanted = {path.relative_to(folder) for path in folder.rglob("*") if path.suffix in KINDS}

    missing = {path for path in wanted if not (installed / "xlner" / path).is_file()}

    assert not missing


def test_the_installed_package_is_imported_from_where_it_was_installed(installed, tmp_path):
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); import xlner, xlner.cli; print(xlner.cli.__file__)"

    assert Path(run("-c", program, cwd=tmp_path).strip()) == installed / "xlner" / "cli.py"


def test_the_installed_package_tells_spacy_of_its_component(installed):
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")

    assert "[spacy_factories]\nxlner = xlner.spacy_component:make_component" in entry_points.read_text()


@pytest.mark.slow
def test_the_wheel_alone_does_the_whole_way_in_an_empty_folder(wheel, tiny_encoder, tmp_path):
    environment, place = tmp_path / "environment", tmp_path / "empty"
    place.mkdir()
    run("-m", "venv", "--without-pip", environment, cwd=tmp_path)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{DEPENDENCIES}\n")
    python = environment / "bin" / "python"
    run("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-I", wheel, cwd=tmp_path)
    demo = packages / "xlner" / "recipes" / "demo"
    brief = ("optimization.epochs=1", "hardware.cpu=true", "hardware.precision=fp32", "hardware.threads=1")

    def xlner(*arguments: str | Path) -> str:
        return run(environment / "bin" / "xlner", *arguments, cwd=place, python=python)

    xlner("adapt", "target=de", f"data={demo}", f"encoder={tiny_encoder}", *brief)
    xlner("train-teacher", "recipe=en", f"data={demo}", "encoder=runs/encoder-de/model", "run=en", *brief)
    xlner("distill", "target=de", f"data={demo}", "teacher=runs/en/model", *brief)
    (place / "text.txt").write_text("Angela Merkel besuchte Kiel.\n")

    assert sorted(path.name for path in (place / "runs").iterdir()) == ["de", "en", "encoder-de", "soft-labels"]
    assert json.loads(xlner("tag", "runs/de/model", "text.txt"))["text"] == "Angela Merkel besuchte Kiel."
    assert "F1" in xlner("evaluate", "runs/de/model", demo / "de" / "test.conll")
    assert "sentences" in xlner("check-data", demo / "de" / "test.conll")
    xlner("convert", demo / "de" / "test.conll", "test.jsonl")
    xlner("tag-corpus", "model=runs/de/model", "input=text.txt", "output=tagged", "cpu=true")
    assert "de" in xlner("compare", "runs/de")
    assert {path.name for path in place.iterdir()} == {"runs", "tagged", "test.jsonl", "text.txt"}
    # What messages and pages refer to is there as well.
    assert (packages / "xlner" / "docs" / "errors.md").is_file()
    script = packages / "xlner" / "data_scripts" / "wikineural.py"
    assert "--source" in run(script, "--help", cwd=place, python=python)


def test_a_clone_is_imported_from_the_folder_above_it_too(clone, editable):
    program = (
        f"import site, sys; sys.path.append({str(DEPENDENCIES)!r}); site.addsitedir({str(editable)!r})\n"
        "from xlner import load_tagger; print(sys.modules['xlner'].__file__)"
    )

    # -S: an xlner that is installed for these tests is not seen.
    found = run("-S", "-c", program, cwd=clone.parent)

    assert Path(found.strip()) == clone / "xlner" / "__init__.py"


def test_a_type_checker_sees_the_types_of_an_editable_install(clone, editable, tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed: pip install -e '.[dev]'")
    environment = tmp_path / "environment"
    run("-m", "venv", "--without-pip", environment, cwd=tmp_path)
    (packages,) = environment.glob("lib/python*/site-packages")
    shutil.copytree(editable, packages, dirs_exist_ok=True)
    (clone.parent / "use.py").write_text("from xlner import __version__\n\nreveal_type(__version__)\n")

    checker = ("-m", "mypy", "--strict", "--config-file", "", "--python-executable", environment / "bin" / "python")
    told = run(*checker, "use.py", cwd=clone.parent)

    assert 'Revealed type is "str"' in told
