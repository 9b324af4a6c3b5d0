"""The folder of an exported tagger: `model.onnx`, what splits text for it, and a manifest of both.

`manifest.json` is written last and holds the size and SHA-256 of every other file that tagging reads, so that a file
that was cut short or comes from another export is refused by its name. It guards against accidents, not against
someone who can write a manifest.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from xlner.errors import ModelError
from xlner.files import MANIFEST_FILE, damage, describe

GRAPH_FILE = "model.onnx"
PARITY_FILE = "parity.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What an exported folder holds.

    `precision` is `fp32` or `int8`; `max_length` counts the pieces of the longest window, special ones included;
    `files` has size in bytes and SHA-256 of each file.
    """

    precision: str
    max_length: int
    pad_id: int
    files: dict[str, tuple[int, str]]
    format: int = FORMAT


def is_exported(folder: Path) -> bool:
    """Whether this is an exported folder, whole or damaged."""
    return (folder / GRAPH_FILE).is_file() or (folder / MANIFEST_FILE).is_file()


def unlisted_names(folder: Path) -> list[str]:
    """What lies in a folder and is no part of an exported model, sorted; everything, where there is no manifest of one.

    Whole or damaged: what an export wrote may be replaced by another one, and nothing else may.
    """
    names = {path.name for path in folder.iterdir()}
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        listed = set(content["files"])
        is_own = content.keys() >= {"format", "precision", "pad_id"} and GRAPH_FILE in listed
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_own = False
    return sorted(names - listed - {MANIFEST_FILE, PARITY_FILE} if is_own else names)


def write_manifest(folder: Path, names: Iterable[str], *, precision: str, max_length: int, pad_id: int) -> None:
    """Describe the files of a folder, which must be as they shall stay."""
    manifest = Manifest(precision, max_length, pad_id, describe(folder, names))
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an exported folder, once every file that it lists is found as it was written.

    Raises:
        ModelError: If the manifest or a file is missing, damaged or another's.
    """
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ModelError(f"{path}: found format {content['format']}, expected {FORMAT}; export the model again")
        manifest = Manifest(**content)
        listed = {name: (int(size), str(digest)) for name, (size, digest) in manifest.files.items()}
    except FileNotFoundError as problem:
        raise ModelError(
            f"{folder}: no {MANIFEST_FILE} beside {GRAPH_FILE}; expected a folder that `xlner export` wrote"
        ) from problem
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"{path}: expected the manifest of an exported model, found: {problem}") from problem
    if GRAPH_FILE not in listed:
        raise ModelError(f"{path}: lists no {GRAPH_FILE}; export the model again")
    if found := damage(folder, listed):
        raise ModelError(f"{found}; copy the folder again, or export the model again")
    return manifest
