"""Articles of Wikipedia as paragraphs of plain text, out of a dump or of what WikiExtractor made of one.

Wikitext cannot be turned into text exactly without its templates. What is kept is the running text: templates, tables,
references, files, headings, lists and formulas are removed, and links leave their words.
"""

import bz2
import html
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from xml.etree import ElementTree

from xlner.errors import CorpusError

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LEFT_OUT = re.compile(
    r"<(ref|math|gallery|table|timeline|source|syntaxhighlight|code|pre|score|nowiki|templatestyles)\b"
    r"(?:[^<>]*/>|[^<>]*>.*?</\1\s*>)",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_BRACES = re.compile(r"\{\{|\}\}|\{\||\|\}(?!\})")
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_OUTER_LINK = re.compile(r"\[(?:https?:)?//[^\s\]]+\s*([^\]]*)\]")
_QUOTES = re.compile(r"'{2,}")
_MAGIC = re.compile(r"__[A-Z]+__")
_EMPTY_BRACKETS = re.compile(r"\s*[(（][\s,;:–-]*[)）]")
_NO_PROSE = ("*", "#", ":", ";", "=", "|", "!", "{", "}")
DEEPEST_LINK = 5  # links in captions of files in ...


def dump_paragraphs(path: Path) -> Iterator[str]:
    """The paragraphs of the articles in a dump, `*.xml.bz2` or `*.xml`, read as a stream.

    Raises:
        CorpusError: If it breaks off, or is no dump.
    """
    namespaces: set[str] = set()
    try:
        with path.open("rb") as packed:
            file = bz2.BZ2File(packed) if path.suffix == ".bz2" else packed
            events = ElementTree.iterparse(file, events=("start", "end"))
            _, root = next(events)
            for event, element in events:
                name = element.tag.rpartition("}")[2]
                if event == "start":
                    continue
                if name == "namespace" and element.text:
                    namespaces.add(element.text.lower())
                if name == "page":
                    yield from _page_paragraphs(element, namespaces)
                    # What was read would stay in memory, page after page.
                    element.clear()
                    root.clear()
    except (OSError, EOFError, ElementTree.ParseError, StopIteration) as problem:
        raise CorpusError(f"{path}: no whole dump of Wikipedia: {problem}; is the download complete?") from problem


def extracted_paragraphs(path: Path) -> Iterator[str]:
    """The paragraphs of a file of WikiExtractor: JSON lines with `text`, or `<doc ...>` and `</doc>` around articles.

    Raises:
        CorpusError: If it cannot be read, or a line that begins with `{` is no such JSON.
    """
    with path.open(encoding="utf-8", errors="strict", newline="\n") as file:
        is_title = False
        try:
            for line in file:
                if line.startswith("{"):
                    # The title stands above the text as a line of its own.
                    article = json.loads(line)
                    title, text = (html.unescape(str(part)) for part in (article.get("title", ""), article["text"]))
                    yield from (part for part in text.split("\n") if part.strip() and part.strip() != title)
                elif line.startswith("<doc "):
                    is_title = True
                elif line.startswith("</doc>") or not line.strip():
                    continue
                elif is_title:
                    is_title = False
                else:
                    yield html.unescape(line.rstrip("\n"))
        except (ValueError, KeyError, AttributeError) as problem:
            raise CorpusError(f"{path}: not as WikiExtractor writes it: {problem!r}") from problem


def plain_paragraphs(wikitext: str, namespaces: Collection[str]) -> Iterator[str]:
    """The running text of an article.

    Args:
        wikitext: Its source.
        namespaces: Names, in small letters, that make a link one to a file, a category or the like.
    """
    text = _LEFT_OUT.sub("", _COMMENT.sub("", wikitext))
    text = _outside_braces(text)
    for _ in range(DEEPEST_LINK):
        text, n_links = _LINK.subn(lambda match: _link_text(match.group(1), namespaces), text)
        if not n_links:
            break
    text = _OUTER_LINK.sub(r"\1", text)
    text = _MAGIC.sub("", _QUOTES.sub("", _TAG.sub("", text)))
    for line in html.unescape(text).split("\n"):
        paragraph = _EMPTY_BRACKETS.sub("", line.replace("\u00a0", " ")).strip()
        if paragraph and not paragraph.startswith(_NO_PROSE) and "[[" not in paragraph:
            yield paragraph


def _page_paragraphs(page: ElementTree.Element, namespaces: Collection[str]) -> Iterator[str]:
    found = {element.tag.rpartition("}")[2]: element for element in page.iter()}
    text = found["text"].text if "text" in found else None
    if text and "redirect" not in found and ("ns" not in found or found["ns"].text == "0"):
        yield from plain_paragraphs(text, namespaces)


def _outside_braces(text: str) -> str:
    """The text that stands in no template and no table; behind one that is never closed, nothing is left."""
    kept, depth, start = list[str](), 0, 0
    for match in _BRACES.finditer(text):
        if depth == 0:
            kept.append(text[start : match.start()])
        depth = depth + 1 if match.group() in ("{{", "{|") else max(0, depth - 1)
        start = match.end()
    if depth == 0:
        kept.append(text[start:])
    return "".join(kept)


def _link_text(content: str, namespaces: Collection[str]) -> str:
    target, bar, words = content.partition("|")
    prefix = target.partition(":")[0].strip().lower() if ":" in target[1:] else ""
    if prefix in namespaces or prefix in DEFAULT_NAMESPACES:
        return ""
    return words.rpartition("|")[2] if bar else target.removeprefix(":")


DEFAULT_NAMESPACES = frozenset(("file", "image", "media", "category", "wikipedia", "template", "help", "portal"))
