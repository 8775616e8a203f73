"""Calibration: whether a classifier's probabilities are how often it is right."""

from typing import Any

import numpy as np

from utils.cli.progress import progress
from utils.evaluation.labelling import Labelling, label_matrix
from utils.evaluation.results import RunResults, load_predictions, order_langs

NUM_BINS = 15
# Temperatures that are looked at; beyond, validation texts are too few to tell.
TEMPERATURES = (0.1, 10.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray, labelling: Labelling) -> float:
    """Return the temperature at which a classifier's probabilities suit these texts best.

    Logits are divided by it; the order of the labels stays. It has the lowest cross-entropy: Guo et al. 2017, "On
    Calibration of Modern Neural Networks". The texts should be some that the model was not trained on.

    Args:
        logits: shape [n, num_labels].
        labels: true labels, shape [n]; or 0 and 1, shape [n, num_labels].
        labelling: how logits become labels.

    Returns:
        the temperature, to four digits behind the point; 1 if all labels are right, where any lower temperature would
        make them surer.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.astype(np.float64)
    if labelling.is_right(logits, labels):
        return 1.0
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(lambda x: labelling.loss(logits / np.exp(x), labels), bounds=(low, high), method="bounded")
    return round(float(np.exp(found.x)), 4)


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
        expected_calibration_error, error_if_calibrated and error_if_calibrated_95 (see `errors_if_calibrated`),
        mean_confidence, accuracy, and bins: count, confidence and accuracy of each that holds texts, with its low and
        high end.

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
    simulated = errors_if_calibrated(confidences, places)
    return {
        "expected_calibration_error": float(counts[filled] @ np.abs(confidence - accuracy) / len(confidences)),
        "error_if_calibrated": float(simulated.mean()),
        "error_if_calibrated_95": float(np.quantile(simulated, 0.95)),
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


def errors_if_calibrated(
    confidences: np.ndarray, places: np.ndarray, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Simulate the expected calibration error of a model whose confidences are how often it is right.

    The error is a mean of distances, so it is above 0 for such a model too: about 0.18 for 32 texts. Each text is
    taken to be right with the probability of its confidence (the consistency resampling of Broecker & Smith 2007,
    "Increasing the Reliability of Reliability Diagrams").

    Args:
        confidences: shape [n].
        places: bin of each, shape [n].
        resamples: how many; fewer for very many texts, whose error varies little.
        seed: of the simulation.

    Returns:
        the errors, shape [resamples].
    """
    generator = np.random.default_rng(seed)
    _, inverse = np.unique(places, return_inverse=True)
    bins = np.zeros((len(confidences), inverse.max() + 1), dtype=np.float32)
    bins[np.arange(len(confidences)), inverse] = 1
    expected = confidences @ bins
    errors = []
    at_once = max(1, 4_000_000 // len(confidences))
    for start in range(0, max(100, min(resamples, 100_000_000 // len(confidences))), at_once):
        size = min(at_once, resamples - start)
        right = generator.random((size, len(confidences)), dtype=np.float32) < confidences
        errors.append(np.abs(right.astype(np.float32) @ bins - expected).sum(1) / len(confidences))
    return np.concatenate(errors)


def run_reliability(run: RunResults) -> dict[str, dict[str, Any]]:
    """Return the reliability (see `reliability`) of a run's predictions on every language.

    Where texts have any number of labels, confidence is the probability of each label of each text, and correct is
    whether the text has it; `labels` has the same of every label that texts have.

    Raises:
        UserError: if predictions are missing or damaged.
    """
    found = {}
    for lang in order_langs(run, list(run.evaluations)):
        table = load_predictions(run.folder, lang)
        registers = [name for name in table.columns if name not in ("index", "true", "predicted")]
        probabilities = table[registers].to_numpy()
        if run.evaluations[lang].get("labels") == "multi":
            true = label_matrix(table["true"].tolist(), registers)
            own = {
                register: reliability(probabilities[:, place], true[:, place])
                for place, register in enumerate(registers)
                if true[:, place].any()
            }
            found[lang] = reliability(probabilities.ravel(), true.ravel()) | {"labels": own}
        else:
            found[lang] = reliability(probabilities.max(axis=1), (table["true"] == table["predicted"]).to_numpy())
    return found


def reliability_of_all(runs: list[RunResults]) -> dict[str, dict[str, Any]]:
    """Return the reliability of every run on every language, by the run's name."""
    return {run.name: run_reliability(run) for run in progress(runs, desc="predictions")}


def calibration_rows(run: RunResults, found: dict[str, dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Return a row per evaluation language: the expected calibration error, confidence and accuracy.

    Where texts have any number of labels, `register` is empty in the row of all, and each label has a row of its own.
    """
    columns = (
        *("expected_calibration_error", "error_if_calibrated", "error_if_calibrated_95"),
        *("mean_confidence", "accuracy"),
    )
    return [
        {"model": run.model, "train_langs": run.train_langs, "eval_lang": lang, "register": register}
        | {"num_texts": run.evaluations[lang]["num_texts"]}
        | {name: own[name] for name in columns}
        for lang, result in (found or {}).items()
        for register, own in {"": result, **result.get("labels", {})}.items()
    ]


def describe_calibration(rows: list[dict[str, Any]]) -> str:
    """Return the calibration errors for people to read; empty without rows."""
    lines = ["expected calibration error, and what a calibrated model would have on as many texts"] if rows else []
    for row in rows:
        if row["register"]:
            # In the table.
            continue
        lines.append(
            f"  {row['model']}-{row['train_langs']:20} {row['eval_lang']:8} {row['num_texts']:>7,} texts  "
            f"{row['expected_calibration_error']:.3f}, {row['error_if_calibrated']:.3f} "
            f"(at most {row['error_if_calibrated_95']:.3f} in 95 %)"
        )
    return "\n".join(lines)
