"""What must be known of a model folder beyond its network, read without torch and transformers."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from xlner.errors import ModelError
from xlner.tags import LabelSet
from xlner.words import WORD_SPLITTERS

# What must be known of a model beyond its Hugging Face files, read without torch and transformers.


SETTINGS_FILE = "xlner.json"
# In config.json: the scheme that a model of xlner has learnt its tags in.
SCHEME_KEY = "xlner_tag_scheme"
# Pieces that a window needs: some of a word, and the special ones around them.
LEAST_LENGTH = 8
# More layers than any model has; to build them would take forever.
_MOST_LAYERS = 1000
# Languages without spaces between words, by their codes of two and three letters.
UNSPACED_LANGUAGES = frozenset(
    ("zh", "zho", "cmn", "yue", "wuu", "lzh", "ja", "jpn", "th", "tha", "lo", "lao", "km", "khm", "my", "mya")
)
# Where transformers, of one version or another, looks for the name of a kernel.
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")


@dataclass(frozen=True)
class ModelSettings:
    """The content of `xlner.json`.

    `max_length` counts pieces, special ones included; 0 means the tokenizer's own limit. An empty `similarity`
    means that there is no such head; with `sharing` other than `joint` it has an encoder of its own. `outside_share`
    is the share of `O` among the words of the labelled text behind the model, its own or its teacher's; 0 means that
    it is not known. `base_model` is the hub name of the encoder that training began with, or the name of its folder;
    `base_licence` what the card of that encoder says; both are empty where it is not known.
    """

    word_splitter: str = "unicode"
    max_length: int = 0
    language: str = ""
    similarity: str = ""
    projection_size: int = 0
    outside_share: float = 0.0
    sharing: str = "joint"
    base_model: str = ""
    base_licence: str = ""

    @property
    def spaced(self) -> bool:
        """Whether the language is known, and one with spaces between words."""
        return bool(self.language) and main_language(self.language) not in UNSPACED_LANGUAGES

    def save(self, folder: Path) -> None:
        """Write `xlner.json` into a folder."""
        (folder / SETTINGS_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def main_language(code: str) -> str:
    """The language that a code begins with: `pt` of `pt`, `pt_BR` and `pt-br`."""
    return re.split(r"[^a-z]", code.lower())[0]


def parse_settings(path: Path) -> ModelSettings:
    """The settings in a file.

    Raises:
        ModelError: If it is damaged or has unknown keys.
    """
    try:
        settings = ModelSettings(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as problem:
        raise ModelError(f"{path}: expected the settings of an xlner model, found: {problem}") from problem
    for spec in fields(settings):
        value = settings.__dict__[spec.name]
        kinds: tuple[Any, ...] = (float, int) if spec.type is float else (spec.type,)
        if type(value) not in kinds or (isinstance(value, int | float) and not 0 <= value < math.inf):
            expected = {str: "a text", int: "a whole number, 0 or above"}.get(kinds[0], "a number, 0 or above")
            raise ModelError(f"{path}: {spec.name} is {value!r}; expected {expected}")
    if settings.word_splitter not in WORD_SPLITTERS:
        known = ", ".join(sorted(WORD_SPLITTERS))
        raise ModelError(f"{path}: unknown word splitter {settings.word_splitter!r}; known: {known}")
    if 0 < settings.max_length < LEAST_LENGTH:
        raise ModelError(f"{path}: max_length is {settings.max_length}; a window needs {LEAST_LENGTH} pieces, or 0")
    return settings


def refuse_code(config: Mapping[str, Any], name: str) -> None:
    """Refuse a `config.json` that would have code or kernels fetched and run, or weights read from elsewhere.

    Raises:
        ModelError: If it or a configuration within it has `auto_map`, an implementation of attention or experts that
            names a repository, a quantization (some bring kernels), or names its weights itself.
    """
    if config.get("auto_map"):
        raise ModelError(f"{name}: config.json asks for code of its own (auto_map); xlner runs no remote code")
    if config.get("quantization_config"):
        raise ModelError(f"{name}: config.json tells of quantized weights, which need code of others; give whole ones")
    if config.get("transformers_weights"):
        found = config["transformers_weights"]
        raise ModelError(f"{name}: config.json names its weights itself ({found}); expected model.safetensors")
    for key, value in config.items():
        if _IMPLEMENTATION.fullmatch(key) and "/" in str(value):
            raise ModelError(f"{name}: config.json asks for an attention kernel from the hub ({value}); refused")
        if isinstance(value, Mapping):
            refuse_code(value, name)


def refuse_odd_numbers(config: Mapping[str, Any], name: str) -> None:
    """Refuse numbers of a `config.json` that no network has, and that fail only when it is built or run.

    Raises:
        ModelError: If it or a configuration within it has infinite values or none, a dropout that is no probability,
            a size below 0, or more layers than can be.
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            refuse_odd_numbers(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            expected = ""
            if not -math.inf < value < math.inf:
                expected = "a finite number"
            elif (key.endswith("_prob") or "dropout" in key) and not 0 <= value <= 1:
                expected = "a probability"
            elif (key.startswith("num_") or key.endswith("_size")) and value < 0:
                expected = "0 or above"
            elif re.fullmatch(r"(num_|n_)?(\w+_)?layers?", key) and value > _MOST_LAYERS:
                expected = f"at most {_MOST_LAYERS}"
            if expected:
                raise ModelError(f"{name}: config.json has {key} {value}; expected {expected}")


# `thresholds.json`: the score that an entity of each type needs, as `xlner report` found it on a dev corpus.


THRESHOLDS_FILE = "thresholds.json"


def parse_thresholds(path: Path) -> dict[str, float]:
    """The least score of each type, in [0, 1].

    Raises:
        ModelError: If the file is damaged.
    """
    try:
        found = {str(name): float(value) for name, value in json.loads(path.read_text("utf-8"))["thresholds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ModelError(f"{path}: expected thresholds by entity type, found: {problem!r}") from problem
    if odd := [name for name, value in found.items() if not 0.0 <= value <= 1.0]:
        raise ModelError(f"{path}: the threshold of {odd[0]} is {found[odd[0]]}; expected a number from 0 to 1")
    return found


# `student.json`: what kind of compact student a folder holds, its sizes and its tags; read without torch.


STUDENT_FILE = "student.json"
FORMAT = 1
PRECISIONS = ("fp32", "fp16", "int8")
# Numbers beyond these are no student's, and would take the memory of whoever opens the folder.
LARGEST = 1 << 26


@dataclass(frozen=True)
class Sizes:
    """All numbers that shape a student; what a kind does not use has no effect on it."""

    n_words: int = 0
    n_characters: int = 0
    word_size: int = 100
    n_chars: int = 20
    char_size: int = 25
    char_filters: int = 50
    hidden_size: int = 256
    layers: int = 1
    buckets: int = 0


@dataclass(frozen=True)
class StudentSettings:
    """What a compact student is; `max_words` is the longest window, `precision` how its weights are stored."""

    kind: str
    decoder: str
    tags: tuple[str, ...]
    sizes: Sizes
    max_words: int = 256
    precision: str = "fp32"
    format: int = FORMAT

    @property
    def labels(self) -> LabelSet:
        """The tags, each entity beginning with `B-X`."""
        return LabelSet(self.tags)

    def stored_as(self, precision: str) -> "StudentSettings":
        """The same student with weights in another number format."""
        return replace(self, precision=precision)

    def save(self, folder: Path) -> None:
        """Write `student.json` into a folder."""
        (folder / STUDENT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def is_compact(folder: Path) -> bool:
    """Whether a folder holds a compact student."""
    return (folder / STUDENT_FILE).is_file()


def read_student(folder: Path) -> StudentSettings:
    """The settings in a folder.

    Raises:
        ModelError: If they are damaged, of another format, or say what cannot be.
    """
    path = folder / STUDENT_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ModelError(f"{path}: found format {content['format']}, expected {FORMAT}; distil the student again")
        sizes = Sizes(**content.pop("sizes"))
        found = StudentSettings(**{**content, "tags": tuple(content["tags"])}, sizes=sizes)
        numbers = [vars(sizes)[spec.name] for spec in fields(Sizes)] + [found.max_words]
        if not all(isinstance(number, int) and 0 <= number <= LARGEST for number in numbers) or found.max_words < 4:
            raise ValueError(f"sizes {numbers}")
        if found.precision not in PRECISIONS or found.decoder not in ("softmax", "crf"):
            raise ValueError(f"precision {found.precision!r}, decoder {found.decoder!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"{path}: expected the settings of a compact student, found: {problem!r}") from problem
    _ = found.labels  # refuses tags that could not be decoded
    return found
