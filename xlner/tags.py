"""Tags: label sets, the entities that a sequence of tags means, and the tags of any tagger as IOB2.

Inside the package all tags are IOB2 (`B-PER`, `I-PER`, `O`). Spans are half-open and count words.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from xlner.errors import LabelError, is_visible

OUTSIDE = "O"
# Types that published corpora have: CoNLL, OntoNotes, WikiNEuRal, MultiNERD, MasakhaNER, GermEval.
COMMON_TYPES = frozenset(
    (
        *("PER", "PERSON", "LOC", "LOCATION", "ORG", "ORGANIZATION", "ORGANISATION", "MISC"),
        *("GPE", "NORP", "FAC", "FACILITY", "PRODUCT", "PROD", "EVENT", "EVE", "WORK_OF_ART", "LAW", "LANGUAGE"),
        *("DATE", "TIME", "PERCENT", "MONEY", "QUANTITY", "ORDINAL", "CARDINAL"),
        *("ANIM", "BIO", "CEL", "DIS", "FOOD", "INST", "MEDIA", "MYTH", "PLANT", "VEHI", "OTH"),
    )
)


class Span(NamedTuple):
    """An entity in words: words `start` to `end`, the last one excluded."""

    label: str
    start: int
    end: int


@dataclass(frozen=True)
class LabelSet:
    """The tags that a model knows, in the order of its output; a tag's id is its place in `tags`.

    `begins` says that every entity begins with `B-X`, as IOB2 has it; False for models of unknown make, some of which
    have learnt IOB1.
    """

    tags: tuple[str, ...]
    begins: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        """Refuse what could not be decoded later."""
        if OUTSIDE not in self.tags:
            raise LabelError(f"a label set needs the tag O; found {', '.join(self.tags) or 'no tags'}")
        if len(set(self.tags)) != len(self.tags):
            raise LabelError(f"each tag must stand once in a label set; found {', '.join(self.tags)}")
        for tag in self.tags:
            split_tag(tag)
            if not is_visible(tag):
                raise LabelError(f"found tag {tag!a}; expected no control characters, TABs or line ends in it")

    @classmethod
    def of_types(cls, types: Iterable[str]) -> "LabelSet":
        """`O`, then B and I of each type, the types in alphabetical order: same corpus, same ids."""
        return cls((OUTSIDE, *(f"{prefix}-{name}" for name in sorted(set(types)) for prefix in "BI")))

    @classmethod
    def of_model(cls, id2label: Mapping[int, str], *, begins: bool = False) -> "LabelSet":
        """The tags of a Hugging Face configuration, in the order of their ids."""
        return cls(tuple(id2label[index] for index in sorted(id2label)), begins)

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types, in alphabetical order."""
        return tuple(sorted({split_tag(tag)[1] for tag in self.tags} - {""}))

    @property
    def outside_id(self) -> int:
        """The id of `O`."""
        return self.tags.index(OUTSIDE)

    def ids(self, tags: Iterable[str]) -> list[int]:
        """The ids of tags, by name.

        Raises:
            LabelError: If a tag is not of this set; the message names the nearest known one.
        """
        table = {tag: index for index, tag in enumerate(self.tags)}
        try:
            return [table[tag] for tag in tags]
        except KeyError as unknown:
            tag = str(unknown.args[0])
            near = get_close_matches(tag, self.tags, n=1)
            raise LabelError(
                f"unknown tag {tag!r}; known: {', '.join(self.tags)}" + (f"; did you mean {near[0]!r}?" if near else "")
            ) from None


@dataclass(frozen=True)
class LabelMap:
    """What entity types become: old name to new one; an empty new name turns the type into `O`.

    `others` is the new name of all types that have none of their own; None leaves them as they are.
    """

    names: Mapping[str, str]
    others: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `MISC=,PERSON=PER,GPE=LOC`, where `*=` stands for all types that are not named; empty: no change.

        Raises:
            LabelError: If it is not of this form, or says two things about one type.
        """
        names: dict[str, str] = {}
        for part in text.split(",") if text.strip() else []:
            old, equals, new = (name.strip() for name in part.partition("="))
            if not equals or not old or "=" in new or new == "*":
                raise LabelError(
                    f"found {part.strip()!r} in the label map {text!r}; expected OLD=NEW, or OLD= to drop a type, "
                    "with commas between, as in MISC=,PERSON=PER,GPE=LOC; *= drops all types that are not named"
                )
            if prefixed := next((name for name in (old, new) if name[:2] in ("B-", "I-")), ""):
                raise LabelError(f"found {prefixed!r} in the label map; expected a type without prefix: {prefixed[2:]}")
            if old in names:
                raise LabelError(
                    f"the label map names {old} twice, with {names[old] or 'nothing'} and {new or 'nothing'}"
                )
            names[old] = new
        return cls({old: new for old, new in names.items() if old != "*"}, names.get("*"))

    def __bool__(self) -> bool:
        return bool(self.names) or self.others is not None

    def __str__(self) -> str:
        everything = self.names if self.others is None else {**self.names, "*": self.others}
        return ",".join(f"{old}={new}" for old, new in everything.items())

    def type_of(self, name: str) -> str:
        """The new name of a type; empty if it is dropped."""
        return self.names.get(name, name if self.others is None else self.others)

    def apply(self, tags: Sequence[str]) -> tuple[str, ...]:
        """The tags with new types, as IOB2; two entities that stood side by side stay two."""
        spans = [span._replace(label=self.type_of(span.label)) for span in spans_of(tags)]
        return tags_of([span for span in spans if span.label], len(tags))

    def for_predictions(self) -> "LabelMap":
        """The map for what a model predicts, which may know the new names already: those stay."""
        new_names = {*self.names.values(), self.others or ""} - {""}
        return LabelMap({**self.names, **{name: name for name in new_names}}, self.others)

    def check(self, types: Iterable[str], where: str) -> None:
        """Refuse to name a type that is nowhere, where that is a slip of the pen.

        A map serves for many corpora, so that a type of `COMMON_TYPES` may be missing in one of them.

        Raises:
            LabelError: With the types that there are and the nearest one.
        """
        known = sorted(set(types))
        by_lower = {name.lower(): name for name in known}
        for name in self.names:
            if name not in known and (name not in COMMON_TYPES or name.lower() in by_lower):
                near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
                raise LabelError(
                    f"the label map names {name}, a type not found in {where}; "
                    f"types there: {', '.join(known) or 'none'}"
                    + (f"; did you mean {by_lower[near[0]]}?" if near else "")
                )


def split_tag(tag: str) -> tuple[str, str]:
    """`B-PER` into prefix `B` and type `PER`; `O` into `O` and the empty type.

    Raises:
        LabelError: If the tag is neither `O` nor `B-TYPE` nor `I-TYPE`.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, name = tag.partition("-")
    if prefix not in ("B", "I") or not dash or not name:
        raise LabelError(f"found tag {tag!r}; expected O, B-TYPE or I-TYPE")
    return prefix, name


def may_follow(before: str, tag: str) -> bool:
    """Whether IOB2 has a tag behind another one: `I-X` stands behind `B-X` and `I-X` alone, all others anywhere.

    The beginning of a sentence is as `O`.
    """
    return tag[:2] != "I-" or tag[1:] == before[1:]


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The entities that a sequence of tags means, read as seqeval and conlleval read it.

    An `I-X` that does not continue an entity of type X begins one, so the function takes IOB1, IOB2 and
    whatever a model puts out.

    Source: Tjong Kim Sang and De Meulder 2003, the conlleval script; seqeval 1.2.2 `get_entities`.
    """
    spans: list[Span] = []
    start, current = 0, ""
    for position, tag in enumerate((*tags, OUTSIDE)):
        prefix, name = split_tag(tag)
        if current and (prefix != "I" or name != current):
            spans.append(Span(current, start, position))
            current = ""
        if name and not current:
            start, current = position, name
    return spans


def tags_of(spans: Iterable[Span], n_words: int) -> tuple[str, ...]:
    """The IOB2 tags of entities that do not overlap: the inverse of `spans_of`."""
    tags = [OUTSIDE] * n_words
    for label, start, end in spans:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tuple(tags)


def to_iob2(tags: Sequence[str]) -> tuple[str, ...]:
    """IOB1, IOB2 or a broken sequence as clean IOB2; the entities stay those of `spans_of`."""
    return tags_of(spans_of(tags), len(tags))


# The tags of any teacher as IOB2: other orders, schemes and names of types, and types that it does not know.
#
# Tags are told by their prefixes: `B S U W` begin an entity, `I E L M` continue one (IOB2, BIOES, BILOU, BMEWO), and
# what has no prefix is a type alone (`PER`). A teacher with a type that has no beginning of its own is read as IO or
# IOB1: there the word before tells. Shapes: W words of a sentence, R tags of the teacher, C tags in IOB2.


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
        begins: dict[str, list[int]] = {name: [] for name in labels.types}
        continues: dict[str, list[int]] = {name: [] for name in labels.types}
        for number, ((prefix, _), name) in enumerate(zip(split, new_names, strict=True)):
            if name:
                (begins if prefix in tuple(_BEGIN) else continues)[name].append(number)
        stated = all(set(found) & set(_BEGIN) for found in prefixes.values())
        return cls(labels, _frozen(begins), _frozen(continues), stated, len(tags))

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


def _frozen(places: Mapping[str, Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, places.values()))


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
