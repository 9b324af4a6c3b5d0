"""The model folder of a compact student, and how it is opened.

`student.json` says what it is, `vocabulary.json` holds its words (a linear one has none), `model.safetensors` the
weights, `xlner.json` what every model folder of xlner says, and `README.md` is the card. In an exported folder
`model.onnx` takes the place of all weights but those of a CRF. There is no pickle and no code in it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xlner.backends import GRAPH_FILE, CompactOnnxBackend, LinearBackend, stored_marginals
from xlner.errors import ModelError
from xlner.hub import WEIGHTS_FILE
from xlner.models.compact_words import VOCABULARY_FILE, RowEncoder, Vocabulary, hashed_encoder
from xlner.models.settings import ModelSettings, StudentSettings, read_student
from xlner.predict import Backend

if TYPE_CHECKING:
    from xlner.models.compact import CompactNetwork


KNOWN = ("bilstm", "linear")
Weights = dict[str, NDArray[np.generic]]
# Types of numbers that students are stored in, by the names of safetensors.
_NUMBERS = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "i1", "U8": "u1", "I32": "<i4", "I64": "<i8"}


def open_student(folder: Path, device: str = "cpu") -> tuple[Backend, RowEncoder, StudentSettings]:
    """What a tagger needs of a folder; torch is imported only for a network that was not exported.

    Raises:
        ModelError: If a file is missing, damaged or another's; if torch is needed and not there, or has no such device.
    """
    settings = read_student(folder)
    if settings.kind not in KNOWN:
        raise ModelError(f"{folder}: unknown kind of student {settings.kind!r}; known: {', '.join(KNOWN)}")
    encoder = student_encoder(folder, settings)
    exported, linear = (folder / GRAPH_FILE).is_file(), settings.kind == "linear"
    if (exported or linear) and device != "cpu":
        raise ModelError(f"{folder}: this student runs on the CPU alone, found device {device!r}")
    if linear:
        weights = float_weights(folder, settings)
        table = _of_shape(folder, weights, "body.table", (settings.sizes.buckets, len(settings.tags)))
        return LinearBackend(table, encoder.width, stored_marginals(weights, settings)), encoder, settings
    if exported:
        weights = float_weights(folder, settings) if settings.decoder == "crf" else {}
        graph = CompactOnnxBackend(folder / GRAPH_FILE, encoder.width, stored_marginals(weights, settings))
        return graph, encoder, settings
    try:
        import torch

        from xlner.models.inference import TorchBackend
    except ImportError as problem:
        raise ModelError(
            f"{folder}: needs {problem.name}, which is not installed; `xlner export` makes a folder that does without"
        ) from problem
    try:
        place = torch.device(device)
        network = load_network(folder, settings, encoder).to(place).eval()
    except (RuntimeError, AssertionError) as problem:  # torch without CUDA asserts
        raise ModelError(f"device {device!r} cannot be used: {str(problem).splitlines()[0]}") from problem
    return TorchBackend(network, place), encoder, settings


def student_encoder(folder: Path, settings: StudentSettings) -> RowEncoder:
    """Words to rows, as a stored student reads them.

    Raises:
        ModelError: If its vocabulary is missing, damaged, or of other sizes.
    """
    if settings.kind == "linear":
        return hashed_encoder(settings.max_words)
    vocabulary = Vocabulary.read(folder / VOCABULARY_FILE)
    found, expected = (
        (vocabulary.n_words, vocabulary.n_characters),
        (settings.sizes.n_words, settings.sizes.n_characters),
    )
    if found != expected:
        raise ModelError(
            f"{folder}: {VOCABULARY_FILE} has {found[0]} words and {found[1]} characters, the student knows "
            f"{expected[0]} and {expected[1]}; copy the folder again"
        )
    return vocabulary.encoder(n_chars=settings.sizes.n_chars, max_words=settings.max_words)


def load_network(folder: Path, settings: StudentSettings, encoder: RowEncoder) -> "CompactNetwork":
    """The network of torch, in float32.

    Raises:
        ModelError: If the weights are missing, damaged or of other sizes.
    """
    import torch

    from xlner.models.compact import new_network

    weights = float_weights(folder, settings)
    network = new_network(settings, encoder.width)
    try:
        network.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    except RuntimeError as problem:
        raise ModelError(f"{folder / WEIGHTS_FILE}: {' '.join(str(problem).split())}") from problem
    return network


def write_student(
    folder: Path, settings: StudentSettings, weights: Mapping[str, NDArray[np.generic]], model: ModelSettings
) -> None:
    """Write what every folder of a compact student has; its vocabulary, graph and card are written beside it.

    Args:
        folder: There, without these files.
        settings: Of the student; `precision` is how the weights are stored: fp32, fp16, or int8, of which a linear
            student's table has a scale for each tag.
        weights: In float32; empty for none.
        model: As in any folder.
    """
    from safetensors.numpy import save_file

    if weights:
        save_file(_stored(weights, settings), folder / WEIGHTS_FILE)
    model.save(folder)
    settings.save(folder)


def _stored(weights: Mapping[str, NDArray[np.generic]], settings: StudentSettings) -> Weights:
    if settings.precision == "fp32":
        return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}
    halved: Weights = {name: np.ascontiguousarray(value, dtype=np.float16) for name, value in weights.items()}
    if settings.precision == "int8" and "body.table" in weights:
        table = weights["body.table"].astype(np.float32)
        scales = np.maximum(np.abs(table).max(axis=0), 1e-12) / 127.0
        halved["body.table"] = np.rint(table / scales).astype(np.int8)
        halved["body.scales"] = scales.astype(np.float32)
    return halved


def float_weights(folder: Path, settings: StudentSettings) -> dict[str, NDArray[np.float32]]:
    """The stored weights by name, in float32 whatever they are stored as.

    Raises:
        ModelError: If they are missing or damaged.
    """
    path = folder / WEIGHTS_FILE
    try:
        stored = _read_safetensors(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ModelError(f"{path}: expected the weights of a compact student, found: {problem}") from problem
    weights = {name: np.asarray(value, dtype=np.float32) for name, value in stored.items()}
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise ModelError(f"{path}: {name} has NaN or infinite numbers; are the weights damaged?")
    if "body.scales" in weights:
        weights["body.table"] = weights["body.table"] * weights.pop("body.scales")
    names = {"crf.transitions": 2, "crf.first": 1, "crf.last": 1} if settings.decoder == "crf" else {}
    for name, axes in names.items():
        _of_shape(folder, weights, name, (len(settings.tags),) * axes)
    return weights


def _read_safetensors(path: Path) -> Weights:
    """The arrays in a file; read here by NumPy, so that a linear student is tagged with without another library.

    Eight bytes say how long the JSON is that follows; it has type, shape and place of each array in the bytes behind.

    Raises:
        ValueError: Or another error that `float_weights` tells: if the file is damaged or of other types of numbers.

    Source: https://huggingface.co/docs/safetensors, "Format".
    """
    content = bytearray(path.read_bytes())  # what torch shall hold must be writable
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= len(content) - 8:
        raise ValueError("no header of safetensors; is the file cut short?")
    header = json.loads(content[8 : 8 + length])
    numbers = memoryview(content)[8 + length :]
    found: Weights = {}
    end = 0
    for name, about in sorted(header.items(), key=lambda item: item[1].get("data_offsets", [0])[0]):
        if name == "__metadata__":
            continue
        kind, start = np.dtype(_NUMBERS[about["dtype"]]), end
        end = start + kind.itemsize * math.prod(about["shape"])
        if about["data_offsets"] != [start, end] or end > len(numbers) or min(about["shape"], default=0) < 0:
            raise ValueError(f"{name} is not where the header has it; is the file cut short?")
        found[name] = np.frombuffer(numbers[start:end], kind).reshape(about["shape"])
    if end != len(numbers):
        raise ValueError(f"{len(numbers) - end} bytes behind the last array")
    return found


def _of_shape(
    folder: Path, weights: Mapping[str, NDArray[np.float32]], name: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    found = weights.get(name)
    if found is None or found.shape != shape:
        what = "none" if found is None else f"one of {found.shape}"
        raise ModelError(f"{folder / WEIGHTS_FILE}: expected {name} of {shape}, found {what}; copy the folder again")
    return found
