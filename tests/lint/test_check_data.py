import json
import re
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from corpus_samples import TWO_COLUMNS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tagger import with_tags

from xlner.cli import main
from xlner.corpora import conll, lines
from xlner.corpora.lines import CODES, ERROR
from xlner.corpora.source import read_corpus
from xlner.corpora.spans import ReadingOptions
from xlner.lint.check import check_corpus
from xlner.lint.repair import visible_parts, word_problems

LONG = "Angela\tB-PER\nkommt\tO\nnach\tO\nKiel\tB-LOC\n\n"
TEXT_SPAN = '{"text": "Kiel am Meer", "spans": [[%s, %s, "LOC"]]}\n'

# Each code, with the name and content of a corpus that has that problem.
SAMPLES = {
    "XL001": ("x.conll", b"Kiel\tB-LOC\nK\xf6ln\tB-LOC\n"),
    "XL004": ("x.conll", "\n"),
    "XL010": ("x.conll", "Kiel\tB-LOC\n\nBonn\tB-LOC\tO\n"),
    "XL011": ("x.conll", "# x\n\na\tO\n# y\n\tO\n"),
    "XL012": ("x.conll", "Kiel\tB_LOC\n"),
    "XL013": ("x.conll", "Kiel\tI-LOC\n\nBonn\tB-LOC\n"),
    "XL014": ("x.conll", "a\tO\nKiel\t_\n"),
    "XL015": ("x.conll", "1-2\tim\tB-LOC\n1\tin\tO\n2\tdem\tO\n"),
    "XL016": ("x.jsonl", '{"words": ["Kiel"], "tags": []}\n'),
    "XL017": ("x.conll", "Kiel\tI-LOC\nund\tO\nBonn\tI-LOC\nund\tO\nRom\tB-LOC\n"),
    "XL020": ("x.jsonl", "Kiel\n"),
    "XL021": ("x.jsonl", '{"title": "Kiel"}\n'),
    "XL022": ("x.jsonl", TEXT_SPAN % (0, 99)),
    "XL023": ("x.jsonl", '{"text": "Kiel am Meer", "spans": [[0, 12, "LOC"], [0, 4, "LOC"]]}\n'),
    "XL024": ("x.jsonl", TEXT_SPAN % (0, 3)),
    "XL025": ("x.ann", "T1\tLOC 0 99 100\tKiel\n"),
    "XL026": ("x.jsonl", '{"words": ["\\ud800"]}\n'),
    "XL030": ("x.conll", "a\tO\n\u200b\tO\n"),
    "XL031": ("x.conll", "a\tO\n\ufeffb\tO\n"),
    "XL032": ("x.conll", "a\tO\n34 470\tO\n"),
    "XL033": ("x.conll", "a\tO\n毒\u200b物\tO\n"),
    "XL034": ("x.conll", "K\ufffdln\tB-LOC\n"),
    "XL035": ("x.conll", "KÃ¶ln\tB-LOC\n"),
    "XL036": ("x.conll", "deliverу\tO\n"),
    "XL040": ("x.conll", LONG * 2),
    "XL041": ("x.conll", LONG + LONG.replace("B-PER", "B-ORG")),
    "XL043": ("x.conll", LONG),
    "XL044": ("x.conll", "Anna\tB-PER\nOtto\tB-Person\n"),
    "XL045": ("x.conll", LONG + "ohne\t_\n\n"),
    "XL046": ("x.conll", "1\tO\n2\tO\n"),
    "XL047": ("x.conll", "Regen\tO\n" * 30),
    "XL048": ("x.conll", "".join(f"Kiel{number}\tB-LOC\n\n" for number in range(10))),
    "XL050": ("x.conll", "a\tO\n\u200b\tO\n"),
    "XL051": ("x.conll", "ж\tO\n"),
    "XL052": ("x.conll", "a\tO\n" * 70),
    "XL053": ("x.conll", "p53\tB-GENE\n"),
    "XL054": ("x.conll", "Kiel\tB-LOC\n"),
}
# Problems that end the reading at once, and the overlap of two files, have tests of their own.
ALONE = {"XL002", "XL003", "XL005", "XL042"}


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if path.suffix == ".ann":
        path.with_suffix(".txt").write_text("Kiel am Meer\n")
    return path


def codes_of(path, **options):
    return check_corpus(str(path), "auto", ReadingOptions(**options)).findings.counts


@pytest.mark.parametrize("code", sorted(SAMPLES))
def test_each_problem_is_told_with_its_code_and_place(xlner, tmp_path, bert_folder, code):
    path = write(tmp_path, *SAMPLES[code])

    status, out, _ = xlner("check-data", path, "--model", bert_folder, "--json")

    content = json.loads(out)
    found = content["files"][0]["problems"][code]
    assert status == int(content["errors"] > 0)
    assert found["count"] >= 1
    assert found["severity"] != ERROR or status == 1
    assert found["first"][0]["place"].startswith(str(tmp_path))


def test_each_code_has_a_sample():
    assert SAMPLES.keys() | ALONE == CODES.keys()


def test_each_code_has_a_section_in_the_documentation_and_no_other():
    sections = re.findall(r"^## (XL\d{3}): (.*)$", (REPOSITORY / "docs/errors.md").read_text("utf-8"), re.MULTILINE)

    assert dict(sections) == {code: meaning.title for code, meaning in CODES.items()}


@pytest.mark.parametrize(("limit", "code"), [("LONGEST_LINE", "XL002"), ("LONGEST_SENTENCE", "XL003")])
def test_a_file_that_would_fill_the_memory_ends_with_status_2(xlner, tmp_path, monkeypatch, limit, code):
    monkeypatch.setattr(lines, "CHUNK_SIZE", 10)
    monkeypatch.setattr(lines if code == "XL002" else conll, limit, 100)
    path = write(tmp_path, "x.conll", "x" * 500 if code == "XL002" else "x\tO\n" * 500)

    status, _, err = xlner("check-data", path)

    assert status == 2
    assert f"[{code}]" in err


def test_sentences_that_two_files_share_are_told_with_both_places(xlner, tmp_path):
    train, test = write(tmp_path, "train.conll", LONG), write(tmp_path, "test.conll", "Regen\tO\n\n" + LONG)

    status, out, _ = xlner("check-data", train, test)

    assert status == 0
    assert f"{test}:3: stands at {train}:1 too: 'Angela kommt nach Kiel' [XL042]" in out
    assert f"1 sentence of {test} also in {train}" in out


def test_a_corpus_without_problems_has_status_0_and_says_what_it_is_made_of(xlner, tmp_path):
    path = write(
        tmp_path, "x.conll", "".join(f"Anna{i}\tB-PER\nLenz\tI-PER\nin\tO\nKiel\tB-LOC\n\n" for i in range(50))
    )

    status, out, err = xlner("check-data", path, "--strict")

    assert (status, err) == (0, "")
    assert "sentences 50, words 200, without labels 0" in out
    assert "words a sentence: mean 4.0, median 4, 95% up to 4, longest 4" in out
    assert re.search(r"PER +50 +50.0% +50\n +LOC +50 +50.0% +1\n", out)
    assert out.endswith("0 errors, 0 warnings\n")


def test_warnings_count_only_if_asked(xlner, tmp_path):
    path = write(tmp_path, "x.conll", LONG)

    assert xlner("check-data", path)[0] == 0
    assert xlner("check-data", path, "--strict")[0] == 1


def test_counts_are_exact_and_places_listed_up_to_the_limit(xlner, tmp_path):
    path = write(tmp_path, "x.conll", "Kiel\tB_LOC\n\n" * 30)

    status, out, _ = xlner("check-data", path, "--limit", 2)

    assert status == 1
    assert "error XL012: an unknown tag: 30\n" in out
    assert out.count("did you mean B-LOC? [XL012]") == 2
    assert "... and 28 more" in out


@pytest.mark.parametrize(
    ("tags", "is_broken"),
    [
        ("I-PER I-PER O I-LOC", False),
        ("I-PER B-PER O I-LOC", False),
        ("I-PER I-LOC O I-LOC", False),
        ("B-PER I-PER O I-LOC", True),
        ("I-PER I-PER O B-LOC", True),
        ("B-PER B-PER O B-LOC", False),
    ],
)
def test_iob1_is_told_from_broken_sequences(tmp_path, tags, is_broken):
    path = write(tmp_path, "x.conll", "".join(f"w\t{tag}\n" for tag in tags.split()))

    assert ("XL013" in codes_of(path)) == is_broken


def test_a_stray_b_makes_a_file_of_iob1_no_broken_one(xlner, tmp_path):
    sound = "Kiel\tI-LOC\nund\tO\nBonn\tI-LOC\nAnna\tI-PER\nEva\tB-PER\n\n" * 200
    path = write(tmp_path, "x.conll", "-DOCSTART- O\n\n" + sound + "Rom\tB-LOC\n\n" + sound)

    status, out, _ = xlner("check-data", path)

    assert status == 0
    assert "tags: IOB1, but for 1 of 1,601 entities, which begin with B-" in out
    assert "XL013" not in out
    assert f"{path}:1203: B-LOC where no entity of its type ends; expected I-LOC" in out
    assert "a B- in a file of IOB1: 1\n" in out


def test_a_stray_i_leaves_a_file_of_iob2_what_it_is(xlner, tmp_path):
    path = write(tmp_path, "x.conll", "Kiel\tB-LOC\nund\tO\nBonn\tB-LOC\n\n" * 50 + "Rom\tI-LOC\n")

    _, out, _ = xlner("check-data", path)

    assert "tags: broken: 1 of 101 entities begin with I-, the others with B-" in out
    assert f"{path}:201: I-LOC continues no entity (it follows nothing); expected B-LOC" in out


def test_numbers_in_the_place_of_words_are_told(xlner, tmp_path):
    path = write(tmp_path, "x.conll", "1\tAnna\tB-PER\n2\tlebt\tO\n3\t.\tO\n\n" * 9)

    _, out, _ = xlner("check-data", path, "--columns", "0,2")

    assert "no word has a letter; 27 of 27 are numbers" in out
    assert "then set --columns WORD,TAG [XL046]" in out


def test_lost_blank_lines_are_told(xlner, tmp_path):
    short = "Anna\tB-PER\nlebt\tO\nin\tO\nKiel\tB-LOC\n.\tO\n"
    one, some = write(tmp_path, "one.conll", short * 40), write(tmp_path, "some.conll", (short + "\n") * 9 + short * 13)

    assert "one.conll: all 200 words are one sentence" in xlner("check-data", one)[1]
    assert "some.conll:55: 65 words and 12 full stops inside" in xlner("check-data", some)[1]


def test_types_and_words_that_look_equal_are_told(tmp_path):
    path = write(tmp_path, "x.conll", "Anna\tB-PER\nEva\tB-\u0420\u0415R\nKiel\u200e\tO\n\u3164Bonn\tO\nin\u00a0\tO\n")

    found = codes_of(path)

    assert (found["XL044"], found["XL033"], found["XL032"]) == (1, 2, 1)
    assert visible_parts("Kiel\u200e") == visible_parts("\u3164Kiel") == visible_parts("Kiel\u00a0") == ["Kiel"]


def test_a_file_whose_sentences_are_all_refused_is_not_called_empty(xlner, tmp_path):
    path = write(tmp_path, "x.conll", "Anna\tPerson\nlebt\tO\n")

    status, out, _ = xlner("check-data", path)

    assert status == 1
    assert "types without prefixes are read by --scheme plain" in out
    assert "no sentence in it" not in out


def test_a_small_o_is_taken_for_what_it_means(xlner, tmp_path):
    path = write(tmp_path, "x.conll", "Anna\tb-per\nlebt\to\n\nRegen\t\u041e\n")

    _, out, _ = xlner("check-data", path, "--fix", tmp_path / "fixed.conll")

    assert "found tag 'o'; expected O, B-TYPE or I-TYPE; did you mean O?" in out
    assert (tmp_path / "fixed.conll").read_text() == "Anna\tB-per\nlebt\tO\n\nRegen\tO\n\n"


def test_a_file_with_very_many_types_is_reported_in_time(xlner, tmp_path):
    path = write(tmp_path, "x.conll", "".join(f"Kiel\tB-T{number}\n\n" for number in range(20_000)))

    start = time.process_time()
    xlner("check-data", path, "--json")

    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "word",
    [
        *(
            "34\u00a0470",
            "DVDшник",
            "μm",
            "βHCG",
            "EBPα",
            "IT-компания",
            "می\u200cخواهم",
            "👩\u200d💻",
            "CAFÉ»",
            "NAÇÃ»",
        ),
        *("Straße", "東京タワー", "Ἀθῆναι", "São", "Ångström", "O'Brien", "$1,000", "à", "e\u0301", "❤️", "Đà"),
    ],
)
def test_legitimate_words_are_left_alone(word):
    assert word_problems(word) == ()
    assert visible_parts(word) == [word]


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("34 470", ["34", "470"]),
        ("\ufeffKiel", ["Kiel"]),
        ("毒\u200b\u200b物", ["毒物"]),
        ("\u200b", []),
        ("\u00a0 \u3000", []),
        ("a\tb\n", ["a", "b"]),
        ("drama\xadtyczne", ["dramatyczne"]),
        ("policÃ\xada", ["policÃ\xada"]),
    ],
)
def test_words_are_cleaned_of_what_nobody_can_see(word, parts):
    assert visible_parts(word) == parts


def test_a_repaired_copy_counts_each_repair_and_keeps_entities(xlner, tmp_path):
    path = write(
        tmp_path,
        "x.conll",
        "\u200b\tB-PER\nAnna\tI-PER\n\ufeffLenz\tI-PER\n\u200b\tO\n34 470\tB-MISC\n\nKiel\tI-LOC\n\n\u200b\tO\n\nx\n",
    )

    status, out, _ = xlner("check-data", path, "--fix", tmp_path / "fixed.conll")

    assert status == 1
    assert (tmp_path / "fixed.conll").read_text() == (
        "Anna\tB-PER\nLenz\tI-PER\n34\tB-MISC\n470\tI-MISC\n\nKiel\tB-LOC\n\n"
    )
    for line in (
        "1 x XL010 a row with another number of columns: the sentence is left out",
        "1 x XL013 a tag that continues no entity: the tag is mended",
        "3 x XL030 a word that nobody can see: the word is taken out",
        "1 x XL030 a word that nobody can see: the sentence is left out: no word of it can be seen",
        "1 x XL031 a word that begins with a byte order mark: the byte order mark is taken out",
        "1 x XL032 white space inside a word: cut into words at the white space",
    ):
        assert line in out
    assert "2 sentences of 3 that could be read" in out
    assert xlner("check-data", tmp_path / "fixed.conll")[0] == 0


def test_duplicates_are_left_out_only_if_asked(xlner, tmp_path):
    path = write(tmp_path, "x.conll", "Ja\tO\n\n" * 2 + LONG * 3 + LONG.replace("B-PER", "O"))

    xlner("check-data", path, "--fix", tmp_path / "all.conll")
    _, out, _ = xlner("check-data", path, "--fix", tmp_path / "few.conll", "--fix-duplicates")

    assert len(list(read_corpus(tmp_path / "all.conll"))) == 6
    assert len(list(read_corpus(tmp_path / "few.conll"))) == 4
    assert "2 x XL040 a sentence that stands twice in a file: the second sentence is left out" in out


def test_sentences_without_labels_go_behind_the_first_with_labels(xlner, tmp_path):
    path = write(tmp_path, "x.jsonl", '{"words": ["Regen"]}\n{"words": ["Kiel"], "tags": ["B-LOC"]}\n')

    status, out, _ = xlner("check-data", path, "--fix", tmp_path / "x.conll")

    assert status == 0
    assert (tmp_path / "x.conll").read_text() == "Kiel\tB-LOC\n\nRegen\t_\n\n"
    assert "1 x XL045 sentences without labels beside sentences with labels: moved to the end" in out


def test_several_files_are_repaired_into_a_folder(xlner, tmp_path):
    paths = [write(tmp_path, "a.iob2", TWO_COLUMNS), write(tmp_path, "b.txt", "Ein Satz.\n")]

    status, _, _ = xlner("check-data", *paths, "--fix", tmp_path / "fixed")

    assert status == 0
    assert list(read_corpus(tmp_path / "fixed/a.conll")) == list(read_corpus(paths[0]))
    assert (tmp_path / "fixed/b.conll").read_text() == "Ein\nSatz\n.\n\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.conll", "--fix", "x.conll"], "this is .*x.conll itself"),
        (["x.conll", "other/x.iob2", "--fix", "fixed"], "several files would be named"),
        (["empty.conll", "--fix", "new.conll"], "not written, for no sentence is left"),
        (["nope.conll"], "no corpus at"),
        (["x.conll", "--fix-duplicates"], "--fix-duplicates needs --fix"),
        (
            ["x.conll", "--fix", "y.jsonl"],
            r"--fix y\.jsonl: the copy is CoNLL, and this name says jsonl; name it \.conll",
        ),
        (["x.conll", "--model", "runs/nope"], "runs/nope: no such folder"),
    ],
)
def test_what_cannot_be_done_ends_with_status_2_and_leaves_nothing(xlner, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for name in ("x.conll", "other/x.iob2"):
        write(tmp_path, name, LONG)
    write(tmp_path, "empty.conll", "\n")
    before = sorted(tmp_path.rglob("*"))

    status, _, err = xlner("check-data", *arguments)

    assert status == 2
    assert re.search(message, err)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tag_that_would_break_columns_is_told(xlner, tmp_path):
    path = write(tmp_path, "tag.jsonl", '{"text": "Kiel", "spans": [[0, 4, "L\\tOC"]]}\n')

    status, out, err = xlner("check-data", path)

    assert status == 1
    assert "expected no control characters, TABs or line ends" in out + err


def test_a_cut_loses_words_and_entities_that_windows_keep(xlner, tmp_path, bert_folder):
    path = write(tmp_path, "x.conll", "a\tO\n" * 200 + "Kiel\tB-LOC\n")

    _, out, _ = xlner("check-data", path, "--encoder", bert_folder, "--json")

    pieces = json.loads(out)["files"][0]["pieces"]
    assert pieces["window"] == 64
    assert pieces["lost_words"] == {"128": 201 - 126, "256": 0, "512": 0}
    assert pieces["lost_entities"] == {"128": 1, "256": 0, "512": 0}


ROWS = st.lists(
    st.sampled_from(["Kiel\tB-LOC", "Anna\tI-PER", "\u200b\tB-LOC", "\u200b\tO", "a b\tI-X", "x\t_", "x", "\ufeffy\tO"])
    | st.sampled_from(["", "", "\tO", "# c", "1\tO", "\x85\tO", "-DOCSTART- O", "a\tb\tc", "K\udcf6ln\tO", "z\tB_Y"]),
    max_size=12,
).map(lambda rows: "\n".join(rows).encode("utf-8", "surrogateescape"))
RECORDS = st.lists(
    st.sampled_from(['{"words": ["a\\tb", "-DOCSTART-x"]}', '{"words": ["\\ufeff", "b"], "tags": ["B-X", "I-X"]}'])
    | st.sampled_from(['{"words": ["c"]}', '{"text": "Kiel am\\u2028Meer", "spans": [[0, 3, "L"], [2, 9, " "]]}', "x"])
    | st.sampled_from(['{"words": ["a\\nb"], "tags": ["B-X"]}', '{"words": ["\\ud800"], "tags": ["X"]}']),
    max_size=5,
).map(lambda records: "\n".join(records).encode())


@settings(max_examples=100)
@given(
    st.one_of(ROWS, RECORDS, st.binary(max_size=60), st.text(max_size=60).map(str.encode)),
    st.sampled_from(["conll", "jsonl", "text"]),
)
def test_whatever_a_file_holds_its_repaired_copy_reads_strictly_or_is_refused(content, format):
    with tempfile.TemporaryDirectory() as folder:
        source, copy = write(Path(folder), "x.any", content), Path(folder, "copy.conll")

        arguments = ["check-data", str(source), "--format", format, "--fix", str(copy)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["xlner", *arguments])
            with pytest.raises(SystemExit) as end:
                main()

        assert end.value.code in (0, 1, 2)
        assert copy.exists() == (end.value.code != 2)
        if copy.exists():
            list(read_corpus(copy, scheme="strict"))
            assert not check_corpus(str(copy), "auto", ReadingOptions()).findings.total(ERROR)


# The tags of a tagger of LOC, ORG and PER in other schemes, and one without `O`, which is none.
TAGS_OF_MODELS = {
    "BIOES": ("O", *(f"{prefix}-{name}" for name in ("LOC", "ORG", "PER") for prefix in "BIES")),
    "BILOU": ("O", *(f"{prefix}-{name}" for name in ("LOC", "ORG", "PER") for prefix in "BILU")),
    "plain": ("O", "LOC", "ORG", "PER"),
}


@pytest.mark.parametrize("scheme", sorted(TAGS_OF_MODELS))
def test_the_types_of_a_tagger_of_any_scheme_are_compared(xlner, tmp_path, bert_folder, scheme):
    folder = with_tags(bert_folder, tmp_path / scheme, TAGS_OF_MODELS[scheme])
    path = write(tmp_path, "x.conll", "Kiel\tB-LOC\nist\tO\nein\tO\nFilm\tB-FILM\n")

    status, out, err = xlner("check-data", path, "--model", folder)

    assert (status, err) == (0, "")
    assert "the model does not know FILM (1 entities); it knows LOC, ORG, PER" in out


def test_a_tagger_without_the_tag_o_is_told_in_a_line(xlner, tmp_path, bert_folder):
    folder = with_tags(bert_folder, tmp_path / "none", ["LOC", "ORG"])

    status, out, err = xlner("check-data", write(tmp_path, "x.conll", "Kiel\tB-LOC\n"), "--model", folder)

    assert (status, out) == (2, "")
    assert err.splitlines() == [f"{folder}: config.json: a tagger needs the tag O; found LOC, ORG"]
