"""Own data, end to end: a teacher, a student, its scores where there is a test set, and a few tagged lines.

    python examples/own_data.py --data data --source en --target de --encoder runs/e5

`data` holds en/train.conll and en/dev.conll with labels, de/train.txt without, and de/test.conll if there is one. The
tutorial (docs/tutorial.md) does the same on the command line.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

from xlner import distill, load_recipe, load_tagger, train_teacher


def main() -> None:
    """Train both, and show what the student finds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each language")
    parser.add_argument("--source", default="en", help="language with labels")
    parser.add_argument("--target", required=True, help="language with raw text")
    parser.add_argument("--encoder", default="google-bert/bert-base-multilingual-cased", help="folder or hub name")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where both runs go")
    parser.add_argument("settings", nargs="*", help="of both, such as optimization.epochs=5")
    arguments = parser.parse_args()

    both = [f"data={arguments.data}", *arguments.settings]
    teacher = train_teacher(
        load_recipe(
            "teacher",
            [
                f"language={arguments.source}",
                f"encoder={arguments.encoder}",
                f"run={arguments.out / f'teacher-{arguments.source}'}",
                *both,
            ],
        )
    )
    student = distill(
        load_recipe(
            "distill",
            [
                f"target={arguments.target}",
                f"teacher={teacher / 'model'}",
                f"run={arguments.out / arguments.target}",
                *both,
            ],
        )
    )

    report = json.loads((student / "report.json").read_text(encoding="utf-8"))
    for name, scores in report["scores"].items():  # of the teacher and the student, where there is a test set
        print(f"{name}: F1 {scores['overall']['f1']:.2f}")  # noqa: T201
    tagger = load_tagger(student / "model")
    with (arguments.data / arguments.target / "train.txt").open(encoding="utf-8") as lines:
        for entities in tagger.tag_stream(islice(lines, 5)):
            print([(entity.text, entity.label) for entity in entities])  # noqa: T201


if __name__ == "__main__":
    main()
