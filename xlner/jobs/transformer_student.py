"""A transformer student: the first teacher's copy, another encoder, or a smaller part of either."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from transformers import PreTrainedModel

from xlner.config.schema import DistillRecipe, ReductionRecipe
from xlner.encode import Window, WordEncoder, load_tokenizer
from xlner.errors import ModelError, RecipeError
from xlner.hub import NEWEST, revision_of
from xlner.jobs.inputs import StudentInputs
from xlner.jobs.student import Student, n_parameters, student_windows
from xlner.models.card import Origin
from xlner.models.folder import base_of, load_joint_model, read_settings, save_model, write_card
from xlner.models.inference import word_encoder
from xlner.models.joint import JointModel, TwoHeadStudent, new_head
from xlner.models.settings import ModelSettings
from xlner.models.shrink import check_reducible, reduced
from xlner.models.token_classifier import (
    check_adapters,
    checked_config,
    n_layers_of,
    new_recognizer,
    ready_to_train,
    tags_of_model,
)
from xlner.models.vocabulary import check_prunable, prune_tokenizer
from xlner.soft_labels.label import begins_with_compact, check_teacher
from xlner.soft_labels.store import SoftLabels
from xlner.tags import LabelMap, LabelSet, prefix_and_type
from xlner.train.mtmt import BatchWeightedPairs, PairWeights, SoftPairs, uses_pairs
from xlner.train.objectives import Objective, SoftText, SoftWords, WordLoss
from xlner.train.report import Evaluator
from xlner.train.run import written_recipe

LOG = logging.getLogger("xlner")

# A transformer student that is smaller than what it starts from: fewer layers, narrower ones, fewer pieces.


def check_reduction(recipe: DistillRecipe) -> None:
    """Refuse what cannot be made smaller as the recipe says, before a teacher labels a whole text.

    Raises:
        ModelError: If the encoder has too few layers, is not built of plain ones, or its tokenizer cannot lose pieces.
    """
    name = recipe.model_teachers[0] if recipe.encoder == "teacher" else recipe.encoder
    if recipe.encoder == "teacher":
        check_teacher(name)
    revision = revision_of(recipe.encoder, recipe.encoder_revision)
    config = checked_config(name, revision)
    n_layers = int(getattr(config, "num_hidden_layers", 0))
    if 0 < n_layers < recipe.reduction.layers:
        raise ModelError(f"reduction.layers is {recipe.reduction.layers}; {name} has {n_layers}")
    fewer_pieces = bool(recipe.reduction.min_frequency)
    check_reducible(
        config, n_layers=recipe.reduction.layers, feed_forward=recipe.reduction.feed_forward, fewer_pieces=fewer_pieces
    )
    if fewer_pieces:
        check_prunable(load_tokenizer(name, revision))


def smaller_network(
    network: PreTrainedModel, encoder: WordEncoder, windows: Sequence[Window], recipe: ReductionRecipe
) -> tuple[PreTrainedModel, WordEncoder]:
    """What a recipe leaves of a network and its tokenizer.

    Args:
        network: The larger one.
        encoder: Its word encoder.
        windows: Of the text, by that encoder: they tell which pieces are used. Not looked at where all are kept.
        recipe: Says what is kept.

    Raises:
        ModelError: If the network or the tokenizer cannot be made smaller this way.
    """
    piece_ids = None
    if recipe.min_frequency:
        uses: Counter[int] = Counter()
        for window in windows:
            uses.update(window.piece_ids.tolist())
        tokenizer, piece_ids = prune_tokenizer(encoder.tokenizer, uses, recipe.min_frequency)
        encoder = WordEncoder(tokenizer, encoder.max_length)
    n_layers = recipe.layers or max(1, n_layers_of(network) // 2)
    smaller = reduced(network, n_layers=n_layers, feed_forward=recipe.feed_forward, piece_ids=piece_ids)
    return smaller, encoder


# A student before training, and what the loop needs to train it on stored soft labels.


class TransformerStudent(Student):
    """A dual-tower student: the first teacher's copy, another encoder, or a part of either."""

    def __init__(self, recipe: DistillRecipe, inputs: StudentInputs, accelerator: Accelerator) -> None:
        self._recipe = recipe
        self.soft_labels, self.words = inputs.soft_labels, inputs.words
        self.network, self.encoder, self._settings = new_student(
            recipe, inputs.labels, inputs.taught.outside_share, inputs.words, accelerator
        )
        self.evaluator = Evaluator(accelerator, self.encoder, inputs.labels, inputs.label_map)

    @staticmethod
    def check(recipe: DistillRecipe) -> bool:
        """See `Student.check`."""
        if recipe.encoder == "teacher" and begins_with_compact(recipe.model_teachers):
            raise RecipeError(
                f"teacher={recipe.model_teachers[0]}: is a compact student, no encoder that another could start from; "
                "name a transformer first, give encoder=, or student=bilstm with compact.vectors=random"
            )
        WordLoss(recipe.loss, recipe.weights.alpha)
        PairWeights.of(recipe.weights)
        check_adapters(recipe.optimization.lora)
        revision_of(recipe.encoder, recipe.encoder_revision)
        check_encoder(recipe)
        if recipe.student == "transformer":
            check_reduction(recipe)
        return uses_pairs(recipe.loss, recipe.weights)

    @property
    def n_parameters(self) -> int:
        """Those of the recognizer, which alone is shipped."""
        return n_parameters(self.network.recognizer)

    def objective(self, text: SoftText) -> Objective[Any]:
        """See `Student.objective`."""
        return student_objective(self._recipe, text)

    def for_training(self) -> nn.Module:
        """See `Student.for_training`."""
        if self._recipe.weights.outputs == "teacher":
            return super().for_training()
        return TwoHeadStudent(self.network, is_trained=self._recipe.encoder == "teacher")

    def save(self, folder: Path, network: JointModel) -> None:
        """See `Student.save`."""
        save_model(folder, network, self.encoder.tokenizer, self._settings)

    def load(self, folder: Path) -> JointModel:
        """See `Student.load`."""
        return load_joint_model(str(folder))

    def write_card(self, folder: Path, title: str, origin: Origin) -> None:
        """See `Student.write_card`."""
        write_card(folder, title, origin)


def student_objective(recipe: DistillRecipe, text: SoftText) -> Objective[Any]:
    """What a student of this kind is trained on: words alone, or word pairs too where the recipe asks for them.

    Raises:
        RecipeError: If a name stands in no table.
    """
    loss, shares = WordLoss(recipe.loss, recipe.weights.alpha), recipe.loss
    if not uses_pairs(shares, recipe.weights):
        return SoftWords(text, loss, shares.recognizer_weight)
    kind = SoftPairs if recipe.weights.outputs == "teacher" else BatchWeightedPairs
    return kind(text, loss, shares, PairWeights.of(recipe.weights), recipe.pairs)


def check_encoder(recipe: DistillRecipe) -> None:
    """Refuse what a student cannot start from, before a teacher labels a whole text.

    Raises:
        ModelError: If another encoder than the teacher's is no usable one.
    """
    name, revision = recipe.encoder, revision_of(recipe.encoder, recipe.encoder_revision)
    if name == "teacher":
        return
    with torch.random.fork_rng(devices=[]):  # its head is drawn again later, as if this one had not been
        recognizer = new_recognizer(name, LabelSet.of_types(["X"]), revision=revision)
    word_encoder(name, recognizer, recipe.corpus.max_length, revision=revision)


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
        LOG.info(
            f"transformer: {n_parameters(model.recognizer):,} of {n_before:,} parameters, "
            f"{n_layers_of(model.recognizer)} layers, {len(encoder.tokenizer):,} pieces"
        )
    optimization = recipe.optimization
    ready_to_train(
        model.recognizer,
        optimization.freeze,
        gradient_checkpointing=optimization.gradient_checkpointing,
        lora=optimization.lora,
    )
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
