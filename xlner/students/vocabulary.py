"""The own vocabulary of a student of words and characters: learnt from the target text, kept as JSON.

A row is the number of the word and those of its characters. Words are looked up in lower case with every digit as 0:
how a word is written, the characters tell. Numbers: 0 is padding, 1 whatever is not known.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xlner.errors import ModelError
from xlner.students.rows import RowEncoder

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
