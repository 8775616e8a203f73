"""What the figures share: the backend, styles, grids of panels, heat maps with readable cells, saving."""

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from utils.runs.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One hue from light to dark: told apart in grey and by the color-blind too.
COLORS = "Purples"
# Okabe and Ito's colors (2008), told apart by the color-blind too: black, orange, sky blue, green, blue, red, pink.
LINE_COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
NO_VALUE = "#e4e4e4"
FORMATS = ("png", "pdf", "svg")
# Smaller text than this, in points, nobody reads.
SMALLEST_TEXT = 4
# A digit's share of its font's size.
DIGIT_WIDTH = 0.58
# Inches between panels that share their labels.
GAP = 0.09


@dataclass(frozen=True)
class Style:
    """Sizes of a figure: texts in points, the rest in inches.

    `widths` are those that the figure may have, the smallest that holds it is taken; without them it is as
    wide as it wants, and every panel has labels of its own. `cell` is the least size of a heat map's cell,
    `character` the width of a label's character.
    """

    font: float
    title: float
    cell_text: float
    cell: tuple[float, float]
    character: float
    widths: tuple[float, ...] = ()
    dpi: int = 150

    @property
    def line(self) -> float:
        """Height of a line of text in inches."""
        return self.font / 72 * 1.45

    @property
    def shares_labels(self) -> bool:
        """Whether panels beside and above each other share their labels."""
        return bool(self.widths)


SCREEN = Style(font=9, title=10, cell_text=8, cell=(0.40, 0.27), character=0.074)
# Column and text width of A4 pages in two columns (7.7 and 16 cm in the style of the ACL).
PAPER = Style(font=6.5, title=7, cell_text=5, cell=(0.155, 0.13), character=0.053, widths=(3.03, 6.30), dpi=300)
STYLES = {"screen": SCREEN, "paper": PAPER}


def new_figure(width: float, height: float, style: Style = SCREEN) -> "Figure":
    """Return an empty figure, width and height in inches, that needs no display."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            # Embedded TrueType fonts in PDF; outlines in SVG, which looks the same where the font is missing.
            "pdf.fonttype": 42,
            "svg.fonttype": "path",
            # Without it the names inside SVG files are random.
            "svg.hashsalt": "register-finetuning",
            "hatch.linewidth": 0.5,
            "font.size": style.font,
            "axes.titlesize": style.title,
            "axes.titlepad": 3 if style.shares_labels else 6,
            "axes.labelsize": style.font,
            "xtick.labelsize": style.font,
            "ytick.labelsize": style.font,
            "axes.linewidth": 0.5 if style.shares_labels else 0.8,
        }
    )
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=style.dpi)


class PanelGrid:
    """A figure with panels of the same size, below a title and above a legend in words.

    Args:
        count: number of panels.
        style: of the figure.
        inner: width and height of a panel without its labels, the least ones, in inches.
        margins: left, right, above and below each panel; where panels share labels, left and below all of them.
        per_row: panels side by side; as many as fit where the style limits the width.
        title: of the figure.
        legend: text below the panels.
    """

    def __init__(
        self,
        count: int,
        style: Style,
        inner: tuple[float, float],
        margins: tuple[float, float, float, float],
        per_row: int,
        title: str = "",
        legend: str = "",
    ):
        left, right, top, bottom = margins
        self.count, self.style, self.margins = count, style, margins
        wide, high = inner
        self.per_row = per_row
        if style.shares_labels:
            total, self.per_row = self._fit(wide, left + right)
            # Panels fill the width.
            wide = (total - left - right + GAP) / self.per_row - GAP
            self.step = (wide + GAP, top + high + GAP)
            around = bottom
        else:
            self.step = (left + wide + right, top + high + bottom)
            total, around = self.per_row * self.step[0], 0.0
        self.inner = (wide, high)
        # A title is as wide as the figure at most.
        self.title_height = 0.65 / 9 * style.font if title else 0.02
        lines = textwrap.wrap(legend, max(20, int((total - 0.2) / (0.88 * style.character)))) if legend else []
        below = style.line * len(lines) + (0.08 if lines else 0)
        rows = math.ceil(count / self.per_row)
        self.width, self.height = total, self.title_height + rows * self.step[1] + around + below
        self.figure = new_figure(self.width, self.height, style)
        if title:
            size = min(style.font * 1.5, 100 * self.width / len(title))
            y = 1 - self.title_height * 0.45 / self.height
            self.figure.text(0.5, y, title, ha="center", va="center", size=size)
        if lines:
            y = (below - 0.06) / self.height
            self.figure.text(0.1 / self.width, y, "\n".join(lines), ha="left", va="top", size=style.font, color="0.3")

    def _fit(self, wide: float, around: float) -> tuple[float, int]:
        for width in self.style.widths:
            fitting = int((width - around + GAP + 1e-9) / (wide + GAP))
            if fitting >= self.count or width == self.style.widths[-1]:
                return width, max(1, min(fitting, self.count))
        raise AssertionError("a style has widths")

    def axes(self, index: int) -> "Axes":
        """Add the panel of this number, counted from the upper left."""
        row, column = divmod(index, self.per_row)
        left, _, top, _ = self.margins
        x = left + column * self.step[0]
        y = self.height - self.title_height - row * self.step[1] - top - self.inner[1]
        return self.figure.add_axes(
            (x / self.width, y / self.height, self.inner[0] / self.width, self.inner[1] / self.height)
        )

    def is_labelled(self, index: int) -> tuple[bool, bool]:
        """Return whether a panel has labels below and beside it."""
        if not self.style.shares_labels:
            return True, True
        return index + self.per_row >= self.count, index % self.per_row == 0


def hide_shared_labels(axes: "Axes", below: bool, beside: bool) -> None:
    """Take off the labels that another panel has."""
    if not below:
        axes.set_xticklabels([])
        axes.set_xlabel("")
    if not beside:
        axes.set_yticklabels([])
        axes.set_ylabel("")


def points_wide(axes: "Axes") -> float:
    """Return the width of a panel in points."""
    return axes.get_position().width * cast("Figure", axes.figure).get_figwidth() * 72


def set_title(axes: "Axes", title: str, style: Style) -> None:
    """Write the title of a panel, smaller where it would not fit above it."""
    room = points_wide(axes)
    axes.set_title(
        title, size=min(style.title, room / (DIGIT_WIDTH * len(title))) if style.shares_labels else style.title
    )


def heat_map(axes: "Axes", shares: np.ndarray, texts: np.ndarray, size: float = SCREEN.cell_text) -> None:
    """Draw cells colored from 0 to 1 with a text in each; cells that are NaN are grey and hatched.

    Args:
        axes: where to draw.
        shares: colors, between 0 and 1 or NaN, shape [rows, columns].
        texts: what to write in the cells, same shape.
        size: of the text in points, at most; it becomes smaller, or is left out, where it does not fit.
    """
    from matplotlib.patches import Rectangle

    rows, columns = shares.shape
    axes.imshow(np.ma.masked_invalid(shares), vmin=0, vmax=1, cmap=COLORS, aspect="auto")
    width = points_wide(axes) / columns
    longest = max((len(line) for text in texts.flat for line in text.split("\n")), default=1)
    size = min(size, 0.97 * width / (DIGIT_WIDTH * max(longest, 1)))
    for (row, column), share in np.ndenumerate(shares):
        if np.isnan(share):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=NO_VALUE, edgecolor="white", hatch="////", linewidth=0))
        if texts[row, column] and size >= SMALLEST_TEXT:
            color = "white" if share > 0.6 else "black"
            axes.text(
                column,
                row,
                str(texts[row, column]),
                ha="center",
                va="center",
                color=color,
                size=size,
                linespacing=0.95,
            )
    axes.set_xticks(np.arange(columns))
    axes.set_yticks(np.arange(rows))
    # Two collections of lines are drawn far sooner than the grid of minor ticks.
    axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, color="white", linewidth=1)
    axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, color="white", linewidth=1)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def room_for(names: list[str], width: float, style: Style = SCREEN) -> tuple[int, float]:
    """Return how names fit below cells: rotation in degrees, and the height that it takes beyond a line, in inches.

    Args:
        names: what is written below the cells.
        width: of a cell, in inches.
        style: of the figure.
    """
    longest = style.character * max(map(len, names))
    return (0, 0.0) if longest < width else (90, longest - 0.1 / SCREEN.font * style.font)


def save_figure(figure: "Figure", path: Path, formats: list[str], stamp: str = "") -> list[Path]:
    """Save a figure as `path` with each format's suffix, atomically, over any that exists.

    Args:
        figure: what to save.
        path: where to, without the suffix or with any.
        formats: of the files.
        stamp: what the files' metadata say of what they were made of.
    """
    written = []
    for file_format in formats:
        target = path.with_suffix(f".{file_format}")
        # Without dates the same results give the same file.
        dates = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[file_format]
        metadata = dates | ({"Keywords" if file_format == "pdf" else "Description": stamp} if stamp else {})
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format=file_format, metadata=metadata)
        written.append(target)
    return written
