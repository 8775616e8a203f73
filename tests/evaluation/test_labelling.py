"""How logits become labels, of texts with one label and of texts with any number of them."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UserError
from utils.evaluation.label_sets import hybrid_rows, joint_counts
from utils.evaluation.labelling import LabelSets, OneLabel, fit_thresholds, label_matrix, labelling_of, softmax

NAMES = ["IN", "dt", "dp", "NA", "OP"]
BELOW = {"IN": ["dt", "dp"], "NA": ["dp"]}
SETS = LabelSets(NAMES, BELOW)


def draw(texts=200, seed=0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (texts, len(NAMES)))
    return logits, (generator.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)


def test_a_register_has_at_least_the_probability_of_its_subregisters():
    probabilities = SETS.probabilities(np.array([[-3.0, 2.0, 3.0, -3.0, 0.0]]))
    # dp stands under two registers, and which of them is not known.
    assert SETS.parents == {"dt": "IN"}
    assert probabilities[0, 0] == probabilities[0, 1] > 0.88 and probabilities[0, 3] < 0.05


def test_a_subregister_brings_its_register():
    own = SETS.with_thresholds(np.array([0.9, 0.3, 0.9, 0.9, 0.9]))
    assert own.decide(np.array([[0.4, 0.4, 0.95, 0.1, 0.1]])).tolist() == [[1, 1, 1, 0, 0]]
    assert list(own.shown(np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]))) == ["IN dt", ""]


@pytest.mark.parametrize("extreme", [-1e6, 1e6])
def test_extreme_logits(extreme):
    assert set(SETS.probabilities(np.full((1, 5), extreme)).ravel()) == {float(extreme > 0)}
    assert np.isfinite(SETS.loss(np.full((1, 5), extreme), np.zeros((1, 5))))


@given(st.floats(0.2, 5), st.integers(0, 100))
def test_another_temperature_leaves_the_labels(ratio, seed):
    logits, _ = draw(50, seed)
    own = SETS.with_thresholds(np.array([0.2, 0.35, 0.5, 0.65, 0.8]))
    before = own.decide(own.probabilities(logits))
    assert (own.rescaled(ratio).decide(own.probabilities(logits * ratio)) == before).all()


@pytest.mark.parametrize("metric", ["micro_f1", "macro_f1", "weighted_f1"])
def test_thresholds_that_are_fitted_are_no_worse(metric):
    logits, true = draw()
    probabilities = SETS.probabilities(logits - 1)
    scores = [
        SETS.score(true, fit_thresholds(SETS, true, probabilities, choice, metric).decide(probabilities))[metric]
        for choice in ("0.5", "global", "per_label")
    ]
    assert scores[0] < scores[1] <= scores[2]
    assert fit_thresholds(SETS, true, probabilities, "0.5").thresholds is None
    source = fit_thresholds(SETS, true, probabilities, "global", metric).source
    assert source == {"choice": "global", "metric": metric, "chosen_on": "validation", "num_texts": 200}


def test_chance_is_what_giving_all_labels_to_all_texts_has():
    _, true = draw()
    everything = SETS.score(true, np.ones_like(true))
    assert SETS.chance(true) == pytest.approx(everything["macro_f1_present"])
    assert "no better than chance on the en texts" in SETS.warning(true, everything, "en")
    assert SETS.warning(true, SETS.score(true, true), "en") is None


def test_a_configuration_says_how_logits_become_labels():
    config = SimpleNamespace(problem_type="single_label_classification", name_or_path="x")
    assert isinstance(labelling_of(config, NAMES), OneLabel)
    config.problem_type = "multi_label_classification"
    assert labelling_of(config, NAMES).limits.tolist() == [0.5] * 5
    config.subregisters = {"NA": ["dp"], "IN": ["dt", "dp"]}
    config.label_thresholds = {"values": [0.1, 0.2, 0.3, 0.4, 0.5], "choice": "per_label"}
    found = labelling_of(config, NAMES)
    assert list(found.subregisters) == ["IN", "NA"] and found.source == {"choice": "per_label"}
    assert found.limits.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    config.subregisters = {"NA": ["no such label"]}
    with pytest.raises(UserError, match="subregisters: expected lists of the model's labels"):
        labelling_of(config, NAMES)
    config.subregisters = {}
    for wrong in ([0.1], [0.1, 0.2, 0.3, 0.4, 1], ["a"] * 5, None):
        config.label_thresholds = {"values": wrong}
        with pytest.raises(UserError, match="label_thresholds: expected 5 numbers between 0 and 1"):
            labelling_of(config, NAMES)


def test_labels_are_read_as_they_were_written():
    names = ["a", "a b", "c.d", "*"]
    for own in ([0, 2], [1], [], [1, 3], [2]):
        row = np.zeros((1, 4), dtype=np.int8)
        row[0, own] = 1
        assert label_matrix(list(LabelSets(names).shown(row)), names).tolist() == row.tolist()


def test_hybrids_are_combinations_of_registers_that_ten_texts_have():
    both, one = [1, 1, 0, 0, 1], [1, 0, 0, 0, 0]
    true = np.array([both] * 12 + [[1, 0, 0, 1, 0]] * 9 + [one] * 30)
    predicted = np.array([both] * 8 + [one] * 4 + [one] * 39)
    (row,) = hybrid_rows(true, predicted, NAMES, BELOW)
    assert row == {"registers": ["IN", "OP"], "texts": 12, "predicted": [12, 8, 0, 0, 8], "complete": 8}
    counts = joint_counts(true, predicted)
    assert counts[NAMES.index("OP")].tolist() == [12, 8, 0, 0, 8]
    assert counts[0, 0] == (true[:, 0] & predicted[:, 0]).sum() == 51


def test_one_label():
    labelling = OneLabel(["a", "b"])
    logits = np.array([[2.0, 1.0], [0.0, 1.0]])
    assert labelling.probabilities(logits) == pytest.approx(softmax(logits))
    assert labelling.decide(logits).tolist() == [0, 1] and list(labelling.shown([0, 1])) == ["a", "b"]
    assert labelling.is_right(logits, np.array([0, 1])) and not labelling.is_right(logits, np.array([0, 0]))
    assert labelling.about() == {} and labelling.rescaled(3) is labelling
