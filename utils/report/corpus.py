"""The HTML page about a corpus: one file that needs no network, with a picture for each question."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.evaluation.metrics import RARE
from utils.figures.corpus import doubts_figure, duplicates_figure, leakage_figure, lengths_figure, problems_figure
from utils.figures.names import Names
from utils.quality.measure import PROBLEMS
from utils.quality.rows import Rows
from utils.quality.summary import kind_of
from utils.report.render import render
from utils.runs.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows of a table; more is in corpus.json.
MOST_ROWS = 500


def write_corpus_report(path: Path, content: dict[str, Any], rows: Rows, names: Names) -> Path:
    """Write the page; returns its path.

    Args:
        path: of the HTML file.
        content: of corpus.json.
        rows: that it is about, for the beginnings of texts.
        names: what languages are called.
    """
    pairs, languages = content["duplicates"], content["languages"]
    kinds = [kind_of(pair) for pair in pairs]
    figures = {
        "duplicates": duplicates_figure(pairs, kinds) if pairs else None,
        "leakage": leakage_figure(content["leaking"], names) if content["leaking"] else None,
        "doubts": doubts_figure(content["doubtful"]),
        "problems": problems_figure(languages, list(PROBLEMS), names),
        "lengths": lengths_figure(languages, names),
    }

    def beginning(at: dict[str, Any]) -> str:
        # The texts of a file stand in its order.
        return rows.measured.beginnings[rows.of(at["language"], at["split"])[at["row"] - 1]]

    splits = [
        (lang, split, own[split]) for lang, own in languages.items() for split in ("train", "test") if split in own
    ]
    page = render(
        "corpus.html.j2",
        ("report.css",),
        ("sort.js",),
        corpus=Path(content["corpus"]).name or content["corpus"],
        content=content,
        most=MOST_ROWS,
        rare=RARE,
        names=names,
        pictures={name: as_png(figure) for name, figure in figures.items() if figure is not None},
        pairs=[(pair, kind, beginning(pair["a"])) for pair, kind in zip(pairs[:MOST_ROWS], kinds, strict=False)],
        doubts=[(doubt, beginning(doubt)) for doubt in content["doubtful"][:MOST_ROWS]],
        problems=[
            (lang, split, PROBLEMS[name], found, own["num_texts"])
            for lang, split, own in splits
            for name, found in own["problems"].items()
        ],
        unchecked=[names.lang(lang) for lang, own in languages.items() if own.get("language_checked") is False],
        registers=list(_registers(splits)),
        with_tokens=any("tokens" in own for _, _, own in splits),
    )
    write_text(path, page)
    return path


def _registers(splits: list[tuple[str, str, dict[str, Any]]]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for lang, split, own in splits:
        for name, found in own["registers"].items():
            yield lang, split, name, found


def as_png(figure: "Figure") -> str:
    """Return a picture for an image's address in a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
