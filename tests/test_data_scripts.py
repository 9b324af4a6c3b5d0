import subprocess
import sys

import pytest
from conftest import REPOSITORY

from xlner.data.corpus import read_corpus
from xlner.data.fingerprints import fingerprint
from xlner.text import Sentence


def run(script, *arguments):
    """A script of data_scripts as a person calls it."""
    command = [sys.executable, str(REPOSITORY / "data_scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_numbered(path, n_sentences, first=0):
    """Sentences of one word each, `w0`, `w1`, ..., in the columns of WikiNEuRal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"0\tw{number}\tB-LOC\n\n" for number in range(first, first + n_sentences)))


def numbers(path):
    return [int(sentence.words[0][1:]) for sentence in read_corpus(path)]


@pytest.fixture
def wikineural(tmp_path):
    """A source of two languages with 40 sentences to train on, and 3 for the test."""
    for language in ("de", "en"):
        write_numbered(tmp_path / "source" / language / "val.conllu", 40)
        write_numbered(tmp_path / "source" / language / "test.conllu", 3, first=100)
    return tmp_path / "source"


def test_val_is_split_into_train_and_dev_by_the_seed_and_in_order(wikineural, tmp_path):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run("wikineural.py", "--source", wikineural, "--out", tmp_path / out, "--seed", seed).returncode == 0

    train, dev = numbers(tmp_path / "a/de/train.conll"), numbers(tmp_path / "a/de/dev.conll")
    assert (len(train), len(dev)) == (36, 4)
    assert sorted(train + dev) == list(range(40))
    assert (train, dev) == (sorted(train), sorted(dev))
    assert numbers(tmp_path / "a/de/test.conll") == [100, 101, 102]
    assert numbers(tmp_path / "b/de/dev.conll") == dev
    assert numbers(tmp_path / "c/de/dev.conll") != dev


def test_a_source_with_train_keeps_its_own_splits(wikineural, tmp_path):
    write_numbered(wikineural / "de" / "train.conllu", 7, first=200)

    run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out", "--languages", "de")

    assert numbers(tmp_path / "out/de/train.conll") == list(range(200, 207))
    assert numbers(tmp_path / "out/de/dev.conll") == list(range(40))
    assert not (tmp_path / "out/en").exists()


def test_the_report_counts_names_the_content_and_cites(wikineural, tmp_path):
    outcome = run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out", "--languages", "en")

    train = fingerprint(read_corpus(tmp_path / "out/en/train.conll"))
    assert outcome.stdout.splitlines()[0].split() == [
        "en",
        "train",
        "36",
        "sentences",
        "36",
        "words",
        train,
        "LOC",
        "36",
    ]
    assert "Tedeschi et al. 2021" in outcome.stdout
    assert "CC BY-NC-SA 4.0" in outcome.stdout


def test_sentences_of_test_that_stand_in_train_are_counted(wikineural, tmp_path):
    write_numbered(wikineural / "de" / "train.conllu", 40, first=101)

    outcome = run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out", "--languages", "de")

    assert "also in train: 2" in outcome.stdout.splitlines()[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--languages", "de,xx"), "no xx there; found de, en"),
        (("--source", "nowhere"), "nowhere: no corpus there"),
    ],
)
def test_what_is_not_there_is_told_with_status_2(wikineural, tmp_path, arguments, message):
    outcome = run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out", *arguments)

    assert outcome.returncode == 2
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_broken_source_leaves_the_folder_of_its_language_as_it_was(wikineural, tmp_path):
    run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.conll")}
    with (wikineural / "en" / "test.conllu").open("a") as file:
        file.write("0\tKiel\tLOC\n")

    outcome = run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out")

    assert outcome.returncode == 2
    assert "test.conllu:7: found tag 'LOC'" in outcome.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["de", "en"]


def test_universal_ner_keeps_the_splits_that_it_has(tmp_path):
    folder = tmp_path / "source" / "UNER_German-PUD"
    folder.mkdir(parents=True)
    (folder / "de_pud-ud-test.iob2").write_text("# text = In Kiel\n1\tIn\tO\t-\t-\n2\tKiel\tB-LOC\t-\tme\n\n")

    outcome = run("uner.py", "--source", tmp_path / "source", "--out", tmp_path / "out")

    assert outcome.returncode == 0
    assert [path.name for path in (tmp_path / "out/de_pud").iterdir()] == ["test.conll"]
    assert list(read_corpus(tmp_path / "out/de_pud/test.conll")) == [Sentence(("In", "Kiel"), ("O", "B-LOC"))]
    assert "Mayhew et al. 2024" in outcome.stdout


def test_real_corpora_come_through_whole(shared, tmp_path):
    source = shared / "data" / "uner"

    run("uner.py", "--source", source, "--out", tmp_path, "--corpora", "zh_gsd")

    for split in ("train", "dev", "test"):
        original = read_corpus(source / "zh_gsd" / f"zh_gsd-ud-{split}.iob2")
        assert fingerprint(read_corpus(tmp_path / "zh_gsd" / f"{split}.conll")) == fingerprint(original)
