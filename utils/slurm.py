"""All that is known here of Slurm: the job that a process belongs to, templates of jobs, arrays, the queue."""

import getpass
import os
import re
import string
import subprocess
from collections.abc import Iterable
from pathlib import Path

from utils.errors import RunFailure, UserError, nearest


def job_id() -> str | None:
    """Return the job's id as Slurm's commands take it, ``12_3`` for a task of an array; None outside Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restart_count() -> int:
    """Return how often Slurm has started this job again; 0 outside Slurm."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def was_cancelled() -> bool:
    """Say whether the job is ending because somebody cancelled it.

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


def parse_timeout(text: str) -> int:
    """Return a time limit as Slurm writes it (60, 60:00, 2:00:00, 1-12, 1-12:00, 1-12:00:00) in seconds.

    Raises:
        UserError: if it is none.
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


def fill_template(path: Path, fields: dict[str, str], required: Iterable[str] = ()) -> str:
    """Fill the ``{fields}`` of a template, as `str.format` does; ``{{`` and ``}}`` stand for literal braces.

    Args:
        path: of the template.
        fields: what to fill in, as it shall stand in the script.
        required: fields that the template must have.

    Raises:
        UserError: if a field is missing or unknown, or a brace stands alone, naming template, line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"template {path}: cannot read it ({error})") from None
    found, filled = set(), []
    for number, line in enumerate(text.split("\n"), 1):
        where = f"template {path}, line {number}"
        try:
            parts = list(string.Formatter().parse(line))
        except ValueError as error:
            raise UserError(f"{where}: {error}; literal braces are written twice, as in ${{{{HOME}}}}") from None
        for _, field, specification, conversion in parts:
            if field is None:
                continue
            if field not in fields or specification or conversion:
                raise UserError(
                    f"{where}: unknown field {{{field}}}{nearest(field, fields)}; give it with "
                    f"--template_fields.{field or 'NAME'}, or write literal braces twice, as in ${{{{HOME}}}}"
                )
            found.add(field)
        filled.append("".join(literal + fields.get(field or "", "") for literal, field, _, _ in parts))
    for field in required:
        if field not in found:
            raise UserError(f"template {path}: the field {{{field}}} is missing")
    return "\n".join(filled)


def array_limit() -> int:
    """Return how many tasks an array may have; MaxArraySize is one more than the highest index.

    Raises:
        UserError: if Slurm's commands are not there or do not answer.
    """
    try:
        answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError:
        raise UserError("sbatch is not on this machine; submit from a login node, or see --dry_run") from None
    except subprocess.SubprocessError as error:
        raise UserError(f"scontrol does not answer ({_reason(error)}); try again when Slurm does") from None
    size = re.search(r"MaxArraySize\s*=\s*(\d+)", answer.stdout)
    tasks = re.search(r"max_array_tasks=(\d+)", answer.stdout)
    return min(int(match[1]) for match in (size, tasks) if match) if size or tasks else 1001


def array_command(
    script: Path, arguments: list[str], count: int, *, max_jobs: int | None, wait: list[str]
) -> list[str]:
    """Return the command that submits an array of `count` tasks.

    Args:
        script: of every task.
        arguments: of the script.
        count: number of tasks.
        max_jobs: how many may run at once.
        wait: conditions on other jobs, as ``afterok:12``.
    """
    command = ["sbatch", "--parsable", f"--array=0-{count - 1}{f'%{max_jobs}' if max_jobs else ''}"]
    if wait:
        command += [f"--dependency={','.join(wait)}", "--kill-on-invalid-dep=yes"]
    return [*command, str(script), *arguments]


def submit(command: list[str]) -> str:
    """Run a command of `array_command`; returns the job's id.

    Raises:
        RunFailure: if sbatch refuses, with what it says.
    """
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except OSError as error:
        raise RunFailure(f"cannot run sbatch ({error})") from None
    if answer.returncode:
        raise RunFailure(answer.stderr.strip().replace("\n", "; ") or f"sbatch ended with status {answer.returncode}")
    return answer.stdout.strip().partition(";")[0]


def queued_tasks() -> set[str]:
    """Return this user's tasks in the queue, as JOB_INDEX.

    Raises:
        UserError: if the queue cannot be read.
    """
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format=%F_%K"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        # Without an answer, what is queued would be submitted again.
        raise UserError(f"squeue does not answer ({_reason(error)}); try again when Slurm does") from None
    return set(answer.stdout.split())


def _reason(error: Exception) -> str:
    """Return what a command said before it failed, on one line."""
    return " ".join((getattr(error, "stderr", None) or str(error)).split())
