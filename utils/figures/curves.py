"""Curves of training and validation losses."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.figures.style import LINE_COLORS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLIT_COLORS = {"train": LINE_COLORS[4], "validation": LINE_COLORS[5]}


def plot_loss_curves(path: Path, batches: list[dict[str, Any]], epochs: list[dict[str, Any]]) -> Path:
    """Draw the losses of all batches and epochs: the overall one, and each loss class where there are several.

    Args:
        path: of the figure, a PDF.
        batches: split, epoch, batch and the losses by name, of every batch.
        epochs: epoch and the mean losses of its splits, see `lm_training.LmHistory`.
    """
    names = ["loss", *sorted({name for row in batches for name in row if name.endswith("Loss")})]
    if len(names) == 2:
        # A single loss is the overall one.
        names = names[:1]
    figure = new_figure(8.5, 0.6 + 2.6 * len(names))
    for axes, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        for split, color in SPLIT_COLORS.items():
            _draw_split(axes, name, split, color, batches, epochs)
        axes.set_title("all losses" if name == "loss" and len(names) > 1 else name)
        axes.set_ylabel("loss")
        axes.set_xlim(0, max([1, *(row["epoch"] for row in epochs)]) * 1.02)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.set_xlabel("epoch")
    figure.tight_layout()
    return save_figure(figure, path, ["pdf"])[0]


def _draw_split(
    axes: "Axes", name: str, split: str, color: str, batches: list[dict[str, Any]], epochs: list[dict[str, Any]]
) -> None:
    own = [row for row in batches if row["split"] == split and name in row]
    per_epoch: dict[int, int] = {}
    for row in own:
        per_epoch[row["epoch"]] = max(row["batch"], per_epoch.get(row["epoch"], 0))
    # Training goes on during an epoch, validation happens at its end.
    places = [
        row["epoch"] - 1 + row["batch"] / per_epoch[row["epoch"]] if split == "train" else row["epoch"] for row in own
    ]
    axes.plot(places, [row[name] for row in own], "o", color=color, alpha=0.3, markersize=2.5, markeredgewidth=0)
    means = [(row["epoch"], row["losses"][split][name]) for row in epochs if name in row["losses"][split]]
    if means:
        axes.plot(*zip(*means, strict=True), color=color, marker="o", markersize=3, label=f"{split}, mean of the epoch")
    if split == "validation" and name == "loss" and epochs:
        best = min(epochs, key=lambda row: row["validation_loss"])
        axes.axvline(
            best["epoch"], color="#777777", linewidth=0.8, linestyle="--", label=f"best epoch: {best['epoch']}"
        )


def curves(name: str, rows: list[dict[str, Any]]) -> "Figure":
    """Return loss and accuracy by epoch, side by side."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(7, 2.8)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    lines = (
        (left, "loss", "training loss", LINE_COLORS[4]),
        (left, "validation_loss", "validation loss", LINE_COLORS[5]),
        (right, "validation_accuracy", "validation accuracy", LINE_COLORS[5]),
        (right, "validation_macro_f1", "validation macro F1", LINE_COLORS[3]),
    )
    for axes, column, label, color in lines:
        points = [(row["epoch"], row[column]) for row in rows if row[column] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=label, markersize=4)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(name, size=10)
    figure.tight_layout()
    return figure
