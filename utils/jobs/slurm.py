"""All that is known here of Slurm's commands: sbatch, squeue, scontrol, and how Slurm writes time limits."""

import getpass
import re
import shutil
import subprocess

from utils.errors import RunFailure, UserError

# Tasks of an array where Slurm cannot be asked; MaxArraySize is 1001 by default.
DEFAULT_ARRAY_LIMIT = 1001


def parse_timeout(text: str) -> int:
    """Return a time limit as Slurm writes it (60, 60:00, 2:00:00, 1-12, 1-12:00, 1-12:00:00) in seconds.

    Raises:
        UserError: if it is not a time limit.
    """
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    # Without days one number is minutes; after days, hours come first.
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    numbers = [*([days] if dash else []), *parts]
    if len(parts) > len(units) or not all(re.fullmatch(r"[0-9]+", number) for number in numbers):
        raise UserError(f"--timeout {text}: expected a time limit of Slurm, for instance 12:00:00 or 2-00:00:00")
    seconds = int(days or 0) * 86400 + sum(int(part) * unit for part, unit in zip(parts, units, strict=False))
    if not seconds:
        raise UserError(f"--timeout {text}: the time limit must be above 0")
    return seconds


def parse_after(text: str | None) -> list[str]:
    """Return the job ids of --after.

    Raises:
        UserError: if they are none.
    """
    jobs = re.split(r"[:, ]+", text) if text else []
    if not all(re.fullmatch(r"[0-9]+", job) for job in jobs):
        raise UserError(f"--after takes the job ids that sbatch printed, as 12 or 12:13, got {text!r}")
    return jobs


def require_sbatch() -> None:
    """Raise a `UserError` if Slurm's commands are not on this machine."""
    if not shutil.which("sbatch"):
        raise UserError("sbatch not found: run this on a login node of a Slurm cluster, or see --dry_run")


def array_limit() -> int:
    """Return how many tasks an array may have, which is one more than the highest index.

    Raises:
        UserError: if Slurm's commands are not there or do not answer.
    """
    require_sbatch()
    config = _ask("scontrol", "show", "config")
    size = re.search(r"MaxArraySize\s*=\s*(\d+)", config)
    tasks = re.search(r"max_array_tasks=(\d+)", config)
    return min((int(match[1]) for match in (size, tasks) if match), default=DEFAULT_ARRAY_LIMIT)


def submit(command: list[str]) -> str:
    """Run an sbatch command (with ``--parsable``); returns the job's id.

    Raises:
        RunFailure: if sbatch refuses, with what it says.
    """
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        raise RunFailure(f"cannot run sbatch ({error})") from None
    if answer.returncode:
        raise RunFailure(answer.stderr.strip().replace("\n", "; ") or f"sbatch ended with status {answer.returncode}")
    return answer.stdout.strip().partition(";")[0]


def queue() -> dict[str, str]:
    """Return the state of each of this user's tasks in the queue, by JOB_INDEX; empty without Slurm.

    Raises:
        UserError: if the queue cannot be read: what is queued would be submitted again.
    """
    if not shutil.which("squeue"):
        return {}
    answer = _ask("squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format=%F_%K %T")
    return dict(line.split() for line in answer.splitlines())


def _ask(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        # Slurm's commands may say a lot before their last word.
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise UserError(f"{command[0]} does not answer ({reason}); try again when Slurm does") from None
