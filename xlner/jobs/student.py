"""One student's training: soft labels of its teachers, made better, learnt by a dual-tower student, scored.

Source: Li et al. 2022 (2022.acl-long.14), section 3; the variants are explained in `docs/method.md`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from xlner.arrow_files import is_whole
from xlner.config.schema import DistillRecipe
from xlner.config.sections import ReductionRecipe
from xlner.encode import Window, WordEncoder, load_tokenizer
from xlner.errors import ModelError, RecipeError
from xlner.hub import NEWEST, revision_of
from xlner.jobs.inputs import about_run, doubt_of_student, read_inputs, teacher_name, teacher_scores
from xlner.models.card import Origin
from xlner.models.folder import ModelSettings, base_of, load_joint_model, read_settings, save_model
from xlner.models.joint import HiddenStudent, JointModel, MaskingStudent, TwoHeadStudent, new_head
from xlner.models.shrink import check_reducible, reduced
from xlner.models.token_classifier import checked_config, freeze, n_layers_of, new_recognizer, tags_of_model
from xlner.models.vocabulary import check_prunable, prune_tokenizer
from xlner.network_outputs import word_encoder
from xlner.soft_labels.label import HiddenStates, check_teacher
from xlner.soft_labels.source_text import source_language
from xlner.soft_labels.steps import check_denoising
from xlner.soft_labels.store import SoftLabels, StoredWindows, StudentEncoder, store_windows, windows_path
from xlner.tags import LabelMap, LabelSet, prefix_and_type
from xlner.train.accelerator import announce, make_accelerator
from xlner.train.batches import PairDraw, PairPlan, SoftBatch, SoftPairs
from xlner.train.loop import Task, fit_recipe, of_student
from xlner.train.masking import Masker, with_masking
from xlner.train.objectives import AnyObjective, BatchObjective, check_similarity, make_objective, with_hidden_states
from xlner.train.report import Evaluator, Scores, finish, measured_on
from xlner.train.run import open_run, run_path, start_run, written_recipe

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


# One student's training: soft labels of a teacher, made better, learnt by a dual-tower student, scored.
#
# Source: Li et al. 2022 (2022.acl-long.14), section 3; the variants are explained in `docs/method.md`.


def train_student(recipe: DistillRecipe) -> Path:
    """Train one student on unlabelled text and write its run folder.

    Returns and Raises as for `distill`; rounds are not looked at.
    """
    objective = make_objective(recipe)
    check_denoising(recipe)
    revision_of(recipe.encoder, recipe.encoder_revision)  # refused before the teacher labels a text
    check_encoder(recipe)
    if recipe.student == "transformer":
        check_reduction(recipe)
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, recipe.target)
    accelerator = make_accelerator(recipe, path)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        check_similarity(recipe, objective)
        inputs = read_inputs(recipe, label_map, accelerator, objective.uses_similarity)
        taught, labels, soft_labels, test = inputs.taught, inputs.labels, inputs.soft_labels, inputs.test
        model, encoder, settings = new_student(recipe, labels, taught.outside_share, inputs.words, accelerator)
        windows = student_windows(inputs.words, encoder, accelerator)
        split = split_windows(windows, inputs.n_target, recipe)
        held_out = [windows[number] for number in split.held_out]
        start_run(run, recipe)

        def keep(best: JointModel) -> None:
            save_model(run.model, best, encoder.tokenizer, settings)

        evaluator = Evaluator(accelerator, encoder, labels, label_map)

        def evaluate(student: JointModel) -> tuple[float, dict[str, Any]]:
            return inputs.selection.score(student, evaluator, held_out, soft_labels)

        vectors = inputs.context.hidden(1) if recipe.loss.hidden_weight else None
        task: Task[Any] = distillation_task(
            recipe,
            objective,
            soft_labels,
            windows,
            split,
            encoder.pad_id,
            evaluate,
            inputs.selection.score_name,
            keep,
            vectors,
        )
        trained: Any = model
        if isinstance(objective, BatchObjective):
            task, trained = of_student(task), TwoHeadStudent(model, is_trained=recipe.encoder == "teacher")
        elif recipe.loss.masked_weight:
            masker = Masker(encoder.tokenizer, recipe.masking)
            task, trained = with_masking(task, objective, masker, recipe.loss.masked_weight), MaskingStudent(model)
        elif vectors is not None:
            task = with_hidden_states(task, objective, recipe.loss.hidden_weight)
            trained = HiddenStudent(model, vectors.width)
        progress = fit_recipe(
            accelerator,
            trained,
            task,
            run,
            recipe,
            made_of={
                "teacher": taught.soft_labels.card.teacher,
                "text": taught.soft_labels.card.corpus,
                "labels": " ".join(labels.tags),
            },
        )
        kept = load_joint_model(str(run.model)).to(accelerator.device)
        agreement = evaluator.agreement(kept, held_out, soft_labels)
        scores: dict[str, Scores] = {}
        if test is not None:
            scores |= teacher_scores(recipe, taught, evaluator, test)
            scores["student"] = evaluator.of_folder(str(run.model), test, predictions=run.predictions(test.name))
        doubt = doubt_of_student(
            recipe, inputs, progress, None if test is None else scores["student"], agreement, held_out
        )
        about = about_run(recipe, inputs, n_parameters(model.recognizer), doubt) | {
            "types": labels.types,
            "label_map": str(label_map),
            "agreement_f1": round(agreement, 3) if held_out else None,
        }
        teachers = tuple([teacher_name(name) for name in recipe.teachers])
        measured = [] if test is None else measured_on([test], [scores["student"]], recipe.target)
        origin = Origin(source_language(recipe), teachers, measured, doubt)
        finish(run, accelerator, about, [test] if test else [], scores, progress, origin)
    return path
