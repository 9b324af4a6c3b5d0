"""Files: whole or not there, with the mode and at the place of what they replace; locks, torn lines, leftovers."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xlner import files
from xlner.errors import CorpusError, RunError
from xlner.files import (
    append_line,
    check_writable,
    locked,
    read_json,
    read_lines,
    refuse_own_input,
    remove_unfinished,
    replaced,
    write_json,
    write_text,
)

UNUSED_PID = 2**22 + 1  # above the greatest that Linux gives


def left_by(target, pid=UNUSED_PID, host=None):
    """What a killed process leaves that was writing a target."""
    path = target.with_name(f".{target.name}.{host or files._host()}@{pid}-0.unfinished")
    path.write_text("half")
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text("old")
    path.chmod(0o640)

    write_text(path, "new")

    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)


def test_a_link_stays_a_link_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/file")

    for text in ("first", "second"):  # at first it points to nothing
        write_text(tmp_path / "link", text)

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "second"
    assert names(tmp_path / "elsewhere") == ["file"]


def test_a_device_is_written_into_and_stays_one():
    before = os.stat("/dev/null")

    write_text(Path("/dev/null"), "nothing")

    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.stat("/dev/null").st_ino == before.st_ino


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_gets_all_that_is_written(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()

    write_text(tmp_path / "pipe", "words")

    reader.join(10)
    assert read == ["words"]
    assert names(tmp_path) == ["pipe"]


def test_an_error_leaves_what_was_there_and_nothing_beside_it(tmp_path):
    (tmp_path / "file").write_text("old")

    def write_and_stop():
        with replaced(tmp_path / "file") as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()

    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("x" * 256, "File name too long"), ("folder", "is a folder; expected a file"), ("file/x", "cannot be written")],
)
def test_a_place_where_no_file_can_be_is_refused_by_name(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(RunError, match=message):
        write_text(tmp_path / name, "")


def test_the_longest_name_that_a_file_can_have_can_be_written(tmp_path):
    write_text(tmp_path / ("ü" * 127), "words")

    assert names(tmp_path) == ["ü" * 127]


def test_what_killed_processes_left_of_a_file_goes_when_it_is_written_and_nothing_else_does(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_unfinished_in", files._unfinished_in.__wrapped__)
    target = tmp_path / "out.jsonl"
    left_by(target)
    kept = [left_by(target, pid=os.getppid()), left_by(target, host="other"), left_by(tmp_path / "out")]

    write_text(target, "")

    assert names(tmp_path) == sorted([*(path.name for path in kept), "out.jsonl"])


def test_what_a_killed_process_left_within_what_it_wrote_goes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_unfinished_in", files._unfinished_in.__wrapped__)
    left = left_by(left_by(tmp_path / "out"))  # a file that is written by way of another one
    hidden = left_by(tmp_path / ".out")
    folder = left_by(tmp_path / "out").with_name(f"{left_by(tmp_path / 'out').name}.parquet")
    left_by(folder)
    assert len(names(tmp_path)) == 4

    write_text(tmp_path / "out", "")

    assert not left.exists()
    assert names(tmp_path) == [hidden.name, "out"]


def test_what_is_read_is_not_written_over_whatever_it_is_called(tmp_path):
    source = tmp_path / "a.txt"
    source.write_text("text")
    (tmp_path / "link").symlink_to(source)

    for target in (source, tmp_path / "link", tmp_path / "." / "a.txt"):
        with pytest.raises(CorpusError, match=r"^--out .*: this is the input .*a\.txt itself; give the output another"):
            refuse_own_input(target, ["hub:name:train", source], "--out")
    refuse_own_input(tmp_path / "b.txt", [source], "--out")
    refuse_own_input(source, ["hub:name:train"], "--out")


def test_the_owner_of_a_folder_removes_what_is_left_of_its_files_by_any_machine(tmp_path):
    target, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    left_by(target, host="other")
    kept = left_by(other, host="other")

    remove_unfinished([target])

    assert names(tmp_path) == [kept.name]


def test_a_folder_that_was_moved_aside_by_a_killed_process_is_put_back(tmp_path):
    (tmp_path / ".model.replaced").mkdir()
    (tmp_path / ".model.replaced" / "weights").write_text("old")

    with pytest.raises(KeyboardInterrupt), replaced(tmp_path / "model", lambda folder: None):
        raise KeyboardInterrupt

    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "old"


@pytest.mark.parametrize("torn", [b'{"step": 2, "lo', b"\0\0\0\0", b'{"step": 2}', b"\xff\xfe"])
def test_a_torn_last_line_is_dropped_when_read_and_before_the_next_one(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    append_line(path, json.dumps({"step": 1}))
    with path.open("ab") as file:
        file.write(torn)

    before = read_lines(path)
    append_line(path, json.dumps({"step": 3}))

    assert list(map(json.loads, before)) == [{"step": 1}]
    assert list(map(json.loads, read_lines(path))) == [{"step": 1}, {"step": 3}]


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_a_changed_byte_of_checked_json_is_found(tmp_path, place):
    path = tmp_path / "card.json"
    write_json(path, {"scale": 1.25, "tags": ["O", "B-LOC"]})
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"card\.json: "):
        read_json(path)


@pytest.mark.slow
def test_a_lock_keeps_other_processes_out_and_leaves_no_file(tmp_path):
    ask = "import sys; from pathlib import Path; from xlner.files import locked\n"
    ask += "with locked(Path(sys.argv[1]), lambda: sys.exit('taken')): pass"

    def other():
        return subprocess.run([sys.executable, "-c", ask, tmp_path / ".lock"], capture_output=True, check=False).stderr

    with locked(tmp_path / ".lock", pytest.fail):
        during = other()

    assert (during.strip(), other().strip()) == (b"taken", b"")
    assert names(tmp_path) == []


def test_whoever_waits_for_a_lock_gets_it_when_the_other_has_gone(tmp_path):
    order, waits = [], threading.Event()

    def wait_for_it():
        with locked(tmp_path / ".lock", waits.set):
            order.append("second")

    with locked(tmp_path / ".lock", pytest.fail):
        second = threading.Thread(target=wait_for_it)
        second.start()
        assert waits.wait(10)
        order.append("first")
    second.join(10)

    assert order == ["first", "second"]


@pytest.mark.parametrize("module", ["fcntl", "resource"])
def test_nothing_needs_a_module_that_windows_lacks_before_it_is_used(module):
    lines = [
        (path, line)
        for path in Path(files.__file__).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]

    assert [(path, line) for path, line in lines if line.startswith((f"import {module}", f"from {module}"))] == []


@pytest.mark.slow
def test_a_full_file_system_is_told_and_leaves_what_was_there(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", place]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a small file system")
    try:
        write_text(place / "file", "old")
        append_line(place / "lines", "first")
        with pytest.raises(RunError, match="No space left on device"):
            write_text(place / "file", "x" * 100_000)
        with pytest.raises(RunError, match="No space left on device"):
            append_line(place / "lines", "x" * 100_000)
        found = (place / "file").read_text(), (place / "lines").read_text(), names(place)
    finally:
        subprocess.run(["umount", place], check=True)

    assert found == ("old", "first\n", ["file", "lines"])


def test_what_is_written_within_another_writing_is_told_by_its_own_name(tmp_path):
    with pytest.raises(RunError) as told, replaced(tmp_path / "x.conll") as unfinished, replaced(unfinished):
        raise OSError(28, "No space left on device")

    assert str(told.value) == f"{tmp_path / 'x.conll'}: cannot be written: No space left on device"


def test_a_place_where_nothing_can_be_written_is_told_and_left_as_it_is(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")

    places = (tmp_path / "new" / "folder" / "out.jsonl", tmp_path / "out.jsonl", tmp_path / "file", Path(os.devnull))
    for path in places:
        check_writable(path)
    with pytest.raises(RunError, match="cannot be written: Not a directory"):
        check_writable(tmp_path / "file" / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
