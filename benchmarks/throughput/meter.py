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
        ends: when each step ended, in seconds; on a GPU events, for which nothing waits.
        lengths: of each step's texts, without padding, a tensor for each batch.
        padded: tokens of each step, padding included.
        first_end: when the first step ended, as the time of day.
    """

    device: torch.device
    weights: int
    config: Any
    ends: list[Any] = field(default_factory=list)
    lengths: list[list[torch.Tensor]] = field(default_factory=list)
    padded: list[int] = field(default_factory=list)
    first_end: float = 0.0

    @classmethod
    def of(cls, model: Any, device: torch.device) -> "Meter":
        """Return a meter for a model as it was loaded."""
        sizes = [p.numel() for name, p in model.named_parameters() if "embedding" not in name]
        return cls(device, sum(sizes), model.config)

    def step(self, batches: list[dict[str, Any]]) -> None:
        """Note a step that has just been computed, of these batches."""
        if self.device.type == "cuda":
            self.ends.append(torch.cuda.Event(enable_timing=True))
            self.ends[-1].record()
        else:
            self.ends.append(time.perf_counter())
        if not self.first_end:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.first_end = time.time()
        self.lengths.append([batch["attention_mask"].sum(dim=1) for batch in batches])
        # A packed batch is computed without its padding.
        self.padded.append(
            sum(batch.get("packed_rows", batch["attention_mask"]).numel() for batch in batches),
        )

    def figures(self, started: float, training: bool) -> dict[str, float]:
        """Return the figures of the run: tokens per second, padding, FLOPs per second that the model asks for, seconds
        to the end of the first step since `started`."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            seconds = self.ends[0].elapsed_time(self.ends[-1]) / 1000
        else:
            seconds = self.ends[-1] - self.ends[0]
        lengths = torch.cat([part for step in self.lengths[1:] for part in step]).double()
        tokens = int(lengths.sum())
        # 2 FLOPs per weight and token, attention scores and values; the backward pass costs twice the forward pass.
        attention = 4 * self.config.num_hidden_layers * self.config.hidden_size * float(lengths.square().sum())
        flops = (2 * self.weights * tokens + attention) * (3 if training else 1)
        return {
            "tokens_per_second": tokens / seconds,
            "padding": 1 - tokens / sum(self.padded[1:]),
            "flops_per_second": flops / seconds,
            "first_step_seconds": self.first_end - started,
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
