"""The recognizer of Presidio, within Presidio's own registry and analyzer where the package is installed."""

import json
from pathlib import Path

import pytest

from xlner import load_tagger
from xlner.errors import ModelError

pytest.importorskip("presidio_analyzer", reason="Presidio is not installed: pip install 'xlner[presidio]'")

from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

from xlner.presidio import XlnerRecognizer

TEXT = "Angela Merkel besuchte Kiel. Die Siemens AG sitzt in München."


class NoEngine(NlpEngine):
    """Presidio asks for an engine of words and lemmas, which the recognizer does without."""

    def load(self):
        pass

    def is_loaded(self):
        return True

    def process_text(self, text, language):
        return NlpArtifacts([], [], [], [], self, language)

    def process_batch(self, texts, language, **more):
        return ((text, self.process_text(text, language)) for text in texts)

    def is_stopword(self, word, language):
        return False

    def is_punct(self, word, language):
        return False

    def get_supported_entities(self):
        return []

    def get_supported_languages(self):
        return ["de"]


def analyzer(recognizer):
    registry = RecognizerRegistry(recognizers=[recognizer], supported_languages=["de"])
    return AnalyzerEngine(registry=registry, nlp_engine=NoEngine(), supported_languages=["de"])


def rows(found):
    return [(one.entity_type, one.start, one.end, pytest.approx(one.score)) for one in found]


def test_presidio_finds_what_the_tagger_finds_under_its_own_names(bert_folder):
    tagger = load_tagger(bert_folder)
    names = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORGANIZATION"}
    expected = [(names[one.label], one.start, one.end, one.score) for one in tagger.tag(TEXT)]

    found = analyzer(XlnerRecognizer(str(bert_folder), language="de")).analyze(
        TEXT, language="de", return_decision_process=True
    )

    assert len(expected) > 2
    assert sorted(rows(found), key=lambda row: row[1]) == expected
    assert found[0].analysis_explanation.recognizer == "XlnerRecognizer"


def test_types_are_asked_for_renamed_and_left_out(bert_folder):
    recognizer = XlnerRecognizer(load_tagger(bert_folder), language="de", names={"ORG": "", "PER": "NAME"})

    assert recognizer.supported_entities == ["LOC", "NAME"]
    assert {one.entity_type for one in recognizer.analyze(TEXT, ["LOC"])} <= {"LOC"}
    assert recognizer.analyze(TEXT, ["CREDIT_CARD"]) == []


def test_the_language_is_that_of_the_model_or_has_to_be_given(bert_folder, tmp_path):
    settings = json.loads((Path(bert_folder) / "xlner.json").read_text())
    folder = tmp_path / "model"
    folder.mkdir()
    for path in Path(bert_folder).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "xlner.json").write_text(json.dumps(settings | {"language": "pt_BR"}))
    assert XlnerRecognizer(str(folder)).supported_language == "pt"

    (folder / "xlner.json").write_text(json.dumps(settings | {"language": ""}))
    with pytest.raises(ModelError, match="does not tell its language; give language="):
        XlnerRecognizer(str(folder))
