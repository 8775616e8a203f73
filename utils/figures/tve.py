"""Train-vs-eval matrices: a panel per model and metric, training languages against evaluation languages.

Two columns behind the languages have the means over those that a model was trained on, and over the others.
"""

import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.evaluation.metrics import metric_title
from utils.evaluation.results import RunResults
from utils.evaluation.selection import MatrixGrid
from utils.figures.names import NO_NAMES, Names
from utils.figures.style import (
    GAP,
    KEY_LINES,
    SCREEN,
    Key,
    PanelGrid,
    Style,
    heat_map,
    hide_shared_labels,
    room_for,
    set_title,
)
from utils.training.baseline import is_baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What the last two columns are called, and the longest line of a row's label.
MEANS = ["mean, trained", "mean, others"]
LONGEST_LABEL = 30
# Inches of a figure for a screen, and of a page of A4 that has margins and a caption.
WIDEST, HIGHEST, A4_HEIGHT = 14.0, 30.0, 9.0


def train_vs_eval_figure(
    runs: list[RunResults], grid: MatrixGrid, style: Style = SCREEN, names: Names = NO_NAMES
) -> "Figure":
    """Return the figure: a panel per metric and model.

    Where an evaluation has a standard deviation (``macro_f1_std``), the cells show it too.

    Args:
        runs: the results.
        grid: which of them, see `select_grid`.
        style: of the figure.
        names: what languages are called.
    """
    results = {(run.model, run.train_langs): run for run in runs}
    size = measure(runs, grid, style, names)
    places, per_row = arrange(grid, style, size)
    panels = PanelGrid(
        max(places) + 1,
        style,
        size.inner,
        size.margins,
        per_row,
        title="" if style.shares_labels else f"training against evaluation language{over_seeds(runs)}",
        key=Key(" and ".join(metric_title(metric) for metric in grid.metrics), "language that was trained on"),
    )
    for index, (metric, model) in places.items():
        axes = panels.axes(index)
        values = np.full((len(size.rows), len(size.columns)), np.nan)
        texts = np.full(values.shape, "", dtype="U16")
        for row, train in enumerate(grid.rows):
            evaluations = results[model, train].evaluations if (model, train) in results else {}
            for column, lang in enumerate(grid.columns):
                if lang in evaluations:
                    values[row, column] = evaluations[lang][metric]
                    texts[row, column] = cell_text(evaluations[lang], metric, style)
            if len(size.columns) > len(grid.columns):
                for place, mean in enumerate(means_of(train, evaluations, metric), len(grid.columns)):
                    values[row, place] = np.nan if mean is None else mean
                    texts[row, place] = "" if mean is None else cell_text({metric: mean}, metric, style)
        draw_matrix(axes, values, texts, grid.rows, grid.columns, style)
        axes.set_xticklabels(size.columns, rotation=size.rotation)
        axes.set_yticklabels(size.rows)
        axes.set_xlabel("evaluated on")
        axes.set_ylabel("trained on")
        set_title(axes, f"{model}: {metric_title(metric)}", style)
        hide_shared_labels(axes, *panels.is_labelled(index))
    return panels.figure


@dataclass
class Size:
    """Of the panels of a figure: labels of rows and columns, how the latter are turned, inches."""

    rows: list[str]
    columns: list[str]
    rotation: int
    inner: tuple[float, float]
    margins: tuple[float, float, float, float]


def measure(runs: list[RunResults], grid: MatrixGrid, style: Style, names: Names) -> Size:
    """Return how large panels are that show these results."""
    rows = [textwrap.fill(names.langs(row), LONGEST_LABEL) for row in grid.rows]
    columns = [names.lang(column) for column in grid.columns]
    if len(columns) > 1:
        columns += MEANS
    spread = any(f"{grid.metrics[0]}_std" in result for run in runs for result in run.evaluations.values())
    cell = (0.19, 0.15) if style.shares_labels else (0.44, 0.30)
    tall = max(1.6 if spread else 1, *(0.25 + 0.75 * (row.count("\n") + 1) for row in rows))
    cell = (cell[0] * (1.3 if spread else 1), cell[1] * tall)
    # Wide enough for its title, however few the languages.
    titles = max(len(f"{model}: {metric}") for model in grid.models for metric in grid.metrics)
    inner = (max(len(columns) * cell[0], titles * style.character, 1.9 / 9 * style.font), max(len(rows) * cell[1], 0.5))
    rotation, below = room_for(columns, inner[0] / len(columns), style)
    left = 0.25 + 2 * style.line + style.character * max(len(line) for row in rows for line in row.split("\n"))
    margins = (left, 0.35 / 9 * style.font, 0.24 if style.shares_labels else 0.5, below + 3 * style.line)
    return Size(rows, columns, rotation, inner, margins)


def over_seeds(runs: list[RunResults]) -> str:
    """Return what a title says of results that are means over seeds; nothing of others."""
    seeds = sorted(
        {result["num_seeds"] for run in runs for result in run.evaluations.values() if "num_seeds" in result}
    )
    if not seeds:
        return ""
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f", mean ± standard deviation over {count} seeds"


def means_of(train_langs: str, evaluations: dict[str, Any], metric: str) -> list[float | None]:
    """Return the means over the languages that were trained on, and over the others; None where there are none."""
    trained = set(train_langs.split("-"))
    parts = [
        [own[metric] for lang, own in evaluations.items() if (lang in trained) == wanted] for wanted in (True, False)
    ]
    return [sum(values) / len(values) if values else None for values in parts]


def arrange(grid: MatrixGrid, style: Style, size: Size) -> tuple[dict[int, tuple[str, str]], int]:
    """Return metric and model of each panel by its place, and how many panels stand side by side.

    A row for each metric, or several of many models; baselines have rows of their own below those of the models.
    """
    baselines = [model for model in grid.models if is_baseline(model)]
    models = [model for model in grid.models if model not in baselines]
    most = max(1, int(WIDEST / (size.margins[0] + size.inner[0] + size.margins[1])))
    per_row = min(most, max(len(models), len(baselines)))
    rows = [
        [(metric, x) for x in several[start : start + per_row]]
        for several in (models, baselines)
        for metric in grid.metrics
        for start in range(0, len(several), per_row)
    ]
    if style.shares_labels:
        return dict(enumerate(panel for row in rows for panel in row)), per_row
    places = {per_row * index + place: panel for index, row in enumerate(rows) for place, panel in enumerate(row)}
    return places, per_row


def cell_text(result: dict[str, Any], metric: str, style: Style) -> str:
    """Return a value as a cell shows it, with its standard deviation over seeds below if there is one."""
    text = f"{result[metric]:.2f}"
    if style.shares_labels:
        text = text.removeprefix("0")
    spread = result.get(f"{metric}_std")
    return text if spread is None else f"{text}\n\u00b1{spread:.2f}".replace("\u00b10.", "\u00b1.")


def split_pages(runs: list[RunResults], grid: MatrixGrid, style: Style, names: Names = NO_NAMES) -> list[MatrixGrid]:
    """Return the parts of a grid, some of its models each, that fit on a page: 42 models make no sheet."""
    size = measure(runs, grid, style, names)
    width = style.widths[-1] if style.widths else WIDEST
    step = (size.inner[0] + GAP, size.margins[2] + size.inner[1] + GAP)
    around = (sum(size.margins[:2]), size.margins[3])
    if not style.shares_labels:
        step, around = (step[0] + around[0], step[1] + around[1]), (0.0, 0.0)
    per_row = max(1, int((width - around[0] + GAP) / step[0]))
    page = A4_HEIGHT if style.shares_labels else HIGHEST
    rows = max(1, int((page - around[1] - KEY_LINES * style.line) / step[1] / len(grid.metrics)))
    at_once = rows * per_row
    return [replace(grid, models=grid.models[start : start + at_once]) for start in range(0, len(grid.models), at_once)]


def draw_matrix(
    axes: "Axes", values: np.ndarray, texts: np.ndarray, rows: list[str], columns: list[str], style: Style
) -> None:
    """Draw one matrix; a frame marks the cells whose language the model was trained on."""
    from matplotlib.patches import Rectangle

    heat_map(axes, values, texts, style.cell_text + (1 if style.shares_labels else 0))
    if values.shape[1] > len(columns):
        # The means stand apart.
        axes.axvline(len(columns), color="white", linewidth=5 if not style.shares_labels else 2)
    for row, train in enumerate(rows):
        for column, lang in enumerate(columns):
            if lang in train.split("-") and not np.isnan(values[row, column]):
                width = 0.6 if style.shares_labels else 1
                frame = Rectangle(
                    (column + 0.04, row + 0.05), 0.92, 0.9, fill=False, edgecolor="black", linewidth=width
                )
                axes.add_patch(frame)
