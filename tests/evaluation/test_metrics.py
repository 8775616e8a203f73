import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from utils.evaluation.metrics import (
    METRICS,
    classification_metrics,
    confidence_intervals,
    confusion_matrix,
    per_register_metrics,
    summary_metrics,
)

LABELS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)


@pytest.mark.slow
@given(LABELS)
def test_metrics_equal_scikit_learns(pairs):
    labels, predictions = np.array(pairs).T
    metrics = classification_metrics(labels, predictions, 8)
    macro = precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0)
    assert [metrics[name] for name in ("precision", "recall", "macro_f1")] == pytest.approx(macro[:3])
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert metrics["micro_f1"] == pytest.approx(f1_score(labels, predictions, average="micro", zero_division=0))
    assert metrics["weighted_f1"] == pytest.approx(f1_score(labels, predictions, average="weighted", zero_division=0))
    registers = list("ABCDEFGH")
    single = per_register_metrics(confusion_matrix(labels, predictions, 8), registers)
    expected = precision_recall_fscore_support(labels, predictions, labels=range(8), average=None, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [single[register][name] for register in registers] == pytest.approx(values)


@pytest.mark.fault(10)
def test_cells_without_texts_are_zero():
    matrix = confusion_matrix(np.array([0, 0, 2]), np.array([0, 2, 2]), 4)
    assert matrix.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_intervals_equal_those_of_resampled_texts():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 4, size=300)
    predictions = np.where(generator.random(300) < 0.7, labels, generator.integers(0, 4, size=300))
    matrix = confusion_matrix(labels, predictions, 5)
    intervals = confidence_intervals(matrix, seed=1, resamples=4000)
    draws = generator.integers(0, 300, size=(4000, 300))
    resampled = summary_metrics(np.stack([confusion_matrix(labels[d], predictions[d], 5) for d in draws[:1500]]))
    for name in METRICS:
        direct = np.quantile(resampled[name], [0.025, 0.975])
        assert intervals[name] == pytest.approx(direct, abs=0.01)
        assert intervals[name][0] < summary_metrics(matrix)[name] < intervals[name][1]
    assert confidence_intervals(matrix, seed=1) == confidence_intervals(matrix, seed=1)
    assert confidence_intervals(matrix, seed=1) != confidence_intervals(matrix, seed=2)


def test_intervals_of_one_text_and_of_perfect_predictions():
    assert confidence_intervals(np.array([[1, 0], [0, 0]]), seed=1)["macro_f1"] == [1.0, 1.0]
    assert confidence_intervals(np.diag([5, 7]), seed=1)["accuracy"] == [1.0, 1.0]
