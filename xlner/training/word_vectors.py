"""What the word vectors of a compact student start from: its teacher's table of pieces, or a text file.

Source: for the teacher's own table, reduced in width, Mukherjee and Awadallah 2020 (arXiv:2004.05686), section 4.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlner.data.alignment import WordEncoder, load_tokenizer
from xlner.errors import CorpusError
from xlner.models.folder import load_joint_model
from xlner.students.vocabulary import FIRST, looked_up

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
