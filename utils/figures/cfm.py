"""Confusion matrices: one figure per trained model, a panel per evaluation language.

Of texts with one label, the counts of true against predicted labels. Of texts with any number of labels, which share of
the texts that have a label got each label, and how many did not get their own; combinations of registers that ten texts
have are rows of their own.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.evaluation.results import RunResults
from utils.figures.names import NO_NAMES, Names
from utils.figures.style import SCREEN, Key, PanelGrid, Style, heat_map, hide_shared_labels, room_for, set_title

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
    matrices = find_matrices([run.evaluations[lang] for lang in langs])
    rows, columns = matrices[0].rows, matrices[0].columns
    registers = [name for name in run.evaluations[langs[0]]["registers"] if name in {*rows, *columns}]
    num_panels = len(langs) + (not ignore_summary)
    inner = (max(len(columns), 5) * style.cell[0], max(len(rows), 5) * style.cell[1])
    if is_multilabel(run.evaluations) and not style.shares_labels:
        # Its title has two scores.
        inner = (max(inner[0], 50 * style.character), inner[1])
    rotation, below = room_for(columns, inner[0] / len(columns), style)
    # Room for the longest "name (1,234)", or where rows are shared for the name alone.
    beside = max(map(len, rows)) + (0 if style.shares_labels else 6)
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
        key=Key(f"share of the texts with the {word}; grey: there are none"),
    )
    # Where rows share their labels, the first of a row must have some: the training texts come last.
    summary = None if ignore_summary else num_panels - 1 if style.shares_labels else 0
    left_to_draw = iter(zip(langs, matrices, strict=True))
    for index in range(num_panels):
        axes = grid.axes(index)
        if index == summary:
            draw_training_registers(axes, run, registers, style)
        else:
            lang, matrix = next(left_to_draw)
            draw_confusion_matrix(axes, run.evaluations[lang], matrix, style, names.lang(lang))
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
    what = "labels of training texts" if is_multilabel(run.evaluations) else "training texts"
    set_title(axes, f"training {total}" if style.shares_labels else f"{what}: {total}", style)
    axes.spines[["top", "right"]].set_visible(False)
    if style.shares_labels:
        # Its axis is not that of its neighbours; the counts are above the bars.
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        return
    axes.set_xlabel(label_word(run.evaluations))
    axes.set_ylabel("texts")
    axes.legend(frameon=False, fontsize=7, loc="upper center", ncols=2)


@dataclass
class Matrix:
    """What a confusion matrix shows.

    Attributes:
        rows: names of the rows.
        columns: names of the columns.
        shares: of the row's texts, as colors, shape [rows, columns]; NaN where there are none.
        texts: of the cells, same shape.
        totals: texts of each row, shape [rows].
    """

    rows: list[str]
    columns: list[str]
    shares: np.ndarray
    texts: np.ndarray
    totals: np.ndarray


def find_matrices(results: list[dict[str, Any]]) -> list[Matrix]:
    """Return the matrices of evaluations, all with the same rows and columns."""
    if is_multilabel({str(index): result for index, result in enumerate(results)}):
        return _label_sets(results)
    matrices = []
    for result in results:
        counts = np.array(result["confusion_matrix"])
        totals = counts.sum(axis=1)
        # A 0 in every other cell would hide the counts that matter; rows without texts say so in their label.
        texts = np.where(counts > 0, counts.astype(str), "")
        matrices.append(Matrix(result["registers"], result["registers"], _shares(counts, totals), texts, totals))
    return matrices


def _label_sets(results: list[dict[str, Any]]) -> list[Matrix]:
    registers = results[0]["registers"]
    counts = [np.array(result["confusion_matrix"]) for result in results]
    # A text has each of its labels, so the diagonal cannot tell how many texts have one.
    totals = [np.array([result["per_register"][name]["support"] for name in registers]) for result in results]
    have = np.flatnonzero(np.sum(totals, axis=0))
    got = np.flatnonzero(np.sum(totals, axis=0) + np.sum([matrix.sum(0) for matrix in counts], axis=0))
    hybrids = dict.fromkeys("+".join(row["registers"]) for result in results for row in result["hybrids"])
    matrices = []
    for result, matrix, support in zip(results, counts, totals, strict=True):
        own = {"+".join(row["registers"]): row for row in result["hybrids"]}
        none = {"predicted": [0] * len(registers), "texts": 0, "complete": 0}
        rows = [own.get(name, none) for name in hybrids]
        found = np.array([*matrix[have], *(row["predicted"] for row in rows)])[:, got]
        texts = np.array([*support[have], *(row["texts"] for row in rows)])
        complete = np.array([*np.diag(matrix)[have], *(row["complete"] for row in rows)])
        shares = _shares(np.column_stack([found, texts - complete]), texts)
        matrices.append(
            Matrix(
                [*(registers[place] for place in have), *hybrids],
                [*(registers[place] for place in got), "missed"],
                shares,
                np.array([[f"{100 * share:.0f}" if share > 0 else "" for share in row] for row in shares]),
                texts,
            )
        )
    return matrices


def _shares(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    return np.where(totals[:, None] > 0, counts / np.maximum(totals[:, None], 1), np.nan)


def draw_confusion_matrix(
    axes: "Axes", result: dict[str, Any], matrix: Matrix, style: Style = SCREEN, lang: str = ""
) -> None:
    """Draw one confusion matrix: counts as text (or percent, of label sets), shares of the row as color.

    Args:
        axes: where to draw.
        result: content of eval/LANG.json.
        matrix: of it, see `find_matrices`.
        style: of the figure.
        lang: what the language is called; its abbreviation if empty.
    """
    heat_map(axes, matrix.shares, matrix.texts, style.cell_text)
    axes.set_xticklabels(matrix.columns)
    word, lang = label_word({"": result}), lang or result["eval_lang"]
    several = is_multilabel({"": result})
    axes.set_xlabel(f"predicted {word}, % of the row's texts" if several else f"predicted {word}")
    total = result["num_texts"] if several else matrix.totals.sum()
    if style.shares_labels:
        axes.set_yticklabels(matrix.rows)
        set_title(axes, f"{lang}: {total:,}, F1 {result['macro_f1']:.2f}".replace("F1 0.", "F1 ."), style)
        axes.set_ylabel(f"true {word}")
        return
    labels = zip(matrix.rows, matrix.totals, strict=True)
    axes.set_yticklabels([f"{register} ({total})" if total else f"{register} (none)" for register, total in labels])
    scores = f"micro F1 {result['micro_f1']:.2f}, macro F1" if several else "macro F1"
    set_title(axes, f"{lang}: {total:,} texts, {scores} {result['macro_f1']:.2f}", style)
    axes.set_ylabel(f"true {word} (texts)")


def is_multilabel(evaluations: dict[str, dict[str, Any]]) -> bool:
    """Return whether texts have any number of labels."""
    return any(result.get("labels") == "multi" for result in evaluations.values())


def label_word(evaluations: dict[str, dict[str, Any]]) -> str:
    """Return what labels are called: registers, unless the texts are those of another task."""
    return "label" if any(result.get("task") for result in evaluations.values()) else "register"
