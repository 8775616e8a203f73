"""What the figures share: the backend, heat maps with readable cells, saving in several formats."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.layout import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "Purples"
# Inches, of a character of the axes' labels.
CHARACTER_WIDTH = 0.085
NO_VALUE = "#e4e4e4"
FORMATS = ("png", "pdf", "svg")
# Embedded TrueType fonts, so that text in vector files stays text.
SETTINGS = {"pdf.fonttype": 42, "svg.fonttype": "none", "font.size": 9, "axes.titlesize": 10, "hatch.linewidth": 0.5}


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, width and height in inches, that needs no display."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(SETTINGS)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def heat_map(axes: "Axes", shares: np.ndarray, texts: np.ndarray, size: float = 8) -> None:
    """Draw cells coloured from 0 to 1 with a text in each; cells that are NaN are grey and hatched.

    Args:
        axes: where to draw.
        shares: colours, between 0 and 1 or NaN, shape [rows, columns].
        texts: what to write in the cells, same shape.
        size: of the text in points.
    """
    from matplotlib.patches import Rectangle

    rows, columns = shares.shape
    axes.imshow(np.ma.masked_invalid(shares), vmin=0, vmax=1, cmap=COLOURS, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if np.isnan(share):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=NO_VALUE, edgecolor="white", hatch="////", linewidth=0))
        if texts[row, column]:
            colour = "white" if share > 0.6 else "black"
            axes.text(column, row, texts[row, column], ha="center", va="center", color=colour, size=size)
    axes.set_xticks(np.arange(columns))
    axes.set_yticks(np.arange(rows))
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def room_for(names: list[str], width: float) -> tuple[int, float]:
    """Return how names fit below cells: rotation in degrees, and the height that it takes beyond a line, in inches.

    Args:
        names: what is written below the cells.
        width: of a cell, in inches.
    """
    longest = CHARACTER_WIDTH * max(map(len, names))
    return (0, 0.0) if longest < width else (90, longest - 0.1)


def save_figure(figure: "Figure", path: Path, formats: list[str]) -> list[Path]:
    """Save a figure as `path` with each format's suffix, atomically, over any that exists."""
    written = []
    for file_format in formats:
        target = path.with_suffix(f".{file_format}")
        # Without dates the same results give the same file.
        metadata = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[file_format]
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format=file_format, dpi=150, metadata=metadata)
        written.append(target)
    return written
