import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_recall_fscore_support

from utils.evaluation.metrics import (
    METRICS,
    MULTILABEL_METRICS,
    chance_macro_f1,
    chance_warning,
    classification_metrics,
    confidence_intervals,
    confusion_matrix,
    mean_average_precision,
    multilabel_intervals,
    multilabel_metrics,
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
    assert rare_registers(matrix.sum(1), ["IN", "OP", "HI"]) == {"IN": 3}


SETS = st.lists(st.tuples(st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4))), min_size=1, max_size=40)


def indicators(sets, num_labels=6):
    return np.array([[int(label in labels) for label in range(num_labels)] for labels in sets])


@pytest.mark.slow
@settings(deadline=None)
@given(SETS)
def test_metrics_of_several_labels_equal_scikit_learns(pairs):
    """The last label has no texts and no predictions."""
    true, predicted = (indicators(sets) for sets in zip(*pairs, strict=True))
    metrics = multilabel_metrics(true, predicted)
    for average, names in (
        ("macro", ("precision", "recall", "macro_f1")),
        ("micro", ("micro_precision", "micro_recall", "micro_f1")),
    ):
        expected = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)[:3]
        assert [metrics[name] for name in names] == pytest.approx(expected)
    assert metrics["weighted_f1"] == pytest.approx(f1_score(true, predicted, average="weighted", zero_division=0))
    assert metrics["subset_accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert metrics["label_cardinality"] == pytest.approx(np.mean([len(labels) for labels, _ in pairs]))
    assert metrics["predicted_cardinality"] == pytest.approx(np.mean([len(labels) for _, labels in pairs]))
    present = sorted(set().union(*(labels for labels, _ in pairs)))
    if present:
        expected = f1_score(true, predicted, average=None, zero_division=0)[present]
        assert metrics["macro_f1_present"] == pytest.approx(expected.mean())
    else:
        assert metrics["macro_f1_present"] == 0


def test_the_mean_average_precision_is_that_of_labels_with_texts():
    generator = np.random.default_rng(3)
    true = (generator.random((50, 5)) < 0.3).astype(int)
    true[:, 4] = 0
    probabilities = generator.random((50, 5))
    expected = average_precision_score(true[:, :4], probabilities[:, :4], average="macro")
    assert mean_average_precision(true, probabilities) == pytest.approx(expected)
    assert mean_average_precision(true * 0, probabilities) == 0


def test_intervals_of_several_labels_equal_those_of_resampled_texts():
    generator = np.random.default_rng(5)
    true = (generator.random((150, 4)) < 0.35).astype(int)
    predicted = np.where(generator.random((150, 4)) < 0.2, 1 - true, true)
    intervals = multilabel_intervals(true, predicted, seed=1, resamples=4000)
    draws = [generator.integers(0, 150, 150) for _ in range(4000)]
    scores = [multilabel_metrics(true[rows], predicted[rows]) for rows in draws]
    for name in MULTILABEL_METRICS:
        expected = np.quantile([score[name] for score in scores], [0.025, 0.975])
        assert intervals[name] == pytest.approx(expected, abs=0.012), name
    assert multilabel_intervals(true, predicted, seed=1) == multilabel_intervals(true, predicted, seed=1)
    assert multilabel_intervals(true, true, seed=0)["micro_f1"] == [1, 1]
