"""The table of --status: what has become of each job, from Slurm's queue and what the runs have left on disk."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATES = ("done", "running", "pending", "failed", "never submitted")
# Least widths of the columns.
WIDTHS = (11, 15, 10, 9, 13, 9)


@dataclass
class JobStatus:
    """What is known of one job.

    Attributes:
        name: of the combination or experiment.
        finished: whether all that it does is done.
        queued: its task's state in the queue, empty if it is not there.
        task: the last task that was submitted for it.
        record: content of run.json, empty without one.
        log: its log, which need not exist.
        trains: whether the run's record is about this job, as it is not about an evaluation.
        evaluated: evaluation languages with a result, as in 2/3.
    """

    name: str
    finished: bool
    queued: str
    task: str | None
    record: dict[str, Any]
    log: Path
    trains: bool = True
    evaluated: str | None = field(default=None)

    @property
    def state(self) -> str:
        """One of `STATES`: from the queue, else from what the run has left."""
        if self.queued and self.queued != "COMPLETING":
            return "running" if self.queued == "RUNNING" else "pending"
        if self.finished:
            return "done"
        if self.trains and self.record.get("status") == "running" and not self.record.get("slurm_job_id"):
            # Not a job of Slurm's: finetune.py on this or another machine.
            return "running"
        return "failed" if self.task or (self.trains and self.record) else "never submitted"

    @property
    def row(self) -> list[str]:
        """The cells of its line of the table."""
        job = self.task or (self.record.get("slurm_job_id") if self.trains else None)
        best = self.record.get("best_macro_f1")
        return [
            self.name,
            self.state,
            job or "-",
            self._epoch(),
            "-" if best is None else f"{best:.3f}",
            *([] if self.evaluated is None else [self.evaluated]),
            str(self.log) if self.log.is_file() else "-",
        ]

    def _epoch(self) -> str:
        if self.record.get("epoch") is None:
            return "-"
        num_epochs = self.record.get("num_epochs")
        return f"{self.record['epoch']:g}/{'?' if num_epochs is None else num_epochs}"


def status_table(jobs: Sequence[JobStatus]) -> str:
    """Return the table of all jobs, and below it how many are in which state."""
    evaluated = ["evaluated"] if any(job.evaluated is not None for job in jobs) else []
    rows = [["combination", "state", "job", "epoch", "best macro F1", *evaluated, "log"], *(job.row for job in jobs)]
    least = (*WIDTHS[: len(rows[0]) - 1], 0)
    widths = [max(least[column], *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    counts = Counter(job.state for job in jobs)
    return "\n".join([*lines, ", ".join(f"{counts[state]} {state}" for state in STATES)])
