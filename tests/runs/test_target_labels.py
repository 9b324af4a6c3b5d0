"""A few labelled target sentences beside the soft labels: learnt, kept aside, refused and told."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from runs import DISTILL, TINY, brief, lines_with, report_of, run_script, run_well, sentences, stop_at, write_conll
from safetensors.torch import load_file, save_file

from xlner import load_tagger
from xlner.arrow_files import RowWriter
from xlner.compare import markdown, read_run, settings_of
from xlner.config.schema import CorpusRecipe, DistillRecipe
from xlner.corpora.source import read_corpus
from xlner.corpora.splits import read_labelled
from xlner.corpora.write import write_corpus
from xlner.errors import CorpusError
from xlner.jobs.target_labels import (
    TargetLabels,
    has_learnt,
    part_of_the_way_back,
    parted,
    times_shown,
    used_labels,
)
from xlner.models.card import UsedLabels
from xlner.models.token_classifier import read_tags
from xlner.soft_labels.labelled import with_former_types
from xlner.soft_labels.store import COLUMNS, SoftLabelCard, SoftLabels, part_path, soft_row, write_card

pytestmark = pytest.mark.slow


@pytest.fixture
def gold(tmp_path):
    """Ten labelled sentences, none of which stands in the text."""
    path = tmp_path / "few.conll"
    write_conll(path, sentences(10, seed=77))
    return path


@pytest.fixture(scope="module")
def arguments(teacher, small_data):
    return ("target=de", f"teacher={teacher / 'model'}", f"data={small_data}", *brief(TINY), "run=first")


@pytest.mark.parametrize("student", ["encoder", "bilstm"])
def test_they_are_learnt_beside_the_soft_labels_and_told(arguments, gold, student, tmp_path):
    finished = run_well(DISTILL, *arguments, f"gold={gold}", f"student={student}", "gold_share=0.5", cwd=tmp_path)

    (folder,) = (tmp_path / "runs" / "soft-labels").glob("**/gold-*")
    stored, run = SoftLabels(folder), tmp_path / "runs" / "first"
    assert len(stored) == 70
    assert all(set(stored.probs(number).max(axis=1)) == {1.0} for number in range(60, 70))
    assert "target labels used: 10 sentences" in finished.stdout
    assert [line for line in report_of(run)["warnings"] if line.startswith(f"{gold}: 10 sentences are few")]
    assert list(report_of(run)["scores"]) == ["teacher", "tuned teacher", "student"]
    used = UsedLabels.of_report(report_of(run))
    assert used == UsedLabels(learnt=10, fingerprint=used.fingerprint)
    assert len(used.fingerprint) == 12
    lines = markdown(settings_of([read_run(run)]), [read_run(run)], ["de"], "x")
    assert any(line.startswith("Learnt from labels of the target language (gold=)") for line in lines)
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "Labels of its own language: 10 sentences learnt" in card
    # Of the text what is neither held out nor labelled, and each labelled sentence six times, in batches of 8.
    held_out = np.random.default_rng(0).permutation(60)[:3]
    n_text = sum(stored.weights(number).any() for number in range(60) if number not in held_out)
    assert report_of(run)["training"]["steps"] == -(-(n_text + 60) // 8)


def test_a_run_without_them_says_so(arguments, tmp_path):
    run_well(DISTILL, *arguments, cwd=tmp_path)

    report = report_of(tmp_path / "runs" / "first")
    assert not UsedLabels.of_report(report)
    assert "Labels of its own" not in (tmp_path / "runs" / "first" / "model" / "README.md").read_text(encoding="utf-8")
    assert report["selection"] == "last"


@pytest.mark.parametrize(("asked", "n_sentences"), [("auto", 500), ("gold", 30)])
def test_a_part_of_enough_is_kept_aside_and_chooses_the_student(arguments, asked, n_sentences, tmp_path):
    gold = tmp_path / "many.conll"
    write_conll(gold, sentences(n_sentences, seed=77))

    finished = run_well(
        DISTILL, *brief(arguments, 2), f"gold={gold}", f"selection={asked}", "gold_share=0.5", cwd=tmp_path
    )

    run, n_held_out = tmp_path / "runs" / "first", n_sentences // 10
    report = report_of(run)
    scores = {line["step"]: line["gold_f1"] for line in lines_with(run, "gold_f1")}
    assert f"of which {n_held_out} are kept aside to choose the student by" in finished.stdout
    told = f"{n_sentences - n_held_out} sentences learnt, {n_held_out} kept aside to choose by"
    assert str(UsedLabels.of_report(report)) == told
    assert report["selection"] == "gold"
    assert scores[report["training"]["best_step"]] == max(scores.values())


def test_the_teacher_learns_from_them_once_and_keeps_its_types(arguments, small_data, tmp_path):
    gold = tmp_path / "cities.conll"
    cities = [[(word, tag.replace("LOC", "CITY")) for word, tag in row] for row in sentences(20, seed=77)]
    write_conll(gold, cities)

    told = [
        run_well(DISTILL, *arguments[:-1], f"gold={gold}", f"run={name}", cwd=tmp_path).stdout for name in ("a", "b")
    ]

    (run,) = (tmp_path / "runs" / "tuned-teachers").glob("*/run")
    assert "learns from 20 labelled target sentences first" in told[0]
    assert "has learnt from 20 labelled target sentences" in told[1]
    assert report_of(run)["types"] == ["CITY", "LOC", "PER"]
    assert load_tagger(tmp_path / "runs" / "b" / "model").types == ("CITY", "LOC", "PER")
    # What teaches lies between the two, after 20 sentences by 12.5 / 32.5, but for tags that the teacher did not have.
    share = 12.5 / 32.5
    (teacher,) = (argument.removeprefix("teacher=") for argument in arguments if argument.startswith("teacher="))
    folders = [Path(teacher), run / "model", run.parent / "model"]
    before, after, found = (load_file(folder / "model.safetensors") for folder in folders)
    own, tags, kept = (read_tags(str(folder)) for folder in folders)
    assert kept == tags
    for name, values in found.items():
        if name.startswith("classifier."):
            for row, tag in enumerate(tags):
                old = before[name][own.index(tag)] if tag in own else after[name][row]
                torch.testing.assert_close(values[row], after[name][row].lerp(old, share))
        else:
            torch.testing.assert_close(values, after[name].lerp(before[name], share))
    assert any(not torch.equal(values, after[name]) for name, values in found.items())
    # They lack LOC, of which what the teacher said before counts.
    (told,) = (tmp_path / "runs" / "soft-labels").glob("*/former-*")
    assert SoftLabels(told).card.tags == tuple(tags)


def test_labels_that_lack_no_type_leave_nothing_to_what_the_teacher_was(arguments, gold, tmp_path):
    run_well(DISTILL, *arguments, f"gold={gold}", cwd=tmp_path)

    assert not list((tmp_path / "runs" / "soft-labels").glob("**/former-*"))


def stored(folder, tags, probs):
    """Soft labels of one sentence, as a teacher with these tags may have left them."""
    words, rows = [f"w{number}" for number in range(len(probs))], np.asarray(probs)
    with RowWriter(part_path(folder, 0), COLUMNS) as writer:
        writer.write([soft_row(words, rows, np.zeros((len(words), 0)))])
    counts = {"n_sentences": 1, "n_words": len(words), "n_parts": 1}
    write_card(folder, SoftLabelCard("t", "c", tuple(tags), projection_size=0, scale=1.0, offset=0.0, **counts))
    return SoftLabels(folder)


def test_what_labels_lack_is_told_by_what_the_teacher_was(tmp_path):
    now, before = tmp_path / "now", tmp_path / "before"
    tuned = ["O", "B-CITY", "I-CITY", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
    said = [
        [0.9, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0],  # an ORG that it forgot
        [0.4, 0.0, 0.0, 0.6, 0.0, 0.0, 0.0],  # an ORG that it takes for a LOC
        [0.1, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0],  # a new type
        [0.1, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0],  # a LOC
        [0.8, 0.0, 0.0, 0.0, 0.0, 0.2, 0.0],  # it was not sure of an ORG
    ]
    # Other tags, of another scheme and order: a single ORG, a LOC, O.
    was = [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.9, 0.0, 0.1], [0.1, 0.8, 0.1], [0.4, 0.2, 0.4]]

    found = with_former_types(
        stored(now, tuned, said), stored(before, ["S-ORG", "S-LOC", "O"], was), ("ORG",), Accelerator(cpu=True)
    )

    expected = [
        [0.2, 0.0, 0.0, 0.0, 0.0, 0.8, 0.0],
        [0.12, 0.0, 0.0, 0.18, 0.0, 0.7, 0.0],
        [0.091, 0.819, 0.0, 0.0, 0.0, 0.09, 0.0],  # 0.9 (1 - 0.9)
        [0.09, 0.0, 0.0, 0.81, 0.0, 0.1, 0.0],
        [0.6, 0.0, 0.0, 0.0, 0.0, 0.4, 0.0],
    ]
    np.testing.assert_allclose(found.probs(0), expected, atol=2e-3)


def test_a_teacher_whose_tags_were_of_another_scheme_stays_as_it_has_become(bert_folder, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(bert_folder, before)
    weights = load_file(before / "model.safetensors")
    save_file({name: values + 1 for name, values in weights.items()}, before / "model.safetensors", {"format": "pt"})
    config = json.loads((before / "config.json").read_text())
    config["id2label"] = {number: tag.replace("I-", "E-") for number, tag in config["id2label"].items()}
    config["label2id"] = {tag: int(number) for number, tag in config["id2label"].items()}
    (before / "config.json").write_text(json.dumps(config))

    part_of_the_way_back(Path(bert_folder), str(before), after, 0.5)

    found = load_file(after / "model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], values) for name, values in weights.items())


def test_a_teacher_that_does_not_learn_stays_as_it_is(arguments, gold, tmp_path):
    run_well(DISTILL, *arguments, f"gold={gold}", "gold_tunes_teacher=false", cwd=tmp_path)

    assert not (tmp_path / "runs" / "tuned-teachers").exists()
    assert list(report_of(tmp_path / "runs" / "first")["scores"]) == ["teacher", "student"]


def test_a_teacher_that_was_trained_on_these_very_labels_is_not_trained_on_them_again(arguments, small_data, tmp_path):
    gold = tmp_path / "again.jsonl"
    write_corpus(read_corpus(small_data / "en" / "train.conll"), gold, format="spans")

    finished = run_well(DISTILL, *arguments, f"gold={gold}", cwd=tmp_path)

    assert "has learnt from these labels when it was trained, and stays as it is" in finished.stdout
    assert not (tmp_path / "runs" / "tuned-teachers").exists()
    assert list(report_of(tmp_path / "runs" / "first")["scores"]) == ["teacher", "student"]


def test_a_sentence_of_the_text_that_has_labels_teaches_by_them_alone(arguments, small_data, tmp_path):
    gold, text = tmp_path / "few.conll", sentences(60, seed=4)
    write_conll(gold, text[:10])
    bare = tmp_path / "bare.conll"
    write_conll(bare, text)

    run_well(DISTILL, *arguments, f"text={bare}", f"gold={gold}", cwd=tmp_path)

    (folder,) = (tmp_path / "runs" / "soft-labels").glob("**/gold-*")
    stored = SoftLabels(folder)
    known = {tuple(stored.words(number)) for number in range(60, 70)}
    for number in range(60):
        assert bool(stored.weights(number).any()) == (tuple(stored.words(number)) not in known)


def test_sentences_of_the_test_set_among_them_are_told(arguments, small_data, tmp_path):
    test = small_data / "de" / "test.conll"

    finished = run_well(DISTILL, *arguments, f"gold={test}", "gold_tunes_teacher=false", cwd=tmp_path)

    (told,) = [line for line in report_of(tmp_path / "runs" / "first")["warnings"] if "will be too good" in line]
    assert told.startswith(f"{test}: ")
    assert f"warning: {told}" in finished.stdout


def test_a_teacher_that_knows_no_type_of_the_test_set_has_no_scores(arguments, small_data, tmp_path):
    folder = tmp_path / "data" / "de"
    shutil.copytree(small_data / "de", folder)
    cities = [[(word, "B-CITY" if tag != "O" else tag) for word, tag in row] for row in sentences(20, seed=77)]
    for path in (folder / "test.conll", tmp_path / "few.conll"):
        write_conll(path, cities)
    own = [argument for argument in arguments if not argument.startswith("data=")]

    run_well(DISTILL, *own, f"data={tmp_path / 'data'}", f"gold={tmp_path / 'few.conll'}", cwd=tmp_path)

    report = report_of(tmp_path / "runs" / "first")
    assert report["scores"]["teacher"] == {}
    assert {"tuned teacher", "student"} == {name for name, found in report["scores"].items() if found}


def report_beside_model(folder, **content):
    """A model folder with a report beside it."""
    (folder / "model").mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder / "model")


def test_labels_that_a_teacher_has_used_count_as_well(tmp_path):
    learnt = {"learnt": 40, "held_out": 10, "fingerprint": "0123456789ab"}
    teachers = [
        report_beside_model(tmp_path / "english", language="en"),
        report_beside_model(tmp_path / "austrian", language="de-AT"),
        report_beside_model(tmp_path / "taught", target="de", target_labels=learnt),
        report_beside_model(tmp_path / "untaught", target="de", target_labels={"learnt": 0, "held_out": 0}),
        report_beside_model(tmp_path / "odd", language=["de"], target="de", target_labels=7),
    ]
    recipe = DistillRecipe(target="de", teacher=",".join(teachers))

    used = used_labels(recipe, TargetLabels(), n_dev=0)

    assert used.teachers == ("austrian", "taught")
    assert str(used) == "those that its teacher austrian, taught has used"
    assert [has_learnt(name, "0123456789ab") for name in teachers] == [False, False, True, False, False]


@pytest.mark.parametrize(("asked", "learnt_before", "n_held_out"), [("auto", False, 50), ("auto", True, 0)])
def test_what_a_teacher_has_learnt_chooses_no_student(asked, learnt_before, n_held_out, tmp_path):
    write_conll(tmp_path / "gold.conll", sentences(500, seed=1))
    gold = read_labelled(tmp_path / "gold.conll", CorpusRecipe())

    found = parted(gold, asked, learnt_before)

    assert (found.n_learnt, found.n_held_out) == (500 - n_held_out, n_held_out)


def test_what_is_kept_aside_takes_no_type_away_from_what_is_learnt(tmp_path):
    (aside,) = np.random.default_rng(0).permutation(6)[:1].tolist()
    rows = [[("Ulm", "B-CITY" if number == aside else "B-LOC")] for number in range(6)]
    write_conll(tmp_path / "gold.conll", rows)
    gold = read_labelled(tmp_path / "gold.conll", CorpusRecipe())

    with pytest.raises(CorpusError, match="keeps 1 of its 6 sentences aside, which alone have CITY; give more"):
        parted(gold, "gold", False)


def test_a_stopped_tuning_goes_on_on_other_hardware(arguments, gold, tmp_path):
    def stop(process):
        while not list((tmp_path / "runs" / "tuned-teachers").glob("*/run/metrics.jsonl")):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGTERM)

    stopped = run_script(DISTILL, *arguments, f"gold={gold}", cwd=tmp_path, meanwhile=stop)
    (run,) = (tmp_path / "runs" / "tuned-teachers").glob("*/run")
    begun = list((run / "checkpoints").iterdir())

    others = [one.replace("threads=1", "threads=2").replace("/model", "/../first/model") for one in arguments]
    run_well(DISTILL, *others, f"gold={gold}", cwd=tmp_path)

    assert (stopped.status, len(begun)) == (143, 1)
    assert report_of(tmp_path / "runs" / "first")["target_labels"]["learnt"] == 10


def test_other_labels_are_named_as_what_differs(arguments, gold, tmp_path):
    arguments = (*arguments, f"gold={gold}")
    run_script(DISTILL, *arguments, cwd=tmp_path, meanwhile=stop_at(2, tmp_path / "runs" / "first", signal.SIGTERM))
    write_conll(gold, sentences(10, seed=78))

    finished = run_script(DISTILL, *arguments, cwd=tmp_path)

    assert finished.status == 2
    assert "the run was begun with another gold (then " in finished.messages[-1]


def refused(arguments, *more, cwd):
    finished = run_script(DISTILL, *arguments, *more, cwd=cwd)
    assert finished.status == 2
    (message,) = finished.messages
    return message


def test_what_cannot_be_learnt_is_refused(arguments, gold, tmp_path):
    odd = tmp_path / "odd.conll"
    odd.write_text("Ulm B-CITY\nist O\n\n", encoding="utf-8")
    bare = tmp_path / "bare.txt"
    bare.write_text("Ulm ist kalt .\n", encoding="utf-8")

    unknown = refused(arguments, f"gold={odd}", "gold_tunes_teacher=false", cwd=tmp_path)
    assert "has entities of CITY, the teacher knows LOC, PER" in unknown
    assert "labels.map=CITY=" in unknown
    assert "no corpus at" in refused(arguments, f"gold={tmp_path / 'none.conll'}", cwd=tmp_path)
    assert "expected a tag for each word" in refused(arguments, f"gold={bare}", cwd=tmp_path)
    assert "variant=pooled" in refused(arguments, f"gold={gold}", "variant=calibrated", cwd=tmp_path)
    assert "give gold=FILE" in refused(arguments, "selection=gold", cwd=tmp_path)
    write_conll(gold, sentences(4, seed=77))
    assert "keeps 0 of its 4 sentences aside" in refused(arguments, f"gold={gold}", "selection=gold", cwd=tmp_path)
    gold.write_text("", encoding="utf-8")
    finished = run_script(DISTILL, *arguments, f"gold={gold}", cwd=tmp_path)
    assert finished.status == 2
    assert finished.messages[0].startswith(f"{gold}: no sentence in it")
    made = {path.name for path in (tmp_path / "runs").iterdir()}
    assert not made & {"tuned-teachers", "soft-labels"}  # all of it was told before long work


def test_types_that_they_lack_are_told_before_a_teacher_learns_from_them(arguments, gold, tmp_path):
    write_conll(gold, [[("Kiel", "B-LOC"), ("ist", "O"), ("kalt", "O")]])
    message = f"{gold}: no entity of PER in its 1 sentences, so that the student may find fewer of them than without"

    finished = run_well(DISTILL, *arguments, f"gold={gold}", cwd=tmp_path)

    (warning,) = [line for line in finished.stdout.splitlines() if message in line]
    assert warning.endswith("Label some sentences that have one, or drop what you do not need, as in labels.map=PER=")
    assert finished.stdout.index(message) < finished.stdout.index("labelled target sentences first; into")
    assert any(line.startswith(message) for line in report_of(tmp_path / "runs" / "first")["warnings"])
    # What is dropped is not missed.
    others = [argument for argument in arguments if argument != "run=first"]
    finished = run_well(DISTILL, *others, f"gold={gold}", "labels.map=PER=", "run=second", cwd=tmp_path)
    assert "no entity of" not in finished.stdout


def test_patterns_teach_beside_them(arguments, gold, tmp_path):
    pytest.importorskip("spacy", reason="spaCy is not installed")
    (tmp_path / "names.jsonl").write_text('{"label": "LOC", "pattern": "Kiel"}\n', encoding="utf-8")

    run_well(DISTILL, *arguments, f"gold={gold}", "patterns=names.jsonl", cwd=tmp_path)

    report = report_of(tmp_path / "runs" / "first")
    assert [Path(one["teacher"]).name for one in report["teachers"]] == ["model", "names.jsonl"]
    assert "tuned-teachers" in report["teachers"][0]["teacher"]


@pytest.mark.parametrize(
    ("n_text", "n_gold", "share", "times"), [(1000, 50, 0.5, 20), (1000, 1000, 0.2, 1), (900, 100, 0.25, 3)]
)
def test_they_are_shown_as_often_as_their_share_asks_for(n_text, n_gold, share, times):
    assert times_shown(n_text, n_gold, share) == times
