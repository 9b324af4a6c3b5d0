"""A compact student: its word vectors, its scores, its network; it learns word by word, whatever its teacher reads."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray

from xlner.config.schema import DistillRecipe
from xlner.corpora.lines import existing_file
from xlner.encode import WordEncoder, load_tokenizer
from xlner.errors import CorpusError, RecipeError
from xlner.jobs.inputs import StudentInputs, steps_of
from xlner.jobs.student import Student, held_out_of
from xlner.models.card import CARD_FILE, Origin, compact_card
from xlner.models.compact import CompactNetwork, new_network
from xlner.models.compact_folder import load_network, write_student
from xlner.models.compact_words import FIRST, VOCABULARY_FILE, Vocabulary, hashed_encoder, looked_up
from xlner.models.folder import load_joint_model, replaced_folder
from xlner.models.settings import ModelSettings, Sizes, StudentSettings
from xlner.soft_labels.augment import with_augmented
from xlner.soft_labels.label import begins_with_compact
from xlner.train.objectives import CompactWords, Objective, SoftText, WordLoss
from xlner.train.report import Evaluator
from xlner.train.run import autocast_dtype

LOG = logging.getLogger("xlner")

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
    for word, values in _vector_lines(path, size):
        place = places.get(looked_up(word))
        if place is None or exact[place] or (word != words[place] and vectors[place].any()):
            continue
        try:
            vectors[place], exact[place] = np.asarray(values, dtype=np.float32), word == words[place]
        except ValueError as problem:
            raise CorpusError(f"{path}: cannot be read as word vectors: {problem}") from problem
    return vectors


def with_words_of(vocabulary: Vocabulary, path: Path, size: int) -> Vocabulary:
    """The vocabulary with all words of a file of vectors behind its own, in the form under which they are looked up."""
    more = dict.fromkeys(looked_up(word) for word, _ in _vector_lines(path, size))
    return replace(vocabulary, words=tuple(dict.fromkeys([*vocabulary.words, *more])))


def _vector_lines(path: Path, size: int) -> Iterator[tuple[str, list[str]]]:
    """The lines of a file of vectors: the word, and the numbers as they are written.

    A few words hold spaces, as `. . .` of GloVe does: what stands before the last `size` numbers and is none itself is
    of the word.

    Raises:
        CorpusError: If it cannot be read, or a line has another number of numbers; with the line.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                word, *values = line.rstrip("\n ").split(" ")
                if (more := len(values) - size) > 0 and not all(map(_is_number, values[:more])):
                    word, values = " ".join([word, *values[:more]]), values[more:]
                if number == 1 and len(values) <= 1:  # how many words and numbers there are
                    continue
                if len(values) != size:
                    raise CorpusError(
                        f"{path}:{number}: expected a word and {size} numbers (compact.word_size), found "
                        f"{len(values)}: {line[:40].rstrip()!r}; set compact.word_size to the width of the file"
                    )
                yield word, values
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be read as word vectors: {problem}") from problem


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def spread_out(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    """A table for the student, (FIRST + words, size): the vectors at one spread, others where they are zeros."""
    known: NDArray[np.bool_] = np.any(vectors, axis=1)
    scaled = vectors * (SPREAD / vectors[known].std()) if known.any() else vectors
    drawn = rng.normal(0.0, SPREAD, vectors.shape)
    table = np.zeros((FIRST + len(vectors), vectors.shape[1]), dtype=np.float32)
    table[FIRST:] = np.where(known[:, None], scaled, drawn)
    return table


# The student itself.

BATCH_WORDS = 4096  # that are scored together


class CompactStudent(Student):
    """A network of words: a BiLSTM, convolutions, or one table; a linear student has no vocabulary."""

    def __init__(self, recipe: DistillRecipe, inputs: StudentInputs, accelerator: Accelerator) -> None:
        labels, own = inputs.labels, recipe.compact
        self.soft_labels, self.words = inputs.soft_labels, inputs.words
        vocabulary, forms = None, Counter[str]()
        if recipe.student == "linear":
            encoder = hashed_encoder(recipe.corpus.max_length)
            sizes = Sizes(0, 0, 0, 0, 0, 0, 0, 0, own.buckets)
        else:
            for number in range(len(inputs.words)):
                forms.update(inputs.words.words(number))
            vocabulary = Vocabulary.of_forms(forms, n_words=own.words, min_frequency=own.min_frequency)
            if own.whole_vectors:
                vocabulary = with_words_of(vocabulary, existing_file(own.vectors), own.word_size)
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
        self.settings = StudentSettings(recipe.student, own.decoder, labels.tags, sizes, recipe.corpus.max_length)
        set_seed(recipe.seed)
        self.network: CompactNetwork = new_network(
            self.settings, encoder.width, dropout=own.dropout, unknown_ratio=own.unknown_ratio
        )
        if vocabulary is not None and own.vectors != "random":
            vectors = (
                teacher_vectors(recipe.model_teachers[0], vocabulary.words, forms, own.word_size)
                if own.vectors == "teacher"
                else stored_vectors(existing_file(own.vectors), vocabulary.words, own.word_size)
            )
            table = torch.from_numpy(spread_out(vectors, np.random.default_rng(recipe.seed)))
            self.network.get_submodule("body.vectors.words").get_parameter("weight").data.copy_(table)
        self.encoder, self._vocabulary = encoder, vocabulary
        self._model_settings = ModelSettings(word_splitter=recipe.corpus.word_splitter, language=recipe.target)
        self.evaluator = Evaluator(
            accelerator, encoder, labels, inputs.label_map, batch_pieces=BATCH_WORDS * encoder.width
        )
        self._recipe = recipe
        self.depends_on = {"rows": encoder.fingerprint}
        if own.augment:
            held_out = held_out_of(inputs.n_target, recipe)
            trained = [number for number in range(inputs.n_target) if number not in held_out]
            self.soft_labels = self.words = with_augmented(
                self.soft_labels,
                trained,
                own.augment,
                recipe.seed,
                inputs.teachers,
                steps_of(recipe),
                accelerator,
                autocast_dtype(accelerator.mixed_precision),
            )

    @staticmethod
    def check(recipe: DistillRecipe) -> bool:
        """See `Student.check`."""
        WordLoss(recipe.loss, recipe.weights.alpha)
        if recipe.student != "linear" and recipe.compact.vectors not in ("random", "teacher"):
            next(_vector_lines(existing_file(recipe.compact.vectors), recipe.compact.word_size), None)
        if recipe.compact.whole_vectors and recipe.compact.vectors in ("random", "teacher"):
            raise RecipeError("compact.whole_vectors=true needs a file of vectors; give compact.vectors=FILE")
        if (
            recipe.student != "linear"
            and recipe.compact.vectors == "teacher"
            and begins_with_compact(recipe.model_teachers)
        ):
            raise RecipeError(
                f"teacher={recipe.model_teachers[0]}: is a compact student, without table of pieces; give "
                "compact.vectors=random or a file"
            )
        return False

    def objective(self, text: SoftText) -> Objective[Any]:
        """See `Student.objective`; how large network and text are is told."""
        recipe = self._recipe
        LOG.info(f"{recipe.student}: {self.n_parameters:,} parameters, {len(text.lengths):,} windows of words")
        loss = WordLoss(recipe.loss, recipe.weights.alpha)
        return CompactWords(text, loss, recipe.loss.recognizer_weight, recipe.compact, recipe.optimization.epochs)

    def save(self, folder: Path, network: CompactNetwork) -> None:
        """Write the model folder; an existing one is replaced only once the new one is whole."""
        weights = {name: value.detach().float().cpu().numpy() for name, value in network.state_dict().items()}
        with replaced_folder(folder) as unfinished:
            write_student(unfinished, self.settings, weights, self._model_settings)
            if self._vocabulary is not None:
                self._vocabulary.save(unfinished / VOCABULARY_FILE)
            self.write_card(unfinished, folder.parent.name if folder.name == "model" else folder.name, Origin())

    def load(self, folder: Path) -> CompactNetwork:
        """See `Student.load`."""
        return load_network(folder, self.settings, self.encoder)

    def write_card(self, folder: Path, title: str, origin: Origin) -> None:
        """Write the card, or write it anew when more is known."""
        settings = self.settings
        card = compact_card(title, settings.labels, self._model_settings, kind=settings.kind, origin=origin)
        card.save(folder / CARD_FILE)
