"""Where xlner writes, and what it deletes: nothing outside, and nothing that it did not make."""

import io
import runpy
import tarfile
from pathlib import Path

import pytest
from conftest import REPOSITORY, tiny_model, word_piece_tokenizer

from xlner.backends import unlisted_names, write_manifest
from xlner.config.schema import TeacherRecipe
from xlner.errors import RunError
from xlner.models.folder import save_model
from xlner.models.settings import ModelSettings
from xlner.tag_files.output import BadRecords, discard, open_output
from xlner.train.run import open_run, run_path, start_run


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a b", "-x", "~", "a\n"])
def test_a_bare_run_name_is_a_plain_name_under_runs(name):
    with pytest.raises(RunError, match="expected letters, digits"):
        run_path(name, "de")

    assert run_path("a.b-c_1", "de") == Path("runs/a.b-c_1")


@pytest.mark.parametrize("language", ["../../x", "/x", "x\\y"])
def test_a_language_makes_no_path_of_a_run(language):
    with pytest.raises(RunError, match="expected letters, digits"):
        run_path("", f"teacher-{language}")


def test_an_archive_is_read_by_names_and_unpacked_nowhere(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "data_scripts"))
    tar_members = runpy.run_path(str(REPOSITORY / "data_scripts" / "archives.py"))["tar_members"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in (("../../train", b"words"), ("/etc/other", b"no")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("dev")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)

    found = tar_members(io.BytesIO(packed.getvalue()), "archive", ["train", "dev"])

    assert found == {"train": b"words"}
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


@pytest.fixture
def precious(tmp_path):
    """A folder of somebody else."""
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    return folder


@pytest.mark.parametrize("name", [".model.unfinished", ".model.replaced"])
def test_saving_a_model_deletes_nothing_behind_a_link(precious, tmp_path, name):
    tokenizer = word_piece_tokenizer()
    save_model(tmp_path / "model", tiny_model(tokenizer), tokenizer, ModelSettings())
    (tmp_path / name).symlink_to(precious)

    save_model(tmp_path / "model", tiny_model(tokenizer), tokenizer, ModelSettings())

    assert (precious / "letter.txt").read_text() == "dear"
    assert (tmp_path / "model" / "config.json").is_file()


@pytest.mark.parametrize("name", ["precious", "link"])
def test_a_folder_of_something_else_is_not_replaced_by_a_model(precious, tmp_path, name):
    (tmp_path / "link").symlink_to(precious)
    tokenizer = word_piece_tokenizer()

    with pytest.raises(RunError, match=r"holds other things than a model \(letter.txt\)"):
        save_model(tmp_path / name, tiny_model(tokenizer), tokenizer, ModelSettings())

    assert (precious / "letter.txt").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "precious"]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
@pytest.mark.parametrize("open_it", [True, False])
def test_tagging_drops_nothing_behind_a_link(precious, tmp_path, format, open_it):
    behind = precious / "letter.txt" if format == "jsonl" else precious
    unfinished = tmp_path / f".out.{format}.unfinished"
    unfinished.symlink_to(behind)
    bad_records = BadRecords(stops=True, tell=print, way_out="")

    with pytest.raises(RunError, match="is a link, which no run of xlner made"):
        open_output(unfinished, format, bad_records) if open_it else discard(unfinished)

    assert (precious / "letter.txt").read_text() == "dear"


def test_a_folder_with_a_recipe_of_something_else_is_no_run(precious):
    (precious / "recipe.yaml").write_text("bread: 500 g of flour\n")
    recipe = TeacherRecipe()

    with (
        pytest.raises(RunError, match="holds files that are no run of xlner"),
        open_run(precious, recipe, writes=True) as run,
    ):
        start_run(run, recipe)

    assert (precious / "recipe.yaml").read_text().startswith("bread")
    assert sorted(path.name for path in precious.iterdir()) == ["letter.txt", "recipe.yaml"]


def test_a_run_that_was_begun_and_has_no_checkpoint_is_begun_again(tmp_path):
    recipe = TeacherRecipe()
    begun = []

    for _ in range(2):
        with open_run(tmp_path / "run", recipe, writes=True) as run:
            start_run(run, recipe)
            begun.append(sorted(path.name for path in run.path.iterdir()))

    assert begun == [[".lock", "recipe.yaml", "status.json"]] * 2


def test_an_export_replaces_only_what_an_export_made(precious):
    foreign = '{"name": "a web page", "files": ["letter.txt"]}'
    (precious / "manifest.json").write_text(foreign)
    before = unlisted_names(precious)
    (precious / "model.onnx").write_text("")

    write_manifest(precious, ["model.onnx"], precision="fp32", max_length=9, pad_id=0)

    assert before == ["letter.txt", "manifest.json"]
    assert unlisted_names(precious) == ["letter.txt"]
    (precious / "letter.txt").unlink()
    assert unlisted_names(precious) == []
