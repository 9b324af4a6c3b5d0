"""A tokenizer with more pieces, learnt from a text, or with fewer: those that a text uses."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer, models, trainers
from transformers import PreTrainedTokenizerBase

from xlner.encode import WordEncoder, encodable, load_tokenizer
from xlner.errors import ModelError
from xlner.words import begins_unspaced

# A tokenizer with more pieces: learnt from a text, added to the vocabulary of its own model.
#
# The new pieces are pieces like the others, not "added tokens", which would match anywhere in a text, within words as
# well. Old pieces keep their ids. A vocabulary is learnt by the trainer of the tokenizer's own kind, with its own
# normaliser and its own way to cut words.


CHUNK_WORDS = 10_000  # words that are tokenised together


class Extension(NamedTuple):
    """A tokenizer with new pieces.

    `first_id` is the id of the first new piece, the others follow; `parts` says for each what the old tokenizer made
    of it: the ids of its pieces, or nothing where some of it was unknown.
    """

    tokenizer: PreTrainedTokenizerBase
    first_id: int
    parts: list[list[int]]


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerBase, words: Counter[str], new_pieces: int, min_frequency: int
) -> Extension:
    """Learn pieces from words, and add those that are new.

    Characters that the tokenizer does not know come first, then longer pieces, the frequent ones before the others.

    Args:
        tokenizer: With a WordPiece or Unigram model.
        words: The words of a text, and how often each occurs in it.
        new_pieces: How many pieces to add at most.
        min_frequency: How often a piece that is added must occur in the text.

    Raises:
        ModelError: If the tokenizer is of another kind.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = _kind(content["model"]["type"], tokenizer)
    encoder = WordEncoder(tokenizer)
    # Pieces that begin a word are learnt with what marks them.
    words = Counter({encoder.before_word + word: count for word, count in words.items()})
    learnt = kind.learn(content, words, len(tokenizer) + new_pieces)
    counts = _uses(learnt, words)
    known = tokenizer.get_vocab()
    mark = content["model"].get("continuing_subword_prefix") or ""
    is_letter = {piece: len(piece.removeprefix(mark)) == 1 for piece in counts}
    wanted = [
        piece
        for piece, count in counts.items()
        if count >= min_frequency and piece not in known and not _is_never_used(piece, encoder.space_mark)
    ]
    chosen = sorted(wanted, key=lambda piece: (not is_letter[piece], -counts[piece], piece))[:new_pieces]
    first_id = len(tokenizer)
    parts = [kind.parts(tokenizer, known, piece, mark) for piece in chosen]
    kind.add(content, chosen, learnt)
    expected = {**known, **{piece: first_id + number for number, piece in enumerate(chosen)}}
    told = "does not take new pieces as they are; set vocabulary.new_pieces=0"
    return Extension(rebuilt_tokenizer(tokenizer, content, expected, told), first_id, parts)


def _is_never_used(piece: str, space_mark: str) -> bool:
    """Whether it stands for a space and a character behind it that no space stands before."""
    return bool(space_mark) and piece.startswith(space_mark) and begins_unspaced(piece.removeprefix(space_mark))


class _Kind(NamedTuple):
    """What differs between the models of tokenizers: how pieces are learnt, added, and cut into known ones."""

    learn: Callable[[dict[str, Any], Counter[str], int], Tokenizer]
    add: Callable[[dict[str, Any], Sequence[str], Tokenizer], None]
    parts: Callable[[PreTrainedTokenizerBase, Mapping[str, int], str, str], list[int]]


def check_extendable(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer to which no pieces can be added.

    Raises:
        ModelError: If it is of no kind of `KINDS`.
    """
    _kind(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"], tokenizer)


def _kind(name: str, tokenizer: PreTrainedTokenizerBase) -> _Kind:
    if name not in KINDS:
        raise ModelError(
            f"{tokenizer.name_or_path}: its tokenizer is of the kind {name}, of which each piece is made by merging "
            "two others: a piece cannot be added alone, and those that work on bytes know every character already; "
            f"set vocabulary.new_pieces=0, or take an encoder with {' or '.join(KINDS)}"
        )
    return KINDS[name]


def _learn_word_pieces(content: dict[str, Any], words: Counter[str], size: int) -> Tokenizer:
    model = content["model"]
    mark = model["continuing_subword_prefix"]
    learnt = _like(content, models.WordPiece(unk_token=model["unk_token"]))
    # Named here in order: the trainer would number them as its hash table has them, and break ties by these numbers.
    letters = sorted({f"{mark}{letter}" for word in words for letter in encodable(word)})
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[model["unk_token"], *letters],
        limit_alphabet=1 << 30,  # how rare a character may be is decided later
        continuing_subword_prefix=mark,
    )
    learnt.train_from_iterator(_repeated(words), trainer)
    return learnt


def _add_word_pieces(content: dict[str, Any], pieces: Sequence[str], learnt: Tokenizer) -> None:
    vocabulary = content["model"]["vocab"]
    _settle_added_tokens(content, lambda token, number: vocabulary.setdefault(token, number))
    first = 1 + max(vocabulary.values())
    vocabulary.update((piece, first + number) for number, piece in enumerate(pieces))


def _word_piece_parts(tokenizer: PreTrainedTokenizerBase, known: Mapping[str, int], piece: str, mark: str) -> list[int]:
    """The longest known piece at the start, then that of what is left, as WordPiece cuts words."""
    prefix, rest = (mark, piece[len(mark) :]) if mark and piece.startswith(mark) else ("", piece)
    parts: list[int] = []
    while rest:
        length = next((end for end in range(len(rest), 0, -1) if prefix + rest[:end] in known), 0)
        if not length:
            return []
        parts.append(known[prefix + rest[:length]])
        prefix, rest = mark, rest[length:]
    return parts


def _learn_unigrams(content: dict[str, Any], words: Counter[str], size: int) -> Tokenizer:
    unknown = content["model"]["vocab"][content["model"]["unk_id"]][0]
    learnt = _like(content, models.Unigram())
    trainer = trainers.UnigramTrainer(vocab_size=size, show_progress=False, special_tokens=[unknown], unk_token=unknown)
    learnt.train_from_iterator(_repeated(words), trainer)
    return learnt


def _add_unigrams(content: dict[str, Any], pieces: Sequence[str], learnt: Tokenizer) -> None:
    """Add pieces with their scores, moved to where the scores of pieces that both vocabularies have are."""
    vocabulary = content["model"]["vocab"]
    _settle_added_tokens(content, lambda token, number: _append(vocabulary, token, number))
    scores = dict(json.loads(learnt.to_str())["model"]["vocab"])
    special = {token["content"] for token in content["added_tokens"]}
    shifts = [score - scores[piece] for piece, score in vocabulary if piece in scores and piece not in special]
    shift = float(np.median(shifts)) if shifts else 0.0
    highest = max(score for piece, score in vocabulary if piece not in special)
    vocabulary += [[piece, min(highest, scores[piece] + shift)] for piece in pieces]


def _append(vocabulary: list[list[Any]], token: str, number: int) -> None:
    if number == len(vocabulary):
        vocabulary.append([token, 0.0])


def _unigram_parts(tokenizer: PreTrainedTokenizerBase, known: Mapping[str, int], piece: str, mark: str) -> list[int]:
    ids = [token.id for token in tokenizer.backend_tokenizer.model.tokenize(piece)]
    return [] if tokenizer.unk_token_id in ids else ids


def _settle_added_tokens(content: dict[str, Any], settle: Callable[[str, int], Any]) -> None:
    """Give added tokens a place in the model's vocabulary: their ids would else be counted on from its end."""
    for token in sorted(content["added_tokens"], key=lambda token: int(token["id"])):
        settle(token["content"], token["id"])


def _like(content: dict[str, Any], model: models.Model) -> Tokenizer:
    """A tokenizer that normalises and cuts text as the one of this content."""
    full = Tokenizer.from_str(json.dumps(content))
    empty = Tokenizer(model)
    if full.normalizer is not None:
        empty.normalizer = full.normalizer
    if full.pre_tokenizer is not None:
        empty.pre_tokenizer = full.pre_tokenizer
    return empty


def _repeated(words: Counter[str]) -> Iterable[str]:
    return (encodable(word) for word, count in sorted(words.items()) for _ in range(count))


def _uses(learnt: Tokenizer, words: Counter[str]) -> Counter[str]:
    """How often a tokenizer uses its pieces in a text; single characters are counted wherever they stand.

    A character that only ever occurs within longer pieces is needed for words that are not in the text.
    """
    uses: Counter[str] = Counter()
    unknown = learnt.model.unk_token if isinstance(learnt.model, models.WordPiece) else None
    mark = learnt.model.continuing_subword_prefix if isinstance(learnt.model, models.WordPiece) else ""
    known = learnt.get_vocab()
    kept = sorted(words)
    for start in range(0, len(kept), CHUNK_WORDS):
        block = kept[start : start + CHUNK_WORDS]
        for word, encoding in zip(block, learnt.encode_batch([encodable(word) for word in block]), strict=True):
            for piece in encoding.tokens:
                if piece == unknown:
                    continue
                uses[piece] += words[word]
                is_inner = bool(mark) and piece.startswith(mark)
                letters = piece[len(mark) :] if is_inner else piece
                if len(letters) == 1:
                    continue
                for place, letter in enumerate(letters):
                    alone = mark + letter if is_inner or place else letter
                    if alone in known:
                        uses[alone] += words[word]
    return uses


def rebuilt_tokenizer(
    tokenizer: PreTrainedTokenizerBase, content: dict[str, Any], expected: Mapping[str, int], refused: str
) -> PreTrainedTokenizerBase:
    """A tokenizer as the old one but for its content, made as all are: from a folder.

    Args:
        tokenizer: The old one.
        content: What `tokenizer.json` shall say.
        expected: The ids of all its pieces.
        refused: What the tokenizer does otherwise, and the way out.

    Raises:
        ModelError: If it does not have the pieces where they were put.
    """
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        Path(folder, "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        rebuilt = load_tokenizer(folder)
    rebuilt.name_or_path = tokenizer.name_or_path
    if rebuilt.get_vocab() != expected:
        raise ModelError(f"{tokenizer.name_or_path}: its tokenizer ({type(tokenizer).__name__}) {refused}")
    return rebuilt


# A new kind of tokenizer is three functions above and one line here, by the name that tokenizer.json has for it.
KINDS: dict[str, _Kind] = {
    "WordPiece": _Kind(_learn_word_pieces, _add_word_pieces, _word_piece_parts),
    "Unigram": _Kind(_learn_unigrams, _add_unigrams, _unigram_parts),
}


# A tokenizer with fewer pieces: those that a text uses, and what words of other texts need.
#
# Words of the text become the same pieces as before, as long as all that occur are kept: WordPiece takes the longest
# piece that it has, Unigram the likeliest sequence, and neither is changed by the loss of a piece that was not taken.
#
# Source: Abdaoui et al. 2020 (arXiv:2010.05609).


_WAY_OUT = "set reduction.min_frequency=0"


class Pruned(NamedTuple):
    """A smaller tokenizer: its piece i was piece `piece_ids[i]`."""

    tokenizer: PreTrainedTokenizerBase
    piece_ids: list[int]


def prune_tokenizer(tokenizer: PreTrainedTokenizerBase, uses: Mapping[int, int], min_frequency: int) -> Pruned:
    """Drop pieces that a text does not use often enough.

    Special pieces stay, pieces that stand for bytes, and single characters that the text has: a new word of the text's
    characters does not become unknown.

    Args:
        tokenizer: With a WordPiece or Unigram model.
        uses: How often the text uses each piece, by its id.
        min_frequency: How often a piece that is kept must occur.

    Raises:
        ModelError: If the tokenizer is of another kind.
    """
    content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    _check_kind(content["model"]["type"], tokenizer)
    model, known = content["model"], tokenizer.get_vocab()
    mark = model.get("continuing_subword_prefix") or ""
    pieces = {number: piece for piece, number in known.items()}
    kept = {int(token["id"]) for token in content["added_tokens"]} | set(tokenizer.all_special_ids)
    kept |= {number for number, count in uses.items() if count >= max(1, min_frequency)}
    letters = {letter for number in uses for letter in pieces[number]}
    for number, piece in pieces.items():
        is_byte = bool(model.get("byte_fallback")) and piece.startswith("<0x")
        bare = piece.removeprefix(mark)
        if is_byte or piece == model.get("unk_token") or (len(bare) == 1 and bare in letters):
            kept.add(number)
    if model["type"] == "Unigram":
        kept.add(model["unk_id"])
    piece_ids = sorted(kept)
    new_ids = {old: new for new, old in enumerate(piece_ids)}
    _renumber(content, new_ids)
    expected = {pieces[old]: new for old, new in new_ids.items()}
    return Pruned(rebuilt_tokenizer(tokenizer, content, expected, f"does not lose pieces; {_WAY_OUT}"), piece_ids)


def check_prunable(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot lose pieces.

    Raises:
        ModelError: If it is of no kind of `KINDS`.
    """
    _check_kind(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"], tokenizer)


def _check_kind(kind: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if kind not in KINDS:
        raise ModelError(
            f"{tokenizer.name_or_path}: its tokenizer is of the kind {kind}, whose pieces are made of each other; "
            f"{_WAY_OUT}, or take an encoder with {' or '.join(KINDS)}"
        )


def _renumber(content: dict[str, Any], new_ids: Mapping[int, int]) -> None:
    """Rewrite a tokenizer.json so that it has these pieces alone, by their new ids."""
    model = content["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in new_ids]
        model["unk_id"] = new_ids[model["unk_id"]]
    else:
        model["vocab"] = {piece: new_ids[number] for piece, number in model["vocab"].items() if number in new_ids}
    for token in content["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    content["padding"] = None  # xlner pads by itself; a stored rule would name the old id
    _renumber_special(content.get("post_processor"), new_ids)


def _renumber_special(processor: dict[str, Any] | None, new_ids: Mapping[int, int]) -> None:
    """The special pieces around a sentence, in each of the forms that tokenizer.json has for them."""
    for part in (processor or {}).get("processors", []):
        _renumber_special(part, new_ids)
    for special in (processor or {}).get("special_tokens", {}).values():
        special["ids"] = [new_ids[number] for number in special["ids"]]
    for key in ("sep", "cls"):
        if processor and key in processor:
            piece, number = processor[key]
            processor[key] = [piece, new_ids[number]]
