"""From which probability on a text has a label, where texts have any number of labels.

Thresholds are chosen on validation texts. Chosen on the texts that are then reported, as published scores sometimes
are, they say how well a model could do if it knew these texts.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from utils.evaluation.metrics import multilabel_summary

# Where a text has a label if nothing else is known.
DEFAULT = 0.5
CANDIDATES = np.round(np.arange(0.05, 0.951, 0.01), 2)
# For which the threshold of every label may be chosen.
Metric = Literal["micro_f1", "macro_f1", "weighted_f1"]
# 0.5 for all, the best one for all, or the best of each label.
ThresholdChoice = Literal["0.5", "global", "per_label"]
# Rounds through the labels; the score cannot fall, and hardly rises after the second.
ROUNDS = 5


def decide(probabilities: np.ndarray, thresholds: np.ndarray | float) -> np.ndarray:
    """Return which labels texts have: those that reach their threshold; as 0 and 1, shape unchanged.

    Args:
        probabilities: shape [texts, labels].
        thresholds: of every label, shape [labels], or one for all.
    """
    # A probability that is rounded when it is written must not fall below its threshold.
    return (probabilities >= np.asarray(thresholds) - 1e-9).astype(np.int8)


def choose_threshold(true: np.ndarray, probabilities: np.ndarray, metric: Metric = "micro_f1") -> float:
    """Return the one threshold for all labels that gives the best score; of several the one nearest to 0.5.

    Args:
        true: 0 or 1, shape [texts, labels].
        probabilities: shape [texts, labels].
        metric: what is to be best.
    """
    hits, predicted = _counts(true, probabilities)
    return float(CANDIDATES[_best(_scores(hits, true.sum(0), predicted, metric))])


def choose_thresholds(true: np.ndarray, probabilities: np.ndarray, metric: Metric = "micro_f1") -> np.ndarray:
    """Return a threshold for every label, which together give a better score than one for all, or the same.

    The labels take turns, each choosing the best threshold while the others keep theirs, until none moves. A label that
    no text has keeps that of all.

    Args:
        true: 0 or 1, shape [texts, labels].
        probabilities: shape [texts, labels].
        metric: what is to be best.
    """
    hits, predicted = _counts(true, probabilities)
    num_true, columns = true.sum(0), np.arange(true.shape[1])
    # Of each label, the index of its candidate.
    chosen = np.full(len(columns), _best(_scores(hits, num_true, predicted, metric)))
    for _ in range(ROUNDS):
        before = chosen.copy()
        for label in np.flatnonzero(num_true):
            # Each candidate of this label, beside what the others have chosen.
            own_hits = np.repeat(hits[chosen, columns][None], len(CANDIDATES), axis=0)
            own_predicted = np.repeat(predicted[chosen, columns][None], len(CANDIDATES), axis=0)
            own_hits[:, label], own_predicted[:, label] = hits[:, label], predicted[:, label]
            scores = _scores(own_hits, num_true, own_predicted, metric)
            if scores.max() > scores[chosen[label]] + 1e-12:
                chosen[label] = _best(scores)
        if (chosen == before).all():
            break
    return CANDIDATES[chosen]


def _counts(true: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return hits and predictions of every candidate and label, shape [candidates, labels]."""
    decided = (decide(probabilities, candidate) for candidate in CANDIDATES)
    pairs = [((found & true.astype(np.int8)).sum(0), found.sum(0)) for found in decided]
    return np.array([hits for hits, _ in pairs]), np.array([predicted for _, predicted in pairs])


def _scores(hits: np.ndarray, num_true: np.ndarray, predicted: np.ndarray, metric: Metric) -> np.ndarray:
    return multilabel_summary(hits, np.broadcast_to(num_true, hits.shape), predicted, np.zeros(len(hits)))[metric]


def _best(scores: np.ndarray) -> int:
    """Return the index of the best candidate, of several that of the one nearest to 0.5."""
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return int(best[np.argmin(np.abs(CANDIDATES[best] - DEFAULT))])


def lift_parents(probabilities: np.ndarray, labels: list[str], parents: Mapping[str, str]) -> np.ndarray:
    """Return probabilities of which no register has less than one of its subregisters.

    Args:
        probabilities: shape [texts, labels].
        labels: their names.
        parents: the register of each subregister, see `utils.data.registers.Registers.within`.
    """
    lifted = probabilities.copy()
    for label, parent in parents.items():
        column = labels.index(parent)
        lifted[:, column] = np.maximum(lifted[:, column], probabilities[:, labels.index(label)])
    return lifted
