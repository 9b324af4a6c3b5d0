"""What people give by mistake: each ends with status 2 and one message that names the thing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LABELS, REPOSITORY, tiny_model, word_piece_tokenizer
from runs import DISTILL, TEACHER, TINY, run_script, sentences, write_conll

from xlner.models.folder import save_model
from xlner.models.settings import ModelSettings

pytestmark = pytest.mark.slow

BRIEF = (*(argument for argument in TINY if "epochs" not in argument), "optimization.epochs=1", "run=first")


@pytest.fixture
def data(small_data, tmp_path):
    """Corpora that may be spoilt."""
    return Path(shutil.copytree(small_data, tmp_path / "data"))


@pytest.fixture(scope="module")
def headless(tmp_path_factory):
    """A teacher that knows the tags of the small corpora, without a similarity head."""
    folder = tmp_path_factory.mktemp("headless") / "model"
    tokenizer = word_piece_tokenizer()
    save_model(folder, tiny_model(tokenizer), tokenizer, ModelSettings())
    return folder


@pytest.fixture(scope="module")
def teach(tiny_encoder):
    """Runs train_teacher.py in a folder that holds `data`."""
    return lambda place, *arguments: run_script(TEACHER, f"encoder={tiny_encoder}", *BRIEF, *arguments, cwd=place)


@pytest.fixture(scope="module")
def learn(bert_folder):
    """Runs distill.py in a folder that holds `data`."""

    def run(place, *arguments, teacher=bert_folder):
        return run_script(DISTILL, "target=de", f"teacher={teacher}", *BRIEF, *arguments, cwd=place)

    return run


def refused(finished):
    """The only message of a run that ended with status 2 before it had begun; a hint may follow it."""
    assert finished.status == 2
    assert "Traceback" not in finished.stderr
    message, *hint = finished.stderr.splitlines()
    assert [line for line in hint if not line.startswith("`xlner check-data FILE` lists all problems")] == []
    return message


def renamed_types(rows, names):
    return [[(word, tag[:2] + names.get(tag[2:], tag[2:])) for word, tag in row] for row in rows]


def test_an_unknown_key_is_refused(tmp_path):
    message = refused(run_script(TEACHER, "recipe=en", "optimization.epoch=3", cwd=tmp_path))

    assert message.startswith("command line: Key 'epoch' not in 'OptimizationRecipe'. Did you mean: 'epochs'?")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_missing_corpus_of_a_teacher_is_named_with_what_there_is(teach, data, tmp_path, split):
    (data / "en" / f"{split}.conll").unlink()

    message = refused(teach(tmp_path))

    assert message.startswith(f"no corpus at data/en/{split}.conll (or .txt, .conllu, .iob2); data/en holds: ")


def test_a_missing_language_is_named_with_what_there_is(teach, data, tmp_path):
    message = refused(teach(tmp_path, "language=enn"))

    assert message.startswith("no corpus at data/enn/train.conll")
    assert message.endswith("data holds: en, de")


def test_a_missing_target_text_is_named(learn, data, tmp_path):
    (data / "de" / "train.txt").unlink()

    message = refused(learn(tmp_path))

    assert message.startswith("no corpus at data/de/train.conll")


@pytest.mark.parametrize("content", ["", "\n\n", "# a comment alone\n"])
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_an_empty_corpus_is_named(teach, data, tmp_path, split, content):
    (data / "en" / f"{split}.conll").write_text(content)

    message = refused(teach(tmp_path))

    assert message.startswith(f"data/en/{split}.conll: no sentence in it")


def test_an_empty_target_text_is_named(learn, data, tmp_path):
    (data / "de" / "train.txt").write_text("")

    assert refused(learn(tmp_path)).startswith("data/de/train.txt: no sentence in it")


@pytest.mark.parametrize("job", ["teach", "learn"])
def test_a_text_without_anything_visible_is_refused(request, data, tmp_path, job):
    nothing = "\u200b\tB-PER\n"
    (data / "en" / "train.conll").write_text(nothing)
    (data / "de" / "train.txt").unlink()
    (data / "de" / "train.conll").write_text(nothing)

    finished = request.getfixturevalue(job)(tmp_path)

    assert finished.status == 2
    assert finished.messages == ["nothing to train on: the tokenizer makes nothing of any word of the text"]


def test_a_training_corpus_without_any_entity_is_named(teach, data, tmp_path):
    write_conll(data / "en" / "train.conll", [[("es", "O"), ("regnet", "O")]])

    assert refused(teach(tmp_path)).startswith("data/en/train.conll: found no entity in 1 sentences")


def test_a_broken_line_is_named_with_its_number(teach, data, tmp_path):
    with (data / "en" / "train.conll").open("a") as lines:
        lines.write("\nKiel\tB-LOC\tO\n")

    assert "data/en/train.conll:" in refused(teach(tmp_path))


def test_a_dev_set_with_a_tag_that_the_training_lacks_works_and_is_told(teach, data, tmp_path):
    extra = [[("Kiel", "B-SHIP"), ("regnet", "O")]]
    write_conll(data / "en" / "dev.conll", [*sentences(20, seed=2), *extra])

    finished = teach(tmp_path)

    assert (finished.status, finished.messages) == (0, [])
    assert "data/en/dev.conll: the model does not know SHIP: each such entity is a miss" in finished.stdout


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_corpus_with_no_type_of_the_training_is_refused_before_training(teach, data, tmp_path, split):
    rows = renamed_types(sentences(20, seed=2), {"PER": "PERSON", "LOC": "PLACE"})
    write_conll(data / "en" / f"{split}.conll", rows)

    message = refused(teach(tmp_path))

    assert message.startswith(f"data/en/{split}.conll: has entities of PERSON, PLACE, the model knows LOC, PER: ")


def test_a_target_test_set_with_no_type_of_the_teacher_is_refused_before_training(learn, data, tmp_path):
    write_conll(data / "de" / "test.conll", renamed_types(sentences(20, seed=5), {"PER": "PERSON", "LOC": "PLACE"}))

    finished = learn(tmp_path)

    (message,) = finished.messages
    assert finished.status == 2
    assert message.startswith(
        f"data/de/test.conll: has entities of PERSON, PLACE, the model knows {', '.join(LABELS.types)}"
    )
    assert not (tmp_path / "runs" / "first" / "metrics.jsonl").exists()


def test_a_labelled_target_text_works_and_its_labels_are_told_to_be_unused(learn, data, tmp_path):
    (data / "de" / "train.txt").unlink()
    write_conll(data / "de" / "train.conll", sentences(60, seed=4))

    finished = learn(tmp_path)

    assert (finished.status, finished.messages) == (0, [])
    assert "data/de/train.conll: has labels; they are not used" in finished.stdout


def test_an_unlabelled_test_set_is_refused(learn, data, tmp_path):
    (data / "de" / "test.conll").unlink()
    (data / "de" / "test.txt").write_text("Anna lebt in Kiel .\n")

    assert refused(learn(tmp_path)).startswith("data/de/test.txt: expected a tag for each word")


def test_a_target_without_a_test_set_works(learn, data, tmp_path):
    (data / "de" / "test.conll").unlink()

    finished = learn(tmp_path)

    assert finished.status == 0
    assert "no labelled test set" in finished.stdout


@pytest.mark.parametrize("name", ["nobody/no-such-encoder", "no-such-encoder", "./no-such-encoder", "runs/en/model"])
def test_an_encoder_that_does_not_exist_is_named(data, tmp_path, name):
    message = refused(run_script(TEACHER, *BRIEF, f"encoder={name}", cwd=tmp_path))

    assert message.startswith(f"{name}: ")
    assert "folder" in message


def test_an_encoder_folder_without_a_tokenizer_is_named(data, tiny_encoder, tmp_path):
    bare = Path(shutil.copytree(tiny_encoder, tmp_path / "bare"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()

    message = refused(run_script(TEACHER, *BRIEF, "encoder=bare", cwd=tmp_path))

    assert message.startswith("bare: ")


def test_a_student_of_an_encoder_that_does_not_exist_is_named(learn, data, tmp_path):
    finished = learn(tmp_path, "encoder=nobody/no-such-encoder")

    assert finished.status == 2
    assert finished.messages[-1].startswith("nobody/no-such-encoder: ")


def test_a_missing_teacher_is_named(learn, data, tmp_path):
    message = refused(learn(tmp_path, teacher="runs/teacher-en/model"))

    assert message.startswith("teacher=runs/teacher-en/model: no such folder; train one with train_teacher.py")


def test_an_encoder_is_no_teacher(learn, data, tiny_encoder, tmp_path):
    finished = learn(tmp_path, "variant=tsl", teacher=tiny_encoder)

    assert finished.status == 2
    assert finished.messages[-1].startswith(f"{tiny_encoder}: ")
    assert "no tagger" in finished.messages[-1]


def test_a_teacher_without_a_similarity_head_is_no_teacher_of_similarity(learn, data, headless, tmp_path):
    message = refused(learn(tmp_path, "variant=calibrated", teacher=headless))

    assert message.startswith(f"{headless}: this teacher has no similarity head")
    assert not (tmp_path / "runs" / "soft-labels").exists()


@pytest.mark.parametrize("variant", ["tsl", "pooled"])
def test_a_teacher_without_a_similarity_head_is_a_teacher_of_tags(learn, data, headless, tmp_path, variant):
    finished = learn(tmp_path, f"variant={variant}", teacher=headless)

    assert (finished.status, finished.messages) == (0, [])


def test_more_frozen_layers_than_there_are_is_refused(teach, data, tmp_path):
    message = refused(teach(tmp_path, "optimization.freeze=embeddings+7"))

    assert message == "optimization.freeze is embeddings+7; BertModel has 2 layers"


def test_an_output_folder_that_is_taken_is_named(teach, data, tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "notes.txt").write_text("mine")

    message = refused(teach(tmp_path))

    assert message == "runs/first: holds files that are no run of xlner (notes.txt); give another run="


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("loss.recognizer=hinge", "unknown loss.recognizer 'hinge'; known: "),
        ("weights.alpha=two", "unknown weights.alpha 'two'; known: "),
        ("weights.beta=two", "unknown weights.beta 'two'; known: "),
        ("weights.gamma=two", "unknown weights.gamma 'two'; known: "),
        ("corpus.format=xml", "unknown corpus.format 'xml'; known: "),
        ("corpus.word_splitter=japanese", "unknown corpus.word_splitter 'japanese'; known: "),
    ],
)
def test_an_unknown_choice_of_a_student_is_refused_with_the_known_ones(learn, data, tmp_path, argument, message):
    assert refused(learn(tmp_path, argument)).startswith(message)


@pytest.mark.parametrize("script", [TEACHER, DISTILL])
def test_a_reader_of_the_help_that_goes_away_leaves_no_traceback(script):
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run([sys.executable, script, "--help"], stdout=writing, stderr=subprocess.PIPE, cwd=REPOSITORY)

    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("recipe=en", "-h")])
@pytest.mark.parametrize("script", [TEACHER, DISTILL])
def test_help_is_given_to_whoever_asks(tmp_path, script, arguments):
    finished = run_script(script, *arguments, cwd=tmp_path)

    assert (finished.status, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"xlner {'train-teacher' if script == TEACHER else 'distill'} ")
