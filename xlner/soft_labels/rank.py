"""Which teacher to take for a language without labels: by what can be seen in its raw text.

Three signs, none of which looks at a label: how sure a teacher is of what it takes for entities, how far it finds what
the other teachers find, and how like its language is to the target. Shapes: T teachers, W words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from xlner.backends import is_exported
from xlner.config.schema import CorpusRecipe, MixingRecipe
from xlner.errors import ModelError
from xlner.models.settings import is_compact
from xlner.predict import decide_tags
from xlner.soft_labels.label import Teachers, target_stream
from xlner.soft_labels.languages import SourceLanguages, likeness, source_languages
from xlner.soft_labels.pooling import mean_sureness
from xlner.tagger import Tagger
from xlner.tags import Span, spans_of

Words = Sequence[Sequence[str]]
Found = Sequence[set[Span]]  # the entities of each sentence

# Teachers less far apart are taken for equally sure: what parts those of one amount of training is their agreement.
AS_SURE = 0.1


@dataclass(frozen=True)
class SourceRank:
    """A teacher and the signs of how well it fits a text.

    `sureness` is the mean of its highest probability over words that it takes for entities, 0 without any; `agreement`
    its mean F1 in percent against each of the others, None without others; `likeness` how like its language is to the
    target among those of all, None if that was not looked at. `entities` are counted in 1,000 words.
    """

    model: str
    language: str
    sureness: float
    agreement: float | None
    likeness: float | None
    entities: float

    def to_json(self) -> dict[str, Any]:
        """All of it, rounded."""
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(self).items()}


def agreement(found: Sequence[Found], types: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """F1 in percent of the entities of each two teachers, of the types that both know, (T, T); NaN of none.

    Args:
        found: Of each teacher the entities of each sentence, the same sentences for all.
        types: That each teacher knows.
    """
    table = np.full((len(found), len(found)), np.nan)
    for one in range(len(found)):
        for other in range(one):
            common = set(types[one]) & set(types[other])
            n_common = n_all = 0
            for first, second in zip(found[one], found[other], strict=True):
                ours, theirs = ({span for span in side if span.label in common} for side in (first, second))
                n_common, n_all = n_common + len(ours & theirs), n_all + len(ours) + len(theirs)
            if n_all:
                table[one, other] = table[other, one] = 200 * n_common / n_all
    return table


class View(NamedTuple):
    """What a teacher finds in a text: the entities of each sentence, of the types that it knows; its sureness."""

    model: str
    language: str
    found: Found
    types: tuple[str, ...]
    sureness: float


def view(model: str, language: str, tagger: Tagger, words: Words) -> View:
    """What a teacher finds; the tagger is not needed any more, so that one after the other may be opened.

    Args:
        model: Its name.
        language: Empty where it is not known.
        tagger: The teacher.
        words: Of the target text.
    """
    probs = tagger.probs(words)
    found = [set(spans_of(decide_tags(rows, tagger.labels))) for rows in probs]
    return View(model, language, found, tagger.types, mean_sureness(probs, tagger.labels.outside_id))


def rank(views: Sequence[View], n_words: int, likenesses: Sequence[float] | None = None) -> list[SourceRank]:
    """The teachers, the one that seems to fit best first.

    Args:
        views: Of each teacher, of one text.
        n_words: Of the text.
        likenesses: Of their languages to the target, from `source_likeness`; None: not looked at.
    """
    ranks = []
    table = agreement([one.found for one in views], [one.types for one in views])
    for number, (one, row) in enumerate(zip(views, table, strict=True)):
        known = row[~np.isnan(row)]
        agrees = float(known.mean()) if len(known) else None
        like = likenesses[number] if likenesses is not None else None
        per_1000 = 1000 * sum(map(len, one.found)) / max(1, n_words)
        ranks.append(SourceRank(one.model, one.language, one.sureness, agrees, like, per_1000))
    return in_order(ranks)


def unlike_types(views: Sequence[View]) -> Iterator[str]:
    """A line for each teacher that knows other types than the others: what its agreement is of."""
    for number, one in enumerate(views):
        others = {name for other in (*views[:number], *views[number + 1 :]) for name in other.types}
        if not others or others == set(one.types):
            continue
        common = sorted(others & set(one.types))
        of_these = f"agreement is of {', '.join(common)} alone" if common else "it has no agreement with them"
        yield f"{one.model}: knows {', '.join(one.types)}, the others {', '.join(sorted(others))}: {of_these}"


def in_order(ranks: Sequence[SourceRank]) -> list[SourceRank]:
    """The best first: those that are as sure as the surest but for `AS_SURE`, by agreement; then the next ones so.

    Likeness decides nothing: it told no good teacher from a poor one where it was measured (docs/results.md).
    """
    groups: list[list[SourceRank]] = []
    for rank in sorted(ranks, key=lambda rank: -rank.sureness):
        if not groups or groups[-1][0].sureness - rank.sureness > AS_SURE:
            groups.append([])
        groups[-1].append(rank)
    return [rank for group in groups for rank in sorted(group, key=lambda rank: -(rank.agreement or 0.0))]


def sources_of(models: Sequence[str], data: str, n_sentences: int) -> SourceLanguages:
    """The languages of the teachers and their text, looked at before any of them is opened.

    Args:
        models: Teachers.
        data: Folder with LANGUAGE/train.conll or train.txt of each of their languages.
        n_sentences: How many sentences of each language are read.

    Raises:
        RecipeError: If a teacher does not say its language, its text is missing or short, or all have one language.
        ModelError: If one is not there, or the first one has no hidden states, which languages are compared by.
    """
    first = Path(models[0])
    if is_compact(first) or is_exported(first):
        raise ModelError(
            f"{first}: is a compact or exported model, without the hidden states that --data compares languages by; "
            "name another model first, or leave --data out"
        )
    corpus = CorpusRecipe(max_sentences=n_sentences)
    return source_languages(Teachers(tuple(models), MixingRecipe(), corpus, data, None))


def source_likeness(
    model: str, sources: SourceLanguages, words: Words, n_sentences: int, device: torch.device
) -> list[float]:
    """How like the language of each teacher is to the target, by a language identifier that knows theirs alone.

    Args:
        model: Its encoder gives the vectors: the first teacher.
        sources: From `sources_of`.
        words: Of the target text.
        n_sentences: How many sentences of each language are read.
        device: Where to compute.
    """
    corpus = CorpusRecipe(max_sentences=n_sentences)
    texts = [[sentence.words for sentence in target_stream(path, corpus)] for path in sources.texts]
    _, probs = likeness(model, texts, words, device, None)
    means = probs.mean(axis=0)
    return [float(means[number]) for number in sources.of_teachers]
