"""`xlner report` on made-up runs: what it tells, what it tells not, and what it refuses."""

import html.parser
import json
import re
import shutil

import numpy as np
import pytest
from conftest import SENTENCES
from typer.testing import CliRunner

from xlner.arrow_files import RowWriter
from xlner.cli import app
from xlner.errors import ModelError, RunError
from xlner.files import write_text
from xlner.report.gather import GatherOptions, gather
from xlner.report.page import MARK, page
from xlner.soft_labels.store import COLUMNS, SoftLabelCard, part_path, soft_row, write_card
from xlner.tagger import load_tagger

NO_MODEL = GatherOptions(sentences=0)
RECIPE = "optimization:\n  epochs: 1\nhardware:\n  cpu: true\ncorpus:\n  max_sentences: 0\nlabels:\n  map: ''\n"
SCORE = {"precision": 50.0, "recall": 50.0, "f1": 50.0, "support": 4}
PREDICTIONS = (
    "Anna\tB-PER\tB-PER\nlebt\tO\tO\nin\tO\tO\nKiel\tB-LOC\tB-ORG\n\n"
    "Ulm\tB-LOC\tB-LOC\nist\tO\tO\nkalt\tO\tB-LOC\n\n"
    "Emil\tB-PER\tO\n\n"
)


def made_run(folder, *, predictions=PREDICTIONS, recipe="", report=(), metrics=()):
    """A finished run of a student of `de`."""
    folder.mkdir(parents=True)
    content = {
        "target": "de",
        "seed": 0,
        "teacher": {"folder": "gone/model", "fingerprint": "abc"},
        "text": {"fingerprint": "def"},
        "corpora": {"test": {"path": "data/de/test.conll", "fingerprint": "123", "corpus_name": None}},
        "scores": {"teacher": {"overall": SCORE, "types": {"PER": SCORE}}},
        "training": {"seconds": 12.5, "peak_memory_mib": 321, "steps": 10},
        **dict(report),
    }
    (folder / "report.json").write_text(json.dumps(content))
    (folder / "recipe.yaml").write_text(f"target: de\nteacher: gone/model\n{RECIPE}{recipe}")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    if predictions:
        (folder / "predictions-test.conll").write_text(predictions, encoding="utf-8")
    return folder


def command(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


class Page(html.parser.HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.text += text


def test_the_command_writes_a_page_and_prints_the_numbers_behind_it(tmp_path):
    run = made_run(tmp_path / "de")

    done = command(run, "--json", "--sentences", 0, "--out", tmp_path / "x.html")

    (found,) = json.loads(done.stdout)
    scores = found["test"]["scores"]
    # Of 4 entities Anna and Ulm are found; kalt is invented, Kiel is of another type, Emil is missed.
    assert {
        name: (score["precision"]["value"], score["recall"]["value"], score["support"])
        for name, score in scores.items()
    } == {"LOC": (50.0, 50.0, 2), "ORG": (0.0, 0.0, 0), "PER": (100.0, 50.0, 2), "all": (50.0, 50.0, 4)}
    assert found["test"]["errors"]["kinds"] == {
        **{"right": 2, "type": 1, "borders": 0, "both": 0, "missed": 1, "invented": 1}
    }
    assert (tmp_path / "x.html").read_text().count("<section") == 1


def test_the_page_stands_alone_and_tells_everything_in_words_too(tmp_path):
    metrics = [{"step": step, "loss": 1 / step, "agreement_f1": 90.0 + step} for step in (1, 2)]
    run = made_run(tmp_path / "de", metrics=metrics)

    text = page([gather(run, NO_MODEL)])

    found = Page(text)
    assert MARK in text
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in found.tags}
    assert not re.search(r"https?://|url\(|@import", text)
    charts = [attributes for tag, attributes in found.tags if tag == "svg"]
    assert len(charts) == 3
    assert all(one["role"] == "img" and one["aria-label"] for one in charts)
    assert sum(tag in ("title", "desc") for tag, _ in found.tags) == 1 + 2 * len(charts)
    assert "@media print" in text
    assert "prefers-color-scheme: dark" in text


def test_texts_of_a_run_do_nothing_in_the_page(tmp_path):
    evil = '<script>alert("x")</script>'
    word, kind = '"><img/src=x>', "B-<b>T</b>"
    run = made_run(
        tmp_path / "<i>de<",
        predictions=f"{word}\t{kind}\tO\n\u202eabc\tO\t{kind}\n\n",
        recipe=f"setting: '{evil}'\n",
        report={"warnings": [evil], "versions": {evil: evil}, "training": {evil: evil}},
        metrics=[{"step": step, f"loss{evil}": step, f"{evil}_f1": step} for step in (1, 2)],
    )

    text = page([gather(run, NO_MODEL)])

    assert not {"script", "img", "i"} & {tag for tag, _ in Page(text).tags}
    assert evil not in text
    assert "\u202e" not in text
    assert r"\u202eabc" in text


def test_runs_of_other_types_and_languages_stand_side_by_side_by_the_names_of_types(tmp_path):
    first = made_run(tmp_path / "one")
    second = made_run(
        tmp_path / "two", predictions="Kiel\tB-PLACE\tB-PLACE\nAnna\tB-PER\tO\n\n", report={"corpora": {}}
    )

    text = page([gather(first, NO_MODEL), gather(second, NO_MODEL)])

    rows = re.findall(r'<a href="#run-\d">(one|two)</a>.*?</tr>', text.partition("Side by side")[2], re.DOTALL)
    head = re.search(r"matched by name.*?</thead>", text, re.DOTALL).group()
    assert re.findall(r'class="n">(\w+)<', head)[:5] == ["LOC", "ORG", "PER", "PLACE", "all"]
    assert rows == ["one", "two"]
    (row,) = re.findall(r'<a href="#run-2">two</a>.*?</tr>', text.partition("Side by side")[2], re.DOTALL)
    assert re.findall(r'<td class="n">([\d.-]+)</td>', row)[:5] == ["-", "-", "0.00", "100.00", "66.67"]


def test_different_test_sets_are_told(tmp_path):
    other = {"corpora": {"test": {"path": "x", "fingerprint": "999", "corpus_name": "Other"}}}
    runs = [made_run(tmp_path / "one"), made_run(tmp_path / "two", report=other)]

    assert "scored on different test sets" in page([gather(run, NO_MODEL) for run in runs])
    assert "scored on different test sets" not in page([gather(runs[0], NO_MODEL)] * 2)


def test_a_run_that_was_stopped_is_told_with_what_it_has(tmp_path):
    run = made_run(tmp_path / "de", metrics=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    (run / "report.json").unlink()
    (run / "status.json").write_text(json.dumps({"state": "stopped", "time": "today", "message": "Ctrl-C"}))

    found = gather(run, GatherOptions())

    assert (found.state, found.test) == ("stopped", None)
    assert found.notes == ["the run has not finished; status.json says stopped since today: Ctrl-C"]
    assert found.curves.losses == {"loss": [(1.0, 2.0), (2.0, 1.0)]}
    assert "This run is not finished (stopped)" in page([found])


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("report.json", "", "report.json is empty or damaged"),
        ("report.json", "[]", "report.json is empty or damaged"),
        ("metrics.jsonl", "[1]\n", "no learning curves: a file of the run is damaged"),
        ("metrics.jsonl", "{\n", "no learning curves: a file of the run is damaged"),
        ("predictions-test.conll", "Kiel B-LOC\n", "no scores of a test set"),
        ("report.json", '{"scores": {"test": {"types": 3}}}', "the scores of test are damaged"),
        ("report.json", '{"labels": {"words": 3}}', "no account of denoising"),
        ("report.json", '{"corpora": [1], "training": "x", "versions": 3, "scores": 5, "warnings": 7}', "no scores of"),
    ],
)
def test_what_is_damaged_is_told_and_the_rest_is_reported(tmp_path, name, content, note):
    run = made_run(tmp_path / "de", recipe="denoising: pooling\n")
    (run / name).write_text(content)

    found = gather(run, NO_MODEL)

    assert [one for one in found.notes if note in one]
    assert "Recipe" in page([found])


def test_a_run_whose_model_and_corpora_are_gone_keeps_its_scores(tmp_path):
    run = made_run(tmp_path / "de")

    found = gather(run, GatherOptions(data=str(tmp_path / "nowhere")))

    assert found.test.scores["all"].f1.value == 50.0
    assert found.answers is None
    told = "\n".join(found.notes)
    for missing in ("the training text is not at", "the model is not at", "no dev corpus of de"):
        assert missing in told


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such folder"),
        ({}, r"is no run: recipe\.yaml cannot be read there"),
        ({"recipe.yaml": "a: 1\n"}, "no recipe that a run wrote"),
        ({"recipe.yaml": "a: [1\n"}, "is damaged"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_and_nothing_is_written(tmp_path, files, message):
    folder = tmp_path / "other"
    for name, content in ({} if files is None else files).items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    if files == {}:
        folder.mkdir()

    with pytest.raises(RunError, match=message):
        gather(folder, NO_MODEL)
    assert command(folder, "--out", tmp_path / "x.html").exit_code != 0
    assert not (tmp_path / "x.html").exists()


def test_a_file_that_is_no_report_is_not_replaced_and_a_report_is(tmp_path):
    run, out = made_run(tmp_path / "de"), tmp_path / "x.html"
    out.write_text("<p>mine</p>")

    refused = command(run, "--sentences", 0, "--out", out)

    assert "is there, and is no report of xlner" in str(refused.exception)
    assert out.read_text() == "<p>mine</p>"
    out.unlink()
    for _ in range(2):
        assert command(run, "--sentences", 0, "--out", out).exit_code == 0


@pytest.mark.parametrize("name", ["folder", "file/x.html"])
def test_a_place_that_cannot_be_written_is_told(tmp_path, name):
    run = made_run(tmp_path / "de")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match=str(tmp_path)):
        write_text(tmp_path / name, page([gather(run, NO_MODEL)]))
    assert command(run, "--sentences", 0, "--out", tmp_path / name).exit_code != 0


@pytest.fixture
def model_run(bert_folder, tmp_path):
    """A run with a model, a training text, a teacher (the same network) and a dev corpus of just what it finds."""
    tagger = load_tagger(bert_folder)
    rows = [(words, tagger.tag_words(words)) for words in map(str.split, SENTENCES)]
    gold = "".join("".join(f"{word}\t{tag}\n" for word, tag in zip(*row, strict=True)) + "\n" for row in rows)
    both = re.sub(r"\t(\S+)\n", r"\t\1\t\1\n", gold)
    data = tmp_path / "data" / "de"
    data.mkdir(parents=True)
    (data / "dev.conll").write_text(gold, encoding="utf-8")
    (data / "train.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    run = made_run(tmp_path / "run", predictions=both, recipe=f"data: {tmp_path / 'data'}\n")
    shutil.copytree(bert_folder, run / "model")
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("gone/model", bert_folder))
    return run


def test_a_model_that_is_always_right_is_underconfident_and_needs_no_threshold(model_run, bert_folder):
    scores = [
        score
        for found in load_tagger(bert_folder).spans_in_sentences([text.split() for text in SENTENCES])
        for _, score in found
    ]

    found = gather(model_run, GatherOptions())

    assert len(scores) > 3
    assert found.answers.entities.ece == pytest.approx(1 - np.mean(scores), abs=1e-6)
    assert found.answers.words.count == sum(len(text.split()) for text in SENTENCES)
    assert set(found.tuning.thresholds.values()) == {0.0}
    assert found.tuning.dev_f1 == found.tuning.test_f1 == (100.0, 100.0)
    assert found.tuning.of_target
    assert found.teacher.found == {"both": len(scores), "student": 0, "teacher": 0, "neither": 0}
    assert found.seen.scores["seen"]["all"].support == len(scores)
    assert any("is not the text that the student learnt from" in note for note in found.notes)
    assert "Calibration" in page([found])


def test_thresholds_lie_in_the_model_folder_and_the_tagger_takes_them(model_run):
    dev = model_run.parent / "data/de/dev.conll"
    words = [text.split() for text in SENTENCES]
    found = load_tagger(model_run / "model").spans_in_sentences(words)
    scored = sorted((score, number, span) for number, spans in enumerate(found) for span, score in spans)
    low, number, wrong = scored[0]  # the entity that the model is least sure of is none
    following = min(score for score, _, span in scored[1:] if span.label == wrong.label)
    blocks = [block.splitlines() for block in dev.read_text(encoding="utf-8").strip().split("\n\n")]
    for place in range(wrong.start, wrong.end):
        blocks[number][place] = f"{words[number][place]}\tO"
    dev.write_text("\n\n".join(map("\n".join, blocks)) + "\n", encoding="utf-8")

    tuning = gather(model_run, GatherOptions()).tuning

    stored = json.loads((model_run / "model/thresholds.json").read_text())["thresholds"]
    assert stored == tuning.thresholds
    assert stored[wrong.label] == pytest.approx((low + following) / 2)
    assert tuning.dev_f1 == pytest.approx((200 * (len(scored) - 1) / (2 * len(scored) - 1), 100.0))
    kept = load_tagger(model_run / "model").spans_in_sentences(words, threshold="tuned")
    assert sum(map(len, kept)) == len(scored) - 1
    assert wrong not in [span for span, _ in kept[number]]


def test_the_model_folder_is_left_alone_where_that_is_asked_for(model_run):
    before = sorted(path.name for path in (model_run / "model").iterdir())

    found = gather(model_run, GatherOptions(tunes=False))

    assert sorted(path.name for path in (model_run / "model").iterdir()) == before
    assert (found.tuning.stored, found.tuning.dev_f1) == ("", (100.0, 100.0))
    with pytest.raises(ModelError, match=r"no thresholds\.json; `xlner report RUN` makes it"):
        load_tagger(model_run / "model").tag("Kiel", threshold="tuned")


def test_of_a_large_test_set_a_part_is_tagged_again(model_run):
    found = gather(model_run, GatherOptions(sentences=2))

    assert (found.answers.sentences, found.teacher.sentences, found.test.sentences) == (2, 2, len(SENTENCES))


def test_what_denoising_flipped_is_read_from_stored_soft_labels(tmp_path):
    tags = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    before = [[[0.1, 0.9, 0, 0, 0], [0.9, 0.1, 0, 0, 0], [0, 0, 0, 0.9, 0.1]]]
    after = [[[0.8, 0.2, 0, 0, 0], [0.9, 0.1, 0, 0, 0], [0, 0.8, 0, 0.2, 0]]]
    store = tmp_path / "soft-labels/abc-def-fp32-2"
    for folder, probs in ((store, before), (store / "pooled-0", after)):
        folder.mkdir(parents=True)
        with RowWriter(part_path(folder, 0), COLUMNS) as writer:
            writer.write([soft_row(["Der", "See", "Anna"], np.asarray(probs[0]), np.zeros((3, 0)))])
        write_card(folder, SoftLabelCard("abc", "def", tags, 0, 1.0, 0.0, 1, 3, 1))
    labels = {"words": 3, "entity_words": 2, "removed": 1, "added": 0, "retyped": 1}
    run = made_run(tmp_path / "de", recipe="denoising: pooling\nsoft_labels: auto\n", report={"labels": labels})
    other = made_run(
        tmp_path / "other",
        recipe="denoising: pooling\nsoft_labels: auto\n",
        report={"labels": labels | {"removed": 7}},
    )

    found, unknown = gather(run, NO_MODEL).flips, gather(other, NO_MODEL)

    assert found.types == {"LOC": {"": 1}, "PER": {"LOC": 1}}
    assert sorted(found.words) == [("Anna", "PER", "LOC", 1), ("Der", "LOC", "", 1)]
    assert unknown.flips.types == {}  # what is stored is of another run
    assert any("soft labels are not stored any more" in note for note in unknown.notes)


def test_a_test_set_without_entities_has_no_scores_and_a_page(tmp_path):
    found = gather(made_run(tmp_path / "de", predictions="Es\tO\tO\n\n"), NO_MODEL)

    assert found.test.scores == {}
    assert "Errors" in page([found])


def test_many_types_make_no_endless_table(tmp_path):
    rows = "".join(f"w{number}\tB-T{number}\tB-T{number % 7}\n\n" for number in range(40))
    run = made_run(tmp_path / "de", predictions=rows)

    text = page([gather(run, NO_MODEL)])

    head = re.search(r"Types: rows are the corpus.*?</thead>", text, re.DOTALL).group()
    assert head.count("<th ") == 1 + 12 + 2  # the corpus, the most frequent ones, all others, missed
