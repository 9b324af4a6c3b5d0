import json
from itertools import islice

import pytest

from xlner.config.schema import CorpusRecipe
from xlner.corpora.source import read_corpus
from xlner.corpora.splits import (
    CONLL_TYPES,
    PUBLISHED_COUNTS,
    CorpusFingerprint,
    CorpusSummary,
    fingerprint,
    known_splits,
    name_split,
    name_text,
    read_labelled,
    summarize,
)
from xlner.corpora.write import write_corpus
from xlner.words import Sentence

KIEL = Sentence(("In", "Kiel"), ("O", "B-LOC"))
BONN = Sentence(("Bonn",), ("B-LOC",))


def without_tags(sentences):
    return [Sentence(words) for words, _ in sentences]


def write_card(folder, sentences, name):
    """A card like those of the data scripts."""
    (folder / "corpus.json").write_text(
        json.dumps({"splits": {"test": {"name": name, **summarize(sentences)._asdict()}}})
    )


def test_training_knows_the_name_of_a_corpus(tmp_path):
    write_corpus([KIEL, BONN], tmp_path / "test.conll")
    write_card(tmp_path, [KIEL, BONN], "Places de, test")

    assert read_labelled(tmp_path / "test.conll", CorpusRecipe()).known_as == "Places de, test"
    assert read_labelled(tmp_path / "test.conll", CorpusRecipe(), limit=1).known_as == ""


def test_a_summary_counts_in_one_pass():
    summary = summarize(iter([KIEL, BONN, Sentence(("Anna", "Kiel"), ("B-PER", "I-PER"))]))

    assert summary[:3] == (3, 5, {"LOC": 2, "PER": 1})
    assert summary.fingerprint == fingerprint([KIEL, BONN, Sentence(("Anna", "Kiel"), ("B-PER", "I-PER"))])


def test_the_fingerprint_of_the_words_is_that_of_the_corpus_without_tags():
    labelled, bare = CorpusFingerprint(), CorpusFingerprint()
    for sentence in (KIEL, BONN):
        labelled.add(sentence)
        bare.add(Sentence(sentence.words))

    assert labelled.words_hexdigest() == bare.hexdigest() == bare.words_hexdigest()
    assert labelled.hexdigest() != bare.hexdigest()


def test_fingerprints_stay_what_they_were():
    assert fingerprint([KIEL, BONN]) == "47e82cf93865"


@pytest.mark.parametrize(
    ("sentences", "name"),
    [
        ([KIEL, BONN], "Places de, test"),
        (without_tags([KIEL, BONN]), "the words of Places de, test, without labels"),
        ([KIEL, Sentence(("Bonn",), ("B-ORG",))], "the words of Places de, test, with other labels"),
        ([BONN, KIEL], ""),
        ([KIEL], ""),
    ],
)
def test_a_card_beside_a_file_names_its_content_and_nothing_else(tmp_path, sentences, name):
    write_card(tmp_path, [KIEL, BONN], "Places de, test")

    assert name_split(summarize(sentences), tmp_path / "test.conll") == name
    if "without labels" in name:
        assert name_text(fingerprint(sentences), tmp_path / "test.conll") == name
    assert name_split(summarize(sentences)) == ""


@pytest.mark.parametrize("card", ["", "{", "[]", '{"splits": []}', '{"splits": {"test": {"name": "Kiel"}}}'])
def test_a_card_that_is_none_names_nothing(tmp_path, card):
    (tmp_path / "corpus.json").write_text(card)

    assert name_split(summarize([KIEL]), tmp_path / "test.conll") == ""


@pytest.mark.parametrize("counts", sorted(PUBLISHED_COUNTS))
def test_corpora_of_the_shared_tasks_are_named_by_all_their_counts_only(counts):
    words, *entities = counts
    summary = CorpusSummary(1000, words, dict(zip(CONLL_TYPES, entities, strict=True)), "0" * 12, "1" * 12)

    assert name_split(summary) == f"{PUBLISHED_COUNTS[counts]}, by its counts"
    assert name_split(summary._replace(words=words + 1)) == ""
    assert name_split(summary._replace(entities={**summary.entities, "DATE": 1})) == ""


def test_the_table_has_no_two_splits_of_one_name_or_content():
    table = known_splits()

    assert len(table) > 40
    for column in zip(*table, strict=True):
        assert len(set(column)) == len(table)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("wikineural/nl/val.conllu", "WikiNEuRal nl, val"),
        ("wikineural/ru/test.conllu", "WikiNEuRal ru, test"),
        ("uner/de_pud/de_pud-ud-test.iob2", "Universal NER de_pud, test"),
        ("uner/en_ewt/en_ewt-ud-dev.iob2", "Universal NER en_ewt, dev"),
    ],
)
def test_published_files_are_recognised(shared, place, name):
    path = shared / "data" / place

    assert name_split(summarize(read_corpus(path)), path) == name
    assert name_split(summarize(without_tags(read_corpus(path)))) == f"the words of {name}, without labels"
    assert name_split(summarize(islice(read_corpus(path), 100))) == ""
