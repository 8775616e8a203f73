"""The Slurm job that this process belongs to."""

import os
import subprocess


def job_id() -> str | None:
    """Return the job's id as Slurm's commands take it, ``12_3`` for a task of an array; None outside Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restart_count() -> int:
    """Return how often Slurm has started this job again; 0 outside Slurm."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def was_cancelled() -> bool:
    """Return whether the job is ending because somebody cancelled it.

    Not for its time limit, which has a reason of its own, nor to be started again, which is counted at
    once. False when Slurm cannot be asked.
    """
    job = job_id()
    if job is None:
        return False
    try:
        answer = subprocess.run(
            ["scontrol", "show", "job", "--oneliner", job], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    entries = dict(word.split("=", 1) for word in answer.split() if "=" in word)
    return (
        entries.get("JobState") in ("COMPLETING", "CANCELLED")
        and entries.get("Reason") != "TimeLimit"
        and entries.get("Restarts") == str(restart_count())
    )
