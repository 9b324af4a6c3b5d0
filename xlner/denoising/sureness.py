"""How sure a teacher is of its labels, and what denoising changed: what can be known without any target label.

`docs/results.md` says what is known of these numbers.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

# Both lie beyond what the runs of docs/results.md had (sure by 0.72 to 0.93; at most 14 changed labels in 100 with the
# real encoder), all of whose students ended above their teachers: what is told of is a case that nobody has measured.
UNSURE = 0.6
MUCH_CHANGED = 0.3  # per word that the teacher takes for an entity


@dataclass(frozen=True)
class LabelChanges:
    """What became of a teacher's labels, counted in words that the teacher could see.

    `sureness` is the mean of the highest probability over the words that the teacher takes for (parts of) entities, 0
    where there are none. `removed` words were of an entity and are `O` now, `added` the other way round, `retyped` are
    of an entity of another type; a new border alone is no change.
    """

    words: int
    entity_words: int
    sureness: float
    removed: int
    added: int
    retyped: int

    @property
    def changed_share(self) -> float:
        """Changed words per word that the teacher takes for an entity."""
        return (self.removed + self.added + self.retyped) / max(1, self.entity_words)

    def to_json(self) -> dict[str, float]:
        """For report.json."""
        return {**asdict(self), "sureness": round(self.sureness, 4)}

    def line(self) -> str:
        """What a person is told."""
        share = 100 * self.entity_words / max(1, self.words)
        return (
            f"the teacher takes {self.entity_words:,} of {self.words:,} words ({share:.1f} %) for entities and is "
            f"{100 * self.sureness:.0f} % sure of them; of their labels denoising made {self.removed:,} O and gave "
            f"{self.retyped:,} another type, and it added {self.added:,}"
        )

    def doubts(self) -> list[str]:
        """Why the student may end below its teacher; what finds no entity at all is told elsewhere."""
        if not self.entity_words:
            return []
        if self.sureness < UNSURE:
            return [
                f"the teacher is {100 * self.sureness:.0f} % sure of what it takes for entities, as teachers are that "
                "hardly know a language: look at what the student finds before you use it"
            ]
        if self.changed_share > MUCH_CHANGED:
            return [
                f"denoising changed {100 * self.changed_share:.0f} labels for every 100 words of entities: if you have "
                "labelled sentences, compare with denoising=none"
            ]
        return []


def mean_sureness(sentences: Iterable[NDArray[np.floating]], outside: int) -> float:
    """`LabelChanges.sureness` of tag probabilities, (W, C) a sentence; rows of zeros are words not seen."""
    total, count = 0.0, 0
    for probs in sentences:
        if len(probs):
            highest = probs.max(axis=1)[probs.argmax(axis=1) != outside]
            total, count = total + float(highest.sum()), count + len(highest)
    return total / count if count else 0.0


def label_changes(
    pairs: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]], tags: tuple[str, ...], outside: str
) -> LabelChanges:
    """Compare a teacher's labels with what was made of them.

    Args:
        pairs: Probabilities of a sentence before and after, both (W, C).
        tags: Of the columns.
        outside: The tag of words outside entities.
    """
    # Of each tag the number of its type, 0 for `O`: B and I of a type are one.
    names = [tag.partition("-")[2] if tag != outside else "" for tag in tags]
    numbers = {name: number for number, name in enumerate(sorted({*names}))}
    type_of = np.asarray([numbers[name] for name in names])
    none = type_of[tags.index(outside)]
    words = entity_words = removed = added = retyped = 0
    total = 0.0
    for before, after in pairs:
        seen = np.any(before, axis=1)
        old, new = type_of[before[seen].argmax(axis=1)], type_of[after[seen].argmax(axis=1)]
        total += float(before[seen].max(axis=1)[old != none].sum()) if seen.any() else 0.0
        words, entity_words = words + int(seen.sum()), entity_words + int((old != none).sum())
        removed, added = (
            removed + int(((old != none) & (new == none)).sum()),
            added + int(((old == none) & (new != none)).sum()),
        )
        retyped += int(((old != none) & (new != none) & (old != new)).sum())
    return LabelChanges(words, entity_words, total / entity_words if entity_words else 0.0, removed, added, retyped)
