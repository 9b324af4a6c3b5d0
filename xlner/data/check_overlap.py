"""Sentences that stand twice: in one file, with other tags, or in several files.

A sentence is known by 8 bytes, so no text is kept. Sentences of fewer than `FEWEST_WORDS` words ("Yes .") are
passed over: that they come again says nothing about a corpus.
"""

from hashlib import blake2b

from xlner.text import Sentence

FEWEST_WORDS = 4


class SentenceIndex:
    """The sentences of one corpus, by hashes of their words, and where each stood first."""

    def __init__(self, source: str) -> None:
        """Start without sentences; `source` is what all places begin with."""
        self.source = source
        self._places: dict[int, str] = {}
        self._tags: dict[int, int] = {}

    def first_place(self, key: int) -> str:
        """Where the words of this key stood first; empty if nowhere."""
        place = self._places.get(key)
        return "" if place is None else self.source + place

    def add(self, key: int, sentence: Sentence, place: str) -> bool | None:
        """Remember a sentence.

        Returns:
            None for new words, True for words that were there with the same tags, False with others.
        """
        tags = 0 if sentence.tags is None else hash_of(sentence.tags)
        if key not in self._places:
            self._places[key] = place.removeprefix(self.source)
            if tags:
                self._tags[key] = tags
            return None
        return self._tags.get(key, 0) == tags


def sentence_key(sentence: Sentence) -> int:
    """8 bytes that stand for the words; 0 for sentences that are too short to tell anything."""
    return hash_of(sentence.words) if len(sentence.words) >= FEWEST_WORDS else 0


def hash_of(parts: tuple[str, ...]) -> int:
    """8 bytes that stand for these texts."""
    return int.from_bytes(blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
