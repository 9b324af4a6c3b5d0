import json

import pytest
from data_scripts_runs import run_data_script

from xlner.corpora.source import read_corpus
from xlner.words import Sentence

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "script", ["conll2002.py", "conll2003.py", "wikiann.py", "multinerd.py", "masakhaner.py", "uner.py"]
)
def test_an_empty_source_is_told_with_what_should_be_there(tmp_path, script):
    (tmp_path / "source").mkdir()

    outcome = run_data_script(script, "--source", tmp_path / "source", "--out", tmp_path / "out")

    assert outcome.returncode == 2
    assert "no corpus there; expected files" in outcome.stderr
    assert not (tmp_path / "out").exists()


DOWNLOADED = {
    "multinerd.py": ("multinerd/{}/{}_de.jsonl", ("train", "val", "test"), "de"),
    "masakhaner.py": ("masakhaner2/swa/{}.txt", ("train", "dev", "test"), "swa"),
    "uner.py": ("uner/de_pud/de_pud-ud-{}.iob2", ("test",), "de_pud"),
}


@pytest.mark.parametrize("script", sorted(DOWNLOADED))
def test_what_was_downloaded_once_is_read_from_the_cache(tmp_path, script):
    pattern, splits, language = DOWNLOADED[script]
    content = json.dumps({"tokens": ["Kiel"], "ner_tags": [5]}) if script == "multinerd.py" else "Kiel B-LOC\n"
    for split in splits:
        path = tmp_path / "cache" / pattern.format(*[split] * pattern.count("{}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    arguments = ("--out", tmp_path / "out", "--cache", tmp_path / "cache", "--languages", language)
    outcome = run_data_script(script, *arguments)

    assert outcome.returncode == 0, outcome.stderr
    test = tmp_path / "out" / pattern.partition("/")[0] / language / "test.conll"
    assert list(read_corpus(test)) == [Sentence(("Kiel",), ("B-LOC",))]
    assert len(json.loads((tmp_path / "cache/downloads.lock.json").read_text())) == len(splits)


def test_a_file_in_the_cache_that_is_not_the_published_one_is_refused(tmp_path):
    path = tmp_path / "cache/conll2002/esp.train"
    path.parent.mkdir(parents=True)
    path.write_text("Kiel NC B-LOC\n")

    arguments = ("--out", tmp_path / "out", "--cache", tmp_path / "cache", "--languages", "es")
    outcome = run_data_script("conll2002.py", *arguments)

    assert outcome.returncode == 2
    assert "expected 2,970,825 bytes with SHA-256 a20d95" in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", ["conll2002.py", "masakhaner.py", "multinerd.py", "uner.py", "wikineural.py"])
def test_a_language_that_a_source_does_not_have_is_told_before_anything_is_downloaded(tmp_path, script):
    outcome = run_data_script(script, "--out", tmp_path / "out", "--languages", "tlh")

    assert outcome.returncode == 2
    assert "no tlh there; found" in outcome.stderr
    assert not (tmp_path / "out").exists()
