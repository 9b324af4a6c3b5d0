"""The unlabelled text of an adaptation: target text in two parts, translations, other languages; and its pieces."""

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlner.data.alignment import WordEncoder
from xlner.data.corpus_files import existing_file, text_path
from xlner.data.masked_text import TextRows, pair_rows, sentence_rows, unknown_share
from xlner.data.parallel import read_pairs
from xlner.data.summaries import CorpusTally
from xlner.errors import CorpusError
from xlner.recipe import choose
from xlner.schema import AdaptRecipe
from xlner.splitting import WORD_SPLITTERS
from xlner.text import Sentence
from xlner.training.corpora import text_stream

Words = Sequence[tuple[str, ...]]
Pairs = Sequence[tuple[Sentence, Sentence]]


class Texts(NamedTuple):
    """The words of all that is read: target text in two parts, translations, other text; and a hash of the first."""

    trained: Words
    held_out: Words
    pairs: Pairs
    other: Words
    fingerprint: str

    def counts(self) -> dict[str, int]:
        """How many sentences and pairs each part has."""
        return {name: len(part) for name, part in self._asdict().items() if name != "fingerprint"}


def read_texts(recipe: AdaptRecipe, say: Callable[[str], None]) -> Texts:
    """Read all that a recipe names.

    Raises:
        CorpusError: If a file is missing, cannot be read, or holds something else.
    """
    path = text_path(recipe.text, recipe.data, recipe.target)
    limit = recipe.corpus.max_sentences or None
    tally = CorpusTally()
    read = islice(text_stream(path, recipe.corpus), limit)
    target = [sentence.words for sentence in tally.over(read)]
    held_out, trained = split_text(len(target), recipe.holdout_ratio)
    if recipe.selection == "best" and not len(held_out):
        raise CorpusError(
            f"{path}: found {len(target):,} sentences, of which holdout_ratio={recipe.holdout_ratio:g} is none; "
            "expected more text, or a larger holdout_ratio, or selection=last"
        )
    pairs: Pairs = []
    if recipe.parallel:
        splitter = choose(WORD_SPLITTERS, recipe.corpus.word_splitter, "corpus.word_splitter")
        found = read_pairs(recipe.parallel, recipe.corpus.encoding, splitter)
        pairs = list(islice(found, recipe.max_pairs or None))
    other: Words = []
    if recipe.other_text:
        every = [sentence.words for sentence in text_stream(existing_file(recipe.other_text), recipe.corpus)]
        wanted = round((len(trained) + len(pairs)) * recipe.other_share / (1 - recipe.other_share))
        chosen = np.random.default_rng(recipe.seed).permutation(len(every))[:wanted]
        other = [every[number] for number in np.sort(chosen)]
        if wanted > len(every):
            say(f"{recipe.other_text}: holds {len(every):,} sentences, fewer than the {wanted:,} of other_share")
    fingerprint = tally.summary().words_fingerprint
    texts = Texts([target[n] for n in trained], [target[n] for n in held_out], pairs, other, fingerprint)
    say(
        f"{path}: {len(texts.trained):,} sentences to read, {len(texts.held_out):,} held out; "
        f"{len(pairs):,} translations, {len(other):,} sentences of other text"
    )
    return texts


def split_text(n_sentences: int, ratio: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Held-out and training sentences, in rising order; the same ones for every seed, so that runs compare."""
    order = np.random.default_rng(0).permutation(n_sentences)
    n_held_out = round(n_sentences * ratio)
    return np.sort(order[:n_held_out]), np.sort(order[n_held_out:])


def training_rows(encoder: WordEncoder, texts: Texts, say: Callable[[str], None]) -> TextRows:
    """All that is trained on, as rows of pieces."""
    rows = TextRows(
        chain(
            sentence_rows(encoder, texts.trained),
            pair_rows(encoder, texts.pairs) if texts.pairs else (),
            sentence_rows(encoder, texts.other),
        )
    )
    say(f"{len(rows):,} inputs of {len(rows.piece_ids) / max(1, len(rows)):.1f} pieces each, {rows.n_words:,} words")
    return rows


def describe_pieces(encoder: WordEncoder, sentences: Words) -> dict[str, float]:
    """Size of the vocabulary, share of unknown pieces among all of the text, and pieces per word."""
    rows = TextRows(sentence_rows(encoder, sentences))
    n_special = len(encoder.prefix) + len(encoder.suffix)
    share, per_word = unknown_share(rows, encoder.tokenizer.unk_token_id, n_special)
    return {"vocabulary": len(encoder.tokenizer), "unknown_share": round(share, 5), "per_word": round(per_word, 4)}


def told(found: dict[str, float]) -> str:
    """The same for a person."""
    new = f", {found['new_pieces']:,} of them new" if "new_pieces" in found else ""
    return (
        f"{found['vocabulary']:,} in the vocabulary{new}; {found['per_word']:.2f} a word of the text, "
        f"{100 * found['unknown_share']:.2f} % of them unknown"
    )


def refuse_unknown_text(found: dict[str, float], texts: Texts) -> None:
    """Refuse a text of which the tokenizer knows nothing.

    Raises:
        CorpusError: With what the text begins with.
    """
    if found["unknown_share"] == 1.0 or not found["per_word"]:
        examples = " ".join(texts.trained[0][:6])
        raise CorpusError(
            f"the tokenizer knows nothing of the text ({examples!r}, ...); expected text in a "
            "script of the encoder; set vocabulary.new_pieces to add what is missing, or take another encoder"
        )
