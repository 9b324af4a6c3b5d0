"""Tags as corpora write them, turned into clean IOB2 or refused with the place where they stand."""

from collections.abc import Callable
from itertools import pairwise

from xlner.errors import CorpusError, LabelError
from xlner.labels import OUTSIDE, split_tag, to_iob2

# In the place of a tag: nobody has labelled this word.
UNLABELLED = "_"


class TagReader:
    """Reads the tags of one sentence after the other, and remembers which neighbours are clean IOB2."""

    def __init__(self, scheme: str) -> None:
        """Choose what happens to an `I-X` that continues no entity of type X.

        Args:
            scheme: `auto` begins an entity there, as conlleval does, so that IOB1, IOB2 and broken sequences
                can be read; `strict` refuses it.

        Raises:
            CorpusError: If it is another scheme.
        """
        if scheme not in ("auto", "strict"):
            raise CorpusError(f"corpus.scheme is {scheme!r}; expected auto or strict")
        self._is_strict = scheme == "strict"
        # A sequence is clean IOB2 exactly if each tag may follow the one before it; there are few such pairs.
        self._clean_pairs: set[tuple[str, str]] = set()

    def read(self, tags: tuple[str, ...], place: Callable[[int], str]) -> tuple[str, ...] | None:
        """The tags of a sentence in IOB2, or None if all of them are `_`.

        Args:
            tags: One for each word.
            place: Gives file and line of the n-th word, for messages.

        Raises:
            CorpusError: If a tag is none, if some but not all words are labelled, or what `strict` refuses.
        """
        if self._clean_pairs.issuperset(pairwise((OUTSIDE, *tags))):
            return tags
        # Blanks at the end of a line are no part of the tag.
        bare = tuple([tag.strip(" ") for tag in tags])
        if set(bare) == {UNLABELLED}:
            return None
        for position, tag in enumerate(bare):
            if not is_tag(tag):
                raise CorpusError(f"{place(position)}: {_explain(tag)}")
        if self._is_strict:
            _check_continuations(bare, place)
        clean = to_iob2(bare)
        self._clean_pairs.update(pairwise((OUTSIDE, *clean)))
        return clean


def is_tag(text: str) -> bool:
    """Whether this is `O`, `B-TYPE` or `I-TYPE`."""
    try:
        split_tag(text)
    except LabelError:
        return False
    return True


def _check_continuations(tags: tuple[str, ...], place: Callable[[int], str]) -> None:
    for position, (before, tag) in enumerate(pairwise((OUTSIDE, *tags))):
        if tag.startswith("I-") and tag[1:] != before[1:]:
            raise CorpusError(
                f"{place(position)}: {tag} continues no entity (it follows {before}); expected B{tag[1:]}, "
                "or set corpus.scheme=auto to begin an entity there"
            )


def _explain(tag: str) -> str:
    """Why this is no tag, and what was probably meant."""
    if tag == UNLABELLED:
        return "found '_' (no label) beside tags; expected tags for all words of a sentence or for none"
    prefix, mark, name = tag[:1].upper(), tag[1:2], tag[2:]
    if not tag:
        hint = "is the column of tags empty here?"
    elif prefix in ("B", "I") and mark in ("-", "_", ".", ":", "/") and name:
        hint = f"did you mean {prefix}-{name}?"
    elif prefix in ("E", "S", "L", "U", "M") and mark == "-" and name:
        hint = "IOBES and BILOU are not read; convert the tags to IOB2"
    else:
        hint = "is this the column of tags? if not, set corpus.columns=WORD,TAG"
    return f"found tag {tag!r}; expected O, B-TYPE or I-TYPE; {hint}"
