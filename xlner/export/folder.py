"""The exported folder: written beside its place, compared with the original, and published whole or not at all."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from xlner.backends.exported_folder import GRAPH_FILE, PARITY_FILE, is_exported, unlisted_names, write_manifest
from xlner.data.alignment import WordEncoder
from xlner.errors import ModelError
from xlner.export.calibration import CALIBRATION_SENTENCES, Reaches, channel_reaches
from xlner.export.compact_folder import export_student
from xlner.export.graph import write_graph
from xlner.export.half_folder import export_halves
from xlner.export.parity import Attempt, Reference
from xlner.export.quantization import SCHEMES, quantize
from xlner.files import replaced
from xlner.models.folder import read_settings
from xlner.models.joint import JointModel
from xlner.models.settings import SETTINGS_FILE, ModelSettings
from xlner.strict_json import to_json
from xlner.students.settings import is_compact
from xlner.tagger import Tagger, load_tagger

WHOLE = "float32"


def export_model(
    model: str,
    target: Path,
    sentences: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]] | None = None,
    *,
    precision: str = "fp32",
    force: bool = False,
    report: Callable[[Attempt], None] = lambda attempt: None,
) -> Attempt:
    """Export a tagger for ONNX Runtime.

    In int8 the schemes of `SCHEMES` are tried in their order until one is acceptable; some of the sentences then serve
    to measure ranges, and the others to compare.

    Args:
        model: Folder or hub name of the original.
        target: The folder to make; one that an earlier export made is replaced.
        sentences: Words to compare on, at least one sentence.
        gold: Their tags, if they are labelled.
        precision: `fp32` or `int8`; `fp16`: no graph, but the same kind of folder in half the bytes.
        force: Publish the best attempt even if none is acceptable.
        report: Called after each attempt.

    Returns:
        The attempt that was published.

    Raises:
        ModelError: If the original cannot be opened or exported, or no attempt is acceptable; then whatever was at
            `target` is as it was.
        RunError: The same if the disk refuses.
    """
    if is_compact(Path(model)):
        return export_student(Path(model), target, sentences, gold, precision=precision, force=force, report=report)
    if precision == "fp16":
        return export_halves(model, target, sentences, gold, force=force, report=report)
    if is_exported(Path(model)):
        raise ModelError(f"{model}: is an exported model; export the folder that it was made of")
    tagger = load_tagger(model)
    encoder = cast(WordEncoder, tagger.encoder)
    measured, compared = _split(len(sentences)) if precision == "int8" else ([], range(len(sentences)))
    reference = Reference(
        tagger,
        [sentences[number] for number in compared],
        None if gold is None else [gold[number] for number in compared],
    )
    with replaced(target, _check_folder) as unfinished:
        unfinished.mkdir()
        whole = unfinished / "whole"
        whole.mkdir()
        write_graph(cast(JointModel, tagger.model).recognizer, whole / GRAPH_FILE, max_length=encoder.max_length)
        reaches = channel_reaches(whole / GRAPH_FILE, encoder, [sentences[number] for number in measured])
        attempts: list[Attempt] = []
        for scheme in SCHEMES if precision == "int8" else [WHOLE]:
            folder = unfinished / f"attempt-{len(attempts)}"
            folder.mkdir()
            _write_attempt(tagger, read_settings(model), whole, folder, scheme, reaches)
            attempts.append(Attempt(scheme, reference.compare(load_tagger(folder))))
            report(attempts[-1])
            if attempts[-1].parity.acceptable:
                break
        best = min(range(len(attempts)), key=lambda number: attempts[number].parity.loss)
        if not attempts[best].parity.acceptable and not force:
            tried = "; ".join(f"{scheme}: {parity}" for scheme, parity in attempts)
            raise ModelError(
                f"{model}: the export differs too much from the original; nothing is written. Tried {tried}"
            )
        content = {
            "precision": precision,
            "published": attempts[best].scheme,
            "attempts": [{"scheme": scheme, **parity.to_json()} for scheme, parity in attempts],
        }
        chosen = unfinished / f"attempt-{best}"
        (chosen / PARITY_FILE).write_text(to_json(content, indent=2, ascii_only=True) + "\n", encoding="utf-8")
        for path in chosen.iterdir():
            path.rename(unfinished / path.name)
        for place in (whole, *unfinished.glob("attempt-*")):
            shutil.rmtree(place)
    return attempts[best]


def _split(n_sentences: int) -> tuple[Sequence[int], Sequence[int]]:
    """Which sentences ranges are measured on, and which others exports are compared on; of a single one, both."""
    measured = range(0, n_sentences, max(2, n_sentences // CALIBRATION_SENTENCES))
    return measured, sorted(set(range(n_sentences)) - set(measured)) or measured


def _write_attempt(
    tagger: Tagger, settings: ModelSettings, whole: Path, folder: Path, scheme: str, reaches: Reaches
) -> None:
    """A complete exported folder."""
    recognizer, encoder = cast(JointModel, tagger.model).recognizer, cast(WordEncoder, tagger.encoder)
    if scheme == WHOLE:
        for path in whole.iterdir():  # weights above 2 GB lie in a file of their own
            shutil.copy(path, folder / path.name)
    else:
        quantize(whole / GRAPH_FILE, folder / GRAPH_FILE, scheme, recognizer.config.num_hidden_layers, reaches)
    # Written from what was loaded: it splits words as the original does, also where the original's file was patched.
    tokenizer = encoder.tokenizer.backend_tokenizer.to_str(pretty=True)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    config = recognizer.config.to_dict()
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
    (folder / SETTINGS_FILE).write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
    write_manifest(
        folder,
        [path.name for path in folder.iterdir()],
        precision="fp32" if scheme == WHOLE else "int8",
        max_length=encoder.max_length,
        pad_id=encoder.pad_id,
    )


def _check_folder(target: Path) -> None:
    if others := unlisted_names(target):
        found = ", ".join(others[:5])
        raise ModelError(
            f"{target}: holds other things than an exported model ({found}); give another folder, or an empty one"
        )
