"""How a recipe section states its keys: default, meaning, bounds and choices, checked when a section is made."""

import math
import re
from dataclasses import field, fields
from typing import Any

from xlner.errors import RecipeError

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
