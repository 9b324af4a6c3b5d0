"""Token classifiers from encoder folders and hub names: what is refused, and what a trial on a few pieces tells."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from xlner.errors import LabelError, ModelError, first_line
from xlner.hub import NEWEST, find_file, is_reachable, refuse_file, weight_files
from xlner.models.cpu_training import train_cheaply_on_cpu
from xlner.models.settings import SCHEME_KEY, is_compact, read_student, refuse_code, refuse_odd_numbers
from xlner.tags import LabelSet, TagReading, read_tagging

# Token classifiers from encoder folders and hub names, and what is refused about them.
#
# A recognizer *is* a Hugging Face `...ForTokenClassification` model, so that what xlner saves opens in plain
# transformers. No code, pickle or attention kernel of a model folder is ever run.


# What transformers and torch raise at files that are damaged or hold values of another kind, and at odd networks.
NETWORK_ERRORS = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError),
    *(AssertionError, SafetensorError, StrictDataclassError),
)


def load_recognizer(folder: str) -> tuple[PreTrainedModel, LabelSet, TagReading | None]:
    """A trained token classifier in float32, its labels in IOB2, and how its own tags become those (None: they do).

    Raises:
        ModelError: If there is no such model, its labels have no names, or it asks for what is refused.
        LabelError: If it has no tag `O`.
    """
    labels, reading = _tagging(folder)
    return load_classifier(folder), labels, reading


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
    if is_compact(Path(folder)):
        return read_student(Path(folder)).tags
    return _tag_names(folder, checked_config(folder))


def read_labels(folder: str) -> LabelSet:
    """The labels of a trained token classifier in IOB2, whatever its own tags are, without loading its weights.

    Raises:
        ModelError: As `load_classifier`.
        LabelError: If it has no tag `O`.
    """
    return _tagging(folder)[0]


def _tagging(folder: str) -> tuple[LabelSet, TagReading | None]:
    config = checked_config(folder)
    try:
        return read_tagging(_tag_names(folder, config), begins=config.to_dict().get(SCHEME_KEY) == "iob2")
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
    former = [(renamed or {}).get(tag, tag) for tag in tags_of_model(config)]
    is_named = not all(name.startswith("LABEL_") for name in former)
    if not is_named:
        _name_tags(config, labels.tags)
        former = []
    model, missing = load_network(encoder, config, AutoModelForTokenClassification, revision, any_head=not is_named)
    name, output = output_layer(model, len(tags_of_model(config)))
    if is_named or f"{name}.weight" not in missing:
        # What transformers found under the name of the head may be that of another task, or of other tags.
        model.set_submodule(name, _output_of(labels.tags, output, former if not missing else []))
        model.num_labels = len(labels.tags)  # type: ignore[assignment]  # torch's stubs know tensors and modules alone
    _name_tags(model.config, labels.tags)
    return model


def second_network(recognizer: PreTrainedModel) -> PreTrainedModel:
    """Another network of the same make and the same weights, which shares none of them."""
    return deepcopy(recognizer)


def n_layers_of(model: PreTrainedModel) -> int:
    """How many layers a text goes through; 0 where the configuration does not say."""
    return int(getattr(model.config.get_text_config(), "num_hidden_layers", 0))


def layer_stacks(model: PreTrainedModel) -> list[tuple[str, torch.nn.ModuleList]]:
    """The lists that have one part for each layer, and their names within the model.

    Most networks have one such list; XLM has a list of attentions, one of feed-forward parts and so on. None where
    layers share their weights (ALBERT) or are grouped (Funnel).
    """
    n_layers = n_layers_of(model)
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.ModuleList)]
    stacks = [(name, part) for name, part in lists if len(part) == n_layers]
    names = [name for name, _ in lists]
    return [(name, part) for name, part in stacks if not any(name.startswith(f"{outer}.") for outer in names)]


def output_layer(model: PreTrainedModel, n_tags: int) -> tuple[str, torch.nn.Linear]:
    """The layer of a recognizer that gives a score for each of its tags, and its name within the model.

    Raises:
        ModelError: If there is none.
    """
    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    found = [(name, part) for name, part in linear if part.out_features == n_tags]
    if not found:
        told = type(model).__name__
        raise ModelError(f"{told} has no layer of {n_tags} outputs, one for each tag; take another encoder")
    return found[-1]


def freeze(model: PreTrainedModel, what: str) -> None:
    """Keep the lowest part of the encoder as it is.

    Frozen layers, and the embeddings below them, always compute as in tagging, without dropout: what cannot learn needs
    no noise, and so says the same of a window in each epoch.

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
        stacks = layer_stacks(model)
        if n_layers_of(model) < n_layers or not stacks:
            found = f"{n_layers_of(model)} layers" if stacks else "no layers that can be told apart"
            raise ModelError(f"optimization.freeze is {what}; {type(body).__name__} has {found}")
        frozen += [layer for _, layers in stacks for layer in layers[:n_layers]]
    for module in frozen:
        module.requires_grad_(False)
        if n_layers:
            module.register_forward_pre_hook(_as_in_tagging)


def _as_in_tagging(module: torch.nn.Module, inputs: Any) -> None:
    module.eval()


def check_adapters(rank: int) -> None:
    """Refuse adapters of a rank above 0 where the package is missing that makes them.

    Raises:
        ModelError: If it is.
    """
    if rank and find_spec("peft") is None:
        raise ModelError(f"optimization.lora={rank}: adapters need the package peft; pip install 'xlner[lora]'")


def add_adapters(model: PreTrainedModel, rank: int) -> None:
    """Give each linear layer of the encoder a low-rank adapter, W + 2 B A, and freeze all of the encoder but these.

    The network stays of its class, and computes as before until B, which begins with zeros, has learnt. Layers that are
    frozen already get none; A is drawn from torch's global generator.

    Args:
        model: A recognizer; what stands outside its encoder is trained as a whole.
        rank: Rows of A and columns of B.

    Raises:
        ModelError: If the package is missing, or there is no layer to adapt.

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1.
    """
    check_adapters(rank)
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds

    body, output = model.base_model, output_layer(model, len(tags_of_model(model.config)))[1]
    layers = [
        name
        for name, part in body.named_modules()
        if isinstance(part, torch.nn.Linear) and part.weight.requires_grad and part is not output
    ]
    if not layers:
        raise ModelError(
            f"optimization.lora={rank}: {type(body).__name__} has no linear layer that is trained; freeze less of it, "
            "or leave lora out"
        )
    body.requires_grad_(False)
    output.requires_grad_(True)  # some networks have no encoder apart from it
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers), body)
    adapted: list[Any] = [part for part in body.modules() if hasattr(part, "cast_input_dtype_enabled")]
    for layer in adapted:
        layer.cast_input_dtype_enabled = False  # to float32, and back by autocast: a copy of all that comes in


def plain_weights(network: torch.nn.Module) -> dict[str, Tensor]:
    """The state of a network without adapters: they are merged into the layers that they adapt; it stays as it is."""
    weights = dict(network.state_dict())
    for name, layer in network.named_modules():
        if not hasattr(layer, "get_delta_weight"):  # peft's; asked so that nothing else has to import it
            continue
        for key in [key for key in weights if key.startswith(f"{name}.")]:
            del weights[key]
        adapted: Any = layer
        own = {f"{name}.{key}": values for key, values in adapted.get_base_layer().state_dict().items()}
        with torch.no_grad():
            weights |= own | {f"{name}.weight": own[f"{name}.weight"] + adapted.get_delta_weight("default")}
    return weights


def ready_to_train(model: PreTrainedModel, frozen: str, *, gradient_checkpointing: bool, lora: int = 0) -> None:
    """Freeze a part of a network, choose its dropout, its adapters, and what it keeps for the way back.

    Args:
        model: A recognizer, or another network on an encoder.
        frozen: As `freeze` takes it.
        gradient_checkpointing: Compute what is inside its layers once more on the way back, rather than keep it:
            memory for the time of a further forward pass; gradients are the same, dropout included.
        lora: As `add_adapters` takes it; 0: none.

    Raises:
        ModelError: As `freeze` and `add_adapters`, or if transformers cannot do this with it.
    """
    freeze(model, frozen)
    if lora:
        add_adapters(model, lora)
    train_cheaply_on_cpu(model)
    if not gradient_checkpointing:
        return
    network: Any = model
    # The second is what earlier releases of transformers 5 call it.
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as problem:
        raise ModelError(
            f"optimization.gradient_checkpointing=true: {type(model).__name__} cannot: {problem}; leave it out"
        ) from problem


def _name_tags(config: PretrainedConfig, tags: Sequence[str]) -> None:
    config.id2label = dict(enumerate(tags))
    config.label2id = {tag: index for index, tag in enumerate(tags)}
    config.update({SCHEME_KEY: "iob2"})


def _output_of(tags: Sequence[str], old: torch.nn.Linear, former: Sequence[str]) -> torch.nn.Linear:
    """An output for each of these tags: the row of the former tag of that name, or a fresh one.

    Rows are found by name, never by number: a head of as many tags in another order would fit, and be wrong. Without
    former tags all rows are fresh.
    """
    new = torch.nn.Linear(old.in_features, len(tags), bias=old.bias is not None)
    torch.nn.init.normal_(new.weight, std=0.02)
    places = [(row, former.index(tag)) for row, tag in enumerate(tags) if tag in former]
    with torch.no_grad():
        for values, old_values in zip(new.parameters(), old.parameters(), strict=True):
            if values.dim() == 1:
                values.zero_()
            for row, place in places:
                values[row] = old_values[place]
    return new


def load_network(
    name: str, config: PretrainedConfig, kind: type[Any], revision: str = NEWEST, *, any_head: bool = False
) -> tuple[PreTrainedModel, set[str]]:
    """A network in float32, and the names of the weights that its files lack.

    Args:
        name: Encoder folder or hub name.
        config: From `checked_config`.
        kind: One of the `AutoModelFor...` classes: what the network shall compute.
        revision: Of a hub name: the one that the configuration is of.
        any_head: Whether the layer that gives scores to tags may have other sizes in the files; it is fresh then.

    Raises:
        ModelError: If the weights cannot be loaded, are of other sizes than the configuration says, or are no numbers;
            or if there is no such network of this architecture.
    """
    here_alone = not is_reachable(name, revision)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)  # the load report would call a fresh head a problem
    try:
        with _no_progress_bars():
            model, report = kind.from_pretrained(
                name,
                config=config,
                revision=revision,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told below: transformers names them in its log alone
                local_files_only=here_alone,
                adapter_kwargs={"local_files_only": here_alone},  # asked for as soon as peft is installed
            )
    except NETWORK_ERRORS as problem:
        raise ModelError(f"{name}: the weights could not be loaded: {first_line(problem)}") from problem
    finally:
        transformers_logging.set_verbosity(verbosity)
    head = output_layer(model, len(tags_of_model(config)))[0] if any_head else None
    for key, found, expected in sorted(report["mismatched_keys"]):
        if head is None or key.rpartition(".")[0] != head:
            raise ModelError(
                f"{name}: its weights have {key} of {tuple(found)}, config.json asks for {tuple(expected)}; "
                "do both belong to one model?"
            )
    for file in weight_files(name, revision):
        # From a mapping of their own: once closed, no page of the weights is in memory before it is needed.
        with safe_open(find_file(name, file, revision), framework="pt") as weights:
            refuse_no_numbers(((key, weights.get_tensor(key)) for key in weights.keys()), name)  # noqa: SIM118
    return model, set(report["missing_keys"])


def save_weights(network: PreTrainedModel, folder: Path) -> None:
    """Write weights, with adapters merged, and configuration as transformers does, but without its progress bar.

    It breaks that of a run.
    """
    with _no_progress_bars():
        network.save_pretrained(folder, state_dict=plain_weights(network))


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """While entered, transformers shows none."""
    shows_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shows_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def refuse_no_numbers(weights: Iterable[tuple[str, torch.Tensor]], name: str) -> None:
    """Refuse weights that are NaN or infinite: whatever is computed with them is no score, and tags nothing.

    Raises:
        ModelError: With the first of them.
    """
    for key, values in weights:
        # A sum is quick; that of finite numbers may be infinite too.
        if values.is_floating_point() and not values.sum().isfinite() and not values.isfinite().all():
            raise ModelError(
                f"{name}: its weights have NaN or infinite numbers in {key}; are they damaged, or of a training that "
                "diverged?"
            )


def checked_config(name: str, revision: str = NEWEST) -> PretrainedConfig:
    """The configuration of an encoder folder or hub name, once nothing in it asks for what is refused.

    Raises:
        ModelError: If there is no such encoder, or it asks for code, pickle or a kernel of its own.
    """
    folder = Path(name)
    refuse_file(name)
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
    here_alone = not is_reachable(name, revision)
    try:
        raw, _ = PretrainedConfig.get_config_dict(name, revision=revision, local_files_only=here_alone)
    except NETWORK_ERRORS as problem:
        reason = "the hub cannot be reached" if here_alone else first_line(problem)
        raise ModelError(
            f"{told}: neither a folder here nor a model that could be fetched ({reason}); "
            "check the name and the network, or give a local folder"
        ) from problem
    if not raw:
        raise ModelError(
            f"{told}: neither a folder here nor a model on the hub; check the name, or give a local folder"
        )
    refuse_code(raw, name)
    refuse_odd_numbers(raw, name)
    weight_files(name, revision)  # refuses those that lie elsewhere
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            name, revision=revision, trust_remote_code=False, local_files_only=here_alone
        )
    except NETWORK_ERRORS as problem:
        raise ModelError(f"{name}: config.json is no model configuration: {first_line(problem)}") from problem
    return config


# What a network makes of pieces, found by trying it on a few of them.
#
# Configurations and class names say too little: some networks need more than pieces, some have no positions beyond a
# number that stands nowhere, and some let padding into the words beside it. A trial is a pass of a few pieces.


# Pieces of the two windows that are tried, and of the one that both are padded to.
SHORT, LONG, PADDED = 5, 8, 13
# What padding may change, as a share of the largest score: more than float32 rounds, less than changes a tag. GPUs may
# compute with ten bits.
ROUNDING, GPU_ROUNDING = 1e-3, 2e-2
# Under these names configurations state how many pieces there may be, where no table of positions tells.
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_seq_length")


class _Lookups(TorchFunctionMode):
    """While entered, notes each lookup in a table: its rows, the shape of the numbers and the highest of them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, tuple[int, ...], int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch in the place of each of its functions."""
        kwargs = kwargs or {}
        if func is F.embedding:
            numbers, table = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
            self.found.append((len(table), tuple(numbers.shape), int(numbers.max())))
        return func(*args, **kwargs)


def longest_input(network: PreTrainedModel) -> int | None:
    """Pieces, special ones included, that the network has positions for; None if there is no limit.

    A table of positions is one in which a window that is longer by some pieces is looked up by as much further.
    RoBERTa's, whose first rows are padding's, is found so as well as one that is no module of its own.

    Raises:
        ModelError: If the network does not run on pieces and a mask.
    """
    config = network.config.get_text_config()
    limits = [getattr(config, name, None) for name in _LIMITS]
    stated = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    lookups = []
    for length in (SHORT, LONG):
        with _Lookups() as mode:
            _scores(network, [_pieces(network, length)])
        lookups.append(mode.found)
    for (rows, _, short), (_, shape, long) in zip(*lookups, strict=False):
        # Distances between pieces, (P, P), are looked up too: they have no end.
        if long - short == LONG - SHORT and shape[:-1] in ((), (1,)):
            stated.append(rows - 1 - long + LONG)
    return min(stated, default=None)


def heeds_mask(network: PreTrainedModel) -> bool:
    """Whether a window has the same scores alone and padded beside a longer one.

    Raises:
        ModelError: If the network does not run on pieces and a mask, or its scores are no numbers.
    """
    rounding = ROUNDING if network.device.type == "cpu" else GPU_ROUNDING
    windows = [_pieces(network, length) for length in (SHORT, LONG, PADDED)]
    together = _scores(network, windows)
    for window, padded in zip(windows[:2], together, strict=False):
        (alone,) = _scores(network, [window])
        difference = (alone - padded[: len(window)]).abs().max()
        if difference > rounding * max(1.0, float(alone.abs().max())):
            return False
    return True


def _pieces(network: PreTrainedModel, length: int) -> list[int]:
    """Ordinary pieces, the same ones again in a longer window; the highest number comes first."""
    table: Any = network.get_input_embeddings()
    n_pieces = len(table.weight)
    special = set()
    for key, value in network.config.to_dict().items():
        if key.endswith("_token_id"):
            special |= set(value) if isinstance(value, list) else {value}  # some networks have two ends of a text
    ordinary = [number for number in range(n_pieces - 1, 0, -max(1, n_pieces // 50)) if number not in special]
    return [ordinary[place % len(ordinary)] for place in range(length)]


def _name_of(network: PreTrainedModel) -> str:
    """Where it comes from, if that is known, and its class."""
    return f"{network.name_or_path}: {type(network).__name__}" if network.name_or_path else type(network).__name__


def _scores(network: PreTrainedModel, windows: Sequence[Sequence[int]]) -> Tensor:
    """The network's scores of windows in one padded batch, (B, P, C)."""
    lengths = torch.tensor([len(window) for window in windows])
    width = int(lengths.max())
    pad_id = network.config.get_text_config().pad_token_id or 0
    input_ids = torch.tensor([[*window, *[pad_id] * (width - len(window))] for window in windows])
    mask = (torch.arange(width) < lengths[:, None]).long()
    was_training = network.training
    network.train(False)
    try:
        with torch.inference_mode():
            output = network(input_ids=input_ids.to(network.device), attention_mask=mask.to(network.device))
        scores: Tensor = output.logits.float().cpu()
    except NETWORK_ERRORS as problem:
        raise ModelError(
            f"{_name_of(network)} does not run on pieces and their mask alone: {first_line(problem)}; expected an "
            "encoder of text such as BERT, RoBERTa or XLM-R"
        ) from problem
    finally:
        network.train(was_training)
    if scores.shape[:2] != input_ids.shape:
        raise ModelError(
            f"{_name_of(network)} gives scores {tuple(scores.shape)} for pieces {tuple(input_ids.shape)}; "
            "expected some for each piece"
        )
    return scores
