"""Options that several commands have, and advice of messages in the options of the command that is running."""

import re
from collections.abc import Collection
from typing import Annotated, Any

import typer

# Advice of messages, which name recipe keys, in the options of the command that is running.


_RECIPE_KEY = re.compile(r"\bcorpus\.(columns|scheme|encoding|labels|format|word_splitter)\b(=?)")
# A format is asked for by another option where there is a second one for the output.
_OPTIONS = {"format": ("--format", "--from")}


def options_of(command: Any) -> set[str]:
    """The options of a command of typer; none for None, and for a job, whose arguments are keys of a recipe."""
    found = [] if command is None else [option for parameter in command.params for option in parameter.opts]
    return {option for option in found if option.startswith("-")}


def as_options(text: str, known: Collection[str]) -> str:
    """The text with an option of the command, whose options are known, in the place of each recipe key.

    What the command has no option for is one of `xlner convert`, which makes a file that every command reads. A command
    without options is a job, and its recipe has the key itself.
    """
    if not known:
        return text

    def option(key: re.Match[str]) -> str:
        name = key[1].replace("_", "-")
        candidates = _OPTIONS.get(name, (f"--{name}",))
        found = next((candidate for candidate in candidates if candidate in known), None)
        shown = found if found is not None else f"`xlner convert` with {candidates[-1]}"
        return f"{shown}{' ' if key[2] else ''}"

    return _RECIPE_KEY.sub(option, text)


# Options that several commands have.


Columns = Annotated[
    str, typer.Option(help="Columns of word and tag, from 0, from the end, or by name: 1,2 or 0,-1 or FORM,NER.")
]
Scheme = Annotated[str, typer.Option(help="auto, strict, or plain: types without prefixes.")]
Labels = Annotated[str, typer.Option(help="What tags that are numbers mean: O,B-PER,I-PER,...")]
WordSplitter = Annotated[str, typer.Option(help="How raw text becomes words.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ..., or auto.")]
