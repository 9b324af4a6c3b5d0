"""Corpora told apart by their content: the same words and tags have the same fingerprint in any file format."""

import hashlib
from collections.abc import Iterable

from xlner.text import Sentence


class CorpusFingerprint:
    """Grows with each sentence: hashes of words and tags, the same for any file format and white space."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._words_hash = hashlib.sha256()

    def add(self, sentence: Sentence) -> None:
        """Take in the next sentence; without tags, only its words count."""
        # Control characters of ASCII that exist to separate: neither words nor tags hold them.
        words = "\x1f".join(sentence.words)
        tags = "" if sentence.tags is None else "\x1e" + "\x1f".join(sentence.tags)
        self._hash.update(f"{words}{tags}\x1d".encode("utf-8", "surrogatepass"))
        self._words_hash.update(f"{words}\x1d".encode("utf-8", "surrogatepass"))

    def hexdigest(self) -> str:
        """12 hexadecimal digits for what was added so far."""
        return self._hash.hexdigest()[:12]

    def words_hexdigest(self) -> str:
        """The same for the words alone: what `hexdigest` would be if no sentence had tags."""
        return self._words_hash.hexdigest()[:12]


def fingerprint(sentences: Iterable[Sentence]) -> str:
    """The `CorpusFingerprint` of all sentences."""
    result = CorpusFingerprint()
    for sentence in sentences:
        result.add(sentence)
    return result.hexdigest()
