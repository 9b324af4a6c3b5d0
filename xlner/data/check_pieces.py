"""What an encoder's tokenizer makes of a corpus: pieces a sentence, words that get lost, what a cut would lose.

xlner itself cuts nothing: long sentences are seen in windows. The losses are those of tools that keep the first
128, 256 or 512 pieces, special ones included.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from xlner.data.alignment import WordEncoder
from xlner.data.corpus_profile import Lengths, lengths_of
from xlner.data.findings import Findings
from xlner.data.located import Located
from xlner.labels import spans_of

CUTS = (128, 256, 512)
BATCH_SENTENCES = 256  # tokenized at a time
LONGEST_WORD = 2000  # characters of a word that are looked at


class PieceProfile:
    """Grows with each batch of sentences."""

    def __init__(self, encoder: WordEncoder, findings: Findings) -> None:
        """Measure with this encoder; what is wrong goes to `findings`."""
        self.window = encoder.max_length
        self.n_lost_words = dict.fromkeys(CUTS, 0)
        self.n_lost_entities = dict.fromkeys(CUTS, 0)
        self._encoder = encoder
        self._n_special = encoder.max_length - encoder.room
        self._findings = findings
        self._lengths = Counter[int]()

    @property
    def lengths(self) -> Lengths:
        """In pieces, without special ones."""
        return lengths_of(self._lengths)

    def add(self, batch: Sequence[Located]) -> None:
        """Tokenize some sentences."""
        encoded = self._encoder.tokenizer(
            [self._encoder.as_list([word[:LONGEST_WORD] for word in located.sentence.words]) for located in batch],
            is_split_into_words=True,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for row, located in enumerate(batch):
            self._add(located, encoded["input_ids"][row], encoded.word_ids(row))

    def _add(self, located: Located, pieces: list[int], owners: list[int | None]) -> None:
        words, tags = located.sentence
        self._lengths[len(pieces)] += 1
        n_pieces = Counter(owners)
        if len(n_pieces) < len(words):
            for number in [number for number in range(len(words)) if number not in n_pieces]:
                self._findings.note("XL050", located.place(number), f"the tokenizer makes nothing of {words[number]!r}")
        unknown = self._encoder.tokenizer.unk_token_id
        if unknown in pieces:
            n_unknown = Counter(owner for owner, piece in zip(owners, pieces, strict=True) if piece == unknown)
            for owner, count in n_unknown.items():
                if owner is not None and count == n_pieces[owner]:
                    message = f"the encoder knows nothing of {words[owner]!r}"
                    self._findings.note("XL051", located.place(owner), message)
        if len(pieces) > self._encoder.room:
            message = (
                f"{len(pieces):,} pieces, more than the encoder's {self._encoder.room:,}; xlner reads it in windows"
            )
            self._findings.note("XL052", located.place(0), message)
        for cut in CUTS:
            room = cut - self._n_special
            if len(pieces) > room:
                n_kept = int(np.max([-1 if owner is None else owner for owner in owners[:room]])) + 1
                self.n_lost_words[cut] += len(words) - n_kept
                self.n_lost_entities[cut] += sum(span.end > n_kept for span in spans_of(tags or ()))
