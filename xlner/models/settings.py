"""What must be known of a model beyond its Hugging Face files, read without torch and transformers."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlner.errors import ModelError

SETTINGS_FILE = "xlner.json"
# In config.json: the scheme that a model of xlner has learnt its tags in.
SCHEME_KEY = "xlner_tag_scheme"
# Where transformers, of one version or another, looks for the name of a kernel.
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")


@dataclass(frozen=True)
class ModelSettings:
    """The content of `xlner.json`.

    `max_length` counts pieces, special ones included; 0 means the tokenizer's own limit. An empty `similarity`
    means that there is no such head; with `sharing` other than `joint` it has an encoder of its own. `outside_share`
    is the share of `O` among the words of the labelled text behind the model, its own or its teacher's; 0 means that
    it is not known.
    """

    word_splitter: str = "unicode"
    max_length: int = 0
    language: str = ""
    similarity: str = ""
    projection_size: int = 0
    outside_share: float = 0.0
    sharing: str = "joint"


def parse_settings(path: Path) -> ModelSettings:
    """The settings in a file.

    Raises:
        ModelError: If it is damaged or has unknown keys.
    """
    try:
        return ModelSettings(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as problem:
        raise ModelError(f"{path}: expected the settings of an xlner model, found: {problem}") from problem


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
