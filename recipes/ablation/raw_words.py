"""A labelled corpus as raw text would be tagged: its words joined and split again, tags carried over.

    python recipes/ablation/raw_words.py zh_gsd/test.conll data/zh/test.conll

Corpora of languages without spaces bring words that no reader of raw text has. This joins them, without a space unless
`--space` is given, cuts the text by a word splitter as a tagger would, and gives each new word the entity that it lies
in. An entity whose border falls within a new word is widened to it; how many is printed.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from xlner.corpora.source import read_corpus
from xlner.corpora.write import write_corpus
from xlner.errors import XlnerError
from xlner.tags import Span, spans_of, tags_of
from xlner.words import WORD_SPLITTERS, Sentence, WordOffsets, split_words


def main() -> int:
    """Convert one file; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="labelled corpus")
    parser.add_argument("out", type=Path, help="file to write, .conll")
    parser.add_argument("--splitter", default="unicode", choices=sorted(WORD_SPLITTERS), help="as corpus.word_splitter")
    parser.add_argument("--space", action="store_true", help="join the words by spaces")
    arguments = parser.parse_args()
    widened = 0

    def resplit() -> Iterator[Sentence]:
        nonlocal widened
        for sentence in read_corpus(arguments.corpus):
            text, starts = joined(sentence.words, " " if arguments.space else "")
            places = split_words(text, arguments.splitter)
            spans = [moved(span, sentence.words, starts, places) for span in spans_of(sentence.tags or ())]
            widened += sum(not exact for _, exact in spans)
            words = tuple([text[start:end] for start, end in places])
            yield Sentence(words, tags_of(without_overlap([span for span, _ in spans]), len(words)))

    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_corpus(resplit(), arguments.out)
    except (XlnerError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    print(f"{arguments.out}: {widened:,} entities were widened, since a word of the text goes beyond them")
    return 0


def joined(words: Sequence[str], blank: str) -> tuple[str, list[int]]:
    """The text of words, and where in it each begins."""
    starts, at = [], 0
    for word in words:
        starts.append(at)
        at += len(word) + len(blank)
    return blank.join(words), starts


def moved(span: Span, words: Sequence[str], starts: Sequence[int], places: WordOffsets) -> tuple[Span, bool]:
    """A span of words as one of new words, and whether its borders are theirs."""
    start, end = starts[span.start], starts[span.end - 1] + len(words[span.end - 1])
    inside = [number for number, (first, last) in enumerate(places) if first < end and last > start]
    exact = places[inside[0]][0] == start and places[inside[-1]][1] == end
    return Span(span.label, inside[0], inside[-1] + 1), exact


def without_overlap(spans: Sequence[Span]) -> list[Span]:
    """Spans that do not share a word: of two that were widened into each other the first one stays."""
    kept: list[Span] = []
    for span in spans:
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


if __name__ == "__main__":
    sys.exit(main())
