"""A compact student before training: its vocabulary, its word vectors, its network; and how it is kept."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed

from xlner.data.corpus_files import existing_file
from xlner.data.soft_labels import SoftLabels
from xlner.labels import LabelSet
from xlner.models.card import CARD_FILE, Origin, compact_card
from xlner.models.folder import replaced_folder
from xlner.models.settings import ModelSettings
from xlner.schema import DistillRecipe
from xlner.students.folder import write_student
from xlner.students.hashed import hashed_encoder
from xlner.students.kinds import new_network
from xlner.students.network import CompactNetwork
from xlner.students.rows import RowEncoder
from xlner.students.settings import Sizes, StudentSettings
from xlner.students.vocabulary import VOCABULARY_FILE, Vocabulary
from xlner.training.word_vectors import spread_out, stored_vectors, teacher_vectors


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
