"""Training by spaCy: a configuration of its own making, its trainer, and a folder that `spacy.load` opens by itself."""

import sys
from pathlib import Path
from typing import Any

import spacy
from spacy.cli.init_config import init_config
from spacy.language import Language
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import load_config
from thinc.api import Config

from xlner.errors import ModelError, RecipeError
from xlner.spacy_pipeline.soft_entities import SOFT_NER

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
