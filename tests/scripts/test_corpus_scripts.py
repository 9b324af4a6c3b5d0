"""Scripts of corpora that cannot be had here, on small files of the same shape."""

import gzip
import io
import json
import tarfile
import zipfile

import pyarrow
import pytest
from data_scripts_runs import run_data_script
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from pyarrow import parquet

from xlner.corpora.source import read_corpus
from xlner.words import Sentence

pytestmark = pytest.mark.slow

KIEL = Sentence(("Grüße", "aus", "Kiel"), ("O", "O", "B-LOC"))


def run(script, tmp_path, *arguments, status=0):
    outcome = run_data_script(script, "--source", tmp_path / "source", "--out", tmp_path / "out", *arguments)
    assert outcome.returncode == status, outcome.stderr
    return outcome


def written(tmp_path, corpus, language, split="test"):
    return list(read_corpus(tmp_path / "out" / corpus / language / f"{split}.conll"))


def put(tmp_path, name, content):
    path = tmp_path / "source" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_conll_2002_is_read_packed_or_not_in_latin_1_or_utf_8_with_two_columns_or_three(tmp_path):
    for split in ("train", "testa", "testb"):
        put(tmp_path, f"esp.{split}", "Saludos NC O\ndesde SP O\nCádiz NC B-LOC\n\n".encode("latin-1"))
        dutch = "-DOCSTART- -DOCSTART- O\nDag Int O\nUtrecht N B-LOC\n\nÉén Num O\n\n"
        put(tmp_path, f"ned.{split}.gz", gzip.compress(dutch.encode()))

    outcome = run("conll2002.py", tmp_path)

    assert written(tmp_path, "conll2002", "es") == [Sentence(("Saludos", "desde", "Cádiz"), ("O", "O", "B-LOC"))]
    dutch = [Sentence(("Dag", "Utrecht"), ("O", "B-LOC")), Sentence(("Één",), ("O",))]
    assert written(tmp_path, "conll2002", "nl", "dev") == dutch
    assert "CoNLL-2002 nl, testa" in outcome.stdout
    assert "Tjong Kim Sang 2002" in outcome.stdout


@pytest.fixture
def conll2003(tmp_path):
    """English with four columns, German with five, in IOB1 and latin-1, each split with a mark of a document."""
    for split in ("train", "testa", "testb"):
        rows = ["-DOCSTART- -X- -X- O", "", "EU NNP I-NP I-ORG", "Bonn NNP I-NP I-LOC", "Kiel NNP I-NP B-LOC", ""]
        put(tmp_path, f"eng.{split}", "\n".join(rows))
        rows = [
            "-DOCSTART- -X- -X- -X- O",
            "",
            "Grüße Gruß NN I-NC O",
            "aus aus APPR I-PC O",
            "Kiel Kiel NE I-NC I-LOC",
        ]
        put(tmp_path, f"deu.{split}", "\n".join([*rows, "", ""]).encode("latin-1"))


def test_conll_2003_comes_out_as_iob2_and_utf_8(conll2003, tmp_path):
    outcome = run("conll2003.py", tmp_path)

    assert written(tmp_path, "conll2003", "en") == [Sentence(("EU", "Bonn", "Kiel"), ("B-ORG", "B-LOC", "B-LOC"))]
    assert written(tmp_path, "conll2003", "de") == [KIEL]
    assert "not those published for the original labels" in outcome.stderr


def test_the_revised_german_labels_of_conll_2003_are_kept_apart(conll2003, tmp_path):
    outcome = run("conll2003.py", tmp_path, "--languages", "de", "--labels", "revised")

    assert written(tmp_path, "conll2003", "de-revised") == [KIEL]
    assert not (tmp_path / "out/conll2003/de").exists()
    assert "CoNLL-2003 de-revised, testb" in outcome.stdout
    assert outcome.stderr == ""


def panx(*words):
    return "".join(f"de:{word}\t{tag}\n" for word, tag in words) + "\n"


WIKIANN = panx(("Grüße", "O"), ("aus", "O"), ("\u200a", "O"), ("Kiel", "B-LOC")) + "de:Um\nde:12:30\tO\n"
CLOCK = Sentence(("Um", "12:30"), ("O", "O"))


def wikiann_archive():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("train", "dev", "test", "extra", "../outside"):
            member = tarfile.TarInfo(name)
            member.size = len(WIKIANN.encode())
            archive.addfile(member, io.BytesIO(WIKIANN.encode()))
    return buffer.getvalue()


def put_zip(tmp_path):
    (tmp_path / "source").mkdir()
    with zipfile.ZipFile(tmp_path / "source/panx_dataset.zip", "w") as archive:
        archive.writestr("panx_dataset/de.tar.gz", wikiann_archive())


def put_parquet(tmp_path):
    names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=names))})
    table = Dataset.from_dict(
        {"tokens": [list(KIEL.words), list(CLOCK.words)], "ner_tags": [[0, 0, 5], [0, 0]]}, features
    )
    (tmp_path / "source/de").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        table.to_parquet(tmp_path / f"source/de/{split}-00000-of-00001.parquet")


def put_files(tmp_path):
    for split in ("train", "dev", "test"):
        put(tmp_path, f"de/{split}", WIKIANN)


@pytest.mark.parametrize(
    "put_source",
    [put_zip, put_parquet, put_files, lambda folder: put(folder, "de.tar.gz", wikiann_archive())],
    ids=["zip", "parquet", "files", "tar"],
)
def test_wikiann_is_read_in_each_of_its_forms(tmp_path, put_source):
    put_source(tmp_path)

    outcome = run("wikiann.py", tmp_path)

    for split in ("train", "dev", "test"):
        assert written(tmp_path, "wikiann", "de", split) == [KIEL, CLOCK]
    assert "WikiAnn de, Rahimi test" in outcome.stdout
    card = json.loads((tmp_path / "out/wikiann/de/corpus.json").read_text())
    assert card["splits"]["test"]["name"] == "WikiAnn de, Rahimi test"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_table_with_something_else_than_numbers_for_tags_is_told(tmp_path):
    put_parquet(tmp_path)
    path = tmp_path / "source/de/test-00000-of-00001.parquet"
    table = parquet.read_table(path)
    for column, values in (("ner_tags", [["O", "O", "B-LOC"], ["O", "O"]]), ("tokens", [None, ["Um", "12:30"]])):
        place = table.column_names.index(column)
        changed = table.set_column(place, column, pyarrow.array(values))
        parquet.write_table(changed.replace_schema_metadata(table.schema.metadata), path)

        outcome = run("wikiann.py", tmp_path, status=2)

        assert "row 1: expected words and a number below 7 for each, found" in outcome.stderr
    next((tmp_path / "source/de").glob("validation-*")).unlink()
    assert "de is not whole; expected de/ with train, dev and test" in run("wikiann.py", tmp_path, status=2).stderr


def test_a_broken_archive_is_told_and_nothing_is_written(tmp_path):
    put(tmp_path, "de.tar.gz", wikiann_archive()[:-40])

    outcome = run("wikiann.py", tmp_path, status=2)

    assert "no readable tar archive" in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["jsonl", "tsv"])
def test_multinerd_is_read_in_both_forms_and_merges_its_types_if_asked(tmp_path, form):
    for split, stored in (("train", "train"), ("dev", "val"), ("test", "test")):
        if form == "jsonl":
            row = {"tokens": ["Wale", "vor", "Kiel"], "ner_tags": [7, 0, 5], "lang": "de"}
            put(tmp_path, f"{stored}/{stored}_de.jsonl", json.dumps(row) + "\n")
        else:
            rows = "0\tWale\tB-ANIM\tbn:1n\tQ1\n1\tvor\tO\t\t\n2\tKiel\tB-LOC\tbn:2n\tQ2\n\n"
            put(tmp_path, f"de/{split}_de.tsv", rows)

    run("multinerd.py", tmp_path)
    assert written(tmp_path, "multinerd", "de") == [Sentence(("Wale", "vor", "Kiel"), ("B-ANIM", "O", "B-LOC"))]

    outcome = run("multinerd.py", tmp_path, "--types", "conll")
    assert written(tmp_path, "multinerd", "de") == [Sentence(("Wale", "vor", "Kiel"), ("B-MISC", "O", "B-LOC"))]
    assert "to MISC: ANIM" in outcome.stdout
    assert "MultiNERD de, test, types of CoNLL" in outcome.stdout


@pytest.mark.parametrize(("edition", "place"), [("1", "data"), ("2", "MasakhaNER2.0/data")])
def test_masakhaner_keeps_its_editions_apart_and_drops_dates_if_asked(tmp_path, edition, place):
    for split in ("train", "dev", "test"):
        put(tmp_path, f"{place}/swa/{split}.txt", "Leo B-DATE\njioni I-DATE\nMombasa B-LOC\n O\n\nNdiyo O\n")

    outcome = run("masakhaner.py", tmp_path, "--edition", edition)
    words = [("Leo", "jioni", "Mombasa"), ("Ndiyo",)]
    tags = [("B-DATE", "I-DATE", "B-LOC"), ("O",)]
    assert written(tmp_path, f"masakhaner{edition}", "swa") == [
        Sentence(*pair) for pair in zip(words, tags, strict=True)
    ]
    assert "left out 1 lines" in outcome.stderr

    run("masakhaner.py", tmp_path, "--edition", edition, "--drop-dates")
    assert written(tmp_path, f"masakhaner{edition}", "swa")[0].tags == ("O", "O", "B-LOC")
