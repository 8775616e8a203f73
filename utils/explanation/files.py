"""keywords.csv: written by explain.py, read by the report."""

from pathlib import Path
from typing import Any

from utils.data.delimited import as_given, inert, read_table, write_table
from utils.errors import UserError

COLUMNS = (
    *("language", "register", "word", "score", "document_frequency", "num_texts", "stability", "num_runs"),
    "example",
)


def write_keywords(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write keywords.csv; returns its path."""
    words = ("register", "word", "example")
    return write_table(path, [row | {name: inert(row[name]) for name in words} for row in rows], COLUMNS)


def read_keywords(path: Path) -> list[dict[str, Any]]:
    """Read keywords.csv; without it there are none.

    Raises:
        UserError: if it is damaged.
    """
    if not path.is_file():
        return []
    numbers = {"score": float, "document_frequency": float, "num_texts": float, "stability": float, "num_runs": int}
    try:
        return [
            {name: as_given(row[name]) if name not in numbers else numbers[name](row[name]) for name in COLUMNS}
            for row in read_table(path)
        ]
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: no keywords ({error}); run explain.py again") from None
