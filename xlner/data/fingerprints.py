"""Corpora told apart by their content: the same words and tags have the same fingerprint in any file format."""

import hashlib
from collections.abc import Iterable

from xlner.text import Sentence


class CorpusFingerprint:
    """Grows with each sentence: a hash of words and tags, the same for any file format and white space."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, sentence: Sentence) -> None:
        """Take in the next sentence; without tags, only its words count."""
        columns = [sentence.words] if sentence.tags is None else [sentence.words, sentence.tags]
        # Control characters of ASCII that exist to separate: neither words nor tags hold them.
        text = "\x1e".join("\x1f".join(column) for column in columns) + "\x1d"
        self._hash.update(text.encode("utf-8", "surrogatepass"))

    def hexdigest(self) -> str:
        """12 hexadecimal digits for what was added so far."""
        return self._hash.hexdigest()[:12]


def fingerprint(sentences: Iterable[Sentence]) -> str:
    """The `CorpusFingerprint` of all sentences."""
    result = CorpusFingerprint()
    for sentence in sentences:
        result.add(sentence)
    return result.hexdigest()
