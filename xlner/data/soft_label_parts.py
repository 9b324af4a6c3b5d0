"""Soft labels in the making: parts that a stopped run has finished, and the card that declares them whole."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from xlner.data.soft_labels import SoftLabelCard, SoftLabels, part_path, write_card

_BEGUN_FILE = ".begun.json"


def keep_parts(folder: Path, card: SoftLabelCard, made_by: str) -> int:
    """Keep the finished parts of the same soft labels, and remove those of any others; how many are kept.

    Args:
        folder: Where they lie; nobody else writes there.
        card: Of the soft labels that are wanted, without the number of words.
        made_by: What else they depend on.
    """
    for left in folder.glob(".part-*.unfinished"):
        left.unlink()  # of a process that was killed
    path, wanted = folder / _BEGUN_FILE, json.dumps({**asdict(card), "made_by": made_by}, indent=2) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == wanted:
        return sum(part_path(folder, part).is_file() for part in range(card.n_parts))
    for part in folder.glob("part-*.arrow"):
        part.unlink()
    path.write_text(wanted, encoding="utf-8")
    return 0


def write_counted_card(folder: Path, card: SoftLabelCard) -> tuple[int, int]:
    """Declare a folder finished, all of whose parts stand; its words, and those that the teacher could not see."""
    soft_labels = SoftLabels(folder, card)
    n_words = n_unseen = 0
    for sentence in range(len(soft_labels)):
        probs = soft_labels.probs(sentence)
        n_words, n_unseen = n_words + len(probs), n_unseen + int(np.sum(~probs.any(axis=1)))
    write_card(folder, replace(card, n_words=n_words))
    (folder / _BEGUN_FILE).unlink(missing_ok=True)
    return n_words, n_unseen
