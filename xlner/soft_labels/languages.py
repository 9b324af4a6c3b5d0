"""Teachers weighed by how like their languages are to the target, by a language identifier that knows those alone."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from xlner.arrow_files import in_blocks
from xlner.corpora.lines import corpus_path
from xlner.encode import WordEncoder
from xlner.errors import CorpusError, ModelError, RecipeError
from xlner.hub import is_there
from xlner.models.folder import load_joint_model, read_settings
from xlner.models.inference import word_encoder, word_vectors
from xlner.models.joint import JointModel
from xlner.predict import within_pieces
from xlner.soft_labels.label import Teachers, target_stream, text_fingerprint
from xlner.soft_labels.store import BLOCK, SoftLabels

LOG = logging.getLogger("xlner")

# How like a text is to each source language: a language identifier that knows the source languages alone.
#
# A multinomial logistic regression on sentence vectors of a frozen encoder, centred and scaled; what it says of
# sentences of the *target* language, which is none of its choices, tells which source they are like. Shapes: N
# sentences, D width of the vectors, L source languages.
#
# Source: the idea is that of Wu et al. 2020 (2020.acl-main.581), section 3.2.


Vectors = NDArray[np.float32]

HELD_OUT = 0.2  # share of the source sentences that accuracy and temperature are measured on
L2 = 1e-3  # times half the squared norm of the weights, beside the mean loss of a sentence
# Temperatures that are tried; below 1 an identifier is made more certain, which nothing here needs.
TEMPERATURES = np.geomspace(1.0, 100.0, 200)


class LanguageIdentifier(NamedTuple):
    """Centre and scale (D,) of the vectors, weights (D, L), offsets (L,); temperature; held-out accuracy in percent."""

    centre: Vectors
    scale: Vectors
    weights: Vectors
    offsets: Vectors
    temperature: float
    accuracy: float

    def logits(self, vectors: Vectors) -> Vectors:
        """Before the temperature, (N, L)."""
        found = (vectors - self.centre) / self.scale @ self.weights + self.offsets
        return found.astype(np.float32)

    def probs(self, vectors: Vectors) -> NDArray[np.float64]:
        """How like each sentence is to each source language, (N, L), each row summing to 1."""
        return _softmax(self.logits(vectors).astype(np.float64) / self.temperature)


def identify_languages(vectors: Vectors, languages: NDArray[np.int64], n_languages: int) -> LanguageIdentifier:
    """Learn to tell languages apart; the same sentences give the same identifier.

    The temperature is the one of the highest likelihood of held-out sentences: it takes back what the regression is
    too certain of. A language counts as much as another one, however many sentences it has.

    Args:
        vectors: Of sentences, (N, D).
        languages: The number of the language of each, (N,).
        n_languages: L, at least 2; each language has at least 5 sentences.
    """
    order = np.random.default_rng(0).permutation(len(vectors))
    n_held_out = max(1, round(HELD_OUT * len(order)))
    held_out, trained = order[:n_held_out], order[n_held_out:]
    centre = vectors[trained].mean(axis=0)
    scale = vectors[trained].std(axis=0) + 1e-6
    regression = LogisticRegression(C=1 / (L2 * len(trained)), class_weight="balanced", max_iter=1000)
    regression.fit((vectors[trained] - centre) / scale, languages[trained])
    raw = LanguageIdentifier(centre, scale, *_of_each(regression, n_languages), 1.0, 0.0)
    logits, truth = raw.logits(vectors[held_out]).astype(np.float64), languages[held_out]
    losses = [-np.log(_softmax(logits / value)[np.arange(len(truth)), truth] + 1e-12).mean() for value in TEMPERATURES]
    accuracy = 100.0 * float((logits.argmax(axis=1) == truth).mean())
    return raw._replace(temperature=float(TEMPERATURES[int(np.argmin(losses))]), accuracy=accuracy)


def _of_each(regression: LogisticRegression, n_languages: int) -> tuple[Vectors, Vectors]:
    """Weights (D, L) and offsets (L,); scikit-learn tells two languages apart by one set of weights."""
    weights, offsets = regression.coef_.T.astype(np.float32), regression.intercept_.astype(np.float32)
    if n_languages == 2:
        half = np.float32(0.5)
        return np.hstack([-weights, weights]) * half, np.concatenate([-offsets, offsets]) * half
    return weights, offsets


def teacher_weights(probs: NDArray[np.float64], languages: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weight of each teacher in each sentence, (N, T); teachers of one language share what it has.

    Args:
        probs: Of the languages, (N, L).
        languages: The number of the language of each teacher, (T,).
    """
    n_teachers = np.bincount(languages, minlength=probs.shape[1])
    shared: NDArray[np.float64] = (probs / np.maximum(n_teachers, 1))[:, languages]
    return shared


def effective_number(weights: NDArray[np.float64]) -> float:
    """The exponential of the entropy of weights (T,): as many equal ones would be as mixed as these."""
    shares = weights[weights > 0] / weights.sum()
    return math.exp(-float((shares * np.log(shares)).sum()))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probs


# No label is read: a language identifier learns from the words of the source languages' training text.


# Sentences of a source language, and (for one weight for all) of the target, that are looked at.
N_SENTENCES = 3000
LEAST_SENTENCES = 20
# What asks for languages: a recipe, or the option --data of `xlner rank-sources`.
WANTS_LANGUAGES = "mixing.weights=language (or --data)"
LAST_LAYERS = slice(-4, None)  # whose mean makes the vectors of words


@dataclass(frozen=True)
class SourceLanguages:
    """The languages of the teachers in alphabetical order, where their text lies, and the number of each teacher's."""

    names: tuple[str, ...]
    texts: tuple[Path, ...]
    of_teachers: tuple[int, ...]

    def fingerprints(self, teachers: Teachers) -> list[str]:
        """Of the texts without their labels, as far as they are looked at."""
        corpus = replace(teachers.corpus, max_sentences=N_SENTENCES)
        return [text_fingerprint(path, corpus)[0] for path in self.texts]


def source_languages(teachers: Teachers) -> SourceLanguages:
    """The languages of all teachers.

    Raises:
        ModelError: If there is no such teacher.
        RecipeError: If one does not say its language, its text is missing or short, or all have one language.
    """
    languages = [read_settings(teacher).language for teacher in teachers.names]
    texts: dict[str, Path] = {}
    for teacher, language in zip(teachers.names, languages, strict=True):
        if not language and not is_there(teacher):
            raise ModelError(f"{teacher}: no such folder, nor a model of the hub; expected that of a teacher")
        if not language:
            raise RecipeError(
                f"{WANTS_LANGUAGES}: {teacher} does not say its language; "
                'write {"language": "en"} into its xlner.json, or do without'
            )
        try:
            texts[language] = corpus_path(teachers.data, language, "train")
        except CorpusError as problem:
            raise RecipeError(f"{WANTS_LANGUAGES} needs text of {language}, for {teacher}: {problem}") from problem
    if len(texts) < 2:
        raise RecipeError(
            f"{WANTS_LANGUAGES}: all teachers are of one language, {languages[0]}; "
            "set mixing.weights=uniform or numbers, or leave --data out"
        )
    for path in texts.values():
        n_sentences = sum(1 for _ in target_stream(path, replace(teachers.corpus, max_sentences=LEAST_SENTENCES)))
        if n_sentences < LEAST_SENTENCES:
            raise RecipeError(f"{WANTS_LANGUAGES}: {path} has {n_sentences} sentences; {LEAST_SENTENCES} are needed")
    names = tuple(sorted(texts))
    return SourceLanguages(
        names, tuple([texts[name] for name in names]), tuple([names.index(language) for language in languages])
    )


def language_weights(
    teachers: Teachers,
    sources: SourceLanguages,
    soft_labels: SoftLabels,
    accelerator: Accelerator,
    autocast_dtype: torch.dtype | None,
) -> NDArray[np.float64]:
    """The weights of the teachers, (1, T), or (N, T), one row a sentence, if `mixing.per` asks for that.

    Args:
        teachers: The first one's encoder gives the vectors.
        sources: Of its teachers.
        soft_labels: Their words are the target text.
        accelerator: Gives the device; this is work of the main process.
        autocast_dtype: Number format of the pass; None for float32.
    """
    per_sentence = teachers.mixing.per == "sentence"
    corpus = replace(teachers.corpus, max_sentences=N_SENTENCES)
    texts = [[sentence.words for sentence in target_stream(path, corpus)] for path in sources.texts]
    step = 1 if per_sentence else max(1, len(soft_labels) // N_SENTENCES)
    target = [soft_labels.words(number) for number in range(0, len(soft_labels), step)]
    identifier, probs = likeness(teachers.names[0], texts, target, accelerator.device, autocast_dtype)
    weights = teacher_weights(probs, np.asarray(sources.of_teachers))
    mean = probs.mean(axis=0)
    LOG.info(
        f"language identifier: {identifier.accuracy:.1f}% of held-out sentences right, temperature "
        f"{identifier.temperature:.2f}; the target is "
        + ", ".join(f"{share:.3f} {name}" for name, share in zip(sources.names, mean, strict=True))
        + f"; as mixed as {np.mean([effective_number(row) for row in probs]):.2f} equal languages a sentence"
    )
    return weights if per_sentence else weights.mean(axis=0, keepdims=True)


def likeness(
    teacher: str,
    texts: Sequence[Sequence[Sequence[str]]],
    target: Sequence[Sequence[str]],
    device: torch.device,
    autocast_dtype: torch.dtype | None,
) -> tuple[LanguageIdentifier, NDArray[np.float64]]:
    """A language identifier learnt from texts, one a language, and how like each target sentence is to each, (N, L).

    Args:
        teacher: Its encoder gives the vectors.
        texts: Sentences of words, at least two languages of 5 sentences.
        target: Sentences of words; one of which the encoder sees nothing is as all others on average.
        device: Where to compute.
        autocast_dtype: Number format of the pass; None for float32.
    """
    *vectors, of_target = _sentence_vectors(teacher, [*texts, target], device, autocast_dtype)
    numbers = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    identifier = identify_languages(np.concatenate(vectors), numbers, len(texts))
    probs = identifier.probs(of_target)
    empty = ~of_target.any(axis=1)
    probs[empty] = probs[~empty].mean(axis=0) if not empty.all() else 1.0 / len(texts)
    return identifier, probs


class VectorReader:
    """A network in memory that gives the hidden states of words."""

    def __init__(
        self,
        model: JointModel,
        encoder: WordEncoder,
        layers: slice,
        *,
        device: torch.device,
        autocast_dtype: torch.dtype | None,
    ) -> None:
        """Take a network and what makes its pieces; `layers` as for `word_vectors`."""
        self._model = model.to(device).eval()
        self._encoder = encoder
        self.layers, self._device, self._autocast_dtype = layers, device, autocast_dtype
        self.width = int(model.recognizer.config.hidden_size)

    def read(self, sentences: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """The vectors of each sentence, (W, D); zeros for words without a piece."""
        found = [np.zeros((len(words), self.width), dtype=np.float32) for words in sentences]
        windows = list(self._encoder.encode(sentences))
        read = word_vectors(
            self._model,
            windows,
            self._encoder.pad_id,
            self.layers,
            device=self._device,
            autocast_dtype=self._autocast_dtype,
        )
        for place, vectors in read:
            found[windows[place].sentence][windows[place].word_numbers] = vectors
        for rows, words in zip(found, sentences, strict=True):
            for place in within_pieces(rows, words):
                rows[place] = rows[place - 1]
        return found


def _sentence_vectors(
    teacher: str,
    texts: Sequence[Sequence[Sequence[str]]],
    device: torch.device,
    autocast_dtype: torch.dtype | None,
) -> list[NDArray[np.float32]]:
    """For each text the means of its sentences' word vectors, (N, D); zeros for a sentence without a piece."""
    model = load_joint_model(teacher)
    encoder = word_encoder(teacher, model.recognizer, read_settings(teacher).max_length)
    reader = VectorReader(model, encoder, LAST_LAYERS, device=device, autocast_dtype=autocast_dtype)
    found = []
    for text in texts:
        means = np.zeros((len(text), reader.width), dtype=np.float32)
        for block in in_blocks(range(len(text)), BLOCK):
            for number, vectors in zip(block, reader.read([text[number] for number in block]), strict=True):
                n_seen = int(vectors.any(axis=1).sum())
                means[number] = vectors.sum(axis=0) / max(1, n_seen)
        found.append(means)
    return found
