"""Models that are pushed to the hub and opened from there; a server speaks as much of its protocol as is needed."""

import base64
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import REPOSITORY

from xlner import load_tagger
from xlner.errors import ModelError
from xlner.hub import push

TEXT = "Angela Merkel besuchte Kiel."


class Hub(http.server.ThreadingHTTPServer):
    """Repositories in memory: their files by revision, whether they are private, and the tokens that may write."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.files, self.private, self.messages = {}, {}, []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments):
        pass

    def answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path = self.path.partition("?")[0]
        if self.headers.get("Authorization") != "Bearer right":
            self.answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            self.server.private[name] = asked.get("private", False) or asked.get("visibility") == "private"
            self.answer({"url": f"{self.server.address}/{name}"})
        elif path == "/api/validate-yaml":  # of the card
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            asked = json.loads(body)["files"]
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
            self.answer({"files": files})
        elif "/commit/" in path:
            self.answer(self.commit(path, [json.loads(line) for line in body.splitlines()]))
        else:
            self.answer({"error": f"not known here: {path}"}, 404)

    def commit(self, path, lines):
        name, revision = path.removeprefix("/api/models/").split("/commit/")
        files = self.server.files.setdefault((name, revision), {})
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            else:
                self.server.messages.append(line["value"]["summary"])
        mark = hashlib.sha1(b"".join(files.values()), usedforsecurity=False).hexdigest()
        return {"commitUrl": f"{self.server.address}/{name}/commit/{mark}", "commitOid": mark}

    def do_GET(self):
        path = self.path.partition("?")[0]
        for (name, revision), files in self.server.files.items():
            commit = commit_of(revision)
            if path in (f"/api/models/{name}/revision/{revision}", f"/api/models/{name}"):
                self.answer({"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]})
                return
            for state in (revision, commit):
                if path.startswith(f"/api/models/{name}/tree/{state}"):
                    rows = [{"type": "file", "path": file, "size": len(files[file]), "oid": "0"} for file in files]
                    self.answer(rows)
                    return
                if path.startswith(f"/{name}/resolve/{state}/"):
                    self.answer_file(files.get(path.rpartition("/")[2]), commit)
                    return
        self.answer(b"", 404, X_Error_Code="RevisionNotFound", X_Error_Message="not there")

    def answer_file(self, content, commit):
        if content is None:
            self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Error_Message="not there", X_Repo_Commit=commit)
        else:
            mark = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            self.answer(content, ETag=f'"{mark}"', X_Repo_Commit=commit, X_Linked_Size=str(len(content)))

    do_HEAD = do_GET  # noqa: N815 - its name is given


def commit_of(revision):
    return hashlib.sha1(revision.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def hub():
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def here(hub, home, code, *arguments, token="right"):
    """Run Python with this hub as its hub."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)


PUSH = """
import sys
from xlner import load_tagger
from xlner.errors import ModelError
try: print(load_tagger(sys.argv[1]).push_to_hub(sys.argv[2], private=True, message="first"))
except ModelError as problem: print("refused:", problem)
"""
OPEN = """
import sys
from xlner import load_tagger
from xlner.errors import ModelError
try: tagger = load_tagger(sys.argv[1], revision=sys.argv[2])
except ModelError as problem: print("refused:", problem)
else: print(tagger.name, tagger.tag_words(tagger.words(sys.argv[3])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", "compact"])
def test_a_model_that_was_pushed_opens_from_the_hub_and_tags_as_its_folder(hub, bert_folder, linear, tmp_path, kind):
    folder = Path(bert_folder) if kind == "network" else linear

    pushed = here(hub, tmp_path / "home", PUSH, folder, "someone/tagger")

    assert pushed.stdout.strip().startswith(f"{hub.address}/someone/tagger/commit/"), pushed.stderr
    assert hub.private == {"someone/tagger": True}
    assert hub.messages == ["first"]
    assert hub.files["someone/tagger", "main"] == {path.name: path.read_bytes() for path in folder.iterdir()}
    opened = here(hub, tmp_path / "other", OPEN, "someone/tagger", "main", TEXT)
    tagger = load_tagger(folder)
    assert opened.stdout.strip() == f"someone/tagger {tagger.tag_words(tagger.words(TEXT))}", opened.stderr


@pytest.mark.slow
def test_another_revision_is_another_model(hub, bert_folder, linear, tmp_path):
    hub.files["someone/tagger", "main"] = {path.name: path.read_bytes() for path in Path(bert_folder).iterdir()}
    hub.files["someone/tagger", "v1"] = {path.name: path.read_bytes() for path in linear.iterdir()}

    first = here(hub, tmp_path, OPEN, "someone/tagger", "v1", TEXT)
    none = here(hub, tmp_path, OPEN, "someone/tagger", "v2", TEXT)

    tagger = load_tagger(linear)
    assert first.stdout.strip() == f"someone/tagger {tagger.tag_words(tagger.words(TEXT))}", first.stderr
    assert none.stdout.startswith("refused: someone/tagger, revision v2: could not be fetched")


@pytest.mark.slow
def test_who_may_not_write_is_told_how(hub, linear, tmp_path):
    done = here(hub, tmp_path, PUSH, linear, "someone/tagger", token="wrong")

    assert "refused: someone/tagger: the hub refuses: " in done.stdout
    assert "log in by `hf auth login`" in done.stdout
    assert hub.files == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected a finished model, found nothing"),
        ({"config.json": "{}"}, "expected a finished model, found config.json; is its training still running?"),
        ({"student.json": "{}", "notes.docx": "x"}, r"holds other things than a model \(notes.docx\)"),
        ({"student.json": "{}", "weights.bin": "x"}, r"holds other things than a model \(weights.bin\)"),
    ],
)
def test_a_folder_that_is_no_finished_model_is_not_pushed(tmp_path, content, message):
    for name, text in content.items():
        (tmp_path / name).write_text(text)

    with pytest.raises(ModelError, match=message):
        push(tmp_path, "someone/tagger")


def test_a_run_is_told_where_its_model_lies(tmp_path, linear):
    shutil.copytree(linear, tmp_path / "run" / "model")

    with pytest.raises(ModelError, match=r"run: is a run; give the folder of its model: .*run/model"):
        push(tmp_path / "run", "someone/tagger")
