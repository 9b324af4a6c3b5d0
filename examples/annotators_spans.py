"""A student of what an annotator marked: a file of spans is the teacher, no labelled source text is needed.

    python examples/annotators_spans.py spans.jsonl --data data --target de --encoder runs/e5

The spans may be those of a large language model, a zero-shot tagger, a list of names or people; a line for each text:
`{"text": "Anna lebt in Kiel.", "spans": [{"start": 13, "end": 17, "label": "LOC", "score": 0.9}]}`. Texts are found
again in DATA/TARGET/train.txt; docs/formats.md has the fields.
"""

import argparse
from pathlib import Path

from xlner import distill


def main() -> None:
    """Train the student and say what it can find."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("spans", type=Path, help="JSON Lines of texts and spans")
    parser.add_argument("--data", type=Path, required=True, help="folder with TARGET/train.txt")
    parser.add_argument("--target", required=True, help="language of the text")
    parser.add_argument("--encoder", default="google-bert/bert-base-multilingual-cased", help="folder or hub name")
    parser.add_argument(
        "--outside", type=float, default=1.0, help="trust in words outside all spans; 0: a list of names"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the run goes")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the text")
    parser.add_argument("--batch-size", type=int, default=32, help="sentences of a step")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="of the encoder, at its peak")
    arguments = parser.parse_args()

    optimization = {
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
    }
    run = distill(
        target=arguments.target,
        data=arguments.data,
        teacher=arguments.spans,
        encoder=arguments.encoder,
        mixing={"outside": arguments.outside},
        denoising="none",
        run=arguments.out / f"{arguments.target}-spans",
        optimization=optimization,
    )
    print(f"{run.model} finds {', '.join(run.tagger().types)}")  # noqa: T201


if __name__ == "__main__":
    main()
