"""Soft labels in the making: parts that a stopped run has finished, and the card that declares them whole."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from xlner.data.soft_labels import CARD_FILE, SoftLabelCard, SoftLabels, write_card
from xlner.data.storage import is_whole
from xlner.files import write_text

_BEGUN_FILE = ".begun.json"


def keep_parts(folder: Path, card: SoftLabelCard, tell: Callable[[str], None]) -> int:
    """Keep the finished parts of the same soft labels, and remove those of any others; how many are kept.

    Args:
        folder: Where they lie; nobody else writes there.
        card: Of the soft labels that are wanted, without the number of words.
        tell: Takes a line on each part that is damaged, which is removed, too.
    """
    (folder / CARD_FILE).unlink(missing_ok=True)
    for left in folder.glob(".part-*.unfinished"):
        left.unlink()  # of a process that was killed
    path, wanted = folder / _BEGUN_FILE, json.dumps(asdict(card), indent=2) + "\n"
    is_same = path.is_file() and path.read_text(encoding="utf-8", errors="replace") == wanted
    n_kept = 0
    for part in sorted(folder.glob("part-*.arrow")):
        if is_same and is_whole(part):
            n_kept += 1
            continue
        if is_same:
            tell(f"{part}: damaged; made again")
        part.unlink()
    write_text(path, wanted)
    return n_kept


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
