"""What explain.py leaves: explanations/LANG.json, and keywords.csv, a table of the keywords in all of them."""

from pathlib import Path
from typing import Any

from utils.data.delimited import inert, write_table
from utils.runs.shapes import read_explanation

COLUMNS = (
    *("language", "register", "word", "score", "document_frequency", "num_texts", "stability", "num_runs"),
    "example",
)


def read_explanations(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the content of explanations/LANG.json, by language.

    Args:
        folder: explanations of a run; there may be none.

    Raises:
        UserError: if a file is damaged.
    """
    return {path.stem: read_explanation(path) for path in sorted(folder.glob("*.json"))}


def keyword_rows(explanations: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the keywords of all languages, as they stand in keywords.csv."""
    return [{"language": lang} | row for lang, content in explanations.items() for row in content["keywords"]]


def write_keywords(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write keywords.csv; returns its path."""
    words = ("register", "word", "example")
    return write_table(path, [row | {name: inert(row[name]) for name in words} for row in rows], COLUMNS)
