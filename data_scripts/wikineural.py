"""WikiNEuRal as xlner reads it: `python data_scripts/wikineural.py --out data`.

With `--source FOLDER`, a local copy is taken: `LANG/{train,val,test}.conllu`, as the repository has them in
`data/wikineural`. Where there is no `train`, a seeded tenth of the sentences of `val` becomes dev, and the others
train.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from corpus_report import write_corpus
from download import Pin, RemoteFile
from sources import CorpusInfo, Splits, add_languages, chosen, corpus_arguments, downloaded, run

from xlner.corpora.lines import corpus_path, find_corpus
from xlner.corpora.source import read_corpus
from xlner.errors import CorpusError
from xlner.words import Sentence

INFO = CorpusInfo(
    name="WikiNEuRal",
    folder="wikineural",
    source="https://github.com/Babelscape/wikineural",
    paper='Tedeschi et al. 2021, "WikiNEuRal: Combined Neural and Knowledge-based Silver Data Creation for '
    'Multilingual NER", Findings of EMNLP 2021.',
    licence="CC BY-NC-SA 4.0, not for commercial use.",
    labels="silver",
    note="The labels are silver: made by machine.",
)
DEV_RATIO = 0.1


def main() -> None:
    """Read the arguments, and write and report one language after the other."""
    parser = corpus_arguments(INFO, "WikiNEuRal as train, dev and test of each language")
    add_languages(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the split of val into train and dev")
    arguments = parser.parse_args()
    if arguments.source is None:
        languages = chosen(arguments.languages, LANGUAGES, INFO.source, "")
    else:
        found = sorted(path.parent.name for path in arguments.source.glob("*/test.conllu"))
        languages = chosen(arguments.languages, found, arguments.source, "LANG/{val,test}.conllu")
    source = downloaded(INFO, arguments, [file for language in languages for file in remote_files(language)])
    for language in languages:
        splits, labels = read_splits(source, language, arguments.seed)
        write_corpus(INFO, arguments, language, splits, labels)
    print(INFO.citation())


def remote_files(language: str) -> list[RemoteFile]:
    """The three files of a language."""
    return [
        RemoteFile(
            f"{INFO.folder}/{language}/{split}.conllu",
            f"https://raw.githubusercontent.com/Babelscape/wikineural/{commit}/data/wikineural/{language}/{split}.conllu",
            PINS.get((language, split)),
        )
        for split, commit in (("train", "master"), ("val", COMMIT), ("test", COMMIT))
    ]


def read_splits(source: Path, language: str, seed: int) -> tuple[Splits, dict[str, str]]:
    """Train, dev and test of a language, and what they are called."""
    train = find_corpus(source, language, "train")
    val = list(read_corpus(corpus_path(source, language, "val")))
    test = list(read_corpus(corpus_path(source, language, "test")))
    if train is not None:
        return {"train": list(read_corpus(train)), "dev": val, "test": test}, {"dev": "val"}
    if len(val) < 2:
        raise CorpusError(f"{source}/{language}: val holds {len(val)} sentence; splitting it takes 2")
    labels = {"train": f"nine tenths of val (seed {seed})", "dev": f"a tenth of val (seed {seed})"}
    return {**split_off_dev(val, seed), "test": test}, labels


def split_off_dev(sentences: Sequence[Sentence], seed: int) -> Splits:
    """Train and dev, each in the order of the file; seed and number of sentences decide which go where."""
    generator = random.Random(seed)
    # `random()` is the one method whose numbers Python keeps the same over versions.
    keys = [generator.random() for _ in sentences]
    n_dev = max(1, round(len(sentences) * DEV_RATIO))
    dev = set(sorted(range(len(sentences)), key=keys.__getitem__)[:n_dev])
    return {
        "train": [sentence for number, sentence in enumerate(sentences) if number not in dev],
        "dev": [sentence for number, sentence in enumerate(sentences) if number in dev],
    }


LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pl", "pt", "ru")
# The commit that brought val and test; their sizes and checksums were measured on copies of it.
COMMIT = "60dcc65951581fc572401cf19bd1a3fb95b05d40"
PINS = {
    ("de", "val"): Pin(2420010, "061e57750c6a93d95f43bb85d9010cfdcb64c1e1c7dcac76ee7a9bddf0dfc3ab"),
    ("de", "test"): Pin(2420281, "b1c57d8825bee42c707f0f804b41557ffc475f031ce5a0f25cd13c5a1604bf0d"),
    ("en", "val"): Pin(2815514, "d5c2bbcbfd7092ab46057befabe071ee8c68b5b3a0623ca319874c019b6d560d"),
    ("en", "test"): Pin(2796788, "088187d12574de9120f31fce908ce3c626b349b6b93f20886d5351b936ed0849"),
    ("es", "val"): Pin(2372303, "d4c67b9687df3069b1e9e889e685b8e87387602bced81e6ac3b160d2b9ba8513"),
    ("es", "test"): Pin(2424545, "370421c9c8a81fce30722fd576140f2f8b16ff78511135f06a3da64bae0d1480"),
    ("fr", "val"): Pin(3372590, "0a75e421dd2e48940632d90f1a1899c814e4f7c85f5914f6dee28a20205f0b5f"),
    ("fr", "test"): Pin(3241408, "61fc4f72dc356f10776e2b9be193d4d2cf216ffb198ad919a25f40b2f0db8485"),
    ("it", "val"): Pin(3311528, "344b95fab0a6ee56a68034a8333ec6162cbcfdb20e67a696c2e18c67855672ce"),
    ("it", "test"): Pin(3406201, "7c178c31602b865d03aba50b9d097e66fd1b95f71766e9ad0947d4f0b906f600"),
    ("nl", "val"): Pin(2078724, "9999ef4bd5bb0f9bb6a6a63527c9a0e67ee61b4bad69446215fd86db3e47c7d8"),
    ("nl", "test"): Pin(2083989, "e884472966f6bb6ad1c241ee3506f4db5ecc9116c265bf3421510a7fcfb613ea"),
    ("pl", "val"): Pin(2466757, "2bfbca18dc501faabdce00d5860978d87dc81d3bbe71e0fdfe709479536982b1"),
    ("pl", "test"): Pin(2411482, "261b9562c761fe188e0faeb35577022a06989c4d8409881b4690545379516699"),
    ("pt", "val"): Pin(2791185, "11cf840d3047351c1155a435790670647456ecb09f05631fc74e3841d5194d86"),
    ("pt", "test"): Pin(2802083, "054bc2b585775948c5521ed466b737feb650dfd13f7148470d5ace4b5ce4fb64"),
    ("ru", "val"): Pin(3421429, "a398e8b0477457581c060a767d3423c3d18df30aab7de073de20fd918527ffc7"),
    ("ru", "test"): Pin(3405995, "a71ae42533c536ec9eeeb8085a39d454a7502d3ad48b54e6b53e7057e8572745"),
}


if __name__ == "__main__":
    raise SystemExit(run(main))
