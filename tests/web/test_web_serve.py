import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import pytest
from conftest import REPOSITORY, SENTENCES, tiny_model, unigram_tokenizer

from xlner.errors import ModelError, RunError
from xlner.tagger import load_tagger

pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install 'xlner[serve]'")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: pip install 'xlner[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'xlner[serve]'")

from xlner.web.serve import ServeSettings, headers_of, make_app, open_models, run  # noqa: E402

TEXT = "😀 Angela Merkel besuchte Kiel, und die Siemens AG sitzt in München."


class Answer(NamedTuple):
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def told(self):
        return json.dumps(self.json["detail"])


class Service:
    """A running service, asked as clients ask it: over a socket."""

    def __init__(self, port):
        self.port = port

    def ask(self, path, content=None, *, method=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        kind = {} if body is None else {"content-type": "application/json"}
        with contextlib.closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, body, {**kind, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())


@contextlib.contextmanager
def serving(settings):
    """A service in a thread of this process."""
    config = uvicorn.Config(
        make_app(settings), host="127.0.0.1", port=0, log_level="error", access_log=False, headers=headers_of(settings)
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield Service(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(60)


@pytest.fixture(scope="module")
def gpe_folder(tmp_path_factory):
    """A model of other types than those of the other models; PER alone it shares with them."""
    folder = tmp_path_factory.mktemp("gpe")
    tokenizer = unigram_tokenizer()
    network = tiny_model(tokenizer, kind="xlm-roberta").recognizer
    tags = ["O", "B-PER", "I-PER", "B-GPE", "I-GPE", "B-DATE", "I-DATE"]
    network.config.id2label = dict(enumerate(tags))
    network.config.label2id = {tag: number for number, tag in enumerate(tags)}
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def settings(bert_folder, xlmr_folder, gpe_folder):
    return ServeSettings((f"bert={bert_folder}", f"xlmr={xlmr_folder}", f"gpe={gpe_folder}"))


@pytest.fixture(scope="module")
def service(settings):
    with serving(settings) as running:
        yield running


def test_a_text_gets_the_entities_that_the_tagger_finds(service, bert_folder):
    wanted = load_tagger(bert_folder).tag(TEXT)

    answer = service.ask("/v1/tag", {"text": TEXT})

    assert answer.status == 200
    (result,) = answer.json["results"]
    assert answer.json["model"] == "bert"
    assert [(e["text"], e["label"], e["start"], e["end"]) for e in result["entities"]] == [e[:4] for e in wanted]
    assert [e["score"] for e in result["entities"]] == pytest.approx([e.score for e in wanted], abs=1e-4)
    assert wanted != []


def test_several_texts_get_a_result_each_by_the_model_that_is_named(service, xlmr_folder):
    texts = [*SENTENCES, "", "北京 e\u0301 🚀"]
    tagger = load_tagger(xlmr_folder)

    answer = service.ask("/v1/tag", {"texts": texts, "model": "xlmr", "threshold": 0.5, "types": ["PER", "ORG"]})

    wanted = tagger.tag_batch(texts, threshold=0.5, types=["PER", "ORG"])
    found = [[(e["label"], e["start"], e["end"]) for e in result["entities"]] for result in answer.json["results"]]
    assert found == [[(e.label, e.start, e.end) for e in entities] for entities in wanted]
    assert sum(map(len, found)) > 0


def test_offsets_in_utf16_are_those_of_javascript(service):
    characters, units = (
        service.ask("/v1/tag", {"text": TEXT, "offsets": offsets}).json["results"][0]["entities"]
        for offsets in ("characters", "utf16")
    )

    encoded = TEXT.encode("utf-16-le")
    assert [encoded[2 * e["start"] : 2 * e["end"]].decode("utf-16-le") for e in units] == [e["text"] for e in units]
    # One emoji stands before all but itself, and takes two units.
    assert [e["end"] + 1 for e in characters] == [e["end"] for e in units]


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b'{"text', 422, "JSON decode error"),
        (b"[" * 200_000, 400, "parsing the body"),
        (b"", 422, "Field required"),
        (b"[]", 422, "valid dictionary"),
        ({}, 422, "expected either text or texts"),
        ({"text": "a", "texts": ["b"]}, 422, "expected either text or texts"),
        ({"text": 5}, 422, "valid string"),
        ({"texts": "a"}, 422, "valid list"),
        ({"text": "a", "treshold": 1}, 422, "Extra inputs"),
        ({"text": "a", "threshold": 1.5}, 422, "less than or equal to 1"),
        (b'{"text": "a", "threshold": NaN}', 422, "finite"),
        ({"text": "a", "offsets": "bytes"}, 422, "'characters' or 'utf16'"),
        ({"text": "a", "model": "none"}, 404, "expected one of: bert, xlmr, gpe"),
        ({"text": "a", "types": ["GPE"]}, 422, "it knows LOC, ORG, PER"),
        ({"text": "geheim \ud83d"}, 422, "lone surrogate"),
        ({"text": "geheim " * 100_000}, 413, "700,000 characters; at most 100,000"),
        ({"text": "geheim " * 150_000 * 2}, 413, "at most 2,000,000 bytes"),
        ({"texts": ["a"] * 257}, 413, "257 texts; at most 256"),
    ],
)
def test_what_cannot_be_tagged_is_refused_in_json_without_being_repeated(service, content, status, told):
    answer = service.ask("/v1/tag", content)

    assert answer.status == status
    assert told in answer.told
    assert "geheim" not in answer.told


def test_a_body_of_unknown_length_is_bounded_too(service):
    def endless():
        for _ in range(100):
            yield b"x" * 65_536

    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v1/tag")
        connection.putheader("content-type", "application/json")
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders()
        with contextlib.suppress(ConnectionError):  # the server need not read to the end
            for part in endless():
                connection.send(b"%x\r\n%s\r\n" % (len(part), part))
        answer = connection.getresponse()

    assert answer.status == 413


def test_what_pages_of_others_can_send_without_asking_is_refused(service):
    answer = service.ask("/v1/tag", {"text": "a"}, headers={"content-type": "text/plain"})

    assert answer.status == 422
    preflight = {"origin": "https://example.org", "access-control-request-method": "POST"}
    refused = service.ask("/v1/tag", method="OPTIONS", headers=preflight)
    assert "access-control-allow-origin" not in refused.headers


def test_an_origin_that_is_named_may_call(settings):
    with serving(replace(settings, models=settings.models[:1], origins=("https://example.org",))) as service:
        answers = [
            service.ask("/v1/tag", {"text": "a"}, headers={"origin": origin})
            for origin in ("https://example.org", "https://example.com")
        ]

    assert [answer.headers.get("access-control-allow-origin") for answer in answers] == ["https://example.org", None]


def test_models_are_compared_on_the_same_words(service, settings):
    taggers = [load_tagger(model.partition("=")[2]) for model in settings.models]
    words = taggers[0].words(TEXT)

    answer = service.ask("/v1/compare", {"text": TEXT, "rounds": 2})

    assert answer.status == 200
    assert answer.json["words"] == len(words)
    for tagger, model in zip(taggers, answer.json["models"], strict=True):
        wanted = [words[span.start : span.end] for span, _ in tagger.spans_in_sentences([words])[0]]
        assert [tagger.words(entity["text"]) for entity in model["entities"]] == wanted
        assert all(TEXT[entity["start"] : entity["end"]] == entity["text"] for entity in model["entities"])
        assert model["parameters"] == sum(part.numel() for part in tagger.model.parameters())
        assert model["bytes"] == 4 * model["parameters"]
        assert model["seconds"]["runs"] == 2
        assert 0 < model["seconds"]["median"] <= model["seconds"]["p95"]
    first, second, third = (model["agreement"] for model in answer.json["models"])
    assert first is None
    assert second["all_words"]["words"] == third["all_words"]["words"] == len(words)
    for agreement in (second["all_words"], third["all_words"]):
        assert 0 <= agreement["cosine"] <= 1
        assert 0 <= agreement["jensen_shannon"] <= 1


def test_a_model_compared_with_a_copy_of_it_agrees_in_everything(bert_folder):
    with serving(ServeSettings((f"one={bert_folder}", f"same={bert_folder}"))) as service:
        answer = service.ask("/v1/compare", {"text": TEXT, "rounds": 1})

    one, same = answer.json["models"]
    assert {entity["mark"] for entity in one["entities"] + same["entities"]} == {"agreed"}
    for agreement in same["agreement"].values():
        assert agreement["cosine"] == pytest.approx(1)
        assert agreement["jensen_shannon"] == pytest.approx(0, abs=1e-6)


def test_what_something_else_found_is_compared_beside_the_models(service):
    (bert,) = service.ask("/v1/compare", {"text": TEXT, "models": ["bert"], "offsets": "utf16"}).json["models"]
    same = [{key: one[key] for key in ("start", "end", "label", "score")} for one in bert["entities"]]
    start = len("😀 ".encode("utf-16-le")) // 2
    mine = [{"start": start, "end": start + len("Ang"), "label": "PER", "score": 0.5}]
    others = [{"model": "same", "entities": same}, {"model": "mine", "entities": mine}]

    answer = service.ask("/v1/compare", {"text": TEXT, "models": ["bert"], "offsets": "utf16", "others": others})

    bert, same, mine = answer.json["models"]
    assert (bert["model"], same["model"], mine["model"]) == ("bert", "same", "mine")
    assert [(one["text"], one["mark"]) for one in same["entities"]] == [
        (one["text"], one["mark"]) for one in bert["entities"]
    ]
    assert [(one["text"], one["score"]) for one in mine["entities"]] == [("Ang", 0.5)]
    assert mine["entities"][0]["mark"] in ("only_one", "other_borders", "other_type")
    assert [mine[key] for key in ("seconds", "words_per_second", "parameters", "bytes", "agreement")] == [None] * 5
    few = service.ask(
        "/v1/compare", {"text": TEXT, "models": ["bert"], "threshold": 0.6, "offsets": "utf16", "others": others}
    ).json
    assert few["models"][2]["entities"] == []


@pytest.mark.parametrize(
    ("entity", "told"),
    [
        ({"start": 1, "end": 1000, "label": "PER"}, "no part of the text"),
        ({"start": -1, "end": 4, "label": "PER"}, "no part of the text"),
        ({"start": 5, "end": 5, "label": "PER"}, "no part of the text"),
        ({"start": 1, "end": 2, "label": "PER"}, "holds no word"),
        ({"start": 2, "end": 8, "label": ""}, "at least 1 character"),
        ({"start": 2, "end": 8, "label": "PER", "score": 2}, "less than or equal to 1"),
    ],
)
def test_what_something_else_found_must_be_in_the_text(service, entity, told):
    others = [{"model": "mine", "entities": [entity]}]

    answer = service.ask("/v1/compare", {"text": TEXT, "others": others})

    assert answer.status == 422
    assert told in answer.told


def test_half_of_a_character_is_no_border(service):
    others = [{"model": "mine", "entities": [{"start": 1, "end": 4, "label": "PER"}]}]

    answer = service.ask("/v1/compare", {"text": TEXT, "others": others, "offsets": "utf16"})

    assert (answer.status, "no part of the text" in answer.told) == (422, True)


def test_a_folder_for_the_browser_is_served_and_told(bert_folder, tmp_path):
    for name, content in (("tagger.js", "export {};"), ("student.json", "{}"), ("weights.safetensors", "1234")):
        (tmp_path / name).write_text(content)

    with serving(ServeSettings((bert_folder,), browser=(f"small={tmp_path}",))) as service:
        listed = service.ask("/v1/models").json["browser"]
        script = service.ask("/browser/0/tagger.js")
        page = service.ask("/")

    assert listed == [{"name": "small", "folder": "browser/0/", "bytes": 4}]
    assert (script.status, script.body) == (200, b"export {};")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "'wasm-unsafe-eval'" in page.headers["content-security-policy"]
    assert "'wasm-unsafe-eval'" not in dict(headers_of(ServeSettings((bert_folder,))))["Content-Security-Policy"]


def test_a_folder_for_the_browser_must_be_one_and_have_a_name_of_its_own(bert_folder, tmp_path):
    with pytest.raises(ModelError, match=r"no tagger.js in it; expected what xlner export MODEL --web wrote"):
        make_app(ServeSettings((bert_folder,), browser=(str(tmp_path),)))
    with pytest.raises(ModelError, match="two models are named 'a'"):
        make_app(ServeSettings((f"a={bert_folder}",), browser=(f"a={tmp_path}",)))


def test_a_text_without_words_can_be_compared(service):
    answer = service.ask("/v1/compare", {"text": " \n"})

    assert (answer.status, answer.json["words"]) == (200, 0)
    assert [model["entities"] for model in answer.json["models"]] == [[], [], []]
    assert answer.json["models"][1]["agreement"]["all_words"] == {"words": 0, "cosine": None, "jensen_shannon": None}


def test_models_health_and_the_description_of_the_api_are_told(service):
    models = service.ask("/v1/models").json
    health = service.ask("/healthz").json
    api = service.ask("/openapi.json").json

    assert [(model["name"], model["types"]) for model in models["models"]] == [
        ("bert", ["LOC", "ORG", "PER"]),
        ("xlmr", ["LOC", "ORG", "PER"]),
        ("gpe", ["DATE", "GPE", "PER"]),
    ]
    assert models["limits"] == {"characters": 100_000, "texts": 256, "bytes": 2_000_000, "seconds": 60.0}
    assert health == {"status": "ok", "models": 3, "waiting": 0}
    assert set(api["paths"]) == {
        "/v1/tag",
        "/v1/compare",
        "/v1/models",
        "/v1/annotations",
        "/v1/annotations/find",
        "/healthz",
        "/metrics",
    }


def test_metrics_count_requests_by_route_and_never_by_what_was_typed(service):
    before = service.ask("/metrics").body.decode()
    service.ask("/v1/tag", {"text": TEXT})
    service.ask("/nothing/here")
    after = service.ask("/metrics").body.decode()

    def count(metrics, name):
        return sum(float(value) for value in re.findall(rf"^{re.escape(name)} (\S+)", metrics, re.MULTILINE))

    counted = 'xlner_requests_total{path="/v1/tag",status="200"}'
    assert count(after, counted) == count(before, counted) + 1
    assert count(after, "xlner_batch_texts_sum") == count(before, "xlner_batch_texts_sum") + 1
    assert count(after, 'xlner_requests_total{path="other",status="404"}') >= 1
    assert "nothing" not in after
    assert "process_resident_memory_bytes" in after


def test_many_clients_at_once_get_what_each_asked_for(service, bert_folder):
    tagger = load_tagger(bert_folder)
    texts = [f"{SENTENCES[number % 5]} Nummer {number} ." for number in range(40)]
    wanted = {text: [entity[1:4] for entity in tagger.tag(text)] for text in texts}

    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda text: service.ask("/v1/tag", {"text": text}), texts))

    assert {answer.status for answer in answers} == {200}
    for text, answer in zip(texts, answers, strict=True):
        found = [(e["label"], e["start"], e["end"]) for e in answer.json["results"][0]["entities"]]
        assert found == wanted[text]


def test_more_than_the_queue_holds_is_refused_with_a_time_to_come_again(settings):
    with (
        serving(replace(settings, models=settings.models[:1], queue=1)) as service,
        ThreadPoolExecutor(12) as clients,
    ):
        long = {"text": "Angela Merkel besuchte Kiel . " * 300}
        answers = list(clients.map(lambda _: service.ask("/v1/tag", long), range(12)))

    refused = [answer for answer in answers if answer.status != 200]
    assert len(refused) < len(answers)
    assert {answer.status for answer in refused} == {429}
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)


def test_a_request_that_takes_too_long_is_answered_all_the_same(settings):
    # Short enough for the fastest machine: 12,000 words take several times as long.
    with serving(replace(settings, models=settings.models[:1], timeout=0.05)) as service:
        late = service.ask("/v1/tag", {"text": "Angela Merkel besuchte Kiel . " * 3000})
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as slow:
            slow.sendall(b"POST /v1/tag HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n")
            slow.sendall(b"content-type: application/json\r\n\r\n{")
            never_sent = slow.recv(1000)

    assert late.status == 503
    assert "retry-after" in late.headers
    assert never_sent.startswith(b"HTTP/1.1 408 ")


def test_the_page_and_its_files_come_with_a_strict_policy_and_name_no_other_server(service):
    for path in ("/", "/page.js", "/elements.js", "/annotate.js", "/page.css", "/icon.svg", "/docs/", "/docs/docs.js"):
        answer = service.ask(path)

        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert re.findall(rb"https?://(?!www\.w3\.org/2000/svg)", answer.body) == []
        assert re.findall(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\bon\w+=|style=", answer.body) == []


def test_files_beside_the_page_are_not_served(service):
    for path in ("/../serve.py", "/%2e%2e/serve.py", "/docs/..%2f..%2fserve.py"):
        assert service.ask(path).status == 404


def test_models_are_named_after_their_folders_unless_a_name_is_given(bert_folder, gpe_folder):
    found = open_models([bert_folder, f"other={gpe_folder}"])

    assert next(iter(found)).startswith("bert")  # the folder above `model`
    assert list(found)[1] == "other"
    with pytest.raises(ModelError, match="two models are named 'x'; give each another name"):
        open_models([f"x={bert_folder}", f"x={gpe_folder}"])


@pytest.mark.slow
def test_an_exported_model_is_served_with_the_bytes_of_its_files(bert_folder, tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'xlner[onnx]'")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'xlner[onnx]'")
    folder = tmp_path / "onnx"
    command = [sys.executable, "-m", "xlner", "export", bert_folder, "--onnx", str(folder)]
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True)

    (found,) = open_models([str(folder)]).values()

    assert (found.name, found.parameters) == ("onnx", None)
    assert found.bytes == sum((folder / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))


def test_a_port_in_use_is_told_before_a_model_is_opened():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(RunError, match=f"127.0.0.1:{port}: cannot listen there: .*in use; another port: --port"):
            run(ServeSettings(("no/model",)), host="127.0.0.1", port=port)


def started(*arguments):
    """The command, started; its port is in the first line of stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "xlner", "serve", *arguments, "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    first_line = process.stderr.readline()
    return process, Service(int(re.match(r"http://127\.0\.0\.1:(\d+)/ ", first_line)[1]))


def answered(service, path, content=None):
    """The first answer of a service that is starting."""
    until = time.monotonic() + 120
    while True:
        try:
            return service.ask(path, content)
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_ends_the_command_when_what_is_being_answered_is_done_and_no_text_is_logged(bert_folder, workers):
    process, service = started(bert_folder, "--workers", workers)
    try:
        assert answered(service, "/v1/tag?text=geheim", {"text": "geheim"}).status == 200
        assert service.ask("/v1/tag", {"text": "geheim", "models": "geheim"}).status == 422
        assert service.ask("/geheim").status == 404
        assert b"xlner_requests_total" in service.ask("/metrics").body
        assert service.ask("/", headers={"host": "elsewhere.example"}).status == 400
        with ThreadPoolExecutor(1) as clients:
            running = clients.submit(service.ask, "/v1/tag", {"text": "Angela Merkel besuchte Kiel . " * 3000})
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            assert running.result().status == 200
        output, messages = process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode in (0, -signal.SIGTERM)
    assert output == ""
    assert "geheim" not in messages
    assert "Traceback" not in messages


def test_a_model_that_cannot_be_opened_is_told():
    with pytest.raises(ModelError, match="no/such/model: "):
        run(ServeSettings(("no/such/model",)), host="127.0.0.1", port=0)


@pytest.mark.slow
def test_a_model_that_cannot_be_opened_ends_the_command_of_several_workers(tmp_path):
    process, _ = started(str(tmp_path / "nothing"), "--workers", "2")
    _, messages = process.communicate(timeout=120)

    assert process.returncode == 2
    assert messages.startswith(f"{tmp_path / 'nothing'}: ")
    assert len(messages.splitlines()) == 1


def test_help_needs_neither_torch_nor_the_libraries_of_the_service():
    ask = (
        "import sys; from xlner.cli import main; sys.argv = ['xlner', 'serve', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'fastapi', 'uvicorn', 'numpy'} & sys.modules.keys())"
    )

    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=REPOSITORY)

    assert "--max-chars" in found.stdout
    assert found.stdout.endswith("set()\n")


def test_without_the_libraries_of_the_service_the_command_says_what_to_install():
    ask = (
        "import sys; from xlner.cli import main; sys.argv = ['xlner', 'serve', 'no/model']\n"
        "sys.modules['uvicorn'] = None\n"
        "main()"
    )

    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, cwd=REPOSITORY)

    assert found.returncode == 2
    assert found.stderr == "xlner serve needs uvicorn, which is not installed: pip install 'xlner[serve]'\n"
