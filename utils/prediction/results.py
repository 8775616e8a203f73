"""What predictions.json of a folder of labels tells, for tables and figures."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.data.delimited import inert
from utils.errors import UserError
from utils.prediction.folder import OVERVIEW
from utils.runs.shapes import NUMBER, Required, Shape, read_shaped

COUNTS: Shape = {
    **{Required(name): int for name in ("num_rows", "num_texts", "num_bad_rows", "num_tokens", "num_truncated")},
    Required("registers"): {str: int},
    "num_without_register": int,
    Required("low_confidence"): {Required("below"): NUMBER, Required("share"): NUMBER},
}
SHAPE: Shape = {
    **COUNTS,
    Required("model"): str,
    Required("labels"): [str],
    Required("folders"): {str: COUNTS},
    Required("files"): {str: COUNTS},
    Required("unfinished"): [str],
    "label_kind": lambda value: value == "multi",
    "subregisters": {str: [str]},
}
# What the line of everything is called.
ALL = "all"


@dataclass(frozen=True)
class LabelCounts:
    """How many texts of what have which label.

    Attributes:
        kind: all, folder or file.
        name: of the folder or file.
        texts: with a label.
        registers: texts by register, the most frequent first.
        low: part of the texts whose label is not sure.
        truncated: texts that were longer than the model reads.
        bad_rows: rows without a label.
    """

    kind: str
    name: str
    texts: int
    registers: dict[str, int]
    low: float
    truncated: int
    bad_rows: int

    def share(self, register: str) -> float:
        """Return a register's part of the labels, of which a text may have several; 0 without labels."""
        return self.registers.get(register, 0) / max(1, sum(self.registers.values()))


def read_overview(folder: Path) -> dict[str, Any]:
    """Read predictions.json.

    Raises:
        UserError: if it is not there or damaged, or nothing has been labelled yet.
    """
    content = read_shaped(folder / OVERVIEW, SHAPE, "label again with predict.py --force")
    if content is None:
        raise UserError(f"{folder / OVERVIEW} does not exist; label texts with predict.py --output_dir {folder}")
    if not content["num_texts"]:
        raise UserError(f"{folder}: no file has all its labels yet; the same command of predict.py goes on")
    return content


def label_counts(overview: dict[str, Any]) -> list[LabelCounts]:
    """Return the counts of everything, of each folder if there are several, and of each file."""
    folders = overview["folders"] if len(overview["folders"]) > 1 else {}
    found = [("all", ALL, overview)]
    found += [("folder", name, content) for name, content in folders.items()]
    found += [("file", name, content) for name, content in overview["files"].items()]
    return [
        LabelCounts(
            kind,
            name,
            content["num_texts"],
            content["registers"],
            content["low_confidence"]["share"],
            content["num_truncated"],
            content["num_bad_rows"],
        )
        for kind, name, content in found
    ]


def first_level(counts: list[LabelCounts], overview: dict[str, Any]) -> list[LabelCounts]:
    """Return the counts without subregisters, whose texts are counted with their registers."""
    below = {label for labels in overview.get("subregisters", {}).values() for label in labels}
    return [
        replace(row, registers={name: number for name, number in row.registers.items() if name not in below})
        for row in counts
    ]


def label_table(counts: list[LabelCounts], labels: list[str]) -> list[dict[str, Any]]:
    """Return the rows of registers.csv."""
    return [
        {
            "kind": row.kind,
            "name": inert(row.name),
            "num_texts": row.texts,
            "low_confidence": row.low,
            "num_truncated": row.truncated,
            "num_bad_rows": row.bad_rows,
            **{inert(label): row.registers.get(label, 0) for label in labels},
        }
        for row in counts
    ]


def describe_counts(counts: list[LabelCounts], below: float, shown: int = 20) -> str:
    """Return the counts for people to read: everything and the folders, or the files where there is one folder."""
    rows = [row for row in counts if row.kind != "file"]
    rows = rows if len(rows) > 1 else counts
    width = max(len(row.name) for row in rows[:shown])
    lines = [f"{'':{width}} {'texts':>12}  p < {below:g}  registers"]
    for row in rows[:shown]:
        shares = ", ".join(f"{name} {count / row.texts:.1%}" for name, count in [*row.registers.items()][:6])
        lines.append(f"{row.name:{width}} {row.texts:>12,}  {row.low:>6.1%}  {shares}")
    if len(rows) > shown:
        lines.append(f"and {len(rows) - shown} more")
    return "\n".join(lines)
