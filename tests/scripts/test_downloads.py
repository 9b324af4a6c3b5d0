import hashlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import REPOSITORY
from download import LOCK_NAME, Pin, RemoteFile, fetch, fetch_all

from xlner.errors import CorpusError

CONTENT = b"Kiel\tB-LOC\n\n" * 1000


def pin_of(content):
    return Pin(len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def server():
    """A web server on this machine; `server.answers` tells what each path answers, and with how many bytes cut off."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            if self.path not in self.server.answers:
                self.send_error(404)
                return
            content, n_missing = self.server.answers[self.path]
            self.send_response(200)
            if n_missing is not None:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) - (n_missing or 0) - self.server.is_slow])
            if self.server.is_slow:
                self.server.ended.wait(20)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.asked = {"/corpus": (CONTENT, 0)}, []
    server.is_slow, server.ended = False, threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}/corpus"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_pinned_file_arrives_whole_and_is_not_asked_for_again(server, tmp_path):
    file = RemoteFile("kiel/train.conll", server.address, pin_of(CONTENT))

    paths = [fetch(file, tmp_path) for _ in range(2)]

    assert paths[0].read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert everything_in(tmp_path) == [LOCK_NAME, "kiel/train.conll"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((CONTENT, 100), "cannot be downloaded|expected 12,000 bytes, received 11,900"),
        ((CONTENT[:-100], None), "expected 12,000 bytes with SHA-256 .* found 11,900 bytes"),
        ((CONTENT.replace(b"Kiel", b"Bonn"), 0), "broken on the way, or changed since"),
    ],
    ids=["cut off", "cut off where no length was announced", "changed"],
)
def test_of_a_broken_or_changed_download_nothing_remains(server, tmp_path, answer, message):
    server.answers["/corpus"] = answer

    with pytest.raises(CorpusError, match=message) as caught:
        fetch(RemoteFile("train.conll", server.address, pin_of(CONTENT)), tmp_path)

    assert server.address in str(caught.value)
    assert "--source" in str(caught.value)
    assert everything_in(tmp_path) == []


def test_what_is_not_there_is_told_with_the_address_and_the_way_out(server, tmp_path):
    with pytest.raises(CorpusError, match=r"/other: cannot be downloaded: .*404.*--source"):
        fetch(RemoteFile("train.conll", server.address.replace("corpus", "other")), tmp_path)

    assert everything_in(tmp_path) == []


def test_a_server_that_cannot_be_reached_is_told(tmp_path):
    with pytest.raises(CorpusError, match="cannot be downloaded"):
        fetch(RemoteFile("train.conll", "http://127.0.0.1:9/corpus"), tmp_path)


def test_without_a_published_checksum_the_first_download_is_what_later_ones_must_be(server, tmp_path):
    file = RemoteFile("train.conll", server.address)
    fetch(file, tmp_path / "here")
    (tmp_path / "there").mkdir()
    lock = (tmp_path / "here" / LOCK_NAME).read_text()
    (tmp_path / "there" / LOCK_NAME).write_text(lock)
    server.answers["/corpus"] = (CONTENT + b"Bonn\tB-LOC\n\n", 0)

    with pytest.raises(CorpusError, match=r"downloads\.lock\.json, from an earlier download"):
        fetch(file, tmp_path / "there")

    assert json.loads(lock) == {server.address: pin_of(CONTENT)._asdict()}
    assert everything_in(tmp_path / "there") == [LOCK_NAME]


def test_downloads_of_several_at_a_time_are_all_noted(server, tmp_path):
    files = [RemoteFile(f"{number}.conll", f"{server.address}?{number}") for number in range(8)]
    server.answers |= {f"/corpus?{number}": (CONTENT, 0) for number in range(8)}
    code = "import sys, pathlib; from download import *; fetch(RemoteFile(*sys.argv[2:]), pathlib.Path(sys.argv[1]))"
    commands = [[sys.executable, "-c", code, tmp_path, file.place, file.url] for file in files]

    started = [subprocess.Popen(command, cwd=REPOSITORY / "data_scripts") for command in commands]

    assert [process.wait(60) for process in started] == [0] * 8
    assert sorted(json.loads((tmp_path / LOCK_NAME).read_text())) == [file.url for file in files]


def test_a_file_in_the_cache_that_somebody_changed_is_refused(server, tmp_path):
    file = RemoteFile("train.conll", server.address)
    fetch(file, tmp_path).write_bytes(b"Bonn\tB-LOC\n\n")

    with pytest.raises(CorpusError, match="is not what was downloaded; remove it"):
        fetch(file, tmp_path)


def test_an_interrupted_download_leaves_nothing_and_the_files_before_it_stay(server, tmp_path, monkeypatch):
    def interrupt(bar, n_bytes):
        raise KeyboardInterrupt

    files = [RemoteFile(name, server.address) for name in ("first", "second")]
    fetch_all(files[:1], tmp_path)
    monkeypatch.setattr("tqdm.std.tqdm.update", interrupt)

    with pytest.raises(KeyboardInterrupt):
        fetch_all(files, tmp_path)

    assert everything_in(tmp_path) == [LOCK_NAME, "first"]


@pytest.mark.slow
def test_a_script_that_is_ended_from_outside_clears_away_what_it_began(server, tmp_path):
    server.answers["/corpus"] = (CONTENT, 0)
    server.is_slow = True
    script = (
        "import sys; from pathlib import Path; from sources import run; from download import *; "
        "sys.exit(run(lambda: fetch(RemoteFile('train.conll', sys.argv[1]), Path(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", script, server.address, str(tmp_path)]
    process = subprocess.Popen(command, cwd=REPOSITORY / "data_scripts", stderr=subprocess.PIPE)
    while not everything_in(tmp_path):
        assert process.poll() is None
        time.sleep(0.01)

    process.terminate()
    process.communicate(timeout=20)

    assert process.returncode == 143
    assert everything_in(tmp_path) == []


def test_a_list_of_downloads_that_is_none_is_refused(server, tmp_path):
    (tmp_path / LOCK_NAME).write_text('["Kiel"]')

    with pytest.raises(CorpusError, match="no list of downloads"):
        fetch(RemoteFile("train.conll", server.address), tmp_path)
