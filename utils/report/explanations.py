"""What explain.py has found, for the report."""

from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.explanation.files import read_keywords
from utils.runs.files import read_json

ADVICE = "remove the file, or run explain.py again"


def read_explanations(folder: Path, show_texts: bool) -> dict[str, dict[str, Any]]:
    """Return what was found about a run, by language.

    Args:
        folder: of the run's results.
        show_texts: with the texts, where explain.py has kept them.

    Raises:
        UserError: if a file is damaged.
    """
    own = folder / "explanations"
    keywords = read_keywords(own / "keywords.csv")
    found = {}
    for path in sorted(own.glob("*.json")):
        content = read_json(path, ADVICE)
        if not isinstance(content, dict) or not {"method", "num_texts", "faithfulness"} <= set(content):
            raise UserError(f"{path}: no explanations; {ADVICE}")
        found[path.stem] = {
            "method": content["method"],
            "num_texts": content["num_texts"],
            "faithfulness": content["faithfulness"],
            "keywords": [row for row in keywords if row["language"] == path.stem],
            **({"texts": content["texts"]} if show_texts and content.get("texts") else {}),
        }
    return found
