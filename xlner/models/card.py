"""The model card: `README.md` of a model folder, which says what the model is and how to use it.

It also says which `aggregation_strategy` of the `transformers` pipeline gives the entities that xlner gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from xlner import __version__
from xlner.labels import LabelSet

CARD_FILE = "README.md"


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, as far as it is known; what is empty stays unsaid.

    `source` is the language (or languages) of the labels, `teachers` names of models, `scores` entity F1 in percent by
    the name of a test corpus.
    """

    source: str = ""
    teachers: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)


def model_card(
    title: str, labels: LabelSet, *, language: str, word_splitter: str, marks_subwords: bool, origin: Origin
) -> ModelCard:
    """The card of a model.

    Args:
        title: Its name.
        labels: Of the model.
        language: Of the text that it tags; empty if not known.
        word_splitter: How it splits text.
        marks_subwords: Whether its tokenizer marks pieces inside a word (`##ing`), as WordPiece does.
        origin: What is known beyond the folder.
    """
    content = ModelCardData(
        language=language or None,
        library_name="transformers",
        pipeline_tag="token-classification",
        tags=["named-entity-recognition", "xlner"],
        model_name=title,
        eval_results=_results(origin) or None,
    )
    sections = [_what(title, labels, language, origin), _with_xlner(word_splitter), _with_transformers(marks_subwords)]
    return ModelCard(f"---\n{content.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def compact_card(
    title: str, labels: LabelSet, *, language: str, word_splitter: str, kind: str, origin: Origin
) -> ModelCard:
    """The card of a compact student, which transformers does not open; arguments as for `model_card`.

    `kind` is what it is made of, as recipes call it.
    """
    content = ModelCardData(
        language=language or None,
        library_name="xlner",
        pipeline_tag="token-classification",
        tags=["named-entity-recognition", "xlner", kind],
        model_name=title,
        eval_results=_results(origin) or None,
    )
    sections = [_what(title, labels, language, origin), _with_xlner(word_splitter)]
    return ModelCard(f"---\n{content.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _results(origin: Origin) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="token-classification",
            task_name="Named Entity Recognition",
            dataset_type="corpus",
            dataset_name=name,
            metric_type="f1",
            metric_value=score / 100,
        )
        for name, score in origin.scores.items()
    ]


def _what(title: str, labels: LabelSet, language: str, origin: Origin) -> str:
    lines = [
        f"# {title}",
        "",
        "A named-entity tagger, made by [xlner](https://pypi.org/project/xlner) " + __version__ + ".",
        "",
    ]
    facts = {
        "Language": language,
        "Entity types": ", ".join(labels.types),
        "Tags": ", ".join(labels.tags),
        "Labels come from": origin.source,
        "Taught by": ", ".join(origin.teachers),
        "Entity F1 in percent": ", ".join(f"{name}: {score:.2f}" for name, score in origin.scores.items()),
    }
    return "\n".join([*lines, *(f"- {name}: {fact}" for name, fact in facts.items() if fact)])


def _with_xlner(word_splitter: str) -> str:
    return f"""## With xlner

```python
from xlner import load_tagger

tagger = load_tagger("path/to/this/folder")
tagger.tag("Angela Merkel visited Kiel.")
```

Text is split into words (`{word_splitter}`), as the model was trained; text of any length is read in windows."""


def _with_transformers(marks_subwords: bool) -> str:
    return f"""## With transformers

```python
from transformers import pipeline

tagger = pipeline("token-classification", model="path/to/this/folder", aggregation_strategy="first")
tagger(["Angela", "Merkel", "visited", "Kiel", "."], is_split_into_words=True)
```

`simple`, `max` and `average` are not safe: pieces behind the first one of a word were never trained.
{_WORD_PIECE if marks_subwords else _NO_MARKS}

The pipeline cuts text off at the model's length; xlner does not."""


# The pipeline takes what has the mark `##` for the rest of a word, and any other piece for a word.
_WORD_PIECE = """With `first` and words the entities are those of xlner, but for words with a sign inside (`O'Brien`,
`Jean-Claude`), which the pipeline takes for several words."""
# Without marks it takes a piece behind a space for the beginning of a word; a bare `▁` and the piece behind it begin at
# one and the same place.
_NO_MARKS = """With `first` and words the entities are those of xlner, but for words that begin with a bare `▁` or `Ġ`
(Chinese, rare characters), which the pipeline takes for two words. Raw text is not safe with any strategy: this
tokenizer marks only where spaces end, and the pipeline takes what stands between spaces for a word
(`Kiel.`, a Chinese sentence)."""
