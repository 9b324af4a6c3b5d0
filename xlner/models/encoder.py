"""Token classifiers from encoder folders and hub names, and what is refused about them.

A recognizer *is* a Hugging Face `...ForTokenClassification` model, so that what xlner saves opens in plain
transformers. No code, pickle or attention kernel of a model folder is ever run.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from xlner.errors import ModelError
from xlner.labels import LabelSet


def load_recognizer(folder: str) -> tuple[PreTrainedModel, LabelSet]:
    """A trained token classifier with its own labels, in float32.

    Raises:
        ModelError: If there is no such model, it has no usable labels, or it asks for what is refused.
    """
    config = _checked_config(folder)
    names = [str(name) for name in config.id2label.values()]
    if all(name.startswith("LABEL_") for name in names):
        raise ModelError(f"{folder}: its labels are {', '.join(names)}; this is an encoder or an unnamed head, no tagger")
    labels = LabelSet.of_model(config.id2label)
    return _load(folder, config), labels


def new_recognizer(encoder: str, labels: LabelSet) -> PreTrainedModel:
    """An encoder with a fresh token-classification head, drawn from torch's global generator; float32.

    Raises:
        ModelError: If there is no such encoder, or it asks for what is refused.
    """
    config = _checked_config(encoder)
    config.id2label = dict(enumerate(labels.tags))
    config.label2id = {tag: index for index, tag in enumerate(labels.tags)}
    return _load(encoder, config)


def freeze_lowest(model: PreTrainedModel, n_layers: int) -> None:
    """Freeze the embeddings and the `n_layers` lowest layers.

    Raises:
        ModelError: If the encoder has no stack of layers that can be found, or fewer layers than asked.
    """
    body: Any = model.base_model
    stack = max(
        (module for module in body.modules() if isinstance(module, torch.nn.ModuleList)), key=len, default=None
    )
    if stack is None or len(stack) < n_layers:
        found = "no stack of layers" if stack is None else f"{len(stack)} layers"
        raise ModelError(f"freeze_layers is {n_layers}; {type(body).__name__} has {found}")
    # Word embeddings by the library's own accessor; positions and norm, where they have a block of their own, with it.
    embeddings = [model.get_input_embeddings(), *(m for name, m in body.named_children() if name == "embeddings")]
    for module in (*embeddings, *stack[:n_layers]):
        module.requires_grad_(False)


def _load(name: str, config: PretrainedConfig) -> PreTrainedModel:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the load report calls a fresh head a problem; here it is the plan
    try:
        model: PreTrainedModel = AutoModelForTokenClassification.from_pretrained(
            name, config=config, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as problem:
        raise ModelError(f"{name}: the weights could not be loaded: {_first_line(problem)}") from problem
    finally:
        transformers_logging.set_verbosity(verbosity)
    return model


def _checked_config(name: str) -> PretrainedConfig:
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise ModelError(f"{name}: expected a model folder with config.json, found {found}")
        if not any(folder.glob("*.safetensors*")):
            pickled = "; pickled weights (.bin) are not read" if any(folder.glob("*.bin")) else ""
            raise ModelError(f"{name}: expected weights in model.safetensors, found none{pickled}")
    elif folder.is_absolute() or name.startswith(("./", "../", "runs/")) or name.count("/") > 1:
        raise ModelError(f"{name}: no such folder; give a model folder, or a hub name such as FacebookAI/xlm-roberta-base")
    try:
        raw, _ = PretrainedConfig.get_config_dict(name)
    except (OSError, ValueError, json.JSONDecodeError) as problem:
        raise ModelError(
            f"{name}: neither a folder here nor a model that could be fetched ({_first_line(problem)}); "
            "check the name and the network, or give a local folder"
        ) from problem
    if not raw:
        raise ModelError(f"{name}: neither a folder here nor a model on the hub; check the name, or give a local folder")
    if "auto_map" in raw:
        raise ModelError(f"{name}: config.json asks for code of its own (auto_map); xlner runs no remote code")
    for key in ("attn_implementation", "_attn_implementation"):
        if "/" in str(raw.get(key, "")):
            raise ModelError(f"{name}: config.json asks for an attention kernel from the hub ({raw[key]}); refused")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as problem:
        raise ModelError(f"{name}: config.json is no model configuration: {_first_line(problem)}") from problem
    return config


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
