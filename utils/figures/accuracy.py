"""Accuracy against the number of trainable parameters."""

from typing import TYPE_CHECKING, Any

from utils.figures.style import LINE_COLORS, new_figure
from utils.training.baseline import TFIDF

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^Dv<>P"


def accuracy_figure(rows: list[dict[str, Any]]) -> "Figure":
    """Return test accuracy with its interval against trainable parameters: colors are tasks, shapes are models."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure = new_figure(6.4, 4.2)
    axes = figure.add_axes((0.12, 0.13, 0.62, 0.77))
    tasks, models = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "model"))
    for row in rows:
        low, value, high = (row[f"test_accuracy{end}"] for end in ("_low", "", "_high"))
        color = LINE_COLORS[tasks.index(row["task"]) % len(LINE_COLORS)]
        marker = MARKERS[models.index(row["model"]) % len(MARKERS)]
        error = [[value - low], [high - value]]
        # Hollow, so that one does not hide another of as many parameters.
        axes.errorbar(
            row["trainable_parameters"], value, yerr=error, fmt=marker, color=color, capsize=3, markersize=7,
            markerfacecolor="none", markeredgewidth=1.5, elinewidth=1,
        )  # fmt: skip
        if row["model"] == TFIDF:
            axes.axhline(value, color=color, linewidth=0.8, linestyle="--", zorder=0)
    # Models that are not trained at all have a place too.
    axes.set_xscale("symlog", linthresh=1000)
    axes.set_xlabel("trainable parameters")
    axes.set_ylabel("test accuracy, 95 % interval")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    colors = [Patch(color=LINE_COLORS[i % len(LINE_COLORS)], label=x) for i, x in enumerate(tasks)]
    shapes = [
        Line2D([], [], marker=MARKERS[i % len(MARKERS)], color="0.4", linestyle="", markerfacecolor="none", label=x)
        for i, x in enumerate(models)
    ]
    keys = {"loc": "upper left", "frameon": False, "fontsize": 8, "title_fontsize": 8, "alignment": "left"}
    first = axes.legend(handles=colors, title="color: task", bbox_to_anchor=(1.02, 1), **keys)
    axes.add_artist(first)
    below = 1 - 0.062 * (len(tasks) + 2)
    axes.legend(handles=shapes, title="shape: model", bbox_to_anchor=(1.02, below), **keys)
    axes.set_title("accuracy against trainable parameters")
    return figure
