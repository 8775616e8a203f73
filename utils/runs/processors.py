"""How many processors there are for this process."""

import os


def usable_processors() -> int:
    """Return how many processors this process may use, where the system tells (macOS does not), else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
