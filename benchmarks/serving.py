"""What `xlner serve` costs: texts a second against `tag_batch` called directly, by the number of clients.

    python benchmarks/serving.py runs/en/model texts.txt [--requests 300] [--rounds 3] [--clients 1,8,32]

One text a line, one text a request. The service is a process of its own on this machine, and stops at the end. A round
calls `tag_batch` on all texts; then, for each number of clients, on as many texts at a time, and has the clients send
them. Rounds follow one another, so that a machine that slows down slows all of them. A ratio is of one round: texts a
second by those of `tag_batch` on all texts, by the clock, and by seconds of the processor, which is what to trust where
others use the machine as well. Latencies are of all rounds together.
"""

import argparse
import http.client
import json
import os
import queue
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xlner import Tagger

WARM_UP = 20  # texts
DIRECT, SERVED = "tag_batch on {} at a time", "{} clients"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a tagger")
    parser.add_argument("texts", help="a text a line")
    parser.add_argument("--requests", type=int, default=300, help="of a number of clients in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    lines = Path(options.texts).read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if line.strip()][: options.requests]
    clients = [int(number) for number in options.clients.split(",")]
    compare(options.model, texts, clients, options.rounds)


def compare(model: str, texts: list[str], clients: list[int], rounds: int) -> None:
    """Run all in turns, and print a line for each."""
    from xlner import load_tagger

    tagger = load_tagger(model)
    tagger.tag_batch(texts[:WARM_UP])
    n_words = sum(len(tagger.words(text)) for text in texts)
    print(f"{len(texts):,} texts, {n_words:,} words, {rounds} rounds", flush=True)
    service = Service(model)
    ratios: dict[tuple[str, int], list[tuple[float, float]]] = {}
    latencies: dict[int, list[float]] = {number: [] for number in clients}
    rates = []
    try:
        service.send(texts[:WARM_UP], 1)
        print(f"memory of the service with the model: {service.memory('VmRSS'):,.0f} MiB", flush=True)
        for _ in range(rounds):
            whole = direct(tagger, texts, len(texts))
            rates.append(len(texts) / whole[0])
            for number in clients:
                some = direct(tagger, texts, number)
                clock, processor = time.perf_counter(), service.processor_seconds()
                latencies[number] += service.send(texts, number)
                taken = time.perf_counter() - clock, service.processor_seconds() - processor
                for kind, seconds in ((DIRECT, some), (SERVED, taken)):
                    ratios.setdefault((kind, number), []).append((whole[0] / seconds[0], whole[1] / seconds[1]))
        peak = service.memory("VmHWM")
    finally:
        service.stop()
    print(f"tag_batch on all texts: {spread(rates, '.0f')} texts/s")
    for (kind, number), found in ratios.items():
        by_clock, by_processor = (spread(list(values), ".2f") for values in zip(*found, strict=True))
        print(f"{kind.format(number)}: {by_clock} x by the clock, {by_processor} x by the processor", end="")
        if kind == SERVED:
            middle, last = (1000 * float(np.percentile(latencies[number], part)) for part in (50, 99))
            print(f", p50 {middle:.0f} ms, p99 {last:.0f} ms, {len(latencies[number]):,} requests", end="")
        print()
    print(f"peak memory of the service: {peak:,.0f} MiB")


def direct(tagger: "Tagger", texts: list[str], at_once: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor that `tag_batch` takes for all texts, so many at a time."""
    clock, processor = time.perf_counter(), time.process_time()
    for start in range(0, len(texts), at_once):
        tagger.tag_batch(texts[start : start + at_once])
    return time.perf_counter() - clock, time.process_time() - processor


def spread(values: list[float], form: str) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


class Service:
    """`xlner serve` as a process, and clients of it."""

    def __init__(self, model: str) -> None:
        program = "from xlner.cli import main; main()"
        command = [sys.executable, "-c", program, "serve", f"tagger={model}", "--port", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        stderr = self._process.stderr
        assert stderr is not None
        found = re.match(r"http://127\.0\.0\.1:(\d+)/", stderr.readline())
        if found is None:
            raise SystemExit(stderr.read())
        self._port = int(found[1])
        for line in stderr:
            if "startup complete" in line:
                return
        raise SystemExit("the service ended before it was ready")

    def send(self, texts: list[str], n_clients: int) -> list[float]:
        """Send each text once, by clients that wait for an answer before the next request; seconds of each."""
        waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for text in texts:
            waiting.put(text)
        seconds: list[float] = []
        clients = [threading.Thread(target=self._client, args=(waiting, seconds)) for _ in range(n_clients)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        if len(seconds) != len(texts):
            raise SystemExit(f"{len(texts) - len(seconds)} of {len(texts)} requests were not answered with 200")
        return seconds

    def _client(self, waiting: "queue.SimpleQueue[str]", seconds: list[float]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        while True:
            try:
                text = waiting.get_nowait()
            except queue.Empty:
                connection.close()
                return
            start = time.perf_counter()
            connection.request("POST", "/v1/tag", json.dumps({"text": text}), {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                seconds.append(time.perf_counter() - start)

    def processor_seconds(self) -> float:
        """What all threads of the service have used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, kind: str) -> float:
        """MiB that the service holds (VmRSS), or held at most (VmHWM)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(status.split(f"{kind}:")[1].split()[0]) / 1024

    def stop(self) -> None:
        """End the process as a supervisor would."""
        self._process.terminate()
        self._process.wait(60)


if __name__ == "__main__":
    main()
