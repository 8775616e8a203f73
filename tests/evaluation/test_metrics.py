import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from utils.evaluation.metrics import (
    METRICS,
    chance_macro_f1,
    chance_warning,
    classification_metrics,
    confidence_intervals,
    confusion_matrix,
    per_register_metrics,
    rare_registers,
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


@given(LABELS)
def test_the_average_over_registers_with_texts_equals_scikit_learns(pairs):
    labels, predictions = np.array(pairs).T
    present = f1_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0)
    assert classification_metrics(labels, predictions, 8)["macro_f1_present"] == pytest.approx(present)


def test_one_prediction_of_a_register_without_texts():
    """It moves macro F1, the average over one register more, but not the average over those that have texts."""
    labels = np.repeat([0, 1, 2, 3, 4, 5], 20)
    predictions = labels.copy()
    without = classification_metrics(labels, predictions, 8)
    predictions[0] = 7
    once = classification_metrics(labels, predictions, 8)
    assert without["macro_f1"] - once["macro_f1"] > 0.13
    assert without["macro_f1_present"] - once["macro_f1_present"] < 0.01


def test_chance_is_what_guessing_gives():
    generator = np.random.default_rng(1)
    counts = np.array([800, 150, 0, 50])
    labels = np.repeat(np.arange(4), counts)
    guesses = [classification_metrics(labels, generator.permutation(labels), 4)["macro_f1"] for _ in range(200)]
    assert chance_macro_f1(counts) == pytest.approx(max(1 / 3, 2 * 0.8 / 1.8 / 3))
    assert np.mean(guesses) == pytest.approx(1 / 3, abs=0.005)
    most = classification_metrics(labels, np.zeros(1000, dtype=int), 4)["macro_f1"]
    assert chance_macro_f1(np.array([990, 10])) == pytest.approx(max(0.5, 2 * 0.99 / 1.99 / 2))
    assert most == pytest.approx(2 * 0.8 / 1.8 / 3)
    assert "no better than chance on the fr texts: macro F1 0.296" in chance_warning(counts, most, "fr")
    assert chance_warning(counts, 0.5, "fr") is None
    assert chance_warning(np.array([9, 0]), 0.0, "fr") is None, "there is nothing to tell apart"


def test_rare_registers_have_texts_but_few():
    matrix = np.array([[3, 0, 0], [0, 0, 0], [1, 2, 20]])
    assert rare_registers(matrix, ["IN", "OP", "HI"]) == {"IN": 3}
