"""Words as compact students read them: an own vocabulary, characters, hashed features, in rows of numbers."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from xlner.encode import Window, plan_windows
from xlner.errors import ModelError

# Words to rows of numbers: what a compact student reads instead of subword pieces.
#
# Every word becomes one row of K numbers, made of the word alone, so that rows are kept and found again. A window
# holds the rows of its words one after the other, which lets it travel as a window of pieces does: `piece_ids` are the
# rows, flat, and a word's position is where its row begins. A number 0 is padding and stands in no place that counts.


# Rows that are remembered.
KEPT_WORDS = 200_000
Rows = NDArray[np.int32]


class RowEncoder:
    """Cuts sentences into windows of rows; threads may share it."""

    pad_id = 0

    def __init__(self, row: Callable[[str], Sequence[int]], width: int, max_words: int, fingerprint: str) -> None:
        """Keep how rows are made.

        Args:
            row: The K numbers of a word.
            width: K.
            max_words: Words that a window holds.
            fingerprint: Tells encoders apart that give different rows or windows.
        """
        self._row, self.width, self.max_words, self.fingerprint = row, width, max_words, fingerprint
        self._lock = Lock()
        self._places: dict[str, int] = {}
        self._table: Rows = np.zeros((1024, width), dtype=np.int32)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def encode(self, sentences: Sequence[Sequence[str]], first_sentence: int = 0) -> Iterator[Window]:
        """The windows of some sentences, in order; their `sentence` counts from `first_sentence`.

        Each word is decided by exactly one window. A sentence without words gives no window.
        """
        places, table = self._known_rows(sentences)
        for number, words in enumerate(sentences, first_sentence):
            if not words:
                continue
            rows = table[[places[word] for word in words]]
            if len(words) <= self.max_words:
                everything = np.arange(len(words), dtype=np.int32)
                yield Window(number, rows.ravel(), everything * self.width, everything)
                continue
            for shown, decided in plan_windows([1] * len(words), self.max_words):
                numbers = np.arange(decided.start, decided.stop, dtype=np.int32)
                positions = (numbers - shown.start) * self.width
                yield Window(number, rows[shown.start : shown.stop].ravel(), positions, numbers)

    def _known_rows(self, sentences: Sequence[Sequence[str]]) -> tuple[dict[str, int], Rows]:
        """Where the row of each of these words stands in a table, and the table, which no other call changes there."""
        words = set(chain.from_iterable(sentences))
        with self._lock:
            if len(self._places) > KEPT_WORDS:
                # What other calls hold of the old ones stays as it is.
                self._places, self._table = {}, np.zeros((1024, self.width), dtype=np.int32)
            new = [word for word in words if word not in self._places]
            if new:
                first = len(self._places)
                if first + len(new) > len(self._table):
                    grown = np.zeros((2 * (first + len(new)), self.width), dtype=np.int32)
                    grown[:first] = self._table[:first]
                    self._table = grown
                for place, word in enumerate(new, first):
                    self._table[place] = self._row(word)
                    self._places[word] = place
            return self._places, self._table


# The own vocabulary of a student of words and characters: learnt from the target text, kept as JSON.
#
# A row is the number of the word and those of its characters. Words are looked up in lower case with every digit as 0:
# how a word is written, the characters tell. Numbers: 0 is padding, 1 whatever is not known.


VOCABULARY_FILE = "vocabulary.json"
FIRST = 2  # number of the first entry
# A character that is rarer is not told from others that are.
RAREST_CHAR = 3
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class Vocabulary:
    """Words in their looked-up form, and characters, both the most frequent first."""

    words: tuple[str, ...]
    characters: str

    @classmethod
    def of_forms(cls, forms: Mapping[str, int], *, n_words: int, min_frequency: int) -> "Vocabulary":
        """Learn it from how often each written form occurs; equally frequent entries come in order of code points."""
        words, characters = Counter[str](), Counter[str]()
        for form, count in forms.items():
            words[looked_up(form)] += count
            for character in form:
                characters[character] += count
        kept = [word for word, count in _ordered(words)[:n_words] if count >= min_frequency]
        return cls(tuple(kept), "".join(char for char, count in _ordered(characters) if count >= RAREST_CHAR))

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """What `save` wrote.

        Raises:
            ModelError: If it is missing or damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            words, characters = content["words"], content["characters"]
            if not isinstance(characters, str) or not all(isinstance(word, str) for word in words):
                raise TypeError("words and characters are texts")
            return cls(tuple(words), characters)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise ModelError(f"{path}: expected the vocabulary of a compact student, found: {problem!r}") from problem

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        content = {"words": self.words, "characters": self.characters}
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")

    @property
    def n_words(self) -> int:
        """Numbers of words, padding and unknown included."""
        return FIRST + len(self.words)

    @property
    def n_characters(self) -> int:
        """Numbers of characters, padding and unknown included."""
        return FIRST + len(self.characters)

    def encoder(self, *, n_chars: int, max_words: int) -> RowEncoder:
        """Words to rows of 1 + `n_chars` numbers; a word that is longer keeps its two ends."""
        words = {word: number for number, word in enumerate(self.words, FIRST)}
        characters = {character: number for number, character in enumerate(self.characters, FIRST)}
        content = json.dumps([self.words, self.characters, n_chars, max_words])
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        # No function within this one, so that an encoder can be pickled.
        return RowEncoder(partial(_row_of, words, characters, n_chars), 1 + n_chars, max_words, digest)


def _row_of(words: Mapping[str, int], characters: Mapping[str, int], n_chars: int, word: str) -> list[int]:
    head, tail = n_chars - n_chars // 2, n_chars // 2
    seen = word if len(word) <= n_chars else word[:head] + word[-tail:]
    numbers = [characters.get(character, 1) for character in seen]
    return [words.get(looked_up(word), 1), *numbers, *[0] * (n_chars - len(numbers))]


def looked_up(word: str) -> str:
    """The form under which a word stands in the vocabulary."""
    return _DIGIT.sub("0", word.lower())


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


# The features of the linear student: what a word and its neighbours look like, hashed into rows of one table.
#
# A word's own features depend on it alone and make its row, K numbers of 31 bits; 0 stands for a feature that it does
# not have, and for what lies beyond the sentence. Features of neighbours, and of several words at once, are hashed
# from these rows, by the same code in training and at run time. Shapes: B windows, W words, K numbers a row, F
# features.
#
# Source: Weinberger et al. 2009 (arXiv:0902.2206), feature hashing; the features are those customary for linear
# taggers (Ratinov and Roth 2009, W09-1119).


# Places in a row.
WORD, SHAPE, LOWER, PREFIX_3, SUFFIX_3 = range(5)
N_FEATURES = 12
# Each template: (offset from the word, place in the row) of the parts that it joins.
_OWN = [((0, place),) for place in range(N_FEATURES)]
_NEAR = [((offset, place),) for offset in (-1, 1) for place in (WORD, SHAPE, LOWER, PREFIX_3, SUFFIX_3)]
_FAR = [((offset, place),) for offset in (-2, 2) for place in (WORD, SHAPE)]
_JOINED = [
    ((-1, LOWER), (0, LOWER)),
    ((0, LOWER), (1, LOWER)),
    ((-1, SHAPE), (0, SHAPE)),
    ((0, SHAPE), (1, SHAPE)),
    ((-1, SHAPE), (0, SHAPE), (1, SHAPE)),
    ((-1, LOWER), (0, SHAPE)),
    ((0, SHAPE), (1, LOWER)),
    ((-2, LOWER), (-1, LOWER), (0, SHAPE)),
    ((0, SHAPE), (1, LOWER), (2, LOWER)),
    ((-1, LOWER), (0, SHAPE), (1, LOWER)),
    ((-1, SUFFIX_3), (0, SUFFIX_3)),
    ((0, PREFIX_3), (1, SHAPE)),
    ((-1, SHAPE), (0, SUFFIX_3)),
    ((-2, SHAPE), (-1, SHAPE), (0, SHAPE), (1, SHAPE), (2, SHAPE)),
]
TEMPLATES: list[tuple[tuple[int, int], ...]] = [*_OWN, *_NEAR, *_FAR, *_JOINED]
REACH = 2  # words to each side
# Odd numbers without a pattern, one for each template and one for each further part: multiplying by them mixes bits.
_GOLDEN = 0x9E3779B97F4A7C15
_MIXERS = np.asarray([(2 * n + 1) * _GOLDEN % 2**64 | 1 for n in range(1, len(TEMPLATES) + 1)], dtype=np.uint64)
_JOINER = np.uint64(0xC2B2AE3D27D4EB4F)


def hashed_encoder(max_words: int) -> RowEncoder:
    """Words to rows of their features."""
    return RowEncoder(word_features, N_FEATURES, max_words, f"hashed-1-{max_words}")


def word_features(word: str) -> list[int]:
    """The features of a word, each a number of 31 bits, 0 for what a short word does not have."""
    lower = word.lower()
    shape = _shape(word)
    texts = [
        word,
        re.sub(r"(.)\1+", r"\1", shape),
        re.sub(r"\d", "0", lower),
        lower[:3] if len(word) > 3 else "",
        lower[-3:] if len(word) > 3 else "",
        shape[:8],
        lower[:1],
        lower[:2] if len(word) > 2 else "",
        lower[:4] if len(word) > 4 else "",
        lower[-1:],
        lower[-2:] if len(word) > 2 else "",
        lower[-4:] if len(word) > 4 else "",
    ]
    return [
        (crc32(f"{place}={text}".encode("utf-8", "surrogatepass")) & 0x7FFFFFFF) or 1 if text else 0
        for place, text in enumerate(texts)
    ]


def feature_rows(rows: NDArray[np.integer], buckets: int) -> NDArray[np.int64]:
    """Which rows of the table each word adds up, (B, W, F) within [0, buckets).

    Args:
        rows: Of words, (B, W, K), zeros on padding.
        buckets: Rows of the table.
    """
    n_windows, n_words, _ = rows.shape
    around = np.zeros((n_windows, n_words + 2 * REACH, N_FEATURES), dtype=np.uint64)
    around[:, REACH : REACH + n_words] = rows
    found = np.empty((n_windows, n_words, len(TEMPLATES)), dtype=np.uint64)
    for number, template in enumerate(TEMPLATES):
        (offset, place), *others = template
        value = around[:, REACH + offset : REACH + offset + n_words, place]
        for offset, place in others:
            part = around[:, REACH + offset : REACH + offset + n_words, place]
            value = (value ^ (value >> np.uint64(29))) * _JOINER + part
        found[:, :, number] = value
    mixed = (found + np.uint64(1)) * _MIXERS
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _JOINER
    # The upper half of the bits, taken as a share of all rows.
    return (((mixed >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)).astype(np.int64)


def _shape(word: str) -> str:
    return "".join(
        "X" if char.isupper() else "0" if char.isdigit() else "x" if char.isalpha() else char for char in word
    )
