"""How well `xlner rank-sources` tells the better teacher: its signs beside the true F1, teacher by target.

    python recipes/ablation/rank_sources.py --data data/wikineural --models en=runs/en/model de=runs/de/model ...

Each language's first dev sentences are a target, as raw text for the signs and with labels for F1; a teacher is never
asked for its own language. Prints F1 of all pairs, and for each sign and the rule of `xlner rank-sources` how it goes
with F1: Spearman's correlation over all pairs and within a target, how often its first choice is the best teacher, and
the F1 that is lost by it.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from scipy.stats import spearmanr  # type: ignore[import-untyped]

from xlner.corpora.source import read_corpus
from xlner.evaluate import evaluate_tags
from xlner.files import write_json
from xlner.predict import decide_tags
from xlner.soft_labels.rank import SourceRank, rank, source_likeness, sources_of, view
from xlner.tagger import Tagger, load_tagger


class Pair(NamedTuple):
    """A teacher on a target: its F1, and where the rule puts it among the target's teachers, 0 for the first."""

    target: str
    f1: float
    place: int
    signs: SourceRank


SIGNS: dict[str, Callable[[Pair], float]] = {
    "sureness": lambda pair: pair.signs.sureness,
    "agreement": lambda pair: pair.signs.agreement or 0.0,
    "likeness of languages": lambda pair: pair.signs.likeness or 0.0,
    "the rule": lambda pair: -pair.place,
}


def main() -> int:
    """Score, rank, print the tables; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with LANGUAGE/{train,dev}.conll")
    parser.add_argument("--models", nargs="+", required=True, metavar="LANGUAGE=MODEL", help="a teacher of each")
    parser.add_argument("--targets", nargs="*", default=[], help="languages; all of the teachers if left out")
    parser.add_argument("--sentences", type=int, default=250, help="of each target")
    parser.add_argument("--out", type=Path, default=Path("runs/rank-sources.json"), help="where all pairs are kept")
    given = parser.parse_args()
    if odd := [one for one in given.models if "=" not in one]:
        parser.error(f"--models {odd[0]}: expected LANGUAGE=MODEL, as in en=runs/en/model")
    models = dict(one.split("=", 1) for one in given.models)
    taggers = {language: load_tagger(model, precision="auto") for language, model in models.items()}
    pairs = []
    for target in given.targets or models:
        others = {language: tagger for language, tagger in taggers.items() if language != target}
        pairs += pairs_of(target, others, [models[language] for language in others], given.data, given.sentences)
        print(target, *(f"{pair.signs.model} {pair.f1:.1f}" for pair in pairs if pair.target == target), flush=True)
    write_json(given.out, {"pairs": [pair._asdict() | {"signs": pair.signs.to_json()} for pair in pairs]})
    print(f"\n{table(pairs)}\n\n{verdicts(pairs)}")
    return 0


def pairs_of(
    target: str, taggers: dict[str, Tagger], models: Sequence[str], data: Path, n_sentences: int
) -> list[Pair]:
    """All teachers on a target, the first of the rule first."""
    sentences = list(islice(read_corpus(data / target / "dev.conll"), n_sentences))
    words = [sentence.words for sentence in sentences]
    gold = [sentence.tags for sentence in sentences if sentence.tags is not None]
    device = next(iter(taggers.values())).device
    likenesses = source_likeness(models[0], sources_of(models, str(data), n_sentences), words, n_sentences, device)
    views = [view(language, language, tagger, words) for language, tagger in taggers.items()]
    pairs = []
    for place, signs in enumerate(rank(views, sum(map(len, words)), likenesses)):
        tagger = taggers[signs.model]
        tags = [decide_tags(rows, tagger.labels) for rows in tagger.probs(words)]
        pairs.append(Pair(target, evaluate_tags(tagger.types, gold, tags).report.overall.f1, place, signs))
    return pairs


def table(pairs: Sequence[Pair]) -> str:
    """F1, a row a target and a column a teacher, with sureness and agreement behind."""
    sources = sorted({pair.signs.model for pair in pairs})
    lines = [f"| F1 (sureness, agreement) | {' | '.join(sources)} |", "|---" * (len(sources) + 1) + "|"]
    for target in dict.fromkeys(pair.target for pair in pairs):
        of_source = {pair.signs.model: pair for pair in pairs if pair.target == target}
        best = max(pair.f1 for pair in of_source.values())
        cells = []
        for source in sources:
            pair = of_source.get(source)
            if pair is None:
                cells.append("")
                continue
            shown = f"**{pair.f1:.1f}**" if pair.f1 == best else f"{pair.f1:.1f}"
            cells.append(f"{shown} ({pair.signs.sureness:.2f}, {pair.signs.agreement or 0:.0f})")
        lines.append(f"| {target} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdicts(pairs: Sequence[Pair]) -> str:
    """How each sign goes with F1."""
    lines = ["| by | Spearman, all pairs | mean within a target | best found | F1 lost |", "|---|---|---|---|---|"]
    targets = list(dict.fromkeys(pair.target for pair in pairs))
    groups = [[pair for pair in pairs if pair.target == target] for target in targets]
    for name, sign in SIGNS.items():
        whole = float(spearmanr([sign(pair) for pair in pairs], [pair.f1 for pair in pairs]).statistic)
        within = [
            float(spearmanr([sign(pair) for pair in group], [pair.f1 for pair in group]).statistic) for group in groups
        ]
        lost = [max(pair.f1 for pair in group) - max(group, key=sign).f1 for group in groups]
        found = f"{sum(one == 0 for one in lost)} of {len(lost)}"
        overall = "" if name == "the rule" else f"{whole:.2f}"  # places of several targets are no scale
        lines.append(f"| {name} | {overall} | {mean(within):.2f} | {found} | {mean(lost):.1f} |")
    random = mean(max(pair.f1 for pair in group) - mean(pair.f1 for pair in group) for group in groups)
    lines.append(f"| a teacher at random | | | | {random:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
