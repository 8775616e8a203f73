"""Tables and figures of a pipeline: the epochs of every subtask, and all subtasks beside each other."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.baseline import BASELINE
from utils.figures import LINE_COLOURS, new_figure, save_figure
from utils.layout import read_json, write_text
from utils.pipeline import LANGUAGE, Subtask
from utils.results import write_table
from utils.resume import HISTORY_FILE, last_resume_point

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPOCH_COLUMNS = ("epoch", "loss", "learning_rate", "seconds")
VALIDATION_COLUMNS = ("loss", "accuracy", "macro_f1")
MARKERS = "os^Dv<>P"


def epochs_of(subtask: Subtask) -> list[dict[str, Any]]:
    """Return the epochs of a subtask: of its training, or as far as it has come those of its newest resume point."""
    layout = subtask.layout
    report = read_json(layout.train_json)
    if report is not None:
        return report["epochs"]
    point = last_resume_point(layout.checkpoints)
    return json.loads((point / HISTORY_FILE).read_text(encoding="utf-8"))["epochs"] if point else []


def parse_logs(subtask: Subtask) -> list[Path]:
    """Write loss and accuracy of every epoch as a table and as curves; returns the files, none without epochs."""
    epochs = epochs_of(subtask)
    if not epochs:
        return []
    rows = [
        {name: epoch[name] for name in EPOCH_COLUMNS}
        | {f"validation_{name}": epoch["validation"].get(name) for name in VALIDATION_COLUMNS}
        for epoch in epochs
    ]
    write_table(subtask.log, rows)
    return [subtask.log, *save_figure(curves(subtask.name, rows), subtask.log, ["png", "pdf"])]


def curves(name: str, rows: list[dict[str, Any]]) -> "Figure":
    """Return loss and accuracy by epoch, side by side."""
    figure = new_figure(7, 2.8)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    lines = (
        (left, "loss", "training loss", LINE_COLOURS[4]),
        (left, "validation_loss", "validation loss", LINE_COLOURS[5]),
        (right, "validation_accuracy", "validation accuracy", LINE_COLOURS[5]),
        (right, "validation_macro_f1", "validation macro F1", LINE_COLOURS[3]),
    )
    for axes, column, label, colour in lines:
        points = [(row["epoch"], row[column]) for row in rows if row[column] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label, markersize=4)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.set_xticks(epochs if len(epochs) < 12 else epochs[:: len(epochs) // 8])
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(name, size=10)
    figure.tight_layout()
    return figure


def results_row(subtask: Subtask) -> dict[str, Any] | None:
    """Return a subtask's line of the results table; None if it has not been evaluated."""
    layout = subtask.layout
    report, test = read_json(layout.train_json), read_json(layout.eval_json(LANGUAGE))
    if report is None or test is None:
        return None
    best = next(epoch for epoch in report["epochs"] if epoch["epoch"] == report["best_epoch"])
    trained = [epoch["seconds"] for epoch in report["epochs"] if epoch["epoch"] > 0]
    intervals = test["confidence_intervals"]
    return {
        "name": subtask.name,
        "task": subtask.task,
        "model": subtask.settings["model_name"],
        "epochs": len(trained),
        "seconds_per_epoch": sum(trained) / len(trained) if trained else None,
        "trainable_parameters": report["num_trainable_parameters"] if trained else 0,
        "parameters": report["num_parameters"],
        "peak_memory_bytes": report["peak_memory_bytes"],
        "train_accuracy": report.get("train", {}).get("accuracy"),
        "validation_accuracy": best["validation"]["accuracy"],
        "test_accuracy": test["accuracy"],
        "test_accuracy_low": intervals["accuracy"][0],
        "test_accuracy_high": intervals["accuracy"][1],
        "test_macro_f1": test["macro_f1"],
        "test_macro_f1_low": intervals["macro_f1"][0],
        "test_macro_f1_high": intervals["macro_f1"][1],
    }


def write_results(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write the results table as CSV and Markdown, and accuracy against trainable parameters; returns the files."""
    write_table(folder / "results.csv", rows)
    write_text(folder / "results.md", markdown(rows))
    figures = save_figure(accuracy_figure(rows), folder / "results", ["png", "pdf"])
    return [folder / "results.csv", folder / "results.md", *figures]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the results table for people to read."""
    header = ["", "model", "s/epoch", "trainable", "of all", "memory", "train", "validation", "test", "test macro F1"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        share = row["trainable_parameters"] / row["parameters"]
        memory, seconds = row["peak_memory_bytes"], row["seconds_per_epoch"]
        lines.append(
            [
                row["name"],
                row["model"],
                "-" if seconds is None else f"{seconds:.0f}",
                f"{row['trainable_parameters']:,}",
                f"{share:.1%}",
                "-" if memory is None else f"{memory / 1e9:.1f} GB",
                "-" if row["train_accuracy"] is None else f"{row['train_accuracy']:.3f}",
                f"{row['validation_accuracy']:.3f}",
                _with_interval(row, "test_accuracy"),
                _with_interval(row, "test_macro_f1"),
            ]
        )
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _with_interval(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def accuracy_figure(rows: list[dict[str, Any]]) -> "Figure":
    """Return test accuracy with its interval against trainable parameters: colours are tasks, shapes are models."""
    figure = new_figure(6.4, 4.2)
    axes = figure.add_axes((0.12, 0.13, 0.62, 0.77))
    tasks, models = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "model"))
    for row in rows:
        low, value, high = (row[f"test_accuracy{end}"] for end in ("_low", "", "_high"))
        colour = LINE_COLOURS[tasks.index(row["task"]) % len(LINE_COLOURS)]
        marker = MARKERS[models.index(row["model"]) % len(MARKERS)]
        error = [[value - low], [high - value]]
        place = _beside(row, rows)
        axes.errorbar(place, value, yerr=error, fmt=marker, color=colour, capsize=3, markersize=6)
        if row["model"] == BASELINE:
            axes.axhline(value, color=colour, linewidth=0.8, linestyle="--", zorder=0)
    # Models that are not trained at all have a place too.
    axes.set_xscale("symlog", linthresh=1000)
    axes.set_xlabel("trainable parameters")
    axes.set_ylabel("test accuracy, 95 % interval")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [
        axes.plot([], [], "o", color=LINE_COLOURS[i % len(LINE_COLOURS)], label=x)[0] for i, x in enumerate(tasks)
    ]
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
