import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from xlner.cli import app
from xlner.compare import Cell, f1_of, p_value, read_predictions, read_run, sentence_counts, settings_of, write_csv
from xlner.errors import RunError


def write_run(folder, *, guesses, recipe, target="de", seed=0, transfer=30.0, corpus="abc", teacher_mark=None):
    """A finished run on sentences of one word each, all of them `B-LOC`; `guesses` are its tags."""
    folder.mkdir(parents=True)
    report = {
        "target": target,
        "seed": seed,
        "teacher": {"fingerprint": teacher_mark},
        "corpora": {"test": {"fingerprint": corpus, "corpus_name": "Places de, test", "sentences": len(guesses)}},
        "scores": {"teacher": {"overall": {"f1": transfer}}},
        "training": {"seconds": 60.0, "peak_memory_mib": 512},
    }
    (folder / "report.json").write_text(json.dumps(report))
    lines = "".join(f"{key}: {value}\n" for key, value in ({"seed": seed, "run": folder.name} | recipe).items())
    (folder / "recipe.yaml").write_text(lines)
    (folder / "predictions-test.conll").write_text("".join(f"Kiel\tB-LOC\t{tag}\n\n" for tag in guesses))
    return folder


def tags(n_right, n_missed):
    return ["B-LOC"] * n_right + ["O"] * n_missed


def test_counts_of_a_sentence_are_right_predicted_and_in_the_corpus(tmp_path):
    (tmp_path / "x.conll").write_text("Anna\tB-PER\tB-PER\nin\tO\tO\nKiel\tB-LOC\tB-PER\n\nes\tO\tB-LOC\n")

    sentences = read_predictions(tmp_path / "x.conll")
    counts = sentence_counts(sentences)

    assert len(sentences) == 2
    assert {name: rows.tolist() for name, rows in counts.items()} == {
        "LOC": [[0, 0, 1], [0, 1, 0]],
        "PER": [[1, 2, 1], [0, 0, 0]],
    }


@pytest.mark.parametrize(
    ("totals", "expected"), [((1, 1, 1), 100), ((1, 2, 1), 200 / 3), ((0, 0, 0), 0), ((0, 3, 1), 0)]
)
def test_f1_is_that_of_the_definition(totals, expected):
    assert f1_of(np.asarray(totals, dtype=float)) == pytest.approx(expected)


def test_runs_that_differ_in_their_seed_alone_are_one_setting(tmp_path):
    runs = [
        read_run(write_run(tmp_path / f"{variant}-{seed}", guesses=tags(5, 5), recipe={"variant": variant}, seed=seed))
        for variant in ("tsl", "calibrated")
        for seed in (0, 1)
    ]

    table = settings_of(runs)

    assert {name: {language: sorted(cell.runs) for language, cell in row.items()} for name, row in table.items()} == {
        "variant=tsl": {"de": [0, 1]},
        "variant=calibrated": {"de": [0, 1]},
    }


def test_several_teachers_make_a_setting_and_which_single_one_it_is_does_not(tmp_path):
    teachers = ["runs/en/model", "runs/en-1/model", "runs/en/model,runs/es/model", "runs/en/model,lists/names.jsonl"]
    runs = [
        read_run(write_run(tmp_path / str(n), guesses=["O"], recipe={"teacher": teacher, "variant": "tsl"}, seed=n))
        for n, teacher in enumerate(teachers)
    ]

    table = settings_of(runs)

    assert {name: sorted(row["de"].runs) for name, row in table.items()} == {
        "teacher=en": [0, 1],
        "teacher=en+es": [2],
        "teacher=en+names.jsonl": [3],
    }


def test_teachers_of_one_name_that_differ_at_a_seed_are_called_by_longer_names(tmp_path):
    runs = [
        read_run(write_run(tmp_path / str(n), guesses=["O"], recipe={"teacher": teacher}, teacher_mark=mark))
        for n, (teacher, mark) in enumerate([("runs/en-6/model", "six"), ("runs/en-12/model", "twelve")])
    ]

    assert list(settings_of(runs)) == ["teacher=en-6", "teacher=en-12"]


def test_names_are_short_where_that_tells_settings_apart(tmp_path):
    recipes = [
        {"encoder": "/a/long/way/to/small", "optimization.epochs": 3, "loss.kind": "x", "similarity.kind": "x"},
        {"encoder": "/a/long/way/to/large", "optimization.epochs": 5, "loss.kind": "y", "similarity.kind": "y"},
    ]
    runs = [read_run(write_run(tmp_path / str(n), guesses=["O"], recipe=recipe)) for n, recipe in enumerate(recipes)]

    assert list(settings_of(runs)) == [
        "encoder=small, loss.kind=x, epochs=3, similarity.kind=x",
        "encoder=large, loss.kind=y, epochs=5, similarity.kind=y",
    ]


def test_students_of_different_teachers_are_tested_with_a_remark(tmp_path):
    folders = [
        write_run(tmp_path / name, guesses=tags(n, 100 - n), recipe={"setting": name}, teacher_mark=mark)
        for name, n, mark in (("base", 40, "one"), ("other", 70, "two"), ("same", 70, "one"))
    ]

    lines = CliRunner().invoke(app, ["compare", *map(str, folders)]).stdout.splitlines()

    of_other, of_same = (next(line for line in lines if line.startswith(f"| `{name}`")) for name in ("other", "same"))
    assert "de < 0.001 (other teacher) |" in of_other
    assert "de < 0.001 |" in of_same
    assert "(other teacher): the two learnt from different teachers; the difference may be that of these." in lines


HOSTILE = "=x|`y`<b>\x1b[2J$z$"


def test_hostile_names_do_nothing_in_the_tables_the_csv_and_the_plot(tmp_path):
    recipe = {"setting": json.dumps(HOSTILE)}  # of YAML, too
    folder = write_run(tmp_path / "a", guesses=tags(3, 1), recipe=recipe, target="_d|e_")
    places = [str(tmp_path / name) for name in ("x.csv", "x.svg")]

    result = CliRunner().invoke(app, ["compare", str(folder), "--types", "--csv", places[0], "--plot", places[1]])

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(r"| setting | \_d\|e\_ | mean |")
    name = r"``=x\|`y`<b>\x1b[2J$z$``"
    assert [line.startswith(f"| {name} | ") for line in lines if "`y`" in line] == [True, True]
    assert "\x1b" not in result.stdout
    (row, _) = csv.DictReader((tmp_path / "x.csv").open())
    assert row["setting"] == f"'{HOSTILE}"


def test_what_a_variant_sets_is_not_told_twice_and_what_else_differs_is(tmp_path):
    recipes = [
        {"variant": "tsl", "loss.recognizer": "squared_error", "epochs": 3},
        {"variant": "calibrated", "loss.recognizer": "soft_cross_entropy", "epochs": 3},
        {"variant": "calibrated", "loss.recognizer": "soft_cross_entropy", "epochs": 5},
    ]
    runs = [read_run(write_run(tmp_path / str(n), guesses=["O"], recipe=recipe)) for n, recipe in enumerate(recipes)]

    assert list(settings_of(runs)) == [
        "epochs=3, variant=tsl",
        "epochs=3, variant=calibrated",
        "epochs=5, variant=calibrated",
    ]


def test_scores_on_different_test_sets_are_not_compared(tmp_path):
    runs = [
        read_run(write_run(tmp_path / corpus, guesses=["O"], recipe={"variant": corpus}, corpus=corpus))
        for corpus in ("original", "revised")
    ]

    with pytest.raises(RunError, match=r"was scored on Places de, test \(revised\).*\(original\)"):
        settings_of(runs)


def test_two_runs_of_one_setting_and_seed_are_refused(tmp_path):
    runs = [read_run(write_run(tmp_path / name, guesses=["O"], recipe={"variant": "tsl"})) for name in "ab"]

    with pytest.raises(RunError, match="one setting with one seed, 0"):
        settings_of(runs)


@pytest.mark.parametrize("missing", ["report.json", "recipe.yaml", "predictions-test.conll"])
def test_a_run_that_lacks_something_is_refused_with_what_it_lacks(tmp_path, missing):
    folder = write_run(tmp_path / "a", guesses=["O"], recipe={"variant": "tsl"})
    (folder / missing).unlink()

    with pytest.raises(RunError, match=missing):
        read_run(folder)


def cell(folder, *guesses):
    runs = [
        read_run(write_run(folder / str(seed), guesses=rows, recipe={"variant": folder.name}, seed=seed))
        for seed, rows in enumerate(guesses)
    ]
    return Cell({run.seed: run for run in runs})


def test_a_large_difference_is_no_chance_and_a_small_one_may_be(tmp_path):
    generator = np.random.default_rng(0)
    base = tags(50, 50)
    better = tags(90, 10)
    shuffled = [str(tag) for tag in generator.permutation(tags(51, 49))]

    assert p_value(cell(tmp_path / "a", base), cell(tmp_path / "b", better)) < 0.01
    assert p_value(cell(tmp_path / "c", base), cell(tmp_path / "d", shuffled)) > 0.3
    assert p_value(cell(tmp_path / "e", base), cell(tmp_path / "f", base)) == 1.0


def test_settings_without_a_common_seed_are_not_tested(tmp_path):
    one = cell(tmp_path / "a", ["O"])

    assert p_value(one, Cell({7: one.runs[0]})) is None


def test_the_table_shows_means_spread_chance_and_what_was_scored(tmp_path):
    folders = [
        write_run(
            tmp_path / f"{variant}-{seed}",
            guesses=tags(n_right + seed, 100 - n_right - seed),
            recipe={"variant": variant},
            seed=seed,
            transfer=30.0 + seed,
        )
        for variant, n_right in (("tsl", 40), ("calibrated", 70))
        for seed in (0, 1)
    ]

    result = CliRunner().invoke(app, ["compare", "--types", "--csv", str(tmp_path / "x.csv"), *map(str, folders)])

    lines = result.stdout.splitlines()
    assert lines[0] == "| setting | de | mean | over its teacher | p against variant=tsl | seeds | seconds | MiB |"
    assert lines[2].startswith("| direct transfer | 30.50 ± 0.71 | 30.50 |")
    # 40 and 41 of 100 found, none wrong: F1 57.14 and 58.16; 70 and 71: 82.35 and 83.04.
    assert lines[3] == "| `variant=tsl` | 57.65 ± 0.72 | 57.65 | +27.15 |  | 0, 1 | 60 | 512 |"
    assert lines[4].startswith("| `variant=calibrated` | 82.70 ± 0.49 | 82.70 | +52.20 | de < 0.001 |")
    assert "de: Places de, test (fingerprint abc)" in lines
    assert "| LOC | de |" in lines
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert [(row["setting"], row["type"], row["right"]) for row in rows[:2]] == [
        ("variant=tsl", "LOC", "40"),
        ("variant=tsl", "all", "40"),
    ]


def test_settings_with_teachers_of_their_own_have_no_common_direct_transfer(tmp_path):
    folders = [
        write_run(tmp_path / name, guesses=tags(40, 60), recipe={"setting": name}, transfer=transfer)
        for name, transfer in (("first", 30.0), ("second", 50.0))
    ]

    lines = CliRunner().invoke(app, ["compare", *map(str, folders)]).stdout.splitlines()

    assert not [line for line in lines if "direct transfer" in line]
    assert [line.split(" | ")[3] for line in lines[2:4]] == ["+27.14", "+7.14"]


def test_the_plot_is_drawn(tmp_path):
    folder = write_run(tmp_path / "a", guesses=tags(3, 1), recipe={"variant": "tsl"})

    result = CliRunner().invoke(app, ["compare", str(folder), "--plot", str(tmp_path / "x.png")])

    assert result.exit_code == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "content"),
    [("report.json", "{"), ("report.json", "{}"), ("report.json", "[1]"), ("recipe.yaml", "a: ["), ("recipe.yaml", "")],
)
def test_a_half_written_run_is_refused_with_the_file(tmp_path, name, content):
    folder = write_run(tmp_path / "a", guesses=["O"], recipe={"variant": "tsl"})
    (folder / name).write_text(content)

    with pytest.raises(RunError, match=rf"{name}.*damaged"):
        read_run(folder)


@pytest.mark.parametrize("option", ["--csv", "--plot"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, option):
    folder = write_run(tmp_path / "a", guesses=["O"], recipe={"variant": "tsl"})

    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["compare", str(folder), option, str(tmp_path / "file" / "x.png")])

    assert isinstance(result.exception, RunError)
    assert "cannot be written" in str(result.exception)


def test_a_run_without_any_entity_scores_zero(tmp_path):
    folder = write_run(tmp_path / "a", guesses=["O"], recipe={"variant": "tsl"})
    (folder / "predictions-test.conll").write_text("es\tO\tO\n")

    run = read_run(folder)

    assert run.f1 == 0.0
    assert p_value(Cell({0: run}), Cell({0: run})) == 1.0
    write_csv(tmp_path / "table.csv", {"tsl": {"de": Cell({0: run})}})
    assert (
        (tmp_path / "table.csv")
        .read_text(encoding="utf-8")
        .splitlines()[1]
        .startswith("tsl,de,0,abc,all,0,0,0,0.0000,")
    )
