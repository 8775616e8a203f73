"""Thresholds of labels, chosen for a metric."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from utils.evaluation.metrics import multilabel_metrics
from utils.evaluation.thresholds import CANDIDATES, choose_threshold, choose_thresholds, decide, lift_parents


def random_texts(seed, texts=60, labels=4):
    """True labels, and probabilities that know something of them, on a scale of its own for each label."""
    generator = np.random.default_rng(seed)
    true = (generator.random((texts, labels)) < generator.uniform(0.05, 0.6, labels)).astype(int)
    scale = generator.uniform(0.3, 1, labels)
    return true, np.clip(generator.random((texts, labels)) * 0.6 + 0.4 * true, 0, 1) * scale


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["micro", "macro", "weighted"]))
def test_no_other_candidate_is_better(seed, average):
    true, probabilities = random_texts(seed)
    chosen = choose_threshold(true, probabilities, f"{average}_f1")
    every = [f1_score(true, decide(probabilities, x), average=average, zero_division=0) for x in CANDIDATES]
    reached = f1_score(true, decide(probabilities, chosen), average=average, zero_division=0)
    assert reached == pytest.approx(max(every))
    best = CANDIDATES[np.array(every) >= max(every) - 1e-9]
    assert abs(chosen - 0.5) == pytest.approx(abs(best - 0.5).min())
    own = choose_thresholds(true, probabilities, f"{average}_f1")
    reached_by_own = f1_score(true, decide(probabilities, own), average=average, zero_division=0)
    assert reached_by_own >= reached - 1e-9
    if average == "macro":
        # The labels do not depend on each other: each has its own best score.
        for label in range(true.shape[1]):
            alone = [f1_score(true[:, label], probabilities[:, label] >= x, zero_division=0) for x in CANDIDATES]
            found = f1_score(true[:, label], decide(probabilities, own)[:, label], zero_division=0)
            assert found == pytest.approx(max(alone))


def test_a_label_that_no_text_has_keeps_the_threshold_of_all():
    true, probabilities = random_texts(1)
    true[:, 2] = 0
    own = choose_thresholds(true, probabilities)
    assert own[2] == choose_threshold(true, probabilities) and len(set(own)) > 1
    assert multilabel_metrics(true, decide(probabilities, own))["micro_f1"] > 0.5


def test_a_label_is_given_at_its_threshold():
    assert decide(np.array([[0.3, 0.29, 0.5]]), np.array([0.3, 0.3, 0.6])).tolist() == [[1, 0, 0]]
    assert decide(np.array([[0.1 + 0.2]]), 0.3).tolist() == [[1]]


def test_no_register_has_less_than_its_subregisters():
    probabilities = np.array([[0.2, 0.7, 0.1, 0.3], [0.9, 0.7, 0.1, 0.3]])
    lifted = lift_parents(probabilities, ["IN", "dt", "OP", "rv"], {"dt": "IN", "rv": "OP"})
    assert lifted.tolist() == [[0.7, 0.7, 0.3, 0.3], [0.9, 0.7, 0.3, 0.3]]
    assert probabilities[0, 0] == 0.2
