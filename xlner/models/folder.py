"""The model folder: a plain Hugging Face token classifier, and beside it what only xlner needs.

`config.json`, `model.safetensors` and the tokenizer open in transformers as they are. `xlner.json` holds the
settings below, `README.md` the model card, `similarity.safetensors` the similarity head, `evaluator.safetensors` the
network that the head reads where that is not the recognizer.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from xlner.errors import GOES_ON, ModelError, RunError
from xlner.files import replaced
from xlner.hub import NEWEST, find_file
from xlner.models.card import CARD_FILE, Origin, model_card, stated_licence
from xlner.models.joint import SIMILARITIES, JointModel, new_head
from xlner.models.settings import SETTINGS_FILE, ModelSettings, parse_settings
from xlner.models.token_classifier import (
    load_classifier,
    plain_weights,
    read_tags,
    refuse_no_numbers,
    save_weights,
    second_network,
)
from xlner.tags import read_tagging

SIMILARITY_FILE = "similarity.safetensors"
EVALUATOR_FILE = "evaluator.safetensors"
# A folder without any of these is nobody's model, or tokenizer.
_MODEL_FILES = {"config.json", "model.safetensors", "tokenizer.json", SETTINGS_FILE}


def read_settings(name: str) -> ModelSettings:
    """The settings of a model, by folder or hub name; the defaults for a model that xlner did not write.

    Raises:
        ModelError: If the settings file is damaged or has unknown keys.
    """
    path = find_file(name, SETTINGS_FILE)
    return ModelSettings() if path is None else parse_settings(path)


def base_of(encoder: str, revision: str = NEWEST) -> tuple[str, str]:
    """`base_model` and `base_licence` of what is trained on from an encoder, as `ModelSettings` has them.

    The base of a model that xlner made is that model's own; a folder goes by its name, wherever it lies.
    """
    stored = find_file(encoder, SETTINGS_FILE, revision)
    settings = parse_settings(stored) if stored else ModelSettings()
    if settings.base_model:
        return settings.base_model, settings.base_licence
    path = Path(encoder)
    name = encoder
    if path.exists():
        path = path.resolve()
        name = path.parent.name if path.name == "model" else path.name
    return name, stated_licence(find_file(encoder, CARD_FILE, revision))


def load_joint_model(folder: str) -> JointModel:
    """A trained teacher or student, with its similarity head where it has one; its tags may be of any scheme."""
    settings = read_settings(folder)
    recognizer = load_classifier(folder)
    if not settings.similarity:
        return JointModel(recognizer, None)
    if settings.similarity not in SIMILARITIES:
        known = ", ".join(SIMILARITIES)
        raise ModelError(f"{folder}: unknown similarity head {settings.similarity!r}; known: {known}")
    head = new_head(settings.similarity, recognizer, settings.projection_size)
    evaluator = second_network(recognizer) if settings.sharing == "separate" else None
    try:
        if head.state_dict():
            path = find_file(folder, SIMILARITY_FILE)
            head.load_state_dict(load_file(path or Path(folder) / SIMILARITY_FILE))
        if evaluator is not None:
            path = find_file(folder, EVALUATOR_FILE)
            evaluator.load_state_dict(load_file(path or Path(folder) / EVALUATOR_FILE))
    except (OSError, RuntimeError, SafetensorError) as problem:
        raise ModelError(f"{folder}: the similarity head could not be loaded: {problem}") from problem
    refuse_no_numbers(head.state_dict().items(), folder)
    return JointModel(recognizer, head, evaluator)


def save_model(folder: Path, model: JointModel, tokenizer: PreTrainedTokenizerBase, settings: ModelSettings) -> None:
    """Write the model folder; an existing one is replaced only once the new one is whole."""
    with replaced_folder(folder) as unfinished:
        save_weights(model.recognizer, unfinished)
        tokenizer.save_pretrained(unfinished)
        if model.similarity is not None and (state := model.similarity.state_dict()):
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, unfinished / SIMILARITY_FILE)
        if model.evaluator is not None:
            state = plain_weights(model.evaluator)
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, unfinished / EVALUATOR_FILE)
        settings.save(unfinished)
        write_card(unfinished, title=folder.parent.name if folder.name == "model" else folder.name)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A folder to write plain files into; it takes the place of `folder` once it is left without an error.

    Raises:
        RunError: If the disk refuses, or `folder` holds other things than a model.
    """
    with replaced(folder, _check_is_model, way_out=GOES_ON) as unfinished:
        unfinished.mkdir()
        try:
            yield unfinished
        except BaseException as problem:
            # What safetensors and tokenizers say of a disk is no OSError; the latter has no kind but `Exception`.
            if not isinstance(problem, SafetensorError) and "(os error " not in str(problem):
                raise
            raise RunError(f"{folder}: cannot be written: {problem}") from problem


def _check_is_model(folder: Path) -> None:
    found = {path.name: path.is_dir() for path in folder.iterdir()}
    if found and (any(found.values()) or not _MODEL_FILES & found.keys()):
        names = ", ".join(sorted(found)[:5])
        raise RunError(f"{folder}: holds other things than a model ({names}); remove it, or move it away")


def write_card(folder: Path, title: str, origin: Origin | None = None) -> None:
    """Write the card of a model folder, or write it anew when more is known of where the model comes from."""
    settings = read_settings(str(folder))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    card = model_card(
        title,
        read_tagging(read_tags(str(folder)), begins=True)[0],
        settings,
        marks_subwords=bool(tokenizer["model"].get("continuing_subword_prefix")),
        origin=origin or Origin(),
    )
    card.save(folder / CARD_FILE)
