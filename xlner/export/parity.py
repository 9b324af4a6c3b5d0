"""How far an export agrees with what it was made of; only what agrees is published."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xlner.backends import PARITY_FILE
from xlner.errors import ModelError
from xlner.evaluate import check_types_in_common, score_tags
from xlner.files import to_json
from xlner.predict import Probs, decide_tags
from xlner.tagger import Tagger, load_tagger

# What an export may cost: F1 in percent, or percent of the words' tags where there are no labels to score against.
HIGHEST_F1_LOSS = 0.5
LOWEST_EQUAL_TAGS = 99.5


@dataclass(frozen=True)
class Parity:
    """Before and after: `f1_before` and `f1_after` in percent, None without labels; `equal_tags` in percent of words.

    `highest_difference` is that of any tag's probability, of any word.
    """

    n_sentences: int
    n_words: int
    highest_difference: float
    equal_tags: float
    f1_before: float | None
    f1_after: float | None

    @property
    def loss(self) -> float:
        """What the export costs: percent of F1, or of the tags without labels; below 0 for a gain of F1."""
        if self.f1_before is None or self.f1_after is None:
            return 100.0 - self.equal_tags
        return self.f1_before - self.f1_after

    @property
    def acceptable(self) -> bool:
        """Whether the export may be published without being forced."""
        if self.f1_before is None:
            return self.equal_tags >= LOWEST_EQUAL_TAGS
        return self.loss <= HIGHEST_F1_LOSS

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    def __str__(self) -> str:
        scores = "" if self.f1_before is None else f", F1 {self.f1_before:.2f} before and {self.f1_after:.2f} after"
        return (
            f"{self.n_sentences:,} sentences, {self.n_words:,} words: highest difference of a probability "
            f"{self.highest_difference:.2g}, equal tags {self.equal_tags:.2f} %{scores}"
        )


class Attempt(NamedTuple):
    """A way to store the weights, and what became of the tagger by it."""

    scheme: str
    parity: Parity


class Reference:
    """What the original predicts for some sentences, kept to compare any number of exports with."""

    def __init__(
        self, original: Tagger, sentences: Sequence[Sequence[str]], gold: Sequence[Sequence[str]] | None
    ) -> None:
        """Tag the sentences.

        Args:
            original: What is to be exported.
            sentences: At least one, of words.
            gold: Their tags, if they are labelled. Where the original finds none of their entities, F1 tells nothing,
                and equal tags decide.

        Raises:
            LabelError: If they have no entity type in common with the original.
        """
        if gold is not None:
            check_types_in_common(original.types, gold)
        self._labels = original.labels
        self._sentences = sentences
        self._probs = original.probs(sentences)
        self._tags = [decide_tags(probs, self._labels) for probs in self._probs]
        self._f1 = None if gold is None else score_tags(gold, self._tags).overall.f1 or None
        self._gold = gold if self._f1 is not None else None

    def compare(self, export: Tagger) -> Parity:
        """Tag the sentences again, by what was exported."""
        probs = export.probs(self._sentences)
        tags = [decide_tags(rows, self._labels) for rows in probs]
        n_words = sum(map(len, self._sentences))
        n_equal = sum(
            a == b for one, other in zip(tags, self._tags, strict=True) for a, b in zip(one, other, strict=True)
        )
        f1 = None if self._gold is None else score_tags(self._gold, tags).overall.f1
        return Parity(
            len(self._sentences), n_words, _highest(self._probs, probs), 100.0 * n_equal / max(1, n_words), self._f1, f1
        )


def _highest(before: Sequence[Probs], after: Sequence[Probs]) -> float:
    pairs = zip(before, after, strict=True)
    return max((float(np.abs(one - other).max(initial=0.0)) for one, other in pairs), default=0.0)


def built_in_sentences() -> list[list[str]]:
    """Sentences to compare an export on where no corpus is given, in words; they are some of the demo's test sets."""
    return [line.split() for line in Path(__file__).with_name("sentences.txt").read_text("utf-8").splitlines()]


# What exports of whole folders share: where they may be written, and that only what agrees with the original stays.


def check_target(target: Path, model: str, what: str, others: Callable[[Path], Collection[str]]) -> None:
    """Refuse a folder that an export would overwrite, unless all that it holds is of an earlier export.

    Args:
        target: To be written, or replaced.
        model: The original.
        what: The export makes, as messages call it.
        others: What a folder holds beside an earlier such export; all of it, where there is none.

    Raises:
        ModelError: If it is a file, the original itself, or holds other things.
    """
    if target.resolve() == Path(model).resolve():
        raise ModelError(f"{target}: is the model itself; give another folder")
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target}: is a file; expected a folder to write, or nothing")
    if target.is_dir() and (found := sorted(others(target))):
        raise ModelError(
            f"{target}: holds other things than {what} ({', '.join(found[:5])}); give another folder, or an empty one"
        )


def compared(
    unfinished: Path,
    model: str,
    precision: str,
    scheme: str,
    reference: Reference,
    *,
    force: bool,
    report: Callable[[Attempt], None],
) -> Attempt:
    """Hold a written folder against the original; one that differs too much is removed, unless it is forced.

    Args:
        unfinished: The folder; it gets `parity.json`.
        model: The original, as messages call it.
        precision: Of its weights, as it was asked for.
        scheme: How they are stored.
        reference: What the original said.
        force: Keep it even if it differs too much.
        report: Called with the result before that is decided.

    Raises:
        ModelError: If it differs too much.
    """
    result = Attempt(scheme, reference.compare(load_tagger(unfinished)))
    report(result)
    if not result.parity.acceptable and not force:
        shutil.rmtree(unfinished, ignore_errors=True)  # the disk must not speak over the reason
        raise ModelError(f"{model}: differs too much after the export: {result.scheme}: {result.parity}")
    write_parity(unfinished, {"precision": precision, **result.parity.to_json()})
    return result


def write_parity(folder: Path, content: Mapping[str, Any]) -> None:
    """Keep a comparison beside what was compared."""
    (folder / PARITY_FILE).write_text(to_json(content, indent=2, ascii_only=True) + "\n", encoding="utf-8")
