"""Train-vs-eval matrices: a panel per model and metric, training languages against evaluation languages."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.figures import CHARACTER_WIDTH, heat_map, new_figure, room_for
from utils.metrics import METRICS
from utils.results import RunResults, choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEFAULT_METRICS = ("micro_f1", "macro_f1")
# Inches; a cell holds "0.00" in 8 points.
CELL_WIDTH, CELL_HEIGHT = 0.44, 0.30
RIGHT, TOP, BOTTOM, TITLE = 0.35, 0.50, 0.65, 0.55


@dataclass
class MatrixGrid:
    """Which matrices a figure shows: a panel per metric and model, all with the same rows and columns."""

    models: list[str]
    metrics: list[str]
    rows: list[str]
    columns: list[str]


def select_grid(
    runs: list[RunResults],
    models: list[str] | None = None,
    metrics: list[str] | None = None,
    train_langs: list[str] | None = None,
    eval_langs: list[str] | None = None,
) -> MatrixGrid:
    """Return what the filters leave.

    Args:
        runs: what there is.
        models: only these; None is all.
        metrics: None is `DEFAULT_METRICS`.
        train_langs: only these training languages (``en-fr`` is one); None is all.
        eval_langs: only these evaluation languages; None is all.

    Raises:
        UserError: if a filter names what no result has.
    """
    models = choose(sorted({run.model for run in runs}), models, "--tve_models")
    metrics = choose(list(METRICS), metrics or list(DEFAULT_METRICS), "--tve_metrics")
    chosen = [run for run in runs if run.model in models]
    rows, columns = shared_first({run.train_langs for run in chosen}, {x for run in chosen for x in run.evaluations})
    return MatrixGrid(
        models, metrics, choose(rows, train_langs, "--tve_train_langs"), choose(columns, eval_langs, "--tve_eval_langs")
    )


def shared_first(train_langs: set[str], eval_langs: set[str]) -> tuple[list[str], list[str]]:
    """Order rows and columns: shared languages first in the same order, so that the diagonal is in-language.

    Sets of several training languages come last.
    """
    shared = sorted(train_langs & eval_langs)
    only_train = sorted(train_langs - eval_langs, key=lambda langs: (langs.count("-"), langs))
    return shared + only_train, shared + sorted(eval_langs - train_langs)


def train_vs_eval_figure(runs: list[RunResults], grid: MatrixGrid) -> Any:
    """Return the figure: a row of panels per metric, a column per model."""
    models, metrics, rows, columns = grid.models, grid.metrics, grid.rows, grid.columns
    left = 0.55 + CHARACTER_WIDTH * max(len(name) for name in rows)
    # Wide enough for its title, however few the languages.
    inner = (max(len(columns) * CELL_WIDTH, 1.9), max(len(rows) * CELL_HEIGHT, 0.7))
    rotation, below = room_for(columns, inner[0] / len(columns))
    bottom = BOTTOM + below
    panel = (left + inner[0] + RIGHT, TOP + inner[1] + bottom)
    width, height = len(models) * panel[0], len(metrics) * panel[1] + TITLE
    figure = new_figure(width, height)
    figure.text(0.5, 1 - 0.25 / height, "training against evaluation language", ha="center", va="center", size=11)
    results = {(run.model, run.train_langs): run for run in runs}
    for metric_index, metric in enumerate(metrics):
        for model_index, model in enumerate(models):
            x, y = model_index * panel[0] + left, height - TITLE - (metric_index + 1) * panel[1] + bottom
            axes = figure.add_axes((x / width, y / height, inner[0] / width, inner[1] / height))
            values = np.full((len(rows), len(columns)), np.nan)
            for row, train in enumerate(rows):
                evaluations = results[model, train].evaluations if (model, train) in results else {}
                for column, lang in enumerate(columns):
                    if lang in evaluations:
                        values[row, column] = evaluations[lang][metric]
            draw_matrix(axes, values, rows, columns)
            axes.tick_params(axis="x", labelrotation=rotation)
            axes.set_title(f"{model}: {metric_title(metric)}")
    return figure


def draw_matrix(axes: "Axes", values: np.ndarray, rows: list[str], columns: list[str]) -> None:
    """Draw one matrix; a frame marks the cells whose language the model was trained on."""
    from matplotlib.patches import Rectangle

    texts = np.array([["" if np.isnan(value) else f"{value:.2f}" for value in line] for line in values])
    heat_map(axes, values, texts)
    for row, train in enumerate(rows):
        for column, lang in enumerate(columns):
            if lang in train.split("-") and not np.isnan(values[row, column]):
                frame = Rectangle((column - 0.46, row - 0.45), 0.92, 0.9, fill=False, edgecolor="black", linewidth=1)
                axes.add_patch(frame)
    axes.set_xticklabels(columns)
    axes.set_yticklabels(rows)
    axes.set_xlabel("evaluated on")
    axes.set_ylabel("trained on")


def metric_title(metric: str) -> str:
    """Return a metric's name as a figure shows it: micro F1 for micro_f1."""
    return metric.replace("_f1", " F1").replace("_", " ")
