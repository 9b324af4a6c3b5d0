"""The spaCy component that sets `doc.ents`: `nlp.add_pipe("xlner", config={"model": "runs/de/model"})`; extra `spacy`.

Importing this module registers the component, since spaCy knows no other way; the entry point in `pyproject.toml`
makes spaCy import it when a pipeline names it.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from xlner.config.load import choose
from xlner.errors import ModelError
from xlner.hub import find_file
from xlner.models.settings import STUDENT_FILE
from xlner.tagger import Tagger, load_tagger
from xlner.words import Entity

# Key in `doc.spans`: the entities found, with `.attrs["scores"]` beside them. A component that has another name than
# `xlner` takes `xlner.NAME`, so that several do not take each other's.
SPAN_GROUP = "xlner"
SCORE = "xlner_score"  # `span._.xlner_score`
_MODEL_FOLDER = "model"

ScoredSpans = list[tuple[Span, float]]


class EntityTagger:
    """A tagger as a component of a pipeline."""

    def __init__(self, model: str, *, words: str, overwrite_ents: bool, device: str, name: str = SPAN_GROUP) -> None:
        """Check the options; the model is opened with the first document.

        Not earlier, because a pipeline that was saved brings its own copy of the model, and is told where after
        this: its first name may be of another machine.

        Args:
            model: Folder, or hub name.
            words: A key of `WORDS`.
            overwrite_ents: Whether entities that a document has already make way for those found; else they stay, and
                those found that overlap them are left out.
            device: As for `load_tagger`.
            name: Of the component in its pipeline.

        Raises:
            ModelError: If no model is named.
        """
        if not model:
            raise ModelError('name the model: nlp.add_pipe("xlner", config={"model": "runs/de/model"})')
        self._find = choose(WORDS, words, "words of the component xlner")
        self._model = model
        self._overwrite_ents = overwrite_ents
        self._device = device
        self._group = SPAN_GROUP if name == SPAN_GROUP else f"{SPAN_GROUP}.{name}"
        self._tagger: Tagger | None = None
        Span.set_extension(SCORE, getter=_score, force=True)

    def __call__(self, doc: Doc) -> Doc:
        """Find the entities of one document."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 64) -> Iterator[Doc]:
        """Find the entities of documents, `batch_size` of them at a time."""
        documents = iter(stream)
        while batch := list(islice(documents, batch_size)):
            for doc, found in zip(batch, self._find(self.open(), batch), strict=True):
                self._set(doc, found)
                yield doc

    def open(self) -> Tagger:
        """The tagger, opened at the first call.

        Raises:
            ModelError: If there is no such model.
        """
        if self._tagger is None:
            self._tagger = load_tagger(self._model, device=self._device)
        return self._tagger

    def to_disk(self, path: str | Path, *, exclude: Sequence[str] = ()) -> None:
        """Write a copy of the model, so that the saved pipeline needs nothing else; `exclude` has nothing to name.

        Raises:
            ModelError: If there is no such model.
        """
        self.open()  # fetches all files of a model of the hub
        config = find_file(self._model, "config.json") or find_file(self._model, STUDENT_FILE)
        target = Path(path) / _MODEL_FOLDER
        assert config is not None
        if config.parent.resolve() != target.resolve():  # a pipeline may be saved where it was loaded
            shutil.copytree(config.parent, target, dirs_exist_ok=True)

    def from_disk(self, path: str | Path, *, exclude: Sequence[str] = ()) -> "EntityTagger":
        """Take the model that `to_disk` wrote."""
        self._model = str(Path(path) / _MODEL_FOLDER)
        self._tagger = None
        return self

    def _set(self, doc: Doc, found: ScoredSpans) -> None:
        doc.spans[self._group] = [span for span, _ in found]
        doc.spans[self._group].attrs["scores"] = [score for _, score in found]
        spans = [span for span, _ in found]
        if not self._overwrite_ents:
            taken = {token.i for entity in doc.ents for token in entity}
            spans = [*doc.ents, *(span for span in spans if taken.isdisjoint(range(span.start, span.end)))]
        doc.set_ents(spans, default="outside")


def _score(span: Span) -> float | None:
    """The score of an entity by the first component that found it; None of any other span."""
    for key, group in span.doc.spans.items():
        if key.partition(".")[0] == SPAN_GROUP:
            for found, score in zip(group, group.attrs["scores"], strict=True):
                if (found.start, found.end, found.label) == (span.start, span.end, span.label):
                    return float(score)
    return None


def _of_texts(tagger: Tagger, documents: Sequence[Doc]) -> list[ScoredSpans]:
    """Entities of the documents' texts, in words such as the model was trained on, widened to whole tokens.

    spaCy's tokens are other words, above all at hyphens: with them F1 is a point lower in English.
    Of two entities that share a token the longer one stays, of equal ones the first.
    """
    found = []
    for doc, entities in zip(documents, tagger.tag_batch([doc.text for doc in documents]), strict=True):
        spans = whole_tokens(doc, entities)
        found.append([(span, spans[span]) for span in filter_spans(spans)])
    return found


def whole_tokens(doc: Doc, entities: Iterable[Entity]) -> dict[Span, float]:
    """Entities of a document's text as spans of whole tokens, with their scores; some may share a token."""
    spans: dict[Span, float] = {}
    for entity in entities:
        span = doc.char_span(entity.start, entity.end, entity.label, alignment_mode="expand")
        if span is not None:  # it never is, but spaCy's types say so
            spans.setdefault(span, entity.score)
    return spans


def _of_tokens(tagger: Tagger, documents: Sequence[Doc]) -> list[ScoredSpans]:
    """Entities of the documents' tokens, which the model takes for its words; white space is no word."""
    places = [[token.i for token in doc if not token.is_space] for doc in documents]
    words = [[doc[i].text for i in tokens] for doc, tokens in zip(documents, places, strict=True)]
    return [
        [(Span(doc, tokens[start], tokens[end - 1] + 1, label), score) for (label, start, end), score in spans]
        for doc, tokens, spans in zip(documents, places, tagger.spans_in_sentences(words), strict=True)
    ]


# Which words the model sees, as the option `words` names them.
WORDS: dict[str, Callable[[Tagger, Sequence[Doc]], list[ScoredSpans]]] = {"text": _of_texts, "tokens": _of_tokens}


@Language.factory(
    "xlner",
    default_config={"model": "", "words": "text", "overwrite_ents": False, "device": "cpu"},
    assigns=["doc.ents", "token.ent_iob", "token.ent_type", "doc.spans"],
)
def make_component(nlp: Language, name: str, model: str, words: str, overwrite_ents: bool, device: str) -> EntityTagger:
    """The component, as spaCy makes it from its settings."""
    return EntityTagger(model, words=words, overwrite_ents=overwrite_ents, device=device, name=name)
