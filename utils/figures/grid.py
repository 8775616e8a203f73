"""Figures of a grid search: a heat map for one or two varying parameters, parallel coordinates for more."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.evaluation.metrics import metric_title
from utils.figures.style import LINE_COLORS, SCREEN, draw_scale, heat_map, new_figure, room_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
CELL_WIDTH, CELL_HEIGHT = 0.62, 0.32


RIGHT, TOP, BOTTOM, TITLE, KEY = 0.35, 0.45, 0.65, 0.55, 0.45


AXIS_DISTANCE, AXIS_HEIGHT = 1.9, 3.2


# What the lines with the same value take of an axis.
LINES_HEIGHT = 0.06
# From dark to light, readable in grey and by the color-blind.
LINES = "viridis"


def grid_figure(rows: list[dict[str, Any]], varying: list[str], metric: str) -> "Figure | None":
    """Return the figure of a search, or None if no parameter varies.

    Args:
        rows: of the table of results (see `utils.jobs.grid.results_table`), the best first.
        varying: names of the parameters that have several values.
        metric: column of the table.
    """
    rows = [row for row in rows if metric in row]
    if not varying or not rows:
        return None
    if len(varying) <= 2:
        return heat_maps(rows, varying, metric)
    return parallel_coordinates(rows, varying, metric)


def heat_maps(rows: list[dict[str, Any]], varying: list[str], metric: str) -> "Figure":
    """Draw a heat map per model and training languages, colored from the worst value of all to the best."""
    from matplotlib.patches import Rectangle

    across, down = varying[0], varying[1] if len(varying) > 1 else None
    columns = values_of(rows, across)
    lines = values_of(rows, down) if down else [""]
    panels = sorted({(row["model"], row["train_langs"]) for row in rows})
    left = (0.55 if down else 0.2) + SCREEN.character * max(len(shown(line)) for line in lines)
    inner = (max(len(columns) * CELL_WIDTH, 2.2), len(lines) * CELL_HEIGHT)
    rotation, below = room_for([shown(value) for value in columns], inner[0] / len(columns))
    panel = (left + inner[0] + RIGHT, TOP + inner[1] + BOTTOM + below)
    per_line = math.ceil(math.sqrt(len(panels)))
    width, height = per_line * panel[0], math.ceil(len(panels) / per_line) * panel[1] + TITLE + KEY
    figure = new_figure(width, height)
    figure.text(0.5, 1 - 0.25 / height, metric_title(metric), ha="center", va="center", size=11)
    scale = [row[metric] for row in rows]
    best = min(scale) if metric.endswith("loss") else max(scale)
    for index, (model, langs) in enumerate(panels):
        values = np.full((len(lines), len(columns)), np.nan)
        # From the worst to the best, so that the best of several with the same place stays.
        for row in reversed([row for row in rows if (row["model"], row["train_langs"]) == (model, langs)]):
            line = lines.index(row[down]) if down else 0
            values[line, columns.index(row[across])] = row[metric]
        y, x = divmod(index, per_line)
        corner = (x * panel[0] + left, height - TITLE - (y + 1) * panel[1] + BOTTOM + below)
        axes = figure.add_axes((corner[0] / width, corner[1] / height, inner[0] / width, inner[1] / height))
        texts = np.array([["" if np.isnan(value) else f"{value:.3f}" for value in line] for line in values])
        heat_map(axes, goodness(values, scale, metric), texts)
        axes.set_title(f"{model} trained on {langs}", size=min(10, 105 * panel[0] / len(f"{model} trained on {langs}")))
        axes.set_xticklabels([shown(value) for value in columns], rotation=rotation)
        axes.set_yticklabels([shown(value) for value in lines])
        axes.set_xlabel(across)
        axes.set_ylabel(down or "")
        # As good as the best one of all: there may be several.
        for line, column in np.argwhere(values == best):
            axes.add_patch(
                Rectangle((column + 0.04, line + 0.06), 0.92, 0.88, fill=False, edgecolor=LINE_COLORS[1], linewidth=2)
            )
    ends = (max(scale), min(scale)) if metric.endswith("loss") else (min(scale), max(scale))
    where = (0.35 / width, 0.28 / height, 1.1 / width, 0.11 / height)
    draw_scale(figure, where, [f"{end:.3f}" for end in ends])
    text = f"{metric_title(metric)}; framed: the best"
    figure.text(1.75 / width, 0.335 / height, text, va="center", size=SCREEN.font - 1, color="0.3")
    return figure


def parallel_coordinates(rows: list[dict[str, Any]], varying: list[str], metric: str) -> "Figure":
    """Draw every run as a line through its parameters to its metric; the best one is thick."""
    import matplotlib as mpl

    context = [name for name in ("model", "train_langs") if len({row[name] for row in rows}) > 1]
    dimensions = [*context, *varying]
    margin = 0.4 + SCREEN.character * max(len(shown(value)) for value in values_of(rows, dimensions[0]))
    width = margin + len(dimensions) * AXIS_DISTANCE + 0.9
    height = AXIS_HEIGHT + TITLE + 0.9
    figure = new_figure(width, height)
    figure.text(
        0.5, 1 - 0.25 / height, f"{len(rows)} runs, by {metric_title(metric)}", ha="center", va="center", size=11
    )
    axes = figure.add_axes(
        (margin / width, 0.6 / height, len(dimensions) * AXIS_DISTANCE / width, AXIS_HEIGHT / height)
    )
    known = {name: values_of(rows, name) for name in dimensions}
    scale = [row[metric] for row in rows]
    good = goodness(np.array(scale), scale, metric)
    low, high = min(scale), max(scale)
    for number, (row, share) in reversed(list(enumerate(zip(rows, good, strict=True)))):
        # Side by side where they have the same values.
        shift = (0.5 - (number + 0.5) / len(rows)) * LINES_HEIGHT
        heights = [place(known[name], row[name]) + shift for name in dimensions]
        heights.append(0.5 if high == low else (row[metric] - low) / (high - low))
        # The lightest colors are lost on white.
        color = mpl.colormaps[LINES](0.9 * (1 - share))
        axes.plot(range(len(heights)), heights, color=color, linewidth=3 if number == 0 else 1, alpha=0.9)
    label_axes(axes, known, dimensions, metric, (low, high))
    return figure


def label_axes(
    axes: "Axes", known: dict[str, list[Any]], dimensions: list[str], metric: str, bounds: tuple[float, float]
) -> None:
    """Draw an upright line for every dimension, with its values beside it, and one for the metric."""
    for position, name in enumerate(dimensions):
        axes.axvline(position, color="0.6", linewidth=0.8, zorder=0)
        for value in known[name]:
            side, gap = ("right", -0.04) if position == 0 else ("left", 0.04)
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
            axes.text(position + gap, place(known[name], value), shown(value), ha=side, va="center", size=8, bbox=box)
    last = len(dimensions)
    axes.axvline(last, color="0.6", linewidth=0.8, zorder=0)
    low, high = bounds
    for share in (0.5,) if low == high else (0, 0.25, 0.5, 0.75, 1):
        axes.text(last + 0.04, share, f"{low + share * (high - low):.3f}", ha="left", va="center", size=8)
    axes.set_xticks(range(last + 1), [*dimensions, metric_title(metric)])
    axes.set_xlim(-0.02, last + 0.02)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.spines[:].set_visible(False)


def values_of(rows: list[dict[str, Any]], name: str) -> list[Any]:
    """Return the different values of a parameter, numbers in their order, others as they come in the alphabet."""
    values: list[Any] = []
    for row in rows:
        if row[name] not in values:
            values.append(row[name])
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return sorted(values) if numbers else sorted(values, key=shown)


def place(known: list[Any], value: Any) -> float:
    """Return where a value is on its axis, from 0 to 1; all are equally far from each other."""
    return 0.5 if len(known) == 1 else known.index(value) / (len(known) - 1)


def goodness(values: np.ndarray, scale: list[float], metric: str) -> np.ndarray:
    """Return values as shares of the way from the worst of `scale` to its best, between 0 and 1; NaN stays."""
    low, high = min(scale), max(scale)
    shares = np.where(np.isnan(values), np.nan, 1.0) if low == high else (values - low) / (high - low)
    return 1 - shares if metric.endswith("loss") and low < high else shares


def shown(value: Any) -> str:
    """Return a value as a figure shows it."""
    return f"{value:g}" if isinstance(value, float) else str(value)
