"""Attention on the CPU, text by text, that keeps only the dropout mask for the backward pass."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import FunctionCtx

from utils.models.dropout import CpuDropout, keep_mask

ATTENTION = "cpu_dropout"
# Keywords that models pass on and that the stock attention does not read either; `is_causal` is read here too.
WITHOUT_EFFECT = (
    *("is_causal", "position_ids", "output_attentions", "output_hidden_states", "use_cache", "return_dict"),
    # Of the Trainer, for losses.
    "num_items_in_batch",
    # Of ModernBERT, whose windows are in the mask.
    *("sliding_window", "deterministic"),
)


class _Attention(torch.autograd.Function):
    """softmax(query key^T scale + mask), dropped out, times value; one text at a time."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        rate: float,
        scale: float,
    ) -> torch.Tensor:
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
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
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
        attention_mask: True where to look, or a number to add, shape [batch or 1, heads or 1, length or 1, length].
        dropout: rate; without it the fused kernel is used.
        scaling: factor of the scores.
        kwargs: passed to the fused kernel, which is used too if one of them has a value that is not known to leave
            the result as it is.

    Returns:
        The output, shape [batch, length, heads, head size], and None for the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    causal = kwargs.get("is_causal")
    causal = attention_mask is None and (getattr(module, "is_causal", True) if causal is None else causal)
    unknown = any(value is not None for name, value in kwargs.items() if name not in WITHOUT_EFFECT)
    mask_learns = attention_mask is not None and attention_mask.requires_grad
    grouped = key.shape[1] != query.shape[1]
    if dropout == 0 or query.device.type != "cpu" or causal or unknown or mask_learns or grouped:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if attention_mask is not None:
        attention_mask = attention_mask.expand(len(query), -1, -1, -1)
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
