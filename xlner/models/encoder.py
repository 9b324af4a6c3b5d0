"""Token classifiers from encoder folders and hub names, and what is refused about them.

A recognizer *is* a Hugging Face `...ForTokenClassification` model, so that what xlner saves opens in plain
transformers. No code, pickle or attention kernel of a model folder is ever run.
"""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from xlner.errors import LabelError, ModelError
from xlner.labels import LabelSet
from xlner.models.files import NEWEST, refuse_odd_weights
from xlner.models.settings import SCHEME_KEY, refuse_code, refuse_odd_numbers

# What transformers and torch raise at files that are damaged, or hold values of another kind.
_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError),
    *(AssertionError, SafetensorError, StrictDataclassError),
)


def load_recognizer(folder: str) -> tuple[PreTrainedModel, LabelSet]:
    """A trained token classifier with its own labels, in float32.

    Raises:
        ModelError: If there is no such model, it has no usable labels, or it asks for what is refused.
    """
    labels = read_labels(folder)
    return load_classifier(folder), labels


def load_classifier(folder: str) -> PreTrainedModel:
    """A trained token classifier whose tags may be of any scheme, in float32.

    Raises:
        ModelError: If there is no such model, its labels have no names, or it asks for what is refused.
    """
    config = checked_config(folder)
    _tag_names(folder, config)
    model, missing = load_network(folder, config, AutoModelForTokenClassification)
    if missing:
        raise ModelError(f"{folder}: no tagger, its weights lack {', '.join(sorted(missing)[:4])}")
    return model


def read_tags(folder: str) -> tuple[str, ...]:
    """The tags of a trained token classifier as it names them, in the order of its outputs, of any scheme.

    Raises:
        ModelError: As `load_classifier`.
    """
    return _tag_names(folder, checked_config(folder))


def read_labels(folder: str) -> LabelSet:
    """The labels of a trained token classifier, without loading its weights.

    Raises:
        ModelError: As `load_recognizer`.
    """
    config = checked_config(folder)
    _tag_names(folder, config)
    try:
        return labels_of(config)
    except LabelError as problem:
        raise LabelError(f"{folder}: config.json: {problem}") from problem


def _tag_names(folder: str, config: PretrainedConfig) -> tuple[str, ...]:
    names = tags_of_model(config)
    if all(name.startswith("LABEL_") for name in names):
        raise ModelError(
            f"{folder}: its labels are {', '.join(names)}; this is an encoder or an unnamed head, no tagger"
        )
    return names


def tags_of_model(config: PretrainedConfig) -> tuple[str, ...]:
    """The tags of a model's configuration, in the order of its outputs, of any scheme."""
    return tuple([name for _, name in sorted((int(index), str(tag)) for index, tag in (config.id2label or {}).items())])


def labels_of(config: PretrainedConfig) -> LabelSet:
    """The label set of a model's configuration; models of xlner say that their tags are IOB2."""
    return LabelSet(tags_of_model(config), begins=config.to_dict().get(SCHEME_KEY) == "iob2")


def new_recognizer(
    encoder: str, labels: LabelSet, renamed: Mapping[str, str] | None = None, *, revision: str = NEWEST
) -> PreTrainedModel:
    """An encoder with a fresh token-classification head, drawn from torch's global generator; float32.

    Where the encoder is itself a tagger, its head keeps what it knows of tags of the same name; `renamed` tells what
    tags of the encoder are called now; `revision` is that of a hub name.

    Raises:
        ModelError: If there is no such encoder, or it asks for what is refused.
    """
    config = checked_config(encoder, revision)
    former = [str(name) for _, name in sorted((config.id2label or {}).items())]
    if all(name.startswith("LABEL_") for name in former):
        _name_tags(config, labels.tags)
        return load_network(encoder, config, AutoModelForTokenClassification, revision)[0]
    model, missing = load_network(encoder, config, AutoModelForTokenClassification, revision)
    former = [(renamed or {}).get(tag, tag) for tag in former]
    _replace_output(model, former, labels.tags, trained=not missing)
    _name_tags(model.config, labels.tags)
    return model


def second_network(recognizer: PreTrainedModel) -> PreTrainedModel:
    """Another network of the same make and the same weights, which shares none of them."""
    return deepcopy(recognizer)


def longest_input(model: PreTrainedModel) -> int | None:
    """Pieces, special ones included, that the encoder has positions for; None if it states no limit.

    Asked from the table of positions itself: tokenizers often state no limit, and RoBERTa's configuration counts
    positions that padding takes.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def layer_stack(model: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """The layers of the encoder, the longest list in it, and its name within the model; empty if there is none."""
    stacks = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.ModuleList)]
    return max(stacks, key=lambda stack: len(stack[1]), default=("", torch.nn.ModuleList()))


def output_layer(model: PreTrainedModel, n_tags: int) -> tuple[str, torch.nn.Linear]:
    """The layer of a recognizer that gives a score for each of its tags, and its name within the model."""
    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    return [(name, part) for name, part in linear if part.out_features == n_tags][-1]


def freeze(model: PreTrainedModel, what: str) -> None:
    """Keep the lowest part of the encoder as it is.

    Args:
        model: A recognizer.
        what: `none`, `embeddings`, or `embeddings+N` for the N lowest layers too.

    Raises:
        ModelError: If no stack of layers can be found, or it has fewer layers than asked.
    """
    if what == "none":
        return
    body: Any = model.base_model
    # Word embeddings by the library's own accessor; positions and norm, where they have a block of their own, with it.
    frozen = [model.get_input_embeddings(), *(child for name, child in body.named_children() if name == "embeddings")]
    n_layers = int(what.partition("+")[2] or 0)
    if n_layers:
        _, layers = layer_stack(model)
        if len(layers) < n_layers:
            raise ModelError(f"optimization.freeze is {what}; {type(body).__name__} has {len(layers)} layers")
        frozen += layers[:n_layers]
    for module in frozen:
        module.requires_grad_(False)


def _name_tags(config: PretrainedConfig, tags: Sequence[str]) -> None:
    config.id2label = dict(enumerate(tags))
    config.label2id = {tag: index for index, tag in enumerate(tags)}
    config.update({SCHEME_KEY: "iob2"})


def _replace_output(model: PreTrainedModel, former: Sequence[str], tags: Sequence[str], *, trained: bool) -> None:
    """Give a tagger an output for each of these tags: the row of the former tag of that name, or a fresh one.

    Where the former head was not `trained`, all are fresh. Rows are found by name, never by number: a head of as
    many tags in another order would fit, and be wrong.
    """
    name, old = output_layer(model, len(former))
    new = torch.nn.Linear(old.in_features, len(tags), bias=old.bias is not None)
    torch.nn.init.normal_(new.weight, std=0.02)
    places = [(row, former.index(tag)) for row, tag in enumerate(tags) if trained and tag in former]
    with torch.no_grad():
        for values, old_values in zip(new.parameters(), old.parameters(), strict=True):
            if values.dim() == 1:
                values.zero_()
            for row, place in places:
                values[row] = old_values[place]
    model.set_submodule(name, new)
    model.num_labels = len(tags)  # type: ignore[assignment]  # torch's stubs know tensors and modules alone


def load_network(
    name: str, config: PretrainedConfig, kind: type[Any], revision: str = NEWEST
) -> tuple[PreTrainedModel, set[str]]:
    """A network in float32, and the names of the weights that its files lack.

    Args:
        name: Encoder folder or hub name.
        config: From `checked_config`.
        kind: One of the `AutoModelFor...` classes: what the network shall compute.
        revision: Of a hub name: the one that the configuration is of.

    Raises:
        ModelError: If the weights cannot be loaded, or there is no such network of this architecture.
    """
    verbosity, shows_progress = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)  # the load report would call a fresh head a problem
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, report = kind.from_pretrained(
            name,
            config=config,
            revision=revision,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except _DAMAGE as problem:
        raise ModelError(f"{name}: the weights could not be loaded: {_first_line(problem)}") from problem
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    return model, set(report["missing_keys"])


def checked_config(name: str, revision: str = NEWEST) -> PretrainedConfig:
    """The configuration of an encoder folder or hub name, once nothing in it asks for what is refused.

    Raises:
        ModelError: If there is no such encoder, or it asks for code, pickle or a kernel of its own.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise ModelError(f"{name}: expected a model folder with config.json, found {found}")
        if not any(folder.glob("model*.safetensors*")):
            pickled = "; pickled weights (.bin) are not read" if any(folder.glob("*.bin")) else ""
            raise ModelError(f"{name}: expected weights in model.safetensors, found none{pickled}")
    elif folder.is_absolute() or name.startswith(("./", "../", "runs/")) or name.count("/") > 1:
        raise ModelError(
            f"{name}: no such folder; give a model folder, or a hub name such as FacebookAI/xlm-roberta-base"
        )
    told = name if revision == NEWEST else f"{name}, revision {revision}"
    try:
        raw, _ = PretrainedConfig.get_config_dict(name, revision=revision)
    except _DAMAGE as problem:
        raise ModelError(
            f"{told}: neither a folder here nor a model that could be fetched ({_first_line(problem)}); "
            "check the name and the network, or give a local folder"
        ) from problem
    if not raw:
        raise ModelError(
            f"{told}: neither a folder here nor a model on the hub; check the name, or give a local folder"
        )
    refuse_code(raw, name)
    refuse_odd_numbers(raw, name)
    refuse_odd_weights(name, revision)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except _DAMAGE as problem:
        raise ModelError(f"{name}: config.json is no model configuration: {_first_line(problem)}") from problem
    return config


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
