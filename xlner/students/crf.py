"""A linear-chain CRF over the tags of a sentence: likelihood and marginals, differentiable, in log space.

Tags that cannot follow one another (`I-PER` after `O`) never do: the penalty on them is no parameter. Held against
brute force in `tests/test_crf.py`. Shapes: B sentences, W words, C tags.

Source: Lafferty et al. 2001; Huang et al. 2015 (arXiv:1508.01991); for marginals as what a student learns from,
Izsak et al. 2019 (arXiv:1910.06294).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xlner.labels import split_tag
from xlner.students.steps import IMPOSSIBLE, penalties, valid_steps


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


def valid_tag_ids(tag_ids: Tensor, tags: Sequence[str]) -> Tensor:
    """The tags (B, W), an `I-X` that continues nothing as `B-X`: the same entities, in a valid sequence."""
    known = {tag: number for number, tag in enumerate(tags)}
    begin = torch.tensor([known.get(f"B-{split_tag(tag)[1]}", number) for number, tag in enumerate(tags)])
    begin = begin.to(tag_ids.device)
    valid, may_begin = (torch.from_numpy(table).to(tag_ids.device) for table in valid_steps(tags))
    fits = torch.cat([may_begin[tag_ids[:, :1]], valid[tag_ids[:, :-1], tag_ids[:, 1:]]], dim=1)
    return torch.where(fits, tag_ids, begin[tag_ids])
