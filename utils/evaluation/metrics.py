"""Classification metrics from labels and predictions, with bootstrap confidence intervals."""

from typing import Any

import numpy as np

METRICS = ("accuracy", "precision", "recall", "micro_f1", "macro_f1", "weighted_f1", "macro_f1_present")
# Of texts with any number of labels.
MULTILABEL_METRICS = (
    *("subset_accuracy", "precision", "recall", "micro_precision", "micro_recall"),
    *("micro_f1", "macro_f1", "weighted_f1", "macro_f1_present"),
)
# Registers with fewer texts make intervals of averages over registers too narrow.
RARE = 10
# Resamples whose cases are in memory at a time.
DRAWN_AT_ONCE = 100


def metric_title(metric: str) -> str:
    """Return a metric's name for people: micro F1 for micro_f1."""
    return metric.replace("_f1", " F1").replace("_present", " (with texts)").replace("_", " ")


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> np.ndarray:
    """Count true labels (rows) against predictions (columns), shape [num_labels, num_labels]."""
    # scikit-learn has this too, but importing it takes longer than evaluating a language.
    pairs = np.asarray(labels) * num_labels + np.asarray(predictions)
    return np.bincount(pairs, minlength=num_labels**2).reshape(num_labels, num_labels)


def summary_metrics(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics of many confusion matrices at once.

    precision, recall and macro_f1 are averages over the labels that occur in the true labels or the
    predictions; a label's undefined score counts as 0 (scikit-learn's defaults). So one prediction of a label that
    no text has lowers them: macro_f1_present is the average of the same scores over the labels that texts have, and
    is an average over the same labels for all models.

    Args:
        matrices: counts, rows true, columns predicted, shape [..., num_labels, num_labels].

    Returns:
        One array of shape [...] per name in `METRICS`.
    """
    matrices = np.asarray(matrices, dtype=np.float64)
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    true, predicted = matrices.sum(-1), matrices.sum(-2)
    total = true.sum(-1)
    occurs = (true + predicted) > 0
    num_occurring, num_present = np.maximum(occurs.sum(-1), 1), np.maximum((true > 0).sum(-1), 1)
    precision, recall, f1 = _scores(hits, true, predicted)
    accuracy = _divide(hits.sum(-1), total)
    return {
        "accuracy": accuracy,
        "precision": precision.sum(-1) / num_occurring,
        "recall": recall.sum(-1) / num_occurring,
        # With one label per text every error is one false positive and one false negative.
        "micro_f1": accuracy,
        "macro_f1": f1.sum(-1) / num_occurring,
        "weighted_f1": _divide((f1 * true).sum(-1), total),
        "macro_f1_present": (f1 * (true > 0)).sum(-1) / num_present,
    }


def classification_metrics(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> dict[str, float]:
    """Return every metric of `METRICS` for one set of predictions."""
    values = summary_metrics(confusion_matrix(labels, predictions, num_labels))
    return {name: float(value) for name, value in values.items()}


def multilabel_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return the metrics of texts that have any number of labels, and how many labels they have on average.

    precision, recall and macro_f1 are averages over all labels; an undefined score counts as 0 (scikit-learn's
    defaults for such arrays). macro_f1_present is the average over the labels that texts have.

    Args:
        true: 0 or 1, shape [texts, labels].
        predicted: likewise.

    Returns:
        The metrics of `MULTILABEL_METRICS`; label_cardinality of the texts, predicted_cardinality of the predictions.
    """
    true, predicted = np.asarray(true, dtype=bool), np.asarray(predicted, dtype=bool)
    hits, equal = (true & predicted).sum(0), (true == predicted).all(1)
    values = multilabel_summary(hits, true.sum(0), predicted.sum(0), equal.mean())
    return {name: float(value) for name, value in values.items()} | {
        "label_cardinality": float(true.sum(1).mean()),
        "predicted_cardinality": float(predicted.sum(1).mean()),
    }


def multilabel_summary(
    hits: np.ndarray, true: np.ndarray, predicted: np.ndarray, subset_accuracy: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute the metrics of many sets of texts at once, see `multilabel_metrics`.

    Args:
        hits: texts with a label that are predicted to have it, shape [..., labels].
        true: texts with the label, shape [..., labels].
        predicted: texts that are predicted to have it, shape [..., labels].
        subset_accuracy: share of the texts whose labels are all right and none too many, shape [...].

    Returns:
        One array of shape [...] per name in `MULTILABEL_METRICS`.
    """
    precision, recall, f1 = _scores(hits, true, predicted)
    values = (
        subset_accuracy,
        precision.mean(-1),
        recall.mean(-1),
        *_scores(hits.sum(-1), true.sum(-1), predicted.sum(-1)),
        f1.mean(-1),
        _divide((f1 * true).sum(-1), true.sum(-1)),
        (f1 * (true > 0)).sum(-1) / np.maximum((true > 0).sum(-1), 1),
    )
    return dict(zip(MULTILABEL_METRICS, values, strict=True))


def mean_average_precision(true: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of the labels' average precisions, over the labels that texts have; 0 if none has any.

    Args:
        true: 0 or 1, shape [texts, labels].
        probabilities: of the labels, shape [texts, labels].
    """
    from sklearn.metrics import average_precision_score

    present = np.flatnonzero(true.any(0))
    if not len(present):
        return 0.0
    return float(average_precision_score(true[:, present], probabilities[:, present], average="macro"))


def per_register_metrics(matrix: np.ndarray, registers: list[str]) -> dict[str, dict[str, Any]]:
    """Return precision, recall, f1 and support (number of true texts) of every register, from a confusion matrix."""
    return _per_register(np.diag(matrix), matrix.sum(1), matrix.sum(0), registers)


def multilabel_per_register(true: np.ndarray, predicted: np.ndarray, registers: list[str]) -> dict[str, dict[str, Any]]:
    """Return the same of texts that have any number of labels.

    Args:
        true: 0 or 1, shape [texts, labels].
        predicted: likewise.
        registers: the labels.
    """
    true, predicted = np.asarray(true, dtype=bool), np.asarray(predicted, dtype=bool)
    return _per_register((true & predicted).sum(0), true.sum(0), predicted.sum(0), registers)


def _per_register(
    hits: np.ndarray, true: np.ndarray, predicted: np.ndarray, registers: list[str]
) -> dict[str, dict[str, Any]]:
    precision, recall, f1 = _scores(hits, true, predicted)
    return {
        register: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(true[i]),
        }
        for i, register in enumerate(registers)
    }


def rare_registers(counts: np.ndarray, registers: list[str]) -> dict[str, int]:
    """Return the registers that have texts, but fewer than `RARE`, with their number.

    Args:
        counts: texts of every register, shape [number of registers].
        registers: their names.
    """
    return {name: count for name, count in zip(registers, counts.tolist(), strict=True) if 0 < count < RARE}


def chance_macro_f1(counts: np.ndarray) -> float:
    """Return the macro F1 (over the labels that texts have) that needs no text to be read.

    The better one of two: predicting the most frequent label, whose F1 is 2p / (1 + p) for its share p, all others
    being 0; and drawing labels by their shares, which gives each label with share p a precision, a recall and so an
    F1 of p on average, whose mean over k labels is 1/k.

    Args:
        counts: texts of every label, shape [number of labels].
    """
    present = np.asarray(counts, dtype=np.float64)
    present = present[present > 0]
    if not len(present):
        return 0.0
    share = present.max() / present.sum()
    return float(max(2 * share / (1 + share), 1.0) / len(present))


def chance_warning(counts: np.ndarray, macro_f1_present: float, what: str) -> str | None:
    """Return a sentence about a model that is no better than chance; None about others.

    Args:
        counts: texts of every label, shape [number of labels].
        macro_f1_present: of the model on these texts.
        what: the texts are: validation texts, or those of a language.
    """
    chance = chance_macro_f1(counts)
    if len(np.flatnonzero(counts)) < 2 or macro_f1_present > chance:
        return None
    return (
        f"no better than chance on the {what} texts: macro F1 {macro_f1_present:.3f}, "
        f"guessing by the labels' shares or the most frequent label gives {chance:.3f}"
    )


def confidence_intervals(
    matrix: np.ndarray, seed: int, resamples: int = 1000, level: float = 0.95
) -> dict[str, list[float]]:
    """Bootstrap the metrics: percentile intervals (Efron & Tibshirani 1993, chapter 13).

    Where labels have under `RARE` texts, those of averages over labels cover the true value in 85 to 90 % of the cases
    only (simulated); so do basic, normal, BCa, stratified and Dirichlet intervals, or less.

    Resampling n texts with replacement draws the cells of the confusion matrix from a multinomial
    distribution, so all resamples are drawn and scored in one go.

    Args:
        matrix: counts, rows true, columns predicted.
        seed: seed of the resampling.
        resamples: how many.
        level: coverage of the intervals.

    Returns:
        ``[low, high]`` per metric.
    """
    matrix = np.asarray(matrix)
    count = int(matrix.sum())
    draws = np.random.default_rng(seed).multinomial(count, matrix.ravel() / count, size=resamples)
    return percentiles(summary_metrics(draws.reshape(resamples, *matrix.shape)), level)


def multilabel_intervals(
    true: np.ndarray, predicted: np.ndarray, seed: int, resamples: int = 1000, level: float = 0.95
) -> dict[str, list[float]]:
    """Bootstrap the metrics of texts that have any number of labels, see `confidence_intervals`.

    Texts whose labels are equal, true ones and predicted ones, are one case of a multinomial distribution.

    Args:
        true: 0 or 1, shape [texts, labels].
        predicted: likewise.
        seed: of the resampling.
        resamples: how many.
        level: coverage of the intervals.

    Returns:
        ``[low, high]`` per metric of `MULTILABEL_METRICS`.
    """
    true, predicted = np.asarray(true, dtype=bool), np.asarray(predicted, dtype=bool)
    cases, numbers = np.unique(np.hstack([true, predicted]), axis=0, return_counts=True)
    true, predicted = np.split(cases, 2, axis=1)
    parts = [true & predicted, true, predicted, (true == predicted).all(1, keepdims=True)]
    columns = np.hstack(parts).astype(np.float32)
    shares, generator, sums = numbers / numbers.sum(), np.random.default_rng(seed), []
    for start in range(0, resamples, DRAWN_AT_ONCE):
        size = min(DRAWN_AT_ONCE, resamples - start)
        # In float32 whole numbers up to 16 million are exact.
        sums.append(generator.multinomial(numbers.sum(), shares, size=size).astype(np.float32) @ columns)
    hits, with_label, predicted_with, equal = np.split(np.concatenate(sums), np.cumsum([true.shape[1]] * 3), axis=1)
    return percentiles(multilabel_summary(hits, with_label, predicted_with, equal[:, 0] / numbers.sum()), level)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy over the texts, in nats.

    Args:
        logits: shape [texts, labels].
        labels: true ones, shape [texts].
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_normalizer = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_normalizer - shifted[np.arange(len(labels)), labels]))


def binary_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean binary cross-entropy over texts and labels, in nats.

    Args:
        logits: shape [texts, labels].
        labels: 0 or 1, shape [texts, labels].
    """
    logits = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0, logits) - logits * labels))


def percentiles(values: dict[str, np.ndarray], level: float) -> dict[str, list[float]]:
    """Return the middle of resampled metrics, as ``[low, high]`` each.

    Args:
        values: of every metric, shape [resamples].
        level: which share lies between.
    """
    tail = (1 - level) / 2
    return {name: [float(q) for q in np.quantile(value, [tail, 1 - tail])] for name, value in values.items()}


def _scores(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1."""
    return _divide(hits, predicted), _divide(hits, true), _divide(2 * hits, true + predicted)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator, denominator = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
