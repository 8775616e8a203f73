"""How often each register is, in all texts, in each folder, or in each file."""

from typing import TYPE_CHECKING

from utils.figures.names import NO_NAMES, Names
from utils.figures.style import LINE_COLORS, SCREEN, Style, new_figure
from utils.prediction.results import LabelCounts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Bars of a figure; the others are in the table.
MOST_BARS = 40
# Registers with a color of their own; black is for text.
COLORS = LINE_COLORS[1:]
OTHERS = "#bdbdbd"
# Of these, those on which black cannot be read.
DARK = ("#0072B2", "#D55E00", "#009E73")


def chosen_bars(counts: list[LabelCounts]) -> tuple[list[LabelCounts], int]:
    """Return what has a bar: everything, then the folders, or the files of a single one; and how many have none."""
    kind = "folder" if any(row.kind == "folder" for row in counts) else "file"
    parts = [row for row in counts if row.kind == kind and row.texts]
    largest = sorted(parts, key=lambda row: -row.texts)[: MOST_BARS - 1]
    # A single file is everything.
    shown = [row for row in parts if row in largest] if len(parts) > 1 else []
    return [*(row for row in counts if row.kind == "all"), *shown], len(parts) - len(largest)


def registers_figure(
    counts: list[LabelCounts], model: str, below: float, style: Style = SCREEN, names: Names = NO_NAMES
) -> "Figure":
    """Return a bar for everything and for each folder or file, divided among the registers.

    Beside it stand the number of its texts and the share of those whose label has a probability below `below`.
    """
    from matplotlib.patches import Patch

    bars, left_out = chosen_bars(counts)
    registers = list(bars[0].registers)
    colored, others = registers[: len(COLORS)], registers[len(COLORS) :]
    label_width = 0.15 + style.character * max(len(_short(row.name)) for row in bars)
    right = 0.15 + style.character * 21
    width = max(style.widths[-1] if style.widths else 9.0, label_width + right + 2.0)
    # Names of registers below the bars, as many side by side as fit.
    entries = [f"{name} {names.registers.get(name, '')}".strip() for name in colored] + (["others"] if others else [])
    per_line = max(1, int((width - 0.3) / (0.45 + style.character * max(map(len, entries)))))
    legend_lines = -(-len(entries) // per_line)
    top, bottom = 3.4 * style.line, (3.0 + 1.15 * legend_lines) * style.line
    height = top + bottom + len(bars) * 1.5 * style.line
    figure = new_figure(width, height, style)
    inner = (width - label_width - right, height - top - bottom)
    axes = figure.add_axes((label_width / width, bottom / height, inner[0] / width, inner[1] / height))
    for place, row in enumerate(bars):
        _draw_bar(axes, place, row, colored, style)
    # Where numbers beside the bars end.
    ends = [1 + style.character * characters / inner[0] for characters in (12, 20)]
    _finish(axes, bars, below, ends, style)
    if any(sum(row.registers.values()) != row.texts for row in bars):
        axes.set_xlabel("share of the registers that texts got")
    title = f"registers by {model}" + (f"; the {len(bars) - 1} largest, {left_out} more not shown" if left_out else "")
    size = min(style.font * 1.3, 110 * width / len(title))
    figure.text(0.5, 1 - 0.8 * style.line / height, title, ha="center", va="center", size=size)
    used = (*COLORS[: len(colored)], *([OTHERS] if others else []))
    handles = [Patch(color=color) for color in used]
    figure.legend(
        handles, entries, loc="lower center", ncols=per_line, frameon=False, fontsize=style.font, borderaxespad=0.2,
        handlelength=1.2, columnspacing=1.2, labelspacing=0.25,
    )  # fmt: skip
    return figure


def _draw_bar(axes: "Axes", place: int, row: LabelCounts, colored: list[str], style: Style) -> None:
    start = 0.0
    for name, color in zip(colored, COLORS, strict=False):
        share = row.share(name)
        axes.barh(place, share, left=start, color=color, edgecolor="white", linewidth=0.4, height=0.8)
        if share >= 0.09:
            ink = "white" if color in DARK else "black"
            where = (start + share / 2, place)
            axes.text(*where, f"{share:.0%}", ha="center", va="center", size=0.9 * style.font, color=ink)
        start += share
    if start < 1 - 1e-9 and row.registers:
        axes.barh(place, 1 - start, left=start, color=OTHERS, edgecolor="white", linewidth=0.4, height=0.8)


def _finish(axes: "Axes", bars: list[LabelCounts], below: float, ends: list[float], style: Style) -> None:
    for place, row in enumerate(bars):
        for x, text in zip(ends, (f"{row.texts:,}", f"{row.low:.0%}"), strict=True):
            axes.text(x, place, text, ha="right", va="center", size=style.font, clip_on=False)
    for x, text in zip(ends, ("texts", f"p < {below:g}"), strict=True):
        axes.text(x, -0.95, text, ha="right", va="center", size=style.font, color="0.35", clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_yticks(range(len(bars)), [_short(row.name) for row in bars])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("share of the texts")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"...{name[-37:]}"
