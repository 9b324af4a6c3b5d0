"""Which teacher to take for a language without labels: by what can be seen in its raw text.

Three signs, none of which looks at a label: how sure a teacher is of what it takes for entities, how far it finds what
the other teachers find, and how like its language is to the target. Shapes: T teachers, W words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xlner.config.schema import CorpusRecipe, MixingRecipe
from xlner.predict import decide_tags
from xlner.soft_labels.label import Teachers, target_stream
from xlner.soft_labels.languages import likeness, source_languages
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


def rank(
    taggers: Mapping[str, Tagger], languages: Sequence[str], words: Words, likenesses: Sequence[float] | None = None
) -> list[SourceRank]:
    """The teachers, the one that seems to fit best first.

    Args:
        taggers: By name.
        languages: Of each, empty where it is not known.
        words: Of the target text.
        likenesses: Of their languages to the target, from `source_likeness`; None: not looked at.
    """
    found, ranks = [], []
    n_words = max(1, sum(map(len, words)))
    for number, (name, tagger) in enumerate(taggers.items()):
        probs = tagger.probs(words)
        found.append([set(spans_of(decide_tags(rows, tagger.labels))) for rows in probs])
        n_entities = sum(map(len, found[-1]))
        sureness = mean_sureness(probs, tagger.labels.outside_id)
        like = likenesses[number] if likenesses is not None else None
        ranks.append(SourceRank(name, languages[number], sureness, None, like, 1000 * n_entities / n_words))
    table = agreement(found, [tagger.types for tagger in taggers.values()])
    for number, row in enumerate(table):
        known = row[~np.isnan(row)]
        ranks[number] = replace(ranks[number], agreement=float(known.mean()) if len(known) else None)
    return in_order(ranks)


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


def source_likeness(
    models: Sequence[str], data: str, words: Words, n_sentences: int, device: torch.device
) -> list[float]:
    """How like the language of each teacher is to the target, by a language identifier that knows theirs alone.

    Args:
        models: Teachers; the encoder of the first gives the vectors.
        data: Folder with LANGUAGE/train.conll or train.txt of each of their languages.
        words: Of the target text.
        n_sentences: How many sentences of each language are read.
        device: Where to compute.

    Raises:
        RecipeError: If a teacher does not say its language, its text is missing or short, or all have one language.
    """
    corpus = CorpusRecipe(max_sentences=n_sentences)
    sources = source_languages(Teachers(tuple(models), MixingRecipe(), corpus, data, None))
    texts = [[sentence.words for sentence in target_stream(path, corpus)] for path in sources.texts]
    _, probs = likeness(models[0], texts, words, device, None)
    means = probs.mean(axis=0)
    return [float(means[number]) for number in sources.of_teachers]
