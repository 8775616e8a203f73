"""Reliability diagrams: whether a classifier's probabilities are how often it is right."""

import math
from typing import TYPE_CHECKING, Any

from utils.evaluation.results import RunResults
from utils.figures.names import NO_NAMES, Names
from utils.figures.style import LINE_COLORS, SCREEN, PanelGrid, Style, hide_shared_labels, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Bins with fewer texts are grey.
FEW_TEXTS, FEW_TEXTS_COLOR = 5, "0.65"


def reliability_figure(
    run: RunResults, found: dict[str, dict[str, Any]], style: Style = SCREEN, names: Names = NO_NAMES
) -> "Figure":
    """Return a reliability diagram per language: accuracy by confidence, and how many texts have which confidence."""
    import seaborn

    size = 24 * style.character
    what = "probability" if any("labels" in result for result in found.values()) else "confidence"
    margins = (0.25 + 3 * style.line, 0.1 if style.shares_labels else 0.3, 0.35 / 9 * style.font, 3.2 * style.line)
    grid = PanelGrid(
        len(found),
        style,
        (size, size * 0.8),
        margins,
        math.ceil(math.sqrt(len(found))),
        legend=f"ECE: expected calibration error; grey: under {FEW_TEXTS} texts; bars: how many have which {what}",
        title="" if style.shares_labels else f"{run.model} trained on {names.langs(run.train_langs)}",
    )
    for index, (lang, result) in enumerate(found.items()):
        axes = grid.axes(index)
        bins = result["bins"]
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        widths, lows = [row["high"] - row["low"] for row in bins], [row["low"] for row in bins]
        most = max(row["count"] for row in bins)
        # How many texts, in the lower fifth.
        seaborn.histplot(
            x=lows, weights=[0.2 * row["count"] / most for row in bins],
            bins=[*lows, lows[-1] + widths[-1]], color="#dadaeb", edgecolor="white", linewidth=0.4, alpha=1, ax=axes,
        )  # fmt: skip
        points = ([row["confidence"] for row in bins], [row["accuracy"] for row in bins])
        axes.plot(*points, "-", color=LINE_COLORS[5], linewidth=style.font / 9)
        # So few texts say little.
        colors = [FEW_TEXTS_COLOR if row["count"] < FEW_TEXTS else LINE_COLORS[5] for row in bins]
        axes.scatter(*points, c=colors, s=(style.font / 3) ** 2, zorder=3)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.spines[["top", "right"]].set_visible(False)
        unit = "labels" if "labels" in result else "texts"
        axes.set_xlabel(f"{what}; a bar: up to {most:,} {unit}", size=0.9 * style.font)
        axes.set_ylabel("texts that have it" if "labels" in result else "accuracy")
        set_title(axes, f"{names.lang(lang)}: ECE {result['expected_calibration_error']:.3f}", style)
        note = f"{result['error_if_calibrated']:.3f} if calibrated"
        axes.text(0.03, 0.93, note, transform=axes.transAxes, va="center", size=0.85 * style.font, color="0.35")
        hide_shared_labels(axes, *grid.is_labelled(index))
    return grid.figure
