"""Critical differences: which of several systems are told apart over languages (Demsar 2006, figure 1)."""

from typing import TYPE_CHECKING

from utils.evaluation.rankings import Ranks
from utils.figures.style import LINE_COLORS, SCREEN, Style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ranks_figure(found: Ranks, style: Style = SCREEN) -> "Figure":
    """Return the figure: systems at their mean ranks, bars over those that are not told apart."""
    count = len(found.names)
    longest = max(map(len, found.names))
    label = 0.3 + style.character * (longest + 7)
    bars = found.cliques
    line = 1.35 * style.line
    height = 1.2 + line * count + 0.6 * line * len(bars)
    width = max(4.5, label + 4.0)
    figure = new_figure(width, height, style)
    axes = figure.add_axes((label / width, 0.5 / height, 1 - (label + 0.25) / width, 1 - 1.0 / height))
    for place, rank in enumerate(found.ranks):
        axes.plot([1, rank], [place, place], color="#cccccc", linewidth=0.8, zorder=0)
        axes.plot([rank], [place], "o", color=LINE_COLORS[4], markersize=5)
    for index, (first, last) in enumerate(bars):
        y = count - 0.2 + 0.55 * index
        axes.plot(found.ranks[[first, last]], [y, y], color=LINE_COLORS[5], linewidth=3, solid_capstyle="butt")
    axes.set_yticks(range(count), [f"{name} ({rank:.2f})" for name, rank in zip(found.names, found.ranks, strict=True)])
    axes.set_ylim(count + 0.55 * max(len(bars), 1) - 0.3, -1.6)
    axes.set_xlim(0.9, count + 0.1)
    axes.set_xticks(range(1, count + 1))
    # As long as the critical difference.
    end = min(1 + found.critical_difference, count)
    axes.plot([1, end], [-1, -1], color="black", linewidth=1.5, marker="|")
    more = "" if end < count or found.critical_difference <= count - 1 else ", more than the figure"
    axes.text(
        (1 + end) / 2, -1.15, f"critical difference {found.critical_difference:.2f}{more}", ha="center", va="bottom"
    )
    axes.set_xlabel(f"mean rank by {found.metric}, {len(found.langs)} languages")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    p = "< 0.001" if found.p < 0.001 else f"= {found.p:.3f}"
    title = f"bars join what is not told apart (Friedman's test, that all are alike: p {p})"
    size = min(style.font, 110 * width / len(title))
    figure.text(0.5, 1 - 0.22 / height, title, ha="center", va="center", size=size)
    return figure
