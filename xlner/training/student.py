"""A student before training, and what the loop needs to train it on stored soft labels."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import nn

from xlner.data.alignment import Window, WordEncoder, load_tokenizer
from xlner.data.masking import Masker
from xlner.data.pair_batches import PairDraw, SoftBatch, SoftPairs
from xlner.data.pairs import PairPlan
from xlner.data.soft_labels import SoftLabels, StoredWindows, StudentEncoder, store_windows, windows_path
from xlner.data.storage import is_whole
from xlner.errors import ModelError, RecipeError
from xlner.labels import LabelMap, LabelSet
from xlner.mixing.tags import prefix_and_type
from xlner.models.encoder import checked_config, freeze, n_layers_of, new_recognizer, tags_of_model
from xlner.models.files import NEWEST, revision_of
from xlner.models.folder import ModelSettings, base_of, load_joint_model, read_settings
from xlner.models.heads import new_head
from xlner.models.joint import JointModel
from xlner.network_outputs import word_encoder
from xlner.schema import DistillRecipe
from xlner.training.hidden_states import HiddenStates
from xlner.training.labelling import check_teacher
from xlner.training.objective import AnyObjective
from xlner.training.reduction import smaller_network
from xlner.training.run_folder import written_recipe
from xlner.training.task import Task


def check_encoder(recipe: DistillRecipe) -> None:
    """Refuse what a student cannot start from, before a teacher labels a whole text.

    Raises:
        ModelError: If another encoder than the teacher's is no usable one, or the tokenizer lacks a mask that the
            recipe needs.
    """
    name, revision = recipe.encoder, revision_of(recipe.encoder, recipe.encoder_revision)
    if name == "teacher":
        if recipe.loss.masked_weight and recipe.model_teachers:
            check_teacher(recipe.model_teachers[0])
            Masker(load_tokenizer(recipe.model_teachers[0]), recipe.masking)
        return
    with torch.random.fork_rng(devices=[]):  # its head is drawn again later, as if this one had not been
        recognizer = new_recognizer(name, LabelSet.of_types(["X"]), revision=revision)
    tokenizer = word_encoder(name, recognizer, recipe.corpus.max_length, revision=revision).tokenizer
    if recipe.loss.masked_weight:
        Masker(tokenizer, recipe.masking)


def new_student(
    recipe: DistillRecipe, labels: LabelSet, outside_share: float, text: SoftLabels, accelerator: Accelerator
) -> tuple[JointModel, WordEncoder, ModelSettings]:
    """The student before training: the first teacher's copy, or another encoder with fresh heads, or a part of either.

    Args:
        recipe: Names both.
        labels: Of the soft labels.
        outside_share: As in `ModelSettings`.
        text: The words that it will be trained on; a smaller vocabulary is made of them.
        accelerator: Every process calls it.
    """
    of_teachers = [read_settings(teacher) for teacher in recipe.model_teachers]
    # The first one that has a similarity head says of what kind the student's is.
    taught = next((found for found in of_teachers if found.similarity), ModelSettings())
    set_seed(recipe.seed)  # fresh heads are drawn from here, alike in all processes
    # A student that weighs by its own outputs compares its scores, and has no head for hidden states.
    with_head = recipe.loss.similarity_weight > 0 and recipe.weights.outputs == "teacher"
    revision = NEWEST
    if recipe.encoder == "teacher":
        model, source = _copy(recipe.model_teachers[0], labels, recipe.mixing.rename), recipe.model_teachers[0]
        if not with_head:
            model.similarity = None
        elif model.similarity is None:
            model.similarity = new_head(taught.similarity, model.recognizer, taught.projection_size)
    else:
        revision = revision_of(recipe.encoder, recipe.encoder_revision)
        recognizer = new_recognizer(recipe.encoder, labels, revision=revision)
        head = new_head(taught.similarity, recognizer, taught.projection_size) if with_head else None
        model = JointModel(recognizer, head)
        source = recipe.encoder
    encoder = word_encoder(source, model.recognizer, recipe.corpus.max_length, revision=revision)
    if recipe.student == "transformer":
        windows = student_windows(text, encoder, accelerator) if recipe.reduction.min_frequency else []
        n_before = n_parameters(model.recognizer)
        model.recognizer, encoder = smaller_network(model.recognizer, encoder, windows, recipe.reduction)
        accelerator.print(
            f"transformer: {n_parameters(model.recognizer):,} of {n_before:,} parameters, "
            f"{n_layers_of(model.recognizer)} layers, {len(encoder.tokenizer):,} pieces"
        )
    freeze(model.recognizer, recipe.optimization.freeze)
    base_model, base_licence = base_of(source, revision)
    settings = ModelSettings(
        word_splitter=recipe.corpus.word_splitter,
        max_length=encoder.max_length,
        language=recipe.target,
        similarity=taught.similarity if with_head else "",
        projection_size=taught.projection_size if with_head else 0,
        outside_share=outside_share,
        base_model=base_model,
        base_licence=base_licence,
    )
    return model, encoder, settings


def with_pretrained_encoder(recipe: DistillRecipe) -> DistillRecipe:
    """The recipe with `encoder=pretrained` made definite: what the recipe beside the first teacher's folder names.

    Raises:
        RecipeError: If there is no such recipe, or the encoder that it names is not here.
    """
    if recipe.encoder != "pretrained":
        return recipe
    teacher = recipe.model_teachers[0]
    check_teacher(teacher)
    path = Path(teacher).parent / "recipe.yaml"
    told = written_recipe(path)
    ways_out = "give encoder= a folder or hub name, or encoder=teacher for the teacher's encoder as trained"
    encoder, revision = str(told.get("encoder", "teacher")), str(told.get("encoder_revision", ""))
    if encoder == "teacher":  # nothing is told, or it is a student that was itself a copy
        raise RecipeError(f"encoder=pretrained: no {path} that names the encoder {teacher} started from; {ways_out}")
    try:
        checked_config(encoder, revision_of(encoder, revision))
    except ModelError as problem:
        raise RecipeError(
            f"encoder=pretrained: {path} names an encoder that is not here: {problem}; {ways_out}"
        ) from None
    return replace(recipe, encoder=encoder, encoder_revision=revision)


def n_parameters(network: nn.Module) -> int:
    """How many numbers a network is made of."""
    return sum(parameter.numel() for parameter in network.parameters())


def _copy(teacher: str, labels: LabelSet, rename: str) -> JointModel:
    """The encoder of a teacher, and its head with an output for each of these tags, found by name."""
    model = load_joint_model(teacher)
    model.evaluator = None  # a student has one encoder, whatever its teacher has
    tags = tags_of_model(model.recognizer.config)
    if tags != labels.tags:
        new_names = LabelMap.parse(rename)
        renamed = {}
        for tag in tags:
            prefix, name = prefix_and_type(tag)
            renamed[tag] = f"{prefix}-{new_names.type_of(name)}" if prefix else tag
        model.recognizer = new_recognizer(teacher, labels, renamed)
    return model


def student_windows(soft_labels: SoftLabels, encoder: StudentEncoder, accelerator: Accelerator) -> StoredWindows:
    """The student's windows of the text, encoded once per tokenizer and length limit."""
    path = windows_path(soft_labels, encoder)
    if accelerator.is_main_process and not is_whole(path):
        store_windows(path, soft_labels, encoder)
    accelerator.wait_for_everyone()
    return StoredWindows(path)


class Split(NamedTuple):
    """Numbers of the windows that are held out, to measure agreement, and of those that are trained on; rising."""

    held_out: NDArray[np.int64]
    trained: NDArray[np.int64]


def split_windows(windows: StoredWindows, n_target: int, recipe: DistillRecipe) -> Split:
    """Hold some of the target's windows out; the same ones for every seed, so that runs compare.

    Args:
        windows: Of the target's sentences, and of what follows them.
        n_target: How many sentences are the target's.
        recipe: Gives the share, and whether it matters.

    Raises:
        RecipeError: If the selection needs text that is held out, and there is none.
    """
    n_windows = bisect_left(range(len(windows)), n_target, key=lambda number: windows[number].sentence)
    n_held_out = round(n_windows * recipe.holdout_ratio)
    if recipe.selection in ("agreement", "score") and not n_held_out:
        raise RecipeError(
            f"selection={recipe.selection} needs text that is held out, but holdout_ratio={recipe.holdout_ratio:g} of "
            f"{n_windows:,} windows is none; raise holdout_ratio, or set selection=last"
        )
    order = np.random.default_rng(0).permutation(n_windows)
    others = np.arange(n_windows, len(windows))
    return Split(np.sort(order[:n_held_out]), np.sort(np.concatenate([order[n_held_out:], others])))


def distillation_task(
    recipe: DistillRecipe,
    objective: AnyObjective,
    soft_labels: SoftLabels,
    windows: StoredWindows,
    split: Split,
    pad_id: int,
    evaluate: Callable[[Any], tuple[float, dict[str, Any]]],
    score_name: str,
    keep: Callable[[Any], None],
    vectors: HiddenStates | None = None,
) -> Task[SoftBatch]:
    """What the loop needs to train a student on stored soft labels.

    Args:
        recipe: Of the run.
        objective: Its loss.
        soft_labels: Of the text, and of what stands beside it.
        windows: Of the same sentences.
        split: Which of them are trained on.
        pad_id: Piece id of padding.
        evaluate: Scores a student, in percent, and says what else is worth a line; every process calls it.
        score_name: What the score is called.
        keep: Takes the student that shall be the result, so far.
        vectors: A teacher's hidden states of the same sentences, if the loss looks at them.
    """
    trained = np.asarray(
        [number for number in split.trained if _is_trusted(windows[number], soft_labels)], dtype=np.int64
    )
    if len(split.trained) and not len(trained):
        raise RecipeError(f"denoising={recipe.denoising} leaves no word to learn from; loosen its steps")
    draw = PairDraw(recipe.pairs.per_sentence, recipe.pairs.balance) if objective.uses_similarity else None
    pairs = SoftPairs(windows, soft_labels, pad_id, draw, vectors)

    def load(plan: PairPlan) -> SoftBatch:
        return pairs.batch(PairPlan(trained[plan.first], trained[plan.second], plan.seed))

    return Task(
        lengths=windows.lengths[trained],
        load=load,
        terms=tuple(objective.terms),
        shares=tuple(objective.terms.values()),
        counts=objective.counts,
        loss_sums=objective.loss_sums,
        evaluate=evaluate,
        keep=keep,
        score_name=score_name,
        keep_best=recipe.selection != "last",
        copies=objective.copies,
    )


def _is_trusted(window: Window, soft_labels: SoftLabels) -> bool:
    """Whether any word of a window counts; without one it would be trained on for nothing."""
    return bool(soft_labels.weights(window.sentence)[window.word_numbers].any())
