"""How far the labelling of files has come, from what is on disk."""

from collections.abc import Sequence
from dataclasses import dataclass

from utils.errors import UserError
from utils.prediction.folder import LabelFolder
from utils.prediction.inputs import InputFile
from utils.prediction.parts import Counts, whole_parts


@dataclass
class Progress:
    """How far it has come.

    Attributes:
        files: how many there are.
        finished: how many have all their labels.
        rows: that have labels.
        rows_left: about how many have none; None if no file has been begun, which would tell how long rows are.
        seconds: that processes have spent.
        unfinished: names of the files that lack some.
    """

    files: int
    finished: int
    rows: int
    rows_left: int | None
    seconds: float
    unfinished: list[str]

    @property
    def rows_per_second(self) -> float | None:
        """Of one process; None if none has done anything."""
        return self.rows / self.seconds if self.seconds else None


def measure_progress(folder: LabelFolder, files: Sequence[InputFile]) -> Progress:
    """Return how far the labelling of these files has come.

    How many rows are left is told by the size of the files and the length of the rows so far.
    """
    total, rows_by_name, finished = Counts(), {}, []
    begun = 0
    for file in files:
        summary = folder.summary(file.name)
        if summary is not None and folder.labels(file.name).is_file():
            finished.append(file.name)
            counts = Counts(**summary["counts"])
            total.add(counts)
            rows_by_name[file.name] = counts.rows
        elif parts := whole_parts(folder.parts(file.name)):
            for part in parts.values():
                total.add(part.counts)
            last = parts[max(parts)]
            # Of the part that is furthest in the file: rows up to its end, and the bytes that they take.
            rows_by_name[file.name] = round((last.first + last.counts.rows) * file.size / max(1, last.position))
        else:
            continue
        begun += file.size
    left: int | None = None
    expected = sum(rows_by_name.values())
    if len(finished) == len(files):
        left = 0
    elif begun:
        everything = expected + sum(file.size for file in files if file.name not in rows_by_name) * expected / begun
        left = max(0, round(everything) - total.rows)
    unfinished = [file.name for file in files if file.name not in finished]
    return Progress(len(files), len(finished), total.rows, left, total.seconds, unfinished)


def files_left(folder: LabelFolder, files: Sequence[InputFile]) -> list[InputFile]:
    """Return the files that lack labels.

    Raises:
        UserError: if a file has changed since it was labelled.
    """
    changed, left = [], []
    for file in files:
        try:
            if not folder.is_finished(file):
                left.append(file)
        except UserError as problem:
            changed.append(problem)
    if changed:
        more = f" (and {len(changed) - 1} more files)" if len(changed) > 1 else ""
        raise UserError(f"{changed[0]}{more}")
    return left
