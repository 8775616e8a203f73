"""What the figures share: the backend, styles, grids of panels, heat maps with readable cells, saving."""

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
# Lines of text that a key takes at most, and that its scale of colors is wide; what its axes, no panel, are called.
KEY_LINES, SCALE_LINES, KEY_AXES = 3.6, 9, "key"


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
    import seaborn

    matplotlib.use("Agg")
    seaborn.set_theme(
        style="ticks",
        palette=LINE_COLORS,
        rc={
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
            **{f"{axis}tick.major.{what}": size for axis in "xy" for what, size in (("size", 3), ("width", 0.6))},
            "legend.fontsize": 0.9 * style.font,
            # A theme would take Arial where it is there, and other shapes of letters elsewhere.
            "font.family": "DejaVu Sans",
        },
    )
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=style.dpi)


@dataclass(frozen=True)
class Key:
    """What the colors of heat maps say, from 0 to 1, and what their frames do."""

    colors: str
    frames: str = ""


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
        key: of the colors, below the panels too.
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
        key: "Key | None" = None,
    ):
        left, right, top, bottom = margins
        self.count, self.style, self.margins = count, style, margins
        wide, high = inner
        self.per_row = per_row
        if style.shares_labels:
            total, self.per_row = self._fit(wide, left + right)
            if self.per_row > 2 and count % self.per_row == 1:
                # No panel stands alone in the last row.
                self.per_row -= 1
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
        words = style.line * len(lines) + (0.08 if lines else 0)
        self.width = total
        below = words + (self._key_lines(key)[2] * style.line if key else 0)
        rows = math.ceil(count / self.per_row)
        self.height = self.title_height + rows * self.step[1] + around + below
        self.figure = new_figure(self.width, self.height, style)
        if title:
            size = min(style.font * 1.5, 100 * self.width / len(title))
            y = 1 - self.title_height * 0.45 / self.height
            self.figure.text(0.5, y, title, ha="center", va="center", size=size)
        if lines:
            y = (words - 0.06) / self.height
            self.figure.text(0.1 / self.width, y, "\n".join(lines), ha="left", va="top", size=style.font, color="0.3")

        if key:
            self._draw_key(key, words)

    def _key_lines(self, key: "Key") -> tuple[list[str], bool, float]:
        """Return the text about colors as it fits beside the scale, whether frames fit in the same line, all lines."""
        room = self.width - 0.18 - (SCALE_LINES + 0.7) * self.style.line
        letters = room / (1.04 * self.style.character)
        texts = textwrap.wrap(key.colors, max(12, int(letters)))
        beside = len(texts) == 1 and len(key.colors) + len(key.frames) + 6 < letters
        return texts, beside, max(2, len(texts)) + 0.4 + (1.2 if key.frames and not beside else 0)

    def _draw_key(self, key: "Key", bottom: float) -> None:
        """Draw the scale of the colors, and a framed cell with what frames say."""
        from matplotlib.patches import Rectangle

        line, font = self.style.line, self.style.font
        texts, beside, lines = self._key_lines(key)
        x, y, wide, high = 0.18, bottom + (lines - 1.1) * line, SCALE_LINES * line, 0.55 * line
        draw_scale(self.figure, self._share(x, y, wide, high), ["0", "0.5", "1"], 0.85 * font)
        words = [(x + wide + 0.7 * line, y + high, "\n".join(texts))]
        if key.frames:
            place = x + wide + 2 * line + 1.04 * self.style.character * len(key.colors) if beside else x
            y = y if beside else bottom + 0.3 * line
            box = self._share(place, y, 1.3 * line, high)
            frame = Rectangle(box[:2], *box[2:], transform=self.figure.transFigure, fill=False, edgecolor="black")
            self.figure.add_artist(frame)
            words.append((place + 1.8 * line, y + high, key.frames))
        for place, y, text in words:
            left, top = self._share(place, y)
            self.figure.text(left, top, text, va="top", size=font, color="0.3")

    def _share(self, *inches: float) -> Any:
        """Return lengths, by turns across and upwards, as shares of the figure's."""
        return tuple(length / (self.height if place % 2 else self.width) for place, length in enumerate(inches))

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


def panels_of(figure: "Figure") -> "list[Axes]":
    """Return the panels of a figure, without the key of its colors."""
    return [axes for axes in figure.axes if axes.get_label() != KEY_AXES]


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
    import seaborn
    from matplotlib.patches import Rectangle

    rows, columns = shares.shape
    width = points_wide(axes) / columns
    longest = max((len(line) for text in texts.flat for line in text.split("\n")), default=1)
    size = min(size, 0.97 * width / (DIGIT_WIDTH * max(longest, 1)))
    empty = np.isnan(shares)
    for row, column in np.argwhere(empty):
        corner = (column, row)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=NO_VALUE, edgecolor="white", hatch="////", linewidth=0))
    seaborn.heatmap(
        shares, vmin=0, vmax=1, cmap=COLORS, mask=empty, linewidths=size / 8, linecolor="white", cbar=False,
        xticklabels=False, yticklabels=False, ax=axes,
    )  # fmt: skip
    # Not by seaborn, which would make a text of every empty cell too: half of the time.
    for row, column in np.argwhere(texts != "") if size >= SMALLEST_TEXT else ():
        axes.text(
            column + 0.5, row + 0.5, str(texts[row, column]), ha="center", va="center", size=size, linespacing=0.95,
            color="white" if shares[row, column] > 0.6 else "0.15",
        )  # fmt: skip
    # Cells have their middles at halves.
    axes.set_xticks(np.arange(columns) + 0.5, [""] * columns)
    axes.set_yticks(np.arange(rows) + 0.5, [""] * rows)
    axes.tick_params(length=0)


def draw_scale(
    figure: "Figure", where: tuple[float, float, float, float], labels: list[str], size: float = SCREEN.cell_text
) -> None:
    """Draw the colors from the least value to the greatest, with labels at equal distances below.

    Args:
        figure: to draw on.
        where: left, bottom, width and height, as shares of the figure's.
        labels: from the first color to the last one.
        size: of them, in points.
    """
    from matplotlib.cm import ScalarMappable

    axes = figure.add_axes(where, label=KEY_AXES)
    ticks = [float(place) for place in np.linspace(0, 1, len(labels))]
    bar = figure.colorbar(ScalarMappable(cmap=COLORS), cax=axes, orientation="horizontal", ticks=ticks)
    bar.outline.set_visible(False)
    axes.set_xticklabels(labels)
    axes.tick_params(length=0, pad=1, labelsize=size)


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
