"""The teacher: labelled source sentences, a recognizer and a similarity head, on one encoder or on one each."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from xlner.config.load import Value, choose
from xlner.config.schema import TeacherRecipe
from xlner.corpora.lines import corpus_path, find_corpus
from xlner.corpora.splits import (
    Corpus,
    check_types,
    encode_all,
    read_labelled,
    rename_types,
    repeated_sentences,
    window_lengths,
)
from xlner.encode import WordEncoder
from xlner.hub import revision_of
from xlner.models.card import Origin
from xlner.models.folder import ModelSettings, base_of, save_model
from xlner.models.joint import SIMILARITIES, JointModel, JointOutput, new_head
from xlner.models.token_classifier import freeze, new_recognizer, second_network
from xlner.network_outputs import twice, word_encoder
from xlner.tags import OUTSIDE, LabelMap, LabelSet
from xlner.train.accelerator import announce, make_accelerator
from xlner.train.batches import LabelledBatch, LabelledPairs, PairDraw
from xlner.train.loop import Task, fit_recipe
from xlner.train.losses import masked_sum, similarity_cross_entropy, symmetric_divergence, token_cross_entropy
from xlner.train.report import QUOTED_TEACHER, Evaluator, doubt_of_scores, finish, measured_on, trained_on
from xlner.train.run import TrainedTagger, asked_recipe, open_run, run_path, start_run

LOG = logging.getLogger("xlner")


@overload
def train_teacher(recipe: TeacherRecipe, /) -> TrainedTagger: ...
@overload
def train_teacher(**keys: Value) -> TrainedTagger: ...
def train_teacher(recipe: TeacherRecipe | None = None, /, **keys: Value) -> TrainedTagger:
    """Train a teacher and write its run folder.

        teacher = train_teacher(language="en", data="data", encoder="xlm-roberta-base", optimization={"epochs": 2})

    Args:
        recipe: From `load_recipe("teacher", [...])`, or made in Python; instead of its keys.
        keys: Keys of the recipe, sections as dicts. They mean what they mean on the command line.

    Returns:
        The run: its `tagger()`, its `report`, its `path`; `model/` within that opens in transformers, too.

    Raises:
        XlnerError: One of its kinds, for whatever the user can mend; nothing is left half-written.
        StoppedError: If the run was interrupted; the same call goes on from there.
    """
    recipe = asked_recipe(TeacherRecipe, recipe, keys)
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, f"teacher-{recipe.language}")
    accelerator = make_accelerator(recipe, path)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        folder = recipe.data, recipe.language
        train = read_labelled(corpus_path(*folder, "train"), recipe.corpus, limit=recipe.corpus.max_sentences)
        dev = read_labelled(corpus_path(*folder, "dev"), recipe.corpus)
        test_path = find_corpus(*folder, "test")
        test = read_labelled(test_path, recipe.corpus) if test_path else None
        found = [corpus for corpus in (train, dev, test) if corpus is not None]
        train, dev, *tests = rename_types(found, label_map)
        held_out = [dev, *tests]
        labels = LabelSet.of_types(train.types)
        check_types(labels, held_out)
        model, encoder, settings = new_teacher(recipe, labels)
        for warning in repeated_sentences(train, held_out):
            LOG.info(warning)
        settings = replace(settings, outside_share=outside_share(train.tags))
        start_run(run, recipe)

        def keep(best: JointModel) -> None:
            save_model(run.model, best, encoder.tokenizer, settings)

        evaluator = Evaluator(accelerator, encoder, labels)
        task = teacher_task(recipe, accelerator, encoder, labels, train, dev, evaluator, keep)
        progress = fit_recipe(
            accelerator,
            model,
            task,
            run,
            recipe,
            depends_on={
                "training corpus": train.fingerprint,
                "dev corpus": dev.fingerprint,
                "labels": " ".join(labels.tags),
            },
        )
        scores = {
            corpus.name: evaluator.of_folder(str(run.model), corpus, predictions=run.predictions(corpus.name))
            for corpus in held_out
        }
        amount = trained_on(progress.step, len(train.words), QUOTED_TEACHER, has_encoder=True)
        doubt = doubt_of_scores(scores[dev.name], dev.path, amount)
        about = {
            "language": recipe.language,
            "seed": recipe.seed,
            "types": labels.types,
            "label_map": str(label_map),
            "warnings": [doubt] if doubt else [],
        }
        measured = measured_on(held_out, [scores[corpus.name] for corpus in held_out], recipe.language)
        origin = Origin(recipe.language, (), measured, doubt)
        finish(run, accelerator, about, [train, *held_out], scores, progress, origin)
    return TrainedTagger(path)


def new_teacher(recipe: TeacherRecipe, labels: LabelSet) -> tuple[JointModel, WordEncoder, ModelSettings]:
    """A teacher before training, its heads drawn from the seed, and what its model folder will say of it."""
    choose(SIMILARITIES, recipe.similarity.kind, "similarity.kind")
    with_similarity = recipe.similarity_weight > 0
    separate = with_similarity and recipe.sharing == "separate"
    set_seed(recipe.seed)  # the fresh heads are drawn from here, alike in all processes
    revision = revision_of(recipe.encoder, recipe.encoder_revision)
    recognizer = new_recognizer(recipe.encoder, labels, revision=revision)
    freeze(recognizer, recipe.optimization.freeze)
    size = recipe.similarity.projection_size
    evaluator = second_network(recognizer) if separate else None
    model = JointModel(
        recognizer, new_head(recipe.similarity.kind, recognizer, size) if with_similarity else None, evaluator
    )
    encoder = word_encoder(recipe.encoder, recognizer, recipe.corpus.max_length, revision=revision)
    base_model, base_licence = base_of(recipe.encoder, revision)
    settings = ModelSettings(
        word_splitter=recipe.corpus.word_splitter,
        max_length=encoder.max_length,
        language=recipe.language,
        similarity=recipe.similarity.kind if with_similarity else "",
        projection_size=size if with_similarity else 0,
        sharing="separate" if separate else "joint",
        base_model=base_model,
        base_licence=base_licence,
    )
    return model, encoder, settings


def outside_share(tags: Sequence[Sequence[str]]) -> float:
    """The share of `O` among the words of labelled sentences."""
    n_words = sum(len(row) for row in tags)
    return sum(tag == OUTSIDE for row in tags for tag in row) / max(1, n_words)


def teacher_task(
    recipe: TeacherRecipe,
    accelerator: Accelerator,
    encoder: WordEncoder,
    labels: LabelSet,
    train: Corpus,
    dev: Corpus,
    evaluator: Evaluator,
    keep: Callable[[JointModel], None],
) -> Task[LabelledBatch]:
    """What the loop needs to train a teacher on labelled text."""
    windows = encode_all(encoder, train, LOG.info)
    tag_ids = [np.asarray(labels.ids(tags), dtype=np.int64) for tags in train.tags]
    with_similarity = recipe.similarity_weight > 0
    draw = PairDraw(recipe.pairs.per_sentence, recipe.pairs.balance) if with_similarity else None
    pairs = LabelledPairs(windows, tag_ids, encoder.pad_id, draw)

    def evaluate(model: JointModel) -> tuple[float, dict[str, Any]]:
        report = evaluator.quick_report(model, dev)
        return report.overall.f1, {"types": {name: round(score.f1, 2) for name, score in report.types.items()}}

    return Task(
        lengths=window_lengths(windows),
        load=pairs.batch,
        terms=("recognizer", "similarity", *(["rdrop"] if recipe.rdrop_weight else [])),
        shares=(1.0, recipe.similarity_weight, *([recipe.rdrop_weight] if recipe.rdrop_weight else [])),
        counts=_rdrop_counts if recipe.rdrop_weight else _counts,
        loss_sums=_rdrop_sums if recipe.rdrop_weight else _loss_sums,
        evaluate=evaluate,
        keep=keep,
        score_name="dev_f1",
        copies=2 if recipe.rdrop_weight else 1,
    )


def _counts(batch: LabelledBatch) -> Tensor:
    return torch.stack(
        [batch.tokens.word_mask.sum(), torch.tensor(batch.same_tag.numel(), device=batch.same_tag.device)]
    )


def _rdrop_counts(batch: LabelledBatch) -> Tensor:
    counts = _counts(batch)
    return torch.cat([counts, counts[:1]])


def _loss_sums(network: nn.Module, batch: LabelledBatch) -> Tensor:
    output = network(batch.tokens.input_ids, batch.tokens.attention_mask, batch.word_pairs)
    recognizer = masked_sum(token_cross_entropy(output.logits, batch.tag_ids), batch.tokens.word_mask)
    return torch.stack([recognizer, _similarity_sum(output, batch)])


def _rdrop_sums(network: nn.Module, batch: LabelledBatch) -> Tensor:
    """As `_loss_sums`, over two passes in one forward, and how far these are apart."""
    seen = twice(batch.tokens)
    output = network(seen.input_ids, seen.attention_mask, batch.word_pairs)
    first, second = output.logits.chunk(2)
    values = (token_cross_entropy(first, batch.tag_ids) + token_cross_entropy(second, batch.tag_ids)) / 2
    mask = batch.tokens.word_mask
    divergence = masked_sum(symmetric_divergence(first, second), mask)
    return torch.stack([masked_sum(values, mask), _similarity_sum(output, batch), divergence])


def _similarity_sum(output: JointOutput, batch: LabelledBatch) -> Tensor:
    if output.similarity_logits is None:
        return output.logits.new_zeros(())
    return masked_sum(similarity_cross_entropy(output.similarity_logits, batch.same_tag))
