"""Dropout on the CPU at the speed of the rest of the step.

PyTorch draws one Bernoulli variable per element, serially, and with dropout its attention leaves the fused
kernel and keeps several matrices of size [batch, heads, length, length] until the backward pass. Here one
64-bit random number serves four elements, and attention is computed text by text, keeping only the mask.
The distribution is the same (the rate is rounded to a multiple of 2**-16), the drawn numbers are not.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.autograd.function import FunctionCtx

ATTENTION = "cpu_dropout"
LEVELS = 2**16


def keep_mask(shape: tuple[int, ...], rate: float) -> torch.Tensor:
    """Return a boolean mask that is False with probability `rate`, drawn from torch's global generator."""
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    threshold = round(rate * LEVELS) - LEVELS // 2
    return bits.view(torch.int16)[:count].ge(threshold).view(shape)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: torch.Tensor, rate: float) -> torch.Tensor:
        mask = keep_mask(values.shape, rate)
        ctx.save_for_backward(mask)
        ctx.scale = 1 / (1 - rate)
        return values.mul(mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grad.mul(mask).mul_(ctx.scale), None


class CpuDropout(nn.Dropout):
    """`torch.nn.Dropout` for the CPU."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return `values` with elements dropped and the rest scaled, unchanged in evaluation."""
        if not self.training or self.p == 0 or values.device.type != "cpu":
            return super().forward(values)
        return _Dropout.apply(values, self.p)


class _Attention(torch.autograd.Function):
    """softmax(query key^T scale + mask), dropped out, times value; one text at a time."""

    @staticmethod
    def forward(ctx, query, key, value, mask, rate, scale):
        ctx.rate, ctx.scale = rate, scale
        keep = [keep_mask((*query.shape[1:3], key.shape[2]), rate) for _ in range(len(query))]
        output = torch.empty_like(query)
        for i in range(len(query)):
            shares = _shares(query[i], key[i], None if mask is None else mask[i], scale)
            shares.mul_(keep[i]).mul_(1 / (1 - rate))
            torch.bmm(shares, value[i], out=output[i])
        ctx.save_for_backward(query, key, value, mask, *keep)
        return output

    @staticmethod
    def backward(ctx, grad):
        query, key, value, mask, *keep = ctx.saved_tensors
        d_query, d_key, d_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        for i in range(len(query)):
            shares = _shares(query[i], key[i], None if mask is None else mask[i], ctx.scale)
            factor = keep[i].to(shares.dtype).mul_(1 / (1 - ctx.rate))
            torch.bmm((shares * factor).mT, grad[i], out=d_value[i])
            d_shares = torch.bmm(grad[i], value[i].mT).mul_(factor)
            d_scores = torch._softmax_backward_data(d_shares, shares, -1, shares.dtype).mul_(ctx.scale)
            torch.bmm(d_scores, key[i], out=d_query[i])
            torch.bmm(d_scores.mT, query[i], out=d_key[i])
        return d_query, d_key, d_value, None, None, None


def _shares(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    scores = torch.bmm(query, key.mT).mul_(scale)
    if mask is not None:
        scores = (
            scores.masked_fill_(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
        )
    return torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in the form that transformers' `AttentionInterface` asks for.

    Args:
        module: the attention layer.
        query: shape [batch, heads, length, head size]; key and value alike.
        key: see `query`.
        value: see `query`.
        attention_mask: True where to look, or a number to add, shape [batch, 1, length or 1, length].
        dropout: rate; without it the fused kernel is used.
        scaling: factor of the scores.
        kwargs: passed to the fused kernel.

    Returns:
        The output, shape [batch, length, heads, head size], and None for the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    causal = attention_mask is None and kwargs.get("is_causal", getattr(module, "is_causal", False))
    if dropout == 0 or query.device.type != "cpu" or causal or key.shape[1] != query.shape[1]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = _Attention.apply(query.contiguous(), key.contiguous(), value.contiguous(), attention_mask, dropout, scale)
    return output.transpose(1, 2).contiguous(), None


def use_cpu_dropout(model: nn.Module) -> None:
    """Make a model that trains on the CPU drop out with this module's functions."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, CpuDropout(child.p))
    if getattr(model.config, "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(ATTENTION, attention_forward)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        model.set_attn_implementation(ATTENTION)
