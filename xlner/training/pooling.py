"""Pooled soft labels on disk: a folder like that of the teacher's own, inside it, made once per recipe of pooling."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from xlner.data.soft_labels import BLOCK, COLUMNS, SoftLabels, part_path, read_card, write_card
from xlner.data.storage import RowWriter, in_blocks
from xlner.labels import OUTSIDE
from xlner.pooling import Outside, pooled_probs
from xlner.schema import PoolingRecipe
from xlner.training.labelling import locked


def pooled_soft_labels(
    soft_labels: SoftLabels, recipe: PoolingRecipe, outside_share: float, accelerator: Accelerator
) -> SoftLabels:
    """The soft labels of a teacher, pooled over like places; every process calls it.

    Args:
        soft_labels: Of the whole text, as the teacher gave them.
        recipe: How far to pool.
        outside_share: Share of `O` among the words of the teacher's labelled text; 0 where it is not known.
        accelerator: The main process works, the others wait.

    Returns:
        The same ones if nothing is to be pooled.
    """
    if not recipe.is_used:
        return soft_labels
    if recipe.outside and not outside_share:
        accelerator.print("the teacher does not say how often O is right in its language: pooling.outside does nothing")
    content = json.dumps([asdict(recipe), outside_share])
    folder = soft_labels.folder / f"pooled-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    with locked(folder, accelerator):
        if accelerator.is_main_process and read_card(folder) is None:
            with RowWriter(part_path(folder, 0), COLUMNS) as writer:
                for block in in_blocks(_pooled_rows(soft_labels, recipe, outside_share), BLOCK):
                    writer.write(block)
            write_card(folder, replace(soft_labels.card, n_parts=1))
        accelerator.wait_for_everyone()
    return SoftLabels(folder)


def _pooled_rows(
    soft_labels: SoftLabels, recipe: PoolingRecipe, outside_share: float
) -> Iterator[dict[str, list[str] | NDArray[np.generic]]]:
    numbers = range(len(soft_labels))
    pooled = pooled_probs(
        lambda: ((soft_labels.words(number), soft_labels.probs(number)) for number in numbers),
        recipe.weights,
        Outside(soft_labels.card.tags.index(OUTSIDE), outside_share, recipe.outside),
        temperature=recipe.temperature,
    )
    for number, probs in zip(numbers, pooled, strict=True):
        yield {
            "words": soft_labels.words(number),
            "probs": probs.astype(np.float16).ravel(),
            "projections": soft_labels.projections(number).ravel(),
        }
