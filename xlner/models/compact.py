"""Networks of compact students: rows of words in, scores of tags out; `bilstm`, `linear`, softmax or CRF."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xlner.decoding import IMPOSSIBLE, penalties, valid_steps
from xlner.models.compact_words import feature_rows
from xlner.models.settings import Sizes, StudentSettings
from xlner.tags import split_tag

# A linear-chain CRF over the tags of a sentence: likelihood and marginals, differentiable, in log space.
#
# Tags that cannot follow one another (`I-PER` after `O`) never do: the penalty on them is no parameter. Held against
# brute force in `tests/models/test_crf.py`. Shapes: B sentences, W words, C tags.
#
# Source: Lafferty et al. 2001; Huang et al. 2015 (arXiv:1508.01991); for marginals as what a student learns from,
# Izsak et al. 2019 (arXiv:1910.06294).


class Crf(nn.Module):
    """Scores of tag pairs, of first tags and of last ones."""

    def __init__(self, tags: Sequence[str]) -> None:
        """Start with every valid sequence equally likely."""
        super().__init__()
        n_tags = len(tags)
        self.transitions = nn.Parameter(torch.zeros(n_tags, n_tags))  # from the row to the column
        self.first = nn.Parameter(torch.zeros(n_tags))
        self.last = nn.Parameter(torch.zeros(n_tags))
        of_pairs, of_first = penalties(tags)
        self.register_buffer("step_penalty", torch.from_numpy(of_pairs), persistent=False)
        self.register_buffer("first_penalty", torch.from_numpy(of_first), persistent=False)
        steps, may_begin = valid_steps(tags)
        numbers = {tag: number for number, tag in enumerate(tags)}
        begin = [numbers.get(f"B-{split_tag(tag)[1]}", number) for number, tag in enumerate(tags)]
        self.register_buffer("valid_steps", torch.from_numpy(steps), persistent=False)
        self.register_buffer("may_begin", torch.from_numpy(may_begin), persistent=False)
        self.register_buffer("begin", torch.tensor(begin), persistent=False)

    def valid(self, tag_ids: Tensor) -> Tensor:
        """The tags (B, W), an `I-X` that continues nothing as `B-X`: the same entities, in a valid sequence."""
        steps, may_begin, begin = (self.get_buffer(name) for name in ("valid_steps", "may_begin", "begin"))
        fits = torch.cat([may_begin[tag_ids[:, :1]], steps[tag_ids[:, :-1], tag_ids[:, 1:]]], dim=1)
        return torch.where(fits, tag_ids, begin[tag_ids])

    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights of pairs (C, C), of first tags (C,) and of last ones (C,), penalties included."""
        pairs, first = self.get_buffer("step_penalty"), self.get_buffer("first_penalty")
        return self.transitions + pairs, self.first + first, self.last

    def log_marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """The log-probability of each tag of each word, over all sequences.

        Args:
            emissions: Log weights of tags at words, (B, W, C).
            mask: True on words, (B, W); the words of a sentence come first.

        Returns:
            (B, W, C), float32; of padding whatever comes out.
        """
        emissions = emissions.float()
        forward, backward = self._forward(emissions, mask), self._backward(emissions, mask)
        return torch.log_softmax(forward + backward, dim=-1)

    def log_likelihood(self, emissions: Tensor, mask: Tensor, tag_ids: Tensor, known: Tensor) -> Tensor:
        """The log-probability of the tags of the known words, whatever those of the others are; (B,).

        Args:
            emissions: As for `log_marginals`, as is `mask`.
            mask: See there.
            tag_ids: A valid sequence, (B, W); any id where the tag is not known.
            known: True where it is, (B, W).
        """
        emissions = emissions.float()
        wanted = torch.full_like(emissions, IMPOSSIBLE).scatter(2, tag_ids[:, :, None], 0.0)
        held = emissions + torch.where(known[:, :, None], wanted, 0.0)
        return self._log_sum(held, mask) - self._log_sum(emissions, mask)

    def _log_sum(self, emissions: Tensor, mask: Tensor) -> Tensor:
        ends = (mask.sum(dim=1) - 1).clamp_min(0)
        at_end = self._forward(emissions, mask)[torch.arange(len(ends), device=ends.device), ends]
        return torch.logsumexp(at_end + self.last, dim=-1)

    def _forward(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Log sums over all that may come before, the word itself included; (B, W, C)."""
        pairs, first, _ = self.scores()
        states = [first + emissions[:, 0]]
        for word in range(1, emissions.shape[1]):
            reached = torch.logsumexp(states[-1][:, :, None] + pairs, dim=1) + emissions[:, word]
            states.append(torch.where(mask[:, word, None], reached, states[-1]))
        return torch.stack(states, dim=1)

    def _backward(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Log sums over all that may come after, the word itself not included; (B, W, C)."""
        pairs, _, last = self.scores()
        state = last.expand(len(emissions), -1)
        states = [state]
        for word in range(emissions.shape[1] - 1, 0, -1):
            following = torch.logsumexp(pairs + (emissions[:, word] + state)[:, None, :], dim=2)
            # Behind the end of a sentence nothing happens: its last word starts from `last` itself.
            state = torch.where(mask[:, word, None], following, state)
            states.append(state)
        return torch.stack(states[::-1], dim=1)


# The network of a compact student: rows of words in, scores of tags out; a body of one kind, and how it decides.
#
# Shapes: B windows, W words of one, K numbers a row, P = W K, N words of all windows, D width of the word vectors, C
# tags.


class CompactOutput(NamedTuple):
    """`logits` (N, C), with a CRF the log marginals; `log_likelihood` (B,) of a sequence of tags, if one was given."""

    logits: Tensor
    log_likelihood: Tensor | None


class CompactNetwork(nn.Module):
    """A body, which scores the tags of each word, and a CRF where there is one."""

    def __init__(self, body: nn.Module, width: int, crf: Crf | None) -> None:
        """Put the parts together; `width` is K, the numbers of a row."""
        super().__init__()
        self.body, self.crf, self.width = body, crf, width

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        words: Tensor,
        tag_ids: Tensor | None = None,
        known: Tensor | None = None,
    ) -> CompactOutput:
        """Scores of the tags.

        Args:
            input_ids: Rows, (B, P).
            attention_mask: False on padding, (B, P).
            words: Places of the words' rows in the flattened (B * P) numbers, (N,).
            tag_ids: With a CRF, the tags whose likelihood is wanted, (N,), an `I-X` that continues nothing read as
                `B-X`; None for none.
            known: Of which words the tag is known, (N,).
        """
        rows, mask = input_ids.view(len(input_ids), -1, self.width), attention_mask[:, :: self.width]
        places = words // self.width
        emissions = self.body(rows, mask)
        if self.crf is None:
            return CompactOutput(emissions.flatten(0, 1)[places], None)
        likelihood = None
        if tag_ids is not None and known is not None:
            in_rows, known_rows = (
                torch.zeros(mask.numel(), dtype=part.dtype, device=mask.device).index_put((places,), part).view_as(mask)
                for part in (tag_ids, known)
            )
            likelihood = self.crf.log_likelihood(emissions, mask, self.crf.valid(in_rows), known_rows)
        return CompactOutput(self.crf.log_marginals(emissions, mask).flatten(0, 1)[places], likelihood)


class WordVectors(nn.Module):
    """Vectors of words: an entry of a table, and a convolution over the characters, side by side.

    Source: Ma and Hovy 2016 (arXiv:1603.01354), section 2.1.
    """

    def __init__(self, sizes: Sizes, dropout: float, unknown_ratio: float) -> None:
        super().__init__()
        self.words = nn.Embedding(sizes.n_words, sizes.word_size, padding_idx=0)
        self.characters = nn.Embedding(sizes.n_characters, sizes.char_size, padding_idx=0)
        self.filters = nn.Conv1d(sizes.char_size, sizes.char_filters, kernel_size=3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.unknown_ratio = unknown_ratio
        nn.init.normal_(self.words.weight, std=0.1)
        nn.init.normal_(self.characters.weight, std=0.3)
        for table in (self.words, self.characters):
            nn.init.zeros_(table.weight[0])

    @property
    def size(self) -> int:
        """D."""
        return self.words.embedding_dim + self.filters.out_channels

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (B, W, K) to vectors (B, W, D)."""
        words = rows[:, :, 0]
        if self.training and self.unknown_ratio:
            hidden = torch.rand(words.shape, device=words.device) < self.unknown_ratio
            words = torch.where(hidden & (words > 0), 1, words)
        spelled = self.characters(rows[:, :, 1:]).flatten(0, 1).transpose(1, 2)
        spelling = self.filters(spelled).amax(dim=-1).relu().view(*words.shape, -1)
        vectors: Tensor = self.dropout(torch.cat([self.words(words), spelling.float()], dim=-1))
        return vectors


def last_layer(width: int, tags: Sequence[str]) -> nn.Linear:
    """From hidden states to scores of tags."""
    return nn.Linear(width, len(tags))


# `bilstm`: word vectors, layers of LSTM in both directions, a score for each tag; 1.5 to 2.25 M parameters.
#
# The direction from right to left reads the words of each window in reverse, so that padding comes last in both: what
# a window says does not depend on what stands beside it in a batch, and no packing is needed, which would be slower.
#
# Source: Ma and Hovy 2016 (arXiv:1603.01354); as a student, Izsak et al. 2019 (arXiv:1910.06294).


class BiLstm(nn.Module):
    """Layers of two LSTMs each, one for each direction."""

    def __init__(self, sizes: Sizes, tags: Sequence[str], dropout: float, unknown_ratio: float) -> None:
        super().__init__()
        self.vectors = WordVectors(sizes, dropout, unknown_ratio)
        widths = [self.vectors.size, *[2 * sizes.hidden_size] * (sizes.layers - 1)]
        self.rightward = nn.ModuleList([nn.LSTM(width, sizes.hidden_size, batch_first=True) for width in widths])
        self.leftward = nn.ModuleList([nn.LSTM(width, sizes.hidden_size, batch_first=True) for width in widths])
        self.dropout = nn.Dropout(dropout)
        self.scores = last_layer(2 * sizes.hidden_size, tags)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Rows (B, W, K) and a mask of words (B, W) to scores (B, W, C)."""
        states = self.vectors(rows)
        places = torch.arange(mask.shape[1], device=mask.device)
        # The place of each word when its window is read from its end; padding stays behind.
        reverse = torch.where(mask, mask.sum(dim=1, keepdim=True) - 1 - places, places)[:, :, None]
        for rightward, leftward in zip(self.rightward, self.leftward, strict=True):
            forward = rightward(states)[0]
            backward = leftward(states.gather(1, reverse.expand_as(states)))[0]
            states = torch.cat([forward, backward.gather(1, reverse.expand_as(backward))], dim=-1)
            states = self.dropout(states)
        scores: Tensor = self.scores(states)
        return scores


# `linear`: the sum of the rows of one table that a word's hashed features name; for the smallest place.
#
# This is the module that is trained; at run time `LinearBackend` computes the same without torch.


class HashedLinear(nn.Module):
    """A table of scores, (buckets, C)."""

    def __init__(self, sizes: Sizes, tags: Sequence[str], dropout: float, unknown_ratio: float) -> None:
        """Start with zeros: nothing is known of any feature. `unknown_ratio` has no meaning here."""
        super().__init__()
        self.buckets = sizes.buckets
        self.table = nn.Parameter(torch.zeros(sizes.buckets, len(tags)))
        self.dropout = dropout

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Rows (B, W, K) to scores (B, W, C); in training features are left out, each with the share `dropout`."""
        found = torch.from_numpy(feature_rows(rows.cpu().numpy(), self.buckets)).to(rows.device).flatten(0, 1)
        kept = torch.ones(found.shape, device=rows.device)
        kept = nn.functional.dropout(kept, self.dropout, self.training).to(self.table.dtype)
        scores: Tensor = nn.functional.embedding_bag(found, self.table, mode="sum", per_sample_weights=kept)
        return scores.view(*rows.shape[:2], -1)


# Which kinds of compact students there are, and how a network of a kind is made.


def new_network(
    settings: StudentSettings, width: int, *, dropout: float = 0.0, unknown_ratio: float = 0.0
) -> CompactNetwork:
    """A network before training, drawn from torch's global generator.

    Args:
        settings: Of the student.
        width: Numbers of a word's row.
        dropout: Share of units, or features, that are dropped in training.
        unknown_ratio: Share of words that are shown as unknown ones in training.
    """
    body = BODIES[settings.kind](settings.sizes, settings.tags, dropout, unknown_ratio)
    return CompactNetwork(body, width, Crf(settings.tags) if settings.decoder == "crf" else None)


# A new kind is one class above and one line here, with its defaults in `STUDENTS` of `config/load.py`.
BODIES: dict[str, Callable[[Sizes, Sequence[str], float, float], nn.Module]] = {
    "bilstm": BiLstm,
    "linear": HashedLinear,
}
