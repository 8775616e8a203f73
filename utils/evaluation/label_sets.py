"""Which labels texts got, by the labels that they have: the confusion matrix of texts with any number of labels."""

from typing import Any

import numpy as np

# Combinations of registers that fewer texts have are not counted by themselves.
MINIMUM = 10


def joint_counts(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count the texts that have a label (rows) and got one (columns), shape [labels, labels].

    A text with several labels is in several rows.

    Args:
        true: 0 or 1, shape [texts, labels].
        predicted: likewise.
    """
    return np.asarray(true, dtype=np.int64).T @ np.asarray(predicted, dtype=np.int64)


def hybrid_rows(
    true: np.ndarray, predicted: np.ndarray, names: list[str], subregisters: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """Count what texts got that have the same two or more registers, if there are `MINIMUM` of them.

    Args:
        true: 0 or 1, shape [texts, labels].
        predicted: likewise.
        names: of the labels.
        subregisters: that stand under others, by these; they make no hybrid.

    Returns:
        The most frequent first: `registers`, number of `texts`, `predicted` (texts that got each label), `complete`
        (texts that got all of the registers).
    """
    below = {label for labels in subregisters.values() for label in labels}
    main = [place for place, name in enumerate(names) if name not in below]
    combinations, which, numbers = np.unique(np.asarray(true)[:, main], axis=0, return_inverse=True, return_counts=True)
    rows = []
    for index, (combination, number) in enumerate(zip(combinations, numbers.tolist(), strict=True)):
        places = [main[place] for place in np.flatnonzero(combination)]
        if len(places) > 1 and number >= MINIMUM:
            got = np.asarray(predicted, dtype=np.int64)[which == index]
            rows.append(
                {
                    "registers": [names[place] for place in places],
                    "texts": number,
                    "predicted": got.sum(0).tolist(),
                    "complete": int(got[:, places].all(1).sum()),
                }
            )
    return sorted(rows, key=lambda row: (-row["texts"], row["registers"]))
