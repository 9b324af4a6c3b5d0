"""The schema of recipes: frozen sections, each key with its default, meaning, unit and bounds.

The defaults stand here and nowhere else. Bounds are checked when a section is made, before anything is loaded.
"""

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any

from xlner.errors import LabelError, RecipeError
from xlner.tags import LabelMap

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


@dataclass(frozen=True)
class Section:
    """A section of a recipe, such as `loss` of `LossRecipe`; its values are checked when it is made."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self, type(self).__name__.removesuffix("Recipe").lower())


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
class CorpusRecipe(Section):
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


@dataclass(frozen=True)
class LabelsRecipe(Section):
    """What becomes of the entity types of labelled corpora."""

    map: str = key("", "types renamed, merged or dropped: MISC=,PERSON=PER,GPE=LOC; *= drops all that are not named")


@dataclass(frozen=True)
class PairsRecipe(Section):
    """Which word pairs of a pair of sentences the similarity task sees."""

    per_sentence: int = key(32, "word pairs a sentence pair, half of equal and half of different tag", low=2, high=4096)
    balance: float = key(0.5, "0: every tag equally often, 1: as often as in the text", low=0, high=1)


@dataclass(frozen=True)
class SimilarityRecipe(Section):
    """The similarity head."""

    kind: str = key(
        "calibrated",
        "calibrated (a cos + b of a learned projection) or cosine (of the hidden states themselves, as published)",
    )
    projection_size: int = key(64, "width of the learned projection", low=2, high=4096)


@dataclass(frozen=True)
class OptimizationRecipe(Section):
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
    optimizer: str = key(
        "adamw",
        "adamw, or with moments of 8 bits adamw_8bit, and paged_adamw_8bit, which pages them out of a GPU: both want pip "
        "install bitsandbytes",
        choices="adamw adamw_8bit paged_adamw_8bit",
    )
    learning_rate: float = key(5e-5, "of the encoder: the peak, reached at the end of the warm-up", low=0, high=1)
    head_learning_rate: float = key(1e-3, "of the heads: the peak", low=0, high=1)
    weight_decay: float = key(0.01, "AdamW's decay of all weights but biases and norms", low=0, high=1)
    warmup_ratio: float = key(0.1, "share of all optimizer steps", low=0, high=0.99)
    decay: str = key("linear", "of the learning rate after the warm-up", choices="linear cosine constant")
    clip_norm: float = key(1.0, "longest gradient; 0: no clipping", low=0)
    freeze: str = key("none", "none, embeddings, or embeddings+N: with the N lowest layers, without dropout")
    gradient_checkpointing: bool = key(
        False, "layers are computed a second time on the way back instead of kept: less memory, more time"
    )
    lora: int = key(
        0,
        "rank of the adapters that are trained in place of the encoder's weights, and merged into them before a model is "
        "saved; 0: none; they want pip install 'xlner[lora]', a learning_rate of about 5e-4, and more steps",
        low=0,
        high=4096,
    )
    evaluations: int = key(1, "evaluations per epoch", low=1, high=1000)
    log_steps: int = key(20, "optimizer steps between two lines of metrics.jsonl", low=1)

    def __post_init__(self) -> None:
        """Check the bounds."""
        super().__post_init__()
        if not re.fullmatch(r"none|embeddings(\+\d{1,3})?", self.freeze):
            raise RecipeError(f"optimization.freeze is {self.freeze!r}; it must be none, embeddings or embeddings+N")


@dataclass(frozen=True)
class HardwareRecipe(Section):
    """Where and how exactly to compute."""

    precision: str = key(
        "auto", "auto: bf16 where the processor multiplies it in hardware, else fp32", choices="auto fp32 bf16 fp16"
    )
    cpu: bool = key(False, "stay on the CPU even where there is a GPU")
    threads: int = key(
        0, "CPU threads per process; 0: all cores, shared among the processes of a machine", low=0, high=4096
    )
    loader_workers: int = key(0, "processes that prepare batches; 0: the training process itself", low=0, high=64)


@dataclass(frozen=True)
class CheckpointRecipe(Section):
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
        super().__post_init__()
        if self.resume not in ("auto", "never") and not re.fullmatch(r"step-\d+", PurePath(self.resume).name):
            raise RecipeError(
                f"checkpoint.resume must be auto, never, or the path of a checkpoint (RUN/checkpoints/step-N), found "
                f"{self.resume!r}"
            )


@dataclass(frozen=True)
class MaskingRecipe(Section):
    """Which pieces of the text are hidden, to be told from the rest."""

    ratio: float = key(0.15, "share of the pieces that are to be told", low=0.01, high=0.9)
    whole_words: bool = key(True, "all pieces of a word are hidden together")
    as_mask: float = key(0.8, "share of these pieces of which the model sees the mask", low=0, high=1)
    as_random: float = key(0.1, "share of which it sees a random piece; the rest it sees as they are", low=0, high=1)

    def __post_init__(self) -> None:
        """Check the bounds."""
        super().__post_init__()
        if self.as_mask + self.as_random > 1.0 + 1e-9:
            raise RecipeError(
                f"masking: as_mask={self.as_mask:g} and as_random={self.as_random:g}; they may be 1 together at most"
            )


# The recipe sections of the denoising steps, one for each line of `soft_labels/steps.py`'s table.


# The most that an unsure teacher lets `pooling.strength=auto` become; `pooling.strength_for` says when.
MOST_STRENGTH = 1.45


@dataclass(frozen=True)
class PoolingRecipe(Section):
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
        super().__post_init__()
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


# The recipe section of several teachers; the formulas stand beside it.


UNIFORM, BY_LANGUAGE = "uniform", "language"


@dataclass(frozen=True)
class MixingRecipe(Section):
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
        super().__post_init__()
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
class CompactRecipe(Section):
    """What a compact student is made of, and what it learns beside the soft labels."""

    decoder: str = key(
        "softmax",
        "softmax: each word by itself; crf: whole sequences, and of them the marginals of each word",
        choices="softmax crf",
    )
    hard_weight: float = key(
        0.3, "share of the task loss: gold tags where there are any, else the likeliest ones by the soft labels", low=0
    )
    first_temperature: float = key(
        0.0,
        "of the first epoch, from which it falls evenly to loss.temperature in the last; 0: the same in all; it changes "
        "nothing where loss.recognizer is squared_logits",
        low=0,
        high=100,
    )
    words: int = key(14_000, "words of its own vocabulary at most, the most frequent ones of the text", low=1)
    min_frequency: int = key(2, "a word of the vocabulary occurs at least so often in the text", low=1)
    word_size: int = key(100, "width of a word's vector", low=1, high=4096)
    vectors: str = key(
        "teacher",
        "what word vectors start from: random, teacher (its own table of pieces, reduced to word_size), or a text file "
        "of word2vec, GloVe or fastText, of word_size numbers a line",
    )
    whole_vectors: bool = key(
        False, "all words of that file are known, not those of the text alone; one that the text lacks keeps its vector"
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


@dataclass(frozen=True)
class ReductionRecipe(Section):
    """What is left of the encoder that a student starts from (`student=transformer`)."""

    layers: int = key(0, "layers that are kept, spread evenly over those there are; 0: half of them", low=0, high=1000)
    feed_forward: int = key(
        0, "units of each feed-forward part that are kept, those of the largest weights; 0: all", low=0, high=1 << 20
    )
    min_frequency: int = key(
        1, "a piece of the vocabulary is kept if it occurs at least so often in the text; 0: all are kept", low=0
    )


# What a student learns from its teacher, and the recipes themselves.


@dataclass(frozen=True)
class LossRecipe(Section):
    """The losses of the student and their shares."""

    recognizer: str = key(
        "soft_cross_entropy",
        "against the teacher's probabilities: soft_cross_entropy, squared_error (summed over tags), mean_squared_error, "
        "or squared_logits",
    )
    temperature: float = key(1.0, "divides the logits of student and teacher", low=0.01, high=100)
    recognizer_weight: float = key(1.0, "share of the recognizer loss", low=0)
    similarity_weight: float = key(0.0, "share of the similarity loss; 0: no similarity task", low=0)


@dataclass(frozen=True)
class WeightsRecipe(Section):
    """How far each position's loss is trusted; named as in `train/objectives.py` and `train/mtmt.py`."""

    alpha: str = key("one", "trust in the recognizer, per word: squared_confidence or one")
    beta: str = key(
        "one",
        "trust in the similarity, per word pair: squared_margin, raised_margin or one",
    )
    gamma: str = key("one", "agreement of both teachers, per word pair: agreement, cosine_agreement or one")
    outputs: str = key(
        "teacher",
        "teacher: what the weights look at, each word and pair by itself; student: as in the post, they look at the "
        "student, are averaged over the batch and carry a gradient, and each tower has tag scores of its own",
        choices="teacher student",
    )


@dataclass(frozen=True)
class TeacherRecipe:
    """A teacher: labelled source language, recognizer and similarity in one network."""

    language: str = key("en", "source language: the folder of `data` that is read")
    data: str = key("data", "folder with LANGUAGE/{train,dev,test}.conll")
    run: str = key("", "result folder; a bare name lies under runs/; empty: runs/teacher-LANGUAGE")
    encoder: str = key("google-bert/bert-base-multilingual-cased", "encoder folder or hub name")
    encoder_revision: str = key("", "commit, tag or branch of an encoder of the hub; empty: the newest")
    seed: int = key(0, "of every random choice", low=0, high=2**32 - 1)
    trackers: str = key(
        "", "where numbers go beside metrics.jsonl: trackers of Accelerate, with commas, as in tensorboard,wandb,mlflow"
    )
    sharing: str = key(
        "joint",
        "joint: one encoder for both tasks; separate: an encoder for each, twice the time and memory",
        choices="joint separate",
    )
    similarity_weight: float = key(
        0.0,
        "share of the similarity loss beside the recognizer loss; 0: no similarity task, which transfers better; 1 for "
        "students that learn it, too (variant=calibrated)",
        low=0,
    )
    corpus: CorpusRecipe = section(CorpusRecipe)
    labels: LabelsRecipe = section(LabelsRecipe)
    pairs: PairsRecipe = section(PairsRecipe)
    similarity: SimilarityRecipe = section(SimilarityRecipe)
    optimization: OptimizationRecipe = section(OptimizationRecipe)
    hardware: HardwareRecipe = section(HardwareRecipe)
    checkpoint: CheckpointRecipe = section(CheckpointRecipe)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self)
        check_revision(self.encoder_revision)
        if self.sharing == "separate" and not self.similarity_weight:
            raise RecipeError(
                "sharing=separate is an encoder for each of two tasks, and similarity_weight=0 leaves one; set "
                "similarity_weight=1, or leave sharing out"
            )


@dataclass(frozen=True)
class SourceRecipe(Section):
    """Labelled source sentences among the target's, so that the student keeps what is certain."""

    share: float = key(0.0, "share of labelled source sentences in the training text; 0: none", low=0, high=0.9)
    language: str = key("auto", "folder of `data` that is read; auto: the teacher's language")


@dataclass(frozen=True)
class DistillRecipe:
    """A student: unlabelled target text and a teacher's soft labels."""

    target: str = key("", "target language: the folder of `data` that is read")
    data: str = key("data", "folder with TARGET/train.txt or train.conll, and TARGET/test.conll where there is one")
    text: str = key("", "the unlabelled text itself: a file, or the folder of a data set; empty: that of `data`")
    gold: str = key(
        "", "a few labelled sentences of the target language, to learn from too: a file or folder; empty: none"
    )
    gold_share: float = key(
        0.3, "share of the labelled target sentences in every epoch, each shown several times", low=0.01, high=0.9
    )
    gold_tunes_teacher: bool = key(
        True, "the first teacher learns from `gold` before it labels the text, and the student starts from it"
    )
    run: str = key("", "result folder; a bare name lies under runs/; empty: runs/TARGET")
    teacher: str = key(
        "runs/teacher-en/model",
        "model folder or hub name of the teacher, or several, separated by commas; FILE.jsonl: annotations",
    )
    patterns: str = key(
        "",
        "names and patterns of words that teach beside it: a file in the format of spaCy's EntityRuler, or several, "
        "separated by commas; they say nothing of words that they do not find; empty: none",
    )
    encoder: str = key(
        "teacher",
        "what the student starts from: an encoder folder or hub name; teacher: the first teacher's encoder as trained; "
        "pretrained: the encoder that this teacher itself started from",
    )
    encoder_revision: str = key("", "commit, tag or branch of an encoder of the hub; empty: the newest")
    student: str = key(
        "encoder",
        "encoder: a network of subword pieces, as `encoder` says; transformer: the same with fewer layers and pieces; or "
        "a compact one of words and characters: bilstm (1.5 to 2.25 M parameters), linear (hashed "
        "features, one matrix)",
        choices="encoder transformer bilstm linear",
    )
    variant: str = key("pooled", "named set of losses and weights")
    setting: str = key("", "what result tables call this setting; empty: the keys in which it differs from others")
    seed: int = key(0, "of every random choice", low=0, high=2**32 - 1)
    soft_labels: str = key("auto", "folder of stored soft labels; auto: under runs/soft-labels, found by content")
    selection: str = key(
        "auto",
        "which student is kept: last; agreement: the closest to its soft labels on held-out text; source: the best on "
        "the teacher's language's dev set; score: by the mean of both; gold: the best on a part of `gold` that is kept "
        "aside; target: by labels of the target's dev set; auto: gold where `gold` is large enough, else last",
        choices="auto last agreement source score gold target",
    )
    holdout_ratio: float = key(
        0.05, "share of the target text that is kept out of training, to measure agreement", low=0, high=0.5
    )
    trackers: str = key(
        "", "where numbers go beside metrics.jsonl: trackers of Accelerate, with commas, as in tensorboard,wandb,mlflow"
    )
    corpus: CorpusRecipe = section(CorpusRecipe)
    labels: LabelsRecipe = section(LabelsRecipe)
    pairs: PairsRecipe = section(PairsRecipe)
    loss: LossRecipe = section(LossRecipe)
    weights: WeightsRecipe = section(WeightsRecipe)
    denoising: str = key(
        "pooling", "what is done to the soft labels, in this order: steps separated by commas, or none"
    )
    pooling: PoolingRecipe = section(PoolingRecipe)
    compact: CompactRecipe = section(CompactRecipe)
    reduction: ReductionRecipe = section(ReductionRecipe)
    mixing: MixingRecipe = section(MixingRecipe)
    source: SourceRecipe = section(SourceRecipe)
    optimization: OptimizationRecipe = section(OptimizationRecipe)
    hardware: HardwareRecipe = section(HardwareRecipe)
    checkpoint: CheckpointRecipe = section(CheckpointRecipe)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self)
        if not self.target:
            raise RecipeError("target is empty; which language? as in target=de")
        if self.selection == "gold" and not self.gold:
            raise RecipeError("selection=gold needs labelled target sentences; give gold=FILE, or another selection=")
        if self.gold and self.gold_tunes_teacher and self.mixing.rename:
            raise RecipeError(
                "gold= is in the types of mixing.rename, which the teacher has not; set gold_tunes_teacher=false"
            )
        if self.gold and self.gold_tunes_teacher and self.mixing.weights == BY_LANGUAGE:
            raise RecipeError(
                "gold= makes the first teacher one of the target language, whose weight mixing.weights=language cannot "
                "tell; set gold_tunes_teacher=false, or other weights"
            )
        self._check_teachers()

    @property
    def teachers(self) -> tuple[str, ...]:
        """All teachers, in the order of the recipe, patterns last."""
        return (*[name.strip() for name in self.teacher.split(",")], *self.pattern_files)

    @property
    def pattern_files(self) -> tuple[str, ...]:
        """The teachers that are files of patterns."""
        return tuple([name.strip() for name in self.patterns.split(",")]) if self.patterns else ()

    @property
    def model_teachers(self) -> tuple[str, ...]:
        """The teachers that are models, by folder or hub name; the others are files of annotations or patterns."""
        return models_among(self.teachers, self.pattern_files)

    @property
    def is_compact(self) -> bool:
        """Whether the student reads words and characters instead of subword pieces."""
        return self.student not in ("encoder", "transformer")

    def _check_teachers(self) -> None:
        teachers = self.teachers
        if "" in teachers or len(set(teachers)) < len(teachers):
            shown = f"teacher={self.teacher}" + (f" patterns={self.patterns}" if self.patterns else "")
            raise RecipeError(f"{shown}: expected one teacher or several different ones, as in A,B")
        if self.mixing.numbers and len(self.mixing.numbers) != len(teachers):
            raise RecipeError(
                f"mixing.weights={self.mixing.weights} are {len(self.mixing.numbers)}, the teachers are "
                f"{len(teachers)}: {', '.join(teachers)}; expected a number for each"
            )
        files = [name for name in teachers if name not in self.model_teachers]
        if self.mixing.weights == BY_LANGUAGE and files:
            raise RecipeError(f"mixing.weights=language weighs models by their language; {files[0]} has none")
        if self.mixing.weights == BY_LANGUAGE and len(teachers) == 1:
            raise RecipeError("mixing.weights=language needs teachers of two languages or more, as in teacher=A,B")
        check_revision(self.encoder_revision)
        follows_teacher = self.encoder in ("teacher", "pretrained")
        if self.encoder_revision and follows_teacher:
            raise RecipeError(
                f"encoder_revision={self.encoder_revision} is that of an encoder of the hub, and the student starts from "
                "its teacher's; leave it out, or give encoder= a hub name"
            )
        has_bound = self.optimization.batch_pieces != OptimizationRecipe().batch_pieces
        if self.weights.outputs == "student" and has_bound:
            raise RecipeError(
                "weights.outputs=student (variant=blog) has weights of the whole batch, which is never computed in parts; "
                "leave out optimization.batch_pieces, or set weights.outputs=teacher"
            )
        if self.optimization.lora and self.gold and self.gold_tunes_teacher:
            raise RecipeError(
                f"optimization.lora={self.optimization.lora}: the teacher that learns from gold= learns with all of its "
                "weights; set gold_tunes_teacher=false, or leave one of the two out"
            )
        if self.is_compact:
            self._check_compact()
        elif not self.model_teachers and follows_teacher:
            raise RecipeError(
                f"teacher={self.teacher}: annotations are no encoder that a student could start from; give encoder="
            )

    def _check_compact(self) -> None:
        """What a student without subword pieces and without a second tower cannot do."""
        found = {
            "encoder": self.encoder != "teacher",
            "loss.similarity_weight": self.loss.similarity_weight > 0,
            "weights.gamma": self.weights.gamma != "one",
            "weights.outputs": self.weights.outputs != "teacher",
            "optimization.freeze": self.optimization.freeze != "none",
            "optimization.gradient_checkpointing": self.optimization.gradient_checkpointing,
            "optimization.lora": self.optimization.lora > 0,
            "optimization.batch_pieces": self.optimization.batch_pieces != OptimizationRecipe().batch_pieces,
        }
        if names := [name for name, asked in found.items() if asked]:
            raise RecipeError(
                f"student={self.student} learns from soft labels of words, and starts from no encoder; "
                f"leave out {', '.join(names)}, or take variant=pooled or tsl"
            )
        if self.compact.vectors == "teacher" and self.student != "linear" and not self.model_teachers:
            raise RecipeError(
                f"teacher={self.teacher}: annotations have no word vectors; set compact.vectors=random or a file"
            )


def models_among(teachers: Iterable[str], patterns: Collection[str] = ()) -> tuple[str, ...]:
    """The teachers that are models, rather than files of annotations (FILE.jsonl) or one of these patterns."""
    return tuple([name for name in teachers if not name.endswith(".jsonl") and name not in patterns])


@dataclass(frozen=True)
class VocabularyRecipe(Section):
    """Pieces that the encoder gets in addition, learnt from the target text."""

    new_pieces: int = key(0, "pieces to add at most; 0: the vocabulary stays as it is", low=0, high=1_000_000)
    min_frequency: int = key(5, "a piece that is added occurs at least so often in the text", low=1)


# Longer and with an even hand: the whole encoder learns, and its stored head has learnt before.
_ADAPTATION = OptimizationRecipe(learning_rate=1e-4, head_learning_rate=5e-4, warmup_ratio=0.05)


@dataclass(frozen=True)
class AdaptRecipe:
    """An encoder that goes on reading: unlabelled text of a target language, with pieces hidden."""

    target: str = key("", "target language: the folder of `data` that is read")
    data: str = key("data", "folder with TARGET/train.txt or train.conll")
    text: str = key("", "the unlabelled text itself: a file, or the folder of a data set; empty: that of `data`")
    run: str = key("", "result folder; a bare name lies under runs/; empty: runs/encoder-TARGET")
    encoder: str = key("google-bert/bert-base-multilingual-cased", "encoder folder or hub name; of a tagger, its body")
    encoder_revision: str = key("", "commit, tag or branch of an encoder of the hub; empty: the newest")
    seed: int = key(0, "of every random choice", low=0, high=2**32 - 1)
    parallel: str = key("", "file of translations, SOURCE<TAB>TARGET a line, each pair read as one input; empty: none")
    max_pairs: int = key(0, "read only so many translations; 0: all", low=0)
    other_text: str = key("", "text of other languages, mixed in so that they are not forgotten; empty: none")
    other_share: float = key(0.3, "share of the other text among all sentences of an epoch", low=0.01, high=0.99)
    selection: str = key("best", "which encoder is kept: best on the held-out text, or last", choices="best last")
    holdout_ratio: float = key(
        0.05, "share of the target text that is kept out of training, to measure the loss", low=0, high=0.5
    )
    trackers: str = key(
        "", "where numbers go beside metrics.jsonl: trackers of Accelerate, with commas, as in tensorboard,wandb,mlflow"
    )
    corpus: CorpusRecipe = section(CorpusRecipe)
    masking: MaskingRecipe = section(MaskingRecipe)
    vocabulary: VocabularyRecipe = section(VocabularyRecipe)
    optimization: OptimizationRecipe = section(OptimizationRecipe, _ADAPTATION)
    hardware: HardwareRecipe = section(HardwareRecipe)
    checkpoint: CheckpointRecipe = section(CheckpointRecipe)

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_bounds(self)
        check_revision(self.encoder_revision)
        if not self.target:
            raise RecipeError("target is empty; which language? as in target=de")
        if self.selection == "best" and not self.holdout_ratio:
            raise RecipeError("selection=best needs text that is held out; raise holdout_ratio, or set selection=last")
        if self.optimization.lora:
            raise RecipeError(
                f"optimization.lora={self.optimization.lora}: an encoder that goes on reading learns with all of its "
                "weights, the table of pieces first; leave it out"
            )


# The schema of `tag_corpus.py`: what is tagged with what, and how the work is cut.


@dataclass(frozen=True)
class TagRecipe:
    """A corpus to tag; model, input and output have no defaults."""

    model: str = key("", "model folder such as runs/de/model, or hub name")
    input: str = key("", "file, folder or quoted glob of .parquet, .jsonl or .txt files; other suffixes are left alone")
    output: str = key("", "folder for the result: Parquet becomes Parquet, the others JSONL")
    shard_megabytes: float = key(
        16.0, "input that is tagged and published as a whole, in 10^6 bytes", low=1e-6, high=1e6
    )
    on_error: str = key("stop", "stop at a record that cannot be read, or skip it", choices="stop skip")
    batch_pieces: int = key(
        0, "subword pieces per forward pass, padding included; 0: what suits the device", low=0, high=10_000_000
    )
    cpu: bool = key(False, "compute on the CPU even where there is a GPU")
    threads: int = key(
        0,
        "CPU threads of each process; 0: the cores, shared out among the processes here; of a worker of Ray, one",
        low=0,
    )
    part: str = key("", "tag every n-th shard alone, as in 3/16, the third of 16 parts; for queues such as SLURM's")
    engine: str = key(
        "processes", "who hands out the shards: the processes themselves, or Ray", choices="processes ray"
    )
    address: str = key(
        "", "of a Ray cluster: auto, host:6379 or ray://host:10001; empty: RAY_ADDRESS, or Ray started here"
    )
    workers: int = key(0, "models that Ray holds open, each with its threads; 0: one for each CPU there is", low=0)

    def __post_init__(self) -> None:
        """Check the bounds, and that all is named."""
        check_bounds(self)
        if self.engine != "ray" and (self.address or self.workers):
            raise RecipeError("address and workers are for a Ray cluster; give engine=ray with them")
        number, n_parts = self.part_numbers
        if not 1 <= number <= n_parts:
            raise RecipeError(f"part is {self.part}; parts count from 1, as in 1/16, 2/16, ... 16/16")
        for name, value in (("model", self.model), ("input", self.input), ("output", self.output)):
            if not value:
                raise RecipeError(f"{name}= is missing; as in model=runs/de/model input=corpus output=tagged")

    @property
    def part_numbers(self) -> tuple[int, int]:
        """Which part of how many; 1 of 1 for the whole.

        Raises:
            RecipeError: If it is no such text.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", self.part or "1/1")
        if found is None:
            raise RecipeError(f"part is {self.part!r}; expected which part of how many, as in 3/16")
        return int(found[1]), int(found[2])
