"""From taggers and raw text to the folder, and the wheel, of a pipeline that spaCy trains and opens by itself."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import spacy
from spacy.cli.init_config import init_config
from spacy.cli.package import package
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import load_config
from thinc.api import Config

from xlner import __version__
from xlner.errors import CorpusError, ModelError, RecipeError
from xlner.files import replaced
from xlner.spacy_pipeline.silver import SOFT_NER, Ensemble, SilverCounts, silver_docs
from xlner.tag_files.records import Record
from xlner.tagger import Tagger

# Training by spaCy: a configuration of its own making, its trainer, and a folder that `spacy.load` opens by itself.


MAX_STEPS = 20_000
_EVALUATION_STEPS = 200


def blank(language: str) -> Language:
    """A pipeline with nothing but a tokenizer.

    Raises:
        ModelError: If spaCy does not know the language, or lacks a library for it.
    """
    try:
        return spacy.blank(language)
    except ImportError as problem:
        reason = " ".join(str(problem).split())
        raise ModelError(
            f"spaCy has no tokenizer for the language {language!r} ({reason}); "
            "name another by --lang: xx is its tokenizer for any language"
        ) from problem


def training_config(
    language: str, train_path: Path, dev_path: Path, *, soft: bool, seed: int, max_steps: int
) -> Config:
    """What `spacy init config --optimize efficiency` makes for an entity recognizer, with our data.

    Args:
        language: Its code.
        train_path: Annotated documents (DocBin).
        dev_path: Others; the pipeline that does best on these is kept.
        soft: Whether to learn from the probabilities that the documents carry.
        seed: Of the weights and the order.
        max_steps: Batches at most; it ends sooner where nothing gets better for 1,600.
    """
    config = init_config(lang=language, pipeline=["ner"], optimize="efficiency", silent=True)
    config["paths"].update({"train": str(train_path), "dev": str(dev_path)})
    config["system"]["seed"] = seed
    config["training"].update(
        {"max_steps": max_steps, "eval_frequency": min(_EVALUATION_STEPS, max(1, max_steps // 5))}
    )
    if soft:
        # Only what the soft recognizer has, too: its settings become those of `ner` when it is trained.
        config["components"]["ner"] = {"factory": SOFT_NER, "model": config["components"]["ner"]["model"]}
    return config


def train_pipeline(config: Config, folder: Path) -> Path:
    """Train by spaCy's trainer, its table of progress on stderr.

    Args:
        config: Of `training_config`.
        folder: Gets `model-best` and `model-last`.

    Returns:
        The best pipeline, which needs nothing of xlner.
    """
    nlp = init_nlp(config)
    train(nlp, folder, stdout=sys.stderr, stderr=sys.stderr)
    best = folder / "model-best"
    _make_independent(best / "config.cfg")
    return best


def _make_independent(path: Path) -> None:
    """Take out of a trained pipeline's configuration what only training needed: our component, and paths."""
    config = load_config(path)
    config["paths"].update({"train": None, "dev": None})
    recognizer = config["components"]["ner"]
    if recognizer["factory"] == SOFT_NER:
        recognizer["factory"] = "ner"
    config.to_disk(path)


def finish_pipeline(folder: Path, target: Path, *, patterns: Path | None, meta: dict[str, Any]) -> Language:
    """Write a trained pipeline with its rules and what is told of it.

    Args:
        folder: What `train_pipeline` gives.
        target: The folder to make.
        patterns: Rules of spaCy's `entity_ruler`, JSON lines; where they match, they overrule the recognizer.
        meta: Entries of `meta.json`.

    Raises:
        RecipeError: If spaCy cannot read the rules.
    """
    nlp = spacy.load(folder)
    if patterns is not None:
        add_rules(nlp, patterns)
    nlp.meta.update(meta)
    nlp.to_disk(target)
    return nlp


def add_rules(nlp: Language, patterns: Path) -> None:
    """Add an `entity_ruler` behind everything else, which overwrites what it meets.

    Raises:
        RecipeError: If spaCy cannot read the file.
    """
    ruler = nlp.add_pipe("entity_ruler", config={"overwrite_ents": True, "validate": True})
    try:
        ruler.from_disk(patterns)  # type: ignore[attr-defined]  # the components that spaCy makes have no type
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as problem:
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise RecipeError(
            f"{patterns}: spaCy cannot read it as rules ({reason}); expected a file .jsonl with lines such as "
            '{"label": "ORG", "pattern": "Siemens AG"}'
        ) from problem
    if not len(ruler):  # type: ignore[arg-type]
        raise RecipeError(f"{patterns}: holds no rule")


# From taggers and raw text to the folder of a spaCy pipeline.


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


# A trained pipeline as a wheel, which `pip` installs; made offline, by `spacy package` and `build`.


def build_wheel(pipeline: Path, folder: Path) -> Path:
    """The wheel of a pipeline, named as its `meta.json` says.

    Args:
        pipeline: A folder that `spacy.load` opens.
        folder: Where to put it; a wheel of the same name is replaced.

    Raises:
        ModelError: If `build` or `setuptools` is not installed, or fails.
    """
    with tempfile.TemporaryDirectory() as place:
        # Only the sources: spaCy would let `build` fetch setuptools from the network.
        with contextlib.redirect_stdout(sys.stderr):
            package(pipeline, Path(place), create_sdist=False, create_wheel=False)
        (source,) = Path(place).iterdir()
        done = subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        found = sorted(source.glob("dist/*.whl"))
        if done.returncode or not found:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no wheel was made"]
            raise ModelError(
                f"{pipeline}: is written, but cannot be packaged ({reason[0].strip()}); "
                "a wheel needs `pip install build setuptools`"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(found[0], folder / found[0].name))
