"""The teacher: labelled source sentences, a recognizer and a similarity head, on one encoder or on one each."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from accelerate.utils import set_seed

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
)
from xlner.encode import WordEncoder
from xlner.hub import revision_of
from xlner.jobs.doubts import QUOTED_TEACHER, doubt_of_scores, trained_on
from xlner.models.card import Origin
from xlner.models.folder import base_of, save_model
from xlner.models.inference import word_encoder
from xlner.models.joint import SIMILARITIES, JointModel, new_head
from xlner.models.settings import ModelSettings
from xlner.models.token_classifier import new_recognizer, ready_to_train, second_network
from xlner.tags import OUTSIDE, LabelMap, LabelSet
from xlner.train.loop import Validation, fit
from xlner.train.mtmt import LabelledPairs
from xlner.train.objectives import LabelledText, LabelledWords, Objective
from xlner.train.report import Evaluator, finish, measured_on
from xlner.train.run import TrainedTagger, announce, asked_recipe, make_accelerator, open_run, run_path, start_run

LOG = logging.getLogger("xlner")


@overload
def train_teacher(recipe: TeacherRecipe, /) -> TrainedTagger: ...
@overload
def train_teacher(**keys: Value) -> TrainedTagger: ...
def train_teacher(recipe: TeacherRecipe | None = None, /, **keys: Value) -> TrainedTagger:
    """Train a teacher and write its run folder.

        teacher = train_teacher(language="en", data="data", encoder="xlm-roberta-base", optimization={"epochs": 2})

    Args:
        recipe: From `load_recipe("teacher", [...])`; instead of its keys.
        keys: Keys of the recipe, sections as dicts. They mean what they mean on the command line.

    Returns:
        The run: its `tagger()`, its `report`, its `path`; `model/` within that opens in transformers, too.

    Raises:
        XlnerError: One of its kinds, for whatever the user can mend; nothing is left half-written.
        StoppedError: If the run was interrupted; the same call goes on from there.
    """
    return TrainedTagger(train_tagger(asked_recipe(TeacherRecipe, recipe, keys)))


def train_tagger(recipe: TeacherRecipe, given: tuple[Corpus, Corpus] | None = None, types: Sequence[str] = ()) -> Path:
    """Train a teacher and write its run folder.

    Args:
        recipe: Of the teacher.
        given: What it is trained on and scored on while it is trained; None: the corpora of the recipe.
        types: Those that it shall know, too.

    Returns and Raises as for `train_teacher`.
    """
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, f"teacher-{recipe.language}")
    accelerator = make_accelerator(recipe.hardware, path, trackers=recipe.trackers)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        train, dev, *tests = given or rename_types(_corpora(recipe), label_map)
        held_out = [dev, *tests]
        labels = LabelSet.of_types({*train.types, *types})
        check_types(labels, held_out)
        model, encoder, settings = new_teacher(recipe, labels)
        # Of a teacher that learns from a few target labels all are of one file.
        for warning in repeated_sentences(train, [corpus for corpus in held_out if corpus.path != train.path]):
            LOG.info(warning)
        settings = replace(settings, outside_share=outside_share(train.tags))
        start_run(run, recipe)

        evaluator = Evaluator(accelerator, encoder, labels)
        objective = teacher_objective(recipe, encoder, labels, train)
        validation = DevScore(evaluator, dev, run.model, encoder, settings)
        depends_on = {
            "training corpus": train.fingerprint,
            "dev corpus": dev.fingerprint,
            "labels": " ".join(labels.tags),
        }
        progress = fit(accelerator, model, objective, validation, run, recipe, depends_on)
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
        text = f"{len(train.words):,} labelled sentences, {train.known_as or recipe.language}"
        origin = Origin(recipe.language, text, scores=measured, warning=doubt)
        finish(run, accelerator, about, [train, *held_out], scores, progress, origin)
    return path


def _corpora(recipe: TeacherRecipe) -> list[Corpus]:
    """Train, dev, and test where there is one."""
    folder = recipe.data, recipe.language
    train = read_labelled(corpus_path(*folder, "train"), recipe.corpus, limit=recipe.corpus.max_sentences)
    dev = read_labelled(corpus_path(*folder, "dev"), recipe.corpus)
    test = find_corpus(*folder, "test")
    return [train, dev, *([read_labelled(test, recipe.corpus)] if test else [])]


def new_teacher(recipe: TeacherRecipe, labels: LabelSet) -> tuple[JointModel, WordEncoder, ModelSettings]:
    """A teacher before training, its heads drawn from the seed, and what its model folder will say of it."""
    choose(SIMILARITIES, recipe.similarity.kind, "similarity.kind")
    with_similarity = recipe.similarity_weight > 0
    separate = with_similarity and recipe.sharing == "separate"
    set_seed(recipe.seed)  # the fresh heads are drawn from here, alike in all processes
    revision = revision_of(recipe.encoder, recipe.encoder_revision)
    recognizer = new_recognizer(recipe.encoder, labels, revision=revision)
    optimization = recipe.optimization
    ready_to_train(
        recognizer,
        optimization.freeze,
        gradient_checkpointing=optimization.gradient_checkpointing,
        lora=optimization.lora,
    )
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


def teacher_objective(recipe: TeacherRecipe, encoder: WordEncoder, labels: LabelSet, train: Corpus) -> Objective[Any]:
    """What a teacher is trained on: labelled words, and word pairs where the recipe wants the similarity task."""
    tag_ids = [np.asarray(labels.ids(tags), dtype=np.int64) for tags in train.tags]
    text = LabelledText(encode_all(encoder, train, LOG.info), tag_ids, encoder.pad_id)
    if recipe.similarity_weight:
        return LabelledPairs(text, recipe.pairs, recipe.similarity_weight)
    return LabelledWords(text)


class DevScore(Validation):
    """F1 on the source language's dev set."""

    score_name = "dev_f1"

    def __init__(
        self, evaluator: Evaluator, dev: Corpus, folder: Path, encoder: WordEncoder, settings: ModelSettings
    ) -> None:
        """Take what the score is of, and what a model folder says beside the network."""
        self._evaluator, self._dev = evaluator, dev
        self._folder, self._tokenizer, self._settings = folder, encoder.tokenizer, settings

    def score(self, network: JointModel) -> tuple[float, dict[str, Any]]:
        """See `Validation.score`."""
        report = self._evaluator.quick_report(network, self._dev)
        return report.overall.f1, {"types": {name: round(score.f1, 2) for name, score in report.types.items()}}

    def keep(self, network: JointModel) -> None:
        """See `Validation.keep`."""
        save_model(self._folder, network, self._tokenizer, self._settings)
