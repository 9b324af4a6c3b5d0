"""A component of Haystack, which writes the entities of documents into their meta data; extra `haystack`.

from haystack import Pipeline
from xlner.haystack import XlnerEntityExtractor

pipeline.add_component("entities", XlnerEntityExtractor("runs/de/model"))
"""

from dataclasses import replace
from typing import Any

from haystack import Document, component, default_to_dict

from xlner.tagger import Threshold, load_tagger

META = "named_entities"  # as Haystack's own extractor called it


@component
class XlnerEntityExtractor:
    """Documents in, the same documents out, with `meta["named_entities"]`: entity, start, end, score and text of each.

    Offsets are in characters of the content. A document without text has an empty list.
    """

    def __init__(
        self, model: str, *, threshold: Threshold = 0.0, types: list[str] | None = None, device: str = "cpu"
    ) -> None:
        """Keep what is asked for; the model is opened when the pipeline warms up, or with the first documents.

        Args:
            model: Folder or hub name.
            threshold: As for `Tagger.tag`, as is `types`.
            types: See there.
            device: As for `load_tagger`.
        """
        self.model, self.threshold, self.types, self.device = model, threshold, types, device
        self._tagger: Any = None

    def warm_up(self) -> None:
        """Open the model, if it is not open yet.

        Raises:
            ModelError: If there is no such model.
        """
        if self._tagger is None:
            self._tagger = load_tagger(self.model, device=self.device)

    def to_dict(self) -> dict[str, Any]:
        """How a pipeline is stored."""
        found: dict[str, Any] = default_to_dict(
            self, model=self.model, threshold=self.threshold, types=self.types, device=self.device
        )
        return found

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """The documents with their entities; those that were given stay as they are."""
        self.warm_up()
        texts = [document.content or "" for document in documents]
        found = self._tagger.tag_batch(texts, threshold=self.threshold, types=self.types)
        return {
            "documents": [
                replace(document, meta={**document.meta, META: [_told(entity) for entity in entities]})
                for document, entities in zip(documents, found, strict=True)
            ]
        }


def _told(entity: Any) -> dict[str, Any]:
    said = entity.to_dict()
    return {"entity": said.pop("label"), **said}
