"""A compact student in a smaller or faster form: as a graph for ONNX Runtime, in halves, or in bytes."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from xlner.errors import ModelError
from xlner.export.compact_graph import GRAPHS, write_compact_graph
from xlner.export.parity import Attempt, Reference
from xlner.export.publication import check_target, compared
from xlner.models.card import CARD_FILE
from xlner.models.folder import replaced_folder
from xlner.models.settings import SETTINGS_FILE, parse_settings
from xlner.students.folder import GRAPH_FILE, float_weights, write_student
from xlner.students.settings import StudentSettings, is_compact, read_student
from xlner.students.vocabulary import VOCABULARY_FILE
from xlner.tagger import load_tagger


def export_student(
    model: Path,
    target: Path,
    sentences: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]] | None,
    *,
    precision: str,
    force: bool,
    report: Callable[[Attempt], None],
) -> Attempt:
    """Store a student in another form and compare it with the original.

    Args:
        model: Folder that distilling wrote.
        target: Folder to make; one that an earlier export made is replaced.
        sentences: Words to compare on.
        gold: Their tags, if they are labelled.
        precision: fp32: a graph; int8: a graph in bytes, of a linear student its table; fp16: halves, for torch, and
            for a linear student.
        force: Keep it even if it differs too much.
        report: Called with the result before that is decided.

    Raises:
        ModelError: If the original is itself an export, the form makes no sense for its kind, the folder holds other
            things, or the result differs too much; then nothing was written.
    """
    settings = read_student(model)
    _check(model, target, settings, precision)
    reference = Reference(load_tagger(model), sentences, gold)
    with replaced_folder(target) as unfinished:
        _write(model, unfinished, settings, precision)
        return compared(unfinished, str(model), _scheme(settings, precision), reference, force=force, report=report)


def _check(model: Path, target: Path, settings: StudentSettings, precision: str) -> None:
    if _is_export(model):
        raise ModelError(f"{model}: is an exported model; export the folder that it was made of")
    if settings.kind == "linear" and precision == "fp32":
        raise ModelError(f"{model}: a linear student needs no export to run without torch; give --half or --int8")
    check_target(target, str(model), "an exported student", lambda: is_compact(target) and _is_export(target))


def _is_export(folder: Path) -> bool:
    """Whether a student's folder is an export, rather than what distilling wrote."""
    return (folder / GRAPH_FILE).is_file() or read_student(folder).precision != "fp32"


def _scheme(settings: StudentSettings, precision: str) -> str:
    if precision == "fp16":
        return "halves"
    return "float32" if precision == "fp32" else "table in bytes" if settings.kind == "linear" else "graph in bytes"


def _write(model: Path, folder: Path, settings: StudentSettings, precision: str) -> None:
    weights = float_weights(model, settings)
    has_graph = settings.kind in GRAPHS and precision != "fp16"
    if has_graph:
        write_compact_graph(settings.kind, weights, folder / GRAPH_FILE, int8=precision == "int8")
    stored = {name: value for name, value in weights.items() if not has_graph or name.startswith("crf.")}
    write_student(folder, settings.stored_as(precision), stored, parse_settings(model / SETTINGS_FILE))
    for name in (VOCABULARY_FILE, CARD_FILE):
        if (model / name).is_file():
            shutil.copy(model / name, folder / name)
