"""The files of a model, by folder or hub name, and what they must not ask for.

A folder has no revision; of a model of the hub, one commit, tag or branch is read.
"""

import json
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

from xlner.errors import ModelError, RecipeError
from xlner.hub import NEWEST as NEWEST
from xlner.hub import is_reachable

INDEX_FILE = "model.safetensors.index.json"
ADAPTER_FILE = "adapter_config.json"


def is_there(name: str) -> bool:
    """Whether there is a folder of that name, or a model of the hub."""
    return Path(name).is_dir() or find_file(name, "config.json") is not None


def find_file(name: str, file: str, revision: str = NEWEST) -> Path | None:
    """A file of a model, by folder or hub name; None if the model has none.

    Without a network a model of the hub has the files that were fetched before.
    """
    if Path(name).is_dir():
        path = Path(name, file)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=not is_reachable(name, revision)))
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError):
        return None  # where there is no such model at all, loading its weights says so


def revision_of(encoder: str, encoder_revision: str) -> str:
    """The revision to read of an encoder that a recipe names.

    Args:
        encoder: Folder or hub name.
        encoder_revision: Commit, tag or branch; empty: the newest.

    Raises:
        RecipeError: If a revision is given and the encoder is a folder, which has none.
    """
    if encoder_revision and Path(encoder).is_dir():
        raise RecipeError(
            f"encoder_revision={encoder_revision}: {encoder} is a folder here, which has no revision; "
            "leave it out, or give encoder= a hub name"
        )
    return encoder_revision or NEWEST


def refuse_odd_weights(name: str, revision: str = NEWEST) -> None:
    """Refuse a model whose weights would be read from elsewhere, or as pickle.

    transformers reads each shard that an index lists, wherever it lies and of whatever format. Where peft is
    installed, it takes the weights of an adapter's folder from the model that the adapter names.

    Raises:
        ModelError: If it is an adapter, or its index is damaged or lists anything but safetensors files beside it.
    """
    if find_file(name, ADAPTER_FILE, revision) is not None:
        raise ModelError(f"{name}: is an adapter ({ADAPTER_FILE}); merge it into its model, and give that one")
    path = find_file(name, INDEX_FILE, revision)
    if path is None:
        return
    try:
        shards = {str(shard) for shard in json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"{name}: {INDEX_FILE} is no list of weights: {problem!r}") from problem
    for shard in sorted(shards):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise ModelError(f"{name}: {INDEX_FILE} lists {shard!r}; expected safetensors files in the same folder")
