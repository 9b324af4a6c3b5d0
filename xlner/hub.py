"""The Hugging Face hub and the files of a model: does the hub answer, which revision, what files must not ask for.

What lies in a folder needs nothing of the hub's library, which is imported where a model is fetched.
"""

import json
import time
from pathlib import Path

from xlner.errors import ModelError, RecipeError, first_line

# What the hub calls the newest state of a model.
NEWEST = "main"
# How long to wait for its first answer, and how long that answer holds: a process that runs on may get a network.
HUB_SECONDS, ANSWER_SECONDS = 10.0, 60.0
_answers: dict[tuple[str, str], tuple[float, bool]] = {}


def is_reachable(name: str, revision: str = NEWEST) -> bool:
    """Whether the hub answers when it is asked for a model; True for a folder, which needs no hub.

    It is asked once a minute for each model, and without retries: who has no network should not wait for minutes. An
    answer that there is no such model is one. Without a hub, what was fetched before is used.
    """
    if Path(name).is_dir():
        return True
    asked_at, answer = _answers.get((name, revision), (-ANSWER_SECONDS, False))
    if time.monotonic() - asked_at >= ANSWER_SECONDS:
        answer = _answers_now(name, revision)
        _answers[name, revision] = time.monotonic(), answer
    return answer


def refuse_file(name: str) -> None:
    """Refuse a file where the folder of a model is expected; it is not opened, whatever it is.

    Raises:
        ModelError: With the folder that is probably meant.
    """
    if Path(name).is_file():
        raise ModelError(f"{name}: is a file; give the folder of the model: {Path(name).parent}")


def _answers_now(name: str, revision: str) -> bool:
    # Here and not above: an exported tagger does without it.
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=HUB_SECONDS)
    except HFValidationError:
        return True  # no name of the hub, which then says so itself
    except HfHubHTTPError as problem:
        return problem.response.status_code < 500
    except _connection_errors():
        return False
    return True


def _connection_errors() -> tuple[type[Exception], ...]:
    """What is raised where the hub cannot be reached."""
    from huggingface_hub.errors import HfHubHTTPError

    # The library that it speaks HTTP with has changed its name before. The kinds of error that the hub's own are of
    # begin with what that library raises.
    return (OSError, *HfHubHTTPError.__mro__[1:2])


# The files of a model, by folder or hub name, and what they must not ask for.
#
# A folder has no revision; of a model of the hub, one commit, tag or branch is read.


WEIGHTS_FILE = "model.safetensors"
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
    # A linear student is opened where the hub's library is not installed.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

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


def weight_files(name: str, revision: str = NEWEST) -> list[str]:
    """The names of the files of a model's weights; a model whose weights lie elsewhere, or in pickle, is refused.

    transformers reads each shard that an index lists, wherever it lies and of whatever format. Where peft is
    installed, it takes the weights of an adapter's folder from the model that the adapter names.

    Raises:
        ModelError: If it is an adapter, or its index is damaged or lists anything but safetensors files beside it.
    """
    if find_file(name, ADAPTER_FILE, revision) is not None:
        raise ModelError(f"{name}: is an adapter ({ADAPTER_FILE}); merge it into its model, and give that one")
    path = find_file(name, INDEX_FILE, revision)
    if path is None:
        return [WEIGHTS_FILE]
    try:
        shards = {str(shard) for shard in json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"{name}: {INDEX_FILE} is no list of weights: {problem!r}") from problem
    for shard in sorted(shards):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise ModelError(f"{name}: {INDEX_FILE} lists {shard!r}; expected safetensors files in the same folder")
    # As transformers, which looks for one file first.
    return [WEIGHTS_FILE] if find_file(name, WEIGHTS_FILE, revision) is not None else sorted(shards)


# Models that are pushed to the hub, and such as are fetched whole, because a folder alone can be opened.


# Files of which one tells that a folder is a compact student, or an exported model.
_FOLDER_MARKS = ("student.json", "manifest.json")
# What models are made of; no pickle and no code is fetched.
_FETCHED = ("*.json", "*.safetensors", "*.onnx", "*.onnx.data", "*.txt", "*.model", "README.md")


def fetched_folder(name: str, revision: str = NEWEST) -> Path | None:
    """The folder of a model of the hub that has to be opened as one; None for what transformers fetches itself.

    Args:
        name: Of the hub.
        revision: Commit, tag or branch. Of another one than the newest every model is fetched whole.

    Raises:
        ModelError: If there is no such revision, or it cannot be fetched.
    """
    if revision == NEWEST and not any(find_file(name, mark) for mark in _FOLDER_MARKS):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    here_alone = not is_reachable(name, revision)
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=list(_FETCHED), local_files_only=here_alone)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as problem:
        reason = "the hub cannot be reached" if here_alone else first_line(problem)
        raise ModelError(f"{name}, revision {revision}: could not be fetched ({reason})") from problem
    return Path(folder)


def push(folder: Path, repository: str, *, private: bool = False, message: str = "") -> str:
    """Publish the folder of a model on the hub, as one commit.

    Args:
        folder: Of a model, a compact student or an exported model.
        repository: As in `someone/tagger`; it is made where it is not there.
        private: Whether a new one is seen by its owner alone.
        message: Of the commit.

    Returns:
        The address of the commit.

    Raises:
        ModelError: If the folder holds no finished model, the name is none, nobody is logged in, or the hub refuses.
    """
    names = _files_to_push(folder)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=names,
            commit_message=message or f"A tagger by xlner: {repository.rpartition('/')[2]}",
        )
    except HFValidationError as problem:
        raise ModelError(f"{repository}: no name of a model on the hub; expected USER/NAME ({problem})") from problem
    except HfHubHTTPError as problem:
        way = "log in by `hf auth login`, with a token that may write to this name"
        raise ModelError(f"{repository}: the hub refuses: {first_line(problem)}; {way}") from problem
    except _connection_errors() as problem:
        raise ModelError(f"{repository}: the hub cannot be reached: {first_line(problem)}") from problem
    return str(commit.commit_url)


def _files_to_push(folder: Path) -> list[str]:
    """The files of a model's folder.

    Raises:
        ModelError: If it is none, or holds other things.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give the folder of a model, as in runs/de/model")
    if (folder / "model").is_dir():
        raise ModelError(f"{folder}: is a run; give the folder of its model: {folder / 'model'}")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    is_network = "config.json" in names and any(name.endswith(".safetensors") for name in names)
    if not is_network and not names & set(_FOLDER_MARKS):
        found = ", ".join(sorted(names)[:5]) or "nothing"
        raise ModelError(f"{folder}: expected a finished model, found {found}; is its training still running?")
    others = sorted(name for name in names if (folder / name).is_dir() or not _is_fetched(name))
    if others:
        raise ModelError(f"{folder}: holds other things than a model ({', '.join(others[:5])}); move them away")
    return sorted(names)


def _is_fetched(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in _FETCHED)
