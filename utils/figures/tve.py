"""Train-vs-eval matrices: a panel per model and metric, training languages against evaluation languages."""

from typing import TYPE_CHECKING, Any

import numpy as np

from utils.evaluation.metrics import metric_title
from utils.evaluation.results import RunResults
from utils.evaluation.selection import MatrixGrid
from utils.figures.names import NO_NAMES, Names
from utils.figures.style import SCREEN, PanelGrid, Style, heat_map, hide_shared_labels, room_for, set_title
from utils.training.baseline import is_baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    rows, columns = [names.langs(row) for row in grid.rows], [names.lang(column) for column in grid.columns]
    results = {(run.model, run.train_langs): run for run in runs}
    spread = any(f"{grid.metrics[0]}_std" in result for run in runs for result in run.evaluations.values())
    cell = (0.19, 0.15) if style.shares_labels else (0.44, 0.30)
    cell = (cell[0] * (1.3 if spread else 1), cell[1] * (1.6 if spread else 1))
    # Wide enough for its title, however few the languages.
    titles = max(len(f"{model}: {metric}") for model in grid.models for metric in grid.metrics)
    inner = (max(len(columns) * cell[0], titles * style.character, 1.9 / 9 * style.font), max(len(rows) * cell[1], 0.5))
    rotation, below = room_for(columns, inner[0] / len(columns), style)
    left = 0.25 + 2 * style.line + style.character * max(map(len, rows))
    margins = (left, 0.35 / 9 * style.font, 0.24 if style.shares_labels else 0.5, below + 3 * style.line)
    places, per_row = arrange(grid, style)
    panels = PanelGrid(
        max(places) + 1,
        style,
        inner,
        margins,
        per_row,
        title="" if style.shares_labels else "training against evaluation language",
    )
    for index, (metric, model) in places.items():
        axes = panels.axes(index)
        values, texts = np.full((len(rows), len(columns)), np.nan), np.full((len(rows), len(columns)), "", dtype="U16")
        for row, train in enumerate(grid.rows):
            evaluations = results[model, train].evaluations if (model, train) in results else {}
            for column, lang in enumerate(grid.columns):
                if lang in evaluations:
                    values[row, column] = evaluations[lang][metric]
                    texts[row, column] = cell_text(evaluations[lang], metric, style)
        draw_matrix(axes, values, texts, grid.rows, grid.columns, style)
        axes.set_xticklabels(columns)
        axes.set_yticklabels(rows)
        axes.set_xlabel("evaluated on")
        axes.set_ylabel("trained on")
        axes.tick_params(axis="x", labelrotation=rotation)
        set_title(axes, f"{model}: {metric_title(metric)}", style)
        hide_shared_labels(axes, *panels.is_labelled(index))
    return panels.figure


def arrange(grid: MatrixGrid, style: Style) -> tuple[dict[int, tuple[str, str]], int]:
    """Return metric and model of each panel by its place, and how many panels stand side by side.

    A row for each metric; baselines have rows of their own below those of the models.
    """
    baselines = [model for model in grid.models if is_baseline(model)]
    models = [model for model in grid.models if model not in baselines]
    per_row = max(len(models), len(baselines))
    rows = [[(metric, x) for x in several] for several in (models, baselines) if several for metric in grid.metrics]
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


def draw_matrix(
    axes: "Axes", values: np.ndarray, texts: np.ndarray, rows: list[str], columns: list[str], style: Style
) -> None:
    """Draw one matrix; a frame marks the cells whose language the model was trained on."""
    from matplotlib.patches import Rectangle

    heat_map(axes, values, texts, style.cell_text + (1 if style.shares_labels else 0))
    for row, train in enumerate(rows):
        for column, lang in enumerate(columns):
            if lang in train.split("-") and not np.isnan(values[row, column]):
                width = 0.6 if style.shares_labels else 1
                frame = Rectangle(
                    (column - 0.46, row - 0.45), 0.92, 0.9, fill=False, edgecolor="black", linewidth=width
                )
                axes.add_patch(frame)
