"""Advice of messages, which name recipe keys, in the options of the command that is running."""

import re
from collections.abc import Collection
from typing import Any

_RECIPE_KEY = re.compile(r"\bcorpus\.(columns|scheme|encoding|labels|format|word_splitter)\b(=?)")
# A format is asked for by another option where there is a second one for the output.
_OPTIONS = {"format": ("--format", "--from")}


def options_of(command: Any) -> set[str]:
    """The options of a command of typer; none for None."""
    return set() if command is None else {option for parameter in command.params for option in parameter.opts}


def as_options(text: str, known: Collection[str]) -> str:
    """The text with an option of the command, whose options are known, in the place of each recipe key.

    What the command has no option for is one of `xlner convert`, which makes a file that every command reads.
    """

    def option(key: re.Match[str]) -> str:
        name = key[1].replace("_", "-")
        candidates = _OPTIONS.get(name, (f"--{name}",))
        found = next((candidate for candidate in candidates if candidate in known), None)
        shown = found if found is not None else f"`xlner convert` with {candidates[-1]}"
        return f"{shown}{' ' if key[2] else ''}"

    return _RECIPE_KEY.sub(option, text)
