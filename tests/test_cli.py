import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SENTENCES
from runs import are_equal, run_script, weights_of

from xlner import __version__
from xlner.cli import main
from xlner.corpora.splits import fingerprint, summarize
from xlner.tag_files.records import CHUNK_RECORDS
from xlner.tagger import load_tagger
from xlner.words import Sentence

TEXTS = [*SENTENCES, "", "北京 e\u0301 🚀"]
has_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is there on Linux alone")


@pytest.fixture(scope="module")
def tagger(bert_folder):
    return load_tagger(bert_folder)


@pytest.fixture
def corpus(tagger, tmp_path):
    """A corpus that the model tags without a mistake."""
    sentences = [Sentence(tuple(words), tuple(tagger.tag_words(words))) for words in map(str.split, SENTENCES)]
    path = tmp_path / "test.conll"
    path.write_text(as_conll(sentences), encoding="utf-8")
    return path, sentences


def as_conll(sentences):
    return "".join(
        "".join(f"{word}\t{tag}\n" for word, tag in zip(*sentence, strict=True)) + "\n" for sentence in sentences
    )


def test_tag_prints_a_json_object_per_line_of_text(xlner, bert_folder, tagger):
    status, out, err = xlner("tag", bert_folder, stdin="\n".join(TEXTS).encode())

    assert (status, err) == (0, "")
    for line, text in zip(out.splitlines(), TEXTS, strict=True):
        found = json.loads(line)
        assert list(found) == ["text", "entities"]
        assert found["text"] == text
        assert [(e["text"], e["label"], e["start"], e["end"]) for e in found["entities"]] == [
            entity[:4] for entity in tagger.tag(text)
        ]


def test_tag_prints_columns_that_evaluate_reads_back(xlner, bert_folder, tmp_path):
    status, out, _ = xlner("tag", bert_folder, "--format", "conll", stdin="\n".join(SENTENCES).encode())
    (tmp_path / "tagged.conll").write_text(out, encoding="utf-8")

    _, scores, _ = xlner("evaluate", bert_folder, tmp_path / "tagged.conll", "--json")

    assert status == 0
    assert out.count("\n\n") == len(SENTENCES)
    assert json.loads(scores)["overall"]["f1"] == 100.0


def test_tag_reads_a_file_of_any_length_encoding_and_line_end(xlner, bert_folder, tmp_path):
    lines = ["Köln und Bonn"] * (CHUNK_RECORDS + 3)
    (tmp_path / "text").write_bytes("\r\n".join(lines).encode("latin-1"))
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())

    found = xlner("tag", bert_folder, tmp_path / "text", "--encoding", "latin-1")

    assert found == xlner("tag", bert_folder, tmp_path / "marked")
    assert [json.loads(line)["text"] for line in found[1].splitlines()] == lines


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["MODEL"], b"Kiel\nK\xf6ln", "-:2: byte 0xf6 is not utf-8; is it latin-1? then give --encoding latin-1"),
        (["MODEL", "nope.txt"], b"", "nope.txt: cannot be read: No such file or directory"),
        (["MODEL", "--encoding", "klingon"], b"Kiel", "--encoding is 'klingon'; expected one such as utf-8"),
        (["MODEL", "--format", "xml"], b"Kiel", "unknown --to 'xml'; known: jsonl, conll"),
        (["runs/nope"], b"Kiel", "runs/nope: no such folder"),
        (["MODEL", "--device", "warp"], b"Kiel", "device 'warp' cannot be used"),
    ],
)
def test_a_mistake_ends_with_its_message_alone_and_status_2(xlner, bert_folder, arguments, stdin, message):
    status, _, err = xlner("tag", *[bert_folder if part == "MODEL" else part for part in arguments], stdin=stdin)

    assert status == 2
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_evaluate_prints_a_table_per_corpus(xlner, bert_folder, corpus):
    path, sentences = corpus

    status, out, _ = xlner("evaluate", bert_folder, path, path)

    first, second = out.strip().split("\n\n")
    heading, columns, *_, overall = first.splitlines()
    assert (status, first) == (0, second)
    assert heading == f"{path} (5 sentences, fingerprint {fingerprint(sentences)})"
    assert columns.split() == ["type", "precision", "recall", "F1", "entities"]
    assert overall.split()[:4] == ["all", "100.00", "100.00", "100.00"]


def test_evaluate_prints_json_with_percent_and_fingerprint(xlner, bert_folder, corpus):
    path, sentences = corpus

    _, one, _ = xlner("evaluate", bert_folder, path, "--json")
    _, two, _ = xlner("evaluate", bert_folder, path, path, "--json")

    report = json.loads(one)
    assert list(report) == ["overall", "types", "corpus", "corpus_name"]
    assert report["overall"]["f1"] == 100.0
    assert report["corpus"] == fingerprint(sentences)
    assert report["corpus_name"] is None
    assert json.loads(two) == [report, report]


def test_evaluate_names_a_corpus_that_has_a_card(xlner, bert_folder, corpus):
    path, sentences = corpus
    split = {"name": "Places de, test", **summarize(sentences)._asdict()}
    Path(path).with_name("corpus.json").write_text(json.dumps({"splits": {"test": split}}))

    _, table, _ = xlner("evaluate", bert_folder, path)
    _, report, _ = xlner("evaluate", bert_folder, path, "--json")

    assert table.startswith(f"{path} (5 sentences, fingerprint {fingerprint(sentences)}, Places de, test)\n")
    assert json.loads(report)["corpus_name"] == "Places de, test"


def test_evaluate_takes_the_columns_encoding_and_format_of_a_corpus(xlner, bert_folder, corpus, tmp_path):
    path, sentences = corpus
    rows = [[(tag, "x", word) for word, tag in zip(*sentence, strict=True)] for sentence in sentences]
    other = tmp_path / "corpus.data"
    other.write_bytes("\n".join("".join("\t".join(row) + "\n" for row in part) for part in rows).encode("latin-1"))

    options = ["--columns", "2,0", "--encoding", "latin-1", "--format", "conll", "--json"]
    status, out, _ = xlner("evaluate", bert_folder, other, *options)

    assert status == 0
    assert out == xlner("evaluate", bert_folder, path, "--json")[1]


def test_evaluate_names_types_that_only_one_side_has_on_stderr(xlner, bert_folder, tmp_path):
    path = tmp_path / "test.conll"
    path.write_text("Kiel\tB-MISC\nund\tO\nBonn\tB-LOC\n")

    status, out, err = xlner("evaluate", bert_folder, path, "--json")

    assert json.loads(out)["types"]["MISC"]["recall"] == 0
    assert (status, err.splitlines()) == (
        0,
        [
            f"{path}: the model does not know MISC: each such entity is a miss",
            f"{path}: the corpus has no ORG, PER: each such prediction is an error",
        ],
    )


def test_evaluate_with_a_label_map_says_what_is_counted_and_what_is_left_out(xlner, bert_folder, corpus, tmp_path):
    _, sentences = corpus  # the model tags it without a mistake
    renamed = tmp_path / "renamed.conll"
    names = {"PER": "PERSON", "ORG": "COMPANY"}
    rows = [Sentence(words, tuple(tag[:2] + names.get(tag[2:], tag[2:]) for tag in tags)) for words, tags in sentences]
    renamed.write_text(as_conll(rows) + "Kiel\tB-MISC\n")

    *_, wrong = xlner("evaluate", bert_folder, renamed)
    status, out, err = xlner("evaluate", bert_folder, renamed, "--labels-map", "PERSON=PER,COMPANY=ORG,LOC=,MISC=")
    _, as_json, _ = xlner("evaluate", bert_folder, renamed, "--json", "--labels-map", "PERSON=PER,COMPANY=ORG,*=")

    assert "the corpus has COMPANY, MISC, PERSON: no type in common; rename the types" in wrong
    assert (status, err) == (0, f"{renamed}: LOC, MISC left out by the label map; counted: ORG, PER\n")
    assert [line.split()[0] for line in out.split("\n\n")[0].splitlines()[2:]] == ["ORG", "PER", "all"]
    report = json.loads(as_json)
    assert list(report) == ["overall", "types", "corpus", "corpus_name", "labels"]
    assert report["labels"] == {
        "map": "PERSON=PER,COMPANY=ORG,*=",
        "counted": ["ORG", "PER"],
        "left_out": ["LOC", "MISC"],
    }
    assert set(report["types"]) == {"ORG", "PER"}
    assert report["overall"]["recall"] == 100.0


@pytest.mark.parametrize(
    ("label_map", "message"),
    [("PERSON", "found 'PERSON' in the label map"), ("PRSN=PER", "names PRSN, a type not found in")],
)
def test_evaluate_refuses_a_label_map_that_cannot_be_meant(xlner, bert_folder, corpus, label_map, message):
    status, out, err = xlner("evaluate", bert_folder, corpus[0], "--labels-map", label_map)

    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("content", "message"),
    [("Kiel\nist\n", "1 of 1 sentences have no tags"), ("p53\tB-GENE\n", "no type in common"), ("", "no sentence")],
)
def test_evaluate_refuses_corpora_that_cannot_be_scored(xlner, bert_folder, tmp_path, content, message):
    (tmp_path / "test.conll").write_text(content)

    status, out, err = xlner("evaluate", bert_folder, tmp_path / "test.conll")

    assert (status, out) == (2, "")
    assert message in err


def test_a_corpus_that_is_not_there_is_told_before_the_model_is_looked_at(xlner, tmp_path):
    status, _, err = xlner("evaluate", tmp_path / "no-model", tmp_path / "no-corpus.conll")

    assert status == 2
    assert "no-corpus.conll" in err


def test_ctrl_c_ends_with_status_130(xlner, bert_folder):
    class Interrupted(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            raise KeyboardInterrupt

    status, _, err = xlner("tag", bert_folder, stdin=io.BufferedReader(Interrupted()))

    assert (status, err) == (130, "")


def test_a_reader_that_goes_away_ends_it_without_a_traceback(bert_folder, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "argv", ["xlner", "tag", bert_folder])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Kiel\n")))
    gone = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", gone)

    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 1
    with contextlib.suppress(BrokenPipeError):
        gone.close()


def test_the_version_is_that_of_the_package(xlner):
    assert xlner("--version") == (0, f"xlner {__version__}\n", "")


def help_without_torch(path, *arguments):
    """What a program prints; it fails where it loads torch on the way."""
    script = (
        "import runpy, sys; path, *sys.argv[1:] = sys.argv[1:]\n"
        "try: runpy.run_path(path, run_name='__main__')\n"
        "except SystemExit as end: sys.exit(end.code or ('torch' in sys.modules and 'torch was loaded') or 0)"
    )
    command = [sys.executable, "-c", script, str(REPOSITORY / path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_help_is_given_without_loading_torch_and_lists_all_commands():
    told = help_without_torch("xlner/__main__.py", "--help")

    commands = [line.split()[0] for line in told.partition("Commands:\n")[2].splitlines()]
    assert commands == [
        "train-teacher",
        "distill",
        "adapt",
        "tag",
        "tag-corpus",
        "evaluate",
        "check-data",
        "convert",
        "select",
        "export",
        "compare",
        "report",
        "project",
        "rank-sources",
        "push",
        "serve",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "script", "key"),
    [
        ("train-teacher", "train_teacher.py", "sharing"),
        ("distill", "distill.py", "source.share"),
        ("adapt", "adapt_encoder.py", "vocabulary.new_pieces"),
        ("tag-corpus", "tag_corpus.py", "shard_megabytes"),
    ],
)
def test_a_command_and_its_script_list_the_keys_of_the_recipe_without_loading_torch(command, script, key):
    told = help_without_torch("xlner/__main__.py", command, "--help")

    assert told == help_without_torch(script, "--help")
    assert told.startswith(f"xlner {command} ")
    assert f"\n  {key} " in told


@pytest.mark.slow
def test_a_command_trains_as_its_script_does(teaching, teacher, tmp_path):
    commanded = run_script("xlner/__main__.py", "train-teacher", *teaching, "run=first", cwd=tmp_path)
    refused = run_script("xlner/__main__.py", "train-teacher", "--run=first", "seed=x", cwd=tmp_path)
    again = run_script("xlner/__main__.py", "train-teacher", *teaching, "run=first", cwd=tmp_path)

    assert (commanded.status, commanded.messages) == (0, [])
    assert commanded.stdout.startswith("run runs/first: 1 process(es) on cpu")
    assert are_equal(weights_of(tmp_path / "runs" / "first"), weights_of(teacher))
    assert (refused.status, refused.messages[0][:18]) == (2, "command line: Valu")
    assert (again.status, again.stdout) == (2, "")
    assert again.messages == ["runs/first: holds a finished run (report.json); give another run=, or remove the folder"]


@has_full_device
def test_the_output_of_a_training_may_go_away_as_it_may_from_its_script(tmp_path):
    with Path("/dev/full").open("w") as full:
        finished = run_cli("train-teacher", "--help", stdout=full)

    assert finished.returncode == 0
    assert finished.stderr == b"the standard output cannot be written: No space left on device; the run goes on\n"


def test_messages_name_the_options_of_the_command_line_and_where_there_is_more(xlner, tmp_path):
    (tmp_path / "x.conll").write_bytes("Köln\tB-LOC\n".encode("latin-1"))

    status, _, stderr = xlner("convert", tmp_path / "x.conll", tmp_path / "y.conll")

    assert status == 2
    assert (
        "is the file latin-1? then set --encoding latin-1, or convert it: iconv -f latin-1 -t utf-8 [XL001]" in stderr
    )
    assert "`xlner check-data FILE` lists all problems" in stderr


def run_cli(*arguments, **named):
    """The command in a process of its own."""
    ask = "from xlner.cli import main; main()"
    return subprocess.run([sys.executable, "-c", ask, *arguments], stderr=subprocess.PIPE, check=False, **named)


@pytest.mark.slow
@has_full_device
def test_a_full_disk_behind_the_standard_output_is_told():
    with Path("/dev/full").open("w") as full:
        finished = run_cli("--version", stdout=full)

    assert finished.returncode == 2
    assert finished.stderr.decode() == "the standard output cannot be written: No space left on device\n"


@pytest.mark.slow
def test_a_reader_that_has_gone_ends_the_command_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)

    finished = run_cli("--help", stdout=writer)

    os.close(writer)
    assert (finished.returncode, finished.stderr) == (141, b"")


@pytest.mark.slow
def test_a_closed_standard_output_is_refused():
    finished = run_cli("--version", preexec_fn=lambda: os.close(1))

    assert finished.returncode == 2
    assert finished.stderr.startswith(b"the standard output is closed")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["check-data", "x" * 300], ["tag", "model", "--out", "x" * 300 + ".jsonl"]])
def test_a_name_that_no_file_can_have_is_told(arguments):
    finished = run_cli(*arguments, stdin=subprocess.DEVNULL)

    assert finished.returncode == 2
    assert b"Traceback" not in finished.stderr
    assert b"xxx" in finished.stderr
