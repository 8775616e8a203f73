"""The temperature that suits a classifier's logits."""

import numpy as np
import pytest

from utils.evaluation.calibration import TEMPERATURES, fit_temperature
from utils.evaluation.labelling import LabelSets, OneLabel
from utils.evaluation.metrics import cross_entropy

FIVE = OneLabel(["a", "b", "c", "d", "e"])


def draw(temperature, count=20_000):
    """Logits, and labels that are drawn with the probabilities that the logits have at a temperature."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (count, 5)).astype(np.float32)
    shares = np.exp(logits / temperature)
    shares /= shares.sum(1, keepdims=True)
    return logits, (shares.cumsum(1) < generator.random((count, 1))).sum(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.7])
def test_the_temperature_of_labels_is_found(temperature):
    logits, labels = draw(temperature)
    found = fit_temperature(logits, labels, FIVE)
    assert found == pytest.approx(temperature, rel=0.03)
    assert cross_entropy(logits / found, labels) <= cross_entropy(logits, labels) + 1e-9


def test_without_a_wrong_label_nothing_is_fitted():
    logits, _ = draw(1.0, 10)
    assert fit_temperature(logits, logits.argmax(1), FIVE) == 1.0


@pytest.mark.parametrize("temperature", [0.5, 2.7])
def test_the_temperature_of_label_sets_is_found(temperature):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (20_000, 5)).astype(np.float32)
    labels = (generator.random(logits.shape) < 1 / (1 + np.exp(-logits / temperature))).astype(np.int8)
    sets = LabelSets(FIVE.names)
    found = fit_temperature(logits, labels, sets)
    assert found == pytest.approx(temperature, rel=0.03)
    assert sets.loss(logits / found, labels) < sets.loss(logits, labels)
    assert fit_temperature(logits, (logits > 0).astype(np.int8), sets) == 1.0


def test_labels_that_logits_know_nothing_of_end_at_the_bound():
    logits, _ = draw(1.0)
    assert fit_temperature(logits, (-logits).argmax(1), FIVE) == pytest.approx(TEMPERATURES[1], rel=0.01)
