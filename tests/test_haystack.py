"""The component of Haystack, within Haystack's own pipeline where the package is installed."""

import pytest

from xlner import load_tagger
from xlner.errors import ModelError

pytest.importorskip("haystack", reason="Haystack is not installed: pip install 'xlner[haystack]'")

from haystack import Document, Pipeline

from xlner.haystack import XlnerEntityExtractor

TEXT = "Angela Merkel besuchte Kiel. Die Siemens AG sitzt in München."


def pipeline_of(folder, **settings):
    pipeline = Pipeline()
    pipeline.add_component("entities", XlnerEntityExtractor(str(folder), **settings))
    return pipeline


def test_documents_carry_what_the_tagger_finds(bert_folder):
    given = [Document(content=TEXT, meta={"source": "news"}), Document(content=None)]

    first, empty = pipeline_of(bert_folder).run({"entities": {"documents": given}})["entities"]["documents"]

    expected = load_tagger(bert_folder).tag(TEXT)
    assert expected
    assert first.meta["source"] == "news"
    assert [(e["entity"], e["start"], e["end"], e["text"]) for e in first.meta["named_entities"]] == [
        (e.label, e.start, e.end, e.text) for e in expected
    ]
    assert all(0 <= e["score"] <= 1 for e in first.meta["named_entities"])
    assert empty.meta["named_entities"] == []
    assert "named_entities" not in given[0].meta


def test_a_pipeline_is_stored_and_opened_with_its_settings(bert_folder):
    pipeline = pipeline_of(bert_folder, threshold=0.5, types=["PER"])

    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["xlner.haystack"])

    found = again.run({"entities": {"documents": [Document(content=TEXT)]}})["entities"]["documents"][0]
    expected = load_tagger(bert_folder).tag(TEXT, threshold=0.5, types=["PER"])
    assert [e["text"] for e in found.meta["named_entities"]] == [e.text for e in expected]


def test_a_model_that_is_not_there_is_told_when_the_pipeline_warms_up(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        pipeline_of(tmp_path / "nowhere").run({"entities": {"documents": [Document(content=TEXT)]}})
