"""Distillation: a dual-tower student learns a target language from a teacher's stored soft labels.

    L = share * mean gamma beta L_sim + 1/2 mean gamma alpha L_ner (first tower) + 1/2 the same (second tower)

Source: Li et al. 2022 (2022.acl-long.14), section 3; the variants are explained in `docs/method.md`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import Tensor, nn

from xlner.data.alignment import WordEncoder
from xlner.data.corpus_files import corpus_path, find_corpus
from xlner.data.known_splits import name_text
from xlner.data.pair_batches import PairDraw, SoftBatch, SoftPairs
from xlner.data.pairs import PairPlan
from xlner.data.soft_labels import SoftLabels, StoredWindows, store_windows
from xlner.errors import RecipeError
from xlner.labels import LabelMap, LabelSet
from xlner.losses import DISTILLATION_LOSSES, masked_sum, similarity_cross_entropy
from xlner.models.encoder import freeze, new_recognizer
from xlner.models.folder import ModelSettings, load_joint_model, read_settings, save_model
from xlner.models.heads import new_head
from xlner.models.joint import JointModel
from xlner.prediction import word_encoder
from xlner.recipe import choose
from xlner.schema import DistillRecipe
from xlner.training.corpora import check_types, read_labelled, rename_types
from xlner.training.labelling import soft_labels_of
from xlner.training.loop import Task, fit
from xlner.training.optimization import autocast_dtype
from xlner.training.pooling import pooled_soft_labels
from xlner.training.reporting import Evaluator, finish
from xlner.training.run_folder import RUNS, open_run, run_path, start_run
from xlner.training.session import announce, make_accelerator, make_tracker
from xlner.weights import ALPHAS, BETAS, GAMMAS, gamma_of_words


def distill(recipe: DistillRecipe) -> Path:
    """Train a student on unlabelled text and write its run folder.

    Args:
        recipe: From `load_recipe("distill", [...])`, or made in Python.

    Returns:
        The run folder; `model/` within it opens with `load_tagger` and in transformers. Where the target has a
        labelled test set, `report.json` holds the scores of teacher and student side by side.

    Raises:
        XlnerError: One of its kinds, for whatever the user can mend; nothing is left half-written.
        StoppedError: If the run was interrupted; the same call goes on from there.
    """
    objective = make_objective(recipe)
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, recipe.target)
    accelerator = make_accelerator(recipe, path)
    resume = recipe.checkpoint.resume == "auto"
    with open_run(path, recipe, resume=resume, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        test_path = find_corpus(recipe.data, recipe.target, "test")
        test = read_labelled(test_path, recipe.corpus) if test_path else None
        _check_similarity(recipe, objective)
        text = corpus_path(recipe.data, recipe.target, "train")
        taught = soft_labels_of(
            recipe.teacher,
            text,
            corpus=recipe.corpus,
            store=None if recipe.soft_labels == "auto" else Path(recipe.soft_labels),
            root=RUNS / "soft-labels",
            accelerator=accelerator,
            autocast_dtype=autocast_dtype(accelerator.mixed_precision),
        )
        outside_share = read_settings(recipe.teacher).outside_share
        soft_labels = pooled_soft_labels(taught, recipe.pooling, outside_share, accelerator)
        labels = LabelSet(soft_labels.card.tags)
        if test is not None:
            (test,) = rename_types([test], label_map, labels.types)
            check_types(labels, [test])
        model, encoder, settings = new_student(recipe, labels)
        windows = student_windows(taught, encoder, accelerator)
        start_run(run, recipe)

        def keep(best: JointModel) -> None:
            save_model(run.model, best, encoder.tokenizer, settings)

        evaluator = Evaluator(accelerator, encoder, labels, label_map)
        task = distillation_task(recipe, objective, soft_labels, windows, encoder, evaluator, keep)
        progress = fit(
            accelerator,
            model,
            task,
            run,
            seed=recipe.seed,
            optimization=recipe.optimization,
            hardware=recipe.hardware,
            checkpoint=recipe.checkpoint,
            tracker=make_tracker(accelerator, recipe),
        )
        scores = {}
        if test is not None:
            # The teacher's scores are the same for every student of these soft labels.
            mark = f"{test.fingerprint}{evaluator.map_mark}-{accelerator.mixed_precision}"
            cache = taught.folder / f"scores-{mark}.json"
            scores["teacher"] = evaluator.of_folder(recipe.teacher, test, cache=cache)
            scores["student"] = evaluator.of_folder(str(run.model), test, predictions=run.predictions(test.name))
        about = {
            "target": recipe.target,
            "variant": recipe.variant,
            "seed": recipe.seed,
            "types": labels.types,
            "label_map": str(label_map),
            "teacher": {"folder": recipe.teacher, "fingerprint": soft_labels.card.teacher},
            "text": {
                "fingerprint": soft_labels.card.corpus,
                "corpus_name": name_text(soft_labels.card.corpus, text) or None,
                "sentences": len(soft_labels),
            },
        }
        finish(run, accelerator, about, [test] if test else [], scores, progress)
    return path


class Objective(NamedTuple):
    """The student's loss: its choices out of the tables, and the shares of its terms."""

    recognizer: Callable[..., Tensor]
    temperature: float
    alpha: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    gamma: Callable[[Tensor, Tensor, Tensor], Tensor]
    recognizer_weight: float
    similarity_weight: float
    uses_similarity: bool
    weighs_by_student: bool

    def counts(self, batch: SoftBatch) -> Tensor:
        """Positions of the terms: word pairs, words of the first and of the second tower; (3,)."""
        first = (batch.tokens.word_mask & batch.in_first_tower[:, None]).sum()
        n_pairs = torch.tensor(batch.teacher_similarity.numel(), device=first.device)
        return torch.stack([n_pairs, first, batch.tokens.word_mask.sum() - first])

    def loss_sums(self, network: nn.Module, batch: SoftBatch) -> Tensor:
        """Weighted sums of the similarity loss and of the recognizer loss of either tower; (3,)."""
        tokens, pairs = batch.tokens, batch.word_pairs if self.similarity_weight else None
        output = network(tokens.input_ids, tokens.attention_mask, pairs)
        probs, said = batch.teacher_probs.detach(), batch.teacher_similarity.detach()
        weights = self.alpha(probs)
        similarity = torch.zeros((), device=probs.device)
        if self.uses_similarity:
            compared = output.logits.float().softmax(dim=-1) if self.weighs_by_student else probs
            first_probs, second_probs = compared.flatten(0, 1)[batch.word_pairs]
            gamma = self.gamma(first_probs, second_probs, said)
            places = batch.word_pairs.flatten()  # a pair counts for both of its words
            weights = weights * gamma_of_words(gamma.repeat(2), places, weights.numel()).view_as(weights)
            if output.similarity_logits is not None:
                trusted = output.similarity_logits.float().sigmoid() if self.weighs_by_student else said
                values = similarity_cross_entropy(output.similarity_logits, said)
                similarity = masked_sum(values, weights=gamma * self.beta(trusted))
        values = self.recognizer(output.logits, probs, temperature=self.temperature)
        first = batch.in_first_tower[:, None]
        by_tower = [masked_sum(values, tokens.word_mask & tower, weights) for tower in (first, ~first)]
        return torch.stack([similarity, *by_tower])


def make_objective(recipe: DistillRecipe) -> Objective:
    """The loss that a recipe names.

    Raises:
        RecipeError: If a name stands in no table.
    """
    return Objective(
        recognizer=choose(DISTILLATION_LOSSES, recipe.loss.recognizer, "loss.recognizer"),
        temperature=recipe.loss.temperature,
        alpha=choose(ALPHAS, recipe.weights.alpha, "weights.alpha"),
        beta=choose(BETAS, recipe.weights.beta, "weights.beta"),
        gamma=choose(GAMMAS, recipe.weights.gamma, "weights.gamma"),
        recognizer_weight=recipe.loss.recognizer_weight,
        similarity_weight=recipe.loss.similarity_weight,
        uses_similarity=recipe.loss.similarity_weight > 0 or recipe.weights.gamma != "one",
        weighs_by_student=recipe.weights.outputs == "student",
    )


def _check_similarity(recipe: DistillRecipe, objective: Objective) -> None:
    """Refuse a teacher without the head that the loss needs, before it labels a whole text."""
    missing = Path(recipe.teacher).is_dir() and not read_settings(recipe.teacher).similarity
    if objective.uses_similarity and missing:
        raise RecipeError(
            f"{recipe.teacher}: this teacher has no similarity head; set loss.similarity_weight=0 and "
            "weights.gamma=one (or variant=tsl), or train it with similarity_weight above 0"
        )


def new_student(recipe: DistillRecipe, labels: LabelSet) -> tuple[JointModel, WordEncoder, ModelSettings]:
    """The student before training: the teacher's copy, or another encoder with fresh heads."""
    taught = read_settings(recipe.teacher)
    set_seed(recipe.seed)  # fresh heads are drawn from here, alike in all processes
    with_head = recipe.loss.similarity_weight > 0
    if recipe.encoder == "teacher":
        model = load_joint_model(recipe.teacher)
        model.evaluator = None  # a student has one encoder, whatever its teacher has
        if not with_head:
            model.similarity = None
        source = recipe.teacher
    else:
        recognizer = new_recognizer(recipe.encoder, labels)
        head = new_head(taught.similarity, recognizer, taught.projection_size) if with_head else None
        model = JointModel(recognizer, head)
        source = recipe.encoder
    freeze(model.recognizer, recipe.optimization.freeze)
    encoder = word_encoder(source, model.recognizer, recipe.corpus.max_length)
    settings = ModelSettings(
        word_splitter=recipe.corpus.word_splitter,
        max_length=encoder.max_length,
        language=recipe.target,
        similarity=taught.similarity if with_head else "",
        projection_size=taught.projection_size if with_head else 0,
        outside_share=taught.outside_share,
    )
    return model, encoder, settings


def student_windows(soft_labels: SoftLabels, encoder: WordEncoder, accelerator: Accelerator) -> StoredWindows:
    """The student's windows of the text, encoded once per tokenizer and length limit."""
    path = soft_labels.folder / f"windows-{encoder.fingerprint}.arrow"
    if accelerator.is_main_process and not path.is_file():
        store_windows(path, soft_labels, encoder)
    accelerator.wait_for_everyone()
    return StoredWindows(path)


def distillation_task(
    recipe: DistillRecipe,
    objective: Objective,
    soft_labels: SoftLabels,
    windows: StoredWindows,
    encoder: WordEncoder,
    evaluator: Evaluator,
    keep: Callable[[JointModel], None],
) -> Task[SoftBatch]:
    """What the loop needs to train a student on stored soft labels."""
    held_out, trained = _split(len(windows), recipe.holdout_ratio)
    if recipe.selection == "agreement" and not len(held_out):
        raise RecipeError(
            f"selection=agreement needs text that is held out, but holdout_ratio={recipe.holdout_ratio:g} of "
            f"{len(windows):,} windows is none; raise holdout_ratio, or set selection=last"
        )
    draw = PairDraw(recipe.pairs.per_sentence, recipe.pairs.balance) if objective.uses_similarity else None
    pairs = SoftPairs(windows, soft_labels, encoder.pad_id, draw)

    def load(plan: PairPlan) -> SoftBatch:
        return pairs.batch(PairPlan(trained[plan.first], trained[plan.second], plan.seed))

    def evaluate(model: JointModel) -> tuple[float, dict[str, Any]]:
        return evaluator.agreement(model, [windows[number] for number in held_out], soft_labels), {}

    half = objective.recognizer_weight / 2
    return Task(
        lengths=windows.lengths[trained],
        load=load,
        terms=("similarity", "recognizer_first", "recognizer_second"),
        shares=(objective.similarity_weight, half, half),
        counts=objective.counts,
        loss_sums=objective.loss_sums,
        evaluate=evaluate,
        keep=keep,
        score_name="agreement_f1",
        keep_best=recipe.selection == "agreement",
    )


def _split(n_windows: int, ratio: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Held-out and training windows, in rising order; the same ones for every seed, so that runs compare."""
    n_held_out = round(n_windows * ratio)
    order = np.random.default_rng(0).permutation(n_windows)
    return np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
