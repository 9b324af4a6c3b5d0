"""An annotator's hour, simulated with gold: a model fine-tuned on sentences that `xlner select` chose, or random ones.

    python recipes/ablation/selected_sentences.py --model runs/teacher-en/model --pool data/pt/train.conll \
        --dev data/pt/dev.conll --out runs/selected-pt.csv

The labels of the pool play the annotator: those of the chosen sentences alone are looked at. Each draw is another part
of the pool. `--head` trains the output layer alone, on hidden states that are computed once. Finished rows are not done
again.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch

from xlner.corpora.source import read_corpus
from xlner.evaluate import evaluate_tags
from xlner.models.inference import collate, word_vectors
from xlner.models.token_classifier import freeze, output_layer
from xlner.predict import decide_tags
from xlner.select import CANDIDATES, Candidate, most_different, most_doubtful, network_of, new_entities_first
from xlner.tag_files.records import Record
from xlner.tagger import Tagger, load_tagger
from xlner.tags import LabelMap
from xlner.train.objectives import token_cross_entropy
from xlner.words import Sentence

COLUMNS = ("draw", "way", "sentences", "words", "f1")
RANDOM, SELECTED, DOUBTFUL = "random", "selected", "doubtful"
VISITS = 400  # sentences that a model sees, again and again, but each three times at least
BATCH, LEARNING_RATE, FREEZE = 8, 5e-5, "embeddings+6"
HEAD_STEPS, HEAD_RATE = 200, 1e-3


def main() -> int:
    """Run what is missing and print the table; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="the model that selects, and that is fine-tuned")
    parser.add_argument("--pool", required=True, help="labelled corpus to choose from")
    parser.add_argument("--dev", required=True, help="labelled corpus that is scored")
    parser.add_argument("--out", type=Path, required=True, help="CSV of all runs")
    parser.add_argument("--map", default="", help="types renamed or dropped in pool and dev, as labels.map")
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 100, 200], help="sentences chosen")
    parser.add_argument("--more", nargs="*", type=int, default=[400], help="further sizes of random ones")
    parser.add_argument("--ways", nargs="+", default=[RANDOM, SELECTED, DOUBTFUL], help="how sentences are chosen")
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2], help="parts of the pool")
    parser.add_argument("--part", type=int, default=2000, help="sentences of a part")
    parser.add_argument("--head", action="store_true", help="train the output layer alone")
    parser.add_argument("--scored", type=int, default=1000, help="sentences of dev that are scored")
    given = parser.parse_args()
    rename = LabelMap.parse(given.map)
    pool, dev = (
        [Sentence(one.words, rename.apply(one.tags)) for one in read_corpus(path) if one.tags is not None]
        for path in (given.pool, given.dev)
    )
    dev = dev[: given.scored]
    done = read_rows(given.out)
    if not any(way == "none" for _, way, *_ in done):
        done.append(add_row(given.out, (0, "none", 0, 0, score(load_tagger(given.model), dev))))
    for draw in given.draws:
        part = pool[draw * given.part : (draw + 1) * given.part]
        if len(part) < given.part:
            sys.exit(f"{given.pool}: {len(pool):,} sentences are too few for part {draw} of {given.part:,}")
        wanted = [(way, n) for way in given.ways for n in [*given.sizes, *(given.more if way == RANDOM else [])]]
        wanted = [one for one in wanted if (draw, *one) not in {row[:3] for row in done}]
        if not wanted:
            continue
        tagger, candidates = load_tagger(given.model), list[Candidate]()
        if any(way != RANDOM for way, _ in wanted):
            records = [Record(place, "", None, one.words, None, {}) for place, one in enumerate(part)]
            candidates = most_doubtful(tagger, records, CANDIDATES * max(given.sizes))
        states = Heads(tagger, part, dev) if given.head else None
        for way, n in wanted:
            numbers = choose(tagger, candidates, way, n, draw, len(part))
            chosen = [part[number] for number in numbers]
            if states is not None:
                f1 = states.score(numbers, draw)
            else:
                trained = load_tagger(given.model)
                fine_tune(trained, chosen, draw)
                f1 = score(trained, dev)
            done.append(add_row(given.out, (draw, way, n, sum(len(one.words) for one in chosen), f1)))
    show(done)
    return 0


def choose(tagger: Tagger, candidates: Sequence[Candidate], way: str, n: int, draw: int, n_sentences: int) -> list[int]:
    """The numbers of n sentences of a part."""
    if way == RANDOM:
        return [int(number) for number in np.random.default_rng(draw).permutation(n_sentences)[:n]]
    if way == DOUBTFUL:
        found = new_entities_first([one.record for one in candidates], n)
    else:
        found = most_different(tagger, candidates[: CANDIDATES * n], n)
    return [one.record.number for one in found]


def fine_tune(tagger: Tagger, sentences: Sequence[Sentence], seed: int) -> None:
    """Train the tagger's network on labelled sentences, in place."""
    torch.manual_seed(seed)
    model = network_of(tagger).train()
    freeze(model.recognizer, FREEZE)
    windows = list(tagger.encoder.encode([one.words for one in sentences]))
    tags = [np.asarray(tagger.labels.ids(one.tags or ())) for one in sentences]
    orders = [torch.randperm(len(windows)).tolist() for _ in range(max(3, VISITS // len(sentences)))]
    plan = [order[start : start + BATCH] for order in orders for start in range(0, len(order), BATCH)]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 6, 1 - step / len(plan)))
    for batch in plan:
        chosen = [windows[number] for number in batch]
        tag_ids = np.concatenate([tags[window.sentence][window.word_numbers] for window in chosen])
        logits = model(*collate(chosen, tagger.encoder.pad_id)).logits
        torch.autograd.backward(token_cross_entropy(logits, torch.from_numpy(tag_ids)).mean())
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    model.eval()


class Heads:
    """Output layers of a tagger, trained on hidden states of a part of the pool and scored on those of dev."""

    def __init__(self, tagger: Tagger, part: Sequence[Sentence], dev: Sequence[Sentence]) -> None:
        self._tagger, self._part, self._dev = tagger, part, dev
        self._of_part, self._of_dev = (hidden_states(tagger, sentences) for sentences in (part, dev))

    def score(self, numbers: Sequence[int], seed: int) -> float:
        """F1 on dev in percent, of the tagger's own layer after training on these sentences of the part."""
        torch.manual_seed(seed)
        labels = self._tagger.labels
        layer = deepcopy(output_layer(network_of(self._tagger).recognizer, len(labels.tags))[1]).train()
        states = torch.cat([self._of_part[number] for number in numbers])
        tag_ids = torch.from_numpy(np.concatenate([labels.ids(self._part[number].tags or ()) for number in numbers]))
        optimizer = torch.optim.AdamW(layer.parameters(), lr=HEAD_RATE, weight_decay=0.01)
        for _ in range(HEAD_STEPS):
            torch.autograd.backward(token_cross_entropy(layer(states), tag_ids).mean())
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            probs = [layer(found).softmax(dim=1).numpy() for found in self._of_dev]
        predicted = [decide_tags(rows, labels) for rows in probs]
        gold = [one.tags or () for one in self._dev]
        return evaluate_tags(self._tagger.types, gold, predicted).report.overall.f1


def hidden_states(tagger: Tagger, sentences: Sequence[Sentence]) -> list[torch.Tensor]:
    """Of the words of each sentence, those of the last layer, (W, D)."""
    model, words = network_of(tagger), [one.words for one in sentences]
    windows = list(tagger.encoder.encode(words))
    width = int(model.recognizer.config.hidden_size)
    found = [np.zeros((len(one), width), dtype=np.float32) for one in words]
    for number, vectors in word_vectors(model, windows, tagger.encoder.pad_id, slice(-1, None), device=tagger.device):
        found[windows[number].sentence][windows[number].word_numbers] = vectors
    return [torch.from_numpy(rows) for rows in found]


def score(tagger: Tagger, dev: Sequence[Sentence]) -> float:
    """F1 in percent."""
    predicted = tagger.tag_sentences([one.words for one in dev])
    return evaluate_tags(tagger.types, [one.tags or () for one in dev], predicted).report.overall.f1


Row = tuple[int, str, int, int, float]


def read_rows(path: Path) -> list[Row]:
    """The rows that are done."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [(int(r["draw"]), r["way"], int(r["sentences"]), int(r["words"]), float(r["f1"])) for r in rows]


def add_row(path: Path, row: Row) -> Row:
    """Write a row behind the others, and show it."""
    is_new = not path.is_file()
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, row] if is_new else [row])
    print(*row, flush=True)
    return row


def show(rows: Sequence[Row]) -> None:
    """Print mean, deviation and words by way and size, and how many random sentences do as much."""
    (without,) = [f1 for _, way, _, _, f1 in rows if way == "none"]
    print(
        f"\nF1 without a label of the language: {without:.2f}\n\n| way | sentences | words | F1 | random ones needed |"
    )
    print("|---|---|---|---|---|")
    groups = {(way, n): [row for row in rows if row[1:3] == (way, n)] for _, way, n, _, _ in rows if way != "none"}
    curve = sorted((n, mean(row[4] for row in found)) for (way, n), found in groups.items() if way == RANDOM)
    for (way, n), found in sorted(groups.items()):
        scores = [row[4] for row in found]
        spread = f" ± {stdev(scores):.2f}" if len(scores) > 1 else ""
        as_good = "" if way == RANDOM else needed(curve, mean(scores), n)
        print(f"| {way} | {n} | {mean(row[3] for row in found):,.0f} | {mean(scores):.2f}{spread} | {as_good} |")


def needed(curve: Sequence[tuple[int, float]], f1: float, n: int) -> str:
    """How many random sentences have this F1, by a line between the logarithms of those that were tried."""
    for (fewer, low), (more, high) in pairwise(curve):
        if low <= f1 <= high:
            found = fewer * (more / fewer) ** ((f1 - low) / (high - low) if high > low else 0.0)
            return f"{found:.0f} ({found / n:.1f} times as many)"
    return f"below {curve[0][0]}" if f1 < curve[0][1] else f"above {curve[-1][0]}"


if __name__ == "__main__":
    sys.exit(main())
