"""JSON that any reader takes: numbers that are none, which Python would write as `NaN` or `Infinity`, become null."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def to_json(
    content: object,
    *,
    indent: int | None = None,
    ascii_only: bool = False,
    default: Callable[[Any], object] | None = None,
) -> str:
    """A value as JSON text.

    Args:
        content: Of what JSON has: texts, numbers, truth values, None, lists and tuples, mappings.
        indent: As for `json.dumps`.
        ascii_only: Whether all other characters are escaped.
        default: Makes something of what JSON lacks, as for `json.dumps`.
    """
    try:
        return json.dumps(content, indent=indent, ensure_ascii=ascii_only, default=default, allow_nan=False)
    except ValueError:  # such a number: rare, so that nothing is looked through before
        finite = _finite(content, default)
        return json.dumps(finite, indent=indent, ensure_ascii=ascii_only, default=default, allow_nan=False)


def _finite(content: object, default: Callable[[Any], object] | None) -> object:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        # A key that is such a number has no null to become; its name is text anyway.
        return {str(key) if isinstance(key, float) else key: _finite(value, default) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value, default) for value in content]
    if content is None or isinstance(content, str | int) or default is None:
        return content
    return _finite(default(content), default)
