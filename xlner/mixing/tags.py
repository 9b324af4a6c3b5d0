"""The tags of any teacher as IOB2: other orders, schemes and names of types, and types that it does not know.

Tags are told by their prefixes: `B S U W` begin an entity, `I E L M` continue one (IOB2, BIOES, BILOU, BMEWO), and
what has no prefix is a type alone (`PER`). A teacher with a type that has no beginning of its own is read as IO or
IOB1: there the word before tells. Shapes: W words of a sentence, R tags of the teacher, C tags in IOB2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from xlner.errors import LabelError
from xlner.labels import OUTSIDE, LabelMap, LabelSet

Probs = NDArray[np.float64]

_BEGIN, _INSIDE = "BSUW", "IELM"


@dataclass(frozen=True)
class TagReading:
    """What a model's tags mean; `begins` and `continues` hold the numbers of the tags of each type in `labels`.

    `n_tags` counts the model's own tags.
    """

    labels: LabelSet
    begins: tuple[tuple[int, ...], ...]
    continues: tuple[tuple[int, ...], ...]
    states_beginnings: bool
    n_tags: int

    @classmethod
    def of(cls, tags: Sequence[str], rename: LabelMap) -> Self:
        """Read a teacher's tags, in the order of its outputs; the types come under their new names.

        Raises:
            LabelError: If `O` is missing.
        """
        if OUTSIDE not in tags:
            raise LabelError(f"a tagger needs the tag O; found {', '.join(tags) or 'no tags'}")
        split = [prefix_and_type(tag) for tag in tags]
        prefixes: dict[str, str] = {}  # of each type, under its old name
        for prefix, name in split:
            if name:
                prefixes[name] = prefixes.get(name, "") + (prefix or "I")
        new_names = [rename.type_of(name) if name else "" for _, name in split]
        labels = LabelSet.of_types([name for name in new_names if name])
        places: list[list[tuple[int, ...]]] = [
            [
                tuple(
                    [
                        number
                        for number, (prefix, _) in enumerate(split)
                        if new_names[number] == name and (prefix in tuple(_BEGIN)) is begin
                    ]
                )
                for name in labels.types
            ]
            for begin in (True, False)
        ]
        stated = all(set(found) & set(_BEGIN) for found in prefixes.values())
        return cls(labels, tuple(places[0]), tuple(places[1]), stated, len(tags))

    def iob2(self, probs: NDArray[np.floating]) -> Probs:
        """Probabilities (W, R) of the teacher's tags as those of `labels`, (W, C); rows of zeros stay so.

        Where the tags do not state beginnings, the mass n_i of a type at word i that says no more than *inside* is
        parted by the mass q of the type at the word before, words being independent given the text, as every tagger
        of words takes them to be:

            B_i = b_i + n_i (1 - q_{i-1}),    I_i = n_i q_{i-1}

        b_i is what begins for certain (IOB1's B behind a neighbour of the same type). Types that were dropped are `O`.
        """
        raw = np.asarray(probs, dtype=np.float64)
        result = np.zeros((len(raw), len(self.labels.tags)))
        seen = np.any(raw > 0, axis=1)
        before = _seen_before(seen)
        for number, (begins, continues) in enumerate(zip(self.begins, self.continues, strict=True)):
            begin, inside = raw[:, list(begins)].sum(axis=1), raw[:, list(continues)].sum(axis=1)
            if not self.states_beginnings:
                mass = np.append(begin + inside, 0.0)  # the last one is for words with none before them
                continued = inside * np.minimum(mass[before], 1.0)
                begin, inside = begin + inside - continued, continued
            result[:, 1 + 2 * number], result[:, 2 + 2 * number] = begin, inside
        result[:, 0] = np.where(seen, np.maximum(1.0 - result.sum(axis=1), 0.0), 0.0)
        return result


def read_tagging(tags: Sequence[str], *, begins: bool) -> tuple[LabelSet, TagReading | None]:
    """The labels of a model in IOB2, and how its own tags become them; None where they are those already.

    Args:
        tags: Of the model, in the order of its outputs, of any scheme.
        begins: As in `LabelSet`, of tags that are IOB2 already.

    Raises:
        LabelError: If `O` is missing.
    """
    if is_iob(tags):
        return LabelSet(tuple(tags), begins), None
    reading = TagReading.of(tags, LabelMap({}))
    return reading.labels, reading


def prefix_and_type(tag: str) -> tuple[str, str]:
    """`S-PER` into `S` and `PER`, `PER` into nothing and `PER`, `O` into nothing and nothing."""
    prefix, dash, name = tag.partition("-")
    if dash and name and len(prefix) == 1 and prefix in _BEGIN + _INSIDE:
        return prefix, name
    return ("", "") if tag == OUTSIDE else ("", tag)


def is_iob(tags: Sequence[str]) -> bool:
    """Whether a student can have these very tags: `O`, `B-X` and `I-X`, each once."""
    return (
        OUTSIDE in tags
        and len(set(tags)) == len(tags)
        and all(tag == OUTSIDE or prefix_and_type(tag)[0] in tuple("BI") for tag in tags)
    )


def _seen_before(seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each word the place of the last one before it that the teacher saw; -1 where there is none."""
    places = np.where(seen, np.arange(len(seen)), -1)
    return np.concatenate([[-1], np.maximum.accumulate(places)])[: len(seen)].astype(np.int64)
