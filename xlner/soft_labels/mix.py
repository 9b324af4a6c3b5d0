"""The soft labels of all teachers of a run as one: models, annotations, patterns, each in the tags of the mixture."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from xlner.arrow_files import RowWriter, in_blocks
from xlner.config.schema import BY_LANGUAGE
from xlner.corpora.patterns import Patterns, read_patterns
from xlner.corpora.source import Annotations, align, read_annotations
from xlner.errors import LabelError
from xlner.files import RUNS, json_digest, read_json, write_json
from xlner.models.folder import read_settings
from xlner.models.inference import number_format
from xlner.models.token_classifier import read_tags
from xlner.predict import known_tags, mix_probs
from xlner.soft_labels.label import Teachers, check_teacher, soft_labels_of, target_stream, text_fingerprint
from xlner.soft_labels.labelled import with_former_types
from xlner.soft_labels.languages import SourceLanguages, language_weights, source_languages
from xlner.soft_labels.store import (
    BLOCK,
    COLUMNS,
    FORMULAS,
    SoftLabelCard,
    SoftLabels,
    SoftRow,
    locked,
    part_path,
    soft_row,
    whole_soft_labels,
    write_card,
)
from xlner.tags import OUTSIDE, LabelMap, LabelSet, TagReading, is_iob, prefix_and_type
from xlner.words import split_words

LOG = logging.getLogger("xlner")

# One member out of several teachers' soft labels, word by word.
#
# Shapes: T teachers, W words of a sentence, C tags, E projection width.


Probs = NDArray[np.float64]


def mix_trust(trust: Probs, weights: Probs, seen: NDArray[np.bool_]) -> Probs:
    """How far the mixed probabilities of each word are trusted, (W,): as far as the most trusted of those who spoke.

    Not the mean: a teacher that abstains takes nothing from the trust in the others.

    Args:
        trust: In each teacher's word, (T, W), in [0, 1].
        weights: Of the teachers, (T,); one of weight 0 has no say.
        seen: Which words each teacher has seen, (T, W).
    """
    said: Probs = np.where(seen & (weights > 0)[:, None], trust, 0.0).max(axis=0, initial=0.0)
    return said


def similarity_factors(weights: Sequence[float], curves: Sequence[tuple[float, float]]) -> tuple[Probs, float]:
    """What makes the weighted mean of similarity logits the product of two joined projections.

    With logit_t = a_t u_t.v_t + b_t, the vectors sqrt(w_t a_t / sum w) u_t of all teachers, put one behind the other,
    have as their product the mean of the logits less the offset sum_t w_t b_t / sum w. It is exact.

    Args:
        weights: w_t of each teacher with a similarity head, (T,).
        curves: Its scale a_t and offset b_t. A teacher with a scale of 0 or less has no such root and is left out.

    Returns:
        The factor of each teacher's unit vector, (T,), 0 for one that is left out; and the offset.
    """
    scales, offsets = np.asarray(curves, dtype=np.float64).reshape(-1, 2).T
    kept = np.where(scales > 0, np.asarray(weights, dtype=np.float64), 0.0)
    shares = kept / kept.sum() if kept.any() else kept
    return np.sqrt(shares * np.maximum(scales, 0.0)), float(shares @ offsets)


# What each teacher says of a sentence, in the tags of the mixture: models by their soft labels, and annotations.
#
# Shapes: W words, C tags of the mixture.


class Said(NamedTuple):
    """Probabilities (W, C), zeros for words it did not see; the tags it knows (C,); trust in each word (W,)."""

    probs: Probs
    known: NDArray[np.bool_]
    trust: Probs


class ModelMember:
    """A model, by its stored soft labels."""

    def __init__(self, soft_labels: SoftLabels, rename: LabelMap, labels: LabelSet) -> None:
        self.soft_labels = soft_labels
        self._reading = TagReading.of(soft_labels.card.tags, rename)
        self._columns = labels.ids(self._reading.labels.tags)
        self._known = known_tags(labels, self._reading.labels.types)

    def of(self, number: int, words: Sequence[str]) -> Said:
        """What it says of the sentence of that number."""
        probs = np.zeros((len(words), len(self._known)))
        probs[:, self._columns] = self._reading.iob2(self.soft_labels.probs(number))
        return Said(probs, self._known, self.soft_labels.weights(number).astype(np.float64))


Annotator = Annotations | Patterns


class JointTypes(NamedTuple):
    """What several teachers have together: how types are renamed, files of annotations and patterns, and all tags."""

    rename: LabelMap
    annotations: Mapping[str, Annotator]
    labels: LabelSet


class AnnotationMember:
    """A file of annotations or patterns; it abstains on sentences that it has no record of."""

    def __init__(self, annotations: Annotator, rename: LabelMap, labels: LabelSet, outside: float) -> None:
        """Take the annotations; `outside` is the trust in `O` where they mark nothing."""
        self.annotations = annotations
        self._rename, self._labels, self._outside = rename, labels, outside
        self._ids = {tag: number for number, tag in enumerate(labels.tags)}
        self.n_spans = self.n_cut = self.n_lost = self.n_overlapping = 0

    def of(self, number: int, words: Sequence[str]) -> Said:
        """What it says of a sentence, found by its words; counts the spans that do not fit."""
        probs, trust = np.zeros((len(words), len(self._ids))), np.zeros(len(words))
        said = self.annotations.of(words)
        if said is None:
            return Said(probs, np.zeros(len(self._ids), dtype=bool), trust)
        probs[:, self._ids[OUTSIDE]], trust[:] = 1.0, self._outside
        aligned = align(said, words)
        self.n_spans += len(said.spans)
        self.n_cut += aligned.n_cut
        self.n_lost += aligned.n_lost
        self.n_overlapping += aligned.n_overlapping
        for span in aligned.spans:
            label = self._rename.type_of(span.label)
            trust[span.start : span.end] = 1.0
            if not label:
                continue
            for place in range(span.start, span.end):
                tag = f"{'B' if place == span.start else 'I'}-{label}"
                probs[place, self._ids[tag]] = span.score
                probs[place, self._ids[OUTSIDE]] = 1.0 - span.score
        types = [self._rename.type_of(name) for name in said.types or ()]
        return Said(probs, known_tags(self._labels, types), trust)

    def as_text(self) -> str:
        """What became of the spans so far, for a person."""
        counts = [
            f"{self.n_cut:,} begin or end inside a word" if self.n_cut else "",
            f"{self.n_lost:,} hold no word and are left out" if self.n_lost else "",
            f"{self.n_overlapping:,} give way to one of a higher score" if self.n_overlapping else "",
        ]
        return "; ".join(filter(None, [f"{self.annotations.path}: {self.n_spans:,} spans in this text", *counts]))


Member = ModelMember | AnnotationMember


# The soft labels of all teachers of a run, as one: each teacher's own, and their mixture, stored once.
#
# A mixture lies in a folder of its own beside its teachers' soft labels, found again by the fingerprints of teachers,
# settings and text.


# Beside the card of a mixture: its teachers with their fingerprints and weights.
MIXTURE_FILE = "mixture.json"
Weights = NDArray[np.float64]  # (T,) for all of the text, or (N, T), one row a sentence


@dataclass(frozen=True)
class Taught:
    """What the teachers of a run said of a text.

    `soft_labels` are of all together, `by_model` each model's own. `teachers` tell names, fingerprints and weights,
    which add up to 1; `outside_share` is as in `ModelSettings`, their weighted mean.
    """

    soft_labels: SoftLabels
    by_model: Mapping[str, SoftLabels]
    teachers: Sequence[Mapping[str, Any]]
    outside_share: float


def taught_soft_labels(
    teachers: Teachers, text: Path, accelerator: Accelerator, autocast_dtype: torch.dtype | None
) -> Taught:
    """The soft labels of all teachers, made now as far as they are not stored; every process calls it.

    One teacher whose tags a student can have as they are is not mixed with anything: its own soft labels are it.

    Args:
        teachers: Who they are.
        text: Target corpus.
        accelerator: Processes share the work of the models; the main one mixes.
        autocast_dtype: Number format of the models; None for float32.

    Raises:
        XlnerError: One of its kinds, for a teacher or an annotation file that does not fit.
    """
    store, root = teachers.store, RUNS / "soft-labels"

    def labelled(teacher: str, store: Path | None, root: Path) -> SoftLabels:
        return soft_labels_of(
            teacher,
            text,
            corpus=teachers.corpus,
            store=store,
            root=root,
            accelerator=accelerator,
            autocast_dtype=autocast_dtype,
        )

    def own(teacher: str, store: Path | None, root: Path) -> SoftLabels:
        found, former = labelled(teacher, store, root), teachers.former
        if former is None or former.tuned != teacher:
            return found
        before = labelled(former.before, None, RUNS / "soft-labels")
        return with_former_types(found, before, former.types, accelerator)

    if is_taken_as_it_is(teachers):
        alone = own(teachers.names[0], store, root)
        about = [{"teacher": teachers.names[0], "fingerprint": alone.card.teacher, "weight": 1.0}]
        return Taught(alone, {teachers.names[0]: alone}, about, read_settings(teachers.names[0]).outside_share)
    # What could be refused is looked at first, before models are run for hours.
    joint = joint_types(teachers)
    _tell_of_annotations(joint.annotations, teachers, text, accelerator)
    sources = source_languages(teachers) if teachers.mixing.weights == BY_LANGUAGE else None
    by_model = {name: own(name, None, store or root) for name in teachers.models}
    mixed, about = _stored_mixture(teachers, text, store or root, joint, by_model, sources, accelerator, autocast_dtype)
    for row, name in zip(about, teachers.names, strict=True):
        row["teacher"] = name  # the same teachers may have been moved since
        LOG.info(f"teacher of weight {row['weight']:.3f}: {name}")
    LOG.info(f"mixed soft labels: {mixed.folder}")
    return Taught(mixed, by_model, about, _outside_share(about, teachers.models))


def _tell_of_annotations(
    annotations: Mapping[str, Annotator], teachers: Teachers, text: Path, accelerator: Accelerator
) -> None:
    """What of each file speaks of the text; refuses files of which nothing does."""
    for found in annotations.values():
        LOG.info(found.about(sentence.words for sentence in target_stream(text, teachers.corpus)))


def _stored_mixture(
    teachers: Teachers,
    text: Path,
    root: Path,
    joint: JointTypes,
    by_model: Mapping[str, SoftLabels],
    sources: SourceLanguages | None,
    accelerator: Accelerator,
    autocast_dtype: torch.dtype | None,
) -> tuple[SoftLabels, list[dict[str, Any]]]:
    """The mixture under `root`, made now if it is not there whole, and its teachers, as stored beside it."""
    rename, annotations, labels = joint
    members = [
        ModelMember(by_model[name], rename, labels)
        if name in by_model
        else AnnotationMember(annotations[name], rename, labels, _outside_trust(annotations[name], teachers))
        for name in teachers.names
    ]
    prints = [
        by_model[name].card.teacher if name in by_model else _file_digest(name, teachers) for name in teachers.names
    ]
    annotated = dict(zip(teachers.names, prints, strict=True))
    digests = [by_model[name].digest if name in by_model else annotated[name] for name in teachers.names]
    mixture = mixture_fingerprint(teachers, digests, sources, number_format(autocast_dtype))
    text_hash = text_fingerprint(text, teachers.corpus)[0]
    folder = root / f"mixed-{mixture}-{text_hash}"
    with locked(folder, accelerator):
        stored = _whole_mixture(folder, accelerator)
        accelerator.wait_for_everyone()  # nobody writes before all have looked
        if accelerator.is_main_process and stored is None:
            weights = np.asarray(teachers.mixing.numbers or [1.0] * len(members))
            if sources is not None:
                first = by_model[teachers.names[0]]
                weights = language_weights(teachers, sources, first, accelerator, autocast_dtype)
            weights = weights / weights.sum(axis=-1, keepdims=True)
            sentences = (sentence.words for sentence in target_stream(text, teachers.corpus))
            card = write_mixture(folder, (mixture, text_hash), labels, members, weights, sentences)
            means = np.atleast_2d(weights).mean(axis=0)
            written = [
                {"teacher": name, "fingerprint": found, "weight": round(float(weight), 6)}
                for name, found, weight in zip(teachers.names, prints, means, strict=True)
            ]
            write_json(folder / MIXTURE_FILE, {"teachers": written})
            write_card(folder, replace(card, number_format=number_format(autocast_dtype)))
            for member in members:
                if isinstance(member, AnnotationMember):
                    LOG.info(member.as_text())
        accelerator.wait_for_everyone()
    return stored or (SoftLabels(folder), read_json(folder / MIXTURE_FILE)["teachers"])


def _outside_trust(annotations: Annotator, teachers: Teachers) -> float:
    """The trust in `O` where a file marks nothing; patterns have not looked at what they do not find."""
    return 0.0 if isinstance(annotations, Patterns) else teachers.mixing.outside


def _file_digest(name: str, teachers: Teachers) -> str:
    """What an annotation file is known by, or a file of patterns and how their phrases are split."""
    splitter = teachers.corpus.word_splitter if name in teachers.patterns else ""
    return hashlib.sha256(Path(name).read_bytes() + splitter.encode()).hexdigest()[:12]


def _whole_mixture(folder: Path, accelerator: Accelerator) -> tuple[SoftLabels, list[dict[str, Any]]] | None:
    """What is stored of a mixture; None if it is not there, or damaged, so that it is made again."""
    stored = whole_soft_labels(folder)
    if stored is None:
        return None
    try:
        return stored, read_json(folder / MIXTURE_FILE)["teachers"]
    except (OSError, ValueError) as problem:
        LOG.warning(f"{problem}; made again")
        return None


def is_taken_as_it_is(teachers: Teachers) -> bool:
    """Whether there is but one teacher, a model, with nothing to rename and with tags that a student can have."""
    if len(teachers.names) > 1 or not teachers.models or teachers.mixing.rename.strip():
        return False
    check_teacher(teachers.names[0])
    return is_iob(read_tags(teachers.names[0]))


def joint_types(teachers: Teachers) -> JointTypes:
    """Read what types the teachers know.

    Raises:
        LabelError: If a type is renamed that no teacher has, or no type is left.
    """
    rename = LabelMap.parse(teachers.mixing.rename)
    for name in teachers.models:
        check_teacher(name)
    split = partial(split_words, splitter=teachers.corpus.word_splitter)
    annotations: dict[str, Annotator] = {
        name: read_patterns(Path(name), split) if name in teachers.patterns else read_annotations(Path(name))
        for name in teachers.names
        if name not in teachers.models
    }
    old_types = {name for found in annotations.values() for name in found.types}
    types = set[str]()
    for name in teachers.models:
        tags = read_tags(name)
        old_types |= {prefix_and_type(tag)[1] for tag in tags}
        try:
            types |= set(TagReading.of(tags, rename).labels.types)
        except LabelError as problem:
            raise LabelError(f"{name}: {problem}") from problem
    for path, found in annotations.items():
        own = {rename.type_of(name) for name in found.types} - {""}
        if types and (new := sorted(own - types)):
            LOG.info(
                f"{path}: {', '.join(new)}: no teacher before it knows; mixing.rename=OLD=NEW, if they are others'"
            )
        types |= own
    rename.check(old_types - {""}, "the teachers")
    if not types - {""}:
        raise LabelError(f"mixing.rename={teachers.mixing.rename} drops all types of the teachers")
    return JointTypes(rename, annotations, LabelSet.of_types(types - {""}))


def mixture_fingerprint(
    teachers: Teachers, digests: Sequence[str], sources: SourceLanguages | None, number_format: str
) -> str:
    """A short hash of all that a mixture depends on beside the text.

    Args:
        teachers: Of the run.
        digests: For each teacher the digest of its soft labels, or of its annotation file.
        sources: Where the teachers are weighed by their languages; then a network is run once more.
        number_format: In which it computes.
    """
    mixing = teachers.mixing
    weights = [mixing.per, *sources.fingerprints(teachers)] if sources else [mixing.weights]
    rename = str(LabelMap.parse(mixing.rename))
    return json_digest([FORMULAS["mixed"], list(digests), weights, rename, mixing.outside, number_format])[:12]


def write_mixture(
    folder: Path,
    fingerprints: tuple[str, str],
    labels: LabelSet,
    members: Sequence[Member],
    weights: Weights,
    sentences: Iterator[Sequence[str]],
) -> SoftLabelCard:
    """Write the rows of a mixture; its card, which is not written yet.

    Args:
        folder: Where.
        fingerprints: Of the mixture and of the text.
        labels: Of the mixture.
        members: The teachers, T of them.
        weights: Theirs, each row adding up to 1.
        sentences: The words of the text, in the order of the teachers' soft labels.
    """
    counts = np.zeros(2, dtype=np.int64)  # sentences, words
    models = [(place, member) for place, member in enumerate(members) if isinstance(member, ModelMember)]
    heads = [(place, member.soft_labels) for place, member in models if member.soft_labels.card.projection_size]
    means = np.atleast_2d(weights).mean(axis=0)  # a similarity is of two sentences, so it has one weight for all
    factors, offset = similarity_factors(
        [means[place] for place, _ in heads], [(found.card.scale, found.card.offset) for _, found in heads]
    )
    kept = [(factor, found) for factor, (_, found) in zip(factors, heads, strict=True) if factor > 0]

    def rows() -> Iterator[SoftRow]:
        for number, words in enumerate(sentences):
            said = [member.of(number, words) for member in members]
            probs, trust = np.stack([one.probs for one in said]), np.stack([one.trust for one in said])
            weight = weights[number] if weights.ndim > 1 and len(weights) > 1 else np.atleast_2d(weights)[0]
            known = np.stack([one.known for one in said])
            mixed = mix_probs(probs, known, weight[:, None] * trust, labels.outside_id)
            projections = [np.zeros((len(words), 0))]
            projections += [factor * found.projections(number).astype(np.float64) for factor, found in kept]
            counts[:] += (1, len(words))
            trusted = mix_trust(trust, weight, np.any(probs > 0, axis=2))
            yield soft_row(words, mixed, np.concatenate(projections, axis=1), trusted)

    with RowWriter(part_path(folder, 0), COLUMNS) as writer:
        for block in in_blocks(rows(), BLOCK):
            writer.write(block)
    n_sentences, n_words = counts.tolist()
    return SoftLabelCard(
        teacher=fingerprints[0],
        corpus=fingerprints[1],
        tags=labels.tags,
        projection_size=sum(found.card.projection_size for _, found in kept),
        scale=1.0,
        offset=offset,
        n_sentences=n_sentences,
        n_words=n_words,
        n_parts=1,
        formula=FORMULAS["mixed"],
    )


def _outside_share(about: Sequence[Mapping[str, Any]], models: Sequence[str]) -> float:
    """The weighted mean over the teachers of which it is known; 0 where it is known of none."""
    known = [
        (row["weight"], share)
        for row in about
        if row["teacher"] in models and (share := read_settings(row["teacher"]).outside_share)
    ]
    total = sum(weight for weight, _ in known)
    return sum(weight * share for weight, share in known) / total if total else 0.0
