import json
import shutil

import pytest
from runs import DISTILL, TEACHER, TINY, run_well, sentences, write_conll, write_text

from xlner.jobs.doubts import doubt_of_agreement
from xlner.soft_labels.store import SoftLabels

pytestmark = pytest.mark.slow

SHORT = (*(setting for setting in TINY if not setting.startswith("optimization.epochs")), "optimization.epochs=1")
RAIN = [("es", "O"), ("regnet", "O"), ("in", "O"), ("der", "O"), ("Stadt", "O"), (".", "O")]


@pytest.fixture(scope="module")
def idle_teacher(tiny_encoder, small_data, tmp_path_factory):
    """The folder of a teacher that learnt to find nothing, since it hardly saw a name, and what its run printed."""
    place = tmp_path_factory.mktemp("idle")
    for split, n_sentences in (("train", 60), ("dev", 20)):
        named = [("Kiel", "B-LOC"), *RAIN[1:]]
        write_conll(place / "data" / "en" / f"{split}.conll", [named, *[RAIN] * (n_sentences - 1)])
    told = run_well(TEACHER, f"encoder={tiny_encoder}", f"data={place / 'data'}", *SHORT, "run=idle", cwd=place)
    return place / "runs" / "idle", told.stdout


def warnings_of(run):
    return json.loads((run / "report.json").read_text(encoding="utf-8"))["warnings"]


def told_in(stdout):
    return [line.removeprefix("warning: ") for line in stdout.splitlines() if line.startswith("warning: ")]


def test_a_teacher_that_learnt_nothing_says_so_and_what_to_change(idle_teacher):
    run, stdout = idle_teacher

    (warning,) = warnings_of(run)

    assert told_in(stdout) == [warning]
    assert "it has learnt (almost) nothing. It had 8 steps on 60 sentences; the figures" in warning
    assert "Try more text, more optimization.epochs, another learning rate or an encoder that knows" in warning
    assert "**Not fit for use**: the model finds" in (run / "model" / "README.md").read_text(encoding="utf-8")


def test_a_teacher_that_learnt_has_no_warning(teacher):
    assert warnings_of(teacher) == []
    assert "Not fit for use" not in (teacher / "model" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("student", ["encoder", "linear"])
def test_a_student_of_a_teacher_that_finds_nothing_is_told_that_no_good_can_come_of_it(
    idle_teacher, small_data, tmp_path, student
):
    model = idle_teacher[0] / "model"
    brief = ("target=de", f"teacher={model}", f"data={small_data}", f"student={student}", "denoising=none", "run=first")

    told = run_well(DISTILL, *brief, *SHORT, cwd=tmp_path)

    warnings = warnings_of(tmp_path / "runs" / "first")
    assert told_in(told.stdout) == warnings
    assert (
        f"{model} has a dev F1 of 0.00 in its own language: no good student can come of it; train it anew" in warnings
    )
    assert [warning for warning in warnings if warning.startswith("the teacher finds 0 entities in")]
    assert "has learnt (almost) nothing" in warnings[-1]
    assert ("an encoder that knows the language" in warnings[-1]) == (student == "encoder")


def test_a_student_without_a_test_set_is_judged_by_its_agreement(learning, tmp_path):
    data = tmp_path / "data"
    write_text(data / "de" / "train.txt", [*sentences(60, seed=4), [("es", "O"), ("regnet", "O"), (".", "O")]])
    kept = [argument for argument in learning if argument.partition("=")[0] not in ("data", "variant")]
    brief = (*kept, f"data={data}", "student=linear", "holdout_ratio=0.3", "denoising=none", "run=first")

    run_well(DISTILL, *brief, cwd=tmp_path)

    report = json.loads((tmp_path / "runs" / "first" / "report.json").read_text(encoding="utf-8"))
    assert report["agreement_f1"] > 5
    assert "agreement F1" not in " ".join(report["warnings"])
    (folder,) = (path for path in (tmp_path / "runs" / "soft-labels").iterdir() if path.is_dir())
    labels = SoftLabels(folder)
    named, rain = [0], [60]
    assert doubt_of_agreement(0.0, named, labels, "Try.").startswith("the student finds (almost) none of the ")
    assert doubt_of_agreement(90.0, named, labels, "Try.") == ""
    assert doubt_of_agreement(0.0, rain, labels, "Try.") == ""  # its teacher finds nothing there, either


def test_a_text_without_names_and_one_of_five_sentences_are_told(learning, small_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small_data / "en", data / "en")
    write_text(data / "de" / "train.txt", [[("es", "O"), ("regnet", "O"), (".", "O")]] * 5)
    arguments = [argument for argument in learning if not argument.startswith("data=")]

    run_well(DISTILL, *arguments, f"data={data}", "run=first", cwd=tmp_path)

    found = "\n".join(warnings_of(tmp_path / "runs" / "first"))
    assert f"the teacher finds 0 entities in 15 words of {data / 'de' / 'train.txt'}" in found
    assert "has 5 sentences, hardly enough to learn from" in found


@pytest.mark.parametrize(
    ("target", "way"), [("de", "is this text in the target language, de?"), ("en", "give text that it has not seen")]
)
def test_a_target_text_that_is_the_text_of_the_teacher_is_told(learning, small_data, target, way, tmp_path):
    data = tmp_path / "data"
    write_text(data / target / "train.txt", sentences(60, seed=1))  # those of en/train.conll
    write_conll(data / target / "test.conll", sentences(20, seed=5))
    arguments = [argument for argument in learning if not argument.startswith(("data=", "target="))]

    told = run_well(DISTILL, *arguments, f"data={data}", f"target={target}", "run=first", cwd=tmp_path)

    source = small_data / "en" / "train.conll"
    expected = f"60 of the first 60 sentences stand in {source}, too, the labelled text of the teacher"
    assert [line for line in told_in(told.stdout) if expected in line and way in line]
    assert any(expected in warning for warning in warnings_of(tmp_path / "runs" / "first"))
