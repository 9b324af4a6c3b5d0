"""Whole runs of compact students: distilled by the launch script, opened, stopped and resumed."""

import json
import signal

import pytest
import torch
from runs import (
    DISTILL,
    TINY,
    are_equal,
    brief,
    lines_with,
    report_of,
    run_on_two,
    run_script,
    run_well,
    stop_at,
    weights_of,
    write_conll,
)

from xlner import load_tagger
from xlner.config.load import STUDENTS, load_recipe
from xlner.errors import RecipeError
from xlner.models.compact import BODIES
from xlner.models.settings import Sizes

SMALL = (
    "compact.word_size=12",
    "compact.char_size=6",
    "compact.char_filters=8",
    "compact.hidden_size=16",
    "compact.layers=1",
    "compact.buckets=4096",
    "compact.dropout=0.1",
    "compact.unknown_ratio=0.05",
)


@pytest.fixture(scope="session")
def compact(teacher, small_data):
    """The arguments of a compact student's run, but its name and kind."""
    return ("target=de", f"teacher={teacher / 'model'}", f"data={small_data}", "denoising=none", *TINY, *SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["softmax", "crf"])
@pytest.mark.parametrize("kind", sorted(BODIES))
def test_a_student_of_every_kind_learns_what_its_teacher_says(compact, tmp_path, kind, decoder):
    run_well(DISTILL, *brief(compact, 40), f"student={kind}", f"compact.decoder={decoder}", "run=small", cwd=tmp_path)

    run = tmp_path / "runs" / "small"
    report = report_of(run)
    tagger = load_tagger(run / "model")
    # A table of features that learns whole sequences of a tiny teacher gets least of it.
    least = 0.8 if (kind, decoder) == ("linear", "crf") else 0.9
    assert report["scores"]["student"]["overall"]["f1"] > least * report["scores"]["teacher"]["overall"]["f1"]
    assert [(entity.text, entity.label) for entity in tagger.tag("Anna lebt in Kiel .")] == [
        ("Anna", "PER"),
        ("Kiel", "LOC"),
    ]
    assert sorted(path.name for path in (run / "model").iterdir()) == sorted(
        ["README.md", "model.safetensors", "student.json", "xlner.json"] + ["vocabulary.json"] * (kind != "linear")
    )
    assert "transformers" not in (run / "model" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_student_also_after_a_stop(compact, tmp_path):
    arguments = (*brief(compact, 3), "student=bilstm", "compact.decoder=crf")
    run_well(DISTILL, *arguments, "run=whole", cwd=tmp_path)
    stopped = run_script(
        DISTILL,
        *arguments,
        "run=stopped",
        cwd=tmp_path,
        meanwhile=stop_at(10, tmp_path / "runs" / "stopped", signal.SIGTERM),
    )

    run_well(DISTILL, *arguments, "run=stopped", cwd=tmp_path)

    whole, resumed = (tmp_path / "runs" / name for name in ("whole", "stopped"))
    assert stopped.status == 143
    assert are_equal(weights_of(whole), weights_of(resumed))
    assert report_of(whole)["scores"] == report_of(resumed)["scores"]


@pytest.mark.slow
def test_two_processes_train_one_student(compact, tmp_path):
    arguments = (*brief(compact, 2), "student=bilstm", "compact.decoder=crf", "run=two")

    finished = run_on_two(DISTILL, *arguments, cwd=tmp_path)

    assert [process.status for process in finished] == [0, 0]
    assert report_of(tmp_path / "runs" / "two")["training"]["processes"] == 2


@pytest.mark.slow
def test_gold_sentences_beside_the_text_and_a_selection_are_as_for_other_students(compact, tmp_path):
    arguments = (*brief(compact, 2), "student=linear", "source.share=0.3", "selection=score", "run=mixed")

    run_well(DISTILL, *arguments, cwd=tmp_path)

    run = tmp_path / "runs" / "mixed"
    assert len(lines_with(run, "selection_score")) == 2
    assert {"agreement_f1", "source_f1"} <= lines_with(run, "selection_score")[0].keys()


@pytest.mark.slow
def test_hard_labels_alone_are_learnt_without_soft_ones(compact, tmp_path):
    arguments = (*brief(compact, 2), "student=linear", "loss.recognizer_weight=0", "compact.hard_weight=1")

    run_well(DISTILL, *arguments, "run=hard", cwd=tmp_path)

    for line in lines_with(tmp_path / "runs" / "hard", "loss"):
        assert line["loss"] == pytest.approx(line["loss_task"], abs=2e-6)


@pytest.mark.slow
def test_vectors_of_a_file_are_what_words_start_from(compact, tmp_path):
    numbers = " ".join(["0.5", "-0.5"] * 6)
    # A few words of GloVe hold spaces.
    (tmp_path / "vectors.txt").write_text(
        f"3 12\n. . . {numbers}\nKiel {numbers}\nnowhere {numbers}\n", encoding="utf-8"
    )
    still = ("optimization.head_learning_rate=0", "optimization.weight_decay=0", "compact.vectors=vectors.txt")

    run_well(DISTILL, *[a for a in brief(compact) if "head" not in a], *still, "student=bilstm", "run=v", cwd=tmp_path)

    model = tmp_path / "runs" / "v" / "model"
    words = json.loads((model / "vocabulary.json").read_text(encoding="utf-8"))["words"]
    table = weights_of(model.parent)["body.vectors.words.weight"]
    found = table[2 + words.index("kiel")]
    torch.testing.assert_close(found / found[0], torch.tensor([1.0, -1.0] * 6))


@pytest.mark.slow
def test_a_student_can_know_all_words_of_a_file_of_vectors(compact, tmp_path):
    numbers = " ".join(["0.5", "-0.5"] * 6)
    (tmp_path / "vectors.txt").write_text(f"Kiel {numbers}\nNirgendwo {numbers}\n", encoding="utf-8")
    whole = (*brief(compact), "student=bilstm", "compact.whole_vectors=true", "run=v")

    run_well(DISTILL, *whole, "compact.vectors=vectors.txt", cwd=tmp_path)
    refused = run_script(DISTILL, *whole[:-1], "run=w", cwd=tmp_path)

    model = tmp_path / "runs" / "v" / "model"
    words = json.loads((model / "vocabulary.json").read_text(encoding="utf-8"))["words"]
    assert words[-1] == "nirgendwo"
    assert words.count("kiel") == 1
    found = weights_of(model.parent)["body.vectors.words.weight"][2 + words.index("nirgendwo")]
    torch.testing.assert_close(found / found[0], torch.tensor([1.0, -1.0] * 6))
    assert "give compact.vectors=FILE" in refused.messages[-1]


@pytest.mark.slow
def test_a_file_of_vectors_of_another_width_is_refused_with_its_line(compact, tmp_path):
    (tmp_path / "vectors.txt").write_text("Kiel 0.5 0.5\n", encoding="utf-8")

    finished = run_script(
        DISTILL, *brief(compact), "student=bilstm", "compact.vectors=vectors.txt", "run=v", cwd=tmp_path
    )

    assert finished.status == 2
    assert "vectors.txt:1: expected a word and 12 numbers (compact.word_size), found 2" in finished.stderr
    (tmp_path / "vectors.txt").write_text(f"Kiel {' '.join(['0.5'] * 13)}\n", encoding="utf-8")
    wide = run_script(DISTILL, *brief(compact), "student=bilstm", "compact.vectors=vectors.txt", "run=v", cwd=tmp_path)
    assert "expected a word and 12 numbers (compact.word_size), found 13" in wide.stderr
    missing = run_script(DISTILL, *brief(compact), "student=bilstm", "compact.vectors=none.txt", "run=w", cwd=tmp_path)
    assert (missing.status, "none.txt" in missing.messages[-1]) == (2, True)
    assert not any((tmp_path / "runs" / name).exists() for name in ("v", "w", "soft-labels"))  # told before long work


@pytest.mark.parametrize(
    "argument",
    [
        *("variant=calibrated", "encoder=x"),
        *("optimization.freeze=embeddings", "optimization.batch_pieces=9"),
    ],
)
def test_what_a_compact_student_cannot_do_is_refused_by_its_key(argument):
    with pytest.raises(RecipeError, match="student=bilstm learns from soft labels of words"):
        load_recipe("distill", ["target=de", "student=bilstm", argument])


def test_annotations_alone_can_teach_a_compact_student_of_random_vectors():
    recipe = load_recipe("distill", ["target=de", "student=bilstm", "teacher=a.jsonl", "compact.vectors=random"])

    assert recipe.model_teachers == ()
    with pytest.raises(RecipeError, match="annotations have no word vectors"):
        load_recipe("distill", ["target=de", "student=bilstm", "teacher=a.jsonl"])


def test_defaults_of_a_kind_give_way_to_what_is_asked_for():
    recipe = load_recipe("distill", ["target=de", "student=linear", "optimization.epochs=7"])

    assert recipe.optimization.epochs == 7
    assert recipe.optimization.head_learning_rate == float(STUDENTS["linear"]["optimization"]["head_learning_rate"])


def test_every_kind_has_defaults_and_every_default_a_kind():
    assert sorted(STUDENTS) == sorted(["encoder", "transformer", *BODIES])
    assert Sizes().layers == load_recipe("distill", ["target=de", "student=bilstm"]).compact.layers


@pytest.mark.slow
def test_a_corpus_with_other_types_is_refused_before_training(compact, tmp_path):
    data = tmp_path / "data"
    write_conll(data / "de" / "train.conll", [[("Kiel", "O")]] * 20)
    write_conll(data / "de" / "test.conll", [[("Kiel", "B-DRUG")]])

    finished = run_script(
        DISTILL, *[a for a in compact if "data=" not in a], f"data={data}", "student=linear", "run=x", cwd=tmp_path
    )

    assert finished.status == 2
    assert "no type in common" in finished.stderr


@pytest.mark.slow
def test_two_compact_students_teach_a_third(compact, tmp_path):
    for kind in ("linear", "bilstm"):
        run_well(DISTILL, *brief(compact, 20), f"student={kind}", f"run={kind}", cwd=tmp_path)
    own = [argument for argument in brief(compact, 20) if not argument.startswith("teacher=")]
    teachers = [str(tmp_path / "runs" / kind / "model") for kind in ("linear", "bilstm")]

    run_well(DISTILL, *own, f"teacher={','.join(teachers)}", "student=linear", "run=third", cwd=tmp_path)

    scores = report_of(tmp_path / "runs" / "third")["scores"]
    of_first = report_of(tmp_path / "runs" / "linear")["scores"]["student"]["overall"]["f1"]
    assert scores["teacher"]["overall"]["f1"] == pytest.approx(of_first)
    assert scores["student"]["overall"]["f1"] > 0.8 * scores["teacher 2"]["overall"]["f1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "told"), [("encoder", "no encoder that another could start from"), ("bilstm", "compact.vectors=random")]
)
def test_what_cannot_start_from_a_compact_teacher_is_refused(compact, student, told, tmp_path):
    run_well(DISTILL, *brief(compact), "student=linear", "run=linear", cwd=tmp_path)
    kept = ("target=", "data=", "denoising=", "hardware.")
    own = [argument for argument in brief(compact) if argument.startswith(kept)]

    finished = run_script(DISTILL, *own, "teacher=runs/linear/model", f"student={student}", "run=x", cwd=tmp_path)

    assert finished.status == 2
    assert told in finished.messages[-1]


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["loss.recognizer=squared_logits", "compact.first_temperature=4"])
def test_a_student_learns_from_logits_and_from_labels_that_grow_sharper(compact, setting, tmp_path):
    run_well(DISTILL, *brief(compact, 20), "student=linear", setting, "compact.hard_weight=0", "run=x", cwd=tmp_path)

    scores = report_of(tmp_path / "runs" / "x")["scores"]
    assert scores["student"]["overall"]["f1"] > 0.8 * scores["teacher"]["overall"]["f1"]
