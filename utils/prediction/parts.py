"""Parts: the rows of a file that are computed together, and the files that keep their labels until all are there.

A file of texts is cut into parts by what is in it alone, so that every process finds the same ones. The labels of a
part go to a file of their own as soon as they are there, compressed with a checksum: whatever stops the work, it goes
on behind the parts that are whole, and in the end nothing is missing and nothing twice. A part is computed in batches
of its own rows, so that its numbers do not depend on what has been computed before.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.evaluation.labelling import Labelling
from utils.prediction.readers import RawRow
from utils.runs.files import atomic_path

# A part ends before this many bytes or characters, or behind one longer row.
PART_SIZE = 1 << 24
# Classes of probability, of equal width, in which labels are counted.
NUM_CLASSES = 10
ENDING = ".part.zst"


def cut_parts(rows: Iterable[RawRow], rows_per_part: int) -> Iterator[tuple[int, list[RawRow]]]:
    """Yield the parts of a file: the number of the first row, from 0, and the rows."""
    part: list[RawRow] = []
    first = size = 0
    for row in rows:
        if part and (len(part) == rows_per_part or size + row.size > PART_SIZE):
            yield first, part
            first, part, size = first + len(part), [], 0
        part.append(row)
        size += row.size
    if part:
        yield first, part


@dataclass
class Counts:
    """What is counted of labelled rows; counts of parts add up to those of a file, and these to those of a corpus.

    Attributes:
        rows: rows of the input.
        texts: that have a label; the others are bad rows.
        tokens: that were computed.
        truncated: texts that were longer than the model takes.
        registers: texts by register.
        probabilities: of the labels, of several of the most probable one, counted in `NUM_CLASSES` classes between 0
            and 1.
        seconds: that a process spent.
        unlabelled: texts none of whose labels reaches its threshold, where they may have any number.
    """

    rows: int = 0
    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    registers: dict[str, int] = field(default_factory=dict)
    probabilities: list[int] = field(default_factory=lambda: [0] * NUM_CLASSES)
    seconds: float = 0.0
    unlabelled: int = 0

    def add(self, other: "Counts") -> None:
        """Add the counts of other rows."""
        for name in ("rows", "texts", "tokens", "truncated", "unlabelled", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.registers = {
            name: self.registers.get(name, 0) + other.registers.get(name, 0)
            for name in dict.fromkeys([*self.registers, *other.registers])
        }
        self.probabilities = [a + b for a, b in zip(self.probabilities, other.probabilities, strict=True)]

    def share_below(self, probability: float) -> float:
        """Return the part of the texts whose label has less than this probability; 0 without texts."""
        classes = round(probability * NUM_CLASSES)
        return sum(self.probabilities[:classes]) / self.texts if self.texts else 0.0


def count_labels(labelling: Labelling, labels: np.ndarray, probabilities: np.ndarray) -> Counts:
    """Count the labels of texts.

    Args:
        labelling: how probabilities have become labels.
        labels: index of each text's register, shape [n]; or 0 and 1, shape [n, number of registers].
        probabilities: of all registers, shape [n, number of registers]; the highest one of each text is counted.
    """
    numbers, surest = labelling.count(labels), probabilities.max(axis=1, initial=0)
    # What is 0.35 must not be in the class below it.
    classes = np.minimum((surest * NUM_CLASSES + 1e-9).astype(int), NUM_CLASSES - 1)
    return Counts(
        texts=len(labels),
        unlabelled=int(np.count_nonzero(~labels.any(axis=1))) if labelling.multilabel else 0,
        registers={name: int(number) for name, number in zip(labelling.names, numbers, strict=True) if number},
        probabilities=np.bincount(classes, minlength=NUM_CLASSES).tolist(),
    )


@dataclass
class Part:
    """What is known of a labelled part besides its records.

    Attributes:
        first: number of its first row.
        counts: of its rows.
        position: bytes of the input up to its end, about.
        bad_rows: number, line and problem of each row without a label.
    """

    first: int
    counts: Counts
    position: int
    bad_rows: list[dict[str, Any]] = field(default_factory=list)


def part_path(folder: Path, number: int) -> Path:
    """Return the file of a part."""
    return folder / f"{number:07}{ENDING}"


def write_part(path: Path, part: Part, records: list[str]) -> None:
    """Write a part: a line about it, then a record per row."""
    import zstandard

    header = vars(part) | {"counts": vars(part.counts)}
    lines = "\n".join([json.dumps(header, ensure_ascii=False), *records])
    # Half of a surrogate pair in a column that is copied; as JSON writes it.
    content = lines.encode("utf-8", "backslashreplace")
    with atomic_path(path) as temporary:
        temporary.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(content))


def read_part(path: Path) -> tuple[Part, list[str]] | None:
    """Read a part and its records; None if the file is not there or not whole, which the checksum tells."""
    import zstandard

    try:
        content = zstandard.ZstdDecompressor().decompress(path.read_bytes())
        header, *records = content.decode("utf-8").split("\n")
        values = json.loads(header)
        return Part(**values | {"counts": Counts(**values["counts"])}), records
    except (FileNotFoundError, zstandard.ZstdError, ValueError, TypeError, KeyError):
        return None


def whole_parts(folder: Path) -> dict[int, Part]:
    """Return the parts of a file that are there and whole, by number; torn ones are removed."""
    found = {}
    for path in sorted(folder.glob(f"*{ENDING}")):
        if path.name.startswith("."):
            continue
        part = read_part(path)
        if part is None:
            path.unlink(missing_ok=True)
        else:
            found[int(path.name.removesuffix(ENDING))] = part[0]
    return found
