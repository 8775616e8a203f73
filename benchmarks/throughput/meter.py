"""Counts tokens and time of one variant, without its first step, in which everything is slower."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Meter:
    """Steps of one run.

    Attributes:
        device: whose work is waited for.
        weights: numbers in the model's matrices that every token meets.
        config: of the model.
        ends: when each step ended.
        tokens: of each step, padding not counted.
        padded: of each step, padding included.
        squares: sums of the squared lengths of each step's texts.
    """

    device: torch.device
    weights: int
    config: Any
    ends: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    padded: list[int] = field(default_factory=list)
    squares: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, model: Any, device: torch.device) -> "Meter":
        """Return a meter for a model as it was loaded."""
        sizes = [p.numel() for name, p in model.named_parameters() if "embedding" not in name]
        return cls(device, sum(sizes), model.config)

    def step(self, batches: list[dict[str, Any]]) -> None:
        """Note a step that has just been computed, of these batches."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.time())
        lengths = [batch["attention_mask"].sum(dim=1) for batch in batches]
        self.tokens.append(sum(int(part.sum()) for part in lengths))
        self.squares.append(sum(int(part.square().sum()) for part in lengths))
        # A packed batch is computed without its padding.
        self.padded.append(
            sum(batch.get("packed_rows", batch["attention_mask"]).numel() for batch in batches),
        )

    def figures(self, started: float, training: bool) -> dict[str, float]:
        """Return the figures of the run: tokens per second, padding, FLOPs per second that the model asks for, seconds
        to the end of the first step since `started`."""
        seconds = self.ends[-1] - self.ends[0]
        tokens = sum(self.tokens[1:])
        # 2 FLOPs per weight and token, attention scores and values; the backward pass costs twice the forward pass.
        attention = 4 * self.config.num_hidden_layers * self.config.hidden_size * sum(self.squares[1:])
        flops = (2 * self.weights * tokens + attention) * (3 if training else 1)
        return {
            "tokens_per_second": tokens / seconds,
            "padding": 1 - tokens / sum(self.padded[1:]),
            "flops_per_second": flops / seconds,
            "first_step_seconds": self.ends[0] - started,
        }


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Return the FLOPs per second of a product of large matrices on this machine."""
    size = 8192 if device.type == "cuda" else 2048
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(4):
        started = time.perf_counter()
        first @ second
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)
