"""Size and speed of compact students beside BERT-base, BERT-large and spaCy's own `ner`, in one run.

    python benchmarks/students.py wikineural/de/test.conll runs/de-bilstm/model runs/de-linear/model --tokenizer ENCODER

Every contender gets the words of the same sentences, as many at a time as the batch size says, and gives a tag for
each, decoding included. Sentences of a batch follow one another in the corpus. Contenders run in turns, in one process
with `--threads` threads; in a turn each goes through the sentences, but takes no new batch after `--seconds`, and the
best of `--rounds` turns counts. On a machine that others use as well, trust the ratios of processor time, with
`--threads 1`. A folder named as `FOLDER=NAME` is called NAME in the table.

The BERTs have random weights, the sizes of the published ones, and the tokenizer of `--tokenizer`; what they say is
nothing, what they cost is what it is. spaCy's `ner` is trained for a moment on what the first student says, so that its
transitions are those of a tagger.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

BATCH_SIZES = (1, 32, 64, 128)
BERTS = {"BERT-base": (768, 12, 12), "BERT-large": (1024, 24, 16)}  # width, layers, heads
SPACY_SENTENCES = 300  # that `ner` is trained on

Tag = Callable[[list[Sequence[str]]], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="of whose words the sentences are")
    parser.add_argument("models", nargs="+", help="folders of compact students, as they are or exported")
    parser.add_argument("--tokenizer", required=True, help="model folder or hub name of the tokenizer of the BERTs")
    parser.add_argument("--language", default="de", help="of spaCy's rules")
    parser.add_argument("--sentences", type=int, default=256, help="of the corpus, for all batch sizes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn at one batch size, about")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    from xlner.corpora.source import read_corpus

    torch.set_num_threads(options.threads)
    read = (sentence.words for sentence in islice(read_corpus(options.corpus), options.sentences + SPACY_SENTENCES))
    sentences = [words for words in read if words]
    measured, others = sentences[: options.sentences], sentences[options.sentences :]
    with tempfile.TemporaryDirectory() as made:
        contenders = {}
        for model in options.models:
            folder, _, name = model.partition("=")
            contenders[name or folder] = compact(Path(folder))
        first = next(iter(contenders.values()))[0]
        for name, sizes in BERTS.items():
            contenders[name] = bert(Path(made) / name, options.tokenizer, *sizes)
        contenders["spaCy ner"] = spacy_ner(Path(made) / "spacy", options.language, others, first)
        report(contenders, measured, options.rounds, options.seconds)


def report(
    contenders: dict[str, tuple[Tag, int | None, int]], sentences: Sequence[Sequence[str]], rounds: int, seconds: float
) -> None:
    """Measure all contenders in turns and print two tables in Markdown."""
    found: dict[tuple[str, int], list[Turn]] = {(name, size): [] for name in contenders for size in BATCH_SIZES}
    for number in range(rounds):
        for size in BATCH_SIZES:
            for name, (tag, _, _) in contenders.items():
                found[name, size].append(turn(tag, batches(sentences, size), seconds))
                print(f"round {number + 1}, batch {size}, {name}: {found[name, size][-1]}", file=sys.stderr)
    for kind, what in enumerate(("the clock", "the processor")):
        best = {place: max(rates[kind] for rates in turns) for place, turns in found.items()}
        print(f"\nWords a second of {what} by batch size, and how many times as many as BERT-large\n")
        print("| | parameters | bytes | ms a sentence |" + "".join(f" {size} |" for size in BATCH_SIZES))
        print("|---" * (4 + len(BATCH_SIZES)) + "|")
        for name, (_, n_parameters, n_bytes) in contenders.items():
            counted = "" if n_parameters is None else f"{n_parameters:,}"
            latency = min(rates[2] for rates in found[name, 1])
            cells = [
                f" {best[name, size]:,.0f} ({best[name, size] / best['BERT-large', size]:.1f}x) |"
                for size in BATCH_SIZES
            ]
            print(f"| {name} | {counted} | {n_bytes:,} | {latency:.2f} |" + "".join(cells))
    base = contenders["BERT-base"][2]
    smaller = ", ".join(f"{name} {base / n_bytes:.0f}x" for name, (_, _, n_bytes) in contenders.items())
    print(f"\nsmaller than BERT-base on disk: {smaller}")


class Turn(NamedTuple):
    """Words a second of the clock and of the processor, and the median of the milliseconds of a call."""

    by_clock: float
    by_processor: float
    milliseconds: float


def turn(tag: Tag, waiting: Iterator[list[Sequence[str]]], seconds: float) -> Turn:
    """Tag batches until they or the seconds run out."""
    n_words, calls = 0, []
    clock, processor = time.perf_counter(), time.process_time()
    for batch in waiting:
        started = time.perf_counter()
        tag(batch)
        n_words += sum(map(len, batch))
        calls.append(time.perf_counter() - started)
        if time.perf_counter() - clock > seconds:
            break
    by_clock = n_words / (time.perf_counter() - clock)
    return Turn(by_clock, n_words / (time.process_time() - processor), 1000 * statistics.median(calls))


def compact(folder: Path) -> tuple[Tag, int | None, int]:
    """A compact student; parameters are not counted where they are in a graph."""
    from safetensors.numpy import load_file

    from xlner import load_tagger

    tagger = load_tagger(folder)
    weights = folder / "model.safetensors"
    exported = (folder / "model.onnx").is_file()
    count = None if exported else sum(value.size for value in load_file(weights).values())
    return tagger.tag_sentences, count, bytes_of(folder)


def bert(folder: Path, tokenizer: str, width: int, layers: int, heads: int) -> tuple[Tag, int | None, int]:
    """A BERT of random weights with nine tags, as a model folder that xlner opens."""
    from transformers import AutoTokenizer, BertConfig, BertForTokenClassification

    from xlner import load_tagger

    words = AutoTokenizer.from_pretrained(tokenizer)
    tags = ["O", *(f"{prefix}-{name}" for name in ("LOC", "MISC", "ORG", "PER") for prefix in "BI")]
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        id2label=dict(enumerate(tags)),
    )
    model = BertForTokenClassification(config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    tagger = load_tagger(folder)
    return tagger.tag_sentences, model.num_parameters(), bytes_of(folder)


def spacy_ner(
    folder: Path, language: str, sentences: Sequence[Sequence[str]], teacher: Tag
) -> tuple[Tag, int | None, int]:
    """The `ner` of spaCy with its own small network, trained for two passes on what a student says."""
    import spacy
    from spacy.tokens import Doc
    from spacy.training import Example, iob_to_biluo

    pipeline = spacy.blank(language)
    pipeline.add_pipe("ner")
    tags: Any = teacher(list(sentences))
    examples = [
        Example.from_dict(Doc(pipeline.vocab, list(words)), {"entities": iob_to_biluo(row)})
        for words, row in zip(sentences, tags, strict=True)
    ]
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(2):
        for start in range(0, len(examples), 32):
            pipeline.update(examples[start : start + 32], sgd=optimizer)
    pipeline.to_disk(folder)
    n_parameters = sum(
        node.get_param(name).size
        for node in pipeline.get_pipe("ner").model.walk()
        for name in node.param_names
        if node.has_param(name)
    )

    def tag(batch: list[Sequence[str]]) -> object:
        docs = (Doc(pipeline.vocab, list(words)) for words in batch)
        return [[(entity.start, entity.end, entity.label_) for entity in doc.ents] for doc in pipeline.pipe(docs)]

    return tag, n_parameters, bytes_of(folder)


def batches(sentences: Sequence[Sequence[str]], size: int) -> Iterator[list[Sequence[str]]]:
    """The sentences, `size` at a time."""
    for start in range(0, len(sentences), size):
        yield list(sentences[start : start + size])


def bytes_of(folder: Path) -> int:
    """Of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
