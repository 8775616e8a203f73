"""Confusion matrices: one figure per trained model, a panel per evaluation language."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.evaluation.results import RunResults
from utils.figures.names import NO_NAMES, Names
from utils.figures.style import SCREEN, PanelGrid, Style, heat_map, hide_shared_labels, room_for, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
LEFT, RIGHT, TOP = 1.05, 0.25, 0.45


def confusion_figure(
    run: RunResults, langs: list[str], ignore_summary: bool, style: Style = SCREEN, names: Names = NO_NAMES
) -> "Figure":
    """Return the figure of one run: the training registers (unless ignored), then a panel per language.

    Args:
        run: the results of one model.
        langs: evaluation languages of the panels, in order.
        ignore_summary: leave out the training registers.
        style: of the figure.
        names: what languages and registers are called.
    """
    registers = run.evaluations[langs[0]]["registers"]
    num_panels = len(langs) + (not ignore_summary)
    size = max(len(registers), 5)
    inner = (size * style.cell[0], size * style.cell[1])
    rotation, below = room_for(registers, inner[0] / len(registers), style)
    # Room for the longest "name (1,234)", or where rows are shared for the name alone.
    beside = max(map(len, registers)) + (0 if style.shares_labels else 6)
    left = max(0.0 if style.shares_labels else LEFT, 2.6 * style.line + style.character * beside)
    margins = (
        left,
        RIGHT if not style.shares_labels else 0.05,
        TOP / 9 * style.font * (0.7 if style.shares_labels else 1),
        3 * style.line + below,
    )
    word = label_word(run.evaluations)
    grid = PanelGrid(
        num_panels,
        style,
        inner,
        margins,
        math.ceil(math.sqrt(num_panels)),
        title="" if style.shares_labels else f"{run.model} trained on {names.langs(run.train_langs)}",
        legend=names.legend(registers) if word == "register" else "",
    )
    # Where rows share their labels, the first of a row must have some: the training texts come last.
    summary = None if ignore_summary else num_panels - 1 if style.shares_labels else 0
    left_to_draw = iter(langs)
    for index in range(num_panels):
        axes = grid.axes(index)
        if index == summary:
            draw_training_registers(axes, run, registers, style)
        else:
            result = run.evaluations[next(left_to_draw)]
            draw_confusion_matrix(axes, result, style, names.lang(result["eval_lang"]))
            hide_shared_labels(axes, *grid.is_labelled(index))
        axes.tick_params(axis="x", labelrotation=rotation)
    return grid.figure


def draw_training_registers(axes: "Axes", run: RunResults, registers: list[str], style: Style = SCREEN) -> None:
    """Draw how many texts of each register the model was trained on and validated with."""
    if not run.train_registers:
        axes.text(0.5, 0.5, "run.json is missing", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    train = np.array([run.train_registers.get(register, 0) for register in registers])
    validation = np.array([run.validation_registers.get(register, 0) for register in registers])
    positions = np.arange(len(registers))
    axes.bar(positions, train, color="#54278f", label="training")
    axes.bar(positions, validation, bottom=train, color="#bcbddc", label="validation")
    for position, count in zip(positions, train + validation, strict=True):
        turned = 90 if style.shares_labels else 0
        axes.annotate(
            str(count), (position, count), (0, 2), textcoords="offset points", ha="center", va="bottom",
            size=0.78 * style.font, rotation=turned,
        )  # fmt: skip
    axes.set_xticks(positions, registers)
    axes.margins(y=0.6 if style.shares_labels else 0.35)
    total = f"{train.sum():,} + {validation.sum():,}"
    set_title(axes, f"training {total}" if style.shares_labels else f"training texts: {total}", style)
    axes.spines[["top", "right"]].set_visible(False)
    if style.shares_labels:
        # Its axis is not that of its neighbours; the counts are above the bars.
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        return
    axes.set_xlabel(label_word(run.evaluations))
    axes.set_ylabel("texts")
    axes.legend(frameon=False, fontsize=7, loc="upper center", ncols=2)


def draw_confusion_matrix(axes: "Axes", result: dict[str, Any], style: Style = SCREEN, lang: str = "") -> None:
    """Draw one confusion matrix: counts as text, shares of the true register as color.

    Args:
        axes: where to draw.
        result: content of eval/LANG.json.
        style: of the figure.
        lang: what the language is called; its abbreviation if empty.
    """
    registers = result["registers"]
    counts = np.array(result["confusion_matrix"])
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    # A 0 in every other cell would hide the counts that matter; rows without texts say so in their label.
    texts = np.where(counts > 0, counts.astype(str), "")
    heat_map(axes, shares, texts, style.cell_text)
    axes.set_xticklabels(registers)
    word, lang = label_word({"": result}), lang or result["eval_lang"]
    axes.set_xlabel(f"predicted {word}")
    if style.shares_labels:
        axes.set_yticklabels(registers)
        set_title(axes, f"{lang}: {totals.sum():,}, F1 {result['macro_f1']:.2f}".replace("F1 0.", "F1 ."), style)
        axes.set_ylabel(f"true {word}")
        return
    labels = zip(registers, totals[:, 0], strict=True)
    axes.set_yticklabels([f"{register} ({total})" if total else f"{register} (none)" for register, total in labels])
    set_title(axes, f"{lang}: {totals.sum():,} texts, macro F1 {result['macro_f1']:.2f}", style)
    axes.set_ylabel(f"true {word} (texts)")


def label_word(evaluations: dict[str, dict[str, Any]]) -> str:
    """Return what labels are called: registers, unless the texts are those of another task."""
    return "label" if any(result.get("task") for result in evaluations.values()) else "register"
