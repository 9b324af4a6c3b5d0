"""From taggers and raw text to the folder of a spaCy pipeline."""

import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from spacy.tokens import DocBin

from xlner import __version__
from xlner.errors import CorpusError, ModelError
from xlner.files import replaced
from xlner.spacy_pipeline.silver import Ensemble, SilverCounts, silver_docs
from xlner.spacy_pipeline.training import MAX_STEPS, add_rules, blank, finish_pipeline, train_pipeline, training_config
from xlner.tagger import Tagger
from xlner.tagging.records import Record

HELD_OUT = 20  # of so many documents one is held out


class Trained(NamedTuple):
    """What was made: the silver corpora, and F1 in percent of the entities of the held-out one."""

    train: SilverCounts
    dev: SilverCounts
    agreement: float


def check_target(target: Path) -> None:
    """Refuse a place that is taken.

    Raises:
        ModelError: If it is a file, or a folder that holds something.
    """
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target}: is a file; expected a folder to make")
    if target.is_dir() and (names := sorted(path.name for path in target.iterdir())):
        raise ModelError(f"{target}: exists and holds {', '.join(names[:5])}; give another folder, or an empty one")


def export_pipeline(
    taggers: Sequence[Tagger],
    records: Iterable[Record],
    target: Path,
    *,
    language: str,
    soft: bool = True,
    min_score: float = 0.0,
    patterns: Path | None = None,
    seed: int = 0,
    max_steps: int = MAX_STEPS,
    tell_tokens: Callable[[int], object] = lambda n_tokens: None,
) -> Trained:
    """Tag the records, train a pipeline of spaCy on them, and write it.

    Args:
        taggers: Of one set of types; several speak with one voice.
        records: Text or words; every twentieth is held out to choose the best state by.
        target: The folder to make.
        language: Whose tokenizer of spaCy the pipeline has.
        soft: Whether to learn from the taggers' probabilities, else from the entities that they find.
        min_score: See `silver_docs`; without `soft` only.
        patterns: See `finish_pipeline`.
        seed: Of the weights and the order.
        max_steps: Batches at most.
        tell_tokens: Called with the tokens of each document.

    Raises:
        ModelError: If the place is taken, spaCy does not know the language, or the taggers do not fit each other.
        CorpusError: If there are fewer than two records with words, or no entity is found in them.
        RunError: If the disk refuses.
        RecipeError: If the rules cannot be read.
    """
    check_target(target)
    nlp = blank(language)
    if patterns is not None:
        add_rules(blank(language), patterns)  # a mistake in them is told before the work
    ensemble = Ensemble(taggers)
    corpora = DocBin(store_user_data=soft), DocBin(store_user_data=False)
    counts = [SilverCounts(), SilverCounts()]
    for number, doc in enumerate(silver_docs(nlp, ensemble, records, min_score=0.0 if soft else min_score)):
        part = int(number % HELD_OUT == 1)
        corpora[part].add(doc)
        counts[part] = counts[part].with_doc(doc)
        tell_tokens(len(doc))
    for purpose, found in zip(("learn from", "hold out"), counts, strict=True):
        if not found.entities:
            raise CorpusError(
                f"no entity in the {found.documents:,} records to {purpose}; is the text in the language of the model, "
                f"is there enough of it, is the least score ({min_score:g}) too high?"
            )
    with replaced(target, check_target) as unfinished, tempfile.TemporaryDirectory() as place:
        paths = [Path(place, f"{name}.spacy") for name in ("train", "dev")]
        for corpus, path in zip(corpora, paths, strict=True):
            corpus.to_disk(path)
        config = training_config(language, *paths, soft=soft, seed=seed, max_steps=max_steps)
        best = train_pipeline(config, Path(place))
        finished = finish_pipeline(best, unfinished, patterns=patterns, meta=_meta(target, language))
    return Trained(counts[0], counts[1], 100.0 * float(finished.meta["performance"].get("ents_f") or 0.0))


def _meta(target: Path, language: str) -> dict[str, object]:
    """What `meta.json` tells; the name is that of the folder, as a package can have it."""
    name = re.sub(r"[^a-z0-9]+", "_", target.resolve().name.lower()).strip("_").removeprefix(f"{language}_")
    return {
        "name": name or "ner",
        "version": "0.0.0",
        "description": f"Entities, learnt from the output of taggers by xlner {__version__}; "
        "`performance` is the agreement with these taggers on text that was held out.",
    }
