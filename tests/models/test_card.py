import ast
import json
import re

import pytest
from conftest import LABELS, TOKENIZERS, tiny_model
from huggingface_hub import ModelCard
from runs import DISTILL, brief, run_well
from transformers import pipeline

from xlner.encode import load_tokenizer
from xlner.models.card import Measured, Origin, example_text
from xlner.models.folder import base_of, save_model, write_card
from xlner.models.settings import SCHEME_KEY, ModelSettings
from xlner.tagger import load_tagger
from xlner.tags import spans_of

# Words without signs inside, which the pipeline takes for words on any tokenizer.
SENTENCES = [
    "Angela Merkel besuchte Kiel .",
    "Die Siemens AG sitzt in München .",
    "In Berlin sprach Anna Schmidt mit der Zeitung ( lange ) .",
    "Der Fluss fließt durch Köln und Bonn nach Norden .",
]
WITH_SIGNS = "Dort sprach O'Brien , die US-Amerikanerin , mit Anna ."


# The pieces of `byte_level` all begin with a bare `Ġ`.
@pytest.fixture(params=["unigram", "word_piece"])
def folder(request, tmp_path):
    """A model folder of a kind of tokenizer."""
    return saved(request.param, tmp_path)


def saved(kind, tmp_path):
    TOKENIZERS[kind]().save_pretrained(tmp_path / "encoder")
    tokenizer = load_tokenizer(str(tmp_path / "encoder"))  # as training loads it
    tokenizer.model_max_length = 64
    folder = tmp_path / "runs" / "de" / "model"
    folder.parent.mkdir(parents=True)
    model = tiny_model(tokenizer, kind="bert" if kind == "word_piece" else "xlm-roberta")
    setattr(model.recognizer.config, SCHEME_KEY, "iob2")  # as every model that xlner trains
    save_model(folder, model, tokenizer, ModelSettings(language="de"))
    return folder


def own_entities(folder, words):
    """The entities that xlner finds in words, as spans of the text that spaces join them to."""
    starts = [len(" ".join([*words[:number], ""])) for number in range(len(words))]
    (found,) = load_tagger(folder).spans_in_sentences([words])
    return [(span.label, starts[span.start], starts[span.end - 1] + len(words[span.end - 1])) for span, _ in found]


def entities_of_the_pipeline(folder, words, strategy):
    tagger = pipeline("token-classification", model=str(folder), aggregation_strategy=strategy)
    (found,) = tagger(words, is_split_into_words=True)
    return [(entity["entity_group"], entity["start"], entity["end"]) for entity in found]


def entities_word_by_word(folder, words):
    """As `own_entities`, of the likeliest tag of each word, whether or not these fit together."""
    starts = [len(" ".join([*words[:number], ""])) for number in range(len(words))]
    (probs,) = load_tagger(folder).probs([words])
    spans = spans_of([LABELS.tags[number] for number in probs.argmax(axis=1)])
    return [(span.label, starts[span.start], starts[span.end - 1] + len(words[span.end - 1])) for span in spans]


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_with_words_and_the_strategy_of_the_card_the_pipeline_finds_the_likeliest_tag_of_each_word(folder):
    sentences = [sentence.split() for sentence in SENTENCES]

    found = [entities_of_the_pipeline(folder, words, "first") for words in sentences]

    assert 'aggregation_strategy="first"' in (folder / "README.md").read_text()
    assert found == [entities_word_by_word(folder, words) for words in sentences]


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_where_the_likeliest_tags_do_not_fit_together_the_pipeline_differs_as_the_card_says(tmp_path):
    folder = saved("word_piece", tmp_path)
    # Single words as well: some of them fit.
    sentences = [words for sentence in SENTENCES[:2] for words in (sentence.split(), *map(str.split, sentence.split()))]
    misfits = [entities_word_by_word(folder, words) != own_entities(folder, words) for words in sentences]

    found = [entities_of_the_pipeline(folder, words, "first") for words in sentences]

    assert set(misfits) == {False, True}  # both cases are there
    assert [pair[0] != own_entities(folder, pair[1]) for pair in zip(found, sentences, strict=True)] == misfits
    assert "likeliest sequence of tags that fit together" in " ".join((folder / "README.md").read_text().split())


def test_raw_text_differs_as_the_card_says(folder):
    texts = ["Angela Merkel, Anna Schmidt (Kiel) und O'Brien: Köln-Bonn!", "北京大学 in Kiel."]
    tagger, raw = load_tagger(folder), pipeline("token-classification", model=str(folder), aggregation_strategy="first")

    found = [[(entity["entity_group"], entity["start"], entity["end"]) for entity in raw(text)] for text in texts]

    assert found != [[(entity.label, entity.start, entity.end) for entity in tagger.tag(text)] for text in texts]
    assert "does not find the same entities as xlner" in (folder / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_words_with_signs_inside_are_safe_where_the_card_says_so(folder):
    words = WITH_SIGNS.split()
    says_safe = "Words with a sign inside" not in (folder / "README.md").read_text()

    found = entities_of_the_pipeline(folder, words, "first")

    assert (found == entities_word_by_word(folder, words)) == says_safe


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_the_code_of_the_card_runs_as_it_stands_there(folder, tmp_path, monkeypatch):
    (tmp_path / "path" / "to" / "this").mkdir(parents=True)
    (tmp_path / "path" / "to" / "this" / "folder").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)

    by_xlner, by_pipeline, by_spacy = map(value_of, snippets)

    words = ["Angela", "Merkel", "besuchte", "Kiel", "."]
    assert by_xlner == load_tagger(folder).tag("Angela Merkel besuchte Kiel.")
    assert len(by_spacy) > 0
    assert by_spacy == [(entity.text, entity.label) for entity in by_xlner]
    found = [(entity["entity_group"], entity["start"], entity["end"]) for entity in by_pipeline[0]]
    assert found == entities_word_by_word(folder, words)


def value_of(code):
    """Run some code, and give the value of its last line."""
    *lines, last = ast.parse(code).body
    names = {}
    exec(compile(ast.Module(lines, []), "card", "exec"), names)
    return eval(compile(ast.Expression(last.value), "card", "eval"), names)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("nl", '["Angela", "Merkel", "bezocht", "Kiel", "."]'),
        ("pt_BR", '["Angela", "Merkel", "visitou", "Kiel", "."]'),
        ("xx", '["Angela", "Merkel", ",", "Kiel"]'),
        ("", '["Angela", "Merkel", ",", "Kiel"]'),
    ],
)
def test_the_example_of_a_card_is_in_the_language_of_the_model_or_in_none(tmp_path, language, words):
    tokenizer = TOKENIZERS["word_piece"]()

    save_model(tmp_path / "model", tiny_model(tokenizer), tokenizer, ModelSettings(language=language))

    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert f"tagger({words}, is_split_into_words=True)" in card
    assert f'tagger.tag("{example_text(language)}")' in card


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_words_that_begin_with_a_bare_mark_are_not_safe_as_the_card_says(tmp_path):
    folder = saved("byte_level", tmp_path)
    words = SENTENCES[0].split()

    found = entities_of_the_pipeline(folder, words, "first")

    assert found != own_entities(folder, words)
    assert "A word that begins with a bare `▁` or `Ġ`" in " ".join((folder / "README.md").read_text().split())


def test_the_strategy_simple_is_not_safe_as_the_card_says(folder):
    sentences = [sentence.split() for sentence in SENTENCES]

    found = [entities_of_the_pipeline(folder, words, "simple") for words in sentences]

    assert found != [own_entities(folder, words) for words in sentences]


@pytest.mark.parametrize("language", ["no", "de", "on", "en"])
def test_the_card_keeps_the_language_also_where_yaml_would_read_a_truth_value(bert_folder, tmp_path, language):
    tokenizer = TOKENIZERS["word_piece"]()

    save_model(tmp_path / "model", tiny_model(tokenizer), tokenizer, ModelSettings(language=language))

    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.language == language
    assert card.data.pipeline_tag == "token-classification"


def test_the_card_tells_the_types_and_how_text_is_split(folder):
    card = ModelCard.load(folder / "README.md")

    assert "- Entity types: " + ", ".join(LABELS.types) in card.text
    assert "# de\n" in card.text
    assert "(`unicode`)" in card.text
    assert "Taught by" not in card.text


def test_a_card_is_written_anew_when_more_is_known(folder):
    scores = [Measured("de", "dev", 80.25, {"PER": 90.0}), Measured("de", "test", 71.5, {"LOC": 60.5, "PER": 82.0})]
    origin = Origin(source="en", text="3,000 sentences", teachers=("teacher-en", "teacher-nl"), scores=scores)

    write_card(folder, "de", origin)

    card = ModelCard.load(folder / "README.md")
    assert "- Taught by: teacher-en, teacher-nl" in card.text
    assert "- Entity F1 in percent, by xlner: de (dev): 80.25, de (test): 71.50" in card.text
    assert "| F1 by type | de (dev) | de (test) |\n| --- | --- | --- |\n| LOC |  | 60.50 |\n" in card.text
    assert "- Trained on: 3,000 sentences" in card.text
    assert "it repeats what its teachers believe" in card.text
    assert card.data.widget == [{"text": "Angela Merkel besuchte Kiel."}]
    # What the hub shows keeps the two apart.
    assert [(result.dataset_name, result.dataset_split, result.metric_value) for result in card.data.eval_results] == [
        ("de", "dev", pytest.approx(0.8025)),
        ("de", "test", pytest.approx(0.715)),
    ]


HOSTILE = "x\x1b[2J\n# y|`z`<script>*[a](http://b)\u202e"


def test_a_card_with_hostile_names_has_no_markup_of_theirs(folder):
    named = [Measured(HOSTILE, HOSTILE, 50.0, {HOSTILE: 50.0})]
    settings = json.loads((folder / "xlner.json").read_text()) | {"base_model": HOSTILE, "base_licence": HOSTILE}
    (folder / "xlner.json").write_text(json.dumps(settings))

    write_card(
        folder, HOSTILE, Origin(source=HOSTILE, text=HOSTILE, teachers=(HOSTILE,), scores=named, warning=HOSTILE)
    )

    card = ModelCard.load(folder / "README.md")
    escaped = r"x\\x1b\[2J\\n\# y\|\`z\`\<script\>\*\[a\](http:\//b)\\u202e"
    assert card.text.count(escaped) == 12  # five of them are those of a score
    assert [line for line in card.text.splitlines() if line.startswith("#")] == [
        f"# {escaped}",
        "## With xlner",
        "## With transformers",
        "## Elsewhere",
        "## Limits",
    ]
    assert "\x1b" not in card.text
    assert "\u202e" not in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: [a, b]\n---\n", ""),
        ("no front matter", ""),
        ("---\n: [\n---\n", ""),
    ],
)
def test_the_card_names_the_base_model_and_its_licence_where_its_own_card_tells(tmp_path, bert_folder, card, licence):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text(card)

    assert base_of(str(tmp_path / "base")) == ("base", licence)


def test_the_base_of_a_model_that_was_trained_on_is_the_base_of_that_model(tmp_path):
    tokenizer = TOKENIZERS["word_piece"]()
    settings = ModelSettings(base_model="maker/encoder", base_licence="apache-2.0")

    save_model(tmp_path / "model", tiny_model(tokenizer), tokenizer, settings)

    assert base_of(str(tmp_path / "model")) == ("maker/encoder", "apache-2.0")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.base_model == "maker/encoder"
    assert "- Base model: maker/encoder\n- Licence of the base model, as its card states it: apache-2.0" in card.text


@pytest.mark.slow
def test_the_card_of_a_run_tells_source_teacher_and_scores_and_no_place_of_this_machine(learning, teacher, tmp_path):
    run_well(DISTILL, *brief(learning), "run=first", cwd=tmp_path)

    text = (tmp_path / "runs" / "first" / "model" / "README.md").read_text(encoding="utf-8")
    assert "Labels come from" in text
    assert "en" in text.split("Labels come from")[1].splitlines()[0]
    assert teacher.name in text.split("Taught by")[1].splitlines()[0]
    assert "Entity F1 in percent" in text
    assert "- Base model: tiny-encoder" in text
    assert str(tmp_path.parent) not in text
    assert str(teacher) not in text
