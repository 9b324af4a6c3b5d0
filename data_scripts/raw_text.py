"""Raw text of a language for `distill.py`: `python data_scripts/raw_text.py --language de --out data FILE...`.

Each FILE is one of

    *.xml.bz2, *.xml    a dump of Wikipedia (pages-articles), read as a stream
    a folder            what WikiExtractor made of one: files wiki_00, wiki_01, ... at any depth, JSON or `<doc>`;
                        or files *.txt
    any other file      plain text, UTF-8, a paragraph (or sentence) a line

It is split into sentences and words, each sentence kept once, and written to DATA/raw/LANG/train.conll as words
without tags. With `--max-sentences`, a seeded sample of all is kept; with `--dev`, as many sentences are held out.
Memory holds the sample, and 8 bytes and their place in a set for each different sentence.
"""

import argparse
import random
import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from corpus_report import write_corpus
from sentence_splitting import split_sentences
from sources import CorpusInfo, run
from tqdm import tqdm
from wikipedia import dump_paragraphs, extracted_paragraphs

from xlner.corpora.lines import read_lines
from xlner.errors import CorpusError
from xlner.words import WORD_SPLITTERS, Sentence, split_words

INFO = CorpusInfo(
    name="raw text",
    folder="raw",
    source="your own files",
    paper="",
    licence="that of the text: Wikipedia's is CC BY-SA 4.0, and asks you to name it.",
    labels="none",
)


def main() -> None:
    """Read the arguments, and write and report the text."""
    parser = argparse.ArgumentParser(description="Raw text as sentences of words; writes OUT/raw/LANG/train.conll")
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="text, a dump, or a folder of WikiExtractor"
    )
    parser.add_argument("--language", required=True, help="its code: the folder, and a rule for numbers with a period")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder of all corpora, such as data"
    )
    parser.add_argument("--max-sentences", type=int, default=0, help="a seeded sample of so many; 0: all")
    parser.add_argument("--dev", type=int, default=0, help="sentences that are held out as dev.conll")
    parser.add_argument("--min-words", type=int, default=3)
    parser.add_argument("--max-words", type=int, default=100)
    parser.add_argument("--splitter", choices=sorted(WORD_SPLITTERS), default="unicode", help="of words")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    sentences = once(limited(all_sentences(arguments), arguments.min_words, arguments.max_words))
    if arguments.max_sentences:
        sentences = iter(sample(sentences, arguments.max_sentences + arguments.dev, generator))
    dev: list[Sentence] = []
    splits: dict[str, Iterable[Sentence]] = {"train": held_out(sentences, arguments.dev, generator, dev)}
    if arguments.dev:
        splits["dev"] = dev
    write_corpus(INFO, arguments, arguments.language, splits)
    print(INFO.citation())


def all_sentences(arguments: argparse.Namespace) -> Iterator[Sentence]:
    """The sentences of all files, split into words."""
    with tqdm(unit=" paragraphs", disable=None, file=sys.stderr) as bar:
        for paragraph in (paragraph for path in arguments.files for paragraph in paragraphs(path)):
            bar.update()
            for text in split_sentences(paragraph, arguments.language):
                yield Sentence(tuple(text[start:end] for start, end in split_words(text, arguments.splitter)))


def paragraphs(path: Path) -> Iterator[str]:
    """The paragraphs of a file or folder.

    Raises:
        CorpusError: If it is not there, or cannot be read.
    """
    if path.is_dir():
        found = sorted(file for pattern in ("wiki_*", "*.txt") for file in path.rglob(pattern) if file.is_file())
        if not found:
            raise CorpusError(f"{path}: no text there; expected files wiki_00, wiki_01, ... of WikiExtractor, or *.txt")
        for file in found:
            yield from _text_paragraphs(file) if file.suffix == ".txt" else extracted_paragraphs(file)
    elif path.name.endswith((".xml", ".xml.bz2")):
        yield from dump_paragraphs(path)
    else:
        yield from _text_paragraphs(path)


def limited(sentences: Iterable[Sentence], shortest: int, longest: int) -> Iterator[Sentence]:
    """Those with a number of words within the limits, and with a letter in at least half of them."""
    for sentence in sentences:
        n_words = len(sentence.words)
        if (
            shortest <= n_words <= longest
            and sum(any(map(str.isalpha, word)) for word in sentence.words) * 2 >= n_words
        ):
            yield sentence


def once(sentences: Iterable[Sentence]) -> Iterator[Sentence]:
    """Each sentence where it stands first."""
    seen: set[bytes] = set()
    for sentence in sentences:
        key = blake2b("\x1f".join(sentence.words).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if key not in seen:
            seen.add(key)
            yield sentence


def sample(sentences: Iterable[Sentence], size: int, generator: random.Random) -> list[Sentence]:
    """So many sentences, each subset as likely as any other, in the order of the text.

    Source: Vitter 1985, "Random Sampling with a Reservoir", algorithm R.
    """
    kept: list[tuple[int, Sentence]] = []
    for number, sentence in enumerate(sentences):
        if len(kept) < size:
            kept.append((number, sentence))
        # `random()` is the one method whose numbers Python keeps the same over versions.
        elif (place := int(generator.random() * (number + 1))) < size:
            kept[place] = (number, sentence)
    return [sentence for _, sentence in sorted(kept, key=lambda entry: entry[0])]


def held_out(
    sentences: Iterable[Sentence], size: int, generator: random.Random, dev: list[Sentence]
) -> Iterator[Sentence]:
    """All sentences but a random `size`, which are in `dev` when the others have been taken."""
    for number, sentence in enumerate(sentences):
        if len(dev) < size:
            dev.append(sentence)
        elif (place := int(generator.random() * (number + 1))) < size:
            yield dev[place]
            dev[place] = sentence
        else:
            yield sentence


def _text_paragraphs(path: Path) -> Iterator[str]:
    return (line for _, line in read_lines(path, "utf-8"))


if __name__ == "__main__":
    raise SystemExit(run(main))
