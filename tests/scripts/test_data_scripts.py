import json

import pytest
from data_scripts_runs import run_data_script as run

from xlner.corpora.source import read_corpus
from xlner.corpora.splits import fingerprint, name_split, summarize
from xlner.words import Sentence

pytestmark = pytest.mark.slow


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

    train, dev = numbers(tmp_path / "a/wikineural/de/train.conll"), numbers(tmp_path / "a/wikineural/de/dev.conll")
    assert (len(train), len(dev)) == (36, 4)
    assert sorted(train + dev) == list(range(40))
    assert (train, dev) == (sorted(train), sorted(dev))
    assert numbers(tmp_path / "a/wikineural/de/test.conll") == [100, 101, 102]
    assert numbers(tmp_path / "b/wikineural/de/dev.conll") == dev
    assert numbers(tmp_path / "c/wikineural/de/dev.conll") != dev


def test_a_source_with_train_keeps_its_own_splits(wikineural, tmp_path):
    write_numbered(wikineural / "de" / "train.conllu", 7, first=200)

    run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out", "--languages", "de")

    assert numbers(tmp_path / "out/wikineural/de/train.conll") == list(range(200, 207))
    assert numbers(tmp_path / "out/wikineural/de/dev.conll") == list(range(40))
    assert not (tmp_path / "out/wikineural/en").exists()


def test_the_report_counts_names_the_content_and_cites(wikineural, tmp_path):
    outcome = run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out", "--languages", "en")

    train = fingerprint(read_corpus(tmp_path / "out/wikineural/en/train.conll"))
    lines = outcome.stdout.splitlines()
    assert lines[0].split()[:7] == ["en", "train", "36", "sentences", "36", "words", train]
    assert lines[0].endswith("WikiNEuRal en, nine tenths of val (seed 0), other content than published")
    assert lines[1].split() == ["LOC", "36"]
    assert "Tedeschi et al. 2021" in outcome.stdout
    assert "CC BY-NC-SA 4.0" in outcome.stdout


def test_sentences_of_test_that_stand_in_train_are_counted(wikineural, tmp_path):
    write_numbered(wikineural / "de" / "train.conllu", 40, first=101)

    outcome = run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out", "--languages", "de")

    assert "also in train: 2" in outcome.stdout.splitlines()[5]


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
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with (wikineural / "en" / "test.conllu").open("a") as file:
        file.write("0\tKiel\tLOC\n")

    outcome = run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out")

    assert outcome.returncode == 2
    assert "test.conllu:7: found tag 'LOC'" in outcome.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in (tmp_path / "out/wikineural").iterdir()) == ["de", "en"]


def test_a_card_beside_the_splits_names_them_counts_them_and_cites(wikineural, tmp_path):
    run("wikineural.py", "--source", wikineural, "--out", tmp_path / "out", "--languages", "de", "--seed", "3")

    folder = tmp_path / "out/wikineural/de"
    card = json.loads((folder / "corpus.json").read_text())
    assert (card["corpus"], card["language"], card["labels"]) == ("WikiNEuRal", "de", "silver")
    assert card["arguments"]["seed"] == 3
    assert "Tedeschi" in card["paper"]
    assert list(card["splits"]) == ["train", "dev", "test"]
    dev = summarize(read_corpus(folder / "dev.conll"))
    assert card["splits"]["dev"] == {"name": "WikiNEuRal de, a tenth of val (seed 3)", **dev._asdict()}
    assert name_split(dev, folder / "dev.conll") == "WikiNEuRal de, a tenth of val (seed 3)"


def test_universal_ner_keeps_the_splits_that_it_has_and_drops_what_is_no_part_of_it(tmp_path):
    folder = tmp_path / "source" / "UNER_German-PUD"
    folder.mkdir(parents=True)
    rows = ["1\tIn\tB-O\t-\t-", "2\tKiel\tB-LOC\t-\tme", "3\tFaust\tB-OTH\t-\tme", "4\tII\tI-OTH\t-\tme"]
    (folder / "de_pud-ud-test.iob2").write_text("\n".join(["# text = In Kiel", *rows, "", ""]))

    outcome = run("uner.py", "--source", tmp_path / "source", "--out", tmp_path / "out")

    assert outcome.returncode == 0
    assert sorted(path.name for path in (tmp_path / "out/uner/de_pud").iterdir()) == ["corpus.json", "test.conll"]
    tagged = Sentence(("In", "Kiel", "Faust", "II"), ("O", "B-LOC", "O", "O"))
    assert list(read_corpus(tmp_path / "out/uner/de_pud/test.conll")) == [tagged]
    assert "Mayhew et al. 2024" in outcome.stdout


def test_real_corpora_come_through_whole_and_are_recognised(shared, tmp_path):
    source = shared / "data" / "uner"

    outcome = run("uner.py", "--source", source, "--out", tmp_path, "--languages", "zh_gsd")

    for split in ("train", "dev", "test"):
        original = read_corpus(source / "zh_gsd" / f"zh_gsd-ud-{split}.iob2")
        assert fingerprint(read_corpus(tmp_path / "uner/zh_gsd" / f"{split}.conll")) == fingerprint(original)
        assert f"Universal NER zh_gsd, {split}\n" in outcome.stdout


def test_the_split_of_wikineural_is_the_one_of_the_table(shared, tmp_path):
    source = shared / "data" / "wikineural"

    outcome = run("wikineural.py", "--source", source, "--out", tmp_path, "--languages", "nl")

    assert "WikiNEuRal nl, nine tenths of val (seed 0)\n" in outcome.stdout
    assert "WikiNEuRal nl, test\n" in outcome.stdout
