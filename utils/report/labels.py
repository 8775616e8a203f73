"""The HTML page about labelled texts: one file that needs no network and no script."""

from pathlib import Path
from typing import Any

from utils.figures.names import Names
from utils.figures.registers import COLORS, OTHERS
from utils.prediction.results import LabelCounts, first_level, label_counts
from utils.report.render import render
from utils.runs.files import write_text

TITLES = {"all": "Everything", "folder": "Folder", "file": "File"}


def write_label_report(path: Path, overview: dict[str, Any], names: Names) -> Path:
    """Write the page; returns its path.

    Args:
        path: of the HTML file.
        overview: content of predictions.json.
        names: what registers are called.
    """
    counts = label_counts(overview)
    main = dict(zip(map(id, counts), first_level(counts, overview), strict=True))
    labels = sorted(overview["labels"], key=lambda label: -overview["registers"].get(label, 0))
    below = {label for under in overview.get("subregisters", {}).values() for label in under}
    registers = [label for label in labels if label not in below]
    colors = dict(zip(registers, COLORS, strict=False))

    def bar(row: LabelCounts) -> list[tuple[str, float]]:
        # Bars show registers, and the table all labels.
        shares = [(color, main[id(row)].share(label)) for label, color in colors.items()] if row.registers else []
        rest = 1 - sum(share for _, share in shares)
        return [pair for pair in (*shares, (OTHERS, rest)) if pair[1] > 1e-9]

    page = render(
        "labels.html.j2",
        ("report.css",),
        model=overview["model"],
        all=counts[0],
        num_files=len(overview["files"]),
        unfinished=len(overview["unfinished"]),
        below=overview["low_confidence"]["below"],
        key=[*colors.items(), *([("others", OTHERS)] if len(registers) > len(colors) else [])],
        names=names.registers,
        labels=labels,
        tables=[
            (title, rows) for kind, title in TITLES.items() if (rows := [row for row in counts if row.kind == kind])
        ],
        bar=bar,
    )
    write_text(path, page)
    return path
