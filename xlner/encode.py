"""Words to subword pieces and back, for any fast tokenizer: windows, their words, and padded arrays; without torch."""

import hashlib
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import ByteLevel

from xlner.errors import ModelError, XlnerError, first_line, has_half_characters
from xlner.hub import is_reachable, refuse_file
from xlner.words import begins_unspaced, unspaced_runs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# A tokenizer from its `tokenizer.json` alone, without transformers, whose import costs more than tagging a text.


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
        raise ModelError(f"{place}: {first_line(problem)}") from problem


# Words to subword pieces and back, for any fast tokenizer.
#
# A sentence becomes one or more windows, none longer than the encoder takes. Windows overlap, so that a word near
# an edge is seen with context, yet each word is *decided* by exactly one of them: the one that lists it. Only the
# first piece of a word carries meaning; where it stands is all that later stages ask (`words`).

# Longest piece sequence used when a tokenizer states no limit of its own (they then give a number near 1e30).
FALLBACK_LENGTH = 512
# Words of context that a window shows beyond those it decides, where a sentence needs several windows.
CONTEXT_RATIO = 0.25
# Sentences whose unknown words are tokenised together.
CHUNK_SENTENCES = 1024
# Words that the tokenizer gets as one list: it is slow at short lists, and threads share out the lists.
ROW_WORDS = 64
# Words whose pieces are remembered, and the characters of the longest one: some 30 MB.
KEPT_WORDS = 100_000
LONGEST_KEPT_WORD = 64
RUNS = 1  # of how words of scripts without spaces get their pieces; whoever changes that adds 1
LONGEST_RUN = 100  # characters of such words that are cut as one: more are nothing but unknown to WordPiece
# Words that a tokenizer is tried on, beside some of its own pieces, so that there are some that it knows.
PROBE_WORDS = ("city", "Merkel", "was", "анна", "живёт", "Μαρία", "مدينة", "北京", "गाँव", "x", "2024")
PROBE_PIECES = 48
# Share of them that must have the pieces of running text. An added token beside a space may differ, a kind does not.
LEAST_SAME = 0.9


class Window(NamedTuple):
    """Piece ids of one window, and the words it decides.

    `word_positions` are the places of those words' first pieces in `piece_ids`; `word_numbers` are their places
    in the sentence, rising. Words that tokenise to nothing are in no window.
    """

    sentence: int
    piece_ids: NDArray[np.int32]
    word_positions: NDArray[np.int32]
    word_numbers: NDArray[np.int32]


class WordEncoder:
    """A fast tokenizer, its special pieces and the length limit, ready to encode sentences of words."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase | StoredTokenizer", max_length: int | None = None) -> None:
        """Learn the special pieces, and what tells where a word begins, by encoding a few words.

        Args:
            tokenizer: Any fast tokenizer of transformers, or one of an exported folder.
            max_length: Pieces a window may hold, special pieces included; None means the tokenizer's limit.

        Raises:
            ModelError: If the tokenizer is not fast, is damaged, does not cut text at spaces, or the limit leaves no
                room for words.
        """
        if not tokenizer.is_fast:
            raise ModelError(f"{type(tokenizer).__name__} is no fast tokenizer; xlner needs word boundaries from one")
        self.tokenizer: Any = tokenizer  # what saves a model asks for it again, with all its methods
        self._backend = tokenizer.backend_tokenizer
        self._known: dict[str, tuple[int, ...]] = {}
        limit = tokenizer.model_max_length
        known_limit = int(limit) if limit < 1_000_000 else FALLBACK_LENGTH
        self.max_length = min(max_length or known_limit, known_limit)
        self._pieces_alone()
        probes = _probe_words(self._backend)
        with tokenizer_errors():
            # What the tokenizer must get before each word of a list: nothing or a space.
            self.before_word = _before_each_word(self._backend, probes)
            self.prefix, self.suffix = _special_pieces(self._backend, probes)
            # What the tokenizer puts at the start of each word for that space: "" or a sign such as ▁ or Ġ.
            self.space_mark = "".join(_chunks(self._backend, self.before_word + "x")[:1])[:-1]
        self.pad_id = int(tokenizer.pad_token_id or 0)
        self.room = self.max_length - len(self.prefix) - len(self.suffix)
        if self.room < 4:
            raise ModelError(
                f"max_length is {self.max_length}; it must leave room for 4 pieces beside the special ones"
            )

    @property
    def fingerprint(self) -> str:
        """A short hash of all that decides which pieces words become."""
        cut = f"{self.prefix}{self.suffix}{self.max_length}{self.before_word}{self.space_mark}{RUNS}"
        content = self._backend.to_str() + cut
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def encode(self, sentences: Sequence[Sequence[str]], first_sentence: int = 0) -> Iterator[Window]:
        """The windows of some sentences, in order; their `sentence` counts from `first_sentence`.

        A sentence without any visible word gives no window. A word of more pieces than a window holds keeps its
        first ones. Words of a script without spaces get pieces as in running text, and a piece may hold several: those
        in its middle have none, so that no window decides them, and go on as the word before them (`predict.go_on`).
        """
        for start in range(0, len(sentences), CHUNK_SENTENCES):
            chunk = sentences[start : start + CHUNK_SENTENCES]
            pieces_of = self.pieces_of(set(chain.from_iterable(chunk)))
            runs = [[part for run in unspaced_runs(words) for part in _parts(words, run)] for words in chunk]
            in_runs = self._pieces_in_runs(
                [words[run] for words, found in zip(chunk, runs, strict=True) for run in found]
            )
            for number, (words, found) in enumerate(zip(chunk, runs, strict=True), first_sentence + start):
                pieces = [pieces_of[word] for word in words]
                for run in found:
                    pieces[run] = next(in_runs)
                yield from self._windows(number, pieces)

    def pieces_of(self, words: set[str]) -> dict[str, tuple[int, ...]]:
        """The pieces of each word, none of them more than a window holds.

        A tokenizer looks at each word of a list by itself, so a word has the same pieces in every sentence.
        A word of a script without spaces has no mark of a beginning: it stands behind no space in any text.
        """
        known = self._known
        found = {word: pieces for word in words if (pieces := known.get(word)) is not None}
        new = [word for word in words if word not in found]
        if new:
            made = dict(zip(new, self._tokenised(new), strict=True))
            if len(known) > KEPT_WORDS:
                known = self._known = {}
            known.update((word, pieces) for word, pieces in made.items() if len(word) <= LONGEST_KEPT_WORD)
            found |= made
        return found

    def _tokenised(self, words: Sequence[str]) -> Iterator[tuple[int, ...]]:
        rows = [words[start : start + ROW_WORDS] for start in range(0, len(words), ROW_WORDS)]
        self._pieces_alone()
        texts = [[self._in_list(word) for word in row] for row in rows]
        with tokenizer_errors():
            encoded = self._backend.encode_batch(texts, is_pretokenized=True, add_special_tokens=False)
        for row, found in zip(texts, encoded, strict=True):
            pieces: list[list[int]] = [[] for _ in row]
            for piece, word in zip(found.ids, found.word_ids, strict=True):
                if word is not None:
                    pieces[word].append(piece)
            for text, ids in zip(row, pieces, strict=True):
                bare = self.space_mark and begins_unspaced(text.removeprefix(self.before_word))
                yield tuple((self._without_mark(text) if bare else ids)[: self.room])

    def _in_list(self, word: str) -> str:
        """A word as the tokenizer must get it in a list, to make of it what it makes of it in running text."""
        # A word that is nothing gets no space: that would be a piece. One that brings its own needs no second one.
        return self.before_word + encodable(word) if word and not word[0].isspace() else encodable(word)

    def _without_mark(self, text: str) -> list[int]:
        """The pieces of a word that no space stands before; those with the mark tell of words that are none.

        Most characters of Chinese have no piece of their own with the mark, so that it would be the first piece of all.
        """
        with tokenizer_errors():
            first, *others = _chunks(self._backend, text) or [""]
            chunks = filter(None, [first.removeprefix(self.space_mark), *others])
            return [piece.id for chunk in chunks for piece in self._backend.model.tokenize(chunk)]

    def _pieces_in_runs(self, runs: Sequence[Sequence[str]]) -> Iterator[list[tuple[int, ...]]]:
        """The pieces that begin in each word of a run, of which the tokenizer gets all words as one.

        The mark of a space before the run belongs to no word, where it is a piece of its own. WordPiece knows all of a
        run or nothing: one that it does not know is cut word by word.
        """
        rows = [[encodable(word) for word in run] for run in runs]
        self._pieces_alone()
        with tokenizer_errors():
            texts = [[self.before_word + "".join(row)] for row in rows]
            encoded = self._backend.encode_batch(texts, is_pretokenized=True, add_special_tokens=False)
        model = self._backend.model
        unknown = self._backend.token_to_id(model.unk_token) if isinstance(model, WordPiece) else None
        for run, row, found in zip(runs, rows, encoded, strict=True):
            if unknown is not None and unknown in found.ids:
                pieces_of = self.pieces_of(set(run))
                yield [pieces_of[word] for word in run]
                continue
            *begins, _ = accumulate(map(len, row), initial=len(self.before_word))
            pieces: list[list[int]] = [[] for _ in row]
            is_marked = bool(found.tokens) and found.tokens[0] == self.space_mark
            for piece, (begin, _) in list(zip(found.ids, found.offsets, strict=True))[is_marked:]:
                pieces[max(0, bisect_right(begins, begin) - 1)].append(piece)
            yield [tuple(ids[: self.room]) for ids in pieces]

    def _pieces_alone(self) -> None:
        """No truncation and no padding, which a stored tokenizer may bring and others who share it may switch on."""
        if self._backend.truncation is not None:
            self._backend.no_truncation()
        if self._backend.padding is not None:
            self._backend.no_padding()

    def _windows(self, sentence: int, words: Sequence[tuple[int, ...]]) -> Iterator[Window]:
        """Cut a sentence, given as the pieces of its words."""
        lengths = [len(pieces) for pieces in words]
        n_pieces = sum(lengths)
        if not n_pieces:
            return
        numbers = [number for number, length in enumerate(lengths) if length]
        if n_pieces <= self.room:
            yield self._window(sentence, words, numbers, numbers)
            return
        for shown, decided in plan_windows([lengths[number] for number in numbers], self.room):
            yield self._window(
                sentence, words, numbers[shown.start : shown.stop], numbers[decided.start : decided.stop]
            )

    def _window(
        self, sentence: int, words: Sequence[tuple[int, ...]], shown: Sequence[int], decided: Sequence[int]
    ) -> Window:
        pieces, places = list(self.prefix), {}
        for number in shown:
            places[number] = len(pieces)
            pieces += words[number]
        pieces += self.suffix
        return Window(
            sentence,
            np.array(pieces, dtype=np.int32),
            np.array([places[number] for number in decided], dtype=np.int32),
            np.array(decided, dtype=np.int32),
        )


def _parts(words: Sequence[str], run: slice) -> Iterator[slice]:
    """A run in parts that no tokenizer finds too long."""
    start, n_letters = run.start, 0
    for place in range(run.start, run.stop):
        if n_letters + len(words[place]) > LONGEST_RUN and place > start:
            yield slice(start, place)
            start, n_letters = place, 0
        n_letters += len(words[place])
    yield slice(start, run.stop)


def _probe_words(backend: Tokenizer) -> list[str]:
    """Words that most tokenizers know, and letters out of some of its own pieces, at even distances."""
    n_pieces = backend.get_vocab_size()
    numbers = range(0, n_pieces, max(1, n_pieces // PROBE_PIECES))
    pieces = [backend.id_to_token(number) or "" for number in numbers]
    letters = ["".join(char for char in piece if char.isalnum()) for piece in pieces]
    return list(dict.fromkeys(filter(None, [*PROBE_WORDS, *letters])))


def _before_each_word(backend: Tokenizer, probes: Sequence[str]) -> str:
    """What must stand before each word of a list to make it the pieces that it has in running text: "" or a space.

    Many tokenizers tell the start of a word by the space before it, and not all of them add one to the words of a
    list. The first word of a text is no measure: there some tokenizers add one, others do not.

    Raises:
        ModelError: If most words have other pieces in running text, whatever stands before them.
    """
    neighbours = [(word, probes[(place + 1) % len(probes)]) for place, word in enumerate(probes)]
    in_text = backend.encode_batch([f"x {word} {after}" for word, after in neighbours], add_special_tokens=False)
    best = 0
    for before in ("", " "):
        lists = [[f"{before}{word}", f"{before}{after}"] for word, after in neighbours]
        in_lists = backend.encode_batch(lists, is_pretokenized=True, add_special_tokens=False)
        same = sum(a.ids[-len(b.ids) :] == b.ids for a, b in zip(in_text, in_lists, strict=True) if b.ids)
        known = sum(bool(found.ids) for found in in_lists)
        best = max(best, same * 100 // max(1, known))
        if known and same >= LEAST_SAME * known:
            return before
    raise ModelError(
        f"its tokenizer makes other pieces of words in a list than of the same words in running text ({best} % are "
        "alike); expected one that cuts text at spaces, as those of BERT, XLM-R, RoBERTa, Llama and Gemma do"
    )


def _chunks(backend: Tokenizer, text: str) -> list[str]:
    """What a tokenizer's model gets of a text: normalised, and cut where no piece reaches over."""
    text = backend.normalizer.normalize_str(text) if backend.normalizer else text
    cut = backend.pre_tokenizer.pre_tokenize_str(text) if backend.pre_tokenizer else [(text, (0, len(text)))]
    return [chunk for chunk, _ in cut]


def _special_pieces(backend: Tokenizer, probes: Sequence[str]) -> tuple[list[int], list[int]]:
    """The pieces that stand before and after a text.

    Raises:
        ModelError: If no probe becomes a piece, or its pieces change where special ones stand around it.
    """
    for word in probes:
        bare = backend.encode(word, add_special_tokens=False).ids
        if not bare:
            continue
        full = backend.encode(word)
        own = [place for place, sequence in enumerate(full.sequence_ids) if sequence is not None]
        if [full.ids[place] for place in own] != bare:
            raise ModelError("its tokenizer makes other pieces of a word where special ones stand around it")
        return full.ids[: own[0]], full.ids[own[-1] + 1 :]
    raise ModelError("its tokenizer makes nothing of any word; is its vocabulary empty?")


def plan_windows(lengths: Sequence[int], room: int) -> Iterator[tuple[range, range]]:
    """Cut a long sentence: the words that each window shows, and among them those that it decides.

    The decided ranges follow one another and cover every word once; at an inner edge a window shows up to
    `CONTEXT_RATIO` of its room beyond what it decides.

    Args:
        lengths: Pieces of each word, each between 1 and `room`.
        room: Pieces that a window holds beside the special ones.
    """
    ends = [0, *accumulate(lengths)]
    n_words = len(lengths)
    context = int(room * CONTEXT_RATIO)
    decided_from = shown_from = seen_to = 0
    while decided_from < n_words:
        shown_to = bisect_right(ends, ends[shown_from] + room) - 1
        if shown_to <= seen_to:
            # The context on the left leaves no room for the next word: go on without context.
            shown_from = decided_from
            shown_to = bisect_right(ends, ends[shown_from] + room) - 1
        decided_to = shown_to
        # To leave words to the next window helps only if that can show a word more.
        if shown_to < n_words and ends[shown_to + 1] - ends[shown_to] <= room - context:
            while decided_to > decided_from + 1 and ends[shown_to] - ends[decided_to - 1] <= context:
                decided_to -= 1
        yield range(shown_from, shown_to), range(decided_from, decided_to)
        shown_from = decided_from = decided_to
        seen_to = shown_to
        while shown_from > 0 and ends[decided_from] - ends[shown_from - 1] <= context:
            shown_from -= 1


def encodable(word: str) -> str:
    """The word itself; lone surrogates, which no tokenizer takes, become U+FFFD, with a warning."""
    if not has_half_characters(word):
        return word
    warnings.warn("a text holds lone surrogates, halves of characters; the model sees U+FFFD for each", stacklevel=2)
    return word.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_tokenizer(name_or_path: str, revision: str = "main") -> "PreTrainedTokenizerBase":
    """The fast tokenizer of a model folder or hub name, SentencePiece-only encoders included.

    `revision` is that of a hub name: commit, tag or branch.
    transformers is imported here and not above, so that an exported tagger does without it.

    Raises:
        ModelError: If there is none; the message says whether a folder or a hub name was tried.
    """
    from transformers import AutoTokenizer

    refuse_file(name_or_path)
    looks_local = Path(name_or_path).is_dir()
    place = "folder" if looks_local else "hub name (no such folder here)"
    with tokenizer_errors(f"{name_or_path}: no tokenizer in this {place}"):
        tokenizer = AutoTokenizer.from_pretrained(
            name_or_path,
            revision=revision,
            trust_remote_code=False,
            local_files_only=not is_reachable(name_or_path, revision),
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # For a folder without tokenizer files transformers makes up an empty vocabulary.
        raise ModelError(
            f"{name_or_path}: found no vocabulary; expected tokenizer.json or the model's own vocabulary file"
        )
    limit = tokenizer.model_max_length
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
        raise ModelError(f"{name_or_path}: its tokenizer has model_max_length {limit!r}; expected a number of pieces")
    splitter = tokenizer.backend_tokenizer.pre_tokenizer if tokenizer.is_fast else None
    if isinstance(splitter, ByteLevel):
        # RoBERTa's pieces tell the start of a word by the space before it, which lists of words do not have.
        splitter.add_prefix_space = True
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.encode_special_tokens = tokenizer.split_special_tokens
    return tokenizer


# Windows to padded arrays, without torch: a tagger needs no more to feed its backend.
#
# Shapes: B windows, P pieces, N words.


class PaddedWindows(NamedTuple):
    """Windows in one batch, and where their words stand: all that a network is given.

    `input_ids` (int64) and `attention_mask` (False on padding) are (B, P); `words` (N,) are the places of the first
    pieces of the words that the windows decide, in the flattened (B * P) pieces, window after window.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    words: NDArray[np.int64]


def pad(windows: Sequence[Window], pad_id: int) -> PaddedWindows:
    """Pad windows to the longest of them."""
    lengths = np.asarray([len(window.piece_ids) for window in windows])
    width = int(lengths.max())
    attention = np.arange(width)[None, :] < lengths[:, None]
    input_ids = np.full((len(windows), width), pad_id, dtype=np.int64)
    input_ids[attention] = np.concatenate([window.piece_ids for window in windows])
    words = np.concatenate([row * width + window.word_positions for row, window in enumerate(windows)])
    return PaddedWindows(input_ids, attention, words.astype(np.int64))


def few_bits(n: int) -> int:
    """The highest number up to n with at most three significant bits, so that there are few shapes of batches.

    oneDNN, which multiplies matrices of bfloat16 on CPUs, keeps some hundred KiB for every shape that it ever saw.
    """
    shift = max(0, n.bit_length() - 3)
    return n >> shift << shift


def batches_within(batch_pieces: int, windows: Sequence[Window]) -> Iterator[list[int]]:
    """Places of windows of like length, longest first: memory that does not suffice is noticed at once.

    Args:
        batch_pieces: Pieces in a batch, padding included; a longer window is a batch of its own.
        windows: In any order.
    """
    lengths = [len(window.piece_ids) for window in windows]
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    start = 0
    while start < len(order):
        end = start + max(1, few_bits(batch_pieces // lengths[order[start]]))
        yield order[start:end]
        start = end
