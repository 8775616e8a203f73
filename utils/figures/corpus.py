"""What check_corpus.py has found, a figure per question."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.figures.names import NO_NAMES, Names
from utils.figures.style import LINE_COLORS, SCREEN, heat_map, new_figure, room_for
from utils.quality.summary import KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows and columns of the matrix of doubtful labels; combinations of labels are many.
MOST_LABELS = 16


def duplicates_figure(pairs: list[dict[str, Any]], kinds: list[str]) -> "Figure":
    """Return a bar for each kind of pair of twins, equal ones and nearly equal ones.

    Args:
        pairs: of corpus.json.
        kinds: of the pairs, see `utils.quality.summary.kind_of`.
    """
    figure = new_figure(6.4, 1.9)
    axes = figure.add_axes((0.29, 0.28, 0.66, 0.52))
    equal = Counter(kind for pair, kind in zip(pairs, kinds, strict=True) if pair["similarity"] == 1)
    counts = Counter(kinds)
    for place, kind in enumerate(KINDS):
        axes.barh(place, equal[kind], color=LINE_COLORS[5], label="equal" if not place else None)
        rest = counts[kind] - equal[kind]
        axes.barh(place, rest, left=equal[kind], color=LINE_COLORS[2], label="nearly equal" if not place else None)
        axes.annotate(f"{counts[kind]:,}", (counts[kind], place), (3, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(KINDS)), KINDS)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1, *counts.values(), 1) * 1.15)
    axes.set_xlabel("pairs of texts")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper right", ncols=2, frameon=False, fontsize=SCREEN.font)
    return figure


def leakage_figure(leaking: dict[str, dict[str, Any]], names: Names = NO_NAMES) -> "Figure":
    """Return a bar for each language: which share of its test texts has a twin in training.

    Args:
        leaking: of corpus.json.
        names: what languages are called.
    """
    height = 1.0 + 0.26 * len(leaking)
    figure = new_figure(6.4, height)
    axes = figure.add_axes((0.24, 0.5 / height, 0.7, 1 - 0.85 / height))
    parts = (("equal", LINE_COLORS[5], "equal"), ("near", LINE_COLORS[2], "nearly equal"))
    for place, found in enumerate(leaking.values()):
        left = 0.0
        for key, color, label in parts:
            share = 100 * found[key] / found["num_test_texts"]
            axes.barh(place, share, left=left, color=color, label=None if place else label)
            left += share
        axes.annotate(f"{left:.1f} %", (left, place), (3, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(leaking)), [names.lang(lang) for lang in leaking])
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.0, *(115 * found["share"] for found in leaking.values())))
    axes.set_xlabel("% of the test texts")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper right", ncols=2, frameon=False, fontsize=SCREEN.font)
    return figure


def doubts_figure(doubtful: list[dict[str, Any]]) -> "Figure | None":
    """Return how often which label was doubted for which other one; None if none was.

    Args:
        doubtful: of corpus.json.
    """
    counts = Counter((doubt["given"], doubt["likely"]) for doubt in doubtful)
    if not counts:
        return None
    given, likely = (
        [name for name, _ in Counter(doubt[key] for doubt in doubtful).most_common(MOST_LABELS)]
        for key in ("given", "likely")
    )
    matrix = np.array([[counts[a, b] for b in likely] for a in given])
    cell = (0.55, 0.3)
    longest = max(map(len, given))
    rotation, below = room_for(likely, cell[0])
    left, bottom = 0.5 + SCREEN.character * max(longest, 4), 0.45 + below
    inner = (cell[0] * max(3, len(likely)), cell[1] * len(given))
    width, height = max(left + inner[0] + 0.2, 3.4), bottom + inner[1] + 0.35
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, inner[0] / width, inner[1] / height))
    heat_map(axes, matrix / matrix.max(), np.where(matrix, matrix.astype(str), ""))
    axes.set_xticklabels(likely, rotation=rotation)
    axes.set_yticklabels(given)
    axes.set_xlabel("likely label")
    axes.set_ylabel("given label")
    axes.set_title("texts with doubtful labels")
    return figure


def problems_figure(languages: dict[str, Any], problems: list[str], names: Names = NO_NAMES) -> "Figure | None":
    """Return which share of the texts of a language has which problem; None if there are none.

    Args:
        languages: of corpus.json.
        problems: in their order.
        names: what languages are called.
    """
    counts = np.array(
        [
            [sum(part["problems"].get(name, {}).get("num_texts", 0) for part in _splits(own)) for name in problems]
            for own in languages.values()
        ]
    )
    if not counts.any():
        return None
    totals = np.array([sum(part["num_texts"] for part in _splits(own)) for own in languages.values()])
    shares = counts / totals[:, None]
    texts = np.array([[f"{share:.1%}" if share else "" for share in row] for row in shares])
    cell = (0.95, 0.3)
    left = 0.35 + SCREEN.character * max(len(names.lang(lang)) for lang in languages)
    width, height = left + cell[0] * len(problems) + 0.15, 0.75 + cell[1] * len(languages)
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, 0.35 / height, 1 - (left + 0.15) / width, 1 - 0.75 / height))
    heat_map(axes, shares / max(shares.max(), 0.05), texts)
    axes.set_xticklabels(problems)
    axes.set_yticklabels([names.lang(lang) for lang in languages])
    axes.set_title("share of the texts")
    return figure


def _splits(language: dict[str, Any]) -> list[dict[str, Any]]:
    return [language[split] for split in ("train", "test") if split in language]


def lengths_figure(languages: dict[str, Any], names: Names = NO_NAMES) -> "Figure":
    """Return how long training texts are, by language and register: the middle half, 5 to 95 %, and the median.

    Args:
        languages: of corpus.json.
        names: what languages are called.
    """
    shown = {lang: own.get("train") or own["test"] for lang, own in languages.items()}
    rows = sum(len(own["registers"]) + 1 for own in shown.values())
    height = 0.8 + 0.17 * rows
    figure = new_figure(6.4, height)
    axes = figure.add_axes((0.26, 0.45 / height, 0.7, 1 - 0.6 / height))
    place, ticks = 0.0, []
    for lang, own in shown.items():
        for name, found in own["registers"].items():
            low, first, median, third, high = (max(1, x) for x in found["characters"])
            axes.plot([low, high], [place, place], color=LINE_COLORS[4], linewidth=0.8)
            axes.barh(place, third - first, left=first, color=LINE_COLORS[2], height=0.7)
            axes.plot([median], [place], "|", color="black", markersize=6)
            ticks.append((place, f"{names.lang(lang)} {name}"))
            place += 1
        place += 0.8
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks], size=7)
    axes.set_ylim(place, -1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("characters")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
