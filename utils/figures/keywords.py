"""The keywords of a register, a panel per language."""

from typing import TYPE_CHECKING, Any

from utils.figures.names import NO_NAMES, Names
from utils.figures.style import LINE_COLORS, SCREEN, PanelGrid, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_WORDS = 15
# For letters that matplotlib's own font lacks, where they are installed.
FALLBACKS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans Thai")


def keywords_figure(
    register: str, by_lang: dict[str, list[dict[str, Any]]], style: Style = SCREEN, names: Names = NO_NAMES
) -> "Figure":
    """Return the figure of a register: its highest words by language, with the texts that have them.

    Args:
        register: the label.
        by_lang: its keywords, see `utils.explanation.keywords.keywords`, of each language.
        style: of the figure.
        names: what languages and registers are called.
    """
    shown = {lang: rows[:MOST_WORDS] for lang, rows in by_lang.items()}
    longest = max(len(row["word"]) for rows in shown.values() for row in rows)
    height = 1.15 * style.line * max(len(rows) for rows in shown.values()) + 0.1
    left = 0.2 + 1.1 * style.character * min(longest, 30)
    grid = PanelGrid(
        len(shown),
        style,
        (2.4, height),
        (left, 0.3, 0.35, 3 * style.line),
        min(3, len(shown)),
        title=f"{register} {names.registers.get(register, '')}".strip(),
    )
    fonts = [*_fonts()]
    for index, (lang, rows) in enumerate(shown.items()):
        axes = grid.axes(index)
        axes.barh(range(len(rows)), [row["score"] for row in rows], color=LINE_COLORS[2], height=0.75)
        for place, row in enumerate(rows):
            count = f"{row['document_frequency']:g}"
            axes.annotate(
                count, (row["score"], place), (2, 0), textcoords="offset points", va="center", size=0.8 * style.font
            )
        axes.set_yticks(range(len(rows)), [row["word"][:30] for row in rows], family=fonts)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1.18 * max(row["score"] for row in rows))
        axes.set_title(f"{names.lang(lang)}, {rows[0]['num_texts']:g} texts", size=style.title)
        axes.set_xlabel("mean score; beside: texts")
        axes.spines[["top", "right"]].set_visible(False)
    return grid.figure


def _fonts() -> list[str]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]
