"""The one way to Slurm: work is cut into job arrays, submitted, and found again in the queue.

A task of an array takes the line of its index, plus the array's offset, of a manifest. A ledger beside the manifests
lists what was submitted.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import RunFailure
from utils.jobs import slurm
from utils.runs.files import write_text


@dataclass(frozen=True)
class Work:
    """What one task does.

    Attributes:
        name: for the user.
        line: of the manifest.
        wait: on which other jobs, as Slurm writes it: ``afterok:12``.
        index: of the task, where it must be that of the task it waits for.
        need: options of sbatch that it needs; tasks with others form arrays of their own.
    """

    name: str
    line: str
    wait: str = ""
    index: int | None = None
    need: tuple[str, ...] = ()


@dataclass
class Array:
    """A job array: its work by index, and where its lines begin in the manifest."""

    work: dict[int, Work]
    offset: int = 0

    @property
    def first(self) -> Work:
        """The work of the lowest index."""
        return self.work[min(self.work)]

    @property
    def num_lines(self) -> int:
        """Lines of the manifest that belong to the array, empty ones of left out indices included."""
        return max(self.work) + 1

    @property
    def indices(self) -> str:
        """The indices as sbatch takes them: ``0-3,7-7``."""
        ranges: list[list[int]] = []
        for index in sorted(self.work):
            if ranges and index == ranges[-1][1] + 1:
                ranges[-1][1] = index
            else:
                ranges.append([index, index])
        return ",".join(f"{start}-{end}" for start, end in ranges)

    @property
    def names(self) -> str:
        """The first and the last name."""
        return f"{self.first.name} ... {self.work[max(self.work)].name}"


def make_arrays(work: Sequence[Work], limit: int) -> list[Array]:
    """Group work by what it needs and waits for, and cut it into arrays that Slurm takes.

    Args:
        work: in the order in which it shall be done.
        limit: tasks of an array. Work with an index of its own is not cut: the index is below the limit already.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Work]] = {}
    for item in work:
        groups.setdefault((item.wait, item.need), []).append(item)
    arrays = []
    for members in groups.values():
        if members[0].index is not None:
            arrays.append(Array({item.index: item for item in members if item.index is not None}))
        else:
            pieces = (members[start : start + limit] for start in range(0, len(members), limit))
            arrays += [Array(dict(enumerate(piece))) for piece in pieces]
    offset = 0
    for array in arrays:
        array.offset = offset
        offset += array.num_lines
    return arrays


@dataclass(frozen=True)
class Ledger:
    """What was submitted: a line per array with its job, offset, number of lines, and manifest (beside the file)."""

    path: Path

    def add(self, job: str, array: Array, manifest: Path) -> None:
        """Note an array."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{job}\t{array.offset}\t{array.num_lines}\t{manifest.name}\n")

    def tasks(self) -> Iterator[tuple[str, str]]:
        """Yield every task ever submitted, as JOB_INDEX, with its line of the manifest."""
        if not self.path.is_file():
            return
        for entry in self.path.read_text(encoding="utf-8").splitlines():
            fields = entry.split("\t")
            if len(fields) != 4:
                # Version 0.1.0 listed the tasks of grids otherwise.
                continue
            job, offset, count, name = fields
            manifest = self.path.with_name(name)
            if not manifest.is_file():
                continue
            lines = manifest.read_text(encoding="utf-8").split("\n")[int(offset) : int(offset) + int(count)]
            yield from ((f"{job}_{index}", line) for index, line in enumerate(lines) if line)


@dataclass
class Submission:
    """Arrays on their way to Slurm.

    Args:
        arrays: see `make_arrays`.
        command: given an array, the script of its tasks with its arguments.
        options: of sbatch, for all.
        max_jobs: how many tasks may run at once; arrays then run one after the other.
    """

    arrays: list[Array]
    command: Callable[[Array], list[str]]
    options: list[str] = field(default_factory=list)
    max_jobs: int | None = None
    jobs: list[str] = field(default_factory=list)
    refused: list[Array] = field(default_factory=list)

    def sbatch(self, array: Array, previous: str | None) -> list[str]:
        """Return the command that submits an array; `previous` is the job of the one before."""
        wait = [array.first.wait] if array.first.wait else []
        # Together they would run more than so many jobs.
        wait += [f"afterany:{previous}"] if self.max_jobs and previous else []
        throttle = f"%{self.max_jobs}" if self.max_jobs else ""
        command = ["sbatch", "--parsable", f"--array={array.indices}{throttle}"]
        if wait:
            command += [f"--dependency={','.join(wait)}", "--kill-on-invalid-dep=yes"]
        return [*command, *array.first.need, *self.options, *self.command(array)]

    def run(self, manifest: Path, ledger: Ledger) -> None:
        """Write the manifest and submit all arrays, also after one that sbatch refuses; say what became of each."""
        write_text(manifest, "".join(f"{line}\n" for array in self.arrays for line in manifest_lines(array)))
        for array in self.arrays:
            try:
                job = slurm.submit(self.sbatch(array, self.jobs[-1] if self.jobs else None))
            except RunFailure as failure:
                self.refused.append(array)
                print(failure, file=sys.stderr)
                continue
            ledger.add(job, array, manifest)
            self.jobs.append(job)
            more = "".join(f", {text}" for text in (" ".join(array.first.need), array.first.wait) if text)
            print(f"job {job}: {len(array.work)} tasks, {array.names}{more}")

    def failure(self) -> RunFailure | None:
        """Return an error that says which arrays were refused, if any were."""
        if not self.refused:
            return None
        refused = "; ".join(f"{len(array.work)} tasks, {array.names}" for array in self.refused)
        return RunFailure(
            f"sbatch refused {refused}\nsubmitted: {' '.join(self.jobs) or 'nothing'}; the same command submits the "
            "rest, and skips what is complete or queued; where the site limits the number of jobs, submit fewer at once"
        )


def manifest_lines(array: Array) -> list[str]:
    """Return the array's lines of the manifest; an empty line stands for an index that the array leaves out."""
    return [array.work[index].line if index in array.work else "" for index in range(array.num_lines)]
