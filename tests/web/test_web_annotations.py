"""Corrections: what the service takes, what the file then holds, and who reads it."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from conftest import REPOSITORY

from xlner import files
from xlner.config.schema import DistillRecipe
from xlner.corpora.source import align, read_annotations, read_corpus
from xlner.errors import CorpusError, RunError
from xlner.jobs.inputs import teachers_of
from xlner.soft_labels.mix import taught_soft_labels
from xlner.tags import Span
from xlner.web.annotations import AnnotationFile, ChangedError, lines_of

pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install 'xlner[serve]'")

from test_web_serve import gpe_folder, serving, settings  # noqa: F401

from xlner.web.serve import ServeSettings, run

TEXT = "😀 Angela Merkel besuchte Kiel.\n\nDie Siemens AG sitzt\r\nin München, مدينة برلين."


def entity(words, label, text=TEXT):
    start = text.index(words)
    return {"start": start, "end": start + len(words), "label": label}


ENTITIES = [entity("Angela Merkel", "PER"), entity("Kiel", "LOC"), entity("Siemens AG", "ORG"), entity("برلين", "LOC")]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("corrections") / "annotations.jsonl"


@pytest.fixture(scope="module")
def service(settings, path):  # noqa: F811
    with serving(replace(settings, models=settings.models[:1], annotations=path, max_chars=1000)) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_file_before(path):
    path.unlink(missing_ok=True)


def found(service, text=TEXT, **more):
    answer = service.ask("/v1/annotations/find", {"text": text, **more})
    assert answer.status == 200
    return answer.json


def save(service, entities=ENTITIES, text=TEXT, **more):
    return service.ask("/v1/annotations", {"text": text, "entities": entities, **more})


def test_what_is_saved_is_found_again_with_the_words_of_each_sentence(service):
    before = found(service)

    answer = save(service, version=before["version"])

    after = found(service)
    assert (answer.status, answer.json["saved"]) == (200, 3)
    assert [one["entities"] for one in before["sentences"]] == [None, None, None]
    assert answer.json["version"] == after["version"] != before["version"]
    assert [one["entities"] for one in after["sentences"]] == [ENTITIES[:2], ENTITIES[2:3], ENTITIES[3:]]
    lines = [TEXT[one["start"] : one["end"]] for one in after["sentences"]]
    assert lines == [line for line in TEXT.splitlines() if line]
    words = [TEXT[start:end] for start, end in after["sentences"][1]["words"]]
    assert words == ["Die", "Siemens", "AG", "sitzt"]
    assert after["types"] == ["LOC", "ORG", "PER"]


def test_offsets_of_javascript_are_taken_and_given(service):
    units = [entity | {"start": entity["start"] + 1, "end": entity["end"] + 1} for entity in ENTITIES]

    assert save(service, units, offsets="utf16").status == 200

    assert [one for s in found(service)["sentences"] for one in s["entities"]] == ENTITIES
    assert [one for s in found(service, offsets="utf16")["sentences"] for one in s["entities"]] == units


def test_the_file_is_read_as_labels_and_as_what_a_teacher_says(service, path):
    save(service)

    sentences = list(read_corpus(path))
    said = read_annotations(path)

    assert [" ".join(sentence.words) for sentence in sentences] == [
        "😀 Angela Merkel besuchte Kiel .",
        "Die Siemens AG sitzt",
        "in München , مدينة برلين .",
    ]
    assert sentences[0].tags == ("O", "B-PER", "I-PER", "O", "B-LOC", "O")
    assert sentences[2].tags == ("O", "O", "O", "O", "B-LOC", "O")
    spans = [span[:3] for span in align(said.of(sentences[0].words), sentences[0].words).spans]
    assert spans == [("PER", 1, 3), ("LOC", 4, 5)]
    assert said.types == ("LOC", "ORG", "PER")
    assert said.of(["Die", "SiemensAG", "sitzt"]) is not None


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a\u2028b\x85c\x0cd",
        "x\x00y\ttab",
        "\u200eab\u200f c",
        "北京 e\u0301 🚀",
        '``` [x](y) ,;"',
    ],
)
def test_any_text_comes_back_from_the_file_as_it_was(service, path, text):
    words = [text[start:end] for one in found(service, text)["sentences"] for start, end in one["words"]]

    assert save(service, [], text).status == 200

    (sentence,) = read_corpus(path)
    assert list(sentence.words) == words
    assert set(sentence.tags) == {"O"}
    assert read_annotations(path).of(words).spans == ()
    assert found(service, text)["sentences"][0]["entities"] == []


def test_a_sentence_that_is_corrected_again_has_one_record_and_others_stay_as_they_are(service, path):
    save(service)
    before = path.read_text(encoding="utf-8").splitlines()

    answer = save(service, [*ENTITIES[:2], *ENTITIES[3:]])
    same = save(service, [*ENTITIES[:2], *ENTITIES[3:]])

    after = path.read_text(encoding="utf-8").splitlines()
    assert (answer.json["saved"], same.json["saved"]) == (1, 0)
    assert len(after) == 3
    assert after[:2] == [before[0], before[2]]
    assert json.loads(after[2])["spans"] == []


def test_corrections_of_what_was_saved_meanwhile_by_others_are_refused_and_change_nothing(service, path):
    seen = found(service)["version"]
    save(service, version=seen)
    written = path.read_bytes()

    late = save(service, [], version=seen)
    same = save(service, version=seen)

    assert (late.status, late.told) == (409, '"other corrections of this text were saved meanwhile; find them first"')
    assert same.status == 200
    assert path.read_bytes() == written
    assert save(service, [], version=found(service)["version"]).status == 200
    assert save(service).status == 200  # without a version whatever is there is replaced


def test_what_was_in_the_file_stays_and_its_types_can_be_chosen(service, path):
    lines = [
        '{"types": ["EVENT", "LOC"]}',
        '{"words": ["Kieler", "Woche"], "entities": [{"start": 0, "end": 2, "label": "EVENT"}]}',
    ]
    path.write_text("\n".join(lines))  # as by hand: the last line has no end

    answer = save(service, [*ENTITIES, entity("München", "EVENT")])

    assert answer.status == 200
    written = path.read_text(encoding="utf-8").splitlines()
    assert written[:2] == lines
    assert len(written) == 5
    assert found(service, "Kieler  Woche")["sentences"][0]["entities"] == [{"start": 0, "end": 13, "label": "EVENT"}]
    assert found(service)["types"] == ["EVENT", "LOC", "ORG", "PER"]


def test_a_record_of_another_tool_keeps_what_it_says_beside_the_entities(service, path):
    text, place = "Kiel liegt an der Ostsee.", {"start": 0, "end": 4, "label": "LOC"}
    other = {"_input_hash": -17, "meta": {"source": "Zeitung", "seite": 3}, "id": "a-1"}
    rejected = {"text": text, "spans": [{"start": 0, "end": 4, "label": "ORG"}], "answer": "reject"} | other
    path.write_text(json.dumps(rejected) + "\n")
    assert found(service, text)["sentences"][0]["entities"] is None  # its annotator did not accept it

    assert save(service, [place], text).status == 200
    assert save(service, [], text).status == 200

    (record,) = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert {name: record.get(name) for name in other} == other
    assert (record["text"], record["spans"]) == (text, [])
    assert "answer" not in record


def test_a_line_that_a_killed_process_left_unfinished_is_dropped(service, path):
    save(service, [], "Eins .")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])

    assert found(service, "Eins .")["sentences"][0]["entities"] == []
    assert save(service, [], "Zwei .").status == 200

    assert [" ".join(sentence.words) for sentence in read_corpus(path)] == ["Eins .", "Zwei ."]


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b'{"text', 422, "JSON decode error"),
        ({"text": TEXT}, 422, "Field required"),
        ({"text": TEXT, "entities": [{"start": 0}]}, 422, "Field required"),
        ({"text": TEXT, "entities": [{"start": 0, "end": 1.5, "label": "PER"}]}, 422, "valid integer"),
        ({"text": TEXT, "entities": [], "file": "other.jsonl"}, 422, "Extra inputs"),
        ({"text": "x" * 1001, "entities": []}, 413, "1,001 characters; at most 1,000"),
        ({"text": "\ud800", "entities": []}, 422, "lone surrogate"),
        ({"text": TEXT, "entities": [entity("Kiel", "GPE")]}, 422, "unknown type; expected one of: LOC, ORG, PER"),
        ({"text": TEXT, "entities": [entity("Kie", "LOC")]}, 422, "entity 0 (from 0) begins or ends at no word"),
        ({"text": TEXT, "entities": [entity(" Kiel", "LOC")]}, 422, "begins or ends at no word"),
        (
            {"text": TEXT, "entities": [ENTITIES[0], entity("Kiel.\n\nDie", "LOC")]},
            422,
            "entity 1 (from 0) goes over the end of a line",
        ),
        (
            {"text": TEXT, "entities": [ENTITIES[0], entity("Merkel", "PER")]},
            422,
            "sentence 0 (from 0) has entities that overlap",
        ),
        ({"text": TEXT, "entities": [{"start": -1, "end": 3, "label": "PER"}]}, 422, "outside the text"),
        ({"text": TEXT, "entities": [{"start": 5, "end": 5, "label": "PER"}]}, 422, "outside the text"),
        ({"text": TEXT, "entities": [{"start": 0, "end": 10**30, "label": "PER"}]}, 422, ""),
        ({"text": "Kiel\nKiel", "entities": [{"start": 0, "end": 4, "label": "LOC"}]}, 422, "stands twice"),
    ],
)
def test_bad_corrections_are_refused_with_the_reason_and_nothing_is_written(service, path, content, status, told):
    answer = service.ask("/v1/annotations", content)

    assert answer.status == status
    assert told in answer.json["detail"] if isinstance(answer.json["detail"], str) else told in answer.told
    assert "Merkel" not in answer.told
    assert not path.exists()


def test_a_text_without_words_has_nothing_to_save(service, path):
    assert found(service, " \n\r\n\u200b")["sentences"] == []
    assert save(service, [], " \n").json["saved"] == 0
    assert not path.exists()


def test_without_the_option_nothing_is_saved_and_models_say_so(settings, service):  # noqa: F811
    with serving(replace(settings, models=settings.models[:1])) as other:
        answers = [save(other), other.ask("/v1/annotations/find", {"text": TEXT})]
        offered = other.ask("/v1/models").json["annotations"]

    assert [answer.status for answer in answers] == [404, 404]
    assert "start with xlner serve --annotations FILE.jsonl" in answers[0].told
    assert (offered, service.ask("/v1/models").json["annotations"]) == (False, True)


def test_a_full_disk_is_told_and_the_file_is_as_it_was(service, path, monkeypatch):
    save(service, [], "Eins .")
    written = path.read_bytes()

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "flush_all", full)
    answer = save(service, [], "Eins .\nZwei .")
    changed = save(service, [{"start": 0, "end": 4, "label": "PER"}], "Eins .")

    assert answer.status == 200  # a new sentence is appended, and an old one that is the same is left alone
    assert (changed.status, "No space left on device" in changed.told) == (507, True)
    assert path.read_bytes().startswith(written)
    monkeypatch.undo()
    assert save(service, [{"start": 0, "end": 4, "label": "PER"}], "Eins .").status == 200


def test_a_file_that_became_anything_else_is_told_without_its_text_and_left_alone(service, path):
    path.write_text('{"text": "geheim", "spans": 5}\n')

    for answer in (save(service), service.ask("/v1/annotations/find", {"text": TEXT})):
        assert answer.status == 500
        assert "cannot be read as annotations; xlner check-data tells where" in answer.told
        assert "geheim" not in answer.told
    assert path.read_text() == '{"text": "geheim", "spans": 5}\n'


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", None, "expected a name that ends in .jsonl or .ndjson"),
        ("file/a.jsonl", None, "cannot be written: "),
        ("folder.jsonl", None, "is no file"),
        ("a.jsonl", '{"words": ["a"], "spans": 1}\n', "a.jsonl:1: expected a list of spans"),
        ("a.jsonl", "word TAG\nand more\n", "a.jsonl:1: no JSON"),
        ("a.jsonl", b"\xff\xfe\n", "byte 0 is not of UTF-8"),
    ],
)
def test_where_corrections_cannot_be_saved_it_is_told_before_a_model_is_opened(tmp_path, name, content, told):
    (tmp_path / "file").touch()
    (tmp_path / "folder.jsonl").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises((RunError, CorpusError), match=told):
        run(ServeSettings(("no/model",), annotations=tmp_path / name), host="127.0.0.1", port=0)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_or_folder_without_the_right_to_write_is_told(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jsonl").touch(mode=0o444)
    with pytest.raises(RunError, match="Permission denied"):
        AnnotationFile(folder / "a.jsonl").check()
    folder.chmod(0o555)
    with pytest.raises(RunError, match="Permission denied"):
        AnnotationFile(folder / "b.jsonl").check()


def _save_many(path: Path, name: str) -> None:
    file = AnnotationFile(path)
    for number in range(20):
        for text in (f"{name} sah Nummer {number} .", f"Beide sahen Nummer {number} ."):
            lines = lines_of(text, "unicode")
            file.save(lines, [[Span("PER", 0, 1)]], ["PER"], None)


@pytest.mark.slow
def test_two_processes_that_save_at_once_lose_nothing(tmp_path):
    path = tmp_path / "annotations.jsonl"
    starter = multiprocessing.get_context("spawn")
    both = [starter.Process(target=_save_many, args=(path, name)) for name in ("Anna", "Boris")]

    for process in both:
        process.start()
    for process in both:
        process.join()

    sentences = [" ".join(sentence.words) for sentence in read_corpus(path)]
    assert sorted(sentences) == sorted(
        f"{names} Nummer {number} ." for names in ("Anna sah", "Boris sah", "Beide sahen") for number in range(20)
    )
    assert [name.name for name in tmp_path.iterdir()] == ["annotations.jsonl"]


@pytest.mark.slow
def test_a_model_is_measured_against_corrections(service, path, bert_folder):
    save(service)
    command = [sys.executable, "-m", "xlner", "evaluate", bert_folder, str(path)]

    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)

    assert f"{path} (3 sentences" in done.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("all ")] == ["4"]


def test_corrections_are_mixed_with_what_a_model_says(service, path, bert_folder, tmp_path):
    (tmp_path / "train.txt").write_text("Heute regnet es .\nGestern fuhr Angela Merkel nach Kiel .\n")
    text = "Gestern fuhr Angela Merkel nach Kiel ."
    save(service, [entity("Angela Merkel", "PER", text)], text)
    recipe = DistillRecipe(target="de", teacher=f"{bert_folder},{path}", soft_labels=str(tmp_path / "store"))

    mixed, alone = (
        taught_soft_labels(teachers_of(one), tmp_path / "train.txt", Accelerator(cpu=True), None).soft_labels
        for one in (recipe, replace(recipe, teacher=bert_folder))
    )

    # Of a sentence without a record the model speaks alone; of the other each has half of the say.
    np.testing.assert_allclose(mixed.probs(0).astype(float), alone.probs(0).astype(float), atol=0.002)
    tags = ["O", "O", "B-PER", "I-PER", "O", "O", "O"]
    wanted = np.asarray([[float(tag == name) for name in mixed.card.tags] for tag in tags])
    np.testing.assert_allclose(mixed.probs(1).astype(float), (alone.probs(1) + wanted) / 2, atol=0.002)


def test_what_another_process_saved_meanwhile_is_seen(tmp_path):
    one, other = AnnotationFile(tmp_path / "a.jsonl"), AnnotationFile(tmp_path / "a.jsonl")
    lines = lines_of("Anna lebt .", "unicode")
    _, version = one.said_of(lines)

    other.save(lines, [[Span("PER", 0, 1)]], ["PER"], version)

    (said,), newer = one.said_of(lines)
    assert [span.label for span in said.spans] == ["PER"]
    assert newer != version
    with pytest.raises(ChangedError):
        one.save(lines, [[]], ["PER"], version)
