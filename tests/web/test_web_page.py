"""The page in a real browser: headless Chromium, driven by Playwright; skipped where either is missing."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="no browser tests without: pip install playwright")
pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install 'xlner[serve]'")

from test_web_serve import gpe_folder, serving, settings  # noqa: E402, F401

HOSTILE = (
    "<script>document.title = 'run'</script> <img src=x onerror=\"document.title = 'run'\"> Angela Merkel 😀 in Kiel"
)
ARABIC = "مدينة برلين"


@pytest.fixture(scope="module")
def browser():
    """Chromium: the one that XLNER_CHROMIUM names, one on the path, or that of Playwright."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("XLNER_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as driver:
        if program is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium here; install one, or name it by XLNER_CHROMIUM")
        # A browser started by root has no sandbox; it opens nothing but this page.
        found = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(settings):  # noqa: F811
    with serving(replace(settings, max_chars=200_000)) as service:
        yield f"http://127.0.0.1:{service.port}/"


@pytest.fixture
def complaints():
    """What the browser complains of: errors of scripts, and what the policy forbids."""
    return []


@pytest.fixture
def open_page(browser, address, complaints):
    """Opens the page, with options of the browser's context."""
    contexts = []

    def open_it(fragment="", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
        page.goto(address + fragment)
        page.wait_for_selector("#models input")
        return page

    yield open_it
    for context in contexts:
        context.close()


def compare(page, text):
    page.fill("#text", text)
    page.click("#compare")
    # Not by a function: the page's policy forbids what Playwright makes of it.
    page.wait_for_selector("#status:has-text('Entities:')", timeout=60_000)


def shown_texts(page):
    """The text of each model, without the labels."""
    return page.evaluate(
        """[...document.querySelectorAll(".tagged")].map((tagged) => {
            const copy = tagged.cloneNode(true);
            for (const label of copy.querySelectorAll(".label")) label.remove();
            return copy.textContent;
        })"""
    )


def test_text_is_shown_as_it_is_and_nothing_in_it_is_run(open_page, complaints):
    page = open_page()

    compare(page, HOSTILE)

    assert shown_texts(page) == [HOSTILE] * 3
    assert page.title() == "Compare taggers"
    assert page.query_selector_all("#results script, #results img") == []
    assert page.query_selector_all("mark") != []
    assert page.is_hidden("#correct")  # this server saves nothing
    assert complaints == []


def test_text_from_right_to_left_is_shown_so_beside_text_from_left_to_right(open_page):
    page = open_page()

    compare(page, f"{ARABIC}\nAngela Merkel besuchte Kiel.")

    assert shown_texts(page) == [f"{ARABIC}\nAngela Merkel besuchte Kiel."] * 3
    left, right, width = page.evaluate(
        """(() => {
            const tagged = document.querySelector(".tagged");
            const range = document.createRange();
            range.selectNodeContents(tagged);
            const lines = [...range.getClientRects()].filter((line) => line.width > 0);
            const box = tagged.getBoundingClientRect();
            const top = Math.min(...lines.map((line) => line.top));
            const first = lines.filter((line) => line.top < top + 15);
            return [Math.min(...first.map((line) => line.left)) - box.left,
                    box.right - Math.max(...first.map((line) => line.right)), box.width];
        })()"""
    )
    assert right < 30 < left  # the first paragraph stands at the right edge
    assert left < width


def test_ten_thousand_words_are_compared(open_page, complaints):
    page = open_page()
    text = "Angela Merkel besuchte heute Kiel und Bonn . " * 1250

    compare(page, text)

    assert page.inner_text("#status").startswith("10,000 words.")
    assert len(page.query_selector_all("#differences tbody tr")) <= 500
    assert page.url.endswith("/")  # too long for an address
    page.click("#link")
    assert "too long for a link" in page.inner_text("#status")
    assert complaints == []


def test_a_narrow_screen_needs_no_scrolling_sideways(open_page):
    page = open_page(viewport={"width": 320, "height": 640})

    compare(page, HOSTILE)

    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_a_dark_screen_gets_light_letters_on_a_dark_page(open_page):
    page = open_page(color_scheme="dark")

    ink, ground = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )

    assert (ink, ground) == ("rgb(236, 236, 236)", "rgb(22, 24, 27)")


def test_all_can_be_done_by_the_keyboard(open_page):
    page = open_page()

    page.keyboard.press("Tab")  # the link to the API
    page.keyboard.press("Tab")
    page.keyboard.type("Angela Merkel in Kiel")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # the second model
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.type("0.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results:not([hidden])")

    assert page.eval_on_selector_all("#texts h3", "titles => titles.map((title) => title.textContent)") == [
        "bert",
        "gpe",
    ]


def test_a_link_opens_the_same_comparison_and_its_text_reaches_no_log_of_addresses(open_page):
    page = open_page()
    page.uncheck("#models input[value=xlmr]")
    compare(page, HOSTILE)
    link = page.url
    before = page.inner_text("#texts")

    asked = []
    other = open_page("#" + link.partition("#")[2])
    other.on("request", lambda request: asked.append(request.url))
    other.wait_for_selector("#results:not([hidden])")
    other.reload()
    other.wait_for_selector("#results:not([hidden])")

    assert other.inner_text("#texts") == before
    assert other.input_value("#text") == HOSTILE
    assert not [address for address in asked if "Merkel" in address.partition("#")[0]]


def test_the_comparison_is_copied_as_json(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    compare(page, HOSTILE)

    page.click("#json")
    page.wait_for_selector("#status:has-text('JSON')")
    copied = page.evaluate("navigator.clipboard.readText().then((text) => JSON.parse(text))")

    assert copied["asked"]["text"] == HOSTILE
    assert [model["model"] for model in copied["answer"]["models"]] == ["bert", "xlmr", "gpe"]


def test_what_the_server_refuses_is_told_on_the_page(open_page):
    page = open_page()

    page.fill("#text", "x" * 200_001)
    page.click("#compare")
    page.wait_for_selector("#status.error")

    assert "200,001 characters; at most 200,000" in page.inner_text("#status")


def test_marks_and_tables_have_words_for_those_who_do_not_see_them(open_page):
    page = open_page()

    compare(page, HOSTILE)

    labels = page.eval_on_selector_all("mark [role=img]", "signs => signs.map((sign) => sign.ariaLabel)")
    assert len(labels) == len(page.query_selector_all("mark"))
    meanings = {"all models", "other type elsewhere", "other borders elsewhere", "not all models", "this model alone"}
    assert set(labels) <= meanings
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input, textarea, button, [role=region], [role=group]")]
            .filter((element) => !element.labels?.length && !element.textContent.trim())
            .filter((element) => !element.getAttribute("aria-labelledby") && !element.ariaLabel).length"""
    )
    assert unnamed == 0
    assert page.query_selector_all("th:not([scope])") == []


def test_the_page_of_the_api_describes_each_route(open_page, complaints):
    page = open_page()

    page.click("nav a")
    page.wait_for_selector("main section")

    titles = page.eval_on_selector_all("h2", "titles => titles.map((title) => title.textContent)")
    assert titles == [
        "POST /v1/tag",
        "POST /v1/compare",
        "GET /v1/models",
        "POST /v1/annotations",
        "POST /v1/annotations/find",
        "GET /healthz",
        "GET /metrics",
    ]
    assert complaints == []
