"""Words to rows of numbers: what a compact student reads instead of subword pieces.

Every word becomes one row of K numbers, made of the word alone, so that rows are kept and found again. A window holds
the rows of its words one after the other, which lets it travel as a window of pieces does: `piece_ids` are the
rows, flat, and a word's position is where its row begins. A number 0 is padding and stands in no place that counts.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlner.data.alignment import Window, plan_windows

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
