"""A repaired copy of a corpus: as the reader repairs it, and without what nobody can see in a word.

Nothing else changes: words lose zero-width and control characters and a byte order mark, are cut at white space
(the parts share the entity), and are taken out where nothing of them can be seen. Mojibake, mixed scripts and
contradictory tags are for people to mend.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, dropwhile, takewhile
from pathlib import Path

from xlner.data.check_overlap import hash_of, sentence_key
from xlner.data.check_words import visible_parts, word_problems
from xlner.data.corpus import read_corpus
from xlner.data.fingerprints import CorpusFingerprint, fingerprint
from xlner.data.writing import write_corpus
from xlner.errors import CorpusError
from xlner.files import replaced
from xlner.labels import Span, spans_of, tags_of
from xlner.text import Sentence

# What each repair of a word is called in the list of repairs.
_CLEANED = {
    "XL030": "the word is taken out",
    "XL031": "the byte order mark is taken out",
    "XL032": "cut into words at the white space",
    "XL033": "the characters are taken out",
}
EMPTIED = "XL030", "the sentence is left out: no word of it can be seen"
VANISHED = "XL030", "the entity is taken out: no word of it can be seen"
REPEATED = "XL040", "the second sentence is left out"
MOVED = "XL045", "moved to the end: a file with labels must begin with some"


def write_repaired(
    read: Callable[[], Iterator[Sentence]], path: Path, *, fix_duplicates: bool
) -> tuple[int, Counter[tuple[str, str]]]:
    """Write a repaired copy as CoNLL, and read it strictly before it gets its name.

    Args:
        read: Opens the corpus anew, with a report that lets the reader repair what it can.
        path: Of the copy.
        fix_duplicates: Whether sentences that were there before, with the same tags, are left out.

    Returns:
        How many sentences were written, and how often each repair (code, what was done) was made.

    Raises:
        CorpusError: If nothing is left, or the copy would not read back as it is.
    """
    repairs = Counter[tuple[str, str]]()
    sentences = (repaired for sentence in read() if (repaired := repair_sentence(sentence, Counter())).words)
    has_labels = any(sentence.tags is not None for sentence in sentences)
    mark, n_written = CorpusFingerprint(), 0

    def checked() -> Iterator[Sentence]:
        nonlocal n_written
        for sentence in _repaired(read, has_labels, fix_duplicates, repairs):
            mark.add(sentence)
            n_written += 1
            yield sentence

    with replaced(path) as unchecked:
        write_corpus(checked(), unchecked, format="conll")
        if not n_written:
            raise CorpusError(f"{path}: not written, for no sentence is left")
        try:
            if fingerprint(read_corpus(unchecked, format="conll", scheme="strict")) != mark.hexdigest():
                raise CorpusError("words or tags changed")
        except CorpusError as problem:
            raise CorpusError(f"{path}: not written, for it would not read back as it is: {problem}") from problem
    return n_written, repairs


def repair_sentence(sentence: Sentence, repairs: Counter[tuple[str, str]]) -> Sentence:
    """A sentence without what nobody can see; it may have no words left.

    Args:
        sentence: With clean IOB2 tags, or none.
        repairs: Gets what was done.
    """
    problems = [code for word in sentence.words for code, _ in word_problems(word) if code in _CLEANED]
    if not problems:
        return sentence
    repairs.update((code, _CLEANED[code]) for code in problems)
    parts = [visible_parts(word) if _needs_repair(word) else [word] for word in sentence.words]
    words = tuple([word for group in parts for word in group])
    if not words:
        repairs[EMPTIED] += 1
        return Sentence((), None if sentence.tags is None else ())
    if sentence.tags is None:
        return Sentence(words)
    starts = [0]
    for group in parts:
        starts.append(starts[-1] + len(group))
    spans = [Span(label, starts[start], starts[end]) for label, start, end in spans_of(sentence.tags)]
    kept = [span for span in spans if span.start < span.end]
    if len(kept) < len(spans):
        repairs[VANISHED] += len(spans) - len(kept)
    return Sentence(words, tags_of(kept, len(words)))


def _needs_repair(word: str) -> bool:
    return any(code in _CLEANED for code, _ in word_problems(word))


def _repaired(
    read: Callable[[], Iterator[Sentence]], has_labels: bool, fix_duplicates: bool, repairs: Counter[tuple[str, str]]
) -> Iterator[Sentence]:
    def usable(counts: Counter[tuple[str, str]]) -> Iterator[Sentence]:
        return (repaired for sentence in read() if (repaired := repair_sentence(sentence, counts)).words)

    ordered = usable(repairs)
    if has_labels:
        # A file of columns has labels or has none from its first sentence on.
        ordered = chain(dropwhile(_is_bare, ordered), _moved(takewhile(_is_bare, usable(Counter())), repairs))
    seen = set[int]()
    for sentence in ordered:
        if fix_duplicates and sentence_key(sentence):
            key = hash_of((*sentence.words, "", *(sentence.tags or ())))
            if key in seen:
                repairs[REPEATED] += 1
                continue
            seen.add(key)
        yield sentence


def _is_bare(sentence: Sentence) -> bool:
    return sentence.tags is None


def _moved(sentences: Iterator[Sentence], repairs: Counter[tuple[str, str]]) -> Iterator[Sentence]:
    for sentence in sentences:
        repairs[MOVED] += 1
        yield sentence
