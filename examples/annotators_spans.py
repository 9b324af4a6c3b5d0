"""A student of what an annotator marked: a file of spans is the teacher, no labelled source text is needed.

    python examples/annotators_spans.py spans.jsonl --data data --target de --encoder runs/e5

The spans may be those of a large language model, a zero-shot tagger, a list of names or people; a line for each text:
`{"text": "Anna lebt in Kiel.", "spans": [{"start": 13, "end": 17, "label": "LOC", "score": 0.9}]}`. Texts are found
again in DATA/TARGET/train.txt; docs/formats.md has the fields.
"""

import argparse
from pathlib import Path

from xlner import distill, load_recipe, load_tagger


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
    parser.add_argument("settings", nargs="*", help="such as optimization.epochs=5")
    arguments = parser.parse_args()

    run = distill(
        load_recipe(
            "distill",
            [
                f"target={arguments.target}",
                f"data={arguments.data}",
                f"teacher={arguments.spans}",
                f"encoder={arguments.encoder}",
                f"mixing.outside={arguments.outside}",
                "denoising=none",
                f"run={arguments.out / arguments.target}-spans",
                *arguments.settings,
            ],
        )
    )
    print(f"{run / 'model'} finds {', '.join(load_tagger(run / 'model').types)}")  # noqa: T201


if __name__ == "__main__":
    main()
