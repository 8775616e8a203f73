"""Attention that sees one text at a time, without padding between the texts.

On CPUs it is made of batched matrix products in the working precision, a block of texts or heads at a time that fits
the cache. The backward pass computes the softmax and draws the dropout mask again, so that no matrix of size
[heads, length, length] outlives its block (as flash attention does: Dao et al. 2022, arXiv:2205.14135). PyTorch's own
backward kernel for CPUs takes four times as long in bf16, and with dropout several such matrices are kept. On GPUs
texts that are packed go to `torch.nn.attention.varlen.varlen_attn`.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import FunctionCtx

from utils.models.dropout import CpuDropout, keep_factors

ATTENTION = "text_by_text"
# Numbers in the largest matrix of a block: 4 MB in float32, which processors keep near.
BLOCK_SIZE = 2**20
# Texts are so short that several are computed at once, each seeing itself alone, if their matrix has no more numbers:
# what it has too many costs less than a further block.
SHORT_SIZE = 2**17
# Keywords that models pass on and that the stock attention does not read either; `is_causal` is read here too.
WITHOUT_EFFECT = (
    *("is_causal", "position_ids", "output_attentions", "output_hidden_states", "use_cache", "return_dict"),
    # Of the Trainer, for losses.
    "num_items_in_batch",
    # Of ModernBERT, whose windows are in the mask.
    *("sliding_window", "deterministic"),
)


@dataclass(frozen=True)
class Texts:
    """Which tokens may look at which.

    Attributes:
        lengths: tokens of each text; they follow each other in one row.
        causal: whether tokens look back only.
        window: look at tokens less than so many away; None is without limit.
        masks: True where to look, or numbers to add to the scores, shape [texts, heads or 1, length or 1, length];
            all texts are of one length then.
    """

    lengths: list[int]
    causal: bool = False
    window: int | None = None
    masks: torch.Tensor | None = None

    def blocks(self, heads: int) -> Iterator["Block"]:
        """Cut texts and heads into blocks: a text, some heads of a long one, several of one length, or short ones."""
        row = first = 0
        while first < len(self.lengths):
            equal, short = self._how_many(first, heads)
            rows = sum(self.lengths[first : first + max(equal, short)])
            length = rows if short > equal else self.lengths[first]
            at_once = heads if max(equal, short) > 1 else max(1, min(heads, BLOCK_SIZE // length**2))
            for head in range(0, heads, at_once):
                some = slice(head, min(head + at_once, heads))
                mask = self._mask(self.lengths[first : first + short] if short > equal else [length])
                if self.masks is not None:
                    mask = self.masks[first]
                    mask = mask[some] if len(mask) > 1 else mask
                yield Block(slice(row, row + rows), some, length, mask)
            row += rows
            first += max(equal, short)

    def _how_many(self, first: int, heads: int) -> tuple[int, int]:
        """Return how many texts from this one on are of its length, and how many are short; each at most a block's."""
        if self.masks is not None:
            return 1, 1
        lengths, length = self.lengths, self.lengths[first]
        equal = 1
        while lengths[first + equal : first + equal + 1] == [length] and heads * (equal + 1) * length**2 <= BLOCK_SIZE:
            equal += 1
        short, total = 1, length
        while first + short < len(lengths) and heads * (total + lengths[first + short]) ** 2 <= SHORT_SIZE:
            total += lengths[first + short]
            short += 1
        return equal, short

    def _mask(self, lengths: list[int]) -> torch.Tensor | None:
        """Return the mask of texts that stand together, which broadcasts over [heads, tokens, tokens]."""
        total = sum(lengths)
        if len(lengths) == 1 and not self.causal and (self.window is None or self.window >= total):
            return None
        make = _known_mask if total**2 <= SHORT_SIZE else _make_mask
        return make(tuple(lengths), self.causal, self.window)


def _make_mask(lengths: tuple[int, ...], causal: bool, window: int | None) -> torch.Tensor:
    places = torch.arange(sum(lengths))
    text = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    distance = places[:, None] - places
    allowed = text[:, None] == text
    if causal:
        allowed &= distance >= 0
    return allowed if window is None else allowed & (distance.abs() < window)


@functools.lru_cache(maxsize=128)
def _known_mask(*what: Any) -> torch.Tensor:
    """Return a small mask; every layer asks for it, forwards and backwards."""
    # A test may ask first and training again.
    with torch.inference_mode(False):
        return _make_mask(*what)


@dataclass(frozen=True)
class Block:
    """What is computed at once: rows of tokens (whole texts of one length), some heads."""

    rows: slice
    heads: slice
    length: int
    mask: torch.Tensor | None

    def take(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor's part, from shape [tokens, heads, size] to [heads * texts, length, size]."""
        part = tensor[self.rows, self.heads].transpose(0, 1)
        return part.reshape(-1, self.length, tensor.shape[-1]).contiguous()

    def put(self, tensor: torch.Tensor, part: torch.Tensor) -> None:
        """Write a part back."""
        heads = self.heads.stop - self.heads.start
        tensor[self.rows, self.heads] = part.view(heads, -1, part.shape[-1]).transpose(0, 1)

    def shares(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Return the softmax of the scores of scaled queries, shape [heads * texts, length, length]."""
        scores = torch.bmm(query, key.mT)
        if self.mask is not None:
            if self.mask.dtype == torch.bool:
                scores.masked_fill_(~self.mask, torch.finfo(scores.dtype).min)
            else:
                scores.add_(self.mask)
        return torch.softmax(scores, -1)


class _TextAttention(torch.autograd.Function):
    """softmax(query key^T scale + mask), dropped out, times value; all of shape [tokens, heads, size]."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        texts: Texts,
        rate: float,
        scale: float,
    ) -> torch.Tensor:
        ctx.texts, ctx.rate, ctx.scale = texts, rate, scale
        ctx.seed = int(torch.randint(2**62, ())) if rate else 0
        generator = torch.Generator().manual_seed(ctx.seed)
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        with torch.autocast("cpu", enabled=False):
            for block in texts.blocks(query.shape[1]):
                q, k, v = (block.take(tensor) for tensor in (query, key, value))
                block.put(output, _attend(block, q, k, v, rate, scale, generator))
        ctx.save_for_backward(query, key, value)
        return output

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tensors = ctx.saved_tensors
        gradients = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]
        generator = torch.Generator().manual_seed(ctx.seed)
        with torch.autocast("cpu", enabled=False):
            for block in ctx.texts.blocks(grad.shape[1]):
                query, key, value, d_output = (block.take(tensor) for tensor in (*tensors, grad))
                shares = block.shares(query * ctx.scale, key)
                dropped = shares
                if ctx.rate:
                    keep, rest = keep_factors(shares.shape, ctx.rate, generator, shares.dtype)
                    dropped = shares * keep
                    d_output = d_output * rest
                d_value = torch.bmm(dropped.mT, d_output)
                d_shares = torch.bmm(d_output, value.mT)
                if ctx.rate:
                    d_shares.mul_(keep)
                d_scores = torch._softmax_backward_data(d_shares, shares, -1, shares.dtype)
                d_query = torch.bmm(d_scores, key).mul_(ctx.scale)
                d_key = torch.bmm(d_scores.mT, query).mul_(ctx.scale)
                for gradient, part in zip(gradients, (d_query, d_key, d_value), strict=True):
                    block.put(gradient, part)
        return *gradients, None, None, None


def _attend(
    block: Block,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rate: float,
    scale: float,
    generator: torch.Generator,
) -> torch.Tensor:
    if rate:
        shares = block.shares(query * scale, key)
        keep, rest = keep_factors(shares.shape, rate, generator, shares.dtype)
        return torch.bmm(shares.mul_(keep), value * rest)
    if query.dtype == torch.float32:
        # The one case in which PyTorch's own kernel is as fast.
        query, key, value = (tensor.unsqueeze(0) for tensor in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, block.mask, scale=scale).squeeze(0)
    return torch.bmm(block.shares(query * scale, key), value)


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in the form that transformers' `AttentionInterface` asks for.

    Args:
        module: the attention layer.
        query: shape [batch, heads, length, head size]; key and value alike, perhaps with fewer heads.
        key: see `query`.
        value: see `query`.
        attention_mask: True where to look, or a number to add, shape [batch or 1, heads or 1, length or 1, length].
            It is not read where the texts are packed.
        dropout: rate.
        scaling: factor of the scores.
        cu_seq_lens_q: where the texts of a packed row begin and the last one ends, shape [texts + 1]; None if the
            batch is padded.
        kwargs: passed to the stock attention, which computes padded batches without dropout, on GPUs, and wherever
            one of them has a value that is not known to leave the result as it is.

    Returns:
        The output, shape [batch, length, heads, head size], and None for the weights.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if cu_seq_lens_q is not None:
        return _packed(query, key, value, dropout, scale, causal, cu_seq_lens_q, **kwargs), None
    causal = causal and attention_mask is None
    unknown = any(value is not None for name, value in kwargs.items() if name not in WITHOUT_EFFECT)
    mask_learns = attention_mask is not None and attention_mask.requires_grad
    grouped = key.shape[1] != query.shape[1]
    if dropout == 0 or query.device.type != "cpu" or causal or unknown or mask_learns or grouped:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    batch, length = len(query), query.shape[2]
    masks = None if attention_mask is None else attention_mask.expand(batch, -1, -1, -1)
    query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    output = _TextAttention.apply(query, key, value, Texts([length] * batch, masks=masks), dropout, scale)
    return output.unflatten(0, (batch, length)), None


def _packed(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scale: float,
    causal: bool,
    bounds: torch.Tensor,
    max_length_q: int,
    sliding_window: int | None = None,
    **_: Any,
) -> torch.Tensor:
    """Return the attention of one row of texts, shape [1, tokens, heads, size]; see `attention_forward`."""
    dtype = torch.get_autocast_dtype(query.device.type) if torch.is_autocast_enabled(query.device.type) else value.dtype
    # Rotary positions leave float32 behind where autocast has made value bf16.
    query, key, value = (tensor.squeeze(0).transpose(0, 1).to(dtype) for tensor in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    if _is_cuda(query):
        from torch.nn.attention.varlen import varlen_attn

        back = -1 if sliding_window is None else sliding_window - 1
        return varlen_attn(
            query, key, value, bounds, bounds, max_length_q, max_length_q,
            scale=scale, window_size=(back, 0 if causal else back),
        ).unsqueeze(0)  # fmt: skip
    texts = Texts(bounds.diff().tolist(), causal, sliding_window)
    return _TextAttention.apply(query, key, value, texts, dropout, scale).unsqueeze(0)


def _is_cuda(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cuda"


def use_text_attention(model: nn.Module) -> None:
    """Make a model compute its attention with this module, if it goes through transformers' interface."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if getattr(model.config, "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(ATTENTION, attention_forward)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        model.set_attn_implementation(ATTENTION)


def use_cpu_dropout(model: nn.Module) -> None:
    """Make a model that trains on the CPU drop out with this package's functions."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, CpuDropout(child.p))
    use_text_attention(model)
