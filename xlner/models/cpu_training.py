"""Training on a CPU without what costs most beside the products: drawing numbers, and turning bfloat16 into float32.

- Dropout: torch draws a number for every value; here one of 64 random bits decides about four.
- Attention: with dropout, torch computes it in float32; here its products are in the number format of what comes in,
  and its softmax is in float32.
- Between layers: under autocast, sums and layer norms hand on float32, which each product rounds anew. Here the
  embeddings are rounded once, and all that follows stays in bfloat16; a layer norm computes in float32 within.

What each is worth stands in docs/results.md. Elsewhere than in training on a CPU all is torch's own.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "xlner_cheap_dropout"
# Of each 64 random bits, torch gives 63: 15 in each of four parts.
_BITS = 15
_PARTS = 4
_FIRST_BITS = 0x7FFF_7FFF_7FFF_7FFF


def train_cheaply_on_cpu(model: PreTrainedModel) -> None:
    """Make a network train as this module says; its weights and its tagging stay as they are."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, CheapDropout(child.p).train(child.training))
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)
    embeddings = getattr(model.base_model, "embeddings", None)
    if isinstance(embeddings, nn.Module):
        embeddings.register_forward_hook(_in_number_format)


def _in_number_format(embeddings: nn.Module, given: Any, states: Any) -> Any:
    """A hook: what embeddings give, in the number format of autocast.

    Training is told by gradients: embeddings that are frozen stay in the mode of tagging.
    """
    is_training = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
    if not is_training or not isinstance(states, Tensor) or states.device.type != "cpu":
        return states
    return states.to(torch.get_autocast_dtype("cpu"))


class CheapDropout(nn.Dropout):
    """`torch.nn.Dropout`, with the random numbers of `drop` on a CPU."""

    def forward(self, values: Tensor) -> Tensor:
        """Some of the values zero, the others raised; all as they are outside training."""
        return drop(values, self.p) if self.training and values.device.type == "cpu" else super().forward(values)


def drop(values: Tensor, p: float) -> Tensor:
    """Values of which each is zero with probability p, rounded to a multiple of 2^-15, and 1 / (1 - p) as large else.

    Its random numbers are of torch's generator, so that a seed gives the same ones and a checkpoint goes on with them.
    """
    threshold = round(p * 2**_BITS)
    if not threshold or not values.numel():
        return values
    if threshold >= 2**_BITS:
        return values * 0
    return _Dropout.apply(values, threshold)  # type: ignore[no-any-return, no-untyped-call]


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, threshold: int) -> Tensor:
        n = values.numel()
        numbers = torch.empty(math.ceil(n / _PARTS), dtype=torch.int64).random_().bitwise_and_(_FIRST_BITS)
        kept = numbers.view(torch.int16)[:n].view(values.shape) >= threshold
        context.save_for_backward(kept)
        context.scale = 1 / (1 - threshold / 2**_BITS)
        return _masked(values, kept, context.scale)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = context.saved_tensors
        return _masked(gradient, kept, context.scale), None


def _masked(values: Tensor, kept: Tensor, scale: float) -> Tensor:
    # As bytes: torch multiplies by truth values at half the speed.
    return (values * kept.view(torch.int8)).mul_(scale)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention for transformers' interface: with `drop` in training on a CPU, else torch's.

    Args:
        module: The layer that asks.
        query: (B, H, Q, D), as `key` and `value`, which may have fewer heads and other lengths.
        key: See there.
        value: See there.
        attention_mask: True where a query may see a key, or numbers to add; broadcast to (B, H, Q, K).
        dropout: Probability that a weight is left out; 0 outside training.
        scaling: Of the products; None: 1 / sqrt(D).
        is_causal: Whether queries see only what stands before them, where there is no mask.
        others: What transformers tells besides.

    Returns:
        (B, Q, H, D), and no weights.
    """
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    is_plain = query.shape[:2] == key.shape[:2] and others.get("position_bias") is None and others.get("cache") is None
    if not dropout or query.device.type != "cpu" or not is_plain or (attention_mask is None and causal):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, is_causal, **others)
    scaling = scaling if scaling is not None else query.shape[-1] ** -0.5
    with torch.autocast("cpu", enabled=False):
        scores = ((query * scaling) @ key.transpose(-1, -2)).float()
        if attention_mask is not None:
            unseen = torch.finfo(scores.dtype).min
            is_shift = attention_mask.dtype != torch.bool
            scores += attention_mask if is_shift else torch.zeros(()).where(attention_mask, unseen)
        seen = drop(scores.softmax(-1).to(value.dtype), dropout) @ value
        return seen.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
