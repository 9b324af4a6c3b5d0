"""The sections of recipes: each key with its default, meaning, unit and bounds, checked when a section is made."""

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any

from xlner.errors import LabelError, RecipeError
from xlner.tags import LabelMap

# How a recipe section states its keys: default, meaning, bounds and choices, checked when a section is made.


# Tokens of the hub as it makes them, and addresses with a user, or with a key or signature among their parameters.
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{30,}"
    r"|://[^/\s@?#]+@"
    r"|://\S*[?&#;][\w.-]*(?:token|key|secret|pass|pwd|sig|auth|credential)[\w.-]*=[^&\s]",
    re.IGNORECASE,
)


def key(default: Any, help: str, *, low: float = -math.inf, high: float = math.inf, choices: str = "") -> Any:
    """A recipe key: its default, what it means (with unit), and the values it may take, bounds included.

    `choices` lists the allowed texts, separated by spaces.
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices.split()})


def section(schema: type, default: Any = None) -> Any:
    """A key that is itself a section: with the defaults of its schema, or those of a frozen `default`."""
    return field(default_factory=schema if default is None else lambda: default)


def check_bounds(recipe: Any, name: str = "") -> None:
    """Hold every key of a section against its bounds.

    Raises:
        RecipeError: With the key, what was found and what is allowed; without the value where it is a secret.
    """
    for spec in fields(recipe):
        if isinstance(recipe.__dict__[spec.name], str):
            refuse_secret(f"{name}.{spec.name}" if name else spec.name, recipe.__dict__[spec.name])
    for spec in fields(recipe):
        value = recipe.__dict__[spec.name]
        where = f"{name}.{spec.name}" if name else spec.name
        low, high = spec.metadata.get("low", -math.inf), spec.metadata.get("high", math.inf)
        choices = spec.metadata.get("choices", [])
        # `not (low <= value <= high)` also refuses nan.
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and not (low <= value <= high and math.isfinite(value))
        ):
            allowed = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}"
            raise RecipeError(f"{where} is {value:g}; it must be {allowed}")
        if choices and value not in choices:
            raise RecipeError(f"{where} is {value!r}; it must be one of {', '.join(choices)}")


def check_revision(revision: str) -> None:
    """Refuse what is no name of a revision: the cache of the hub makes files of these names.

    Raises:
        RecipeError: If it is neither empty nor a plain commit, tag or branch.
    """
    if revision and (not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/-]*", revision) or ".." in revision):
        raise RecipeError(f"encoder_revision is {revision!r}; it must be a commit, a tag or a branch, as in main")


def refuse_secret(place: str, text: str) -> None:
    """Refuse a text that holds an access token or a password: recipes are saved, shown and passed on.

    Args:
        place: Where it stands; the message names nothing else.
        text: The text.

    Raises:
        RecipeError: If it does.
    """
    if _SECRET.search(text):
        raise RecipeError(
            f"{place}: holds what looks like an access token or a password, and recipes are saved and shown; "
            "log in by `hf auth login`, or set HF_TOKEN"
        )


# The sections that several recipes have: corpora, labels, word pairs, optimizer, hardware, checkpoints, hidden pieces.


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


# The recipe sections of the denoising steps, one for each line of `soft_labels/steps.py`'s table.


# The most that an unsure teacher lets `pooling.strength=auto` become; `pooling.strength_for` says when.
MOST_STRENGTH = 1.45


@dataclass(frozen=True)
class PoolingRecipe:
    """How far soft labels follow what the teacher says in like places; the formula stands in `soft_labels/pooling.py`."""

    word: float = key(0.15, "weight of the same word elsewhere in the text", low=0, high=1)
    left: float = key(0.075, "weight of places with the same word before", low=0, high=1)
    right: float = key(0.075, "weight of places with the same word after", low=0, high=1)
    outline: float = key(0.3, "weight of places with the same pattern of capitals around", low=0, high=1)
    strength: str = key(
        "auto",
        "multiplies the four weights: a number, or auto: 1 for a teacher that is sure, up to 1.45 for an unsure one",
    )
    outside: float = key(
        0.5,
        "share of the way to as many words outside entities as in the source language, as far as labels are doubtful; "
        "0: left as it is",
        low=0,
        high=1,
    )
    temperature: float = key(0.5, "divides the logits of what was pooled; below 1 sharpens", low=0.05, high=20)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "pooling")
        strength = MOST_STRENGTH if self.fixed_strength is None else self.fixed_strength
        total = sum(self.weights.values()) * strength
        if total > 1.0 + 1e-9:
            raise RecipeError(
                f"pooling: {', '.join(self.weights)}, times a strength of up to {strength:g}, add up to {total:g}; "
                "they may be 1 together at most; lower them, or set pooling.strength to a number"
            )

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the kinds of like places, by the names of `pooling.KEYS`, before the strength."""
        return {"word": self.word, "left": self.left, "right": self.right, "outline": self.outline}

    @property
    def fixed_strength(self) -> float | None:
        """The strength that the recipe gives; None for `auto`, which looks at the teacher's labels.

        Raises:
            RecipeError: If it is neither.
        """
        if self.strength == "auto":
            return None
        try:
            strength = float(self.strength)
        except ValueError:
            strength = -1.0
        if not 0.0 <= strength < float("inf"):
            raise RecipeError(f"pooling.strength is {self.strength!r}; it must be auto or a number from 0 on")
        return strength

    @property
    def is_used(self) -> bool:
        """Whether it changes any soft label."""
        pools = any(self.weights.values()) and self.fixed_strength != 0.0
        return pools or self.outside > 0 or self.temperature != 1.0


@dataclass(frozen=True)
class CertaintyRecipe:
    """Which words are certain enough to be learnt from."""

    share: float = key(0.8, "of the entities of each type, the most certain ones, that is kept", low=0.001, high=1)
    outside: float = key(0.0, "words of O are kept from this probability on; 0: all", low=0, high=1)
    skip_invalid: bool = key(True, "leave out sentences in which an I-X follows something else")

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "certainty")


# The recipe section of several teachers; the formulas stand beside it.


UNIFORM, BY_LANGUAGE = "uniform", "language"


@dataclass(frozen=True)
class MixingRecipe:
    """How the soft labels of several teachers become one; with a single teacher only `rename` has a meaning."""

    weights: str = key(
        UNIFORM, "of the teachers: uniform, numbers separated by commas, or language: by likeness to the target"
    )
    per: str = key(
        "language",
        "for weights=language: one weight for all of the text, or one a sentence",
        choices="language sentence",
    )
    rename: str = key("", "the teachers' types renamed, merged or dropped: PERSON=PER,GPE=LOC,MISC=")
    outside: float = key(
        1.0,
        "trust in annotation files where they mark nothing; 0: they abstain there, as a list of names must",
        low=0,
        high=1,
    )

    def __post_init__(self) -> None:
        """Check the bounds, and that weights and names can be read."""
        check_bounds(self, "mixing")
        if self.per == "sentence" and self.weights != BY_LANGUAGE:
            raise RecipeError(f"mixing.per=sentence needs mixing.weights=language, not {self.weights!r}")
        if self.numbers and (min(self.numbers) < 0 or not 0 < sum(self.numbers) < float("inf")):
            raise RecipeError(f"mixing.weights is {self.weights!r}; they must not be below 0, and one must be above")
        try:
            LabelMap.parse(self.rename)
        except LabelError as problem:
            raise RecipeError(f"mixing.rename: {problem}") from problem

    @property
    def numbers(self) -> tuple[float, ...]:
        """The weights that the recipe gives as numbers, one a teacher; none where it names a way to find them.

        Raises:
            RecipeError: If they are no numbers.
        """
        if self.weights in (UNIFORM, BY_LANGUAGE):
            return ()
        try:
            return tuple([float(number) for number in self.weights.split(",")])
        except ValueError:
            raise RecipeError(
                f"mixing.weights is {self.weights!r}; expected uniform, language, or a number for each teacher"
            ) from None


# The recipe sections of small students: compact ones, of words and characters, and what is left of a transformer.


@dataclass(frozen=True)
class CompactRecipe:
    """What a compact student is made of, and what it learns beside the soft labels."""

    decoder: str = key(
        "softmax",
        "softmax: each word by itself; crf: whole sequences, and of them the marginals of each word",
        choices="softmax crf",
    )
    hard_weight: float = key(
        0.3, "share of the task loss: gold tags where there are any, else the likeliest ones by the soft labels", low=0
    )
    words: int = key(14_000, "words of its own vocabulary at most, the most frequent ones of the text", low=1)
    min_frequency: int = key(2, "a word of the vocabulary occurs at least so often in the text", low=1)
    word_size: int = key(100, "width of a word's vector", low=1, high=4096)
    vectors: str = key(
        "teacher",
        "what word vectors start from: random, teacher (its own table of pieces, reduced to word_size), or a text file "
        "of word2vec, GloVe or fastText, of word_size numbers a line",
    )
    chars: int = key(20, "characters of a word that are looked at; a longer one keeps its two ends", low=2, high=200)
    char_size: int = key(25, "width of a character's vector", low=1, high=1024)
    char_filters: int = key(50, "filters of the character convolution, each 3 characters wide", low=1, high=4096)
    hidden_size: int = key(256, "width of a layer, in each direction", low=1, high=4096)
    layers: int = key(1, "layers", low=1, high=24)
    dropout: float = key(0.4, "share of units that are dropped in training", low=0, high=0.95)
    unknown_ratio: float = key(
        0.1, "share of words that are shown without their entry in the vocabulary, as unknown ones are", low=0, high=0.9
    )
    augment: int = key(
        0, "new sentences for each one of the target text, labelled by the teacher: words hidden or exchanged", low=0
    )
    buckets: int = key(131_072, "rows of the table of hashed features (linear)", low=256, high=1 << 24)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "compact")


@dataclass(frozen=True)
class ReductionRecipe:
    """What is left of the encoder that a student starts from (`student=transformer`)."""

    layers: int = key(0, "layers that are kept, spread evenly over those there are; 0: half of them", low=0, high=1000)
    feed_forward: int = key(
        0, "units of each feed-forward part that are kept, those of the largest weights; 0: all", low=0, high=1 << 20
    )
    min_frequency: int = key(
        1, "a piece of the vocabulary is kept if it occurs at least so often in the text; 0: all are kept", low=0
    )

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, "reduction")
