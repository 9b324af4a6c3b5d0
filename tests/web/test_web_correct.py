"""Corrections made on the page, in a real browser; skipped where there is none."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("playwright.sync_api", reason="no browser tests without: pip install playwright")
pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install 'xlner[serve]'")

from test_web_page import ARABIC, HOSTILE, browser, compare, complaints, open_page  # noqa: F401
from test_web_serve import gpe_folder, serving, settings  # noqa: F401

from xlner.corpora.source import read_corpus


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("corrections") / "annotations.jsonl"


@pytest.fixture(scope="module")
def address(settings, path):  # noqa: F811
    with serving(replace(settings, models=settings.models[:1], annotations=path)) as service:
        yield f"http://127.0.0.1:{service.port}/"


def entities(page):
    """The entities that are shown, as words and type."""
    return page.evaluate(
        """[...document.querySelectorAll("#words mark")].map((mark) => {
            const label = mark.querySelector(".label").textContent;
            return [mark.textContent.slice(0, -label.length), label];
        })"""
    )


def option(page, word):
    return page.locator("#words [role=option]").get_by_text(word, exact=True).first


def choose(page, first, last=None):
    """Choose words by the mouse; no entity may be there."""
    option(page, first).click()
    if last is not None:
        option(page, last).click(modifiers=["Shift"])


def start_without_entities(page, text):
    compare(page, text)
    while page.query_selector_all("#words mark"):
        page.locator("#words mark [role=option]").first.click()
        page.click("#remove")


def save(page):
    page.click("#save")
    page.wait_for_selector("#correct-status:text-is('Saved.')")


def status(page):
    return page.inner_text("#correct-status")


def labels_in(path, first_word):
    """The tags of the sentence in the file that begins with a word."""
    (tags,) = [sentence.tags for sentence in read_corpus(path) if sentence.words[0] == first_word]
    return tags


def test_a_wrong_entity_is_corrected_by_clicks_and_saved_and_there_after_a_reload(open_page, path, complaints):  # noqa: F811
    page = open_page()
    start_without_entities(page, "Gestern fuhr Angela Merkel nach Kiel .")
    choose(page, "Merkel")
    page.click("#types button[value=LOC]")
    choose(page, "Kiel")
    page.click("#types button[value=LOC]")

    option(page, "Merkel").click()
    page.click("#types button[value=PER]")
    page.click("text=Begin >> [aria-label='Begin a word earlier']")
    assert page.inner_text("#chosen") == "Angela Merkel"
    assert page.get_attribute("#types button[value=PER]", "aria-pressed") == "true"
    save(page)
    page.reload()
    page.wait_for_selector("#words mark")

    assert entities(page) == [["Angela Merkel", "PER"], ["Kiel", "LOC"]]
    assert page.inner_text("#saved") == "Saved: 1 of 1 sentence"
    assert page.is_disabled("#save")
    assert labels_in(path, "Gestern") == ("O", "O", "B-PER", "I-PER", "O", "B-LOC", "O")
    option(page, "Kiel").click()
    page.click("[aria-label='Begin a word earlier']")
    assert page.inner_text("#saved") == "Saved: 0 of 1 sentence"
    save(page)
    assert labels_in(path, "Gestern") == ("O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "O")
    assert complaints == []


def test_words_are_chosen_by_drawing_over_them_and_entities_taken_away_and_edits_undone(open_page):  # noqa: F811
    page = open_page()
    start_without_entities(page, "Morgen tagt der FC Barcelona dort .")

    first, last = option(page, "FC").bounding_box(), option(page, "Barcelona").bounding_box()
    page.mouse.move(first["x"] + 2, first["y"] + first["height"] / 2)
    page.mouse.down()
    page.mouse.move(last["x"] + last["width"] - 2, last["y"] + last["height"] / 2, steps=5)
    page.mouse.up()
    page.click("#types button[value=ORG]")
    added = entities(page)
    page.click("#remove")
    removed = entities(page)
    page.click("#undo")

    assert (added, removed, entities(page)) == ([["FC Barcelona", "ORG"]], [], [["FC Barcelona", "ORG"]])


def test_a_border_stops_at_the_ends_of_the_sentence_and_at_other_entities(open_page):  # noqa: F811
    page = open_page()
    start_without_entities(page, "Eins Zwei Drei\nVier")
    choose(page, "Drei")
    page.click("#types button[value=LOC]")
    choose(page, "Eins")
    page.click("#types button[value=PER]")

    page.click("[aria-label='End a word later']")

    assert entities(page) == [["Eins Zwei", "PER"], ["Drei", "LOC"]]
    borders = page.eval_on_selector_all("#borders button", "all => all.map((one) => [one.ariaLabel, one.disabled])")
    assert dict(map(tuple, borders)) == {
        "Begin a word earlier": True,
        "Begin a word later": False,
        "End a word earlier": False,
        "End a word later": True,
    }


def test_changes_that_are_not_saved_outlive_the_page_until_they_are_dropped(open_page):  # noqa: F811
    page = open_page()
    text = "Heute spielt Dortmund ."
    start_without_entities(page, text)
    save(page)
    choose(page, "Dortmund")
    page.click("#types button[value=ORG]")

    page.reload()
    page.wait_for_selector("#words mark")
    assert entities(page) == [["Dortmund", "ORG"]]
    assert status(page) == "These are your changes that are not saved yet."
    page.goto("about:blank")
    page.go_back()
    page.goto(page.url.partition("#")[0])
    page.reload()
    page.wait_for_selector("#drafts:not([hidden])")
    assert page.inner_text("#drafts-count") == "Corrections of 1 text are not saved yet."
    page.click("#open-draft")
    page.wait_for_selector("#words mark")
    assert page.input_value("#text") == text

    page.click("#drop")
    page.wait_for_selector("#correct-status:has-text('dropped')")
    assert entities(page) == []
    page.click("#undo")
    assert entities(page) == [["Dortmund", "ORG"]]


def test_two_tabs_of_one_text_show_the_same_changes_and_what_one_saved(open_page):  # noqa: F811
    page = open_page()
    start_without_entities(page, "Nachts leuchtet Paris .")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#words [role=option]")

    choose(page, "Paris")
    page.click("#types button[value=LOC]")
    other.wait_for_selector("#words mark")
    assert entities(other) == [["Paris", "LOC"]]

    choose(other, "Nachts")
    other.click("#types button[value=PER]")
    page.wait_for_selector("#words mark >> nth=1")
    save(page)
    other.wait_for_selector("#saved:text-is('Saved: 1 of 1 sentence')")
    assert entities(page) == entities(other) == [["Nachts", "PER"], ["Paris", "LOC"]]


def test_what_somebody_else_saved_meanwhile_is_never_replaced_unasked(open_page, path):  # noqa: F811
    text = "Abends singt Callas ."
    one, other = open_page(), open_page()  # two browsers: nothing is shared but the server
    start_without_entities(one, text)
    start_without_entities(other, text)
    choose(one, "Callas")
    one.click("#types button[value=PER]")
    save(one)

    choose(other, "Callas")
    other.click("#types button[value=ORG]")
    other.click("#save")
    other.wait_for_selector("#conflict:not([hidden])")
    assert labels_in(path, "Abends") == ("O", "O", "B-PER", "O")
    other.click("#theirs")
    other.wait_for_selector("#words mark.type-2")
    assert entities(other) == [["Callas", "PER"]]
    other.click("#undo")
    other.click("#save")
    other.wait_for_selector("#correct-status:text-is('Saved.')")
    assert labels_in(path, "Abends") == ("O", "O", "B-ORG", "O")

    choose(one, "Abends")
    one.click("#types button[value=LOC]")
    one.click("#save")
    one.wait_for_selector("#conflict:not([hidden])")
    one.click("#mine")
    one.wait_for_selector("#correct-status:text-is('Saved.')")
    assert labels_in(path, "Abends") == ("B-LOC", "O", "B-PER", "O")


def test_all_corrections_can_be_made_by_the_keyboard_and_have_words_for_those_who_do_not_see(open_page, path):  # noqa: F811
    page = open_page()
    start_without_entities(page, "Mittags speist Sophie Scholl .\nBald auch Goethe .")
    page.focus("#words")

    for key in ("ArrowUp", "Home", "ArrowRight", "ArrowRight", "Shift+ArrowRight", "3"):
        page.keyboard.press(key)
    for key in ("ArrowDown", "End", "ArrowLeft", "1"):
        page.keyboard.press(key)
    active = page.get_attribute("#words", "aria-activedescendant")
    assert page.get_attribute(f"#{active}", "aria-label") == "Goethe, LOC"
    for key in ("Delete", "3", "Control+z", "Control+z", "Control+s"):
        page.keyboard.press(key)
    page.wait_for_selector("#correct-status:text-is('Saved.')")

    assert labels_in(path, "Mittags") == ("O", "O", "B-PER", "I-PER", "O")
    assert labels_in(path, "Bald") == ("O", "O", "B-LOC", "O")
    names = page.eval_on_selector_all("#words [aria-label]", "all => all.map((one) => one.ariaLabel)")
    assert names == [
        "Sentence 1, saved",
        "Sophie, PER",
        "Scholl, PER, goes on",
        "Sentence 2, saved",
        "Goethe, LOC",
    ]
    unnamed = page.evaluate(
        """[...document.querySelectorAll("#correct :is(button, select, [role=group], [role=listbox])")]
            .filter((one) => !one.textContent.trim() || (one.role && one.role !== "option" && !one.ariaLabel
                && !one.getAttribute("aria-labelledby"))).length"""
    )
    assert unnamed == 0
    assert page.query_selector_all("#words [role=option]:not([aria-selected])") == []


def test_text_from_right_to_left_is_gone_through_as_it_is_read(open_page, path):  # noqa: F811
    page = open_page()
    start_without_entities(page, ARABIC)
    page.focus("#words")

    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#chosen") == ARABIC.split()[1]
    page.keyboard.press("1")
    page.click("[aria-label='Begin a word earlier']")
    save(page)

    assert entities(page) == [[ARABIC, "LOC"]]
    assert labels_in(path, ARABIC.split()[0]) == ("B-LOC", "I-LOC")
    first, second = (page.locator("#words [role=option]").nth(number).bounding_box()["x"] for number in (0, 1))
    assert first > second


def test_hostile_text_is_corrected_as_any_other(open_page, path, complaints):  # noqa: F811
    page = open_page()
    start_without_entities(page, HOSTILE)
    choose(page, "Angela", "Merkel")
    page.click("#types button[value=PER]")
    save(page)
    page.reload()
    page.wait_for_selector("#words mark")

    assert entities(page) == [["Angela Merkel", "PER"]]
    assert page.title() == "Compare taggers"
    assert page.query_selector_all("#correct script, #correct img") == []
    (record,) = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if "<script>" in line]
    assert record["text"] == HOSTILE
    assert [HOSTILE[span["start"] : span["end"]] for span in record["spans"]] == ["Angela Merkel"]
    assert complaints == []


def test_what_cannot_be_saved_is_told_and_nothing_of_it_is_lost(open_page, path):  # noqa: F811
    page = open_page()
    start_without_entities(page, "Kiel liegt hier .\nKiel liegt hier .")
    choose(page, "Kiel")
    page.click("#types button[value=LOC]")
    page.click("#save")
    page.wait_for_selector("#correct-status.error")

    assert "Not saved: sentence 1 (from 0) stands twice in the text, with other entities" in status(page)
    page.reload()
    page.wait_for_selector("#words mark")
    assert entities(page) == [["Kiel", "LOC"]]


def test_ten_thousand_words_can_be_corrected_on_a_narrow_screen(open_page):  # noqa: F811
    page = open_page(viewport={"width": 320, "height": 640})
    compare(page, "Angela Merkel besuchte heute Kiel und Bonn . " * 1250)
    page.locator("#words [role=option]").nth(9999).click()

    page.click("#types button[value=ORG]")

    assert entities(page)[-1][0].endswith(".")
    assert entities(page)[-1][1] == "ORG"
    assert page.evaluate("document.documentElement.scrollWidth") == 320
