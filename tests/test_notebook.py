"""What notebooks show of results, and that the results stay what they were."""

import copy
import json
import pickle
from pathlib import Path

import pytest

from xlner.errors import ModelError
from xlner.notebook import scores_html, shown, text_html
from xlner.tagger import load_tagger
from xlner.train.run import FinishedRun, TrainedTagger
from xlner.words import Entities, Entity

TEXT = "Anna lebt in <b>Kiel</b>."
FOUND = Entities([Entity("Anna", "PER", 0, 4, 0.9), Entity("Kiel", "LOC", 16, 20, 0.8)], TEXT)


def test_entities_are_shown_within_their_text_which_is_escaped():
    html = FOUND._repr_html_()

    assert html.count("<mark") == 2
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert html.index(">Anna<") < html.index(">PER<") < html.index("lebt in") < html.index(">Kiel<")


@pytest.mark.parametrize("again", [copy.deepcopy, lambda found: pickle.loads(pickle.dumps(found))])
def test_entities_are_a_list_as_before(again):
    plain = [*FOUND]

    assert plain == FOUND
    assert isinstance(FOUND, list)
    assert FOUND[0].label == "PER"
    assert json.loads(json.dumps(FOUND)) == [list(entity) for entity in plain]
    assert repr(FOUND) == repr(plain)
    assert again(FOUND) == plain
    assert again(FOUND).text == TEXT


def test_text_from_right_to_left_runs_as_its_own_letters_do():
    html = text_html("דנה גרה בחיפה", [(8, 13, "LOC", "")])

    assert html.startswith('<div dir="auto"')
    assert "unicode-bidi: plaintext" in html
    assert "unicode-bidi: isolate" in html  # the label does not turn what follows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x00\x1b[31m", r"\x00\x1b[31m"),
        ("\ud83d", r"\ud83d"),
        ("\u202ex", r"\u202ex"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_what_would_act_is_written_out(text, expected):
    assert shown(text) == expected
    shown(text).encode("utf-8")


def test_of_marks_that_overlap_the_first_one_is_shown():
    html = text_html("abcdef", [(0, 3, "X", ""), (2, 5, "Y", "")])

    assert html.count("<mark") == 1
    assert html.replace("<small", "|").count("|") == 1
    assert "def</div>" in html


def test_a_tagger_gives_shown_entities_and_the_shape_of_displacy(bert_folder):
    tagger = load_tagger(bert_folder)
    text = "Angela Merkel besuchte Kiel ."

    found, shape = tagger.tag(text), tagger.render(text)

    assert found.text == text
    assert tagger.tag_batch([text])[0] == found
    assert "<mark" in found._repr_html_()
    assert shape == {
        "text": text,
        "title": None,
        "ents": [{"start": one.start, "end": one.end, "label": one.label} for one in found],
    }
    assert len(found) > 0


def test_displacy_takes_the_shape(bert_folder):
    displacy = pytest.importorskip("spacy.displacy", reason="spaCy is not installed: pip install 'xlner[spacy]'")

    html = displacy.render(load_tagger(bert_folder).render("Angela Merkel besuchte Kiel ."), style="ent", manual=True)

    assert "<mark" in html


def with_thresholds(folder, tmp_path, content):
    copied = tmp_path / "model"
    copied.mkdir()
    for path in folder.iterdir():
        (copied / path.name).symlink_to(path)
    (copied / "thresholds.json").write_text(content)
    return load_tagger(copied)


def test_tuned_is_the_threshold_of_each_type(bert_folder, tmp_path):
    tagger = load_tagger(bert_folder)
    text = "Angela Merkel besuchte Kiel . Die Siemens AG sitzt in München ."
    everything = tagger.tag(text)
    label = everything[0].label

    tuned = with_thresholds(Path(bert_folder), tmp_path, json.dumps({"thresholds": {label: 1.0, "DATE": 0.5}}))

    assert tuned.tag(text, threshold="tuned") == [one for one in everything if one.label != label or one.score == 1.0]
    assert tuned.tuned_thresholds().items() >= {label: 1.0}.items()
    with pytest.raises(ValueError, match="threshold is 'best'; expected a number from 0 to 1, or 'tuned'"):
        tuned.tag(text, threshold="best")


@pytest.mark.parametrize("content", ["", "[]", '{"thresholds": {"LOC": "x"}}', '{"thresholds": {"LOC": 2}}', "{}"])
def test_damaged_thresholds_are_told(bert_folder, tmp_path, content):
    tagger = with_thresholds(Path(bert_folder), tmp_path, content)

    with pytest.raises(ModelError, match=r"thresholds\.json: "):
        tagger.tag("Kiel", threshold="tuned")
    assert tagger.tag("Kiel") is not None


def test_a_run_and_its_report_are_shown_as_tables(tmp_path):
    score = {"precision": 1.0, "recall": 1.0, "f1": 12.5, "support": 2}
    scores = {"student": {"overall": score, "types": {"<LOC>": score}}, "teacher": {}}
    (tmp_path / "report.json").write_text(json.dumps({"target": "de", "scores": scores}))
    run = TrainedTagger(tmp_path)

    assert run.report == {"target": "de", "scores": scores}
    assert isinstance(run.report, dict)
    for html in (run._repr_html_(), run.report._repr_html_()):
        assert "&lt;LOC&gt;" in html
        assert html.count("12.50") == 2
        assert "teacher" not in html.replace("/", " ").split()


def test_a_run_without_a_report_is_shown_without_scores(tmp_path):
    assert "no scores" in FinishedRun(tmp_path)._repr_html_()
    assert "no scores" in scores_html("x", {"test": {"overall": None}, "dev": 3})
