"""More text for a student: new sentences made out of those of the target, labelled by the same teacher."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from xlner.config.schema import CorpusRecipe
from xlner.corpora.write import write_corpus
from xlner.encode import load_tokenizer
from xlner.files import file_digest, json_digest, read_json, write_json
from xlner.models.settings import is_compact
from xlner.soft_labels.label import DenoisingContext, Teachers
from xlner.soft_labels.mix import taught_soft_labels
from xlner.soft_labels.steps import denoised_soft_labels
from xlner.soft_labels.store import FORMULAS, SoftLabels, SoftRow, derived_soft_labels, locked
from xlner.words import Sentence

# Classes of words that stand in like places, found by what stands beside them; no tagger, no labels.
#
# A word is described by how often each of the most frequent words stands right before and right behind it; k-means
# puts like descriptions together. Words of one class also agree in whether they begin with a capital, are numbers, or
# have no letter, so that a name is replaced by a name. Source: distributional classes as in Schütze 1995 (E95-1020).


N_NEIGHBOURS = 300  # most frequent words that describe others
N_DIRECTIONS = 50  # of the descriptions, after reducing them
ROUNDS = 15


@dataclass(frozen=True)
class WordClasses:
    """Words by class; the words of a class are drawn as often as they occur."""

    class_of: dict[str, int]
    members: tuple[tuple[str, ...], ...]
    shares: tuple[NDArray[np.float64], ...]

    def like(self, word: str, rng: np.random.Generator) -> str:
        """A word of the same class, at times the same one; the word itself where it has no class."""
        number = self.class_of.get(word)
        return word if number is None else str(rng.choice(self.members[number], p=self.shares[number]))


def find_classes(
    sentences: Iterable[Sequence[str]], *, n_classes: int, min_frequency: int, rng: np.random.Generator
) -> WordClasses:
    """Find the classes of a text, which is gone through once; rarer words have none.

    Args:
        sentences: Of words.
        n_classes: By description; the outline of the words divides them further.
        min_frequency: A word with a class occurs at least so often.
        rng: Of the first centres.
    """
    counts: Counter[str] = Counter()
    beside: Counter[tuple[str, str]] = Counter()
    for words in sentences:
        counts.update(words)
        padded = ["", *words, ""]
        beside.update(pairwise(padded))
    described = sorted(
        (word for word, count in counts.items() if count >= min_frequency), key=lambda w: (-counts[w], w)
    )
    if not described:
        return WordClasses({}, (), ())
    rows = {word: number for number, word in enumerate(described)}
    columns = {word: number for number, word in enumerate(["", *described[:N_NEIGHBOURS]])}
    table = np.zeros((len(rows), 2 * len(columns)), dtype=np.float64)
    for (first, second), count in beside.items():
        if second in rows and first in columns:
            table[rows[second], columns[first]] += count
        if first in rows and second in columns:
            table[rows[first], len(columns) + columns[second]] += count
    found = _k_means(_directions(np.log1p(table)), n_classes, rng)
    by_class: dict[tuple[int, str], list[str]] = {}
    for word, number in zip(described, found.tolist(), strict=True):
        by_class.setdefault((number, _outline(word)), []).append(word)
    groups = list(by_class.values())
    shares = [np.asarray([counts[word] for word in group], dtype=np.float64) for group in groups]
    return WordClasses(
        {word: number for number, group in enumerate(groups) for word in group},
        tuple(map(tuple, groups)),
        tuple([share / share.sum() for share in shares]),
    )


def _directions(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors along the directions in which the rows differ most."""
    centred = table - table.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    reduced = centred @ directions[:, ::-1][:, :N_DIRECTIONS]
    lengths = np.linalg.norm(reduced, axis=1, keepdims=True)
    return np.asarray(reduced / np.maximum(lengths, 1e-12))


def _k_means(points: NDArray[np.float64], n_classes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    centres = points[rng.choice(len(points), min(n_classes, len(points)), replace=False)]
    nearest = np.zeros(len(points), dtype=np.int64)
    for _ in range(ROUNDS):
        nearest = (points @ centres.T).argmax(axis=1)
        for number in range(len(centres)):
            if (members := points[nearest == number]).size:
                mean = members.mean(axis=0)
                centres[number] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return nearest


def _outline(word: str) -> str:
    return "0" if any(map(str.isdigit, word)) else "X" if word[:1].isupper() else "x" if word[:1].isalpha() else word


# New sentences out of those of a text, for a teacher to label: words hidden or exchanged, parts of it, two in one.
#
# No label is carried over, so that none can be wrong. Sentences come as a stream, and the same seed gives the same
# ones.
#
# Source: Tang et al. 2019 (arXiv:1903.12136), section 3.3; classes of words in place of parts of speech.


HIDDEN_RATIO = 0.1  # of the words
EXCHANGED_RATIO = 0.15  # of the words
PART_RATIO = 0.25  # of the new sentences: an n-gram instead of the whole
LONGEST_PART = 5  # words
JOINED_RATIO = 0.1  # of the new sentences: with another sentence behind it
REMEMBERED = 64  # sentences before it, out of which the other one is drawn


def augmented(
    sentences: Iterable[Sequence[str]], n: int, classes: WordClasses, mask: str, seed: int
) -> Iterator[tuple[str, ...]]:
    """`n` new sentences for each one that has words, those of a sentence one after the other.

    Args:
        sentences: Of words.
        n: How many for each.
        classes: What words are exchanged with.
        mask: Stands for a hidden word.
        seed: Of every choice.
    """
    rng = np.random.default_rng(seed)
    before: list[Sequence[str]] = []
    for words in sentences:
        if not words:
            continue
        for _ in range(n):
            yield _new_sentence(words, before, classes, mask, rng)
        before = [*before[1 - REMEMBERED :], words]


def _new_sentence(
    words: Sequence[str],
    before: Sequence[Sequence[str]],
    classes: WordClasses,
    mask: str,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    draws = rng.random(len(words))
    changed = [
        mask if draw < HIDDEN_RATIO else classes.like(word, rng) if draw < HIDDEN_RATIO + EXCHANGED_RATIO else word
        for word, draw in zip(words, draws.tolist(), strict=True)
    ]
    form = rng.random()
    if form < PART_RATIO:
        length = int(rng.integers(1, LONGEST_PART + 1))
        start = int(rng.integers(0, max(1, len(changed) - length + 1)))
        return tuple(changed[start : start + length])
    if form < PART_RATIO + JOINED_RATIO and before:
        return (*changed, *before[int(rng.integers(len(before)))])
    return tuple(changed)


# More text for a student: new sentences made of the target's, labelled by the same teacher as those.


N_CLASSES = 100
CLASS_FREQUENCY = 3  # a word that is exchanged, or that takes the place of another, occurs at least so often
NO_MASK = "_"  # stands for a hidden word where the teacher has no mask of its own


def with_augmented(
    soft_labels: SoftLabels,
    trained: Sequence[int],
    n_new: int,
    seed: int,
    teachers: Teachers,
    steps: Sequence[tuple[str, Any]],
    accelerator: Accelerator,
    number_format: torch.dtype | None,
) -> SoftLabels:
    """Soft labels of a text, followed by those of `n_new` new sentences for each one that is trained on.

    New sentences are written once, as words, beside the soft labels, and labelled and denoised as the text was.

    Args:
        soft_labels: Of the target text, denoised, and of what follows it.
        trained: The numbers of the target's sentences of which new ones are made; held-out ones stay unseen.
        n_new: As above.
        seed: Of all draws.
        teachers: Label the new sentences.
        steps: As for `denoised_soft_labels`.
        accelerator: Of the run; every process calls it.
        number_format: As for `taught_soft_labels`.
    """
    mask = _mask(teachers.models)
    settings = [n_new, seed, mask, *map(int, trained), soft_labels.digest]
    digest = json_digest([FORMULAS["augmented"], settings])[:12]
    path = soft_labels.folder / f"augmented-{digest}.jsonl"
    with locked(path.with_suffix(""), accelerator):
        if accelerator.is_main_process and not _is_whole(path):
            write_corpus(map(Sentence, _new_sentences(soft_labels, trained, n_new, seed, mask)), path)
            write_json(path.with_suffix(".json"), {"text": file_digest(path)})
        accelerator.wait_for_everyone()
    own = replace(teachers, corpus=CorpusRecipe(), store=path.with_suffix(""))
    taught = taught_soft_labels(own, path, accelerator, number_format)
    new = denoised_soft_labels(taught.soft_labels, steps, DenoisingContext(accelerator, taught.outside_share))

    def rows() -> Iterator[SoftRow]:
        for labels in (soft_labels, new):
            for number in range(len(labels)):
                yield labels.row(number)

    return derived_soft_labels(soft_labels, "augmented", [digest, new.digest], rows, accelerator)


def _is_whole(path: Path) -> bool:
    """Whether new sentences lie there as they were written."""
    try:
        return read_json(path.with_suffix(".json")) == {"text": file_digest(path)}
    except (OSError, ValueError):
        return False


def _new_sentences(
    soft_labels: SoftLabels, trained: Sequence[int], n_new: int, seed: int, mask: str
) -> Iterator[tuple[str, ...]]:
    def sentences() -> Iterator[list[str]]:
        return (soft_labels.words(number) for number in trained)

    classes = find_classes(
        sentences(), n_classes=N_CLASSES, min_frequency=CLASS_FREQUENCY, rng=np.random.default_rng(seed)
    )
    return augmented(sentences(), n_new, classes, mask, seed)


def _mask(models: Sequence[str]) -> str:
    # A compact teacher knows no pieces, and so no mask.
    tokens = [load_tokenizer(teacher).mask_token for teacher in models if not is_compact(Path(teacher))]
    return next((str(token) for token in tokens if token), NO_MASK)
