"""The same words and pieces in training and in tagging, for a raw line and every splitter and tokenizer."""

import json
import tempfile
from pathlib import Path

import pytest
from conftest import TOKENIZERS, tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import DISTILL, TINY, run_script

from xlner import load_tagger
from xlner.config.schema import CorpusRecipe
from xlner.corpora.splits import sentence_stream
from xlner.encode import WordEncoder
from xlner.errors import CorpusError
from xlner.models.folder import save_model
from xlner.models.settings import ModelSettings
from xlner.words import WORD_SPLITTERS

# A line of text: anything but line ends, and lone surrogates, which no file can hold.
PIECES_OF_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=8)
SNIPPETS = st.sampled_from(
    [
        "Angela Merkel ",
        "z.B. ",
        "l'Italia ",
        "北京大学",
        "東京タワー",
        "กรุงเทพ",
        "e\u0301",
        "\u200b",
        "\ufeff",
        "👩🏽\u200d🚀",
        "\x1c",
        "\t",
    ]
)
LINES = st.lists(PIECES_OF_TEXT | SNIPPETS, max_size=12).map("".join)
KINDS = ["word_piece", "unigram"]


@pytest.fixture(scope="module")
def taggers(tmp_path_factory):
    """A tagger for each tokenizer and splitter, opened from a folder that names its splitter."""
    opened = {}
    for kind in KINDS:
        tokenizer = TOKENIZERS[kind]()
        for splitter in WORD_SPLITTERS:
            folder = tmp_path_factory.mktemp("taggers") / "model"
            save_model(folder, tiny_model(tokenizer), tokenizer, ModelSettings(word_splitter=splitter, max_length=24))
            opened[kind, splitter] = load_tagger(folder)
    return opened


def windows_in_training(line, encoder, splitter):
    """The windows of a line that is read from a file, as training reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.txt")
        path.write_text(f"Regen\n{line}\n", encoding="utf-8", newline="\n")
        sentences = [sentence.words for sentence in sentence_stream(path, CorpusRecipe(word_splitter=splitter))]
    return list(encoder.encode(sentences[1:]))


@pytest.mark.parametrize("splitter", sorted(WORD_SPLITTERS))
@pytest.mark.parametrize("kind", KINDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(line=LINES)
def test_a_raw_line_has_the_same_pieces_in_training_and_in_tagging(taggers, kind, splitter, line):
    tagger = taggers[kind, splitter]

    trained_on = windows_in_training(line, WordEncoder(TOKENIZERS[kind](), 24), splitter)

    tagged = list(tagger.encoder.encode([tagger.words(line)])) if tagger.words(line) else []
    assert [[part.tolist() for part in window[1:]] for window in trained_on] == [
        [part.tolist() for part in window[1:]] for window in tagged
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_each_splitter_shows_the_tagger_other_words(taggers, kind):
    line = "Kiel, 東京タワー"

    assert {splitter: "|".join(taggers[kind, splitter].words(line)) for splitter in WORD_SPLITTERS} == {
        "unicode": "Kiel|,|東|京|タ|ワ|ー",
        "script_runs": "Kiel|,|東京|タワー",
        "whitespace": "Kiel,|東京タワー",
    }


@pytest.mark.slow
@pytest.mark.parametrize("splitter", sorted(WORD_SPLITTERS))
def test_a_student_tags_with_the_splitter_that_cut_its_training_text(bert_folder, small_data, tmp_path, splitter):
    brief = (*(argument for argument in TINY if "epochs" not in argument), "optimization.epochs=1", "run=first")
    arguments = ("target=de", f"teacher={bert_folder}", f"data={small_data}", "variant=tsl", *brief)

    finished = run_script(DISTILL, *arguments, f"corpus.word_splitter={splitter}", cwd=tmp_path)

    model = tmp_path / "runs" / "first" / "model"
    assert finished.status == 0
    assert json.loads((model / "xlner.json").read_text())["word_splitter"] == splitter
    assert load_tagger(model).word_splitter == splitter


@pytest.mark.parametrize(
    ("place", "lowest"),
    [
        ("wikineural/de/test.conllu", 99.8),
        ("wikineural/en/test.conllu", 99.8),
        ("wikineural/es/test.conllu", 99.8),
        ("wikineural/fr/test.conllu", 99.5),
        ("wikineural/it/test.conllu", 99.5),
        ("wikineural/pl/test.conllu", 99.7),
        ("wikineural/ru/test.conllu", 99.8),
        ("uner/en_ewt/en_ewt-ud-test.iob2", 98.5),
        ("uner/zh_gsd/zh_gsd-ud-test.iob2", 50),
    ],
)
def test_words_of_a_corpus_joined_by_spaces_are_found_again(shared, place, lowest):
    recipe = CorpusRecipe(format="conll")
    n_words = n_found = 0
    for number, sentence in enumerate(sentence_stream(shared / "data" / place, recipe)):
        if number == 1000:
            break
        gold, start = set(), 0
        for word in sentence.words:
            gold.add((start, start + len(word)))
            start += len(word) + 1
        n_found += len(gold & set(WORD_SPLITTERS["unicode"](" ".join(sentence.words))))
        n_words += len(gold)

    assert 100 * n_found / n_words > lowest


def test_a_text_of_nothing_but_invisible_characters_is_no_training_text(tmp_path):
    (tmp_path / "train.txt").write_text("\u200b\n\ufeff \u00ad\n", encoding="utf-8")

    with pytest.raises(CorpusError, match="no sentence in it"):
        list(sentence_stream(tmp_path / "train.txt", CorpusRecipe()))
