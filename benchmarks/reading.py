"""How fast corpora are read: `python benchmarks/reading.py FILE...`, and with what memory: `--memory FOLDER`.

Words per second of `read_corpus` beside pandas and pyarrow, which read the same two columns of the same file into
Python lists and neither check nor group anything. In turns in one process, on one core. `--memory` writes a corpus of
10 MB and one of 1 GB in each format to FOLDER, reads them and prints the largest memory of the reading process.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from xlner.corpora.source import read_corpus
from xlner.corpora.write import write_corpus
from xlner.words import Sentence

SENTENCE = Sentence(
    ("Angela", "Merkel", "besuchte", "gestern", "am", "Abend", "die", "Stadt", "Kiel", "an", "der", "Förde", "."),
    ("B-PER", "I-PER", *("O",) * 6, "B-LOC", "O", "O", "B-LOC", "O"),
)
STREAMED = {"conll": "x.conll", "conllu": "x.conllu", "jsonl": "x.jsonl", "spans": "s.jsonl", "text": "x.txt"} | {
    "parquet": "x.parquet",
    "dataset": "folder",
}


def main() -> None:
    """Read the arguments and print a line for each file, or for each format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="files of columns, separated by TABs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", type=Path, metavar="FOLDER", help="gets files of up to 1 GB, and loses them again")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the larger file of --memory")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(arguments.peak)
    elif arguments.memory:
        compare_memory(arguments.memory, arguments.megabytes)
    for path in arguments.files:
        compare_speed(path, arguments.rounds)


def compare_speed(path: Path, rounds: int) -> None:
    """Print words per second of each reader, and the time of ours over theirs."""
    width = count_columns(path)
    readers: dict[str, Callable[[], int]] = {
        "xlner": lambda: sum(len(sentence.words) for sentence in read_corpus(path)),
        "pandas": lambda: read_with_pandas(path, width),
        "pyarrow": lambda: read_with_pyarrow(path, width),
    }
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    n_words = 0
    for _ in range(rounds):
        for name, read in readers.items():
            begin = time.perf_counter()
            found = read()
            seconds[name].append(time.perf_counter() - begin)
            n_words = found if name == "xlner" else n_words
    shown = "  ".join(f"{name} {n_words / median(times) / 1e6:.2f} M words/s" for name, times in seconds.items())
    ratios = ", ".join(
        f"{median(a / b for a, b in zip(seconds['xlner'], seconds[name], strict=True)):.2f} of {name}"
        for name in ("pandas", "pyarrow")
    )
    print(f"{path.name}: {n_words:,} words  {shown}; time of xlner: {ratios}")


def count_columns(path: Path) -> int:
    """Columns of the first row."""
    with path.open(encoding="utf-8") as file:
        return next(line.count("\t") + 1 for line in file if line.strip() and not line.startswith("#"))


def read_with_pandas(path: Path, width: int) -> int:
    """Words and tags as Python lists."""
    import pandas

    wanted = [0, 1] if width == 2 else [1, 2]
    table = pandas.read_csv(
        path, sep="\t", header=None, names=range(width), usecols=wanted, quoting=3, dtype=str, keep_default_na=False
    )
    words, _ = (table[column].tolist() for column in wanted)
    return len(words)


def read_with_pyarrow(path: Path, width: int) -> int:
    """Words and tags as Python lists."""
    import pyarrow
    from pyarrow import csv

    names = [str(number) for number in range(width)]
    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=lambda _: "skip"),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pyarrow.string()), include_columns=names[:2] if width == 2 else names[1:3]
        ),
    )
    words, _ = (table.column(number).to_pylist() for number in range(2))
    return len(words)


def compare_memory(folder: Path, megabytes: int) -> None:
    """Print the peak memory of reading a small and a large corpus of each format."""
    for format, name in STREAMED.items():
        for size in (10, megabytes):
            path = folder / name
            # A sentence takes about 100 bytes in columns.
            write_corpus((SENTENCE for _ in range(size * 10_000)), path, format=format)
            n_bytes = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
            command = [sys.executable, __file__, "--peak", str(path)]
            peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            print(f"{format:8} {n_bytes / 1e6:7.0f} MB on disk: {peak}", flush=True)
            subprocess.run(["rm", "-r", str(path)], check=True)


def print_peak(path: str) -> None:
    """Read a corpus, and print the sentences and the largest memory of this process so far."""
    begin = time.perf_counter()
    n_sentences = sum(1 for _ in read_corpus(path))
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{n_sentences:,} sentences, {seconds:.1f} s, peak {peak:.0f} MiB")


if __name__ == "__main__":
    main()
