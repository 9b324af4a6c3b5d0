"""What `xlner export --web` writes, and what it refuses; the browser itself is in tests/web/test_browser_tagger.py."""

import base64
import hashlib
import tarfile

import pytest
from test_students import SENTENCES, make_student
from typer.testing import CliRunner

from xlner import load_tagger
from xlner.cli import app
from xlner.errors import ModelError
from xlner.export import in_browser
from xlner.export.in_browser import ARCHIVE, PAGE_FILES, RUNTIME_FILES, export_to_browser, runtime_files


@pytest.fixture
def package(tmp_path):
    """An npm package with the right names in it, unpacked."""
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / "dist" / name).write_bytes(name.encode())
    return folder


def packed(package, monkeypatch):
    """The package as an archive, which the program takes for the one that it knows."""
    archive = package.parent / ARCHIVE
    with tarfile.open(archive, "w:gz") as content:
        content.add(package, "package")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    monkeypatch.setattr(in_browser, "INTEGRITY", digest)
    return archive


def test_the_folder_of_a_graph_has_the_page_the_model_and_the_runtime(tmp_path, package):
    make_student(tmp_path / "model", "bilstm", "crf")

    command = ["export", str(tmp_path / "model"), "--web", str(tmp_path / "web"), "--force"]
    for _ in range(2):  # the second one replaces the first
        told = CliRunner().invoke(app, [*command, "--onnxruntime-web", str(package)])
        assert told.exit_code == 0, told.output

    names = {path.name for path in (tmp_path / "web").iterdir()}
    assert names >= {*PAGE_FILES, *RUNTIME_FILES, "model.onnx", "model.safetensors", "vocabulary.json", "student.json"}
    assert load_tagger(tmp_path / "web").tag("Anna lebt in Kiel") is not None


def test_a_linear_student_needs_no_runtime(tmp_path):
    make_student(tmp_path / "model", "linear")

    export_to_browser(str(tmp_path / "model"), tmp_path / "web", SENTENCES[:1], force=True)

    names = {path.name for path in (tmp_path / "web").iterdir()}
    assert names >= {*PAGE_FILES, "model.safetensors"}
    assert not names & {*RUNTIME_FILES, "model.onnx"}


@pytest.mark.parametrize("place", ["given", "node_modules/onnxruntime-web", ARCHIVE])
def test_the_runtime_is_found_where_it_is_given_or_in_the_working_folder(tmp_path, package, monkeypatch, place):
    (tmp_path / "here/node_modules").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    if place == ARCHIVE:
        packed(package, monkeypatch).rename(tmp_path / "here" / ARCHIVE)
    elif place != "given":
        package.rename(tmp_path / "here" / place)

    found = runtime_files(package if place == "given" else None)

    assert found == {name: name.encode() for name in RUNTIME_FILES}


@pytest.mark.parametrize("kind", ["nothing", "no such place", "another archive", "a folder without it"])
def test_a_runtime_that_is_not_there_is_told_with_its_address_and_nothing_is_written(
    tmp_path, package, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)
    make_student(tmp_path / "model", "bilstm")
    place = {"nothing": None, "no such place": tmp_path / "none", "a folder without it": tmp_path / "model"}.get(kind)
    if kind == "another archive":
        place = packed(package, monkeypatch)
        place.write_bytes(place.read_bytes()[:-1])

    with pytest.raises(ModelError, match=rf"https://registry\.npmjs\.org/.*{ARCHIVE}"):
        export_to_browser(str(tmp_path / "model"), tmp_path / "web", SENTENCES[:1], runtime=place)

    assert not (tmp_path / "web").exists()


def test_a_transformer_is_refused_with_what_would_do(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")

    told = CliRunner().invoke(app, ["export", str(tmp_path / "model"), "--web", str(tmp_path / "web")])

    assert told.exit_code != 0
    assert "student=bilstm" in str(told.exception)
    assert not (tmp_path / "web").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    make_student(tmp_path / "model", "linear")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("mine")

    with pytest.raises(ModelError, match="holds other things"):
        export_to_browser(str(tmp_path / "model"), tmp_path / "site", SENTENCES[:1], force=True)

    assert [path.read_text() for path in (tmp_path / "site").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--half"], "--half"), (["--onnx", "other"], "name one folder"), (["again"], "exports one model, found 2")],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, options, message):
    told = CliRunner().invoke(app, ["export", "model", "--web", str(tmp_path / "web"), *options])

    assert told.exit_code != 0
    assert message in f"{told.output} {told.exception}"
