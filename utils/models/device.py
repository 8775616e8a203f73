"""The machine that a run finds: device, precision, memory."""

import ctypes
import platform
import resource
import sys

import torch

from utils.errors import UserError

# Instructions that compute in bf16: of x86 processors, and of ARM ones.
BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16")
# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def choose_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(requested: str) -> str:
    """Turn ``auto`` into bf16 where the hardware computes in it and fp32 elsewhere.

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
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name) for name in BF16_CAPABILITIES)
    return "bf16" if native else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a precision; for fp32 one that does nothing."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def keep_freed_memory() -> None:
    """Make malloc keep what is freed, so that the next batch does not fault its pages in again.

    PyTorch's CPU allocations are large; glibc returns each to the system and takes it anew, and a third of
    a training step goes into page faults. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
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
