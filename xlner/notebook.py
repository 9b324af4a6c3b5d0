"""What notebooks show: a text with its entities marked, and the scores of a run; plain HTML with styles of its own.

Every text is escaped: names, labels and words come from files that anybody may have written. Nothing is loaded from
elsewhere, and light and dark pages are both fine.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from zlib import crc32

# Okabe and Ito 2008, which people see apart whatever their colour vision; the label stands beside it anyway.
TONES = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#f0e442", "#808080")
_USUAL = {"PER": 0, "LOC": 1, "ORG": 2, "MISC": 3}
# What turns the direction of all that follows, in the page around it as well.
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_TEXT = 'dir="auto" style="white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; line-height: 2"'
_CELL = 'style="text-align: end; font-variant-numeric: tabular-nums; padding: 0.1rem 0.6rem"'

Mark = tuple[int, int, str, str]  # start, end (excluded), label, what is told when one points at it


def tone(label: str) -> str:
    """The colour of a type, the same one everywhere."""
    return TONES[_USUAL.get(label, crc32(label.encode("utf-8", "surrogatepass")) % len(TONES))]


def shown(text: str) -> str:
    """A text as HTML that shows it and does nothing else: escaped, control characters written as Python writes them."""
    return escape("".join(ascii(char)[1:-1] if _acts(char) else char for char in text))


def _acts(char: str) -> bool:
    return char in _TURNS or (char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs"))


def text_html(text: str, marks: Iterable[Mark]) -> str:
    """A text with parts of it marked; of marks that overlap the first one is shown."""
    parts, place = [], 0
    for start, end, label, told in sorted(marks):
        if start < place:
            continue
        colour = tone(label)
        parts.append(shown(text[place:start]))
        parts.append(
            f'<mark title="{shown(told)}" style="color: inherit; border-bottom: 3px solid {colour}; '
            f"background: color-mix(in srgb, {colour} 22%, transparent); "
            f'padding: 0.1rem 0.2rem; border-radius: 3px">'
            f'{shown(text[start:end])}<small style="unicode-bidi: isolate; font-weight: 600; '
            f'margin-inline-start: 0.3rem; font-size: 0.7em">{shown(label)}</small></mark>'
        )
        place = end
    return f"<div {_TEXT}>{''.join(parts)}{shown(text[place:])}</div>"


def scores_html(title: str, scores: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """The F1 of several scores side by side, by type.

    Args:
        title: Of the run.
        scores: As `scores` of report.json; what is no score is left out.
        notes: Lines below the table.
    """
    columns = {name: f1_by_type(found) for name, found in scores.items()}
    columns = {name: found for name, found in columns.items() if found}
    types = [*sorted({name for found in columns.values() for name in found} - {"all"}), *(["all"] if columns else [])]
    head = "".join(f"<th {_CELL}>{shown(str(name))}</th>" for name in columns)
    rows = []
    for name in types:
        cells = (f"{found[name]:.2f}" if name in found else "-" for found in columns.values())
        values = "".join(f"<td {_CELL}>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row" style="text-align: start">{shown(name)}</th>{values}</tr>')
    table = f"<table><thead><tr><th>F1</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""
    lines = "".join(f"<p>{shown(note)}</p>" for note in notes)
    return f"<div><p><strong>{shown(title)}</strong></p>{table or '<p>no scores</p>'}{lines}</div>"


def f1_by_type(found: Any) -> dict[str, float]:
    """F1 in percent by type, and of `all`, of a score in report.json; empty for what is no score."""
    try:
        scores = {str(name): float(score["f1"]) for name, score in found["types"].items()}
        return scores | {"all": float(found["overall"]["f1"])}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
