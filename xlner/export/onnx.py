"""An exported folder: the graph of a network for ONNX Runtime, compared with the original, published whole or not."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlner.backends import GRAPH_FILE, PARITY_FILE, Session, is_exported, unlisted_names, write_manifest
from xlner.encode import WordEncoder
from xlner.errors import ModelError, first_line
from xlner.export.compact_graph import export_student
from xlner.export.int8 import CALIBRATION_SENTENCES, SCHEMES, Reaches, channel_reaches, quantize
from xlner.export.parity import Attempt, Reference, check_target, compared, write_parity
from xlner.files import replaced
from xlner.hub import WEIGHTS_FILE, find_file
from xlner.models.card import CARD_FILE
from xlner.models.folder import read_settings, replaced_folder, write_card
from xlner.models.joint import JointModel
from xlner.models.settings import SETTINGS_FILE, THRESHOLDS_FILE, ModelSettings, is_compact
from xlner.models.token_classifier import heeds_mask, save_weights
from xlner.tagger import Tagger, load_tagger

# A network of torch as an ONNX graph of any number of windows and pieces.
#
# Made by torch's own exporter (`dynamo=True`): the one in transformers wraps it and calls itself experimental.


# Windows and pieces that a graph is tried on: other ones than it is exported with, and what an exporter may fix at 1.
_TRIED_SHAPES = ((1, 4), (3, 9))


class _Logits(nn.Module):
    """The network with its inputs in a fixed order and one output."""

    def __init__(self, recognizer: PreTrainedModel) -> None:
        super().__init__()
        self.recognizer = recognizer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, P) to (B, P, C)."""
        logits: Tensor = self.recognizer(input_ids=input_ids, attention_mask=attention_mask.long()).logits
        return logits


def write_graph(recognizer: PreTrainedModel, path: Path, *, max_length: int) -> None:
    """Write the graph, and its weights into a second file beside it, which ONNX Runtime maps.

    Args:
        recognizer: In float32, on the CPU; it computes attention by plain matrix products afterwards.
        path: The file to write.
        max_length: Pieces of the longest window, special ones included.

    Raises:
        ModelError: If the packages that exporting needs are not installed, torch cannot export the network, or what it
            exports is for windows of one length alone.
    """
    _check_packages()
    told = type(recognizer).__name__
    if not heeds_mask(recognizer):
        raise ModelError(f"{told} cannot be exported: what it says of a text depends on the padding beside it")
    # ONNX Runtime fuses plain attention better than what torch makes of its own fused one: a fifth faster in int8.
    recognizer.set_attn_implementation("eager")
    # Two windows, one padded: what the exporter saw as a 1 it would take for a constant.
    input_ids = torch.full((2, 6), 5)
    attention_mask = torch.ones(2, 6, dtype=torch.bool)
    attention_mask[1, 4:] = False
    axes: dict[int, Any] = {0: torch.export.Dim("windows"), 1: torch.export.Dim("pieces", max=max_length)}
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)  # it tells which packages of other fields are not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Logits(recognizer).eval(),
                (input_ids, attention_mask),
                dynamo=True,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": axes, "attention_mask": axes},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as problem:
        raise ModelError(f"{told} cannot be exported by torch: {first_line(problem)}") from problem
    finally:
        chatter.setLevel(level)
    if program is None:
        raise ModelError(f"{told} cannot be exported by torch")
    program.save(path, external_data=True)
    _try_graph(told, path, max_length)


def _try_graph(told: str, path: Path, max_length: int) -> None:
    """Refuse a graph in which the exporter has fixed a number of windows or of pieces."""
    try:
        shapes = [(windows, min(pieces, max_length)) for windows, pieces in _TRIED_SHAPES]
        session = Session(path)
        given = []
        for shape in shapes:
            inputs = {"input_ids": np.full(shape, 5, dtype=np.int64), "attention_mask": np.ones(shape, dtype=np.bool_)}
            given.append(session.run(["logits"], inputs)[0].shape[:2])
    except ModelError as problem:
        raise ModelError(
            f"{told} cannot be exported, its graph is for windows of one length alone: {problem}"
        ) from problem
    if given != shapes:
        raise ModelError(f"{told} cannot be exported: its graph gives {given} for {shapes} windows and pieces")


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as problem:
        raise ModelError(f"exporting needs {problem.name}: pip install 'xlner[onnx]'") from problem


# The exported folder: written beside its place, compared with the original, and published whole or not at all.


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
    if is_exported(Path(model)):
        raise ModelError(f"{model}: is an exported model; export the folder that it was made of")
    if precision == "fp16":
        return _export_halves(model, target, sentences, gold, force=force, report=report)
    _check_packages()
    check_folder = partial(check_target, model=model, what="an exported model", others=unlisted_names)
    check_folder(target)
    tagger = load_tagger(model)
    encoder = cast(WordEncoder, tagger.encoder)
    measured, compared = _split(len(sentences)) if precision == "int8" else ([], range(len(sentences)))
    reference = Reference(
        tagger,
        [sentences[number] for number in compared],
        None if gold is None else [gold[number] for number in compared],
    )
    with replaced(target, check_folder) as unfinished:
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
        best = _best_of(attempts, model, force=force)
        content = {
            "precision": precision,
            "published": attempts[best].scheme,
            "attempts": [{"scheme": scheme, **parity.to_json()} for scheme, parity in attempts],
        }
        chosen = unfinished / f"attempt-{best}"
        write_parity(chosen, content)
        for path in chosen.iterdir():
            path.rename(unfinished / path.name)
        for place in (whole, *unfinished.glob("attempt-*")):
            shutil.rmtree(place)
    return attempts[best]


def _best_of(attempts: Sequence[Attempt], model: str, *, force: bool) -> int:
    """The number of the attempt that loses least.

    Raises:
        ModelError: If it loses too much, and is not forced.
    """
    best = min(range(len(attempts)), key=lambda number: attempts[number].parity.loss)
    if not attempts[best].parity.acceptable and not force:
        tried = "; ".join(f"{scheme}: {parity}" for scheme, parity in attempts)
        raise ModelError(f"{model}: the export differs too much from the original; nothing is written. Tried {tried}")
    return best


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
        for path in whole.iterdir():
            shutil.copy(path, folder / path.name)
    else:
        quantize(whole / GRAPH_FILE, folder / GRAPH_FILE, scheme, recognizer.config.num_hidden_layers, reaches)
    # Written from what was loaded: it splits words as the original does, also where the original's file was patched.
    tokenizer = encoder.tokenizer.backend_tokenizer.to_str(pretty=True)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    config = recognizer.config.to_dict()
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
    settings.save(folder)
    if tuned := find_file(tagger.name, THRESHOLDS_FILE):
        shutil.copy(tuned, folder / THRESHOLDS_FILE)
    write_manifest(
        folder,
        [path.name for path in folder.iterdir()],
        precision="fp32" if scheme == WHOLE else "int8",
        max_length=encoder.max_length,
        pad_id=encoder.pad_id,
    )


# A tagger of pieces with weights in half the bytes: the same folder, for torch, its numbers float16 on disk.


_HALVES = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
_HALVES |= {WEIGHTS_FILE, SETTINGS_FILE, CARD_FILE, THRESHOLDS_FILE, PARITY_FILE}


def _export_halves(
    model: str,
    target: Path,
    sentences: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]] | None,
    *,
    force: bool,
    report: Callable[[Attempt], None],
) -> Attempt:
    """Store a tagger in halves and compare it with the original; `load_tagger` computes in float32 all the same.

    A similarity head, which no tagger needs, is left out. Arguments, result and errors as for `export_model`.
    """
    check_target(target, model, "a model in halves", _beside_halves)
    tagger = load_tagger(model)
    encoder = cast(WordEncoder, tagger.encoder)
    reference = Reference(tagger, sentences, gold)
    settings = replace(read_settings(model), similarity="", projection_size=0, sharing="joint")
    with replaced_folder(target) as unfinished:
        recognizer = cast(JointModel, tagger.model).recognizer
        save_weights(recognizer.to(torch.float16), unfinished)  # type: ignore[arg-type]  # torch's own use
        encoder.tokenizer.save_pretrained(unfinished)
        settings.save(unfinished)
        for name in (CARD_FILE, THRESHOLDS_FILE):
            if found := find_file(model, name):
                shutil.copy(found, unfinished / name)
        if not (unfinished / CARD_FILE).is_file():
            write_card(unfinished, title=target.name)
        return compared(unfinished, model, "fp16", "halves", reference, force=force, report=report)


def _beside_halves(folder: Path) -> set[str]:
    """What a folder holds beside a model in halves; all of it, where there is none."""
    names = {path.name for path in folder.iterdir()}
    return names - _HALVES if {PARITY_FILE, WEIGHTS_FILE} <= names else names
