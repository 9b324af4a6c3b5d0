"""A tagger of pieces with weights in half the bytes: the same folder, for torch, its numbers float16 on disk."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch

from xlner.backends.exported_folder import PARITY_FILE, is_exported
from xlner.data.alignment import WordEncoder
from xlner.errors import ModelError
from xlner.export.parity import Attempt, Reference
from xlner.export.publication import check_target, compared
from xlner.models.folder import read_settings, replaced_folder, write_card
from xlner.models.joint import JointModel
from xlner.models.settings import SETTINGS_FILE
from xlner.strict_json import to_json
from xlner.tagger import load_tagger

_WEIGHTS = "model.safetensors"


def export_halves(
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
    if is_exported(Path(model)):
        raise ModelError(f"{model}: is an exported model; export the folder that it was made of")
    check_target(
        target, model, "a model in halves", lambda: {PARITY_FILE, _WEIGHTS} <= {path.name for path in target.iterdir()}
    )
    tagger = load_tagger(model)
    encoder = cast(WordEncoder, tagger.encoder)
    reference = Reference(tagger, sentences, gold)
    settings = replace(read_settings(model), similarity="", projection_size=0, sharing="joint")
    with replaced_folder(target) as unfinished:
        recognizer = cast(JointModel, tagger.model).recognizer
        recognizer.to(torch.float16).save_pretrained(unfinished)  # type: ignore[arg-type]  # torch's own use
        encoder.tokenizer.save_pretrained(unfinished)
        (unfinished / SETTINGS_FILE).write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
        write_card(unfinished, title=target.name)
        result = compared(unfinished, model, "halves", reference, force=force, report=report)
        content = {"precision": "fp16", **result.parity.to_json()}
        (unfinished / PARITY_FILE).write_text(to_json(content, indent=2, ascii_only=True) + "\n", encoding="utf-8")
    return result
