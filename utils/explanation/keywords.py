"""Keywords of registers: words that carry a register in many texts and for most seeds.

Stable attribution scores after Ronnqvist et al. 2022, Explaining Classes through Stable Word Attributions (Findings of
ACL): the scores of words in texts that were classified rightly, averaged over texts and over models trained with other
seeds; words that few models agree on are left out.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

# A keyword is in so many texts of the register, and among the highest words of this share of the models.
LEAST_TEXTS, HIGHEST, AGREEING = 3, 100, 0.6
# Words on both sides of an example.
AROUND = 5


@dataclass
class Scored:
    """The words of a text of a register, with their scores for it; `row` is the text's, from 1."""

    row: int
    words: list[str]
    scores: np.ndarray


def keywords(runs: list[list[Scored]], least_texts: int = LEAST_TEXTS) -> list[dict[str, Any]]:
    """Return the keywords of a register in a language, the strongest first.

    Args:
        runs: of each model, the texts of the register that it has classified rightly.
        least_texts: see `LEAST_TEXTS`.

    Returns:
        rows with word, score (1 is the highest word of a text), document_frequency and num_texts (means over the
        models), stability (share of the models that have it among their highest), and an example.
    """
    tables = [_table(texts, least_texts) for texts in runs if texts]
    if not tables:
        return []
    found = []
    for word in sorted({word for table in tables for word in table}):
        own = [table[word] for table in tables if word in table]
        stability = len(own) / len(tables)
        if stability < AGREEING:
            continue
        found.append(
            {
                "word": word,
                "score": round(float(np.mean([score for score, _ in own])), 4),
                "document_frequency": round(float(np.mean([count for _, count in own])), 1),
                "num_texts": round(float(np.mean([len(texts) for texts in runs if texts])), 1),
                "stability": round(stability, 3),
                "num_runs": len(tables),
                "example": example(word, (text for texts in runs for text in texts)),
            }
        )
    return sorted(found, key=lambda row: (-row["score"], row["word"]))


def _table(texts: list[Scored], least_texts: int) -> dict[str, tuple[float, int]]:
    """Return the highest words of a model with their mean scores and document frequencies."""
    scores: dict[str, list[float]] = defaultdict(list)
    for text in texts:
        largest = np.abs(text.scores).max(initial=0)
        own: dict[str, list[float]] = defaultdict(list)
        for word, score in zip(text.words, text.scores, strict=True):
            if any(map(str.isalpha, word)):
                own[word.lower()].append(score / largest if largest else 0.0)
        for word, values in own.items():
            scores[word].append(float(np.mean(values)))
    means = {
        word: (float(np.mean(values)), len(values)) for word, values in scores.items() if len(values) >= least_texts
    }
    highest = sorted(means.items(), key=lambda item: (-item[1][0], item[0]))[:HIGHEST]
    return {word: value for word, value in highest if value[0] > 0}


def example(word: str, texts: Iterable[Scored]) -> str:
    """Return the place where a word has its highest score, with the words around it."""
    best: tuple[float, str] = (-np.inf, "")
    for text in texts:
        for place, (own, score) in enumerate(zip(text.words, text.scores, strict=True)):
            if own.lower() == word and score > best[0]:
                best = (float(score), " ".join(text.words[max(0, place - AROUND) : place + AROUND + 1]))
    return best[1]
