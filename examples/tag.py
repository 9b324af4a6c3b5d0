"""Opens a tagger and tags texts: `python examples/tag.py runs/de/model "Angela Merkel besuchte Kiel."`."""

import argparse

from xlner import load_tagger


def main() -> None:
    """Print a line for each entity of each text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of a model, an export, or a hub name")
    parser.add_argument("texts", nargs="+", help="what to tag")
    parser.add_argument("--threshold", type=float, default=0.0, help="lowest score that is shown")
    arguments = parser.parse_args()

    tagger = load_tagger(arguments.model, device="auto")
    found = tagger.tag_stream(arguments.texts, threshold=arguments.threshold)
    for text, entities in zip(arguments.texts, found, strict=True):
        for entity in entities:
            print(f"{text}\t{entity.text}\t{entity.label}\t{entity.start}\t{entity.end}\t{entity.score:.3f}")  # noqa: T201


if __name__ == "__main__":
    main()
