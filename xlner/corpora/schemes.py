"""Tags as corpora write them, turned into clean IOB2, and IOB2 turned into what others expect."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise

from xlner.corpora.problems import CorpusProblem, LeftOut, Report, refuse
from xlner.errors import CorpusError, LabelError
from xlner.tags import OUTSIDE, Span, spans_of, split_tag, tags_of

# In the place of a tag: nobody has labelled this word.
UNLABELLED = "_"
# IOBES and BILOU (also written IOBES, BIOES, BMEOS, BMEWO): the prefixes that IOB lacks.
_SINGLE, _LAST, _MIDDLE = ("S", "U", "W"), ("E", "L"), ("M",)
_EXTENDED_TAG = re.compile(r"[SUWELM]-.+", re.DOTALL)
_MISWRITTEN = re.compile(r"([BIESULMW])[-_.:/|\u2010-\u2015\u2212\ufe63\uff0d](.+)", re.IGNORECASE | re.DOTALL)
# A small o, and letters that look like O.
_MISWRITTEN_OUTSIDE = ("o", "\u041e", "\u043e", "\u039f", "\u03bf", "\uff2f")
# What a type without a prefix looks like.
_TYPE = re.compile(r"[^\W\d_][\w.&/ -]*")

# Letters without a glyph.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
# The scheme for text whose labels are not to be looked at.
IGNORE = "ignore"

N_REMEMBERED = 20_000  # tag sequences known to be clean

Place = Callable[[int], str]  # file and line of the n-th word of a sentence


class TagReader:
    """Reads the tags of one sentence after the other, and remembers which neighbours are clean IOB2."""

    def __init__(self, scheme: str = "auto", report: Report = refuse, labels: str = "") -> None:
        """Choose how tags are understood.

        Args:
            scheme: `auto` reads IOB1, IOB2, BIOES and BILOU alike; an `I-X` that continues no X begins an
                entity, as for conlleval. `strict` does so too, but reports such a tag. `plain` takes tags
                as types without prefixes: equal neighbours are one entity. `ignore` looks at no tag.
            report: Gets what is wrong.
            labels: What tags that are numbers mean, in the order of the numbers from 0: `O,B-PER,I-PER`.

        Raises:
            CorpusError: If it is another scheme, or the names are none.
        """
        if scheme not in READING_SCHEMES:
            raise CorpusError(f"corpus.scheme is {scheme!r}; expected {', '.join(READING_SCHEMES)}")
        self._scheme = scheme
        names = [visible_label(name) for name in labels.split(",")] if labels.strip() else []
        if names and (len(set(names)) < len(names) or "" in names or OUTSIDE not in names):
            raise CorpusError(
                f"corpus.labels is {labels!r}; expected the tag of each number from 0 on, with O among them and none "
                "twice, as in O,B-PER,I-PER"
            )
        self._names = {str(number): name for number, name in enumerate(names)}
        if names:
            self._names |= dict.fromkeys(("-1", "-100"), UNLABELLED)
        self._report = report
        # A sequence is clean IOB2 exactly if each tag may follow the one before it; there are few such pairs.
        self._clean_pairs: set[tuple[str, str]] = set()
        self._clean_sequences: set[tuple[str, ...]] = set()

    @property
    def has_names(self) -> bool:
        """Whether numbers are tags, for their names are known."""
        return bool(self._names)

    @property
    def ignores(self) -> bool:
        """Whether tags are not looked at, so that nothing about them is wrong."""
        return self._scheme == IGNORE

    def read(self, tags: tuple[str, ...], place: Place) -> tuple[str, ...] | None:
        """The tags of a sentence in IOB2, or None if all of them are `_` or nobody looks.

        Args:
            tags: One for each word.
            place: Gives file and line of the n-th word, for messages.

        Raises:
            CorpusProblem: By the usual report: if a tag is none, if some but not all words are labelled, or
                what `strict` refuses.
            LeftOut: If the report went on, but there is no repair.
        """
        if self.ignores:
            return None
        # Most sequences have been seen before: looking them up whole is the quickest.
        if tags in self._clean_sequences:
            return tags
        if self._clean_pairs.issuperset(pairwise((OUTSIDE, *tags))):
            if len(self._clean_sequences) < N_REMEMBERED:
                self._clean_sequences.add(tags)
            return tags
        bare = tuple([self._names.get(tag, tag) for tag in map(visible_label, tags)])
        if set(bare) == {UNLABELLED}:
            return None
        if self._scheme == "plain":
            return tags_of(_runs(self._checked(bare, place, _is_plain)), len(bare))
        known = self._checked(bare, place, is_any_tag)
        has_prefixes_of_iob = all(map(is_tag, known))
        iob = known if has_prefixes_of_iob else _from_extended(known)
        if self._scheme == "strict":
            self._check_continuations(iob, place)
        clean = tags_of(spans_of(iob), len(iob))
        if has_prefixes_of_iob:
            self._clean_pairs.update(pairwise((OUTSIDE, *clean)))
        return clean

    def _checked(self, tags: tuple[str, ...], place: Place, is_known: Callable[[str], bool]) -> tuple[str, ...]:
        """The tags with misspelt ones repaired; a sentence that cannot be repaired is left out."""
        guesses = {position: self._guess(tag) for position, tag in enumerate(tags) if not is_known(tag)}
        for position, guess in guesses.items():
            message, repair = _explain(tags, position, guess), f"read as {guess}" if guess else ""
            code = "XL014" if tags[position] == UNLABELLED else "XL012"
            self._report(CorpusProblem(code, place(position), message, *([repair] if repair else [])))
        if "" in guesses.values():
            raise LeftOut
        return tuple([guesses.get(position, tag) for position, tag in enumerate(tags)])

    def _guess(self, tag: str) -> str:
        """The tag that a misspelt one certainly means, or nothing."""
        if tag in _MISWRITTEN_OUTSIDE:
            return OUTSIDE
        match = _MISWRITTEN.fullmatch(tag)
        if self._scheme == "plain" or not match:
            return ""
        guess = f"{match.group(1).upper()}-{match.group(2)}"
        return guess if is_any_tag(guess) else ""

    def _check_continuations(self, tags: tuple[str, ...], place: Place) -> None:
        for position in broken_continuations(tags):
            tag, before = tags[position], tags[position - 1] if position else "nothing"
            message = (
                f"{tag} continues no entity (it follows {before}); expected B{tag[1:]}, "
                "as which corpus.scheme=auto reads it"
            )
            self._report(CorpusProblem("XL013", place(position), message, f"read as B{tag[1:]}"))


def is_tag(text: str) -> bool:
    """Whether this is `O`, `B-TYPE` or `I-TYPE`."""
    try:
        split_tag(text)
    except LabelError:
        return False
    return True


def broken_continuations(tags: Sequence[str]) -> list[int]:
    """Where an `I-X` stands behind anything but `B-X` or `I-X`."""
    pairs = enumerate(pairwise((OUTSIDE, *tags)))
    return [position for position, (before, tag) in pairs if tag[:2] == "I-" and tag[1:] != before[1:]]


def write_tags(tags: Sequence[str], scheme: str = "iob2") -> tuple[str, ...]:
    """Clean IOB2 tags in another scheme; `plain` cannot tell neighbours of one type apart.

    Raises:
        CorpusError: If there is no such scheme.
    """
    if scheme not in WRITING_SCHEMES:
        raise CorpusError(f"unknown scheme {scheme!r} to write; expected {', '.join(WRITING_SCHEMES)}")
    return WRITING_SCHEMES[scheme](tuple(tags))


def is_any_tag(tag: str) -> bool:
    """Whether this is a tag of IOB, BIOES or BILOU."""
    return is_tag(tag) or _EXTENDED_TAG.fullmatch(tag) is not None


def _is_plain(tag: str) -> bool:
    return bool(tag) and tag != UNLABELLED and tag not in _MISWRITTEN_OUTSIDE


def _from_extended(tags: Sequence[str]) -> tuple[str, ...]:
    """BIOES or BILOU as IOB; what ends an entity keeps the next tag from continuing it."""
    result, has_ended = [], True
    for tag in tags:
        prefix, name = tag[0], tag[2:]
        if tag == OUTSIDE:
            result.append(OUTSIDE)
        elif prefix in _SINGLE or prefix == "B" or (has_ended and result and result[-1][2:] == name):
            result.append(f"B-{name}")
        else:
            result.append(f"I-{name}")
        has_ended = prefix in _SINGLE + _LAST
    return tuple(result)


def _runs(types: Sequence[str]) -> list[Span]:
    """Plain types as spans: equal neighbours are one entity."""
    return spans_of([tag if tag == OUTSIDE else f"I-{tag}" for tag in types])


def _explain(tags: Sequence[str], position: int, guess: str) -> str:
    """Why this is no tag, and what was probably meant."""
    tag = tags[position]
    if tag == UNLABELLED:
        return "found '_' (no label) beside tags; expected tags for all words of a sentence or for none"
    if not tag:
        hint = "is the column of tags empty here?"
    elif guess:
        hint = f"did you mean {guess}?"
    elif tag.removeprefix("-").isdecimal():
        hint = "numbers get their names by corpus.labels=O,B-TYPE,I-TYPE,..., in the order of the numbers"
    elif all(other == OUTSIDE or _TYPE.fullmatch(other) for other in tags):
        hint = (
            "types without prefixes are read by corpus.scheme=plain; "
            "is this another column? then set corpus.columns=WORD,TAG"
        )
    else:
        hint = "is this the column of tags? if not, set corpus.columns=WORD,TAG"
    return f"found tag {tag!r}; expected O, B-TYPE or I-TYPE; {hint}"


def visible_label(text: str) -> str:
    """A tag or type without what nobody can see, so that no two of them look equal.

    White space at its ends and characters without a glyph go, other white space than TAB and line ends becomes a space,
    and letters get their composed form (NFC).
    """
    if text.isascii():
        return text.strip(" \v\f\x1c\x1d\x1e\x1f")
    kept = [char for char in unicodedata.normalize("NFC", text) if unicodedata.category(char) not in ("Cf", "Cn", "Co")]
    spaced = [" " if char.isspace() and char not in "\t\n\r" else char for char in kept if char not in _FILLERS]
    return "".join(spaced).strip(" \x85")


def _to_iob2(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tags


def _to_iob1(tags: tuple[str, ...]) -> tuple[str, ...]:
    """`B-` only where an entity of the same type ends right before."""
    pairs = pairwise((OUTSIDE, *tags))
    return tuple([f"I{tag[1:]}" if tag[:2] == "B-" and tag[1:] != before[1:] else tag for before, tag in pairs])


def _extended(tags: tuple[str, ...], single: str, last: str) -> tuple[str, ...]:
    result = list(tags)
    for span in spans_of(tags):
        if span.end - span.start == 1:
            result[span.start] = f"{single}-{span.label}"
        else:
            result[span.end - 1] = f"{last}-{span.label}"
    return tuple(result)


def _to_bioes(tags: tuple[str, ...]) -> tuple[str, ...]:
    return _extended(tags, "S", "E")


def _to_bilou(tags: tuple[str, ...]) -> tuple[str, ...]:
    return _extended(tags, "U", "L")


def _to_plain(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([split_tag(tag)[1] or OUTSIDE for tag in tags])


READING_SCHEMES = ("auto", "strict", "plain", IGNORE)

# A new scheme to write is one function above and one line here.
WRITING_SCHEMES: dict[str, Callable[[tuple[str, ...]], tuple[str, ...]]] = {
    "iob2": _to_iob2,
    "iob1": _to_iob1,
    "bioes": _to_bioes,
    "bilou": _to_bilou,
    "plain": _to_plain,
}
