"""How sure a teacher is of its labels, and what denoising changed: what can be known without any target label.

`docs/method.md` says how often these numbers told a student that ended below its teacher.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

# A teacher surer than this was never seen to have poor labels, one less sure than that never good ones; see the docs.
UNSURE = 0.6
# Of the words that the teacher takes for entities: more changed labels than this and denoising is what labels the text.
MUCH_CHANGED = 0.3
# Labels that decide next to nothing: an entity in fewer words than this is a teacher that does not know the language.
NO_ENTITIES = 0.002


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

    def lines(self) -> list[str]:
        """What a person is told: the numbers, then a warning where there is reason for one."""
        share = 100 * self.entity_words / max(1, self.words)
        told = [
            f"the teacher takes {self.entity_words:,} of {self.words:,} words ({share:.1f} %) for entities and is "
            f"{100 * self.sureness:.0f} % sure of them; of their labels denoising made {self.removed:,} O and gave "
            f"{self.retyped:,} another type, and it added {self.added:,}"
        ]
        if self.entity_words < NO_ENTITIES * self.words:
            told.append(
                "warning: the teacher finds next to no entity in this text, so a student of it cannot either; is it "
                "the language that target= says, and does the encoder know that language?"
            )
        elif self.sureness < UNSURE:
            told.append(
                f"warning: less than {100 * UNSURE:.0f} % sure is a teacher that hardly knows this language; look at "
                "what the student finds before you use it"
            )
        elif self.changed_share > MUCH_CHANGED:
            told.append(
                f"warning: denoising changed more than {100 * MUCH_CHANGED:.0f} labels for every 100 words of "
                "entities; if you have labelled sentences, compare with denoising=none"
            )
        return told


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
