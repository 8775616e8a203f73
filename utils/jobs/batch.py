"""Many jobs of one command: a script for each, filled into a template, and one job array for all."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from utils import PROJECT
from utils.cli.options import OTHER, PLACES, SLURM, option
from utils.errors import UserError
from utils.jobs import slurm
from utils.jobs.status import JobStatus, status_table
from utils.jobs.submission import Array, Ledger, Submission, Work, make_arrays
from utils.jobs.templates import fill_template
from utils.models.registry import find_model, missing_model
from utils.runs.files import atomic_path, timestamp, write_json
from utils.runs.layout import RunLayout
from utils.runs.shapes import read_record

TEMPLATES = PROJECT / "jobs" / "templates"
# Every template must have these; the scripts fill others in besides.
REQUIRED_FIELDS = ("job_name", "cpus", "gpus", "timeout", "args")
# The tasks of an array differ in the script that they run.
ARRAY_SCRIPT = """
set -euo pipefail

# What to run is this task's line of the manifest, counted from an offset.
exec "$(sed -n "$(($2 + SLURM_ARRAY_TASK_ID + 1))p" "$1")"
"""


# The jobs one after the other; one that fails does not stop the others.
RUN_ALL = """#!/usr/bin/env bash
set -uo pipefail

failed=()
{jobs}
echo "${{#failed[@]}} failed: ${{failed[*]-}}"
exit $((${{#failed[@]}} > 0))
"""


@dataclass(kw_only=True)
class SubmitOptions:
    """How jobs are made and submitted."""

    GROUP: ClassVar[str] = SLURM

    template: str = option("", "template of the jobs", aliases=["-t"], metavar="FILE")
    template_fields: dict = option({}, "further fields of the template: --template_fields.account abc123")
    output_dir: str = option(
        "jobs/generated", "where the jobs' scripts are written", group=PLACES, shared=False, metavar="DIR"
    )
    timeout: str = option("24:00:00", "time limit of a job", metavar="TIME")
    cpus: int = option(2, "CPUs of a job", minimum=1)
    gpus: int = option(1, "GPUs of a job", minimum=0)
    max_jobs: int | None = option(None, "run at most so many jobs at once", minimum=1, metavar="N")
    after: list[str] | None = option(None, "begin when these jobs have ended well", metavar="JOBID")
    confirm_above: int = option(100, "ask before more jobs than this are submitted", minimum=0, metavar="N")
    yes: bool = option(False, "do not ask")
    dry_run: bool = option(False, "show what would be submitted, and what is missing; write and submit nothing")
    no_submit: bool = option(False, "write scripts and configs, and one script that runs them all without Slurm")
    status: bool = option(False, "print a table of all jobs")
    debug: bool = option(False, "show tracebacks", group=OTHER)


def check_submit_options(options: SubmitOptions) -> None:
    """Raise a `UserError` for an invalid time limit or job number."""
    slurm.parse_timeout(options.timeout)
    for job in options.after or []:
        if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
            raise UserError(f"--after {job}: expected the number of a job")


class Job(Protocol):
    """What a batch needs to know of a job."""

    name: str
    config: dict[str, Any]

    @property
    def layout(self) -> RunLayout:
        """Where its results are."""


class Batch:
    """The jobs of one command: written to a folder, and submitted as one array.

    Args:
        name: of the folder below --output_dir.
        jobs: all of them.
        options: of the script.
        config_dir: where their config files go; None is a folder beside the scripts.
    """

    def __init__(self, name: str, jobs: Sequence[Job], options: SubmitOptions, config_dir: str | None = None):
        self.name, self.jobs, self.options = name, jobs, options
        self.folder = (Path(options.output_dir) / name).resolve()
        self.configs = (Path(config_dir) / name).resolve() if config_dir else self.folder / "configs"
        self.ledger = Ledger(self.folder / "submitted.tsv")

    def arguments(self, job: Any) -> dict[str, list[str]]:
        """Return the fields of the template that are command lines."""
        raise NotImplementedError

    def is_complete(self, job: Any) -> bool:
        """Return whether there is nothing left to do for a job."""
        raise NotImplementedError

    def missing(self, jobs: Sequence[Any]) -> list[str]:
        """Return a line for each thing that jobs would not find where they run without internet: models."""
        specs = {job.config["model_name"]: job.config.get("model_registry") for job in jobs}
        lines = (missing_model(find_model(name, registry)) for name, registry in specs.items())
        return [line for line in lines if line]

    def run(self, script: str) -> int:
        """Submit what is not complete and not in the queue; with --status, print what has become of all.

        Args:
            script: what to tell the user to call for the results.

        Returns:
            the exit status: 1 if --dry_run finds that something is missing.

        Raises:
            UserError: before anything is written, if something is missing.
        """
        if self.options.status:
            print(status_table(self.statuses()))
            return 0
        left = [job for job in self.jobs if not self.is_complete(job)]
        complete = len(self.jobs) - len(left)
        header = self.header(left)
        without_slurm = self.options.dry_run or self.options.no_submit
        limit = slurm.DEFAULT_ARRAY_LIMIT if without_slurm else slurm.array_limit()
        queued = set() if without_slurm else self.queued()
        waiting = sum(job.name in queued for job in left)
        left = [job for job in left if job.name not in queued]
        print(self.describe(len(left), complete, waiting))
        if not left:
            return 0
        missing = self.missing(left)
        if self.options.dry_run:
            print("\n".join(job.name for job in left))
            print(f"their scripts, configs and the array would be in {self.folder}")
            for line in missing:
                print(f"missing: {line}", file=sys.stderr)
            return 1 if missing else 0
        if missing:
            more = f" (and {len(missing) - 1} more, see --dry_run)" if len(missing) > 1 else ""
            raise UserError(f"{missing[0]}{more}")
        if self.options.no_submit:
            self.write(left, script)
            return 0
        self.confirm(len(left))
        self.submit(left, header, limit, script)
        return 0

    def statuses(self) -> list[JobStatus]:
        """Return the status of every job."""
        queue, tasks = slurm.queue(), {Path(line).stem: task for task, line in self.ledger.tasks()}
        return [
            JobStatus(
                job.name,
                finished=self.is_complete(job),
                queued=queue.get(tasks.get(job.name, ""), ""),
                task=tasks.get(job.name),
                record=read_record(job.layout.run_json) or {},
                log=job.layout.outputs / "train.txt",
            )
            for job in self.jobs
        ]

    def header(self, jobs: Sequence[Job]) -> str:
        """Return the #SBATCH lines that all jobs share, empty without jobs.

        Raises:
            UserError: if they differ between jobs.
        """
        headers = sorted({array_header(self.fill(job, job_name=self.name)) for job in jobs})
        if len(headers) > 1:
            differing = next(a for a, b in zip(*map(str.splitlines, headers[:2]), strict=True) if a != b)
            raise UserError(f"template {self.options.template}: {differing!r} differs between jobs of one array")
        return headers[0] if headers else ""

    def describe(self, left: int, complete: int, waiting: int) -> str:
        """Return the line that says how much there is to do."""
        hours = left * slurm.parse_timeout(self.options.timeout) / 3600
        text = f"{len(self.jobs)} jobs: {left} to submit"
        text += f", at most {hours:,.1f} node-hours ({self.options.timeout} each)" if left else ""
        text += f", {complete} complete and skipped" if complete else ""
        return text + (f", {waiting} in the queue already" if waiting else "")

    def confirm(self, count: int) -> None:
        """Ask the user when there are many jobs."""
        if count <= self.options.confirm_above or self.options.yes:
            return
        if not sys.stdin.isatty():
            raise UserError(
                f"{count} jobs are more than --confirm_above {self.options.confirm_above}; --yes submits them"
            )
        if input(f"submit {count} jobs? [y/N] ").strip().lower() not in ("y", "yes"):
            raise UserError("nothing is submitted")

    def fill(self, job: Job, **changes: str) -> str:
        """Return the script of a job."""
        values = {
            "job_name": job.name,
            "cpus": str(self.options.cpus),
            "gpus": str(self.options.gpus),
            "timeout": self.options.timeout,
            "project": str(PROJECT),
            "log": str((job.layout.outputs / "train.txt").resolve()),
            "search": self.name,
        } | {name: str(value) for name, value in self.options.template_fields.items()}
        for name, value in values.items():
            if "\n" in value:
                raise UserError(f"--template_fields.{name}: a field cannot hold a line break")
        quoted = {name: shlex.quote(value) for name, value in (values | changes).items()}
        quoted |= {name: shlex.join(words) for name, words in self.arguments(job).items()}
        return fill_template(Path(self.options.template), quoted, REQUIRED_FIELDS)

    def queued(self) -> set[str]:
        """Return the names of jobs in the queue."""
        tasks = slurm.queue()
        return {Path(line).stem for task, line in self.ledger.tasks() if task in tasks}

    def write_jobs(self, jobs: Sequence[Job]) -> None:
        """Write the config and the script of each job."""
        for job in jobs:
            write_json(self.configs / f"{job.name}.json", job.config)
            write_script(self.folder / f"{job.name}.sh", self.fill(job))

    def write(self, jobs: Sequence[Job], script: str) -> None:
        """Write the files of these jobs, and one script that runs them in turn, for a machine without Slurm."""
        self.write_jobs(jobs)
        folder, count, lines = shlex.quote(str(self.folder)), len(jobs), []
        for number, name in enumerate((shlex.quote(job.name) for job in jobs), 1):
            lines.append(f"echo {name} '({number} of {count})'\nbash {folder}/{name}.sh || failed+=({name})")
        write_script(self.folder / "run-all.sh", RUN_ALL.format(jobs="\n".join(lines)))
        print(f"scripts   {self.folder}\nconfigs   {self.configs}\nlogs      {jobs[0].layout.outputs}/train.txt, ...")
        print(f"run all   bash {folder}/run-all.sh\n{script}")

    def submit(self, jobs: Sequence[Job], header: str, limit: int, script: str) -> None:
        """Write the files of these jobs and submit them, in pieces where Slurm limits arrays."""
        self.write_jobs(jobs)
        # To the nanosecond: what is submitted next must not replace the manifest of tasks that wait.
        stamp = timestamp()
        manifest, array = self.folder / f"manifest-{stamp}.txt", self.folder / f"array-{stamp}.sh"
        log = f"#SBATCH --output={shlex.quote(str(self.folder / 'slurm-%A.txt'))}\n#SBATCH --open-mode=append\n"
        write_script(array, f"#!/usr/bin/env bash\n{log}{header}{ARRAY_SCRIPT}")

        def command(piece: Array) -> list[str]:
            return [str(array), str(manifest), str(piece.offset)]

        wait = f"afterok:{':'.join(self.options.after)}" if self.options.after else ""
        work = [Work(job.name, str(self.folder / f"{job.name}.sh"), wait) for job in jobs]
        submission = Submission(make_arrays(work, limit), command, max_jobs=self.options.max_jobs)
        submission.run(manifest, self.ledger)
        if failure := submission.failure():
            raise failure
        print(f"scripts   {self.folder}\nconfigs   {self.configs}\nlogs      {jobs[0].layout.outputs}/train.txt, ...")
        print(f"follow    {follow_command()}\n{script}\ncancel    scancel {' '.join(submission.jobs)}")


def follow_command() -> str:
    """Return this command with --status, for the user to follow the jobs."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:], "--status"])


def write_script(path: Path, text: str) -> None:
    """Write a script that can be run."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    path.chmod(path.stat().st_mode | 0o111)


def array_header(script: str) -> str:
    """Return the #SBATCH lines of a script."""
    return "".join(f"{line}\n" for line in script.split("\n") if line.startswith("#SBATCH"))
