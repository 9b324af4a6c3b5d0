"""The sections that several recipes have: corpora, labels, word pairs, optimizer, hardware, checkpoints, hidden pieces."""

import re
from dataclasses import dataclass
from pathlib import PurePath

from xlner.errors import RecipeError
from xlner.recipe_keys import check_bounds, key


@dataclass(frozen=True)
class CorpusRecipe:
    """How corpora are read and cut."""

    format: str = key("auto", "conll, text, csv, jsonl, json, dataset, ... or auto: by the file's name")
    columns: str = key(
        "auto", "columns of word and tag, counted from 0 or from the end, as in 1,2 or 0,-1; auto: found out"
    )
    scheme: str = key(
        "auto",
        "auto: IOB1, IOB2 and broken sequences are all read; strict: broken ones are refused; plain: types without prefixes",
        choices="auto strict plain",
    )
    labels: str = key("", "what tags that are numbers mean, in the order of the numbers from 0 on: O,B-PER,I-PER,...")
    encoding: str = key("utf-8", "character encoding of the files")
    word_splitter: str = key(
        "unicode", "how raw text is split into words: unicode, script_runs or whitespace; stored with the model"
    )
    max_length: int = key(256, "longest window in pieces; longer sentences become several windows", low=8, high=100_000)
    max_sentences: int = key(0, "read only so many training sentences; 0: all", low=0)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "corpus")


@dataclass(frozen=True)
class LabelsRecipe:
    """What becomes of the entity types of labelled corpora."""

    map: str = key("", "types renamed, merged or dropped: MISC=,PERSON=PER,GPE=LOC; *= drops all that are not named")

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "labels")


@dataclass(frozen=True)
class PairsRecipe:
    """Which word pairs of a pair of sentences the similarity task sees."""

    per_sentence: int = key(32, "word pairs a sentence pair, half of equal and half of different tag", low=2, high=4096)
    balance: float = key(0.5, "0: every tag equally often, 1: as often as in the text", low=0, high=1)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "pairs")


@dataclass(frozen=True)
class SimilarityRecipe:
    """The similarity head."""

    kind: str = key(
        "calibrated",
        "calibrated (a cos + b of a learned projection) or cosine (of the hidden states themselves, as published)",
    )
    projection_size: int = key(64, "width of the learned projection", low=2, high=4096)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "similarity")


@dataclass(frozen=True)
class OptimizationRecipe:
    """How long and how fast to train."""

    epochs: int = key(3, "passes over the training text", low=1, high=10_000)
    batch_size: int = key(32, "sentences per process and micro-batch", low=2, high=65_536)
    batch_pieces: int = key(
        2048,
        "pieces, padding included, that are computed at a time: what a larger micro-batch needs of memory is bounded, "
        "since it is computed in parts, and its step stays the same; 0: no bound",
        low=0,
    )
    accumulation: int = key(1, "micro-batches per optimizer step", low=1, high=65_536)
    learning_rate: float = key(5e-5, "of the encoder: the peak, reached at the end of the warm-up", low=0, high=1)
    head_learning_rate: float = key(1e-3, "of the heads: the peak", low=0, high=1)
    weight_decay: float = key(0.01, "AdamW's decay of all weights but biases and norms", low=0, high=1)
    warmup_ratio: float = key(0.1, "share of all optimizer steps", low=0, high=0.99)
    decay: str = key("linear", "of the learning rate after the warm-up", choices="linear cosine constant")
    clip_norm: float = key(1.0, "longest gradient; 0: no clipping", low=0)
    ema: float = key(
        0.0, "decay per step of the averaged weights that become the result; 0: the last weights", low=0, high=0.99999
    )
    freeze: str = key("none", "none, embeddings, or embeddings+N: with the N lowest layers")
    evaluations: int = key(1, "evaluations per epoch", low=1, high=1000)
    log_steps: int = key(20, "optimizer steps between two lines of metrics.jsonl", low=1)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "optimization")
        if not re.fullmatch(r"none|embeddings(\+\d{1,3})?", self.freeze):
            raise RecipeError(f"optimization.freeze is {self.freeze!r}; it must be none, embeddings or embeddings+N")


@dataclass(frozen=True)
class HardwareRecipe:
    """Where and how exactly to compute."""

    precision: str = key(
        "auto", "auto: bf16 where the processor multiplies it in hardware, else fp32", choices="auto fp32 bf16 fp16"
    )
    cpu: bool = key(False, "stay on the CPU even where there is a GPU")
    threads: int = key(
        0, "CPU threads per process; 0: all cores, shared among the processes of a machine", low=0, high=4096
    )
    loader_workers: int = key(0, "processes that prepare batches; 0: the training process itself", low=0, high=64)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "hardware")


@dataclass(frozen=True)
class CheckpointRecipe:
    """When the state of a run is saved, and what a restart does."""

    resume: str = key(
        "auto",
        "auto: go on from the newest checkpoint of this run; never: start anew, refuse a used folder; or the path of a "
        "checkpoint of this run, such as runs/de/checkpoints/step-500",
    )
    steps: int = key(500, "optimizer steps between two checkpoints; 0: only when stopped", low=0)
    allow_changes: str = key(
        "",
        "what may differ from the run that is taken up, with commas: keys of the recipe, such as "
        "optimization.learning_rate; corpus, teacher, processes",
    )

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "checkpoint")
        if self.resume not in ("auto", "never") and not re.fullmatch(r"step-\d+", PurePath(self.resume).name):
            raise RecipeError(
                f"checkpoint.resume must be auto, never, or the path of a checkpoint (RUN/checkpoints/step-N), found "
                f"{self.resume!r}"
            )


@dataclass(frozen=True)
class MaskingRecipe:
    """Which pieces of the text are hidden, to be told from the rest."""

    ratio: float = key(0.15, "share of the pieces that are to be told", low=0.01, high=0.9)
    whole_words: bool = key(True, "all pieces of a word are hidden together")
    as_mask: float = key(0.8, "share of these pieces of which the model sees the mask", low=0, high=1)
    as_random: float = key(0.1, "share of which it sees a random piece; the rest it sees as they are", low=0, high=1)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "masking")
        if self.as_mask + self.as_random > 1.0 + 1e-9:
            raise RecipeError(
                f"masking: as_mask={self.as_mask:g} and as_random={self.as_random:g}; they may be 1 together at most"
            )
