"""Calibration: whether a classifier's probabilities are how often it is right."""

from typing import Any

import numpy as np

from utils.cli.progress import progress
from utils.evaluation.results import RunResults, load_predictions, order_langs

NUM_BINS = 15


def reliability(confidences: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS) -> dict[str, Any]:
    """Compare confidence with accuracy in bins of equal width.

    The expected calibration error is the mean over the texts of the distance between the two in a text's bin:
    Naeini, Cooper & Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; with the
    probability of the predicted label and 15 bins as in Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Args:
        confidences: probability of the predicted label, between 0 and 1, shape [n].
        correct: whether it is the true one, shape [n].
        num_bins: bins between 0 and 1, each without its lower end.

    Returns:
        expected_calibration_error, mean_confidence, accuracy, and bins: count, confidence and accuracy of each
        that holds texts, with its low and high end.

    Raises:
        ValueError: without texts.
    """
    confidences, correct = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not len(confidences):
        raise ValueError("no texts")
    edges = np.linspace(0, 1, num_bins + 1)
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    filled = np.flatnonzero(counts)
    sums = (np.bincount(places, weights=values, minlength=num_bins)[filled] for values in (confidences, correct))
    confidence, accuracy = (values / counts[filled] for values in sums)
    return {
        "expected_calibration_error": float(counts[filled] @ np.abs(confidence - accuracy) / len(confidences)),
        "mean_confidence": float(confidences.mean()),
        "accuracy": float(correct.mean()),
        "bins": [
            {
                "low": float(edges[place]),
                "high": float(edges[place + 1]),
                "count": int(counts[place]),
                "confidence": float(x),
                "accuracy": float(y),
            }
            for place, x, y in zip(filled, confidence, accuracy, strict=True)
        ],
    }


def run_reliability(run: RunResults) -> dict[str, dict[str, Any]]:
    """Return the reliability (see `reliability`) of a run's predictions on every language.

    Raises:
        UserError: if predictions are missing or damaged.
    """
    found = {}
    for lang in order_langs(run, list(run.evaluations)):
        table = load_predictions(run.folder, lang)
        registers = [name for name in table.columns if name not in ("index", "true", "predicted")]
        confidences = table[registers].to_numpy().max(axis=1)
        found[lang] = reliability(confidences, (table["true"] == table["predicted"]).to_numpy())
    return found


def reliability_of_all(runs: list[RunResults]) -> dict[str, dict[str, Any]]:
    """Return the reliability of every run on every language, by the run's name."""
    return {run.name: run_reliability(run) for run in progress(runs, desc="predictions")}


def calibration_rows(run: RunResults, found: dict[str, dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Return a row per evaluation language: the expected calibration error, confidence and accuracy."""
    columns = ("expected_calibration_error", "mean_confidence", "accuracy")
    return [
        {"model": run.model, "train_langs": run.train_langs, "eval_lang": lang}
        | {"num_texts": sum(row["count"] for row in result["bins"])}
        | {name: result[name] for name in columns}
        for lang, result in (found or {}).items()
    ]
