"""Draws many figures at once, on all processors, and only those that have changed.

Each file bears, among its metadata, a name for all that it was made of.
"""

import functools
import hashlib
import importlib.metadata
import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli.progress import progress
from utils.runs.processors import usable_processors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fewer figures are drawn sooner than processes start.
FEW = 4
MOST_PROCESSES = 8


@dataclass
class Drawing:
    """A figure to be drawn: what makes it, which other processes can be sent, and where it goes."""

    make: "functools.partial[Figure]"
    path: Path
    formats: list[str]

    @property
    def files(self) -> list[Path]:
        """The files that it becomes."""
        return [self.path.with_suffix(f".{file_format}") for file_format in self.formats]

    @property
    def stamp(self) -> str:
        """A name for all that decides how the figure looks: its numbers, its style, the code, matplotlib."""
        function, arguments = self.make.func, [self.make.args, self.make.keywords]
        content = [function.__module__, function.__qualname__, arguments, code_of_figures()]
        text = json.dumps(content, default=_as_json, sort_keys=True)
        return f"register-finetuning {hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def is_current(self) -> bool:
        """Return whether all of its files are there, made of the same."""
        stamp = self.stamp.encode()
        return all(file.is_file() and stamp in file.read_bytes() for file in self.files)


def _as_json(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        # Not asdict, which copies all that is in it.
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return value.tolist() if hasattr(value, "tolist") else str(value)


@functools.cache
def code_of_figures() -> str:
    """Return a name for the code that draws: this package's and matplotlib's."""
    digest = hashlib.sha256(importlib.metadata.version("matplotlib").encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def draw(drawing: Drawing) -> list[Path]:
    """Make and save one figure; returns its files."""
    from utils.figures.style import save_figure

    return save_figure(drawing.make(), drawing.path, drawing.formats, drawing.stamp)


def draw_all(drawings: list[Drawing]) -> tuple[list[Path], int]:
    """Make and save the figures that are not there as they would be drawn, several at a time if there are many.

    Returns:
        the files that were written, in order, and how many figures are left as they are.
    """
    outdated = [drawing for drawing in drawings if not drawing.is_current()]
    return _draw(outdated), len(drawings) - len(outdated)


def _draw(drawings: list[Drawing]) -> list[Path]:
    processors = min(usable_processors(), MOST_PROCESSES)
    bar = {"total": len(drawings), "desc": "drawing", "unit": "figure"}
    if len(drawings) < FEW or processors < 2:
        return [path for drawing in progress(drawings, **bar) for path in draw(drawing)]
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(processors, multiprocessing.get_context("spawn")) as pool:
        return [path for paths in progress(pool.map(draw, drawings), **bar) for path in paths]
