"""Confusion matrices: one figure per trained model, a panel per evaluation language."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.figures import CHARACTER_WIDTH, heat_map, new_figure, room_for
from utils.results import RunResults, choose, order_langs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches; a cell holds a four-digit count in 8 points.
CELL_WIDTH, CELL_HEIGHT = 0.40, 0.27
LEFT, RIGHT, TOP, BOTTOM, TITLE = 1.05, 0.25, 0.55, 0.60, 0.65


def select_matrices(
    runs: list[RunResults],
    models: list[str] | None = None,
    train_langs: list[str] | None = None,
    eval_langs: list[str] | None = None,
) -> list[tuple[RunResults, list[str]]]:
    """Return the runs that the filters leave, each with the languages of its panels in order.

    Args:
        runs: what there is.
        models: only these; None is all.
        train_langs: only these training languages (``en-fr`` is one); None is all.
        eval_langs: only panels of these; None is all.

    Raises:
        UserError: if a filter names what no result has.
    """
    models = choose(sorted({run.model for run in runs}), models, "--cfm_models")
    train_langs = choose(sorted({run.train_langs for run in runs}), train_langs, "--cfm_train_langs")
    eval_langs = choose(sorted({lang for run in runs for lang in run.evaluations}), eval_langs, "--cfm_eval_langs")
    selected = []
    for run in runs:
        langs = [lang for lang in order_langs(run, list(run.evaluations)) if lang in eval_langs]
        if run.model in models and run.train_langs in train_langs and langs:
            selected.append((run, langs))
    return selected


def confusion_figure(run: RunResults, langs: list[str], ignore_summary: bool) -> Any:
    """Return the figure of one run: the training registers (unless ignored), then a panel per language."""
    registers = run.evaluations[langs[0]]["registers"]
    num_panels = len(langs) + (not ignore_summary)
    columns = math.ceil(math.sqrt(num_panels))
    rows = math.ceil(num_panels / columns)
    size = max(len(registers), 5)
    inner = (size * CELL_WIDTH, size * CELL_HEIGHT)
    # Room for the longest "name (1,234)".
    left_margin = max(LEFT, 0.4 + CHARACTER_WIDTH * (max(map(len, registers)) + 6))
    rotation, below = room_for(registers, inner[0] / len(registers))
    panel = (left_margin + inner[0] + RIGHT, TOP + inner[1] + BOTTOM + below)
    width, height = columns * panel[0], rows * panel[1] + TITLE
    figure = new_figure(width, height)
    title = f"{run.model} trained on {run.train_langs}"
    figure.text(0.5, 1 - 0.28 / height, title, ha="center", va="center", size=min(14, 100 * width / len(title)))
    for index in range(num_panels):
        row, column = divmod(index, columns)
        left = column * panel[0] + left_margin
        bottom = height - TITLE - (row + 1) * panel[1] + BOTTOM + below
        axes = figure.add_axes((left / width, bottom / height, inner[0] / width, inner[1] / height))
        if index == 0 and not ignore_summary:
            draw_training_registers(axes, run, registers)
        else:
            draw_confusion_matrix(axes, run.evaluations[langs[index - (not ignore_summary)]])
        axes.tick_params(axis="x", labelrotation=rotation)
    return figure


def draw_training_registers(axes: "Axes", run: RunResults, registers: list[str]) -> None:
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
        axes.annotate(str(count), (position, count), (0, 2), textcoords="offset points", ha="center", size=7)
    axes.set_xticks(positions, registers)
    axes.margins(y=0.35)
    axes.set_title(f"training texts: {train.sum():,} + {validation.sum():,}")
    axes.set_xlabel(label_word(run.evaluations))
    axes.set_ylabel("texts")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper center", ncols=2)


def draw_confusion_matrix(axes: "Axes", result: dict[str, Any]) -> None:
    """Draw one confusion matrix: counts as text, shares of the true register as colour."""
    registers = result["registers"]
    counts = np.array(result["confusion_matrix"])
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    # A 0 in every other cell would hide the counts that matter; rows without texts say so in their label.
    texts = np.where(counts > 0, counts.astype(str), "")
    heat_map(axes, shares, texts)
    axes.set_xticklabels(registers)
    axes.set_yticklabels(
        [
            f"{register} ({total})" if total else f"{register} (none)"
            for register, total in zip(registers, totals[:, 0], strict=True)
        ]
    )
    axes.set_title(f"{result['eval_lang']}: {totals.sum():,} texts, macro F1 {result['macro_f1']:.2f}")
    word = label_word({"": result})
    axes.set_xlabel(f"predicted {word}")
    axes.set_ylabel(f"true {word} (texts)")


def label_word(evaluations: dict[str, dict[str, Any]]) -> str:
    """Return what labels are called: registers, unless the texts are those of another task."""
    return "label" if any(result.get("task") for result in evaluations.values()) else "register"
