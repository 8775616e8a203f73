"""Tables and figures of a pipeline: the epochs of every subtask, and all subtasks beside each other."""

from pathlib import Path
from typing import Any

from utils.data.delimited import inert, write_table
from utils.figures.accuracy import accuracy_figure
from utils.figures.curves import curves
from utils.figures.style import save_figure
from utils.pipeline.config import LANGUAGE, Subtask
from utils.runs.files import write_text
from utils.runs.resume_points import read_history
from utils.runs.shapes import read_evaluation, read_report

EPOCH_COLUMNS = ("epoch", "loss", "learning_rate", "seconds")
VALIDATION_COLUMNS = ("loss", "accuracy", "macro_f1")


def epochs_of(subtask: Subtask) -> list[dict[str, Any]]:
    """Return the epochs of a subtask: of its training, or as far as it has come those of its newest resume point."""
    layout = subtask.layout
    report = read_report(layout.train_json)
    if report is not None:
        return report["epochs"]
    point = layout.points().last()
    return read_history(point)["epochs"] if point else []


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


def results_row(subtask: Subtask) -> dict[str, Any] | None:
    """Return a subtask's line of the results table; None if it has not been evaluated."""
    layout = subtask.layout
    report, test = read_report(layout.train_json), read_evaluation(layout.eval_json(LANGUAGE))
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
    named = [row | {column: inert(row[column]) for column in ("name", "task")} for row in rows]
    write_table(folder / "results.csv", named)
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
