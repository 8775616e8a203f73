"""Surprisals as pictures: word by word of chosen sentences, and by a condition of the experiment."""

from typing import TYPE_CHECKING

import numpy as np

from utils.figures.style import LINE_COLORS, SCREEN, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Characters of a condition's name and of a sentence's title.
LONGEST_NAME, LONGEST_TITLE = 40, 90
# Words of a sentence, and conditions, that a page has room for.
MOST_WORDS, MOST_CONDITIONS = 40, 60


def words_figure(sentences: dict[str, list[tuple[str, float]]]) -> "Figure":
    """Return a panel for each sentence, with the surprisal of every word, or of the first ones of many.

    Args:
        sentences: title of each, its words and their surprisals in bits.
    """
    sentences = {
        f"{title} ({MOST_WORDS} of {len(words)} words)" if len(words) > MOST_WORDS else title: words[:MOST_WORDS]
        for title, words in sentences.items()
    }
    longest = max(len(words) for words in sentences.values())
    panel = 2.0
    height = panel * len(sentences)
    figure = new_figure(max(4.5, 1.1 + 0.62 * longest), height)
    highest = max((bits for words in sentences.values() for _, bits in words), default=1.0)
    for place, (title, words) in enumerate(sentences.items()):
        width = figure.get_figwidth()
        bottom = (height - panel * (place + 1) + 0.78) / height
        axes = figure.add_axes((0.75 / width, bottom, 1 - 0.95 / width, (panel - 1.1) / height))
        axes.plot(range(len(words)), [bits for _, bits in words], marker="o", color=LINE_COLORS[4], linewidth=1.2)
        axes.set_xticks(range(len(words)), [word for word, _ in words], rotation=35, ha="right", size=SCREEN.font)
        # All panels have the axes of the longest and of the most surprising one.
        axes.set_xlim(-0.5, longest - 0.5)
        axes.set_ylim(0, 1.08 * max(highest, 0.1))
        axes.set_ylabel("bits")
        axes.set_title(shortened(title, LONGEST_TITLE), size=SCREEN.title, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def conditions_figure(column: str, values: dict[str, list[float]]) -> "Figure":
    """Return the mean surprisal of each condition with its 95 % interval (Student's t over sentences).

    Args:
        column: of the metadata.
        values: of each condition, the mean surprisals of its sentences, in bits per token. Of many conditions, those
            of the most sentences are shown.
    """
    from scipy.stats import t

    title = f"by {shortened(column, LONGEST_NAME)}"
    if len(values) > MOST_CONDITIONS:
        title += f" ({MOST_CONDITIONS} of {len(values):,})"
        largest = sorted(values, key=lambda name: -len(values[name]))[:MOST_CONDITIONS]
        values = {name: own for name, own in values.items() if name in set(largest)}
    height = 1.0 + 0.3 * len(values)
    names = [shortened(name, LONGEST_NAME) for name in values]
    left = 0.3 + 0.075 * max(map(len, names))
    figure = new_figure(left + 4.6, height)
    width = figure.get_figwidth()
    axes = figure.add_axes((left / width, 0.5 / height, 1 - (left + 0.9) / width, 1 - 0.9 / height))
    for place, own in enumerate(values.values()):
        mean = float(np.mean(own))
        reach = 0.0
        if len(own) > 1:
            reach = float(t.ppf(0.975, len(own) - 1) * np.std(own, ddof=1) / np.sqrt(len(own)))
        axes.errorbar(mean, place, xerr=reach or None, fmt="o", color=LINE_COLORS[4], capsize=3)
        axes.annotate(f"n = {len(own):,}", (1.02, place), xycoords=("axes fraction", "data"), va="center", size=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("mean surprisal of a token, bits; 95 % interval over sentences")
    axes.set_title(title, size=SCREEN.title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def shortened(text: str, length: int) -> str:
    """Return a text that fits, and that no figure reads as a formula."""
    text = " ".join(text.split())
    text = text if len(text) <= length else text[: length - 1] + "\u2026"
    return text.replace("$", r"\$")
