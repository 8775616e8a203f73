"""Dropout on the CPU at the speed of the rest of the step.

PyTorch draws one Bernoulli variable per element, serially. Here one 64-bit random number serves four elements. The
distribution is the same (the rate is rounded to a multiple of 2**-16), the drawn numbers are not.
"""

import math

import torch
from torch import nn
from torch.autograd.function import FunctionCtx

LEVELS, BYTE_LEVELS = 2**16, 2**8


def keep_mask(shape: tuple[int, ...], rate: float) -> torch.Tensor:
    """Return a boolean mask that is False with probability `rate`, drawn from torch's global generator."""
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    threshold = round(rate * LEVELS) - LEVELS // 2
    return bits.view(torch.int16)[:count].ge(threshold).view(shape)


def keep_factors(
    shape: tuple[int, ...], rate: float, generator: torch.Generator, dtype: torch.dtype
) -> tuple[torch.Tensor, float]:
    """Return factors, 1 or 0, that drop elements out, and the scale of what is left; for attention, in half the time.

    One random number serves eight elements, so a block's own rate is a multiple of 1/256: the one below `rate` or the
    one above, drawn so that an element is dropped with probability `rate` in all, and the scale is the block's own.

    Args:
        shape: of the factors.
        rate: probability of 0.
        generator: that draws.
        dtype: of the factors.
    """
    count = math.prod(shape)
    steps = rate * BYTE_LEVELS
    chosen = math.floor(steps) + int(torch.rand((), generator=generator, dtype=torch.float64) < steps % 1)
    chosen = min(chosen, BYTE_LEVELS - 1)
    bits = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    keep = bits.view(torch.int8)[:count].ge(chosen - BYTE_LEVELS // 2)
    return keep.view(shape).to(dtype), 1 / (1 - chosen / BYTE_LEVELS)


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
