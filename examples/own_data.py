"""Own data, end to end: a teacher, a student, its scores where there is a test set, and a few tagged lines.

    python examples/own_data.py --data data --source en --target de --encoder runs/e5

`data` holds en/train.conll and en/dev.conll with labels, de/train.txt without, and de/test.conll if there is one. The
tutorial (docs/tutorial.md) does the same on the command line.
"""

import argparse
from itertools import islice
from pathlib import Path

from xlner import distill, train_teacher


def main() -> None:
    """Train both, and show what the student finds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each language")
    parser.add_argument("--source", default="en", help="language with labels")
    parser.add_argument("--target", required=True, help="language with raw text")
    parser.add_argument("--encoder", default="google-bert/bert-base-multilingual-cased", help="folder or hub name")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where both runs go")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the text")
    parser.add_argument("--batch-size", type=int, default=32, help="sentences of a step")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="of the encoder, at its peak")
    arguments = parser.parse_args()

    optimization = {
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
    }
    teacher = train_teacher(
        language=arguments.source,
        data=arguments.data,
        encoder=arguments.encoder,
        run=arguments.out / f"teacher-{arguments.source}",
        optimization=optimization,
    )
    student = distill(
        target=arguments.target,
        data=arguments.data,
        teacher=teacher,
        run=arguments.out / arguments.target,
        optimization=optimization,
    )

    for name, scores in student.report["scores"].items():  # of the teacher and the student, where there is a test set
        print(f"{name}: F1 {scores['overall']['f1']:.2f}")  # noqa: T201
    tagger = student.tagger()
    with (arguments.data / arguments.target / "train.txt").open(encoding="utf-8") as lines:
        for entities in tagger.tag_stream(islice(lines, 5)):
            print([(entity.text, entity.label) for entity in entities])  # noqa: T201


if __name__ == "__main__":
    main()
