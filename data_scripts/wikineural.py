"""WikiNEuRal as xlner reads it: `python data_scripts/wikineural.py --source FOLDER --out DIR`.

FOLDER holds `LANG/{train,val,test}.conllu`, as the repository https://github.com/Babelscape/wikineural does.
Where there is no `train`, a seeded tenth of the sentences of `val` becomes dev, and the others train.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from corpus_report import Splits, chosen, folder_arguments, print_report, run, write_splits

from xlner.data.corpus import read_corpus
from xlner.data.corpus_files import corpus_path, find_corpus
from xlner.errors import CorpusError
from xlner.text import Sentence

SOURCE = """
Tedeschi et al. 2021, "WikiNEuRal: Combined Neural and Knowledge-based Silver Data Creation for
Multilingual NER", Findings of EMNLP 2021. Licence: CC BY-NC-SA 4.0, not for commercial use.
The labels are silver: made by machine."""
DEV_RATIO = 0.1


def main() -> None:
    """Read the arguments, and write and report one language after the other."""
    parser = folder_arguments("WikiNEuRal as train, dev and test of each language")
    parser.add_argument("--languages", default="", metavar="de,en,...", help="default: all that are there")
    parser.add_argument("--seed", type=int, default=0, help="of the split of val into train and dev")
    arguments = parser.parse_args()
    found = sorted(path.parent.name for path in arguments.source.glob("*/test.conllu"))
    languages = chosen(arguments.languages, found, arguments.source, "LANG/{val,test}.conllu")
    for language in languages:
        splits = read_splits(arguments.source, language, arguments.seed)
        write_splits(arguments.out / language, splits)
        print_report(language, splits)
    print(SOURCE)


def read_splits(source: Path, language: str, seed: int) -> Splits:
    """Train, dev and test of a language."""
    train = find_corpus(source, language, "train")
    val = list(read_corpus(corpus_path(source, language, "val")))
    test = list(read_corpus(corpus_path(source, language, "test")))
    if train is not None:
        return {"train": list(read_corpus(train)), "dev": val, "test": test}
    if len(val) < 2:
        raise CorpusError(f"{source}/{language}: val holds {len(val)} sentence; splitting it takes 2")
    return {**split_off_dev(val, seed), "test": test}


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


if __name__ == "__main__":
    raise SystemExit(run(main))
