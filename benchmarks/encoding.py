"""The word encoder against the bare fast tokenizer: `python benchmarks/encoding.py ENCODER CORPUS...`.

Both get the same lists of words, in batches; the tokenizer adds its special pieces and gives nothing back that xlner
needs besides. The encoder starts anew in every round, so that it knows no word yet. Rounds go in turns; each
combination of tokenizer and TOKENIZERS_PARALLELISM is measured in a process of its own.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from xlner.corpora.source import read_corpus
from xlner.encode import WordEncoder, load_tokenizer

BATCH = 1024  # sentences that the bare tokenizer gets at once
MAX_LENGTH = 256  # the default of corpus.max_length


def main() -> None:
    """Measure, and print a line per tokenizer and kind of parallelism."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", help="folder or hub name of a tokenizer")
    parser.add_argument("corpora", nargs="+", help="conll files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--unigram", type=int, default=32_000, help="also with a Unigram tokenizer of so many pieces")
    parser.add_argument("--one", action="store_true", help="measure in this process alone")
    options = parser.parse_args()
    if options.one:
        print(compare(options.encoder, options.corpora, options.rounds), flush=True)
        return
    with TemporaryDirectory() as folder:
        names = [options.encoder]
        if options.unigram:
            save_unigram(Path(folder), options.corpora, options.unigram)
            names.append(folder)
        for name in names:
            for parallel in ("false", "true"):
                kind = type(load_tokenizer(name).backend_tokenizer.model).__name__
                print(f"{kind}, TOKENIZERS_PARALLELISM={parallel}: ", end="", flush=True)
                command = [sys.executable, __file__, "--one", "--rounds", str(options.rounds), name, *options.corpora]
                subprocess.run(command, check=True, env={**os.environ, "TOKENIZERS_PARALLELISM": parallel})


def compare(encoder: str, corpora: list[str], rounds: int) -> str:
    """Seconds of both, and how many times as fast as the tokenizer the word encoder is."""
    sentences = [list(words) for words in words_of(corpora)]
    tokenizer = load_tokenizer(encoder)

    def bare() -> None:
        for start in range(0, len(sentences), BATCH):
            tokenizer(
                sentences[start : start + BATCH], is_split_into_words=True, add_special_tokens=True, verbose=False
            )

    def xlner() -> None:
        for _ in WordEncoder(tokenizer, MAX_LENGTH).encode(sentences):
            pass

    bare()
    xlner()  # the first calls pay for what is loaded late
    rows = [(seconds(bare), seconds(xlner)) for _ in range(rounds)]
    ratios = [of_bare / of_xlner for of_bare, of_xlner in rows]
    of_bare, of_xlner = (statistics.median(column) for column in zip(*rows, strict=True))
    n_words = sum(map(len, sentences))
    return (
        f"{len(sentences):,} sentences, {n_words:,} words: tokenizer {of_bare:.2f} s, xlner {of_xlner:.2f} s "
        f"({n_words / of_xlner:,.0f} words/s); speed of xlner / tokenizer {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def seconds(job: Callable[[], None]) -> float:
    """How long a job takes."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def words_of(corpora: list[str]) -> list[tuple[str, ...]]:
    """The sentences of some corpora."""
    return [sentence.words for path in corpora for sentence in read_corpus(path, format="conll")]


def save_unigram(folder: Path, corpora: list[str], size: int) -> None:
    """A tokenizer like XLM-R's, Unigram with Metaspace, trained on the corpora themselves."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator((" ".join(words) for words in words_of(corpora)), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **names).save_pretrained(folder)


if __name__ == "__main__":
    main()
