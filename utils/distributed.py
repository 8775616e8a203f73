"""Several processes that train together (torchrun): who writes, and how they part."""

import os


def is_main_process() -> bool:
    """Say whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def leave_process_group() -> None:
    """Take leave of the other processes in order; without it some abort at exit with their work done."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
