"""The machine that a run finds: device, precision, memory."""

import ctypes
import platform
import resource
import sys
from typing import Any

import torch

from utils.errors import UserError

# Instructions that compute in bf16: of x86 processors, and of ARM ones.
BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16")
# From this width on models are faster in bf16 on such CPUs; below, conversions take as long as is won by products. With
# AVX-512 training took 1.06 to 1.19 times as long in bf16 at a width of 64, 0.77 to 1.01 at 128, 0.79 to 0.85 at 192.
BF16_WIDTH = 192
# Tokens that a CPU trains on at once: 16 texts of 512.
CPU_TOKENS = 8192
# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def choose_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(requested: str, config: Any) -> str:
    """Turn ``auto`` into what is faster: bf16 where the hardware computes in it, but for narrow models on CPUs.

    Args:
        requested: auto, bf16, fp16 or fp32.
        config: of the model; its width decides and not a measurement, so that all processes, and all runs on a
            machine, choose the same.

    Raises:
        UserError: if fp16 is asked for without a GPU.
    """
    cuda = torch.cuda.is_available()
    if requested == "fp16" and not cuda:
        raise UserError("--precision fp16 needs a GPU; bf16 and fp32 run on the CPU too")
    if requested != "auto":
        return requested
    if cuda:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = _cpu_has_bf16() and config.hidden_size >= BF16_WIDTH
    return "bf16" if native else "fp32"


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in BF16_CAPABILITIES)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a batch on a device, without waiting for the copies to a GPU."""
    if device.type == "cuda":
        # Only from pinned memory are they made while the GPU computes.
        batch = {name: value.pin_memory() if _on_cpu(value) else value for name, value in batch.items()}
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def _on_cpu(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == "cpu" and not value.is_pinned()


def train_token_budget(model: torch.nn.Module, device: torch.device) -> int:
    """Return how many tokens are trained on at once: on a GPU what its memory holds, by a careful estimate.

    The activations of a layer are 34 times its width per token in numbers of two bytes (Korthikanti et al. 2022,
    arXiv:2205.05198), about twice that where autocast leaves some in float32.
    """
    if device.type != "cuda":
        return CPU_TOKENS
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    # Weights, gradients and the two averages of AdamW, in float32.
    free = 0.8 * torch.cuda.get_device_properties(device).total_memory - 16 * parameters
    return max(1024, int(free / (80 * config.num_hidden_layers * config.hidden_size)))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a precision; for fp32 one that does nothing.

    In int8 what is not computed in whole numbers is computed in bf16 where the processor has it.
    """
    enabled = precision in ("bf16", "fp16") or (precision == "int8" and _cpu_has_bf16())
    return torch.autocast(device.type, dtype=autocast_dtype(precision), enabled=enabled)


def autocast_dtype(precision: str) -> torch.dtype:
    """Return the number format of matrix products in bf16 or fp16."""
    return torch.float16 if precision == "fp16" else torch.bfloat16


def keep_freed_memory() -> None:
    """Make malloc keep what is freed, so that the next batch does not fault its pages in again.

    PyTorch's CPU allocations are large; glibc returns each to the system and takes it anew, and a third of
    a training step goes into page faults. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    # Never; as a size, which cannot be given here, it would be 2 GiB at most.
    libc.mallopt(M_TRIM_THRESHOLD, -1)
    libc.mallopt(M_TOP_PAD, 2**26)
    # What the forward pass frees must serve the thread of the backward pass too.
    libc.mallopt(M_ARENA_MAX, 1)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory used so far: of the GPU if that is the device, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe_device(device: torch.device) -> str:
    """Return the device's name for run.json."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
