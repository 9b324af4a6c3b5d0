"""An exported student in a real browser, headless Chromium: it finds what Python finds, word by word."""

import json
import os
import random
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest
from conftest import REPOSITORY
from safetensors.numpy import load_file, save_file
from test_students import make_student
from test_web_page import HOSTILE, browser, compare  # noqa: F401
from test_web_serve import serving

from xlner import load_tagger
from xlner.export.in_browser import ARCHIVE, PACKAGE, export_to_browser
from xlner.web.serve import ServeSettings
from xlner.words import WORD_SPLITTERS, split_words

TEXTS = [
    "",
    " \n",
    HOSTILE,
    "Anna lebt in Kiel, z.B. am 1.10.1914 um 19:30; J. R. Smith & AT&T zahlen 3.5 €!",
    "L'Italia dell’arte, qu'il dit: O'Brien's Jean-Claude, 18-jährig ... anna@kiel.example.de https://kiel.de/a?b=1.",
    "Анна Каренина живёт в Москве, а Лев Толстой — в Ясной Поляне с 1910 г.",
    "أنجيلا ميركل زارت مدينة كيل في ألمانيا عام ٢٠١٤، وقالت: «مرحبا».",
    "अन्ना कील में रहती है और १९१४ में दिल्ली गई थी।",
    "安娜住在北京大学附近,2008年去了東京タワー。ラーメンを食べた。",
    "แอนนาอาศัยอยู่ที่กรุงเทพฯ ນະຄອນຫຼວງວຽງຈັນ ភ្នំពេញ ရန်ကုန်မြို့",
    "Ω ΟΔΟΣ Σ İstanbul ǅ Straße ﬁx ²³ ⅷ ① a\u0301\u0302 e\u200dx co\u00adop \ud800 \U0001d7d8𝟗 \x1c\x85\ufeff",
    "👨\u200d👩\u200d👧 👍🏽 🇩🇪🇫🇷🇮 ☎\ufe0f 1\ufe0f\u20e3 ... !!! --",
    "Kiel in Anna lebt " * 40,
]
ALPHABET = [
    *"aAzZ09._-+@/:,;!&'’‐‑²①éßØİΣς ",
    *"بد٣٫٬ अि१ あーｱﾞ゙カー漢中 กำ่๒ ລຳ ខ្ម ကြ်း",
    *"\n\t\x1c\x85\xa0\u00ad\u200b\u200c\u200d\u2060\ufe0f\u3000\ufeff\u0301\u0903",
    *("👍", "🏽", "🇩", "☎", "l'", "Qu’", "'s", "Dr.", "www.", "http://", "\ud800"),
]


def drawn_texts(number):
    chosen = random.Random(0)
    return ["".join(chosen.choices(ALPHABET, k=chosen.randint(1, 25))) for _ in range(number)]


@pytest.fixture(scope="module")
def real_texts(shared):
    """Sentences of real text in Latin, Cyrillic and Chinese letters, and those of Arabic and Hindi above."""
    found = list(TEXTS)
    for name, number in (("text/de.txt", 170), ("text/ru.txt", 170)):
        with (shared / name).open(encoding="utf-8") as lines:
            found += [line.rstrip("\n") for line in islice(lines, number)]
    lines = (shared / "data/uner/zh_gsd/zh_gsd-ud-dev.iob2").read_text(encoding="utf-8").splitlines()
    return found + [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")][:170]


@pytest.fixture(scope="module")
def runtime():
    """The npm package onnxruntime-web: that of XLNER_ONNXRUNTIME_WEB, or what lies in the repository."""
    places = [os.environ.get("XLNER_ONNXRUNTIME_WEB"), REPOSITORY / "node_modules" / PACKAGE, REPOSITORY / ARCHIVE]
    found = next((Path(place) for place in places if place and Path(place).exists()), None)
    return found or pytest.skip(f"no {PACKAGE} here: npm pack {PACKAGE}, or name it by XLNER_ONNXRUNTIME_WEB")


@contextmanager
def opened(browser, folder, complaints=None):  # noqa: F811
    """The page of an exported folder, with all requests that it makes in `page.asked`."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    page = browser.new_page()
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    for event, text_of in (("pageerror", str), ("console", lambda line: line.text)):
        page.on(event, lambda found, text_of=text_of: complaints is None or complaints.append(text_of(found)))
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("#status:not(:has-text('Loading'))", timeout=60_000)
        yield page
    finally:
        page.close()
        server.shutdown()
        thread.join()
        server.server_close()


def ask(page, function, texts):
    """What a function of a tagger and a text gives for each text; as JSON, which keeps halves of characters."""
    answer = page.evaluate(
        f"""async (texts) => {{
            const {{ loadTagger }} = await import("./tagger.js");
            const tagger = await loadTagger();
            const found = await Promise.all(JSON.parse(texts).map((text) => ({function})(tagger, text)));
            return JSON.stringify(found);
        }}""",
        json.dumps(texts),
    )
    return json.loads(answer)


def exported(folder, kind, decoder="softmax", splitter="unicode", runtime=None):
    """An exported student that finds many things, none of them for a reason."""
    make_student(folder / "model", kind, decoder)
    weights = load_file(folder / "model/model.safetensors")
    if kind == "bilstm":
        weights["body.scores.weight"] *= 4
        weights["body.scores.bias"][0] = -1
    save_file(weights, folder / "model/model.safetensors")
    settings = json.loads((folder / "model/xlner.json").read_text())
    (folder / "model/xlner.json").write_text(json.dumps(settings | {"word_splitter": splitter}))
    export_to_browser(str(folder / "model"), folder / "web", [["Anna"]], runtime=runtime, force=True)
    return folder / "web"


def differences(page, tagger, texts):
    """Texts of which the page finds other entities than Python, or other scores, and how many were found."""
    others, n_found = [], 0
    answers = ask(page, "(tagger, text) => tagger.tag(text, { offsets: 'characters' })", texts)
    for text, answer, found in zip(texts, answers, map(tagger.tag, texts), strict=True):
        n_found += len(found)
        expected = [entity.to_dict() for entity in found]
        for entity, other in zip(expected, answer, strict=False):
            if abs(entity["score"] - other["score"]) < 1e-4:
                entity["score"] = other["score"]
        if expected != answer:
            others.append((text, expected, answer))
    return others, n_found


@pytest.mark.parametrize("decoder", ["softmax", "crf"])
@pytest.mark.parametrize("kind", ["bilstm", "linear"])
def test_the_page_finds_what_python_finds(browser, tmp_path, request, kind, decoder):  # noqa: F811
    needed = request.getfixturevalue("runtime") if kind == "bilstm" else None
    folder = exported(tmp_path, kind, decoder, runtime=needed)

    with opened(browser, folder) as page:
        others, n_found = differences(page, load_tagger(folder), TEXTS + drawn_texts(300))

    assert others == []
    assert n_found > 300


@pytest.mark.parametrize("kind", ["bilstm", "linear"])
def test_so_it_does_in_real_text(browser, tmp_path, request, real_texts, kind):  # noqa: F811
    needed = request.getfixturevalue("runtime") if kind == "bilstm" else None
    folder = exported(tmp_path, kind, runtime=needed)

    with opened(browser, folder) as page:
        others, n_found = differences(page, load_tagger(folder), real_texts)

    assert others == []
    assert len(real_texts) > 500
    assert n_found > 2000


@pytest.mark.parametrize("splitter", sorted(WORD_SPLITTERS))
def test_words_are_those_of_python(browser, tmp_path, splitter):  # noqa: F811
    folder = exported(tmp_path, "linear", splitter=splitter)
    texts = TEXTS + drawn_texts(5000)

    with opened(browser, folder) as page:
        answers = ask(page, "(tagger, text) => tagger.words(text)", texts)

    for text, answer in zip(texts, answers, strict=True):
        assert answer == [text[start:end] for start, end in split_words(text, splitter)]


def test_offsets_are_those_of_javascript_unless_asked_otherwise(browser, tmp_path):  # noqa: F811
    folder = exported(tmp_path, "linear")

    with opened(browser, folder) as page:
        answers = ask(
            page,
            """async (tagger, text) => {
                const found = await tagger.tag(text);
                return [found.length, found.filter(({ text: own, start, end }) => text.slice(start, end) !== own)];
            }""",
            TEXTS,
        )

    assert [wrong for _, wrong in answers] == [[]] * len(TEXTS)
    assert sum(number for number, _ in answers) > 50


def test_what_is_unlikely_or_of_other_types_is_left_out_as_in_python(browser, tmp_path):  # noqa: F811
    folder = exported(tmp_path, "linear")

    with opened(browser, folder) as page:
        answers = ask(page, "(tagger, text) => tagger.tag(text, { threshold: 0.3, types: ['LOC'] })", TEXTS)

    tagger = load_tagger(folder)
    expected = [[found.text for found in tagger.tag(text, threshold=0.3, types=["LOC"])] for text in TEXTS]
    assert [[entity["text"] for entity in answer] for answer in answers] == expected
    assert 0 < sum(map(len, expected)) < sum(len(tagger.tag(text)) for text in TEXTS)


def test_the_page_marks_entities_while_one_types_and_runs_nothing_of_the_text(browser, tmp_path):  # noqa: F811
    folder, complaints = exported(tmp_path, "linear"), []

    with opened(browser, folder, complaints) as page:
        page.fill("#text", HOSTILE)
        page.wait_for_selector("#tagged mark")
        page.evaluate("for (const label of document.querySelectorAll('.label')) label.remove()")
        shown = page.text_content("#tagged")
        marks = page.eval_on_selector_all("#tagged mark", "marks => marks.map((mark) => mark.textContent)")
        page.fill("#threshold", "1")
        page.wait_for_selector("#tagged:not(:has(mark))")

        assert shown == HOSTILE
        assert marks == [entity.text for entity in load_tagger(folder).tag(HOSTILE)]
        assert page.title() == "Entities in text"
        assert page.query_selector_all("#tagged script, #tagged img") == []
        assert {address.rpartition("/")[0] for address in page.asked} == {page.url.rstrip("/")}
        assert complaints == []


def test_a_missing_file_is_told_on_the_page(browser, tmp_path):  # noqa: F811
    folder = exported(tmp_path, "linear")
    (folder / "model.safetensors").unlink()

    with opened(browser, folder) as page:
        assert page.inner_text("#status.error").endswith("/model.safetensors: the server answered 404")


@pytest.mark.parametrize("kind", ["bilstm", "linear"])
def test_the_page_of_the_server_shows_it_beside_the_servers_models(browser, tmp_path, request, kind):  # noqa: F811
    needed = request.getfixturevalue("runtime") if kind == "bilstm" else None
    folder, complaints = exported(tmp_path, kind, runtime=needed), []
    # The same student on the server: both must find the same, whatever the text.
    settings = ServeSettings((f"server={folder}",), browser=(f"here={folder}",))

    with serving(settings) as service:
        page = browser.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
        page.goto(f"http://127.0.0.1:{service.port}/")
        page.wait_for_selector("#models input[value=here]")
        compare(page, HOSTILE)
        found = page.eval_on_selector_all(".tagged", "all => all.map((one) => one.querySelectorAll('mark').length)")
        rows = [row.split("\t") for row in page.inner_text("#figures tbody").splitlines()]
        signs = page.eval_on_selector_all(".tagged .sign", "all => [...new Set(all.map((one) => one.textContent))]")
        page.uncheck("#models input[value=server]")
        page.click("#compare")
        refused = page.inner_text("#status.error")
        page.close()

    n_entities = len(load_tagger(folder).tag(HOSTILE))
    assert found == [n_entities] * 2
    assert n_entities > 0
    assert signs == ["✓"]  # all models
    (here,) = [row for row in rows if row[0] == "here"]
    assert float(here[2].replace(",", "")) >= 0  # its median time
    assert int(here[7].replace(",", "")) == sum(
        path.stat().st_size for path in folder.iterdir() if path.suffix in (".onnx", ".safetensors")
    )
    assert refused == "Choose at least one model of the server."
    assert complaints == []
