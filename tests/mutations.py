"""Damage for files: what the fuzz tests do to bytes and to JSON that were whole."""

import copy
import os

from hypothesis import settings
from hypothesis import strategies as st

# How many cases each fuzz test tries; `make test-fuzz` asks for many.
CASES = int(os.environ.get("XLNER_FUZZ_CASES", "25"))
fuzzing = settings(max_examples=CASES)

# Bytes that mean something to one format or another.
TELLING = [
    *(b"\n", b"\r", b"\t", b" ", b"\0", b"\x1a", b"\x85", b"\xc2\xa0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80"),
    *(b"#", b"-", b"_", b"*", b"|", b"=", b":", b",", b'"', b"'", b"\\", b"{", b"}", b"[", b"]"),
    *(b"\\ud800", b"${oc.env:HOME}", b"&a", b"*a", b"!!python/object"),
    *(b"B-PER", b"I-", b"B-", b"-DOCSTART- O\n", b"# global.columns = FORM NER\n", b"T1\tPER 0 5\t", b"1e999", b"NaN"),
    *(b"-1", b"0", b"99999999999999999999", b"null", b"true", "\u200b".encode(), "e\u0301".encode(), "京".encode()),
]  # fmt: skip
# Values that may stand in the place of any other in JSON.
ODD_VALUES = [
    *(None, True, False, 0, -1, 1, 2**63, -(2**63), 10**30, 0.5, float("nan"), float("inf"), 1e308),
    *("", " ", "x", "\0", "\ud800", "é" * 300, "../../x", "/etc/hostname", "float99", "torch.float32"),
    *([], {}, [[]], [None], [1, 2], ["O"], {"x": 1}, {"": {}}, {"0": "O"}, {"a": "O"}),
]  # fmt: skip


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes after one to six cuts, insertions, overwritings or repetitions; sometimes quite other bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    content = whole
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 12)))
        new = draw(st.sampled_from(TELLING) | st.binary(max_size=4))
        kind = draw(st.sampled_from(["cut", "insert", "overwrite", "repeat", "truncate"]))
        if kind == "cut":
            content = content[:start] + content[end:]
        elif kind == "insert":
            content = content[:start] + new + content[start:]
        elif kind == "overwrite":
            content = content[:start] + new + content[start + len(new) :]
        elif kind == "repeat":
            content = content[:end] + content[start:]
        else:
            content = content[:start] if draw(st.booleans()) else content
    return content


@st.composite
def damaged_json(draw: st.DrawFn, whole: object) -> object:
    """The value with one to three of its parts, at any depth, replaced, taken out or renamed."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        node = value
        while True:
            if not isinstance(node, dict | list) or not node:
                value = draw(st.sampled_from(ODD_VALUES))
                break
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            if isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
                node = node[key]
                continue
            kind = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
            if kind == "remove":
                del node[key]
            elif kind == "rename" and isinstance(node, dict):
                node[draw(st.sampled_from(["x", "", "auto_map", "dtype", key.upper()]))] = node.pop(key)
            else:
                node[key] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
            break
    return value
