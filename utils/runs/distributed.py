"""Several processes that train together (torchrun): which of them writes, and how they end."""

import atexit
import os
import signal
import sys
import time
from typing import TypeVar

Value = TypeVar("Value")

# How long the other processes wait for the first one to report a mistake.
SECONDS_TO_SPEAK = 5


def is_sharded() -> bool:
    """Return whether accelerate was told to shard models among processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def is_main_process() -> bool:
    """Return whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def from_the_first(value: Value, use_gpu: bool) -> Value:
    """Return the first process's value in all of them; they join their process group for it.

    Args:
        value: of this process.
        use_gpu: whether they compute on GPUs.
    """
    if num_processes() == 1:
        return value
    import torch
    from accelerate import PartialState

    PartialState(cpu=not use_gpu)
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def leave_process_group() -> None:
    """Leave the process group with the others; otherwise some processes abort at exit, their work done."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def let_the_first_speak() -> None:
    """Wait in processes other than the first: a mistake that all have made ends the first, then torchrun
    ends the others.

    Whoever ended before the first had said what is wrong would silence it. A mistake that this process alone has met
    is said by it after that.
    """
    if int(os.environ.get("RANK", "0")):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(SECONDS_TO_SPEAK)


def end_process(status: int) -> None:
    """End one of several processes without taking libraries down in order.

    gloo's threads may outlive their process group (seen with FSDP): then the C++ runtime aborts a process that has
    done all its work, and torchrun takes that for a failure.
    """
    # Trackers write their last lines in exit functions, which os._exit skips.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
