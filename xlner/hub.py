"""The Hugging Face hub, before anything is fetched from it: whether it answers, and what is no name of a model."""

import time
from pathlib import Path

from xlner.errors import ModelError

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

    # The library that it speaks HTTP with has changed its name before. The kinds of error that the hub's own are of
    # begin with what that library raises.
    connection_errors: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__mro__[1:2])
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=HUB_SECONDS)
    except HFValidationError:
        return True  # no name of the hub, which then says so itself
    except HfHubHTTPError as problem:
        return problem.response.status_code < 500
    except connection_errors:
        return False
    return True
