"""The table of --status: what has become of each combination, from Slurm's queue and run.json."""

from collections import Counter
from typing import Any

from utils.jobs.combinations import Combination, Planner
from utils.runs.files import read_json

STATES = ("done", "running", "pending", "failed", "never submitted")


def status_table(planner: Planner) -> str:
    """Return the table of all combinations; the planner has read the queue."""
    is_training = planner.kind == "train"
    header = ["combination", "state", "job", "epoch", "best macro F1", *([] if is_training else ["evaluated"]), "log"]
    rows, counts = [header], Counter[str]()
    for combination in planner.combinations:
        record = read_json(combination.layout.run_json) or {}
        results = planner.results(combination)
        state = find_state(planner, combination, record, len(results))
        counts[state] += 1
        log = combination.layout.outputs / f"{planner.kind}.txt"
        job = planner.last_task.get(combination.name) or (record.get("slurm_job_id") if is_training else None)
        rows.append(
            [
                combination.name,
                state,
                job or "-",
                _epoch(record),
                f"{record['best_macro_f1']:.3f}" if record.get("best_macro_f1") is not None else "-",
                *([] if is_training else [f"{len(results)}/{len(planner.eval_langs)}"]),
                str(log) if log.is_file() else "-",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    least = [11, 15, 10, 9, 13, 9]
    lines = [
        "  ".join(
            cell.ljust(max(width, at_least)) for cell, width, at_least in zip(row, widths, [*least, 0], strict=False)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, ", ".join(f"{counts[state]} {state}" for state in STATES)])


def find_state(planner: Planner, combination: Combination, record: dict[str, Any], num_results: int) -> str:
    """Return the state of a combination: from the queue, else from what its run has left.

    Args:
        planner: has read the queue.
        combination: which one.
        record: content of run.json, empty without one.
        num_results: evaluation languages with a result.
    """
    is_training, name = planner.kind == "train", combination.name
    queued = planner.queue.get(planner.queued_task.get(name, ""), "")
    if queued and queued != "COMPLETING":
        return "running" if queued == "RUNNING" else "pending"
    if record.get("status") == "complete" if is_training else num_results == len(planner.eval_langs):
        return "done"
    if is_training and record.get("status") == "running" and not record.get("slurm_job_id"):
        # Not a job of Slurm's: finetune.py on this or another machine.
        return "running"
    if name in planner.last_task or (is_training and record):
        return "failed"
    return "never submitted"


def _epoch(record: dict[str, Any]) -> str:
    if record.get("epoch") is None:
        return "-"
    num_epochs = record.get("num_epochs")
    return f"{record['epoch']:g}/{'?' if num_epochs is None else num_epochs}"
