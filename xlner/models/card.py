"""The model card: `README.md` of a model folder, which says what the model is and how to use it.

It also says what `transformers` alone makes of the folder, and where that differs from what xlner finds. Names that
come from models, corpora and folders are escaped.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load
from yaml import YAMLError

from xlner import __version__
from xlner.errors import for_markdown, for_terminal
from xlner.models.settings import ModelSettings, main_language
from xlner.tags import LabelSet
from xlner.words import split_words

CARD_FILE = "README.md"
_HUB_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_LICENCE = re.compile(r"[a-z0-9.-]+")


@dataclass(frozen=True)
class Measured:
    """Entity F1 in percent on a corpus: its published name or its language, which split of it, and of each type."""

    corpus: str
    split: str
    f1: float
    types: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.corpus} ({self.split}): {self.f1:.2f}"


@dataclass(frozen=True)
class UsedLabels:
    """The labels of its own language that a student owes something to: what report, card and tables say of them.

    Sentences that it learnt, those beside them that it was chosen by (`held_out`), those of a dev set that it was
    chosen by (`dev`), and the teachers that have used some themselves, by name. `fingerprint` is that of the first two.
    """

    learnt: int = 0
    held_out: int = 0
    dev: int = 0
    teachers: tuple[str, ...] = ()
    fingerprint: str = ""

    @classmethod
    def of_report(cls, content: object) -> "UsedLabels":
        """What report.json says of them; nothing where it is damaged, or older than they are."""
        found = content.get("target_labels") if isinstance(content, Mapping) else None
        if not isinstance(found, Mapping):
            return cls()
        counts = {name: n for name in ("learnt", "held_out", "dev") if isinstance(n := found.get(name), int)}
        teachers = found.get("teachers")
        names = tuple(map(str, teachers)) if isinstance(teachers, Sequence) and not isinstance(teachers, str) else ()
        return cls(**counts, teachers=names, fingerprint=str(found.get("fingerprint") or ""))

    def __bool__(self) -> bool:
        return bool(self.learnt or self.held_out or self.dev or self.teachers)

    def __str__(self) -> str:
        told = (
            f"{self.learnt:,} sentences learnt" if self.learnt else "",
            f"{self.held_out:,} kept aside to choose by" if self.held_out else "",
            f"{self.dev:,} of the dev set chosen by" if self.dev else "",
            f"those that its teacher {', '.join(self.teachers)} has used" if self.teachers else "",
        )
        return ", ".join(filter(None, told)) or "none"


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, as far as it is known; what is empty stays unsaid.

    `source` is the language (or languages) of the teachers' labels, `teachers` names of models; `text` says what it was
    trained on, `labels` which labels of its own language, `warning` what is wrong with the model, if something is.
    """

    source: str = ""
    text: str = ""
    teachers: tuple[str, ...] = ()
    labels: UsedLabels = UsedLabels()
    scores: Sequence[Measured] = ()
    warning: str = ""


def model_card(
    title: str, labels: LabelSet, settings: ModelSettings, *, marks_subwords: bool, origin: Origin
) -> ModelCard:
    """The card of a model.

    Args:
        title: Its name.
        labels: Of the model.
        settings: Of the model; its language, how it splits text, what it was made of.
        marks_subwords: Whether its tokenizer marks pieces inside a word (`##ing`), as WordPiece does.
        origin: What is known beyond the folder.
    """
    sections = [
        _what(title, labels, settings, origin),
        _with_xlner(settings),
        _with_transformers(settings, marks_subwords),
        _elsewhere(settings),
        _limits(labels, settings, origin),
    ]
    return _card(title, settings, origin, sections, library="transformers", tags=())


def compact_card(title: str, labels: LabelSet, settings: ModelSettings, *, kind: str, origin: Origin) -> ModelCard:
    """The card of a compact student, which transformers does not open; arguments as for `model_card`.

    `kind` is what it is made of, as recipes call it.
    """
    sections = [
        _what(title, labels, settings, origin),
        _with_xlner(settings),
        _elsewhere(settings),
        _limits(labels, settings, origin),
    ]
    return _card(title, settings, origin, sections, library="xlner", tags=(kind,))


def stated_licence(card: Path | None) -> str:
    """The licence that a model card names, as in `apache-2.0`; empty if there is no card, or it says nothing usable."""
    try:
        content = metadata_load(card) if card else None
    except (OSError, ValueError, YAMLError, RecursionError):
        return ""
    licence = content.get("license") if isinstance(content, dict) else None
    return licence if isinstance(licence, str) else ""


def _card(
    title: str,
    settings: ModelSettings,
    origin: Origin,
    sections: Sequence[str],
    *,
    library: str,
    tags: Sequence[str],
) -> ModelCard:
    content = ModelCardData(
        language=settings.language or None,
        license=settings.base_licence if _LICENCE.fullmatch(settings.base_licence) else None,
        library_name=library,
        pipeline_tag="token-classification",
        tags=["named-entity-recognition", "xlner", *tags],
        # The hub knows names of its own alone; what else it was made of stands in the text.
        base_model=settings.base_model if _HUB_NAME.fullmatch(settings.base_model) else None,
        model_name=for_terminal(title),
        eval_results=_results(origin) or None,
        widget=[{"text": example_text(settings.language)}],
    )
    return ModelCard(f"---\n{content.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _results(origin: Origin) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="token-classification",
            task_name="Named Entity Recognition",
            dataset_type="corpus",
            dataset_name=for_terminal(measured.corpus),
            dataset_split=for_terminal(measured.split),
            metric_type="f1",
            metric_value=measured.f1 / 100,
        )
        for measured in origin.scores
    ]


def _what(title: str, labels: LabelSet, settings: ModelSettings, origin: Origin) -> str:
    lines = [
        f"# {for_markdown(title)}",
        "",
        "A named-entity tagger, made by [xlner](https://pypi.org/project/xlner) " + __version__ + ".",
        "",
    ]
    if origin.warning:
        lines += [f"**Not fit for use**: {for_markdown(origin.warning)}", ""]
    facts = {
        "Language": settings.language,
        "Entity types": ", ".join(labels.types),
        "Tags": ", ".join(labels.tags),
        "Labels come from": origin.source,
        "Taught by": ", ".join(origin.teachers),
        "Trained on": origin.text,
        "Labels of its own language": str(origin.labels) if origin.labels else "",
        "Base model": settings.base_model,
        "Licence of the base model, as its card states it": settings.base_licence,
        "Entity F1 in percent, by xlner": ", ".join(map(str, origin.scores)),
    }
    lines += [f"- {name}: {for_markdown(fact)}" for name, fact in facts.items() if fact]
    return "\n".join([*lines, *_type_table(origin.scores)])


def _type_table(scores: Sequence[Measured]) -> list[str]:
    """The lines of a table: a row for each type, a column for each corpus."""
    types = sorted({name for measured in scores for name in measured.types})
    if not types:
        return []
    names = [for_markdown(f"{measured.corpus} ({measured.split})") for measured in scores]
    rows = [
        [for_markdown(name), *(f"{measured.types[name]:.2f}" if name in measured.types else "" for measured in scores)]
        for name in types
    ]
    return ["", *("| " + " | ".join(row) + " |" for row in (["F1 by type", *names], ["---"] * (len(names) + 1), *rows))]


def _with_xlner(settings: ModelSettings) -> str:
    return f"""## With xlner

```python
from xlner import load_tagger

tagger = load_tagger("path/to/this/folder")
tagger.tag({json.dumps(example_text(settings.language), ensure_ascii=False)})
```

Text is split into words (`{settings.word_splitter}`), as the model was trained; text of any
length is read in windows."""


def _with_transformers(settings: ModelSettings, marks_subwords: bool) -> str:
    text = example_text(settings.language)
    words = [text[start:end] for start, end in split_words(text, settings.word_splitter)]
    return f"""## With transformers

```python
from transformers import pipeline

tagger = pipeline("token-classification", model="path/to/this/folder", aggregation_strategy="first")
tagger({json.dumps(words, ensure_ascii=False)}, is_split_into_words=True)
```

**The pipeline does not find the same entities as xlner**; the scores above are xlner's. Even with `first`
and words, as here, it differs in these:

- It takes the likeliest tag of each word; xlner takes the likeliest sequence of tags that fit together,
  in which `I-X` only goes on with an entity of type X. Where the likeliest tags fit together, they are the same.
{_WORD_PIECE if marks_subwords else _NO_MARKS}
- It cuts text off at the model's length.

Raw text differs in most sentences, with any strategy: the pipeline makes other words of it than those that the model
was trained on. `simple`, `max` and `average` also ask the pieces behind the first one of a word, which were never
trained."""


def _elsewhere(settings: ModelSettings) -> str:
    return f"""## Elsewhere

Without torch, by ONNX Runtime: `xlner export path/to/this/folder --onnx tagger-onnx`, then
`load_tagger("tagger-onnx")`. As a component of spaCy (`pip install "xlner[spacy]"`):

```python
import spacy

nlp = spacy.blank("xx")
nlp.add_pipe("xlner", config={{"model": "path/to/this/folder"}})
[(entity.text, entity.label_) for entity in nlp({json.dumps(example_text(settings.language), ensure_ascii=False)}).ents]
```"""


def _limits(labels: LabelSet, settings: ModelSettings, origin: Origin) -> str:
    unseen = "" if origin.scores else " It was scored on no labelled text at all."
    by_teachers = (
        " Of the text that nobody labelled it repeats what its teachers believe, mistakes included."
        if origin.teachers
        else ""
    )
    language = f" in {for_markdown(settings.language)}" if settings.language else ""
    return f"""## Limits

It finds {for_markdown(", ".join(labels.types))}{language}, as its labels have them, and nothing else; entities within
entities are not found.{by_teachers}{unseen} Other kinds of text than it was trained on may be tagged worse than the
scores say."""


# The pipeline takes what has the mark `##` for the rest of a word, and any other piece for a word.
_WORD_PIECE = """- Words with a sign inside (`O'Brien`, `Jean-Claude`) are several words for it."""
# Without marks it takes a piece behind a space for the beginning of a word; a bare `▁` and the piece behind it begin at
# one and the same place.
_NO_MARKS = """- A word that begins with a bare `▁` or `Ġ` (rare characters) is two words for it.
- Of a text without spaces (Chinese, Thai) it makes pieces of several characters; the model learnt single ones."""


def example_text(language: str) -> str:
    """A short text with a person and a place in a language, by its code; in none where there is no such text here."""
    return _EXAMPLES.get(main_language(language), "Angela Merkel, Kiel")


# A new language is one line here.
_EXAMPLES = {
    "ar": "زارت أنغيلا ميركل مدينة كيل.",
    "ca": "Angela Merkel va visitar Kiel.",
    "cs": "Angela Merkelová navštívila Kiel.",
    "da": "Angela Merkel besøgte Kiel.",
    "de": "Angela Merkel besuchte Kiel.",
    "en": "Angela Merkel visited Kiel.",
    "es": "Angela Merkel visitó Kiel.",
    "fi": "Angela Merkel vieraili Kielissä.",
    "fr": "Angela Merkel a visité Kiel.",
    "hu": "Angela Merkel Kielbe látogatott.",
    "id": "Angela Merkel mengunjungi Kiel.",
    "it": "Angela Merkel ha visitato Kiel.",
    "ja": "アンゲラ・メルケルはキールを訪れた。",
    "nb": "Angela Merkel besøkte Kiel.",
    "nl": "Angela Merkel bezocht Kiel.",
    "no": "Angela Merkel besøkte Kiel.",
    "pl": "Angela Merkel odwiedziła Kilonię.",
    "pt": "Angela Merkel visitou Kiel.",
    "ro": "Angela Merkel a vizitat Kiel.",
    "ru": "Ангела Меркель посетила Киль.",
    "sv": "Angela Merkel besökte Kiel.",
    "tr": "Angela Merkel Kiel'i ziyaret etti.",
    "uk": "Ангела Меркель відвідала Кіль.",
    "vi": "Angela Merkel đã thăm Kiel.",
    "zh": "默克尔访问了基尔。",
}
