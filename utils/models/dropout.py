"""Dropout on the CPU at the speed of the rest of the step.

PyTorch draws one Bernoulli variable per element, serially, and with dropout its attention leaves the fused
kernel and keeps several matrices of size [batch, heads, length, length] until the backward pass. Here one
64-bit random number serves four elements, and attention is computed text by text, keeping only the mask.
The distribution is the same (the rate is rounded to a multiple of 2**-16), the drawn numbers are not.
"""

import math

import torch
from torch import nn
from torch.autograd.function import FunctionCtx

LEVELS = 2**16


def keep_mask(shape: tuple[int, ...], rate: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return a boolean mask that is False with probability `rate`, drawn from torch's global generator or another."""
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
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
