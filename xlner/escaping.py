"""Text of others on its way to a terminal, into Markdown or a table: shown as what it is, with no effect there.

Names of labels, corpora and settings come from models and files that anybody may have written.
"""

import re
import unicodedata

# Control characters, invisible ones that turn the direction of text, line ends, and halves of surrogate pairs.
_UNSEEN_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
# What Markdown and HTML act on inside a line; an underscore acts at the edge of a word alone.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|&@~$#!]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def is_visible(text: str) -> bool:
    """Whether a text holds no character that a terminal acts upon or that nobody sees."""
    return not any(unicodedata.category(char) in _UNSEEN_CATEGORIES for char in text)


def for_terminal(text: str) -> str:
    """A name with what a terminal would act upon written as Python writes it."""
    if is_visible(text):
        return text
    return "".join(char if is_visible(char) else ascii(char)[1:-1] for char in text)


def lines_for_terminal(text: str) -> str:
    """As `for_terminal`, of a message whose line ends stay."""
    return "\n".join(map(for_terminal, text.split("\n")))


def for_markdown(text: str) -> str:
    """A name as Markdown that shows just this name: no markup, no HTML, no link, no cell of a table."""
    return _MARKDOWN.sub(r"\\\g<0>", for_terminal(text))


def as_code(text: str) -> str:
    """A name as code in Markdown, within a table as well."""
    shown = for_terminal(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def for_csv(text: str) -> str:
    """A name that spreadsheets take for text: an apostrophe stands before what they would compute."""
    return f"'{text}" if text.startswith(_FORMULA) else text
