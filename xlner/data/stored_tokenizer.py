"""A tokenizer from its `tokenizer.json` alone, without transformers, whose import costs more than tagging a text."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from xlner.errors import ModelError, XlnerError


@dataclass(frozen=True)
class StoredTokenizer:
    """What the word encoder asks of a tokenizer, under the names that transformers gave it."""

    backend_tokenizer: Tokenizer
    model_max_length: int
    pad_token_id: int
    is_fast: bool = True


def read_tokenizer(path: Path, *, max_length: int, pad_id: int) -> StoredTokenizer:
    """The tokenizer of an exported folder.

    Args:
        path: A `tokenizer.json`, found undamaged.
        max_length: Pieces a window may hold, special ones included.
        pad_id: The padding piece.
    """
    with tokenizer_errors(f"{path}: no tokenizer"):
        return StoredTokenizer(Tokenizer.from_file(str(path)), max_length, pad_id)


@contextmanager
def tokenizer_errors(place: str = "its tokenizer.json is damaged") -> Iterator[None]:
    """Tell what a tokenizer stumbles over in a line.

    Raises:
        ModelError: In place of any error: what tokenizers raises is a plain `Exception`, or a panic, which is not even
            one and has no name to import.
    """
    try:
        yield
    except BaseException as problem:
        is_panic = type(problem).__name__ == "PanicException"
        if isinstance(problem, XlnerError) or not (is_panic or isinstance(problem, Exception)):
            raise
        first_line = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise ModelError(f"{place}: {first_line}") from problem
