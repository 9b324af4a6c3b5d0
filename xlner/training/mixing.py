"""The soft labels of all teachers of a recipe, as one: each teacher's own, and their mixture, stored once.

The formulas stand in `mixing/`. A mixture lies in a folder of its own beside its teachers' soft labels, found again by
the fingerprints of teachers, settings and text.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from xlner.backends.torch_backend import number_format
from xlner.data.annotations import Annotations, read_annotations
from xlner.data.soft_labels import (
    BLOCK,
    COLUMNS,
    FORMULAS,
    SoftLabelCard,
    SoftLabels,
    SoftRow,
    part_path,
    soft_row,
    write_card,
)
from xlner.data.storage import RowWriter, in_blocks
from xlner.errors import LabelError
from xlner.files import RUNS, json_digest, read_json, write_json
from xlner.labels import LabelMap, LabelSet
from xlner.mixing.recipes import BY_LANGUAGE
from xlner.mixing.tags import TagReading, is_iob, prefix_and_type
from xlner.mixing.teachers import mix_probs, mix_trust, similarity_factors
from xlner.models.encoder import read_tags
from xlner.models.folder import read_settings
from xlner.schema import DistillRecipe
from xlner.training.labelling import (
    check_teacher,
    locked,
    soft_labels_of,
    target_stream,
    text_fingerprint,
    whole_soft_labels,
)
from xlner.training.language_similarity import SourceLanguages, language_weights, source_languages
from xlner.training.voices import AnnotationVoice, ModelVoice, Voice

# Beside the card of a mixture: its teachers with their fingerprints and weights.
MIXTURE_FILE = "mixture.json"
Weights = NDArray[np.float64]  # (T,) for all of the text, or (N, T), one row a sentence


@dataclass(frozen=True)
class Taught:
    """What the teachers of a recipe said of a text.

    `soft_labels` are of all together, `by_model` each model's own. `teachers` tell names, fingerprints and weights,
    which add up to 1; `outside_share` is as in `ModelSettings`, their weighted mean.
    """

    soft_labels: SoftLabels
    by_model: Mapping[str, SoftLabels]
    teachers: Sequence[Mapping[str, Any]]
    outside_share: float


def taught_soft_labels(
    recipe: DistillRecipe, text: Path, accelerator: Accelerator, autocast_dtype: torch.dtype | None
) -> Taught:
    """The soft labels of all teachers of a recipe, made now as far as they are not stored; every process calls it.

    One teacher whose tags a student can have as they are is not mixed with anything: its own soft labels are it.

    Args:
        recipe: Its `soft_labels` is the folder of a single teacher's; with several, the folder of their folders.
        text: Target corpus.
        accelerator: Processes share the work of the models; the main one mixes.
        autocast_dtype: Number format of the models; None for float32.

    Raises:
        XlnerError: One of its kinds, for a teacher or an annotation file that does not fit.
    """
    store = None if recipe.soft_labels == "auto" else Path(recipe.soft_labels)
    root = RUNS / "soft-labels"

    def own(teacher: str, store: Path | None, root: Path) -> SoftLabels:
        return soft_labels_of(
            teacher,
            text,
            corpus=recipe.corpus,
            store=store,
            root=root,
            accelerator=accelerator,
            autocast_dtype=autocast_dtype,
        )

    if is_taken_as_it_is(recipe):
        alone = own(recipe.teacher, store, root)
        about = [{"teacher": recipe.teacher, "fingerprint": alone.card.teacher, "weight": 1.0}]
        return Taught(alone, {recipe.teacher: alone}, about, read_settings(recipe.teacher).outside_share)
    # What could be refused is looked at first, before models are run for hours.
    parts = mixed_labels(recipe)
    _tell_of_annotations(parts[1], recipe, text, accelerator)
    sources = source_languages(recipe) if recipe.mixing.weights == BY_LANGUAGE else None
    by_model = {name: own(name, None, store or root) for name in recipe.model_teachers}
    mixed, about = _stored_mixture(recipe, text, store or root, parts, by_model, sources, accelerator, autocast_dtype)
    for row, name in zip(about, recipe.teachers, strict=True):
        row["teacher"] = name  # the same teachers may have been moved since
        accelerator.print(f"teacher of weight {row['weight']:.3f}: {name}")
    accelerator.print(f"mixed soft labels: {mixed.folder}")
    return Taught(mixed, by_model, about, _outside_share(about, recipe))


def _tell_of_annotations(
    annotations: Mapping[str, Annotations], recipe: DistillRecipe, text: Path, accelerator: Accelerator
) -> None:
    """How many records there are, and how many find a sentence; refuses files of which none does."""
    for found in annotations.values():
        n_sentences, n_astray = found.count(sentence.words for sentence in target_stream(text, recipe.corpus))
        astray = f"; {n_astray:,} speak of no sentence of it" if n_astray else ""
        accelerator.print(
            f"{found.path}: {len(found):,} records, {n_sentences:,} sentences of the text have one{astray}"
        )


def _stored_mixture(
    recipe: DistillRecipe,
    text: Path,
    root: Path,
    parts: tuple[LabelMap, Mapping[str, Annotations], LabelSet],
    by_model: Mapping[str, SoftLabels],
    sources: SourceLanguages | None,
    accelerator: Accelerator,
    autocast_dtype: torch.dtype | None,
) -> tuple[SoftLabels, list[dict[str, Any]]]:
    """The mixture under `root`, made now if it is not there whole, and its teachers, as stored beside it."""
    rename, annotations, labels = parts
    voices = [
        ModelVoice(by_model[name], rename, labels)
        if name in by_model
        else AnnotationVoice(annotations[name], rename, labels, recipe.mixing.outside)
        for name in recipe.teachers
    ]
    prints = [
        by_model[name].card.teacher if name in by_model else hashlib.sha256(Path(name).read_bytes()).hexdigest()[:12]
        for name in recipe.teachers
    ]
    annotated = dict(zip(recipe.teachers, prints, strict=True))
    made_of = [by_model[name].digest if name in by_model else annotated[name] for name in recipe.teachers]
    mixture = mixture_fingerprint(recipe, made_of, sources, number_format(autocast_dtype))
    text_hash = text_fingerprint(text, recipe.corpus)[0]
    folder = root / f"mixed-{mixture}-{text_hash}"
    with locked(folder, accelerator):
        stored = _whole_mixture(folder, accelerator)
        accelerator.wait_for_everyone()  # nobody writes before all have looked
        if accelerator.is_main_process and stored is None:
            weights = np.asarray(recipe.mixing.numbers or [1.0] * len(voices))
            if sources is not None:
                first = by_model[recipe.teachers[0]]
                weights = language_weights(recipe, sources, first, accelerator, autocast_dtype)
            weights = weights / weights.sum(axis=-1, keepdims=True)
            sentences = (sentence.words for sentence in target_stream(text, recipe.corpus))
            card = write_mixture(folder, (mixture, text_hash), labels, voices, weights, sentences)
            means = np.atleast_2d(weights).mean(axis=0)
            written = [
                {"teacher": name, "fingerprint": found, "weight": round(float(weight), 6)}
                for name, found, weight in zip(recipe.teachers, prints, means, strict=True)
            ]
            write_json(folder / MIXTURE_FILE, {"teachers": written})
            write_card(folder, replace(card, number_format=number_format(autocast_dtype)))
            for voice in voices:
                if isinstance(voice, AnnotationVoice):
                    accelerator.print(voice.told())
        accelerator.wait_for_everyone()
    return stored or (SoftLabels(folder), read_json(folder / MIXTURE_FILE)["teachers"])


def _whole_mixture(folder: Path, accelerator: Accelerator) -> tuple[SoftLabels, list[dict[str, Any]]] | None:
    """What is stored of a mixture; None if it is not there, or damaged, so that it is made again."""
    stored = whole_soft_labels(folder, accelerator)
    if stored is None:
        return None
    try:
        return stored, read_json(folder / MIXTURE_FILE)["teachers"]
    except (OSError, ValueError) as problem:
        accelerator.print(f"{problem}; made again")
        return None


def is_taken_as_it_is(recipe: DistillRecipe) -> bool:
    """Whether there is but one teacher, a model, with nothing to rename and with tags that a student can have."""
    if len(recipe.teachers) > 1 or not recipe.model_teachers or recipe.mixing.rename.strip():
        return False
    check_teacher(recipe.teacher)
    return is_iob(read_tags(recipe.teacher))


def mixed_labels(recipe: DistillRecipe) -> tuple[LabelMap, dict[str, Annotations], LabelSet]:
    """The renaming of types, the annotation files, and the tags that all teachers have together.

    Raises:
        LabelError: If the recipe renames a type that no teacher has, or no type is left.
    """
    rename = LabelMap.parse(recipe.mixing.rename)
    for name in recipe.model_teachers:
        check_teacher(name)
    annotations = {name: read_annotations(Path(name)) for name in recipe.teachers if name not in recipe.model_teachers}
    old_types = {name for found in annotations.values() for name in found.types}
    types = {rename.type_of(name) for name in old_types}
    for name in recipe.model_teachers:
        tags = read_tags(name)
        old_types |= {prefix_and_type(tag)[1] for tag in tags}
        try:
            types |= set(TagReading.of(tags, rename).labels.types)
        except LabelError as problem:
            raise LabelError(f"{name}: {problem}") from problem
    rename.check(old_types - {""}, "the teachers")
    if not types - {""}:
        raise LabelError(f"mixing.rename={recipe.mixing.rename} drops all types of the teachers")
    return rename, annotations, LabelSet.of_types(types - {""})


def mixture_fingerprint(
    recipe: DistillRecipe, made_of: Sequence[str], sources: SourceLanguages | None, number_format: str
) -> str:
    """A short hash of all that a mixture depends on beside the text.

    Args:
        recipe: Of the run.
        made_of: For each teacher the digest of its soft labels, or of its annotation file.
        sources: Where the teachers are weighed by their languages; then a network is run once more.
        number_format: In which it computes.
    """
    mixing = recipe.mixing
    weights = [mixing.per, *sources.fingerprints(recipe)] if sources else [mixing.weights]
    rename = str(LabelMap.parse(mixing.rename))
    return json_digest([FORMULAS["mixed"], list(made_of), weights, rename, mixing.outside, number_format])[:12]


def write_mixture(
    folder: Path,
    fingerprints: tuple[str, str],
    labels: LabelSet,
    voices: Sequence[Voice],
    weights: Weights,
    sentences: Iterator[Sequence[str]],
) -> SoftLabelCard:
    """Write the rows of a mixture; its card, which is not written yet.

    Args:
        folder: Where.
        fingerprints: Of the mixture and of the text.
        labels: Of the mixture.
        voices: The teachers, T of them.
        weights: Theirs, each row adding up to 1.
        sentences: The words of the text, in the order of the teachers' soft labels.
    """
    counts = np.zeros(2, dtype=np.int64)  # sentences, words
    models = [(place, voice) for place, voice in enumerate(voices) if isinstance(voice, ModelVoice)]
    heads = [(place, voice.soft_labels) for place, voice in models if voice.soft_labels.card.projection_size]
    means = np.atleast_2d(weights).mean(axis=0)  # a similarity is of two sentences, so it has one weight for all
    factors, offset = similarity_factors(
        [means[place] for place, _ in heads], [(found.card.scale, found.card.offset) for _, found in heads]
    )
    kept = [(factor, found) for factor, (_, found) in zip(factors, heads, strict=True) if factor > 0]

    def rows() -> Iterator[SoftRow]:
        for number, words in enumerate(sentences):
            said = [voice.of(number, words) for voice in voices]
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


def _outside_share(teachers: Sequence[Mapping[str, Any]], recipe: DistillRecipe) -> float:
    """The weighted mean over the teachers of which it is known; 0 where it is known of none."""
    known = [
        (row["weight"], share)
        for row in teachers
        if row["teacher"] in recipe.model_teachers and (share := read_settings(row["teacher"]).outside_share)
    ]
    total = sum(weight for weight, _ in known)
    return sum(weight * share for weight, share in known) / total if total else 0.0
