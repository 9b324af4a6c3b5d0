"""Writes the two reference pages from the code: `python docs/make_reference.py`; a test holds them equal to it."""

import ast
import inspect
import math
import re
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import xlner
from xlner.config.load import KINDS, STUDENTS, VARIANTS

FOLDER = Path(__file__).parent
WIDTH = 100
MADE = "<!-- Made by `python docs/make_reference.py`; change the code instead. -->\n"
SCRIPTS = {
    "teacher": ("train_teacher.py", "A teacher"),
    "distill": ("distill.py", "A student"),
    "adapt": ("adapt_encoder.py", "An encoder that reads first"),
    "tag": ("tag_corpus.py", "A tagged corpus"),
}


def main() -> None:
    """Write both pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each page, by its file name."""
    return {"reference_recipes.md": recipes_page(), "reference_api.md": api_page()}


def recipes_page() -> str:
    """Every key of every kind of recipe, then what variants and kinds of students set."""
    lines = [
        "# Recipes: every key\n",
        MADE,
        *_wrapped(
            "Keys are given on the command line as `key=value`, or in a YAML file, where sections are nested. Later "
            "wins: defaults, then those of the variant and of the kind of student, then the file, then the command "
            "line. Values out of bounds are refused before anything is loaded."
        ),
        "",
    ]
    for kind, (schema, _) in KINDS.items():
        script, title = SCRIPTS[kind]
        lines += [f"## {title}: `{script}`\n", *_wrapped(_first_paragraph(schema)), ""]
        lines += _section(schema, {}, "")
    lines += ["## Variants\n", *_wrapped("What `variant=NAME` of a student sets:"), "", *_presets(VARIANTS)]
    lines += ["## Kinds of students\n", *_wrapped("What `student=KIND` sets:"), "", *_presets(STUDENTS)]
    return "\n".join(lines).rstrip() + "\n"


def _section(schema: type, defaults: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The table of a section's own keys, then its sections."""
    own = [spec for spec in fields(schema) if not is_dataclass(spec.type)]
    yield "| key | type | default | allowed | meaning |"
    yield "|---|---|---|---|---|"
    for spec in own:
        default = defaults.get(spec.name, spec.default)
        kind = spec.type.__name__ if isinstance(spec.type, type) else str(spec.type)
        meaning = str(spec.metadata["help"]).replace("|", "\\|")
        yield f"| `{prefix}{spec.name}` | {kind} | {_value(default)} | {_allowed(spec.metadata)} | {meaning} |"
    yield ""
    for spec in fields(schema):
        if is_dataclass(spec.type):
            make: Any = spec.default_factory
            section = make()
            yield f"### `{prefix}{spec.name}`\n"
            yield from _wrapped(_first_paragraph(type(section)))
            yield ""
            yield from _section(type(section), section.__dict__, f"{prefix}{spec.name}.")


def _value(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else "empty"


def _allowed(metadata: Mapping[str, Any]) -> str:
    """Choices or bounds of a key; nothing where any value goes."""
    low, high, choices = metadata["low"], metadata["high"], metadata["choices"]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if math.isinf(high):
        return "" if math.isinf(low) else f"at least {low:,g}"
    return f"{low:,g} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _presets(table: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| name | sets |"
    yield "|---|---|"
    for name, preset in table.items():
        settings = ", ".join(f"`{key}={value}`" for key, value in _flat(preset, ""))
        yield f"| `{name}` | {settings or 'the defaults'} |"
    yield ""


def _flat(preset: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in preset.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def api_page() -> str:
    """The public names of the package, and what a tagger finds."""
    lines = ["# The Python API\n", MADE, *_wrapped(f"`from xlner import {', '.join(xlner.__all__)}`"), ""]
    found = {name: getattr(xlner, name) for name in xlner.__all__}
    entities = typing.get_type_hints(xlner.Tagger.tag)["return"]
    (entity,) = typing.get_args(entities.__orig_bases__[0])
    found |= {entities.__name__: entities, entity.__name__: entity}
    for function in [value for value in found.values() if inspect.isfunction(value)]:
        given = function.__globals__.get(str(inspect.signature(function).return_annotation).split(".")[-1].rstrip("'>"))
        if inspect.isclass(given) and "Recipe" not in given.__name__:  # what training gives back
            found.setdefault(given.__name__, given)
    for name, value in sorted(found.items(), key=lambda item: (inspect.isclass(item[1]), item[0].lower())):
        lines += _class(name, value) if inspect.isclass(value) else _function(name, value, "##")
    return "\n".join(lines).rstrip() + "\n"


def _class(name: str, value: type) -> Iterator[str]:
    yield f"## class `{name}`\n"
    yield from _docstring(inspect.getdoc(value) or "")
    if hasattr(value, "_fields") or is_dataclass(value):
        of_fields = {spec.name: spec.type for spec in fields(value)} if is_dataclass(value) else value.__annotations__
        for field, kind in of_fields.items():
            yield f"- `{field}`: {kind.__name__ if isinstance(kind, type) else kind}"
        yield ""
    package = value.__module__.partition(".")[0]
    own = [base for base in reversed(value.__mro__) if base.__module__.partition(".")[0] == package]
    members = {name: member for base in own for name, member in vars(base).items() if not name.startswith("_")}
    for member, function in members.items():
        if isinstance(function, property) and function.fget is not None:
            yield f"### `{name}.{member}`\n"
            yield from _docstring(inspect.getdoc(function) or "")
        elif inspect.isfunction(function):
            yield from _function(f"{name}.{member}", function, "###")


def _function(name: str, function: Any, heading: str) -> Iterator[str]:
    yield f"{heading} `{name}`\n"
    yield from ["```python", *_signature(name, function), "```", ""]
    yield from _docstring(inspect.getdoc(function) or "")


def _signature(name: str, function: Any) -> list[str]:
    """As the source has it: what `inspect` makes of annotations differs between versions of Python."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    arguments = tree.args
    if "." in name:
        arguments.args = arguments.args[1:]
    returns = f" -> {_annotation(tree.returns)}" if tree.returns else ""
    line = f"{name}({_arguments(arguments)}){returns}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{name}(", *(f"    {part}," for part in _split(ast.unparse(arguments))), f"){returns}"]


def _arguments(arguments: ast.arguments) -> str:
    return ", ".join(_split(ast.unparse(arguments)))


def _split(text: str) -> list[str]:
    """The arguments of a signature: commas within brackets do not part them."""
    parts, depth, start = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    parts = [part for part in [*parts, text[start:].strip()] if part]
    # A default after an annotation is set off by spaces, as the project's own formatter has it.
    return [
        re.sub(r"(?<=: )'([^']*)'", r"\1", re.sub(r"^([^=]*:[^=]*[^ =])=(?=[^=])", r"\1 = ", part)) for part in parts
    ]


def _annotation(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)


def _docstring(text: str) -> Iterator[str]:
    """A docstring as Markdown: its sections become lists, headed by their names."""
    for part in re.split(r"\n\n+", text):
        heading = re.match(r"(Args|Returns|Raises|Yields):\n", part)
        if heading is None:
            if part.startswith((">>> ", "    ")) or "\n    " in part:
                yield from [*textwrap.indent(textwrap.dedent(part), "    ").splitlines(), ""]
            else:
                yield from [*_wrapped(part), ""]
            continue
        yield f"*{heading[1]}*\n"
        body = textwrap.dedent(part[heading.end() :])
        items = re.split(r"\n(?=\S)", body) if heading[1] in ("Args", "Raises") else [body]
        for item in items:
            name, colon, meaning = " ".join(item.split()).partition(": ")
            listed = f"`{name}`: {meaning}" if colon and " " not in name else " ".join(item.split())
            yield from textwrap.wrap(f"- {listed}", WIDTH, subsequent_indent="  ", break_long_words=False)
        yield ""


def _first_paragraph(schema: type) -> str:
    return (inspect.getdoc(schema) or "").split("\n\n")[0]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    main()
