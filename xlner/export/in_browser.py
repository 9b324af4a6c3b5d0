"""A compact student as a folder of a web site: it tags in the browser, and no server sees the text.

The folder is the student's export in bytes, which `load_tagger` opens as well, and beside it `tagger.js`, a page to try
it on, and ONNX Runtime for browsers where there is a graph to run. A linear student needs no runtime.
"""

import base64
import hashlib
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from xlner.errors import ModelError, first_line
from xlner.export.compact_graph import GRAPHS, export_student
from xlner.export.parity import Attempt
from xlner.files import shipped
from xlner.models.settings import is_compact, read_student

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
ADDRESS = f"https://registry.npmjs.org/{PACKAGE}/-/{ARCHIVE}"
# As npm tells it of this version (`dist.integrity`): SHA-512.
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# Its smallest build, for one thread or several, without graphics cards.
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
PAGE_FILES = ("index.html", "demo.js", "tagger.js")


def export_to_browser(
    model: str,
    target: Path,
    sentences: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]] | None = None,
    *,
    runtime: Path | None = None,
    force: bool = False,
    report: Callable[[Attempt], None] = lambda attempt: None,
) -> Attempt:
    """Export a compact student in bytes, with all that a browser needs to tag with it.

    Args:
        model: Its folder.
        target: The folder to make; an earlier export of a compact student there is replaced.
        sentences: Words to compare on, at least one sentence.
        gold: Their tags, if they are labelled.
        runtime: The npm package `onnxruntime-web`, unpacked or as `ARCHIVE`; None: what lies in the working folder.
        force: Publish it even if it differs too much.
        report: Called with the comparison before that is decided.

    Raises:
        ModelError: If it is no compact student, the runtime is needed and not there, or as `export_student` says; then
            whatever was at `target` is as it was.
        RunError: The same if the disk refuses.
    """
    if not is_compact(Path(model)):
        raise ModelError(
            f"{model}: no folder of a compact student, and a transformer is too large for a page; distil one from it: "
            f"xlner distill target=LANGUAGE teacher={model} student=bilstm (or student=linear)"
        )
    files = {name: (Path(__file__).with_name("browser_files") / name).read_bytes() for name in PAGE_FILES}
    files |= {name: (shipped("web/page") / name).read_bytes() for name in ("page.css", "icon.svg")}
    if read_student(Path(model)).kind in GRAPHS:
        files |= runtime_files(runtime)
    return export_student(
        Path(model), target, sentences, gold, precision="int8", force=force, report=report, beside=files
    )


def runtime_files(place: Path | None = None) -> dict[str, bytes]:
    """ONNX Runtime for browsers, by the names of its files.

    Args:
        place: The npm package `onnxruntime-web`, unpacked or as `ARCHIVE`; None: `node_modules/onnxruntime-web` or
            `ARCHIVE` in the working folder.

    Raises:
        ModelError: If it is not there, lacks a file, cannot be read, or is another archive than the one that was tried.
    """
    usual = (Path("node_modules") / PACKAGE, Path(ARCHIVE))
    found = place or next((path for path in usual if path.exists()), None)
    if found is None or not found.exists():
        raise ModelError(
            f"{place or ' and '.join(map(str, usual))}: not there; this student needs ONNX Runtime for browsers: "
            f"download {ADDRESS} (or `npm pack {PACKAGE}@{VERSION}`) and give --{PACKAGE} {ARCHIVE}"
        )
    try:
        return _unpacked(found) if found.is_dir() else _archived(found)
    except OSError as problem:
        raise ModelError(f"{found}: cannot be read: {first_line(problem)}") from problem


def _unpacked(folder: Path) -> dict[str, bytes]:
    place = folder / "dist" if (folder / "dist").is_dir() else folder
    if missing := [name for name in RUNTIME_FILES if not (place / name).is_file()]:
        raise ModelError(f"{folder}: no {missing[0]} in it; expected the npm package {PACKAGE}, such as {ADDRESS}")
    return {name: (place / name).read_bytes() for name in RUNTIME_FILES}


def _archived(archive: Path) -> dict[str, bytes]:
    """Of the one archive that is known: npm itself checks what it unpacks, and nobody has checked this one."""
    with archive.open("rb") as content:
        digest = base64.b64encode(hashlib.file_digest(content, "sha512").digest()).decode()
    if digest != INTEGRITY:
        raise ModelError(f"{archive}: is not {ARCHIVE} as npm has it, or cut short; download {ADDRESS} again")
    with tarfile.open(archive) as members:
        return {name: members.extractfile(f"package/dist/{name}").read() for name in RUNTIME_FILES}  # type: ignore[union-attr]
