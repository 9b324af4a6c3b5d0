import bz2
import gzip
import io
import json
import os
import re
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from signal import SIGTERM

import pyarrow
import pytest
import spacy
from conftest import LABELS, REPOSITORY, SENTENCES
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from spacy.tokens import DocBin
from test_tagger import OTHER_SCHEMES, with_tags

from xlner.corpora.source import read_corpus
from xlner.tag_files import job as files
from xlner.tag_files import records as input_lines
from xlner.tag_files.output import N_TOLD, Lines
from xlner.tag_files.records import CHUNK_RECORDS, read_input_lines
from xlner.tagger import load_tagger

RECORDS = [{"id": number, "text": text, "nested": {"a": [None, 1.5]}} for number, text in enumerate(SENTENCES)]
WORDS = [{"id": number, "words": text.split()} for number, text in enumerate(SENTENCES)]


@pytest.fixture(scope="module")
def tagger(bert_folder):
    return load_tagger(bert_folder)


@pytest.fixture
def tag(xlner, bert_folder):
    """Runs `xlner tag` with the tiny model in this process; gives its status, stdout and stderr."""
    return lambda *arguments, stdin="", model=bert_folder: xlner("tag", model, *arguments, stdin=stdin.encode())


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def content(path):
    """What a file holds: rows of Parquet, whose row groups may begin elsewhere, otherwise bytes."""
    return parquet.read_table(path) if path.suffix == ".parquet" else path.read_bytes()


def found_by(tagger, text):
    return [(e.text, e.label, e.start, e.end) for e in tagger.tag(text)]


def told(entities):
    return [(e["text"], e["label"], e["start"], e["end"]) for e in entities]


def test_labels_of_columns_are_not_looked_at(tag, tmp_path):
    path = tmp_path / "x.conll"
    path.write_text("Anna\tB-PER\nlebt\t_\nin\tO\n\nKiel\tPER\nist\tb_LOC\n")

    status, out, err = tag(path)

    assert (status, err) == (0, "")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["Anna", "lebt", "in", "", "Kiel", "ist", ""]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", 'id,text,note\r\n7,"Angela Merkel, in Kiel",x\r\n8,Regen,y\r\n'),
        ("x.csv", "id;text;note\n7;Angela Merkel, in Kiel;x\n\n8;Regen;y\n"),
        (
            "x.json",
            '[{"id": "7", "text": "Angela Merkel, in Kiel", "note": "x"}, {"id": "8", "text": "Regen", "note": "y"}]',
        ),
    ],
)
def test_texts_of_tables_and_arrays_are_tagged_with_their_fields_and_no_header(tag, tagger, tmp_path, name, content):
    (tmp_path / name).write_text(content)

    status, out, _ = tag(tmp_path / name)
    tag(tmp_path / name, "--out", f"{tmp_path}/out/")

    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [(row["id"], row["text"], row["note"]) for row in rows] == [
        ("7", "Angela Merkel, in Kiel", "x"),
        ("8", "Regen", "y"),
    ]
    assert told(rows[0]["entities"]) == found_by(tagger, "Angela Merkel, in Kiel")
    assert lines(tmp_path / "out/x.jsonl") == rows


def test_words_of_a_table_are_tagged_by_sentence(tag, tmp_path):
    (tmp_path / "x.csv").write_text("sentence,word,tag\n1,Anna,oops\n1,lebt,O\n2,Kiel,O\n")

    _, out, _ = tag(tmp_path / "x.csv")

    assert [json.loads(line)["words"] for line in out.splitlines()] == [["Anna", "lebt"], ["Kiel"]]


def test_words_beside_their_text_have_entities_in_characters_that_are_read_back(tag, tagger, tmp_path):
    text = "Angela Merkel besuchte Kiel."
    words = ["Angela", "Merkel", "besuchte", "Kiel", "."]
    path = write(tmp_path / "x.jsonl", [{"id": 1, "text": text, "words": words}])

    _, out, _ = tag(path)

    (row,) = map(json.loads, out.splitlines())
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in row["entities"])
    assert row["tags"] == list(tagger.tag_sentences([words])[0])
    (tmp_path / "out.jsonl").write_text(out)
    assert [sentence.words for sentence in read_corpus(tmp_path / "out.jsonl")] == [tuple(words)]
    spans = write(tmp_path / "spans.jsonl", [{name: row[name] for name in ("text", "words", "entities")}])
    assert [sentence.tags for sentence in read_corpus(spans)] == [tuple(row["tags"])]
    status, _, err = tag(write(tmp_path / "y.jsonl", [{"text": text, "words": ["Bonn"]}]))
    assert (status, "the words are not those of the text" in err) == (2, True)


@pytest.mark.parametrize(
    ("content", "way_out"),
    [
        ("Anna lebt in Köln.\n".encode("utf-16"), "--encoding utf-16"),
        ("Anna lebt in Kiel.\n".encode("utf-16-le"), "--encoding utf-16-le"),
        ("Anna lebt in Köln.\n".encode("latin-1"), "--encoding latin-1"),
        ("„Anna“ lebt in Kiel.\n".encode("cp1252"), "--encoding cp1252"),
    ],
)
def test_the_encoding_that_is_told_is_the_right_one(tag, tmp_path, content, way_out):
    (tmp_path / "x.txt").write_bytes(content)

    status, _, err = tag(tmp_path / "x.txt")
    followed, out, _ = tag(tmp_path / "x.txt", *way_out.split())

    assert (status, followed) == (2, 0)
    assert re.search(rf"{way_out}(?![\w-])", err)
    assert json.loads(out)["text"] in ("Anna lebt in Köln.", "Anna lebt in Kiel.", "„Anna“ lebt in Kiel.")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"Anna\n", mtime=0), "gunzip"),
        (bz2.compress(b"Anna\n"), "bunzip2"),
        (b"PK\x03\x04\x14\0", "Office document"),
    ],
)
def test_what_is_no_text_is_told_by_its_name(tag, tmp_path, content, what):
    for name in ("x.txt.gz", "x.conll", "x.csv"):
        (tmp_path / name).write_bytes(content)
        status, _, err = tag(tmp_path / name)
        assert (status, what in err) == (2, True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_named_pipe_is_read_once_and_to_its_end(tag, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("Anna lebt in Kiel.\nEs regnet.\n",), daemon=True)
    writer.start()

    status, out, _ = tag(pipe)

    writer.join(10)
    assert (status, writer.is_alive()) == (0, False)
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["Anna lebt in Kiel.", "Es regnet."]
    status, _, err = tag(pipe, "--from", "parquet")
    assert (status, "Parquet is read from a file, not from a device or a pipe" in err) == (2, True)


@pytest.mark.parametrize("format", ["text", "json", "conll"])
def test_a_closed_standard_input_is_told(xlner, bert_folder, format):
    status, _, err = xlner("tag", bert_folder, "-", "--from", format, stdin=None)

    assert (status, "the standard input is closed; name a file" in err) == (2, True)


@pytest.mark.slow
def test_names_that_are_no_utf_8_are_told_as_stderr_would(linear, tmp_path):
    source = os.fsencode(tmp_path) + b"/bad\xff.txt"
    Path(os.fsdecode(source)).write_text("Anna lebt in Kiel.\n")
    target = os.fsencode(tmp_path) + b"/o\xff.jsonl"

    command = [sys.executable, "-m", "xlner", "tag", str(linear), source, "--out", target]
    done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, check=False)

    assert done.returncode == 0, done.stderr
    assert b"o\\udcff.jsonl: 1 " in done.stdout


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that fails when it is read: on Linux alone")
def test_an_input_that_fails_half_way_is_told_as_the_inputs_fault(tag, tmp_path):
    """/proc/self/mem opens, and fails when it is read."""
    status, _, err = tag("/proc/self/mem", "--out", tmp_path / "out.jsonl")

    assert status == 2
    assert "/proc/self/mem:1: cannot be read: " in err


@pytest.fixture
def many(tmp_path):
    """A JSONL file of several chunks."""
    texts = [f"Anna in Kiel {n % 9}" for n in range(3 * CHUNK_RECORDS + 7)]
    return write(tmp_path / "many.jsonl", [{"id": n, "text": text} for n, text in enumerate(texts)])


def test_fields_of_a_record_are_carried_through(tag, tagger, tmp_path):
    write(tmp_path / "in.jsonl", RECORDS)

    status, out, _ = tag(tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")

    assert (status, out.count("\n")) == (0, 1)
    assert f"out.jsonl: 5 records, {sum(len(row['words']) for row in WORDS)} words" in out
    for record, tagged in zip(RECORDS, lines(tmp_path / "out.jsonl"), strict=True):
        assert list(tagged) == ["id", "text", "nested", "entities"]
        assert told(tagged["entities"]) == found_by(tagger, record["text"])
        assert {name: tagged[name] for name in record} == record


@pytest.mark.parametrize("field", ["words", "tokens"])
def test_words_are_tagged_as_the_words_that_they_are(tag, tagger, tmp_path, field):
    words = ["Jean-Claude", "Juncker,", "O'Brien", "in San Marino"]
    write(tmp_path / "in.jsonl", [{field: words, "tags": ["O"] * 4}])

    tag(tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")

    (tagged,) = lines(tmp_path / "out.jsonl")
    assert tagged[field] == words
    assert tagged["tags"] == tagger.tag_words(words)
    assert [" ".join(words[e["start"] : e["end"]]) for e in tagged["entities"]] == [
        e["text"] for e in tagged["entities"]
    ]


def test_tokens_with_offsets_say_where_the_words_of_a_text_are(tag, tagger, tmp_path):
    tokens = [{"text": "Jean", "start": 0, "end": 4}, {"text": "-Claude", "start": 4, "end": 11}]
    write(tmp_path / "in.jsonl", [{"text": "Jean-Claude", "tokens": tokens}])

    _, out, _ = tag(tmp_path / "in.jsonl", "--to", "conll")

    assert [line.split("\t") for line in out.splitlines() if line] == [
        [word, found] for word, found in zip(["Jean", "-Claude"], tagger.tag_words(["Jean", "-Claude"]), strict=True)
    ]


@pytest.mark.parametrize("tokens", ['[{"start": 0, "end": 1e999}]', '[{"start": 0}]', '[{"start": 0, "end": 99}]'])
def test_tokens_that_say_nothing_of_the_text_are_told_with_their_line(tag, tmp_path, tokens):
    (tmp_path / "in.jsonl").write_text(f'{{"text": "Kiel"}}\n{{"text": "Kiel", "tokens": {tokens}}}\n')

    status, _, err = tag(tmp_path / "in.jsonl")

    assert status == 2
    assert "in.jsonl:2: expected tokens as {start, end} in characters; found otherwise" in err


@pytest.mark.parametrize("suffix", [".jsonl", ".conll", ".parquet", ".spacy"])
@pytest.mark.parametrize("source", ["in.jsonl", "in.conll", "in.parquet"])
def test_every_format_gets_the_same_words_and_tags(tag, tagger, tmp_path, source, suffix):
    write(tmp_path / "in.jsonl", WORDS)
    (tmp_path / "in.conll").write_text("\n".join("".join(f"{w}\tB-X\n" for w in row["words"]) for row in WORDS))
    parquet.write_table(pyarrow.Table.from_pylist(WORDS), tmp_path / "in.parquet")

    status, _, err = tag(tmp_path / source, "--out", tmp_path / f"out{suffix}")

    expected = [(tuple(row["words"]), tuple(tagger.tag_words(row["words"]))) for row in WORDS]
    assert (status, err) == (0, "")
    if suffix == ".parquet":
        rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
        assert [(tuple(row["words"]), tuple(row["tags"])) for row in rows] == expected
    else:
        assert [tuple(sentence) for sentence in read_corpus(tmp_path / f"out{suffix}")] == expected


def test_parquet_keeps_its_columns_and_their_types(tag, tmp_path):
    table = pyarrow.table(
        {
            "text": SENTENCES,
            "day": pyarrow.array([20000 + n for n in range(5)], "date32"),
            "small": pyarrow.array([1, None, 3, 4, 5], "int8"),
            "entities": ["old"] * 5,
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=2)

    tag(tmp_path / "in.parquet", "--out", tmp_path / "out.parquet")
    tag(tmp_path / "in.parquet", "--out", tmp_path / "out.jsonl")

    tagged = parquet.read_table(tmp_path / "out.parquet")
    assert tagged.select(["text", "day", "small"]) == table.select(["text", "day", "small"])
    assert tagged.column_names == ["text", "day", "small", "entities"]
    (first, *_) = lines(tmp_path / "out.jsonl")
    assert first["day"] == "2024-10-04"
    assert told(first["entities"]) == told(tagged["entities"][0].as_py())


def test_a_docbin_has_the_text_and_its_entities_with_scores(tag, tagger, tmp_path):
    (tmp_path / "in.txt").write_text("Angela Merkel besuchte Kiel.\n\nAnna, Köln\n")

    tag(tmp_path / "in.txt", "--out", tmp_path / "out.spacy")

    docs = list(DocBin().from_disk(tmp_path / "out.spacy").get_docs(spacy.blank("de").vocab))
    assert [doc.text for doc in docs] == ["Angela Merkel besuchte Kiel.", "Anna, Köln"]
    entities = tagger.tag(docs[0].text)
    assert [(e.text, e.label_, e.start_char, e.end_char) for e in docs[0].ents] == [e[:4] for e in entities]
    assert docs[0].spans["xlner"].attrs["scores"] == pytest.approx([e.score for e in entities], abs=1e-5)


def test_text_is_written_with_its_entities_marked(tag, tagger):
    _, out, _ = tag("--to", "text", stdin=SENTENCES[0] + "\n\n")

    (first, second) = out.splitlines()
    for entity in tagger.tag(SENTENCES[0]):
        assert f"[{entity.text}]({entity.label})" in first
    assert second == ""


def test_several_files_go_into_one_file_or_each_into_its_own(tag, tmp_path):
    write(tmp_path / "a.jsonl", RECORDS[:2])
    (tmp_path / "b.txt").write_text("Kiel\nBonn\n")

    tag(tmp_path / "a.jsonl", tmp_path / "b.txt", "--out", tmp_path / "all.jsonl")
    tag(tmp_path / "a.jsonl", tmp_path / "b.txt", "--out", f"{tmp_path}/each/")

    assert [line["text"] for line in lines(tmp_path / "all.jsonl")] == [*SENTENCES[:2], "Kiel", "Bonn"]
    assert sorted(os.listdir(tmp_path / "each")) == ["a.jsonl", "b.jsonl"]
    each = lines(tmp_path / "each" / "a.jsonl") + lines(tmp_path / "each" / "b.jsonl")
    assert each == lines(tmp_path / "all.jsonl")


BAD = """{"text": "Kiel"}
no JSON
{"id": 1}
[1]
{"words": ["a", ""]}
{"text": "\\ud800x"}
{"words": "Kiel"}
{"text": "Bonn"}
"""


def test_bad_records_are_told_with_their_lines_and_left_out(tag, tmp_path):
    (tmp_path / "in.jsonl").write_text(BAD)

    status, out, err = tag(tmp_path / "in.jsonl", "--on-error", "skip")

    assert status == 0
    assert [json.loads(line).get("text") for line in out.splitlines()] == ["Kiel", "\ufffdx", "Bonn"]
    assert [line.split(": ")[0].rpartition(":")[2] for line in err.splitlines()] == ["2", "3", "4", "5", "6", "7"]
    assert "in.jsonl:3: expected a field text, or words" in err
    assert "in.jsonl:6: half a surrogate pair" in err


# Half a surrogate pair, which JSON can escape and UTF-8 cannot hold: in a value, within one, in a name, beside words.
HALF = """{"text": "Kiel", "id": "a"}
{"text": "Kiel", "id": "\\ud800"}
{"text": "Kiel", "id": "b", "more": [{"k": "\\udfff!"}]}
{"text": "Kiel", "\\ud800": 1}
{"words": ["Kiel"], "id": "\\ud800"}
{"text": "Bonn", "id": "c", "tags": "\\ud800"}
"""


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_half_characters_of_carried_fields_are_told_where_parquet_cannot_hold_them(tag, tmp_path, suffix):
    source, out = tmp_path / f"in.{suffix}", tmp_path / "out.parquet"
    source.write_text(HALF if suffix == "jsonl" else f"[{','.join(HALF.splitlines())}]")
    place = ":2" if suffix == "jsonl" else ": record 2"

    stopped, _, message = tag(source, "--out", out, "--fresh")
    status, told, err = tag(source, "--out", out, "--on-error", "skip", "--fresh")

    assert stopped == 2
    assert f"in.{suffix}{place}: the field 'id' holds half a surrogate pair, '\\ud800', which" in message
    assert status == 0
    assert "6 records" in told
    assert [line.split("the field ")[1].split()[0] for line in err.splitlines()] == [
        "'id'",
        "'more'",
        "'\\ud800'",
        "'id'",
    ]
    assert [(row["text"], row["id"]) for row in parquet.read_table(out).to_pylist()] == [("Kiel", "a"), ("Bonn", "c")]


@pytest.mark.parametrize("name", ["out.jsonl", "out.conll", "out.txt", "out.spacy"])
def test_half_characters_of_carried_fields_stop_no_other_output(tag, tmp_path, name):
    (tmp_path / "in.jsonl").write_text(HALF)

    status, _, err = tag(tmp_path / "in.jsonl", "--out", tmp_path / name)

    assert (status, err) == (0, "")
    if name == "out.jsonl":  # as JSON has it, so that nothing is lost
        carried = [{key: value for key, value in row.items() if key != "entities"} for row in lines(tmp_path / name)]
        assert carried[1] == {"text": "Kiel", "id": "\ud800"}
        assert carried[3] == {"text": "Kiel", "\ud800": 1}


def test_the_first_bad_record_stops_the_run_unless_told_otherwise(tag, tmp_path):
    (tmp_path / "in.jsonl").write_text(BAD)

    status, _, err = tag(tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    again, _, _ = tag(tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl", "--on-error", "skip")

    assert (status, again) == (2, 0)
    assert "in.jsonl:2: no JSON" in err
    assert "--on-error skip would go on (the line is left out)" in err
    assert [line["text"] for line in lines(tmp_path / "out.jsonl")] == ["Kiel", "\ufffdx", "Bonn"]
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl"]


def test_many_bad_records_are_counted_and_not_all_told(tag, tmp_path):
    (tmp_path / "in.jsonl").write_text("x\n" * 50)

    _, out, err = tag(tmp_path / "in.jsonl", "--on-error", "skip", "--out", tmp_path / "out.jsonl")

    assert err.count("no JSON") == N_TOLD
    assert "0 records, 0 words, 0 entities, 50 problems" in out


def test_broken_bytes_of_text_and_columns_are_told_with_their_lines(tag, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"Kiel\nK\xf6ln\nBonn\n")
    (tmp_path / "in.conll").write_bytes(b"Kiel\tO\n\nBonn\tO\tx\n\nUlm\tO\n")

    _, out, err = tag(tmp_path / "in.txt", "--on-error", "skip")
    _, columns, err_of_columns = tag(tmp_path / "in.conll", "--on-error", "skip")

    assert [json.loads(line)["text"] for line in out.splitlines()] == ["Kiel", "Bonn"]
    assert "in.txt:2: byte 0xf6 is not utf-8" in err
    assert "in.conll:3: expected 2 columns" in err_of_columns
    assert [line.split("\t")[0] for line in columns.splitlines() if line] == ["Kiel", "Ulm"]


def test_a_record_that_the_output_cannot_hold_is_told_or_stops_the_run(tag, tmp_path):
    write(tmp_path / "in.jsonl", [{"words": ["a\tb"]}, {"words": ["Kiel"]}])

    status, _, err = tag(tmp_path / "in.jsonl", "--to", "conll")
    _, out, skipped = tag(tmp_path / "in.jsonl", "--to", "conll", "--on-error", "skip")

    assert status == 2
    assert "in.jsonl:1" in err
    assert "holds a TAB or a line end" in err
    assert "the record is left out" in skipped
    assert out.startswith("Kiel\t")


class Stop(BaseException):
    """Ends a run as a kill does: nothing is saved on the way out."""


def stopping_after(n_chunks, kind, monkeypatch):
    """Has a run stop before a later chunk is tagged, and save behind each one."""
    done, tag_records = [], files.tag_records

    def tag_some(tagger, records, wanted):
        if len(done) == n_chunks:
            if kind is SIGTERM:
                os.kill(os.getpid(), SIGTERM)
            raise kind
        done.append(len(records))
        return tag_records(tagger, records, wanted)

    monkeypatch.setattr(files, "tag_records", tag_some)
    monkeypatch.setattr(files, "SAVE_SECONDS", -1.0)
    return done


def test_columns_that_python_cannot_hold_are_carried_along_as_they_are(tag, tmp_path):
    numbers = pyarrow.array([2**50, 0], pyarrow.int64())
    columns = {
        "text": pyarrow.array([record["text"] for record in RECORDS[:2]]),
        "late": pyarrow.array([5_000_000, None], pyarrow.int32()).cast(pyarrow.date32()),  # in the year 15659
        "zone": numbers.cast(pyarrow.timestamp("ms", "Moon/Crater")),
        "ns": pyarrow.array([1, 2**60], pyarrow.int64()).cast(pyarrow.timestamp("ns")),
        "kind": pyarrow.array(["a", "b"]).dictionary_encode(),
    }
    table = pyarrow.table(columns)
    parquet.write_table(table, tmp_path / "in.parquet")

    told = [tag(tmp_path / "in.parquet", "--out", tmp_path / f"out.{kind}") for kind in ("parquet", "jsonl")]

    tagged = parquet.read_table(tmp_path / "out.parquet")
    assert [status for status, _, _ in told] == [0, 0]
    assert tagged.drop_columns(["entities"]).equals(table)
    assert [row["late"] for row in lines(tmp_path / "out.jsonl")] == ["15659-07-15", None]


def test_columns_of_one_name_are_carried_along_and_json_refuses_them(tag, tmp_path):
    columns = [pyarrow.array(["Kiel", "Ulm"]), pyarrow.array([1, 2]), pyarrow.array(["a", "b"])]
    table = pyarrow.Table.from_arrays(columns, names=["text", "id", "id"])
    parquet.write_table(table, tmp_path / "in.parquet")

    done, _, _ = tag(tmp_path / "in.parquet", "--out", tmp_path / "out.parquet")
    refused, _, err = tag(tmp_path / "in.parquet", "--out", tmp_path / "out.jsonl")

    assert (done, refused) == (0, 2)
    assert parquet.ParquetFile(tmp_path / "out.parquet").read().select([0, 1, 2]).equals(table)
    assert "row 0: several columns are named id; rename all but one, or write parquet" in err


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_link_stays_a_link_and_a_file_keeps_its_mode(tag, many, tmp_path, suffix):
    real, link = tmp_path / "there" / f"real.{suffix}", tmp_path / f"link.{suffix}"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)

    status, _, _ = tag(many, "--out", link)

    assert (status, link.is_symlink(), real.stat().st_mode & 0o777) == (0, True, 0o640)
    assert real.stat().st_size > 100
    assert [path.name for path in real.parent.iterdir()] == [real.name]


def test_a_device_is_refused_and_stays_one(tag, many):
    status, _, err = tag(many, "--out", "/dev/null", "--to", "jsonl")

    assert status == 2
    assert "--out /dev/null: /dev/null is a device or a pipe; leave --out away" in err
    assert Path("/dev/null").is_char_device()


def test_parts_that_a_killed_run_left_behind_do_not_block_the_name(tag, many, tmp_path):
    (tmp_path / ".out.parquet.published").mkdir()
    (tmp_path / ".out.parquet.published" / "part-000000").write_text("old")

    status, _, _ = tag(many, "--out", tmp_path / "out.parquet")

    assert status == 0
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".conll", ".parquet", ".spacy"])
@pytest.mark.parametrize("kind", [Stop, KeyboardInterrupt, SIGTERM])
def test_a_stopped_run_is_taken_up_and_ends_as_if_it_had_never_been_stopped(tag, many, tmp_path, suffix, kind):
    out = tmp_path / f"out{suffix}"
    tag(many, "--out", tmp_path / f"whole{suffix}")
    with pytest.MonkeyPatch.context() as patch:
        stopping_after(2, kind, patch)
        if kind is Stop:
            with pytest.raises(Stop):
                tag(many, "--out", out)
        else:
            status, _, err = tag(many, "--out", out)
            assert status == (143 if kind is SIGTERM else 130)
            assert f"stopped after {2 * CHUNK_RECORDS:,} records" in err
            assert "the same command goes on from there" in err
    was_there = out.exists()

    with pytest.MonkeyPatch.context() as patch:
        done = stopping_after(9, Stop, patch)
        status, told_at_end, _ = tag(many, "--out", out)

    assert (status, was_there) == (0, False)
    assert done == [CHUNK_RECORDS, 7]
    assert f"{3 * CHUNK_RECORDS + 7:,} records" in told_at_end
    assert content(out) == content(tmp_path / f"whole{suffix}")
    assert sorted(os.listdir(tmp_path)) == ["many.jsonl", f"out{suffix}", f"whole{suffix}"]


@pytest.mark.parametrize("somebody_takes_it_away", [False, True])
def test_in_a_folder_the_files_that_are_whole_are_not_made_again(tag, many, tmp_path, somebody_takes_it_away):
    write(tmp_path / "few.jsonl", RECORDS)
    command = [tmp_path / "few.jsonl", many, "--out", f"{tmp_path}/out/"]
    with pytest.MonkeyPatch.context() as patch:
        stopping_after(2, KeyboardInterrupt, patch)
        tag(*command)
    left = sorted(os.listdir(tmp_path / "out"))
    if somebody_takes_it_away:
        (tmp_path / "out" / "few.jsonl").unlink()

    with pytest.MonkeyPatch.context() as patch:
        done = stopping_after(9, Stop, patch)
        tag(*command)

    assert left == [".few.jsonl.state.json", ".many.jsonl.state.json", ".many.jsonl.unfinished", "few.jsonl"]
    assert done == [5] * somebody_takes_it_away + [CHUNK_RECORDS, CHUNK_RECORDS, 7]
    assert sorted(os.listdir(tmp_path / "out")) == ["few.jsonl", "many.jsonl"]
    assert [line["id"] for line in lines(tmp_path / "out" / "many.jsonl")] == [row["id"] for row in lines(many)]


def refuse(problem):
    raise problem


@settings(max_examples=100)
@given(
    parts=st.lists(
        st.tuples(st.text(st.sampled_from("aä\u2028\x85 "), max_size=9), st.sampled_from(["\n", "\r\n", "\r"]))
    ),
    last=st.text(st.sampled_from("aä "), max_size=3),
    n_done=st.integers(0, 12),
)
def test_lines_are_those_of_a_text_file_and_come_with_their_numbers(parts, last, n_done):
    source = io.BytesIO("".join([line + end for line, end in parts] + [last]).encode())

    found = list(read_input_lines(source, str, "utf-8", refuse, n_done))

    whole = [line for line, _ in parts] + ([last] if last else [])
    # CR LF, CR CR LF and LF CR are one end.
    ends = [first[1] + second[1] for first, second in pairwise(parts) if not second[0]]
    if not {"\r\n", "\r\r\n", "\n\r"} & set(ends):
        assert found == list(enumerate(whole, 1))[n_done:]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n", "\n\r"])
def test_each_kind_of_line_end_ends_a_line_once(end):
    texts = ["Anna", "lebt", "Kiel"] if end == "\n\r" else ["Anna", "", "Kiel"]
    source = io.BytesIO("".join(text + end for text in texts).encode())

    assert list(read_input_lines(source, str, "utf-8", refuse)) == list(enumerate(texts, 1))


def test_a_line_too_long_is_left_out_and_the_next_one_is_read(monkeypatch):
    monkeypatch.setattr(input_lines, "LONGEST_LINE", 5)
    problems = []

    found = list(
        read_input_lines(io.BytesIO(b"12345\n123456\n" + b"x" * 40 + b"\nab\n1234567"), str, "utf-8", problems.append)
    )

    assert found == [(1, "12345"), (4, "ab")]
    assert [(problem.code, problem.place) for problem in problems] == [("XL002", "2"), ("XL002", "3"), ("XL002", "5")]


def test_ctrl_c_while_a_chunk_is_written_doubles_nothing(tag, many, tmp_path, monkeypatch):
    tag(many, "--out", tmp_path / "whole.jsonl")
    add, chunks = Lines.add, []

    def interrupted(output, records):
        add(output, records)
        chunks.append(records)
        if len(chunks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "SAVE_SECONDS", -1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lines, "add", interrupted)
        tag(many, "--out", tmp_path / "out.jsonl")

    tag(many, "--out", tmp_path / "out.jsonl")

    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_problems_are_counted_for_each_file_of_a_folder(tag, tmp_path):
    (tmp_path / "a.jsonl").write_text("x\n" * 3)
    (tmp_path / "b.jsonl").write_text("x\n")

    _, out, _ = tag(tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--out", f"{tmp_path}/out/", "--on-error", "skip")

    assert [line.split(", ")[3].split(";")[0] for line in out.splitlines()] == ["3 problems", "1 problems"]


def test_what_was_written_behind_the_last_save_is_dropped(tag, many, tmp_path):
    tag(many, "--out", tmp_path / "whole.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        stopping_after(1, Stop, patch)
        with pytest.raises(Stop):
            tag(many, "--out", tmp_path / "out.jsonl")
    with (tmp_path / ".out.jsonl.unfinished").open("a") as file:
        file.write('{"half a rec')

    tag(many, "--out", tmp_path / "out.jsonl")

    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("input", "many.jsonl has changed since"),
        ("another input", "was begun with another input"),
        ("model", "was begun with another model"),
        ("--encoding", "was begun with another encoding (then utf-8, now latin-1)"),
        ("--to", "was begun with another output format (then jsonl, now conll)"),
        ("shorter", "is shorter than it was; --fresh begins anew"),
        ("damaged", ".out.jsonl.state.json: damaged"),
    ],
)
def test_another_model_input_or_setting_is_refused_by_name_and_fresh_begins_anew(
    tag, many, xlmr_folder, bert_folder, tmp_path, change, message
):
    with pytest.MonkeyPatch.context() as patch:
        stopping_after(1, KeyboardInterrupt, patch)
        tag(many, "--out", tmp_path / "out.jsonl")
    left = (tmp_path / ".out.jsonl.unfinished").read_bytes()
    options = {"--encoding": ["--encoding", "latin-1"], "--to": ["--to", "conll"]}.get(change, [])
    source = write(tmp_path / "other.jsonl", RECORDS) if change == "another input" else many
    if change == "input":
        write(many, RECORDS)
    if change == "shorter":
        (tmp_path / ".out.jsonl.unfinished").write_bytes(left[:-1])
    if change == "damaged":
        (tmp_path / ".out.jsonl.state.json").write_text("{")
    command = [source, "--out", tmp_path / "out.jsonl", *options]
    model = xlmr_folder if change == "model" else bert_folder

    status, _, err = tag(*command, model=model)
    fresh, _, _ = tag(*command, "--fresh", model=model)

    assert (status, fresh) == (2, 0)
    assert message in err
    assert (tmp_path / "out.jsonl").is_file()
    assert not list(tmp_path.glob(".out*"))


def test_bad_columns_before_a_stop_are_told_once(tag, tmp_path):
    rows = ["Kiel\tO\n\n"] * (CHUNK_RECORDS + 3)
    (tmp_path / "in.conll").write_text("".join([*rows[:2], "Bonn\tO\tx\n\n", *rows, "Ulm\tO\tx\n\n", *rows]))
    command = [tmp_path / "in.conll", "--out", tmp_path / "out.conll", "--on-error", "skip"]
    with pytest.MonkeyPatch.context() as patch:
        stopping_after(1, KeyboardInterrupt, patch)
        _, _, first = tag(*command)

    _, out, second = tag(*command)

    assert ("in.conll:5:" in first, "in.conll:5:" in second) == (True, False)
    assert "in.conll:" in second
    assert "2 problems" in out


def test_a_full_disk_is_told_publishes_nothing_and_is_taken_up(tag, many, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="limits of files are POSIX's")
    tag(many, "--out", tmp_path / "whole.jsonl")
    monkeypatch.setattr(files, "SAVE_SECONDS", -1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "whole.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))  # writing further fails, as on a full disk
    try:
        status, _, err = tag(many, "--out", tmp_path / "out.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    was_there = (tmp_path / "out.jsonl").exists()

    tag(many, "--out", tmp_path / "out.jsonl")

    assert (status, was_there) == (2, False)
    assert "out.jsonl: cannot be written: File too large; what is done is kept" in err
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_second_run_on_one_output_is_kept_out(tag, many, tmp_path, monkeypatch):
    seen, tag_records = [], files.tag_records

    def tag_twice(tagger, records, wanted):
        if not seen:
            seen.append("begun")
            seen.append(tag(many, "--out", tmp_path / "out.jsonl"))
        return tag_records(tagger, records, wanted)

    monkeypatch.setattr(files, "tag_records", tag_twice)
    status, _, _ = tag(many, "--out", tmp_path / "out.jsonl")

    assert (status, seen[1][0]) == (0, 2)
    assert "another run is writing it at this moment" in seen[1][2]


def test_the_standard_input_is_written_to_a_file_and_cannot_be_taken_up(tag, tmp_path):
    text = "Kiel\n" * (CHUNK_RECORDS + 1)
    with pytest.MonkeyPatch.context() as patch:
        stopping_after(1, KeyboardInterrupt, patch)
        status, _, err = tag("--out", tmp_path / "out.jsonl", stdin=text)
    left = os.listdir(tmp_path)

    tag("--out", tmp_path / "out.jsonl", stdin=text)

    assert (status, left) == (130, [])
    assert "the standard input cannot be taken up again" in err
    assert len(lines(tmp_path / "out.jsonl")) == CHUNK_RECORDS + 1


def test_a_file_that_was_there_stays_until_the_new_one_is_whole(tag, many, tmp_path):
    (tmp_path / "out.jsonl").write_text("as it was")
    with pytest.MonkeyPatch.context() as patch:
        stopping_after(1, KeyboardInterrupt, patch)
        tag(many, "--out", tmp_path / "out.jsonl")

    assert (tmp_path / "out.jsonl").read_text() == "as it was"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.txt", "--out", "out.xyz"], "--out out.xyz: the suffix tells no format to write"),
        (["in.txt", "--out", "in.txt"], "--out in.txt: this is the input in.txt itself"),
        (["in.txt", "sub/in.jsonl", "--out", "sub/"], "several files would be named sub/in.jsonl"),
        (["in.txt", "--to", "parquet"], "--to parquet is written to a file: give --out FILE"),
        (["in.txt", "--to", "xml", "--out", "out.xml"], "unknown --to 'xml'"),
        (["in.txt", "--from", "xml"], "unknown --from 'xml'"),
        (["in.txt", "--on-error", "hope"], "unknown --on-error 'hope'; known: stop, skip"),
        (
            ["in.spacy"],
            "in.spacy: docbin is none of the formats that are tagged: text, jsonl, json, conll, csv, parquet",
        ),
        (["in.txt", "sub/in.txt", "--out", "all/"], "several files would be named all/in.jsonl"),
        (["in.txt", "--from", "parquet"], "in.txt: cannot be read as Parquet"),
        (["other.parquet"], "other.parquet: no column text, words or tokens; columns there: x"),
        (["--from", "parquet"], "Parquet is read from a file, not from the standard input"),
        (["nope.jsonl"], "nope.jsonl: cannot be read: No such file"),
        (["mixed.jsonl", "--out", "out.parquet"], "mixed.jsonl:2: does not fit the columns of the first records"),
        (
            ["late.jsonl", "--out", "out.parquet"],
            "late.jsonl:513: the field 'new' is none of the columns, id, text, entities",
        ),
    ],
)
def test_what_cannot_be_done_is_told_alone_and_with_status_2(tag, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "SAVE_SECONDS", -1.0)
    (tmp_path / "sub").mkdir()
    for name in ("in.txt", "sub/in.txt"):
        (tmp_path / name).write_text("Kiel\n")
    (tmp_path / "sub" / "in.jsonl").write_text("{}\n")
    parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "other.parquet")
    write(tmp_path / "mixed.jsonl", [{"text": "a", "id": 1}, {"text": "b", "id": "one"}])
    write(tmp_path / "late.jsonl", [{"id": 1, "text": "a"}] * CHUNK_RECORDS + [{"id": 1, "text": "b", "new": 1}])

    status, _, err = tag(*arguments)

    assert status == 2
    assert message in err
    assert not (tmp_path / "out.parquet").exists()


def test_what_is_unlikely_or_of_another_type_is_left_out(tag, tagger, tmp_path):
    texts = write(tmp_path / "in.jsonl", RECORDS)
    scores = [entity.score for found in tagger.tag_batch(SENTENCES) for entity in found if entity.label == "PER"]
    threshold = sorted(scores)[len(scores) // 2]

    status, out, _ = tag(texts, "--threshold", threshold, "--types", "PER")

    found = [entity for line in out.splitlines() for entity in json.loads(line)["entities"]]
    assert status == 0
    assert {entity["label"] for entity in found} == {"PER"}
    assert len(found) == sum(score >= threshold for score in scores) < len(scores)


def test_a_threshold_that_is_no_probability_and_one_that_was_not_tuned_are_refused(tag, tmp_path):
    texts = write(tmp_path / "in.jsonl", RECORDS)

    no_number, untuned = (tag(texts, "--threshold", asked) for asked in ("high", "tuned"))

    assert (no_number[0], untuned[0]) == (2, 2)
    assert "'high' is no number from 0 to 1; expected one, or tuned" in " ".join(no_number[2].split())
    assert "the model has no thresholds.json" in untuned[2]


def test_columns_have_no_tags_of_what_is_left_out(tag, tmp_path):
    words = write(tmp_path / "in.jsonl", WORDS)

    status, out, _ = tag(words, "--types", "PER", "--to", "conll")

    tags = {line.split("\t")[1] for line in out.splitlines() if line}
    assert status == 0
    assert tags <= {"O", "B-PER", "I-PER"}
    assert "B-PER" in tags


def test_a_type_that_the_model_does_not_know_is_refused_with_those_it_knows(tag, tmp_path):
    texts = write(tmp_path / "in.jsonl", RECORDS)

    status, out, err = tag(texts, "--types", "PER,GENE")

    assert (status, out) == (2, "")
    assert "--types names GENE; " in err
    assert "knows LOC, ORG, PER" in err


def test_numbers_that_json_lacks_are_null_in_carried_fields(tag, tmp_path):
    path = tmp_path / "in.parquet"
    columns = {"text": ["Kiel", "Ulm"], "x": [float("nan"), 1.5], "nested": [[float("inf")], [0.5]]}
    parquet.write_table(pyarrow.table(columns), path)
    (tmp_path / "in.jsonl").write_text('{"text": "Kiel", "x": 1e999, "y": {"z": -1e999}}\n')

    found = [tag(name, "--to", "jsonl")[1].splitlines() for name in (path, tmp_path / "in.jsonl")]

    rows = [[json.loads(line, parse_constant=pytest.fail) for line in lines] for lines in found]
    assert [(row["x"], row["nested"]) for row in rows[0]] == [(None, [None]), (1.5, [0.5])]
    assert (rows[1][0]["x"], rows[1][0]["y"]) == (None, {"z": None})


@pytest.mark.parametrize("scheme", sorted(OTHER_SCHEMES))
def test_a_tagger_of_another_scheme_tags_into_a_file(tag, bert_folder, tmp_path, scheme):
    names = OTHER_SCHEMES[scheme]
    folder = with_tags(bert_folder, tmp_path / scheme, [names.get(name, name) for name in LABELS.tags])
    source = write(tmp_path / "in.jsonl", RECORDS)

    status, _, err = tag(source, "--out", tmp_path / "out.jsonl", model=str(folder))

    assert (status, err) == (0, "")
    tagger = load_tagger(folder)
    assert [told(row["entities"]) for row in lines(tmp_path / "out.jsonl")] == [found_by(tagger, s) for s in SENTENCES]
