"""Draws many figures at once, on all processors."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.cli.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fewer figures are drawn sooner than processes start.
FEW = 4
MOST_PROCESSES = 8


@dataclass
class Drawing:
    """A figure to be drawn: what makes it, which other processes can be sent, and where it goes."""

    make: Callable[[], "Figure"]
    path: Path
    formats: list[str]


def draw(drawing: Drawing) -> list[Path]:
    """Make and save one figure; returns its files."""
    from utils.figures.style import save_figure

    return save_figure(drawing.make(), drawing.path, drawing.formats)


def draw_all(drawings: list[Drawing]) -> list[Path]:
    """Make and save figures, several at a time if there are many; returns their files in order."""
    # macOS does not say which processors a process may use.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processors = min(allowed, MOST_PROCESSES)
    bar = {"total": len(drawings), "desc": "figures"}
    if len(drawings) < FEW or processors < 2:
        return [path for drawing in progress(drawings, **bar) for path in draw(drawing)]
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(processors, multiprocessing.get_context("spawn")) as pool:
        return [path for paths in progress(pool.map(draw, drawings), **bar) for path in paths]
