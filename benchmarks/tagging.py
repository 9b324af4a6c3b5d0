"""Tagging speed of every backend and of `transformers.pipeline`, side by side in one run, as ratios.

    python benchmarks/tagging.py runs/en/model wikineural/en/test.conllu [--sentences 2000] [--rounds 3] [--threads 2]
      [--students runs/de-bilstm/model ...] [--others spacy gliner] [--without-tiles]

Each contender is a process of its own, with its own peak of memory; they run in turns (A B C A B C ...), so that a
machine that slows down slows all of them. All get the same raw texts in the order of the corpus and give entities.
The pipeline runs with the best of `--pipeline-batches`, tried first on some of the texts. F1, and whether entities are
the pipeline's, are from a pass over the corpus' own words. The share of matrix products is that of the floating-point
operations that the pieces need, padding not counted, in what this machine does in products of 1,024 x 1,024 at the same
time and in the same number format.

Beside them stand students, and on demand spaCy's own `ner`, trained for a moment on what the model says, and GLiNER
(`pip install --no-deps gliner`; it asks for an older transformers): the model's encoder with heads of random weights,
asked for the model's types. What those two say is nothing, what they cost is what it is. `--without-tiles` has the
kernel refuse the matrix tiles (AMX) of an Intel processor to all contenders, as on one that has none.

Everything is given in seconds of the clock and in seconds of the processor. On a machine that others use as well, the
second ones are those to trust, with `--threads 1`: threads that wait for each other spend processor time on waiting.
"""

import argparse
import ctypes
import errno
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import accumulate, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What an xlner backend is: the folder that it opens (the model's own, or an export), and the precision asked for.
XLNER = {
    "xlner torch fp32": ("model", "fp32"),
    "xlner torch bf16": ("model", "bf16"),
    "xlner ONNX fp32": ("fp32", "fp32"),
    "xlner ONNX int8": ("int8", "fp32"),
}
PIPELINE, SPACY, GLINER = "transformers.pipeline", "spaCy ner", "GLiNER, random heads"
RATES = {PIPELINE: "fp32", **dict(zip(XLNER, ("fp32", "bf16", "fp32", "int8"), strict=True))}
TRIED_TEXTS = 50  # that the pipeline's batch size is chosen by
LATENCY_TEXTS = 100
SIZE = 1024  # of the matrices whose product is the measure


class Seconds(NamedTuple):
    """Seconds of the clock, and of the processor in all threads of a process; or rates by either."""

    clock: float
    processor: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a trained tagger")
    parser.add_argument("corpus", help="labelled corpus")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--join", type=int, default=1, help="texts are 1 to N sentences long, drawn by a fixed seed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pipeline-batches", default="1,8,32")
    parser.add_argument("--exports", help="folder to keep exports in, or to take them from; else they are made anew")
    parser.add_argument(
        "--students", nargs="*", default=[], metavar="FOLDER", help="other taggers, as FOLDER or FOLDER=NAME"
    )
    parser.add_argument("--others", nargs="*", default=[], choices=["spacy", "gliner"])
    parser.add_argument("--without-tiles", action="store_true")
    options = parser.parse_args()
    if "gliner" in options.others and find_spec("gliner") is None:
        parser.error("--others gliner: is not installed; pip install --no-deps gliner")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    if options.without_tiles:
        refuse_tiles()
    with tempfile.TemporaryDirectory() as made:
        exports = Path(options.exports or made)
        sentences, gold = read(options.corpus, options.sentences)
        folders = {"model": options.model} | {name: str(exports / name) for name in ("fp32", "int8")}
        for name in ("fp32", "int8"):
            if not (exports / name).exists():
                command = ["export", options.model, "--onnx", folders[name], "--corpus", options.corpus]
                xlner_command(*command, *(["--int8"] if name == "int8" else []))
        batches = [int(size) for size in options.pipeline_batches.split(",")]
        students = {name or folder: folder for folder, _, name in (text.partition("=") for text in options.students)}
        workers = contenders(folders, students, options.others, batches, options.threads)
        compare(workers, sentences, gold, joined(sentences, options.join), options.rounds, options.threads)
        cold_starts(folders["int8"], " ".join(sentences[0]))


def read(corpus: str, limit: int) -> tuple[list[list[str]], list[list[str]]]:
    """Words and tags of the first sentences of a corpus."""
    from xlner.corpora.source import read_corpus

    found = [sentence for sentence in read_corpus(corpus) if sentence.words][:limit]
    return [list(sentence.words) for sentence in found], [list(sentence.tags or ()) for sentence in found]


def joined(sentences: list[list[str]], most: int) -> list[str]:
    """Texts of mixed length: of 1 to `most` sentences, in the order of the corpus."""
    draw = random.Random(0)
    texts, rest = [], iter(sentences)
    while some := list(islice(rest, draw.randint(1, most))):
        texts.append(" ".join(word for words in some for word in words))
    return texts


def contenders(
    folders: dict[str, str], students: dict[str, str], others: list[str], batches: list[int], threads: int
) -> "dict[str, Worker]":
    """A process for each contender."""
    workers = {PIPELINE: Worker(serve_pipeline, folders["model"], batches, threads)}
    for name, (folder, precision) in XLNER.items():
        workers[name] = Worker(serve_tagger, folders[folder], precision, threads)
    for name, folder in students.items():
        workers[name] = Worker(serve_tagger, folder, "fp32", threads)
    if "spacy" in others:
        workers[SPACY] = Worker(serve_spacy, folders["model"], threads)
    if "gliner" in others:
        workers[GLINER] = Worker(serve_gliner, folders["model"], batches, threads)
    return workers


def compare(
    workers: "dict[str, Worker]",
    sentences: list[list[str]],
    gold: list[list[str]],
    texts: list[str],
    rounds: int,
    threads: int,
) -> None:
    """Run all contenders in turns, and print a line for each."""
    from xlner.evaluate import score_tags
    from xlner.tags import spans_of

    n_words = sum(map(len, sentences))
    matrices = Worker(serve_matrices, threads)
    best = {name: workers[name].ask("choose", texts[:TRIED_TEXTS]) for name in (PIPELINE, GLINER) if name in workers}
    print(
        f"{len(texts):,} texts, {n_words:,} words, {threads} threads; best batch sizes: {best}",
        flush=True,
    )
    seconds: dict[str, list[Seconds]] = {name: [] for name in workers}
    rates: dict[str, list[Seconds]] = {"fp32": [], "bf16": [], "int8": []}
    for number in range(rounds):
        for kind, values in rates.items():
            values.append(matrices.ask(kind, None))
        for name, worker in workers.items():
            seconds[name].append(worker.ask("texts", texts))
            clock, processor = seconds[name][-1]
            print(
                f"  round {number + 1}: {name} {n_words / clock:,.0f} words/s, {n_words / processor:,.0f} by processor",
                flush=True,
            )
    latencies: dict[str, list[Seconds]] = {name: [] for name in workers}
    for start in range(0, LATENCY_TEXTS, 50):
        for name, worker in workers.items():
            latencies[name] += worker.ask("alone", texts[start : min(start + 50, LATENCY_TEXTS)])
    memory = {name: worker.ask("memory", None) for name, worker in workers.items()}
    operations = workers["xlner torch fp32"].ask("operations", texts)
    tags = {name: worker.ask("words", sentences) for name, worker in workers.items() if name not in (SPACY, GLINER)}
    likeliest = {name: workers[name].ask("likeliest", sentences) for name in XLNER}
    shares = {name: workers[name].ask("share", texts) for name in XLNER}
    for worker in (*workers.values(), matrices):
        worker.stop()
    print(
        "rates of matrix products by the processor, GFLOP/s: "
        + ", ".join(f"{name} {spread([by_processor for _, by_processor in found])}" for name, found in rates.items())
    )
    of_pipeline = [set(spans_of(row)) for row in tags[PIPELINE]]

    def n_other(rows: list[tuple[str, ...]]) -> int:
        return sum(set(spans_of(row)) != spans for row, spans in zip(rows, of_pipeline, strict=True))

    for name, values in seconds.items():
        print(f"{name}: peak {memory[name]:,.0f} MiB", end="")
        if name in tags:
            print(f", F1 {score_tags(gold, tags[name]).overall.f1:.2f}, other entities than the pipeline in ", end="")
            print(f"{n_other(tags[name])} of {len(gold)} sentences", end="")
        if name in shares:
            print(f" ({n_other(likeliest[name])} by likeliest tags)", end="")
            print(f", {100 * shares[name]:.0f} % of the time outside the network", end="")
        print()
        for which, clock in enumerate(("clock", "processor")):
            taken = [value[which] for value in values]
            ratios = [base[which] / value for base, value in zip(seconds[PIPELINE], taken, strict=True)]
            of_rate = ""
            if name in RATES:
                shares_of = [
                    100 * operations / value / (1e9 * rate[which])
                    for value, rate in zip(taken, rates[RATES[name]], strict=True)
                ]
                of_rate = f"{statistics.median(shares_of):.0f} % of the matrix rate, "
            milliseconds = [1000 * value[which] for value in latencies[name]]
            print(
                f"    by the {clock}: {spread([n_words / value for value in taken])} words/s, "
                f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}), "
                f"{of_rate}"
                f"alone {np.median(milliseconds):.1f} ms, p99 {np.percentile(milliseconds, 99):.1f} ms"
            )


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


class Worker:
    """A process that answers questions, one at a time."""

    def __init__(self, serve: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=serve, args=(there, *arguments), daemon=True)
        self._process.start()

    def ask(self, question: str, content: object) -> Any:
        """The answer, once it is there."""
        self._here.send((question, content))
        return self._here.recv()

    def stop(self) -> None:
        """End the process."""
        self._here.close()
        self._process.join()


def answer(connection: Connection, answers: dict[str, Callable[[Any], object]]) -> None:
    """Answer until nobody asks."""
    while True:
        try:
            question, content = connection.recv()
        except EOFError:
            return
        connection.send(answers[question](content))


def timed(job: Callable[[], object]) -> Seconds:
    """How long a job takes."""
    clock, processor = time.perf_counter(), time.process_time()
    job()
    return Seconds(time.perf_counter() - clock, time.process_time() - processor)


def peak_memory(_: object) -> float:
    """MiB that this process has held at most; `getrusage` would count what its parent held when it was forked."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def serve_tagger(connection: Connection, folder: str, precision: str, threads: int) -> None:
    """A tagger of xlner; torch is imported by those alone that need it, as the memory shows."""
    from xlner import load_tagger

    tagger = load_tagger(folder, precision=precision)
    if precision == "bf16" or not Path(folder, "model.onnx").exists():
        import torch

        torch.set_num_threads(threads)
    tagger.tag_batch(["A first text pays for what is loaded late ."] * 20)

    def share(texts: list[str]) -> float:
        backend = Timed(tagger.backend)
        tagger.backend = backend
        total = timed(lambda: tagger.tag_batch(texts)).processor
        tagger.backend = backend.backend
        return 1 - backend.seconds / total

    def forget_words() -> None:
        getattr(tagger.encoder, "_known", {}).clear()

    def operations(texts: list[str]) -> float:
        """Floating-point operations that the pieces of the texts need."""
        config = tagger.model.recognizer.config
        linear = sum(w.numel() for n, w in tagger.model.named_parameters() if w.dim() == 2 and "embeddings" not in n)
        lengths = [len(w.piece_ids) for w in tagger.encoder.encode([tagger.words(text) for text in texts])]
        attention = 4 * config.num_hidden_layers * config.hidden_size
        return float(sum(2 * linear * n + attention * n * n for n in lengths))

    def throughput(texts: list[str]) -> Seconds:
        forget_words()
        return timed(lambda: tagger.tag_batch(texts))

    def likeliest(sentences: list[list[str]]) -> list[tuple[str, ...]]:
        """The likeliest tag of each word, as the pipeline takes it: sequences need not be valid."""
        names = tagger.labels.tags
        return [tuple(names[row.argmax()] if row.any() else "O" for row in probs) for probs in tagger.probs(sentences)]

    answer(
        connection,
        {
            "likeliest": likeliest,
            "texts": throughput,
            "alone": lambda texts: [timed(lambda text=text: tagger.tag(text)) for text in texts],
            "words": tagger.tag_sentences,
            "share": lambda texts: (forget_words(), share(texts))[1],
            "operations": operations,
            "memory": peak_memory,
        },
    )


class Timed:
    """A backend that counts the processor's seconds spent in it."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.seconds = 0.0

    def logits(self, batches: Any) -> Any:
        """What the backend gives, which may compute ahead while the caller has its turn."""
        found = self.backend.logits(batches)
        while True:
            start = time.process_time()
            one = next(found, None)
            self.seconds += time.process_time() - start
            if one is None:
                return
            yield one


def serve_pipeline(connection: Connection, folder: str, batches: list[int], threads: int) -> None:
    """The pipeline of transformers."""
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    from xlner.tags import Span, tags_of

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    tagger = pipeline("token-classification", model=folder, aggregation_strategy="first", dtype=torch.float32)
    best = batches[0]

    def choose(texts: list[str]) -> int:
        nonlocal best
        tagger(texts[:20])
        best = min(batches, key=lambda size: timed(lambda: tagger(texts, batch_size=size)).processor)
        return best

    def words(sentences: list[list[str]]) -> list[tuple[str, ...]]:
        """Tags of given words; the pipeline answers with places in the words joined by spaces."""
        rows = []
        for sentence in sentences:
            starts = [0, *accumulate(len(word) + 1 for word in sentence)]
            (found,) = tagger([sentence], is_split_into_words=True, delimiter=" ")
            # An entity can begin and end inside a word, at a sign in it: the word counts as a whole.
            spans = [
                Span(
                    entity["entity_group"],
                    bisect_right(starts, entity["start"]) - 1,
                    bisect_right(starts, entity["end"] - 1),
                )
                for entity in found
            ]
            rows.append(tags_of(spans, len(sentence)))
        return rows

    answer(
        connection,
        {
            "choose": choose,
            "texts": lambda texts: timed(lambda: tagger(texts, batch_size=best)),
            "alone": lambda texts: [timed(lambda text=text: tagger(text)) for text in texts],
            "words": words,
            "memory": peak_memory,
        },
    )


def serve_spacy(connection: Connection, folder: str, threads: int) -> None:
    """The `ner` of spaCy with its own small network, trained for a step on what the model says of a sentence."""
    import spacy
    import torch
    from spacy.training import Example

    from xlner import load_tagger
    from xlner.models.folder import read_settings

    torch.set_num_threads(threads)
    teacher = load_tagger(folder)
    pipeline = spacy.blank(read_settings(folder).language or "xx")
    pipeline.add_pipe("ner")

    text = "Angela Merkel besuchte gestern Kiel ."
    said = [(entity.start, entity.end, entity.label) for entity in teacher.tag(text)]
    examples = [Example.from_dict(pipeline.make_doc(text), {"entities": said}) for _ in range(8)]
    pipeline.update(examples, sgd=pipeline.initialize(lambda: examples))
    answer(
        connection,
        {
            "texts": lambda texts: timed(lambda: [doc.ents for doc in pipeline.pipe(texts, batch_size=64)]),
            "alone": lambda texts: [timed(lambda text=text: pipeline(text).ents) for text in texts],
            "memory": peak_memory,
        },
    )


def serve_gliner(connection: Connection, folder: str, batches: list[int], threads: int) -> None:
    """GLiNER with the model's encoder, in float32, asked for the model's types."""
    import torch
    from gliner import GLiNER, GLiNERConfig  # type: ignore[import-not-found]
    from transformers.utils import logging

    from xlner import load_tagger

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    types = load_tagger(folder).types
    tagger = GLiNER.from_config(GLiNERConfig(model_name=folder)).float().eval()
    best = batches[0]

    def choose(texts: list[str]) -> int:
        nonlocal best
        tagger.inference(texts[:20], types)
        best = min(batches, key=lambda size: timed(lambda: tagger.inference(texts, types, batch_size=size)).processor)
        return best

    answer(
        connection,
        {
            "choose": choose,
            "texts": lambda texts: timed(lambda: tagger.inference(texts, types, batch_size=best)),
            "alone": lambda texts: [timed(lambda text=text: tagger.inference([text], types)) for text in texts],
            "memory": peak_memory,
        },
    )


def serve_matrices(connection: Connection, threads: int) -> None:
    """Rates of matrix products in GFLOP/s (for int8: 10^9 operations): the best of some, as nothing else runs then."""
    import onnxruntime
    import torch
    from onnx import TensorProto, helper, numpy_helper

    torch.set_num_threads(threads)

    def of_torch(dtype: torch.dtype) -> Callable[[], object]:
        one, other = torch.randn(SIZE, SIZE).to(dtype), torch.randn(SIZE, SIZE).to(dtype)
        return lambda: one @ other

    rows = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE))
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b", "zero"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [SIZE, SIZE])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [SIZE, SIZE])],
        [
            numpy_helper.from_array((rows - 128).astype(np.int8), "b"),
            numpy_helper.from_array(np.array(128, dtype=np.uint8), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    values = rows.astype(np.uint8)
    jobs: dict[str, Callable[[], object]] = {
        "fp32": of_torch(torch.float32),
        "bf16": of_torch(torch.bfloat16),
        "int8": lambda: session.run(None, {"a": values}),
    }

    def rate(job: Callable[[], object]) -> Seconds:
        job()
        runs = [timed(job) for _ in range(20)]
        return Seconds(*(2 * SIZE**3 / min(values) / 1e9 for values in zip(*runs, strict=True)))

    answer(connection, {name: lambda _, job=job: rate(job) for name, job in jobs.items()})


def refuse_tiles() -> None:
    """Have the kernel refuse the tiles to this process and those that it starts: libraries ask for them by a call."""

    class Step(ctypes.Structure):
        _fields_ = (
            ("code", ctypes.c_ushort),
            ("yes", ctypes.c_ubyte),
            ("no", ctypes.c_ubyte),
            ("value", ctypes.c_uint),
        )

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.POINTER(Step)))

    # Of the call arch_prctl (158 on x86-64) its request ARCH_REQ_XCOMP_PERM (0x1023); all others are let through.
    load, jump_if_equal, give, allowed, refused = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000 | errno.EPERM
    steps = (Step * 6)(
        Step(load, 0, 0, 0),
        Step(jump_if_equal, 0, 3, 158),
        Step(load, 0, 0, 16),
        Step(jump_if_equal, 0, 1, 0x1023),
        Step(give, 0, 0, refused),
        Step(give, 0, 0, allowed),
    )
    libc, no_new_privileges, seccomp, filtered = ctypes.CDLL(None), 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(seccomp, filtered, ctypes.byref(Program(6, steps))):
        sys.exit("--without-tiles: this system lets no process give up a call; expected Linux with seccomp")


def cold_starts(folder: str, text: str) -> None:
    """Print the time of fresh processes, start of Python included."""
    ask = "from xlner import load_tagger; import sys; print(load_tagger(sys.argv[1]).tag(sys.argv[2])[:1])"
    commands = {
        "python alone": ["-c", "pass"],
        "import xlner": ["-c", "import xlner"],
        "xlner --help": ["-c", "from xlner.cli import main; main()", "--help"],
        "first entity, ONNX int8": ["-c", ask, folder, text],
    }
    for name, command in commands.items():
        runs = [timed(lambda command=command: python(*command)).clock for _ in range(7)]
        print(
            f"{name}: median {1000 * statistics.median(runs):.0f} ms ({1000 * min(runs):.0f} to {1000 * max(runs):.0f})"
        )


def xlner_command(*arguments: str) -> None:
    """Run the command line of xlner, and show what it prints."""
    subprocess.run([sys.executable, "-c", "from xlner.cli import main; main()", *arguments], check=True)


def python(*arguments: str) -> None:
    """Run a fresh Python to its end."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
