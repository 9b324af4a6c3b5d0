"""A tokenizer with fewer pieces: those that a text uses, and what words of other texts need.

Words of the text become the same pieces as before, as long as all that occur are kept: WordPiece takes the longest
piece that it has, Unigram the likeliest sequence, and neither is changed by the loss of a piece that was not taken.

Source: Abdaoui et al. 2020 (arXiv:2010.05609).
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from xlner.data.vocabulary import KINDS, rebuilt_tokenizer
from xlner.errors import ModelError

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
