"""Advice of messages, which name recipe keys, in the options of the command that is running."""

import re

from click import Command

_RECIPE_KEY = re.compile(r"\bcorpus\.(columns|scheme|encoding|labels|format|word_splitter)\b(=?)")
# A format is asked for by another option where there is a second one for the output.
_OPTIONS = {"format": ("--format", "--from")}


def as_options(text: str, command: Command | None) -> str:
    """The text with an option of the command in the place of each recipe key.

    What the command has no option for is one of `xlner convert`, which makes a file that every command reads.
    """
    known = {option for parameter in command.params for option in parameter.opts} if command else set[str]()

    def option(key: re.Match[str]) -> str:
        name = key[1].replace("_", "-")
        candidates = _OPTIONS.get(name, (f"--{name}",))
        found = next((candidate for candidate in candidates if candidate in known), None)
        shown = found if found is not None else f"`xlner convert` with {candidates[-1]}"
        return f"{shown}{' ' if key[2] else ''}"

    return _RECIPE_KEY.sub(option, text)
