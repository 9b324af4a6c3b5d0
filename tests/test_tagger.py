import ast
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LABELS, REPOSITORY, SENTENCES
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from xlner.errors import ModelError
from xlner.tagger import STREAM_TEXTS, load_tagger
from xlner.tags import spans_of

ODD = [
    "\u200b",
    "\ufeff",
    "\u0301",
    "e\u0301",
    "👩🏽\u200d🚀",
    "🇩🇪",
    "\ud83d",
    "שלום",
    "می\u200cخواهم",
    "北京",
    "\u2028",
    "\x00",
    "[SEP]",
]
TEXT = st.lists(
    st.text(max_size=5) | st.sampled_from([*ODD, " ", "Angela Merkel ", "Kiel. ", "x" * 300]), max_size=12
).map("".join)
# The tagger is made once; hypothesis asks about fixtures that live longer than an example.
lasting = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)


@pytest.fixture(scope="module")
def tagger(bert_folder):
    return load_tagger(bert_folder)


@pytest.fixture(scope="module", params=["bert_folder", "xlmr_folder"])
def any_tagger(request):
    return load_tagger(request.getfixturevalue(request.param))


def without_scores(entities):
    return [entity[:4] for entity in entities]


@lasting
@given(text=TEXT)
def test_an_entity_is_a_slice_of_its_text_whatever_the_text(any_tagger, text):
    entities = any_tagger.tag(text)

    assert all(text[entity.start : entity.end] == entity.text for entity in entities)
    assert all(entity.text.strip() == entity.text != "" for entity in entities)
    assert all(before.end <= after.start for before, after in pairwise(entities))
    assert all(entity.label in ("LOC", "ORG", "PER") and 0 <= entity.score <= 1 for entity in entities)


@lasting
@given(texts=st.lists(TEXT, max_size=5), data=st.data())
def test_a_text_has_the_same_entities_alone_in_a_batch_and_in_batches_of_any_size(any_tagger, bert_folder, texts, data):
    # Sums in another order differ in the sixth digit: where two tags are as likely to that digit, either may come out.
    margins = [np.sort(probs, axis=1)[:, -2:] for probs in any_tagger.probs([any_tagger.words(text) for text in texts])]
    assume(all((found[:, 1] - found[:, 0] > 1e-4).all() for found in margins if len(found)))
    alone = [any_tagger.tag(text) for text in texts]
    any_tagger.batch_pieces = data.draw(st.sampled_from([1, 70, 500, 4096]))

    together = any_tagger.tag_batch(iter(texts))

    assert list(map(without_scores, together)) == list(map(without_scores, alone))
    assert [entity.score for found in together for entity in found] == pytest.approx(
        [entity.score for found in alone for entity in found], abs=1e-4
    )


@lasting
@given(words=st.lists(st.text(max_size=5) | st.sampled_from([*ODD, "Angela", "Merkel", ""]), max_size=100))
def test_each_word_has_one_tag(any_tagger, words):
    tags = any_tagger.tag_words(words)

    assert len(tags) == len(words)
    assert set(tags) <= set(LABELS.tags)


def test_words_and_text_give_the_same_entities(any_tagger):
    text = " ".join(SENTENCES)

    spans = spans_of(any_tagger.tag_words(any_tagger.words(text)))

    words = any_tagger.words(text)
    found = [(entity.text.replace(" ", ""), entity.label) for entity in any_tagger.tag(text)]
    assert found == [("".join(words[span.start : span.end]), span.label) for span in spans]
    assert len(found) > 3


def test_an_entity_is_made_of_plain_python_values(tagger):
    entities = tagger.tag(SENTENCES[0])

    assert entities
    for entity in entities:
        assert [type(value) for value in entity] == [str, str, int, int, float]
        assert json.loads(json.dumps(entity._asdict())) == entity._asdict()


@pytest.mark.parametrize("text", ["", " ", "\n\t\u200b", "\ufeff"])
def test_text_without_words_has_no_entities(tagger, text):
    assert tagger.tag(text) == []
    assert tagger.tag_words([]) == []


def test_no_texts_give_no_results(tagger):
    assert tagger.tag_batch([]) == []
    assert tagger.tag_sentences([]) == []


def test_a_long_text_is_tagged_to_its_end(any_tagger):
    text = " ".join(SENTENCES * 40)

    entities = any_tagger.tag(text)

    # Far from the edges a repeated sentence is repeated in its windows too, so what is found is found all along.
    assert entities[-1].end > len(text) - 150
    gaps = [after.start - before.end for before, after in pairwise(entities)]
    assert max(gaps) < 300


@pytest.mark.parametrize("text", ["x" * 300_000, "北" * 3000, "a." * 100_000, "\ue000 " * 3000])
def test_a_huge_text_is_tagged(any_tagger, text):
    assert all(text[entity.start : entity.end] == entity.text for entity in any_tagger.tag(text))


@pytest.mark.parametrize("wrong", [None, b"Kiel", ["Kiel"], 3])
def test_what_is_no_text_is_refused_with_the_right_method(tagger, wrong):
    with pytest.raises(TypeError, match="for several texts call tag_batch, for a list of words tag_words"):
        tagger.tag(wrong)


@pytest.mark.parametrize("wrong", ["Kiel", b"Kiel", None, ["Kiel", None], [["Kiel"]]])
def test_what_are_no_texts_or_words_is_refused(tagger, wrong):
    with pytest.raises(TypeError, match="tag_batch takes several texts"):
        tagger.tag_batch(wrong)
    with pytest.raises(TypeError, match="tag_words takes the words of one sentence"):
        tagger.tag_words(wrong)


def test_a_tagger_names_its_labels_and_types(any_tagger):
    assert any_tagger.labels == LABELS
    assert any_tagger.types == ("LOC", "ORG", "PER")


def test_windows_are_as_long_as_the_network_takes_where_the_tokenizer_states_no_limit(xlmr_folder):
    tagger = load_tagger(xlmr_folder)

    assert tagger.encoder.max_length == 64


def test_the_folder_says_how_text_is_split_and_cut(bert_folder, tmp_path):
    folder = tmp_path / "model"
    folder.symlink_to(bert_folder)
    copy = copied(folder, tmp_path / "copy", {"word_splitter": "whitespace", "max_length": 32})

    tagger = load_tagger(copy)

    assert tagger.words("Kiel, ja.") == ["Kiel,", "ja."]
    assert tagger.encoder.max_length == 32


def test_an_unknown_splitter_in_the_folder_is_refused(bert_folder, tmp_path):
    with pytest.raises(ModelError, match="unknown word splitter 'spacy'"):
        load_tagger(copied(Path(bert_folder), tmp_path / "copy", {"word_splitter": "spacy"}))


def test_a_device_that_is_not_there_is_refused(bert_folder):
    with pytest.raises(ModelError, match="device 'cuda:99' cannot be used"):
        load_tagger(bert_folder, device="cuda:99")


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        load_tagger(tmp_path / "nope")


@pytest.mark.slow
def test_tagging_needs_neither_accelerate_nor_datasets(bert_folder):
    # None in sys.modules makes an import fail as if nothing were installed.
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('accelerate', 'datasets', 'omegaconf', 'seqeval', 'pyarrow')));"
        "from xlner import load_tagger;"
        f"print(load_tagger({bert_folder!r}).types)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=False)

    assert done.stdout == "('LOC', 'ORG', 'PER')\n", done.stderr


def test_the_tagger_imports_nothing_of_training_or_of_corpora():
    seen, waiting = set(), ["xlner.tagger"]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        path = REPOSITORY.joinpath(*name.split("."))
        source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xlner."):
                waiting += {node.module} - seen

    assert not [
        name for name in seen if name.startswith(("xlner.train.", "xlner.jobs", "xlner.corpora", "xlner.config.load"))
    ]


def copied(folder, place, settings):
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    (place / "xlner.json").write_text(json.dumps(settings))
    return place


def test_a_stream_gives_what_a_batch_gives_without_reading_to_the_end_first(any_tagger):
    read = []

    def texts():
        for number in range(5 * STREAM_TEXTS):
            read.append(number)
            yield SENTENCES[number % 5]

    found = any_tagger.tag_stream(texts())
    first = next(found)

    assert len(read) == STREAM_TEXTS
    assert without_scores(first) == without_scores(any_tagger.tag(SENTENCES[0]))
    rest = [next(found) for _ in range(9)]
    expected = any_tagger.tag_batch([SENTENCES[number % 5] for number in range(10)])
    assert list(map(without_scores, [first, *rest])) == list(map(without_scores, expected))


def test_a_stream_ends_when_its_texts_end(tagger):
    assert len(list(tagger.tag_stream(iter(SENTENCES)))) == len(SENTENCES)
    assert list(tagger.tag_stream(iter([]))) == []


def test_a_stream_is_not_one_text(tagger):
    with pytest.raises(TypeError, match="tag_stream takes several texts"):
        next(tagger.tag_stream("Kiel"))
    with pytest.raises(TypeError, match="found int at place 1"):
        next(tagger.tag_stream(["Kiel", 3]))


def test_entities_below_the_threshold_are_left_out(any_tagger):
    texts = SENTENCES * 3
    every = [entity for found in any_tagger.tag_batch(texts) for entity in found]
    middle = sorted(entity.score for entity in every)[len(every) // 2]

    kept = [entity for found in any_tagger.tag_batch(texts, threshold=middle) for entity in found]

    assert kept == [entity for entity in every if entity.score >= middle]
    assert 0 < len(kept) < len(every)


def test_only_the_types_that_are_asked_for_are_given(any_tagger):
    every = [entity for found in any_tagger.tag_batch(SENTENCES) for entity in found]

    kept = [entity for found in any_tagger.tag_batch(SENTENCES, types=["LOC", "PER"]) for entity in found]

    assert without_scores(kept) == without_scores([entity for entity in every if entity.label != "ORG"])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"threshold": 1.5}, r"threshold is 1.5; .* within \[0, 1\]"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"types": ["GPE"]}, "found 'GPE'; expected a list of LOC, ORG, PER"),
        ({"types": "LOC"}, "found 'LOC'; expected a list of LOC, ORG, PER"),
    ],
)
def test_a_threshold_or_type_that_cannot_be_is_refused(tagger, wanted, message):
    with pytest.raises(ValueError, match=message):
        tagger.tag("Kiel", **wanted)


def test_probabilities_have_a_row_for_each_word_and_a_column_for_each_tag(any_tagger):
    sentences = [["Angela", "besuchte", "Kiel"], [], ["Ulm"]]

    found = any_tagger.probs(sentences)

    assert [probs.shape for probs in found] == [(len(words), len(any_tagger.labels.tags)) for words in sentences]
    assert all(abs(float(row.sum()) - 1) < 1e-5 for probs in found for row in probs)


@pytest.mark.parametrize("method", ["tag_sentences", "probs"])
def test_texts_are_not_taken_for_lists_of_words(tagger, method):
    with pytest.raises(TypeError, match="a sentence is a list of words"):
        getattr(tagger, method)(["Angela besuchte Kiel", "Ulm"])


def test_a_tagger_says_what_it_is(tagger, bert_folder):
    assert repr(tagger) == f"<Tagger {bert_folder}: LOC, ORG, PER; Torch>"


def test_an_entity_keeps_its_names_in_json(tagger):
    entity = tagger.tag("Angela Merkel besuchte Kiel .")[0]

    stored = json.loads(json.dumps(entity.to_dict()))

    assert stored == dict(zip(("text", "label", "start", "end", "score"), entity, strict=True))
    assert repr(entity).startswith(f"Entity(text={entity.text!r}, label={entity.label!r}, start={entity.start}")


def test_the_device_auto_is_one_that_is_there(bert_folder, tagger):
    found = load_tagger(bert_folder, device="auto")

    assert found.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert found.tag_words(["Kiel"]) == tagger.tag_words(["Kiel"])


def test_spans_in_sentences_leave_out_what_tag_leaves_out(tagger):
    words = [sentence.split() for sentence in SENTENCES]
    everything = [pair for found in tagger.spans_in_sentences(words) for pair in found]

    found = [pair for found in tagger.spans_in_sentences(words, threshold=0.5, types=["PER"]) for pair in found]

    assert found == [(span, score) for span, score in everything if score >= 0.5 and span.label == "PER"]
    with pytest.raises(ValueError, match="types: found 'GENE'"):
        tagger.spans_in_sentences(words, types=["GENE"])


# The tags of a network in other schemes, and how each stands in for one of IOB2.
OTHER_SCHEMES = {
    "bioes": {"B-LOC": "S-LOC", "B-ORG": "S-ORG", "B-PER": "S-PER"},
    "bilou": {"B-LOC": "U-LOC", "I-ORG": "L-ORG", "B-PER": "U-PER"},
}


def with_tags(folder, place, tags):
    copy = Path(shutil.copytree(folder, place))
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config |= {"id2label": dict(enumerate(tags)), "label2id": {tag: number for number, tag in enumerate(tags)}}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


@pytest.mark.parametrize("scheme", sorted(OTHER_SCHEMES))
def test_a_tagger_of_another_scheme_says_iob2(bert_folder, tmp_path, scheme):
    names = OTHER_SCHEMES[scheme]
    iob2 = load_tagger(bert_folder)
    words = [sentence.split() for sentence in SENTENCES]

    other = load_tagger(with_tags(bert_folder, tmp_path / scheme, [names.get(tag, tag) for tag in LABELS.tags]))

    assert (other.labels, other.types) == (LABELS, LABELS.types)
    for one, same in zip(iob2.probs(words), other.probs(words), strict=True):
        np.testing.assert_allclose(one, same, atol=1e-6)


@pytest.mark.parametrize("scheme", ["plain", *sorted(OTHER_SCHEMES)])
def test_a_tagger_of_another_scheme_says_the_same_among_several(bert_folder, tmp_path, scheme):
    names = OTHER_SCHEMES.get(scheme, {})
    tags = [names.get(tag, tag) for tag in LABELS.tags] if names else ["O", "LOC", "ORG", "PER", "MISC", "DATE", "LAW"]
    folder = with_tags(bert_folder, tmp_path / scheme, tags)
    alone, words = load_tagger(folder), [sentence.split() for sentence in SENTENCES]

    several = load_tagger([folder, folder])

    for one, same in zip(alone.probs(words), several.probs(words), strict=True):
        np.testing.assert_allclose(one[:, alone.labels.ids(several.labels.tags)], same, atol=1e-6)
    assert several.tag_sentences(words) == alone.tag_sentences(words)


def test_entities_that_begin_with_an_inside_tag_stay_among_several(bert_folder, tmp_path):
    folder = Path(shutil.copytree(bert_folder, tmp_path / "iob1"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("xlner_tag_scheme", None)  # as in a model that xlner did not train
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    bias = next(name for name in weights if name.endswith("classifier.bias"))
    weights[bias][[number for number, tag in enumerate(LABELS.tags) if tag.startswith("B-")]] -= 20
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    alone = load_tagger(folder)
    assert alone.tag(SENTENCES[0])

    several = load_tagger([folder, folder])

    assert not several.labels.begins
    assert [(e.text, e.label) for e in several.tag(SENTENCES[0])] == [
        (e.text, e.label) for e in alone.tag(SENTENCES[0])
    ]


def test_tuned_thresholds_are_those_of_the_revision_that_was_opened(bert_folder, tmp_path, monkeypatch):
    for revision, value in (("main", 0.9), ("v1", 0.1)):
        folder = shutil.copytree(bert_folder, tmp_path / revision)
        (folder / "thresholds.json").write_text(f'{{"thresholds": {{"PER": {value}}}}}')
    monkeypatch.setattr("xlner.tagger.fetched_folder", lambda name, revision: tmp_path / revision)

    tagger = load_tagger("me/de", revision="v1")

    assert (tagger.name, tagger.tuned_thresholds()["PER"]) == ("me/de", 0.1)


def test_a_tagger_of_plain_types_begins_an_entity_where_no_like_one_goes_before(bert_folder, tmp_path):
    tags = ["O", "LOC", "ORG", "PER", "MISC", "DATE", "LAW"]
    folder = with_tags(bert_folder, tmp_path / "plain", tags)
    raw = load_tagger(bert_folder).probs([["Angela", "Merkel", "Kiel"]])[0]

    tagger = load_tagger(folder)

    (probs,) = tagger.probs([["Angela", "Merkel", "Kiel"]])
    begin, inside = (tagger.labels.tags.index(f"{prefix}-LOC") for prefix in "BI")
    assert tagger.types == ("DATE", "LAW", "LOC", "MISC", "ORG", "PER")
    assert probs[0, begin] == pytest.approx(raw[0, 1])
    assert probs[1, inside] == pytest.approx(raw[1, 1] * raw[0, 1], abs=1e-6)
    assert all(entity.label in tags for entity in tagger.tag(SENTENCES[0]))
