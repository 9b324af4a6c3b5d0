"""Entities in text: opens a model folder or hub name and tags with it.

Works with every token classifier of Hugging Face that has the tag `O`; tags of other schemes (BIOES, BILOU, plain
types) become IOB2. Nothing here needs what training needs, and an exported folder needs no torch either: what opens
a network imports it.
Long text is seen in overlapping windows; nothing is cut off.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from xlner.backends import GRAPH_FILE, CompactOnnxBackend, LinearBackend, OnnxBackend, is_exported, read_manifest
from xlner.decoding import ValidTags
from xlner.encode import WordEncoder, read_tokenizer
from xlner.errors import LabelError, ModelError
from xlner.hub import NEWEST, fetched_folder, find_file, push, refuse_file
from xlner.models.compact_folder import open_student
from xlner.models.settings import (
    SCHEME_KEY,
    SETTINGS_FILE,
    THRESHOLDS_FILE,
    is_compact,
    parse_settings,
    parse_thresholds,
    read_student,
    refuse_code,
)
from xlner.predict import BATCH_PIECES, Backend, Encoder, Probs, go_on, known_tags, mix_probs, word_probs
from xlner.tags import LabelMap, LabelSet, Span, TagReading, read_tagging
from xlner.words import Entities, Entity, split_words

if TYPE_CHECKING:
    import torch

    from xlner.models.compact import CompactNetwork
    from xlner.models.joint import JointModel


# The score that an entity must have: one number, or that of its type in the model's own `thresholds.json`.
Threshold = float | Literal["tuned"]
PRECISIONS = ("fp32", "bf16", "auto")
# What a stream reads ahead: characters, and texts.
STREAM_CHARS = 400_000
STREAM_TEXTS = 2048
# Small batches stay in the cache of a CPU. Measured with 6 layers, 384 wide: in ONNX Runtime 256 are a little faster
# than 512, and by a quarter than 1,024; for torch 512 to 2,048 are alike in fp32, and 1,024 better than 512 in bf16.
CPU_BATCH_PIECES = 1024
EXPORTED_BATCH_PIECES = 512
# Words in a batch of a compact student. Measured with a BiLSTM of 256 on 128 sentences at a time, one thread: in ONNX
# Runtime 256 to 512 are alike and 4,096 take twice as long, for torch 512 to 1,024 are the best; a GPU wants more.
COMPACT_BATCH_WORDS, COMPACT_GPU_BATCH_WORDS = 512, 16_384


def load_tagger(
    folder_or_hub_name: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_pieces: int | None = None,
    revision: str = NEWEST,
) -> "Tagger":
    """Open a model folder of xlner, an exported one, or any Hugging Face token classifier by folder or hub name.

    Folders of compact students and what was exported of them are opened as well.

    Args:
        folder_or_hub_name: Such as `runs/de/model`. Several tag as one: the mean of what they say, in which none speaks
            of types that it does not know.
        device: Where to compute: `cpu`, `cuda`, `cuda:1`, ...; `auto`: on a GPU where there is one that the model
            can use, else on the CPU.
        precision: Number format of the weights: `fp32`, `bf16`, or `auto`, which is bf16 where the hardware is
            made for it. An exported folder has its own.
        batch_pieces: Subword pieces per forward pass, padding included: more of them need more memory. None means
            what suits the device.
        revision: Of a model of the hub: commit, tag or branch. A folder has none.

    Raises:
        ModelError: If there is no such model, it is no tagger, it is damaged, or it asks for code of its own; if the
            device or the precision cannot be used.
        LabelError: If it has no tag `O`.
    """
    if not isinstance(folder_or_hub_name, str | PathLike):
        names = [fspath(name) for name in folder_or_hub_name]
        options: Any = {"device": device, "precision": precision, "batch_pieces": batch_pieces, "revision": revision}
        return EnsembleTagger([load_tagger(name, **options) for name in names])
    if precision not in PRECISIONS:
        raise ModelError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    given = name = fspath(folder_or_hub_name)
    refuse_file(name)
    if not Path(name).is_dir() and (fetched := fetched_folder(name, revision)):
        name = str(fetched)
    if device == "auto":
        device = "cpu" if is_exported(Path(name)) or _needs_no_torch(Path(name)) else fastest_device()
    if is_compact(Path(name)):
        tagger = _open_compact(Path(name), device, precision, batch_pieces)
    elif is_exported(Path(name)):
        tagger = _open_exported(Path(name), device, precision, batch_pieces or EXPORTED_BATCH_PIECES)
    else:
        suitable = CPU_BATCH_PIECES if device == "cpu" else BATCH_PIECES
        tagger = _open_network(name, device, precision, batch_pieces or suitable)
    tagger.name, tagger.opened_from = given, name
    return tagger


def _needs_no_torch(folder: Path) -> bool:
    """Whether a folder holds a compact student that runs on the CPU alone."""
    return is_compact(folder) and (read_student(folder).kind == "linear" or (folder / GRAPH_FILE).is_file())


def fastest_device() -> str:
    """The device that `auto` stands for, for a network of torch."""
    try:
        import torch
    except ImportError:
        return "cpu"  # whoever needs torch says so
    return "cuda" if torch.cuda.is_available() else "cpu"


def _open_compact(folder: Path, device: str, precision: str, batch_pieces: int | None) -> "Tagger":
    if precision == "bf16":
        raise ModelError(f"{folder}: a compact student has a precision of its own; bf16 is for networks of pieces")
    settings = parse_settings(folder / SETTINGS_FILE)
    split_words("", settings.word_splitter)
    backend, encoder, student = open_student(folder, device)
    words = COMPACT_BATCH_WORDS if device == "cpu" else COMPACT_GPU_BATCH_WORDS
    return Tagger(
        backend,
        encoder,
        student.labels,
        word_splitter=settings.word_splitter,
        batch_pieces=batch_pieces or words * encoder.width,
        name=str(folder),
    )


def _open_exported(folder: Path, device: str, precision: str, batch_pieces: int) -> "Tagger":
    manifest = read_manifest(folder)
    if device != "cpu":
        raise ModelError(f"{folder}: an exported model runs on the CPU; device {device!r} needs the original folder")
    if precision == "bf16":
        raise ModelError(f"{folder}: exported as {manifest.precision}; bf16 needs the original folder")
    settings = parse_settings(folder / SETTINGS_FILE)
    split_words("", settings.word_splitter)
    labels, reading = _exported_tags(folder)
    tokenizer = read_tokenizer(folder / "tokenizer.json", max_length=manifest.max_length, pad_id=manifest.pad_id)
    backend = OnnxBackend(folder / GRAPH_FILE, side_by_side=manifest.precision == "int8")
    return Tagger(
        backend,
        WordEncoder(tokenizer),
        labels,
        reading=reading,
        word_splitter=settings.word_splitter,
        batch_pieces=batch_pieces,
        name=str(folder),
        spaced=settings.spaced,
    )


def _exported_tags(folder: Path) -> tuple[LabelSet, TagReading | None]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        refuse_code(config, str(folder))
        tags = {int(number): str(tag) for number, tag in config["id2label"].items()}
        in_order = [tags[number] for number in sorted(tags)]
        return read_tagging(in_order, begins=config.get(SCHEME_KEY) == "iob2")
    except LabelError as problem:
        raise LabelError(f"{path}: {problem}") from problem
    except (OSError, RecursionError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"{path}: expected a configuration with id2label, found: {problem!r}") from problem


def _open_network(name: str, device: str, precision: str, batch_pieces: int) -> "Tagger":
    try:
        import torch

        from xlner.models.folder import read_settings
        from xlner.models.inference import TorchBackend, round_weights, table_of_pieces, weights_dtype, word_encoder
        from xlner.models.joint import JointModel
        from xlner.models.token_classifier import heeds_mask, load_recognizer
    except ImportError as problem:
        raise ModelError(
            f"{name}: no exported model (no {GRAPH_FILE}), and {problem.name} is not installed, which others need"
        ) from problem
    settings = read_settings(name)
    split_words("", settings.word_splitter)  # fails at once where the folder names a splitter that is not there
    recognizer, labels, reading = load_recognizer(name)
    table_of_pieces(name, recognizer)  # a network without one is refused before it is tried
    lets_padding_be = heeds_mask(recognizer)
    try:
        place = torch.device(device)
        round_weights(recognizer, weights_dtype(precision, place))
        model = JointModel(recognizer, None).to(place).eval()
    except (RuntimeError, AssertionError) as problem:  # torch without CUDA asserts
        raise ModelError(f"device {device!r} cannot be used: {str(problem).splitlines()[0]}") from problem
    # Last: in bf16 the file of the weights, which is mapped until here, and a tokenizer are not in memory together.
    encoder = word_encoder(name, model.recognizer, settings.max_length, padded=False)
    backend = TorchBackend(model, model.recognizer.device, heeds_mask=lets_padding_be)
    return Tagger(
        backend,
        encoder,
        labels,
        reading=reading,
        word_splitter=settings.word_splitter,
        batch_pieces=batch_pieces,
        name=name,
        spaced=settings.spaced,
    )


class Tagger:
    """A model ready to tag; `load_tagger` makes one. Threads may share it."""

    def __init__(
        self,
        backend: Backend,
        encoder: Encoder,
        labels: LabelSet,
        *,
        reading: TagReading | None = None,
        word_splitter: str = "unicode",
        batch_pieces: int = BATCH_PIECES,
        name: str = "",
        spaced: bool = False,
    ) -> None:
        self.name = name  # of the folder, or that of the hub
        self.opened_from = name  # the folder that it was read from: of the hub's models, that of their revision
        self.backend = backend
        self.encoder = encoder
        self.labels = labels
        self._reading = reading  # where the model's own tags are of another scheme
        self._decoder = ValidTags(labels)
        self._spaced = spaced  # whether it has learnt languages with spaces between words alone
        self.word_splitter = word_splitter
        self.batch_pieces = batch_pieces

    def __repr__(self) -> str:
        what = type(self.backend).__name__.removesuffix("Backend")
        return f"<Tagger {self.name or 'without a name'}: {', '.join(self.types)}; {what}>"

    @property
    def model(self) -> "JointModel | CompactNetwork":
        """The network of torch.

        Raises:
            ModelError: If the tagger was opened from an exported folder.
        """
        return self._network()[0]

    @property
    def device(self) -> "torch.device":
        """Where the network of torch lies; errors as for `model`."""
        return self._network()[1]

    def _network(self) -> "tuple[JointModel | CompactNetwork, torch.device]":
        if isinstance(self.backend, OnnxBackend | CompactOnnxBackend | LinearBackend):
            raise ModelError(
                f"{self.name or 'this tagger'}: an exported model has no network of torch to give; open the folder "
                "that it was exported from"
            )
        from xlner.models.inference import TorchBackend

        network = cast(TorchBackend, self.backend)
        return cast("JointModel | CompactNetwork", network.model), network.device

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types that it can find."""
        return self.labels.types

    def push_to_hub(self, repository: str, *, private: bool = False, message: str = "") -> str:
        """Publish the folder that this tagger was opened from on the hub; gives the address of the commit.

        Arguments and errors as for `xlner.hub.push`.
        """
        return push(Path(self.name), repository, private=private, message=message)

    def tag(self, text: str, *, threshold: Threshold = 0.0, types: Collection[str] | None = None) -> Entities:
        """The entities of a text of any length, in order; `text[e.start:e.end] == e.text` for each.

        An entity's score is the probability that just this span has just this type.

        Args:
            text: Of any length and script.
            threshold: A number: entities of a lower score are left out. `tuned`: those are that are below the best
                threshold of their type, which `xlner report` finds on a dev corpus and stores in the model folder.
            types: Entities of other types are left out; None: none are.

        Raises:
            TypeError: If it is no `str`.
            ValueError: If the threshold is not within [0, 1], or a type is none of the tagger's.
            ModelError: If `tuned` is asked of a model without tuned thresholds.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"tag takes one text (str), found {type(text).__name__}; "
                "for several texts call tag_batch, for a list of words tag_words"
            )
        return cast(Entities, self.tag_batch([text], threshold=threshold, types=types)[0])

    def render(self, text: str, *, threshold: Threshold = 0.0, types: Collection[str] | None = None) -> dict[str, Any]:
        """A tagged text in the shape of spaCy's displacy: `displacy.render(found, style="ent", manual=True)`.

        Arguments and errors as for `tag`.
        """
        found = self.tag(text, threshold=threshold, types=types)
        return {
            "text": text,
            "ents": [{"start": e.start, "end": e.end, "label": e.label} for e in found],
            "title": None,
        }

    def tag_batch(
        self, texts: Iterable[str], *, threshold: Threshold = 0.0, types: Collection[str] | None = None
    ) -> list[list[Entity]]:
        """The entities of each text, in the order of the texts: those that `tag` finds, in less time.

        All texts are held in memory; `tag_stream` takes any number. Arguments and errors as for `tag`.

        Raises:
            TypeError: If it is one text, or one of the texts is no `str`.
        """
        texts = _checked_list(texts, "tag_batch takes several texts (an iterable of str)", "for one text call tag")
        offsets = [split_words(text, self.word_splitter) for text in texts]
        words = [[text[a:b] for a, b in spans] for text, spans in zip(texts, offsets, strict=True)]
        found = self.spans_in_sentences(words, threshold=threshold, types=types)
        return [
            Entities([entity_at(text, places, span, score) for span, score in spans], text)
            for text, places, spans in zip(texts, offsets, found, strict=True)
        ]

    def tag_stream(
        self, texts: Iterable[str], *, threshold: Threshold = 0.0, types: Collection[str] | None = None
    ) -> Iterator[list[Entity]]:
        """The entities of each text of any number of texts, in order, in memory for a few thousand words.

        Texts are read ahead, so that those of like length are seen together. Arguments and errors as for `tag_batch`.
        """
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            _checked_list(texts, "tag_stream takes several texts (an iterable of str)", "for one text call tag")
        block: list[str] = []
        n_chars = 0
        for text in texts:
            block.append(text)
            n_chars += len(text) if isinstance(text, str) else 0  # what is no text is refused with the others
            if n_chars >= STREAM_CHARS or len(block) == STREAM_TEXTS:
                yield from self.tag_batch(block, threshold=threshold, types=types)
                block, n_chars = [], 0
        if block:
            yield from self.tag_batch(block, threshold=threshold, types=types)

    def words(self, text: str) -> list[str]:
        """The words of a text, as the tagger itself splits it."""
        return [text[start:end] for start, end in split_words(text, self.word_splitter)]

    def tag_words(self, words: Iterable[str]) -> list[str]:
        """One IOB2 tag for each word of a sentence that is already split.

        The words are taken as they are: a corpus' own words give the best result.

        Raises:
            TypeError: If it is one text, or a word is no `str`.
        """
        words = _checked_list(words, "tag_words takes the words of one sentence", "for a text call tag")
        return self.tag_sentences([words])[0]

    def tag_sentences(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """`tag_words` for many sentences, in less time.

        Raises:
            TypeError: If a sentence is a text rather than a list of words.
        """
        return [list(self._decoder.tags(probs)) for probs in self.probs(sentences)]

    def spans_in_sentences(
        self, sentences: Iterable[Sequence[str]], *, threshold: Threshold = 0.0, types: Collection[str] | None = None
    ) -> list[list[tuple[Span, float]]]:
        """The entities of sentences that are already split, counted in words, each with the score that `tag` gives.

        `threshold`, `types` and errors as for `tag`.
        """
        least = self._least_scores(threshold, types)
        return [
            [(span, score) for span, score in found if score >= least.get(span.label, math.inf)]
            for found in self._decoder.entities(self.probs(sentences))
        ]

    def probs(self, sentences: Iterable[Sequence[str]]) -> list[Probs]:
        """The tag probabilities of every word of sentences that are already split, before any decoding.

        Args:
            sentences: Words.

        Returns:
            Per sentence (words, C), a column for each of `labels.tags`; rows of zeros for words of which the tokenizer
            makes nothing.

        Raises:
            TypeError: If a sentence is a text rather than a list of words.
            ModelError: If the model gives numbers that are none, or cannot be run.
        """
        split = [
            _checked_list(words, "a sentence is a list of words (str)", "for texts call tag_batch")
            for words in sentences
        ]
        n_tags = len(self.labels.tags) if self._reading is None else self._reading.n_tags
        try:
            found = word_probs(self.backend, self.encoder, split, n_tags=n_tags, batch_pieces=self.batch_pieces)
        except ModelError as problem:
            raise ModelError(f"{self.name}: {problem}" if self.name else str(problem)) from problem
        if self._reading is not None:
            found = [self._reading.iob2(rows).astype(np.float32) for rows in found]
        go_on(found, split, self.labels.tags, spaced=self._spaced)
        return found

    def tuned_thresholds(self) -> dict[str, float]:
        """The score that an entity of each type needs, as `xlner report` stored it; 0 for a type that was not tuned.

        Raises:
            ModelError: If none are stored, or they are damaged.
        """
        path = find_file(self.opened_from, THRESHOLDS_FILE) if self.opened_from else None
        if path is None:
            raise ModelError(
                f"{self.name or 'this tagger'}: threshold is 'tuned', but the model has no {THRESHOLDS_FILE}; "
                "`xlner report RUN` makes it where the run has a labelled dev corpus"
            )
        return dict.fromkeys(self.types, 0.0) | parse_thresholds(path)

    def _least_scores(self, threshold: Threshold, types: Collection[str] | None) -> Mapping[str, float]:
        """The least score of each type that is wanted."""
        if isinstance(threshold, str) and threshold != "tuned":
            raise ValueError(f"threshold is {threshold!r}; expected a number from 0 to 1, or 'tuned'")
        if not isinstance(threshold, str) and not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold is {threshold}; scores are probabilities, so it must lie within [0, 1]")
        if types is not None and (isinstance(types, str) or (unknown := sorted(set(types) - set(self.types)))):
            found = types if isinstance(types, str) else ", ".join(unknown)
            raise ValueError(f"types: found {found!r}; expected a list of {', '.join(self.types)}")
        tuned = self.tuned_thresholds() if isinstance(threshold, str) else dict.fromkeys(self.types, threshold)
        return {name: tuned[name] for name in (self.types if types is None else types)}


class EnsembleTagger(Tagger):
    """Several taggers as one: the mean of their probabilities, in which none speaks of types that it does not know."""

    def __init__(self, members: Sequence[Tagger]) -> None:
        """Take the members; the words are those of all of them.

        Raises:
            ModelError: If there are none, or they split text into words in different ways.
        """
        if not members:
            raise ModelError("load_tagger takes the name of a model, or those of several; found an empty list")
        splitters = {member.word_splitter: member.name for member in members}
        if len(splitters) > 1:
            found = "; ".join(f"{name}: {splitter}" for splitter, name in splitters.items())
            raise ModelError(
                f"the models split text into words in different ways ({found}), so they have none in common"
            )
        self.members = tuple(members)
        # Where all members' entities may begin with I-X, those of the ensemble may, too.
        begins = all(member.labels.begins for member in members)
        labels = LabelSet(LabelSet.of_types({kind for member in members for kind in member.types}).tags, begins)
        self._readings = [TagReading.of(member.labels.tags, LabelMap({})) for member in members]
        self._columns = [labels.ids(reading.labels.tags) for reading in self._readings]
        self._known_tags = np.stack([known_tags(labels, member.types) for member in members])
        first = members[0]
        super().__init__(
            first.backend,
            first.encoder,
            labels,
            word_splitter=first.word_splitter,
            batch_pieces=first.batch_pieces,
            name=" + ".join(member.name for member in members),
        )

    def __repr__(self) -> str:
        return f"<EnsembleTagger of {', '.join(map(repr, self.members))}>"

    def _network(self) -> "tuple[JointModel | CompactNetwork, torch.device]":
        raise ModelError(f"{self.name}: several models have no one network; look at `members`")

    def tuned_thresholds(self) -> dict[str, float]:
        """Those of a model are of its own scores; the mean of several has other ones.

        Raises:
            ModelError: In any case.
        """
        raise ModelError(
            f"{self.name}: threshold is 'tuned', but several models as one have no tuned thresholds; give a number"
        )

    def probs(self, sentences: Iterable[Sequence[str]]) -> list[Probs]:
        """See `Tagger.probs`; rows of zeros are words of which no member makes anything."""
        sentences = list(sentences)
        return [self._mean(said) for said in zip(*(member.probs(sentences) for member in self.members), strict=True)]

    def _mean(self, said: Sequence[Probs]) -> Probs:
        probs = np.zeros((len(said), len(said[0]), len(self.labels.tags)))
        for place, (rows, reading, columns) in enumerate(zip(said, self._readings, self._columns, strict=True)):
            probs[place][:, columns] = reading.iob2(rows)
        weights = np.ones(probs.shape[:2])
        return mix_probs(probs, self._known_tags, weights, self.labels.outside_id).astype(np.float32)


def entity_at(text: str, places: Sequence[tuple[int, int]], span: Span, score: float) -> Entity:
    """An entity from a span of words, whose places in the text are given in characters."""
    start, end = places[span.start][0], places[span.end - 1][1]
    return Entity(text[start:end], span.label, start, end, score)


def _checked_list(texts: Iterable[str], expected: str, instead: str) -> list[str]:
    """A list of `str`; a `str` itself is refused, although its characters would be some."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"{expected}, found {type(texts).__name__}; {instead}")
    found = list(texts)
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"{expected}, found {type(text).__name__} at place {number}")
    return found
