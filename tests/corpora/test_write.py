import os
import re
import string
import tempfile
from pathlib import Path

import pytest
from corpus_samples import KIEL, RAIN, TWO_COLUMNS
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from xlner.cli import app, main
from xlner.corpora import write
from xlner.corpora.source import read_corpus
from xlner.corpora.spans import WRITING_SCHEMES
from xlner.corpora.write import WRITERS, write_corpus
from xlner.errors import CorpusError, RunError
from xlner.tags import to_iob2
from xlner.words import Sentence

ODD_CHARACTERS = "#-_ \u00a0\u2028\u0085\u200b\u0301\u3000\ufeff\x0b\x1c\U0001f1e9" + "abO0B1" + string.punctuation
ODD_WORDS = st.one_of(
    st.text(ODD_CHARACTERS, min_size=1, max_size=6),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\t\r\n"), min_size=1, max_size=6),
    st.sampled_from(["#", "# O", "1", "2", "1-2", "O", "_", "B-PER"]),
).filter(lambda word: not word.startswith("-DOCSTART-"))
TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
TAGGED = st.lists(st.tuples(ODD_WORDS, TAGS), min_size=1, max_size=5).map(
    lambda rows: Sentence(tuple(word for word, _ in rows), to_iob2([tag for _, tag in rows]))
)
UNTAGGED = st.lists(ODD_WORDS, min_size=1, max_size=5).map(lambda words: Sentence(tuple(words)))


@settings(max_examples=200)
@given(st.lists(UNTAGGED, max_size=2), TAGGED, st.lists(st.one_of(TAGGED, UNTAGGED), max_size=4))
def test_what_was_written_with_tags_is_read_back(before, first, others):
    sentences = [*before, first, *others]
    if sentences[0].words[0].startswith("\ufeff"):
        sentences[0] = RAIN

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.conll")
        write_corpus(sentences, path)

        assert list(read_corpus(path, columns="0,1")) == sentences
        assert list(read_corpus(path)) == sentences


@settings(max_examples=200)
@given(
    st.lists(
        # A file whose every other byte is zero is taken for UTF-16, and told.
        st.lists(ODD_WORDS.filter(lambda word: not {" ", "\x00"} & set(word)), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_words_that_were_written_alone_are_read_back(words):
    sentences = [Sentence(tuple(group)) for group in words]
    if words[0][0].startswith("\ufeff"):
        sentences = [Sentence(("x",)), *sentences]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.conll")
        write_corpus(sentences, path)

        assert list(read_corpus(path)) == sentences


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([RAIN, Sentence(("",), ("O",))], "sentence 2: the word '' is empty"),
        ([Sentence(("a\tb",), ("O",))], r"the word 'a\\tb' holds a TAB or a line end"),
        ([Sentence(("a\nb",), ("O",))], "holds a TAB or a line end"),
        ([Sentence(("a\rb",), ("O",))], "holds a TAB or a line end"),
        ([Sentence(("a b",))], "holds a space"),
        ([Sentence(("-DOCSTART-",), ("O",))], "start of a document"),
        ([Sentence(("\ud800",), ("O",))], "half a surrogate pair"),
        ([Sentence(("\ufeffa",), ("O",))], "byte order mark"),
        ([Sentence((), ())], "0 words and 0 tags"),
        ([Sentence(("a",), ())], "1 words and 0 tags"),
        ([Sentence(("a",)), Sentence(("b",)), RAIN], "sentence 3 has tags, unlike the 2 before; .* such as .jsonl"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, monkeypatch, sentences, message):
    monkeypatch.setattr(write, "N_AHEAD", 2)
    path = tmp_path / "x.conll"
    path.write_text("as it was")

    with pytest.raises(CorpusError, match=message):
        write_corpus(sentences, path)

    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_sentences_without_tags_before_those_with_some_are_written_as_unlabelled(tmp_path):
    sentences = [Sentence(("es", "regnet")), KIEL]

    write_corpus(iter(sentences), tmp_path / "x.conll")

    assert (tmp_path / "x.conll").read_text().startswith("es\t_\nregnet\t_\n\nAngela\tB-PER\n")
    assert list(read_corpus(tmp_path / "x.conll")) == sentences


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    def interrupted():
        yield KIEL
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_corpus(interrupted(), tmp_path / "x.conll")

    assert list(tmp_path.iterdir()) == []


def test_writing_through_a_link_keeps_the_link_and_where_no_file_can_be_is_refused(tmp_path):
    (tmp_path / "real.conll").touch()
    (tmp_path / "link.conll").symlink_to("real.conll")

    write_corpus([RAIN], tmp_path / "link.conll")

    assert (tmp_path / "link.conll").is_symlink()
    assert (tmp_path / "real.conll").read_text() == "Regen\tO\n\n"
    with pytest.raises(RunError, match="cannot be written"):
        write_corpus([RAIN], tmp_path / "real.conll" / "x.conll")


def test_a_corpus_can_be_rewritten_from_itself(tmp_path):
    path = tmp_path / "x.conll"
    path.write_text(TWO_COLUMNS.replace("\t", "  "))

    write_corpus(read_corpus(path), path)

    assert path.read_text() == TWO_COLUMNS + "\n"


# How a file of each format is called, and read where its name does not tell.
NAMES = {
    "conll": "x.conll",
    "conllu": "x.conllu",
    "conllup": "x.conllup",
    "jsonl": "x.jsonl",
    "spans": "spans.jsonl",
    "parquet": "x.parquet",
    "dataset": "folder",
    "docbin": "x.spacy",
    "text": "x.txt",
}
LABELLED = sorted(NAMES.keys() - {"text"})


def written_and_read(sentences, folder, format):
    path = Path(folder, NAMES[format])
    write_corpus(sentences, path, format=format)
    return read_corpus(path)


def is_plain(sentence):
    """Whether each format can hold the words: spaCy takes no white space for a word, files drop a first U+FEFF."""
    return not any(word.isspace() or word.startswith("\ufeff") for word in sentence.words)


def test_every_format_to_write_is_tested():
    assert NAMES.keys() == WRITERS.keys()


@pytest.mark.parametrize("first", LABELLED)
@pytest.mark.parametrize("second", LABELLED)
@settings(max_examples=8)
@given(
    st.lists(TAGGED.filter(is_plain), min_size=1, max_size=3),
    st.lists(st.one_of(TAGGED, UNTAGGED).filter(is_plain), max_size=3),
)
def test_sentences_go_from_any_format_through_any_other_and_come_back(first, second, begin, rest):
    sentences = [*begin, *rest]

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two, tempfile.TemporaryDirectory() as n:
        there = written_and_read(sentences, one, first)
        back = written_and_read(there, two, second)
        again = written_and_read(back, n, first)

        assert list(again) == sentences


@pytest.mark.parametrize("format", sorted(NAMES))
@settings(max_examples=15)
@given(
    st.lists(
        # A text whose lines end like tags, as in `x B-0`, is taken for columns, and told so.
        UNTAGGED.filter(
            lambda sentence: is_plain(sentence) and not any(" " in word or "-" in word for word in sentence.words)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_words_without_labels_come_back_from_every_format(format, sentences):
    with tempfile.TemporaryDirectory() as folder:
        assert list(written_and_read(sentences, folder, format)) == sentences


@pytest.mark.parametrize("scheme", sorted(WRITING_SCHEMES.keys() - {"plain"}))
@settings(max_examples=50)
@given(st.lists(TAGGED.filter(is_plain), min_size=1, max_size=4))
def test_tags_come_back_from_every_scheme(scheme, sentences):
    with tempfile.TemporaryDirectory() as folder:
        for name in ("x.jsonl", "x.conll"):
            write_corpus(sentences, Path(folder, name), scheme=scheme)

            assert list(read_corpus(Path(folder, name))) == sentences


def test_plain_types_come_back_where_no_two_entities_of_a_type_touch(tmp_path):
    write_corpus([KIEL, RAIN], tmp_path / "x.conll", scheme="plain")

    assert (tmp_path / "x.conll").read_text().startswith("Angela\tPER\nMerkel\tPER\nin\tO\nKiel\tLOC\n")
    assert list(read_corpus(tmp_path / "x.conll", scheme="plain")) == [KIEL, RAIN]


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("iob1", ["I-PER", "I-PER", "B-PER", "O", "I-LOC"]),
        ("bioes", ["B-PER", "E-PER", "S-PER", "O", "S-LOC"]),
        ("bilou", ["B-PER", "L-PER", "U-PER", "O", "U-LOC"]),
        ("plain", ["PER", "PER", "PER", "O", "LOC"]),
    ],
)
def test_each_scheme_writes_what_its_definition_says(tmp_path, scheme, tags):
    sentence = Sentence(tuple("abcde"), ("B-PER", "I-PER", "B-PER", "O", "B-LOC"))

    write_corpus([sentence], tmp_path / "x.conll", scheme=scheme)

    written = [line.split("\t")[1] for line in (tmp_path / "x.conll").read_text().splitlines() if line]
    assert written == tags


def test_convert_tells_what_it_wrote(tmp_path):
    (tmp_path / "x.conll").write_text(TWO_COLUMNS)

    result = CliRunner().invoke(app, ["convert", str(tmp_path / "x.conll"), str(tmp_path / "x.parquet")])

    assert result.exit_code == 0
    assert "x.parquet: 2 sentences, 5 words, 2 entities; fingerprint" in result.stdout
    assert list(read_corpus(tmp_path / "x.parquet")) == [KIEL, RAIN]


def test_convert_says_that_text_holds_no_labels(tmp_path):
    (tmp_path / "x.conll").write_text(TWO_COLUMNS)

    result = CliRunner().invoke(app, ["convert", str(tmp_path / "x.conll"), str(tmp_path / "x.txt")])

    assert "2 entities are left out" in result.stderr
    assert (tmp_path / "x.txt").read_text() == "Angela Merkel in Kiel\nRegen\n"


def test_a_broken_source_leaves_the_target_as_it_was(tmp_path):
    (tmp_path / "x.conll").write_text(TWO_COLUMNS + "\nKiel\tLOK_\tx\n")
    for name in ("y.conll", "y.parquet", "y.spacy"):
        (tmp_path / name).write_text("as it was")

        result = CliRunner().invoke(app, ["convert", str(tmp_path / "x.conll"), str(tmp_path / name)])

        assert result.exit_code != 0
        assert (tmp_path / name).read_text() == "as it was"
    assert sorted(os.listdir(tmp_path)) == ["x.conll", "y.conll", "y.parquet", "y.spacy"]


def test_a_folder_that_is_no_data_set_is_not_replaced(tmp_path):
    (tmp_path / "x.conll").write_text(TWO_COLUMNS)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").touch()

    result = CliRunner().invoke(app, ["convert", str(tmp_path / "x.conll"), str(tmp_path / "thesis")])

    assert "holds other things than a data set" in str(result.exception)
    assert sorted(os.listdir(tmp_path)) == ["thesis", "x.conll"]


@pytest.mark.parametrize("name", ["uner/pt_bosque/pt_bosque-ud-test.iob2", "wikineural/ru/test.conllu"])
@pytest.mark.parametrize("format", ["conllu", "conllup", "jsonl", "spans", "parquet", "dataset", "docbin"])
def test_real_corpora_come_back_from_every_format(shared, tmp_path, name, format):
    sentences = [
        sentence
        for _, sentence in zip(range(500), read_corpus(shared / "data" / name), strict=False)
        if is_plain(sentence)
    ]

    assert list(written_and_read(sentences, tmp_path, format)) == sentences


@pytest.mark.parametrize(
    ("name", "content", "command"),
    [
        ("x.conll", "Köln\tB-LOC\n".encode("latin-1"), "convert"),
        ("x.conll", "Köln\tB-LOC\n".encode("latin-1"), "check-data"),
        ("x.csv", "sentence;word;tag\n1;Köln;B-LOC\n".encode("latin-1"), "convert"),
        ("x.conll", "Köln\tB-LOC\n".encode("utf-16"), "convert"),
        ("x.conll", b"Kiel\tB-LOC\n".decode().encode("utf-16-be"), "check-data"),
        ("x.conll", b"Anna\tPerson\nlebt\tO\n", "convert"),
        ("x.conll", b"Anna\tPerson\nlebt\tO\n", "check-data"),
        ("x.jsonl", b'{"tokens": ["Anna", "lebt"], "ner_tags": [1, 0]}\n', "convert"),
        ("x.jsonl", b'{"tokens": ["Anna", "lebt"], "ner_tags": [1, 0]}\n', "check-data"),
        ("x.jsonl", b'{"tokens": ["Anna", "lebt"], "mine": ["B-PER", "O"]}\n', "convert"),
        ("x.jsonl", b'{"tokens": ["Anna", "lebt"], "mine": ["B-PER", "O"]}\n', "check-data"),
        ("x.conllu", b"1\tAnna\t_\t_\t_\t_\t_\t_\t_\tEnt=B-PER\n", "convert"),
        ("x.csv", b"word,mine\nAnna,B-PER\nlebt,O\n", "check-data"),
        ("x.txt", b"Anna\tB-PER\nlebt\tO\n\n", "convert"),
        ("x.txt", b"Anna\tB-PER\nlebt\tO\n\n", "check-data"),
        ("x.conll", b"Anna,B-PER\nlebt,O\n\n", "convert"),
        ("x.any", b"Anna\tB-PER\nlebt\tO\n\n", "check-data"),
    ],
)
def test_advice_names_an_option_of_the_command_and_following_it_works(
    tmp_path, monkeypatch, capsys, name, content, command
):
    (tmp_path / name).write_bytes(content)

    def run(*options):
        target = [str(tmp_path / "out.conll")] if command == "convert" else []
        monkeypatch.setattr("sys.argv", ["xlner", command, str(tmp_path / name), *target, *options])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        return status or 0, said.out + said.err

    status, told = run()
    advice = re.search(r"(--[a-z]+) (?:to one of )?([\w:,.-]+)", told)
    value = advice.group(2).replace("B-TYPE,I-TYPE,...", "B-PER").rstrip(",")

    assert status != 0
    assert "corpus." not in told.replace(str(tmp_path), "")
    assert run(advice.group(1), value)[0] == 0


def test_a_corpus_is_not_converted_over_itself(xlner, tmp_path):
    (tmp_path / "x.conll").write_text("Anna\tNNP\tB-PER\n\n", encoding="utf-8")
    (tmp_path / "link.conll").symlink_to(tmp_path / "x.conll")

    for target in ("x.conll", "link.conll"):
        status, _, err = xlner("convert", tmp_path / "x.conll", tmp_path / target)
        assert (status, f"{target}: this is the input" in err) == (2, True)

    assert (tmp_path / "x.conll").read_text(encoding="utf-8") == "Anna\tNNP\tB-PER\n\n"
