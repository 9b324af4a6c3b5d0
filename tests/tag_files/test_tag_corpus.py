import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pyarrow
import pytest
from conftest import SENTENCES
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from runs import TAG_CORPUS, run_on_two, run_script

from xlner.config.schema import TagRecipe
from xlner.errors import CorpusError, RecipeError, RunError
from xlner.tag_files.engines import tag_corpus
from xlner.tag_files.records import InputOptions, read_records
from xlner.tag_files.shards import input_files, plan_shards, prepare
from xlner.tagger import load_tagger

pytestmark = pytest.mark.slow

N_RECORDS = 60
SMALL = ("cpu=true", "threads=1", "shard_megabytes=0.0005")


def refuse(problem):
    raise problem


def records_of(shard, format):
    return read_records(shard.source, format, InputOptions(refuse, bounds=(shard.first, shard.last)))


@pytest.fixture
def corpus(tmp_path):
    """A folder of JSONL and Parquet; each record has a number."""
    folder = tmp_path / "corpus"
    (folder / "more").mkdir(parents=True)
    rows = [{"text": SENTENCES[number % 5], "id": number} for number in range(N_RECORDS)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pyarrow.table(
        {"words": [row["text"].split() for row in rows], "id": pyarrow.array(range(N_RECORDS), "int16")}
    )
    parquet.write_table(table, folder / "more" / "b.parquet", row_group_size=7)
    return folder


def tag(model, corpus, output, *more, run=run_script):
    return run(TAG_CORPUS, f"model={model}", f"input={corpus}", f"output={output}", *SMALL, *more, cwd=corpus.parent)


def content(folder):
    """The files of a result but its state, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".shards" not in path.parts
    }


def records(folder):
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    tables = [parquet.read_table(path) for path in sorted(folder.rglob("*.parquet"))]
    return list(map(json.loads, lines)), pyarrow.concat_tables(tables)


def test_every_record_comes_out_once_in_order_and_with_its_entities(bert_folder, corpus, tmp_path):
    finished = tag(bert_folder, corpus, tmp_path / "tagged")

    lines, table = records(tmp_path / "tagged")
    tagger = load_tagger(bert_folder)
    assert finished.status == 0
    assert [line["id"] for line in lines] == table["id"].to_pylist() == list(range(N_RECORDS))
    assert table.schema.field("id").type == pyarrow.int16()
    for line in lines[:5]:
        assert [e["start"] for e in line["entities"]] == [e.start for e in tagger.tag(line["text"])]
    for row in table.slice(0, 5).to_pylist():
        assert row["tags"] == tagger.tag_words(row["words"])
    assert "whole: " in finished.messages[-1]
    assert f"{2 * N_RECORDS} records" in finished.messages[-1]


def test_two_processes_make_the_files_of_one(bert_folder, corpus, tmp_path):
    one = tag(bert_folder, corpus, tmp_path / "one")
    two = tag(bert_folder, corpus, tmp_path / "two", run=run_on_two)

    assert [one.status, *(finished.status for finished in two)] == [0, 0, 0]
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(content(tmp_path / "one")) > 10
    assert sum("whole: " in finished.stderr for finished in two) >= 1


def test_a_restart_makes_only_the_shards_that_are_missing(bert_folder, corpus, tmp_path):
    tag(bert_folder, corpus, tmp_path / "tagged")
    before = content(tmp_path / "tagged")
    shards = sorted(path for path in (tmp_path / "tagged").rglob("*-of-*") if ".shards" not in path.parts)
    gone, cut, unproved = shards[0], shards[2], shards[-1]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:10])
    (tmp_path / "tagged" / ".shards" / f"{unproved.relative_to(tmp_path / 'tagged')}.json").unlink()
    (gone.parent / f".{gone.name}.another-host@7-0.unfinished").write_text("of a process that was killed")
    (tmp_path / "tagged" / ".mine.unfinished").mkdir()
    (tmp_path / "tagged" / ".mine.unfinished" / "thesis.tex").write_text("years of work")
    times = {path: path.stat().st_mtime_ns for path in shards if path not in (gone, cut, unproved)}

    finished = tag(bert_folder, corpus, tmp_path / "tagged")

    assert f"3 of {len(shards)} shards to tag" in finished.messages[0]
    mine = {".mine.unfinished/thesis.tex": b"years of work"}
    assert content(tmp_path / "tagged") == before | mine
    assert {path: path.stat().st_mtime_ns for path in times} == times


def part(model, corpus, output, number):
    return TagRecipe(str(model), str(corpus), str(output), shard_megabytes=0.0005, part=number, cpu=True, threads=1)


def test_parts_make_the_files_of_the_whole_and_the_last_one_tells_its_counts(linear, corpus, tmp_path, capsys):
    tag_corpus(part(linear, corpus, tmp_path / "whole", "1/1"))
    told = [capsys.readouterr().err]
    for number in ("3/3", "1/3", "1/3", "2/3"):
        tag_corpus(part(linear, corpus, tmp_path / "parts", number))
        told.append(capsys.readouterr().err)

    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert any(b'"label": "PER"' in shard for shard in content(tmp_path / "parts").values())
    assert ["whole: " in text for text in told] == [True, False, False, False, True]
    assert "part 3/3 is done; " in told[1]
    assert "part 1/3: 0 of " in told[3]


@pytest.mark.parametrize("given", ["0/16", "17/16", "3", "3/", "a/b", "-1/3", "1/0"])
def test_a_part_that_is_none_is_refused(given):
    with pytest.raises(RecipeError, match=f"part is .?{given}.*(count from 1|expected which part of how many)"):
        TagRecipe("model", "input", "output", part=given)


@pytest.mark.parametrize(("running", "wanted"), [("1/3", "2/2"), ("", "1/3"), ("1/3", ""), ("1/3", "1/3")])
def test_what_is_no_other_part_of_the_same_number_is_kept_out(linear, corpus, tmp_path, running, wanted):
    with ExitStack() as held, pytest.raises(RunError, match="another run is tagging into it at this moment"):  # noqa: PT012
        prepare(part(linear, corpus, tmp_path / "tagged", running), held)
        prepare(part(linear, corpus, tmp_path / "tagged", wanted), ExitStack())


def lengthen(corpus, n_records):
    """More to do: a run on a busy machine shall not be over before the signal comes."""
    rows = [{"text": SENTENCES[number % 5], "id": number} for number in range(n_records)]
    (corpus / "z.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_killed_run_leaves_whole_shards_alone_and_is_taken_up(bert_folder, corpus, tmp_path):
    lengthen(corpus, 1000)

    def kill(process):
        while len(list((tmp_path / "tagged").glob(".shards/*-of-*.json"))) < 3:
            assert process.is_alive()
            process.join(0.002)
        os.kill(process.pid, signal.SIGKILL)

    def meanwhile(script, *arguments, cwd):
        return run_script(script, *arguments, cwd=cwd, meanwhile=kill)

    killed = tag(bert_folder, corpus, tmp_path / "tagged", run=meanwhile)
    left = content(tmp_path / "tagged")
    tag(bert_folder, corpus, tmp_path / "tagged", run=run_on_two)
    tag(bert_folder, corpus, tmp_path / "whole")

    whole = content(tmp_path / "whole")
    assert killed.status == -signal.SIGKILL
    published = {name: left[name] for name in left if not Path(name).name.startswith(".")}
    assert published.items() <= whole.items()
    assert content(tmp_path / "tagged") == whole


def test_ctrl_c_ends_with_status_130_and_leaves_nothing_half_made(bert_folder, corpus, tmp_path):
    lengthen(corpus, 5000)

    def stop(process):
        while not list((tmp_path / "tagged").glob(".shards/*-of-*.json")):
            assert process.is_alive()
            process.join(0.002)
        os.kill(process.pid, signal.SIGINT)

    def meanwhile(script, *arguments, cwd):
        return run_script(script, *arguments, cwd=cwd, meanwhile=stop)

    stopped = tag(bert_folder, corpus, tmp_path / "tagged", run=meanwhile)

    assert stopped.status == 130
    assert "the same command goes on from what the run has saved" in stopped.messages[-1]
    assert not list((tmp_path / "tagged").rglob("*.unfinished"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("input", "a.jsonl has changed since"),
        ("model", "was begun with another model"),
        ("shard_megabytes", "was begun with another shard_megabytes (then 0.0005, now 0.001)"),
    ],
)
def test_another_input_model_or_cut_is_refused_by_name(bert_folder, xlmr_folder, corpus, tmp_path, change, message):
    tag(bert_folder, corpus, tmp_path / "tagged")
    before = content(tmp_path / "tagged")
    if change == "input":
        (corpus / "a.jsonl").write_text('{"text": "Kiel"}\n')
    model = xlmr_folder if change == "model" else bert_folder
    cut = "shard_megabytes=0.001" if change == "shard_megabytes" else SMALL[-1]

    arguments = (f"model={model}", f"input={corpus}", f"output={tmp_path / 'tagged'}", *SMALL[:-1], cut)
    refused = run_on_two(TAG_CORPUS, *arguments, cwd=tmp_path)

    assert [finished.status for finished in refused] == [2, 2]
    assert all(message in finished.messages[-1] for finished in refused)
    assert content(tmp_path / "tagged") == before


def test_a_second_run_in_the_folder_is_kept_out(bert_folder, corpus, tmp_path):
    second = []

    def start_another(process):
        while not (tmp_path / "tagged" / ".shards" / "plan.json").is_file():
            assert process.is_alive()
            process.join(0.002)
        os.kill(process.pid, signal.SIGSTOP)
        second.append(tag(bert_folder, corpus, tmp_path / "tagged"))
        os.kill(process.pid, signal.SIGCONT)

    def first(script, *arguments, cwd):
        (cwd / "first").mkdir()
        return run_script(script, *arguments, cwd=cwd / "first", meanwhile=start_another)

    finished = tag(bert_folder, corpus, tmp_path / "tagged", run=first)

    assert (finished.status, second[0].status) == (0, 2)
    assert "another run is tagging into it at this moment" in second[0].messages[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["input=corpus", "output=tagged"], "model= is missing"),
        (
            ["model=MODEL", "input=nowhere", "output=tagged"],
            "input=nowhere: no file there that ends in .parquet, .jsonl",
        ),
        (["model=MODEL", "input=corpus", "output=corpus/tagged"], "lies inside the input folder"),
        (["model=MODEL", "input=corpus", "output=corpus"], "holds files that are no tagged corpus"),
        (
            ["model=MODEL", "input=corpus", "output=tagged", "on_error=hope"],
            "on_error is 'hope'; it must be one of stop, skip",
        ),
        (["model=MODEL", "input=corpus", "output=tagged", "shards=7"], "Key 'shards' not in 'TagRecipe'"),
        (["model=MODEL", "input=corpus/a.jsonl/x", "output=corpus/a.jsonl"], "no file there"),
        (["model=./nope", "input=corpus", "output=tagged"], "nope: no such folder"),
    ],
)
def test_what_cannot_be_meant_is_told_with_status_2(bert_folder, corpus, arguments, message):
    arguments = [argument.replace("MODEL", bert_folder) for argument in arguments]

    finished = run_script(TAG_CORPUS, "cpu=true", *arguments, cwd=corpus.parent)

    assert finished.status == 2
    assert message in finished.messages[-1]


def test_a_bad_record_stops_the_run_or_is_left_out_and_counted(bert_folder, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.jsonl").write_text('{"text": "Kiel"}\n{"id": 1}\n{"text": "Bonn"}\n')

    stopped = tag(bert_folder, tmp_path / "x", tmp_path / "tagged")
    passed = tag(bert_folder, tmp_path / "x", tmp_path / "tagged", "on_error=skip")

    assert stopped.status == 2
    assert "a.jsonl:2: expected a field text, or words" in stopped.messages[-1]
    assert "on_error=skip would go on" in stopped.messages[-1]
    assert passed.status == 0
    assert "2 records" in passed.messages[-1]
    assert "1 problems" in passed.messages[-1]


@settings(max_examples=60)
@given(
    lines=st.lists(st.text(st.sampled_from("aä京 "), max_size=12), max_size=20),
    ends_with_newline=st.booleans(),
    n_bytes=st.integers(1, 40),
)
def test_shards_hold_every_line_once_wherever_they_are_cut(tmp_path_factory, lines, ends_with_newline, n_bytes):
    path = tmp_path_factory.mktemp("cut") / "x.txt"
    text = "\n".join(lines) + ("\n" if ends_with_newline else "")
    path.write_text(text, encoding="utf-8")

    shards = plan_shards(input_files(str(path)), n_bytes)
    found = [record.text for shard in shards for record in records_of(shard, "text")]

    assert found == (text.removesuffix("\n").split("\n") if text else [])


@settings(max_examples=30)
@given(n_rows=st.integers(0, 40), group=st.integers(1, 15), n_bytes=st.integers(1, 2000))
def test_shards_hold_every_row_once_wherever_they_are_cut(tmp_path_factory, n_rows, group, n_bytes):
    path = tmp_path_factory.mktemp("cut") / "x.parquet"
    parquet.write_table(
        pyarrow.table({"text": pyarrow.array(map(str, range(n_rows)), "string")}), path, row_group_size=group
    )

    shards = plan_shards(input_files(str(path)), n_bytes)
    found = [record.text for shard in shards for record in records_of(shard, "parquet")]

    assert found == [str(number) for number in range(n_rows)]


def test_two_files_that_would_become_one_are_refused(tmp_path):
    for name in ("x.jsonl", "x.txt"):
        (tmp_path / name).write_text("{}\n")

    with pytest.raises(CorpusError, match="two input files would become x-00000-of-00001"):
        plan_shards(input_files(str(tmp_path)), 1e6)


def test_a_glob_finds_files_in_folders_and_keeps_their_places(tmp_path):
    for name in ("a/x.jsonl", "b/x.jsonl", "b/readme.md"):
        path = Path(tmp_path, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}\n")

    assert list(input_files(f"{tmp_path}/*/*").values()) == ["a/x.jsonl", "b/x.jsonl"]
