"""A recognizer of Presidio, which finds and hides what identifies people; extra `presidio`.

from presidio_analyzer import AnalyzerEngine
from xlner.presidio import XlnerRecognizer

analyzer.registry.add_recognizer(XlnerRecognizer("runs/de/model", language="de"))
"""

from collections.abc import Mapping
from typing import Any

from presidio_analyzer import AnalysisExplanation, EntityRecognizer, RecognizerResult

from xlner.errors import ModelError
from xlner.hub import find_file
from xlner.models.settings import SETTINGS_FILE, main_language, parse_settings
from xlner.tagger import Tagger, Threshold, load_tagger

# What Presidio calls the types that most corpora have; others keep their names.
NAMES: Mapping[str, str] = {
    "PER": "PERSON",
    "LOC": "LOCATION",
    "GPE": "LOCATION",
    "ORG": "ORGANIZATION",
    "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
    "NORP": "NRP",
}


class XlnerRecognizer(EntityRecognizer):  # type: ignore[misc]  # its package has no types
    """A tagger as one of the recognizers of an analyzer."""

    def __init__(
        self,
        model: str | Tagger,
        *,
        language: str = "",
        names: Mapping[str, str] = NAMES,
        threshold: Threshold = 0.0,
        device: str = "cpu",
    ) -> None:
        """Open a model.

        Args:
            model: Folder or hub name, or a tagger that is open already.
            language: Of the texts, which Presidio asks by; empty: that of the model.
            names: What Presidio shall call the types; a type that is not in it keeps its name, one of "" is left out.
            threshold: As for `Tagger.tag`.
            device: As for `load_tagger`.

        Raises:
            ModelError: If there is no such model, or no language is given and it does not tell its own.
        """
        self.tagger = model if isinstance(model, Tagger) else load_tagger(model, device=device)
        self._names = {kind: names.get(kind, kind) for kind in self.tagger.types}
        self._threshold = threshold
        super().__init__(
            supported_entities=sorted({name for name in self._names.values() if name}),
            supported_language=language or _language_of(self.tagger),
            name="XlnerRecognizer",
        )

    def load(self) -> None:
        """Nothing: the model is open."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """The entities of a text that are asked for, in order.

        Args:
            text: Of any length.
            entities: Names of Presidio's.
            nlp_artifacts: Not looked at: the model reads the text itself.
        """
        wanted = set(entities or self.supported_entities)
        types = [kind for kind, name in self._names.items() if name in wanted]
        if not types:
            return []
        found = self.tagger.tag(text, threshold=self._threshold, types=types)
        return [
            RecognizerResult(
                entity_type=self._names[entity.label],
                start=entity.start,
                end=entity.end,
                score=entity.score,
                analysis_explanation=AnalysisExplanation(
                    recognizer=self.name,
                    original_score=entity.score,
                    textual_explanation=f"{entity.label} by {self.tagger.name}",
                ),
            )
            for entity in found
        ]


def _language_of(tagger: Tagger) -> str:
    """The language that the folder of a tagger tells, as Presidio writes it: `pt` of `pt_BR`."""
    path = find_file(tagger.opened_from, SETTINGS_FILE) if tagger.opened_from else None
    language = parse_settings(path).language if path else ""
    if not language:
        raise ModelError(f"{tagger.name or 'this tagger'}: does not tell its language; give language=, as in de")
    return main_language(language)
