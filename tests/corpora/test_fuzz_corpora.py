"""Corpora that are damaged in any way are read, or refused by name; never is there another exception."""

import json
import zlib
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_json, fuzzing

from xlner.corpora.lines import refuse
from xlner.corpora.source import read_corpus
from xlner.corpora.write import write_corpus
from xlner.errors import XlnerError
from xlner.tag_files.records import INPUT_FORMATS, InputOptions, check_input, read_records
from xlner.words import WORD_SPLITTERS, Sentence

SENTENCES = [
    Sentence(("Angela", "Merkel", "in", "Kiel"), ("B-PER", "I-PER", "O", "B-LOC")),
    Sentence(("Regen", "京", "z.B."), ("O", "B-LOC", "O")),
    Sentence(("#", "-", "don't"), ("O", "O", "O")),
]
# How each format is written, and the name that a file of it has.
FILES = {
    "conll": "a.conll",
    "conllu": "a.conllu",
    "conllup": "a.conllup",
    "jsonl": "a.jsonl",
    "spans": "b.jsonl",
    "text": "a.txt",
    "csv": "a.csv",
    "json": "a.json",
    "table": "b.tsv",
    "texts": "b.csv",
    "docbin": "a.spacy",
    "parquet": "a.parquet",
}
# Formats that are read and not written.
FOREIGN = {
    "csv": b'Sentence #,Word,POS,Tag\r\nSentence: 1,Anna,NN,B-PER\r\n,",",NN,O\r\nSentence: 2,Kiel,NN,B-LOC\r\n',
    "json": json.dumps(
        [
            {"id": 1, "data": {"text": "Kiel"}, "annotations": [{"result": [{"value": {"start": 0}}]}]},
            ["Kiel", {"entities": [[0, 4, "LOC"]]}],
            {"text": "Kiel", "label": [{"start": 0, "end": 4, "text": "Kiel", "labels": ["LOC"]}]},
            {"text": "Anna lebt", "words": ["Anna", "lebt"], "ner": [[0, 4, "PER"]]},
            {"tokenized_text": ["Anna", "lebt"], "ner": [[0, 0, "PER"]]},
        ]
    ).encode(),
    "table": b"0\tAnna\tB-PER\n0\tlebt\tO\n1\tKiel\tB-LOC\n1\t.\tO\n",
    "texts": b'id;text;labels\n1;"Anna lebt";B-PER O\n2;Kiel;B-LOC\n',
}
BRAT_TEXT, BRAT_MARKS = "Angela Merkel in Kiel .\nRegen .\n", "T1\tPER 0 13\tAngela Merkel\nT2\tLOC 17 21\tKiel\n"
COLUMNS = st.sampled_from(
    ["auto", "0", "0,1", "0,-1", "1,0", "-1,5", "FORM,NER", "FORM", "", "a,b,c", "9,9", "FORM,MISC:NER"]
)
SCHEMES = st.sampled_from(["auto", "strict", "plain"])
ENCODINGS = st.sampled_from(["utf-8", "latin-1", "utf-16", "ascii", "cp1252", "utf-7"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The bytes of each format, as xlner writes them."""
    place = tmp_path_factory.mktemp("written")
    found = dict(FOREIGN)
    for format, name in FILES.items():
        if format in FOREIGN:
            continue
        write_corpus(iter(SENTENCES), place / name, format=format)
        found[format] = (place / name).read_bytes()
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@contextmanager
def refused_by_name(name):
    """Lets errors of xlner pass if they name the file; others, and those that name nothing, fail the test."""
    message = ""
    with suppress(XlnerError):
        try:
            yield
        except XlnerError as problem:
            message = str(problem)
            raise
    # An option that cannot be meant, whatever the file, names itself.
    assert not message or name in message or "corpus." in message, message


def read_or_refuse(name, path, **options):
    """Read a corpus to its end. Whatever is refused is refused by the file's name."""
    with refused_by_name(name):
        for words, tags in read_corpus(path, **options):
            assert words
            assert all(isinstance(word, str) and word for word in words)
            assert tags is None or len(tags) == len(words)


@pytest.mark.parametrize("format", sorted(FILES))
@fuzzing
@given(st.data())
def test_a_damaged_file_is_read_or_refused_by_name(written, place, format, data):
    path = place / FILES[format]
    path.write_bytes(data.draw(damaged_bytes(written[format])))
    splitter = WORD_SPLITTERS[data.draw(st.sampled_from(sorted(WORD_SPLITTERS)))]

    read_or_refuse(
        path.name,
        path,
        columns=data.draw(COLUMNS),
        scheme=data.draw(SCHEMES),
        encoding=data.draw(ENCODINGS) if data.draw(st.booleans()) else "utf-8",
        split_text=splitter,
    )


@pytest.mark.parametrize("format", ["jsonl", "spans", "json"])
@fuzzing
@given(st.data())
def test_records_with_values_of_any_kind_are_read_or_refused_by_name(written, place, format, data):
    path = place / FILES[format]
    text = written[format].decode()
    whole = json.loads(text) if format == "json" else [json.loads(line) for line in text.splitlines()]
    records = [data.draw(damaged_json(record)) for record in whole]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))

    read_or_refuse(path.name, path, scheme=data.draw(SCHEMES), split_text=WORD_SPLITTERS["unicode"])


@fuzzing
@given(st.data())
def test_a_docbin_that_is_damaged_beneath_its_compression_is_read_or_refused_by_name(written, place, data):
    path = place / FILES["docbin"]
    path.write_bytes(zlib.compress(data.draw(damaged_bytes(zlib.decompress(written["docbin"])))))

    read_or_refuse(path.name, path)


@fuzzing
@given(st.data())
def test_damaged_files_of_brat_are_read_or_refused_by_name(place, data):
    folder = place / "brat"
    folder.mkdir(exist_ok=True)
    text, marks = BRAT_TEXT.encode(), BRAT_MARKS.encode()
    (folder / "one.txt").write_bytes(data.draw(damaged_bytes(text)) if data.draw(st.booleans()) else text)
    (folder / "one.ann").write_bytes(data.draw(damaged_bytes(marks)))

    read_or_refuse("brat", folder, format="brat", split_text=WORD_SPLITTERS["unicode"])


@fuzzing
@given(st.data())
def test_a_damaged_data_set_is_read_or_refused_by_name(place, data):
    folder = place / "set"
    if not folder.exists():
        write_corpus(iter(SENTENCES), folder, format="dataset")
    path = data.draw(st.sampled_from(sorted(path for path in folder.iterdir() if path.is_file())))
    whole = path.read_bytes()
    try:
        path.write_bytes(data.draw(damaged_bytes(whole)))
        read_or_refuse("set", folder)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("format", sorted(INPUT_FORMATS))
@fuzzing
@given(st.data())
def test_a_damaged_input_of_the_tagger_is_read_or_refused_by_name(written, place, format, data):
    path = place / f"input-{FILES[format]}"
    path.write_bytes(data.draw(damaged_bytes(written[format])))

    with refused_by_name(path.name):
        if format == "parquet":
            check_input(str(path), format)
        for record in read_records(str(path), format, InputOptions(refuse, columns=data.draw(COLUMNS))):
            assert (record.text is not None) or record.words


def test_a_header_of_more_columns_than_the_rows_have_is_told(tmp_path):
    path = tmp_path / "a.conllup"
    path.write_text("# global.columns = ID LEMMA POS FORM NER\n1\tKiel\tB-LOC\n\n")

    with pytest.raises(XlnerError, match=r"a\.conllup: its header names 5 columns .* its rows have 3"):
        list(read_corpus(path, columns="FORM,NER"))


def test_damage_that_a_table_tells_only_when_it_is_read_is_told_with_the_file(written, tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"\n" + written["parquet"])

    with pytest.raises(XlnerError, match=r"a\.parquet: is damaged: "):
        list(read_corpus(path))
    with pytest.raises(XlnerError, match=r"a\.parquet: is damaged: "):
        list(read_records(str(path), "parquet", InputOptions(refuse)))


@pytest.mark.parametrize("key", ["_fingerprint", "_format_type", "_data_files"])
def test_a_data_set_whose_state_lacks_a_key_is_told_with_the_folder(tmp_path, key):
    folder = tmp_path / "set"
    write_corpus(iter(SENTENCES), folder, format="dataset")
    state = json.loads((folder / "state.json").read_text())
    del state[key]
    (folder / "state.json").write_text(json.dumps(state))

    with pytest.raises(XlnerError, match=r"set: no data set that `save_to_disk` made"):
        list(read_corpus(folder))


def test_a_docbin_with_an_unknown_entity_mark_is_told_with_the_file(tmp_path):
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'xlner[spacy]'")
    doc = spacy.tokens.Doc(spacy.blank("xx").vocab, words=["Kiel"], ents=["B-LOC"])
    store = spacy.tokens.DocBin(docs=[doc])
    store.tokens[0][:, store.attrs.index(spacy.attrs.ENT_IOB)] = 10
    store.to_disk(tmp_path / "a.spacy")

    with pytest.raises(XlnerError, match=r"a\.spacy: is damaged: .*ent_iob"):
        list(read_corpus(tmp_path / "a.spacy"))
