"""Accuracy against the number of trainable parameters."""

from typing import TYPE_CHECKING, Any

from utils.figures.style import LINE_COLORS, new_figure
from utils.training.baseline import TFIDF

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^Dv<>P"


def accuracy_figure(rows: list[dict[str, Any]]) -> "Figure":
    """Return test accuracy with its interval against trainable parameters: colors are tasks, shapes are models."""
    figure = new_figure(6.4, 4.2)
    axes = figure.add_axes((0.12, 0.13, 0.62, 0.77))
    tasks, models = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "model"))
    for row in rows:
        low, value, high = (row[f"test_accuracy{end}"] for end in ("_low", "", "_high"))
        color = LINE_COLORS[tasks.index(row["task"]) % len(LINE_COLORS)]
        marker = MARKERS[models.index(row["model"]) % len(MARKERS)]
        error = [[value - low], [high - value]]
        place = _beside(row, rows)
        axes.errorbar(place, value, yerr=error, fmt=marker, color=color, capsize=3, markersize=6)
        if row["model"] == TFIDF:
            axes.axhline(value, color=color, linewidth=0.8, linestyle="--", zorder=0)
    # Models that are not trained at all have a place too.
    axes.set_xscale("symlog", linthresh=1000)
    axes.set_xlabel("trainable parameters")
    axes.set_ylabel("test accuracy, 95 % interval")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [axes.plot([], [], "o", color=LINE_COLORS[i % len(LINE_COLORS)], label=x)[0] for i, x in enumerate(tasks)]
    handles += [axes.plot([], [], MARKERS[i % len(MARKERS)], color="0.5", label=x)[0] for i, x in enumerate(models)]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    axes.set_title("accuracy against trainable parameters")
    return figure


def _beside(row: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    """Return a row's place on the axis, a little beside those of the same number of parameters."""
    place = row["trainable_parameters"]
    same = [other["name"] for other in rows if other["trainable_parameters"] == place]
    offset = same.index(row["name"]) - (len(same) - 1) / 2
    # Below 1,000 the axis is linear.
    return place * 1.12**offset if place else 80 * (offset + (len(same) - 1) / 2)
