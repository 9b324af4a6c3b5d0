"""One compact student's training: soft labels, learnt word by word, whatever either reads."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray

from xlner.config.schema import DistillRecipe
from xlner.corpora.lines import existing_file
from xlner.corpora.splits import Corpus
from xlner.encode import Window, WordEncoder, load_tokenizer
from xlner.errors import CorpusError, RecipeError
from xlner.evaluate import EntityCounts, Report, evaluate_tags
from xlner.jobs.inputs import about_run, doubt_of_student, read_inputs, teacher_name, teacher_scores
from xlner.jobs.student import Split, distillation_task, n_parameters, student_windows
from xlner.models.card import CARD_FILE, Origin, compact_card
from xlner.models.compact import CompactNetwork, new_network
from xlner.models.compact_folder import load_network, write_student
from xlner.models.compact_words import FIRST, VOCABULARY_FILE, RowEncoder, Vocabulary, hashed_encoder, looked_up
from xlner.models.folder import load_joint_model, replaced_folder
from xlner.models.settings import ModelSettings, Sizes, StudentSettings
from xlner.predict import decide_tags, word_probs
from xlner.soft_labels.augment import with_augmented
from xlner.soft_labels.source_text import source_language
from xlner.soft_labels.steps import check_denoising
from xlner.soft_labels.store import SoftLabels
from xlner.tagger import load_tagger
from xlner.tags import LabelMap, LabelSet
from xlner.torch_backend import TorchBackend
from xlner.train.accelerator import announce, autocast_dtype, make_accelerator
from xlner.train.loop import Task, fit_recipe
from xlner.train.objectives import make_compact_objective
from xlner.train.report import (
    Evaluator,
    Scores,
    counted_report,
    measured_on,
    score_table,
    tell_doubts,
    write_predictions,
    write_report,
)
from xlner.train.run import open_run, run_path, start_run

# What the word vectors of a compact student start from: its teacher's table of pieces, or a text file.
#
# Source: for the teacher's own table, reduced in width, Mukherjee and Awadallah 2020 (arXiv:2004.05686), section 4.


# Spread of the numbers that a vector starts with; what was not found is drawn with the same.
SPREAD = 0.3
Vectors = NDArray[np.float32]


def teacher_vectors(teacher: str, words: Sequence[str], forms: Mapping[str, int], size: int) -> Vectors:
    """A vector for each word of a vocabulary: the mean of its pieces in the teacher's table, over its written forms.

    The widths of the table are reduced to the directions in which the words differ most.

    Args:
        teacher: Model folder or hub name.
        words: Of the vocabulary, in the form under which they are looked up.
        forms: How often each written form occurs.
        size: Width of the result.

    Returns:
        (words, size) around 0; zeros for what the tokenizer makes nothing of.
    """
    embeddings: Any = load_joint_model(teacher).recognizer.get_input_embeddings()
    table: Vectors = embeddings.weight.detach().float().numpy()
    encoder = WordEncoder(load_tokenizer(teacher))
    n_special = len(encoder.prefix), len(encoder.suffix)
    places = {word: place for place, word in enumerate(words)}
    written = [form for form in forms if looked_up(form) in places]
    sums = np.zeros((len(words), table.shape[1]), dtype=np.float64)
    for window in encoder.encode([[form] for form in written]):
        pieces = window.piece_ids[n_special[0] : len(window.piece_ids) - n_special[1]]
        form = written[window.sentence]
        sums[places[looked_up(form)]] += forms[form] * table[pieces].mean(axis=0)
    counts = np.zeros(len(words))
    for form in written:
        counts[places[looked_up(form)]] += forms[form]
    found = sums / np.maximum(counts, 1.0)[:, None]
    seen: NDArray[np.bool_] = np.any(found, axis=1)
    if not seen.any():
        return np.zeros((len(words), size), dtype=np.float32)
    centred = np.where(seen[:, None], found - found[seen].mean(axis=0), 0.0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    reduced = centred @ directions[:, ::-1][:, :size]
    vectors = np.zeros((len(words), size), dtype=np.float32)
    vectors[:, : reduced.shape[1]] = reduced
    return vectors


def stored_vectors(path: Path, words: Sequence[str], size: int) -> Vectors:
    """The vectors of a text file, a word and `size` numbers a line, as word2vec, GloVe and fastText write them.

    A first line of two numbers, the counts, is passed over. The file is read line by line. A word is taken as it is
    written in the vocabulary; without it, the first line whose word is looked up under it counts.

    Returns:
        (words, size); zeros for words that are not in the file.

    Raises:
        CorpusError: If it cannot be read, or a line has another number of numbers; with the line.
    """
    places = {word: place for place, word in enumerate(words)}
    vectors = np.zeros((len(words), size), dtype=np.float32)
    exact = np.zeros(len(words), dtype=bool)
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                word, *values = line.rstrip("\n ").split(" ")
                if number == 1 and len(values) == 1:
                    continue
                place = places.get(looked_up(word))
                if len(values) != size:
                    raise CorpusError(
                        f"{path}:{number}: expected a word and {size} numbers (compact.word_size), found "
                        f"{len(values)}: {line[:40]!r}; set compact.word_size to the width of the file"
                    )
                if place is None or exact[place] or (word != words[place] and vectors[place].any()):
                    continue
                vectors[place], exact[place] = np.asarray(values, dtype=np.float32), word == words[place]
    except (OSError, ValueError) as problem:
        raise CorpusError(f"{path}: cannot be read as word vectors: {problem}") from problem
    return vectors


def spread_out(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    """A table for the student, (FIRST + words, size): the vectors at one spread, others where they are zeros."""
    known: NDArray[np.bool_] = np.any(vectors, axis=1)
    scaled = vectors * (SPREAD / vectors[known].std()) if known.any() else vectors
    drawn = rng.normal(0.0, SPREAD, vectors.shape)
    table = np.zeros((FIRST + len(vectors), vectors.shape[1]), dtype=np.float32)
    table[FIRST:] = np.where(known[:, None], scaled, drawn)
    return table


# A compact student before training: its vocabulary, its word vectors, its network; and how it is kept.


@dataclass(frozen=True)
class NewStudent:
    """A network and all that goes into its folder; a linear student has no vocabulary."""

    network: CompactNetwork
    encoder: RowEncoder
    settings: StudentSettings
    model_settings: ModelSettings
    vocabulary: Vocabulary | None

    def save(self, folder: Path, network: CompactNetwork) -> None:
        """Write the model folder; an existing one is replaced only once the new one is whole."""
        weights = {name: value.detach().float().cpu().numpy() for name, value in network.state_dict().items()}
        with replaced_folder(folder) as unfinished:
            write_student(unfinished, self.settings, weights, self.model_settings)
            if self.vocabulary is not None:
                self.vocabulary.save(unfinished / VOCABULARY_FILE)
            self.write_card(unfinished, title=folder.parent.name if folder.name == "model" else folder.name)

    def write_card(self, folder: Path, title: str, origin: Origin | None = None) -> None:
        """Write the card, or write it anew when more is known."""
        card = compact_card(
            title,
            self.settings.labels,
            self.model_settings,
            kind=self.settings.kind,
            origin=origin or Origin(),
        )
        card.save(folder / CARD_FILE)


def new_compact_student(recipe: DistillRecipe, labels: LabelSet, text: SoftLabels) -> NewStudent:
    """The student before training.

    Args:
        recipe: Of the run.
        labels: Of the soft labels.
        text: The words that it will be trained on; its vocabulary is made of them.
    """
    own = recipe.compact
    vocabulary, forms = None, Counter[str]()
    if recipe.student == "linear":
        encoder = hashed_encoder(recipe.corpus.max_length)
        sizes = Sizes(0, 0, 0, 0, 0, 0, 0, 0, own.buckets)
    else:
        for number in range(len(text)):
            forms.update(text.words(number))
        vocabulary = Vocabulary.of_forms(forms, n_words=own.words, min_frequency=own.min_frequency)
        encoder = vocabulary.encoder(n_chars=own.chars, max_words=recipe.corpus.max_length)
        sizes = Sizes(
            n_words=vocabulary.n_words,
            n_characters=vocabulary.n_characters,
            word_size=own.word_size,
            n_chars=own.chars,
            char_size=own.char_size,
            char_filters=own.char_filters,
            hidden_size=own.hidden_size,
            layers=own.layers,
        )
    settings = StudentSettings(recipe.student, own.decoder, labels.tags, sizes, recipe.corpus.max_length)
    set_seed(recipe.seed)
    network = new_network(settings, encoder.width, dropout=own.dropout, unknown_ratio=own.unknown_ratio)
    if vocabulary is not None and own.vectors != "random":
        vectors = (
            teacher_vectors(recipe.model_teachers[0], vocabulary.words, forms, own.word_size)
            if own.vectors == "teacher"
            else stored_vectors(existing_file(own.vectors), vocabulary.words, own.word_size)
        )
        table = torch.from_numpy(spread_out(vectors, np.random.default_rng(recipe.seed)))
        network.get_submodule("body.vectors.words").get_parameter("weight").data.copy_(table)
    model_settings = ModelSettings(word_splitter=recipe.corpus.word_splitter, language=recipe.target)
    return NewStudent(network, encoder, settings, model_settings, vocabulary)


# Scores of compact students, during training and of the finished folder.


BATCH_WORDS = 4096


class CompactEvaluator:
    """Scores networks of words, the processes sharing the work; in the run's number format, the result in float32."""

    def __init__(self, accelerator: Accelerator, encoder: RowEncoder, labels: LabelSet, label_map: LabelMap) -> None:
        self._accelerator, self._encoder, self._labels, self._label_map = accelerator, encoder, labels, label_map

    def quick_report(self, model: CompactNetwork, corpus: Corpus) -> Report:
        """Scores during training, each process on its share of the sentences."""
        rank, n = self._accelerator.process_index, self._accelerator.num_processes
        gold, words = corpus.tags[rank::n], corpus.words[rank::n]
        types = corpus.types + self._labels.types

        def count() -> EntityCounts:
            return EntityCounts.of(types, gold, [self._label_map.apply(tags) for tags in self._tags(model, words)])

        return counted_report(self._accelerator, types, count)

    def agreement(self, model: CompactNetwork, windows: Sequence[Window], soft_labels: SoftLabels) -> float:
        """Entity F1 in percent against the likeliest tags of soft labels, in the sentences of these windows."""
        rank, n = self._accelerator.process_index, self._accelerator.num_processes
        numbers = sorted({window.sentence for window in windows})[rank::n]
        taught = [soft_labels.probs(number).astype(np.float32) for number in numbers]
        gold = [decide_tags(probs, self._labels) for probs in taught]
        words = [soft_labels.words(number) for number in numbers]

        def count() -> EntityCounts:
            return EntityCounts.of(self._labels.types, gold, self._tags(model, words))

        return counted_report(self._accelerator, self._labels.types, count).overall.f1

    def of_folder(self, folder: Path, corpus: Corpus, predictions: Path) -> Scores:
        """The quoted scores, by seqeval, of the finished folder as users open it; the main process alone works.

        Args:
            folder: Model folder.
            corpus: What it is scored on.
            predictions: File that gets word, tag of the corpus and predicted tag.

        Returns:
            As `Report.to_json`; empty in all processes but the main one.
        """
        if not self._accelerator.is_main_process:
            return {}
        predicted = [tuple(tags) for tags in load_tagger(folder).tag_sentences(corpus.words)]
        found = evaluate_tags(self._labels.types, corpus.tags, predicted, self._label_map)
        for note in found.report.notes():
            self._accelerator.print(f"{corpus.path}: {note}")
        write_predictions(predictions, corpus.words, found.gold, found.predicted)
        return found.report.to_json()

    def _tags(self, model: CompactNetwork, sentences: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        backend = TorchBackend(model, self._accelerator.device, autocast_dtype(self._accelerator.mixed_precision))
        found = word_probs(
            backend,
            self._encoder,
            sentences,
            n_tags=len(self._labels.tags),
            batch_pieces=BATCH_WORDS * self._encoder.width,
        )
        return [decide_tags(probs, self._labels) for probs in found]


# One compact student's training: the soft labels of a teacher, learnt word by word, whatever either reads.


def train_compact_student(recipe: DistillRecipe) -> Path:
    """Train one compact student on unlabelled text and write its run folder.

    Returns and Raises as for `distill`.
    """
    check_denoising(recipe)
    label_map = LabelMap.parse(recipe.labels.map)
    path = run_path(recipe.run, recipe.target)
    accelerator = make_accelerator(recipe, path)
    with open_run(path, recipe, writes=accelerator.is_main_process) as run:
        announce(accelerator, run)
        inputs = read_inputs(recipe, label_map, accelerator, uses_similarity=False)
        taught, labels, test = inputs.taught, inputs.labels, inputs.test
        soft_labels, words, n_target = inputs.soft_labels, inputs.words, inputs.n_target
        held_out_sentences = held_out_of(n_target, recipe)
        student = new_compact_student(recipe, labels, words)
        if recipe.compact.augment:
            trained = [number for number in range(n_target) if number not in held_out_sentences]
            soft_labels = words = with_augmented(
                soft_labels, trained, recipe, accelerator, autocast_dtype(accelerator.mixed_precision)
            )
        objective = make_compact_objective(recipe, labels.tags, student.encoder.width)
        windows = student_windows(words, student.encoder, accelerator)
        split = split_sentences(windows, held_out_sentences)
        held_out = [windows[number] for number in split.held_out]
        start_run(run, recipe)
        accelerator.print(
            f"{recipe.student}: {n_parameters(student.network):,} parameters, {len(split.trained):,} windows of words"
        )
        evaluator = CompactEvaluator(accelerator, student.encoder, labels, label_map)

        def keep(best: CompactNetwork) -> None:
            student.save(run.model, best)

        def evaluate(network: CompactNetwork) -> tuple[float, dict[str, Any]]:
            return inputs.selection.score(network, evaluator, held_out, soft_labels)

        task: Task[Any] = distillation_task(
            recipe,
            objective,
            soft_labels,
            windows,
            split,
            student.encoder.pad_id,
            evaluate,
            inputs.selection.score_name,
            keep,
        )
        progress = fit_recipe(
            accelerator,
            student.network,
            task,
            run,
            recipe,
            made_of={
                "teacher": taught.soft_labels.card.teacher,
                "text": taught.soft_labels.card.corpus,
                "labels": " ".join(labels.tags),
                "rows": student.encoder.fingerprint,
            },
        )
        scores: dict[str, Scores] = {}
        if test is not None:
            of_models = Evaluator(accelerator, student.encoder, labels, label_map)
            scores |= teacher_scores(recipe, taught, of_models, test)
            scores["student"] = evaluator.of_folder(run.model, test, run.predictions(test.name))
        kept = load_network(run.model, student.settings, student.encoder).to(accelerator.device)
        agreement = evaluator.agreement(kept, held_out, soft_labels) if held_out else None
        doubt = doubt_of_student(
            recipe, inputs, progress, None if test is None else scores["student"], agreement, held_out
        )
        about = about_run(recipe, inputs, n_parameters(student.network), doubt) | {
            "types": labels.types,
            "label_map": str(label_map),
            "agreement_f1": None if agreement is None else round(agreement, 3),
        }
        teachers = tuple([teacher_name(name) for name in recipe.teachers])
        measured = [] if test is None else measured_on([test], [scores["student"]], recipe.target)
        accelerator.print(f"\n{score_table(scores)}")
        if doubt:
            tell_doubts(accelerator, [doubt])
        if run.writes:
            origin = Origin(source_language(recipe), teachers, measured, doubt)
            student.write_card(run.model, run.path.name, origin)
        write_report(run, accelerator, about, [test] if test else [], scores, progress)
    return path


def held_out_of(n_sentences: int, recipe: DistillRecipe) -> frozenset[int]:
    """The sentences of the target text that are kept out of training; the same ones for every seed.

    Raises:
        RecipeError: If the selection needs some, and there are none.
    """
    n_held_out = round(n_sentences * recipe.holdout_ratio)
    if recipe.selection in ("agreement", "score") and not n_held_out:
        raise RecipeError(
            f"selection={recipe.selection} needs text that is held out, but holdout_ratio={recipe.holdout_ratio:g} of "
            f"{n_sentences:,} sentences is none; raise holdout_ratio, or set selection=last"
        )
    return frozenset(np.random.default_rng(0).permutation(n_sentences)[:n_held_out].tolist())


def split_sentences(windows: Sequence[Window], held_out: frozenset[int]) -> Split:
    """The windows of held-out sentences, and all others."""
    is_held_out = np.asarray([window.sentence in held_out for window in windows], dtype=bool)
    return Split(np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out))
