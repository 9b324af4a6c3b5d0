"""The recipes behind the table of the docs."""

import json
import os
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from conftest import REPOSITORY
from runs import ENVIRONMENT, TINY
from test_comparison import tags, write_run

from xlner.config.load import load_recipe
from xlner.corpora.source import read_corpus

FOLDER = REPOSITORY / "recipes" / "ablation"
ROWS = sorted(FOLDER.glob("*/*.yaml"))


def read_sentences(path):
    return [sentence.words for sentence in read_corpus(path)]


@cache
def row(path):
    """The recipe of a row, with two teachers, since some weigh them."""
    return load_recipe("distill", ["target=de", f"recipe={path}", "teacher=first,second"], REPOSITORY / "recipes")


@pytest.mark.parametrize("path", ROWS, ids=[path.stem for path in ROWS])
def test_each_row_is_a_recipe_with_a_name_of_its_own(path):
    names = [row(other).setting for other in ROWS]

    assert names.count(row(path).setting) == 1
    assert [other.stem for other in ROWS].count(path.stem) == 1


def test_rows_of_additions_differ_from_what_they_add_to_in_what_they_add_alone():
    for base, teachers in (("calibrated", "joint"), ("pooled", "plain")):
        plain = row(FOLDER / teachers / f"{base}.yaml")
        for path in FOLDER.glob(f"*/{base}-*.yaml"):
            recipe = row(path)
            assert recipe.variant == plain.variant
            assert recipe.setting.startswith(f"{base} + ")


@pytest.mark.slow
def test_one_command_trains_teachers_and_rows_and_draws_the_table(tiny_encoder, small_data, tmp_path):
    out = tmp_path / "ablation"
    command = [
        *(sys.executable, str(FOLDER / "measure.py"), "--encoder", tiny_encoder, "--data", str(small_data)),
        *("--out", str(out), "--targets", "de", "--rows", "tsl", "blog", "--sentences", "30", "--epochs", "1"),
        *(argument for argument in TINY if "epochs" not in argument),
    ]
    environment = os.environ | ENVIRONMENT

    first = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/report.json")}
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert sorted(path.parent.name for path in times) == [
        "de-blog-0",
        "de-tsl-0",
        "teacher-plain-0",
        "teacher-separate-0",
    ]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert "| `tsl` |" in again.stdout
    assert (out / "table.csv").is_file()
    assert (out / "table.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_row_that_does_not_exist_is_named(tmp_path):
    command = [sys.executable, str(FOLDER / "measure.py"), "--encoder", "x", "--data", "y", "--rows", "nothing"]

    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert refused.returncode == 2
    assert "no row called nothing" in refused.stderr
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.slow
def test_one_command_draws_the_curve_over_few_labels(tiny_encoder, small_data, tmp_path):
    out = tmp_path / "few"
    command = [
        *(sys.executable, str(FOLDER / "few_labels.py"), "--encoder", tiny_encoder, "--data", str(small_data)),
        *("--out", str(out), "--labelled", "40", "--text", "20", "--test", "15", "--visits", "100"),
        *("--student", "linear", "hardware.cpu=true", "hardware.threads=1"),
    ]

    environment = os.environ | ENVIRONMENT
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    rows = (out / "table.csv").read_text().splitlines()
    assert [row.rpartition(",")[0] for row in rows[1:]] == [
        f"40,{model},0" for model in ("teacher", '"student, distilled"', '"student, labels alone"')
    ]
    assert (out / "curve.png").stat().st_size > 1000
    labelled, text = (read_sentences(out / name / "en" / "train.conll") for name in ("data-40-0", "text"))
    whole = read_sentences(small_data / "en" / "train.conll")
    assert text == whole[:20]
    assert sorted(labelled) == sorted(whole[20:])
    report = json.loads((out / "distilled-40-softmax-0" / "report.json").read_text(encoding="utf-8"))
    assert report["target_labels"]["learnt"] == 40


@pytest.mark.slow
def test_a_corpus_that_is_too_short_for_the_curve_is_told(small_data, tmp_path):
    command = [sys.executable, str(FOLDER / "few_labels.py"), "--encoder", "x", "--data", str(small_data)]

    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert refused.returncode == 1
    assert "train.conll: 60 sentences; expected 6,000 or more" in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_words_without_spaces_become_those_of_raw_text_with_their_entities(tmp_path):
    corpus, out = tmp_path / "a.conll", tmp_path / "out" / "b.conll"
    corpus.write_text("北京\tB-LOC\n大学\tO\n\nABC\tB-ORG\nD\tO\n\n", encoding="utf-8")

    command = [sys.executable, str(FOLDER / "raw_words.py"), str(corpus), str(out)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "1 entities were widened" in done.stdout  # `ABCD` is one word of raw text
    assert out.read_text(encoding="utf-8") == "北\tB-LOC\n京\tI-LOC\n大\tO\n学\tO\n\nABCD\tB-ORG\n\n"


@pytest.mark.slow
def test_labels_of_a_teacher_are_scored_for_each_setting_of_pooling(teacher, small_data, tmp_path):
    command = [sys.executable, str(FOLDER / "label_f1.py"), str(teacher / "model"), "--data", str(small_data)]

    done = subprocess.run(
        [*command, "--languages", "en", "--try", "strength=0,outside=0", "word=0"],
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    rows = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in done.stdout.splitlines() if " | " in line
    }
    # Without pooling and shift the labels stay those of the teacher.
    assert rows["strength=0,outside=0"] == rows["the teacher alone"]
    assert float(rows["word=0"]) > 0


def test_runs_of_several_seeds_make_a_table_with_intervals_and_paired_tests(tmp_path, monkeypatch, capsys):
    # Of three entities 1, 2 or 3 are found, and none besides: F1 50, 80 and 100.
    for target, seed, n_right, transfer in [("de", 0, 1, 40), ("de", 1, 2, 60), ("es", 0, 3, 70), ("es", 1, 1, 60)]:
        recipe = {"variant": "pooled", "teacher": f"runs/en-{seed}/model"}
        own = {"recipe": recipe, "target": target, "seed": seed, "transfer": float(transfer)}
        write_run(tmp_path / f"{target}-{seed}", guesses=tags(n_right, 3 - n_right), **own)
    write_run(tmp_path / "tsl", guesses=tags(2, 1), recipe={"variant": "tsl"}, target="de", seed=0)
    monkeypatch.setattr("sys.argv", ["seed_table.py", *map(str, sorted(tmp_path.iterdir())), str(tmp_path / "none")])

    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / "seed_table.py"), run_name="__main__")

    told, left_out = capsys.readouterr()
    assert end.value.code == 0
    assert left_out.startswith("left out: ")
    # Half of the interval: t(0.975, 1) = 12.706, times the deviation, by the root of 2.
    assert "| de | 50.00 ± 127.06 | 80.00 (1 seed) | 65.00 ± 190.59 |" in told
    assert "| mean | 57.50 |  | 70.00 |" in told
    assert "4 pairs of one teacher and its student, mean +12.50, lowest -10.00, 3 at or above" in told
    assert "default - tsl, de: -30.00" in told


def test_a_corpus_in_small_letters_keeps_its_tags(tmp_path):
    corpus, out = tmp_path / "a.conll", tmp_path / "out" / "b.conll"
    corpus.write_text("Ümit\tB-PER\nlebt\tO\nin\tO\nKIEL\tB-LOC\n\nUlm\tB-LOC\n\nWien\tB-LOC\n", encoding="utf-8")

    command = [sys.executable, str(FOLDER / "small_letters.py"), str(corpus), str(out), "--sentences", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert out.read_text(encoding="utf-8") == "ümit\tB-PER\nlebt\tO\nin\tO\nkiel\tB-LOC\n\nulm\tB-LOC\n\n"
