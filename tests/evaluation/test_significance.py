import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from utils.evaluation.calibration import reliability
from utils.evaluation.metrics import METRICS, MULTILABEL_METRICS, classification_metrics, multilabel_metrics
from utils.evaluation.significance import (
    PairedLabelSets,
    PairedTexts,
    approximate_randomization,
    holm,
    mcnemar,
    paired_bootstrap,
)


def two_classifiers(size, seed=1, quality=(0.6, 0.7), num_labels=4):
    """True labels and the predictions of two classifiers that are right this often, and guess otherwise."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_labels, size=size)
    return labels, *(
        np.where(generator.random(size) < share, labels, generator.integers(0, num_labels, size=size))
        for share in quality
    )


def test_the_observed_metrics_are_those_of_the_predictions():
    labels, first, second = two_classifiers(300)
    observed = PairedTexts(labels, first, second, 6).observed()
    for values, predictions in zip(observed, (first, second), strict=True):
        assert values == pytest.approx(classification_metrics(labels, predictions, 6))


def test_the_bootstrap_equals_scipys():
    labels, first, second = two_classifiers(250)
    ours = paired_bootstrap(PairedTexts(labels, first, second, 4), seed=1, resamples=4000)

    def macro_f1(labels, first, second):
        return np.subtract(*(classification_metrics(labels, x, 4)["macro_f1"] for x in (second, first)))

    def accuracy(labels, first, second, axis=-1):
        return (labels == second).mean(axis) - (labels == first).mean(axis)

    for name, statistic, vectorized, resamples in (
        ("accuracy", accuracy, True, 4000),
        ("macro_f1", macro_f1, False, 2000),
    ):
        theirs = stats.bootstrap(
            (labels, first, second), statistic, paired=True, vectorized=vectorized, method="percentile",
            n_resamples=resamples, rng=np.random.default_rng(2),
        )  # fmt: skip
        assert ours[name]["difference"] == pytest.approx(statistic(labels, first, second))
        assert [ours[name]["low"], ours[name]["high"]] == pytest.approx(theirs.confidence_interval, abs=0.012)
        shifted = np.abs(theirs.bootstrap_distribution - ours[name]["difference"])
        assert ours[name]["p"] == pytest.approx((shifted >= abs(ours[name]["difference"])).mean(), abs=0.04)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_randomization_equals_all_permutations(seed):
    """scipy tries every exchange of the predictions of ten texts."""
    labels, first, second = two_classifiers(10, seed, (0.3, 0.8), 3)
    ours = approximate_randomization(PairedTexts(labels, first, second, 3), seed=4, resamples=20_000)

    def difference(metric):
        return lambda a, b: classification_metrics(labels, b, 3)[metric] - classification_metrics(labels, a, 3)[metric]

    for metric in ("accuracy", "macro_f1", "recall"):
        theirs = stats.permutation_test(
            (first, second), difference(metric), permutation_type="samples", vectorized=False, n_resamples=np.inf
        )
        assert ours[metric] == pytest.approx(theirs.pvalue, abs=0.015)


def test_no_difference_is_never_significant():
    labels, first, _ = two_classifiers(100)
    same = PairedTexts(labels, first, first, 4)
    for metric in METRICS:
        assert approximate_randomization(same, 1, 200)[metric] == 1
        nothing = {"difference": 0, "low": 0, "high": 0, "p": 1, "detectable": 0}
        assert paired_bootstrap(same, 1, 200)[metric] == nothing
    assert mcnemar(same) == 1


@pytest.mark.slow
def test_a_detectable_difference_is_detected_in_four_of_five_cases():
    detectable = paired_bootstrap(PairedTexts(*two_classifiers(400, 0, (0.6, 0.6)), 4), 1, 500)["accuracy"][
        "detectable"
    ]
    # A classifier that guesses where it does not know is right in a quarter of these cases too.
    better = 0.6 + detectable / 0.75
    shown = 0
    for seed in range(200):
        found = paired_bootstrap(PairedTexts(*two_classifiers(400, seed, (0.6, better)), 4), seed, 300)["accuracy"]
        shown += found["low"] > 0
    assert 0.7 < shown / 200 < 0.9


@pytest.mark.slow
def test_p_values_are_uniform_without_a_difference():
    """The share of false alarms at 5 % is near 5 % for classifiers that are equally good."""
    p_values = []
    for seed in range(200):
        texts = PairedTexts(*two_classifiers(300, seed, (0.6, 0.6)), 4)
        p_values.append(
            [
                approximate_randomization(texts, seed, 300)["macro_f1"],
                paired_bootstrap(texts, seed, 300)["macro_f1"]["p"],
            ]
        )
    assert ((np.array(p_values) < 0.05).mean(0) < 0.11).all()
    assert (abs(np.mean(p_values, 0) - 0.5) < 0.08).all()


def test_the_same_seed_gives_the_same_values():
    texts = PairedTexts(*two_classifiers(200), 4)
    for test in (paired_bootstrap, approximate_randomization):
        assert test(texts, 7, 500) == test(texts, 7, 500)
        assert test(texts, 7, 500) != test(texts, 8, 500)


def test_batches_cover_all_resamples(monkeypatch):
    monkeypatch.setattr("utils.evaluation.significance.CELLS_AT_ONCE", 1000)
    texts = PairedTexts(*two_classifiers(200), 4)
    assert sum(texts.batches(333)) == 333
    # 333 randomizations and the observation: p is a number of 334ths.
    counted = approximate_randomization(texts, 1, 333)["macro_f1"] * 334
    assert counted == pytest.approx(round(counted))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_mcnemar_equals_statsmodels(only_first, only_second, both):
    size = only_first + only_second + both
    if not size:
        return
    labels = np.zeros(size, dtype=int)
    first = np.array([0] * only_first + [1] * only_second + [0] * both)
    second = np.array([1] * only_first + [0] * only_second + [0] * both)
    texts = PairedTexts(labels, first, second, 2)
    table = [[both, only_first], [only_second, 0]]
    assert mcnemar(texts) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-9)


# Each collects all garbage first, a quarter of a second.
@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_equals_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="as many predictions as labels, got 3, 3, 2"):
        PairedTexts([0, 1, 1], [0, 1, 1], [0, 1], 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80), st.integers(1, 20))
def test_calibration_equals_scikit_learns(texts, num_bins):
    confidences, correct = np.array([t[0] for t in texts]), np.array([t[1] for t in texts])
    ours = reliability(confidences, correct, num_bins)
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=num_bins)
    assert [x["accuracy"] for x in ours["bins"]] == pytest.approx(accuracy)
    assert [x["confidence"] for x in ours["bins"]] == pytest.approx(confidence)
    counts = np.array([x["count"] for x in ours["bins"]])
    assert counts.sum() == len(texts)
    expected = (counts * abs(accuracy - confidence)).sum() / len(texts)
    assert ours["expected_calibration_error"] == pytest.approx(expected)
    assert ours["mean_confidence"] == pytest.approx(confidences.mean())


def test_the_calibration_error_of_known_cases():
    # Always sure, right three times of four: the error is what is missing.
    sure = reliability(np.ones(4), np.array([1, 1, 1, 0]))
    assert (sure["expected_calibration_error"], sure["accuracy"]) == (0.25, 0.75)
    # Half of the texts 0.8 sure and all right, half 0.6 sure and half right.
    mixed = reliability(np.array([0.8] * 4 + [0.6] * 4), np.array([1] * 4 + [1, 1, 0, 0]))
    assert mixed["expected_calibration_error"] == pytest.approx((0.2 + 0.1) / 2)


def test_the_calibration_error_of_a_calibrated_model():
    """It is a mean of distances, so above 0, and large where texts are few."""
    generator = np.random.default_rng(0)
    for count, expected in ((32, 0.18), (400, 0.05), (20_000, 0.007)):
        confidences = generator.uniform(0.2, 1, count)
        errors = []
        for _ in range(60):
            found = reliability(confidences, generator.random(count) < confidences)
            errors.append(found["expected_calibration_error"])
        assert found["error_if_calibrated"] == pytest.approx(np.mean(errors), rel=0.1)
        assert found["error_if_calibrated"] == pytest.approx(expected, rel=0.25)
        assert np.mean(np.array(errors) <= found["error_if_calibrated_95"]) > 0.85
    # One that is wrong more often than it believes.
    off = reliability(confidences, generator.random(20_000) < confidences - 0.1)
    assert off["expected_calibration_error"] > 3 * off["error_if_calibrated_95"]


def two_of_label_sets(size, seed=1, labels=4):
    generator = np.random.default_rng(seed)
    true = generator.random((size, labels)) < 0.3
    return true, *(np.where(generator.random(true.shape) < share, true, ~true) for share in (0.8, 0.85))


def test_label_sets_are_compared_as_if_texts_were_drawn():
    """The cells give what drawing the texts themselves gives."""
    true, first, second = two_of_label_sets(120)
    texts = PairedLabelSets(true, first, second)
    for values, predictions in zip(texts.observed(), (first, second), strict=True):
        expected = multilabel_metrics(true, predictions)
        assert values == pytest.approx({name: expected[name] for name in MULTILABEL_METRICS})
    found = paired_bootstrap(texts, seed=1, resamples=3000)
    generator = np.random.default_rng(2)
    drawn = []
    for _ in range(1500):
        rows = generator.integers(0, 120, 120)
        one, other = (multilabel_metrics(true[rows], x[rows])["micro_f1"] for x in (first, second))
        drawn.append(other - one)
    assert [found["micro_f1"]["low"], found["micro_f1"]["high"]] == pytest.approx(
        np.quantile(drawn, [0.025, 0.975]), abs=0.01
    )
    right = [(true == x).all(1) for x in (first, second)]
    assert texts.only_first == (right[0] & ~right[1]).sum() and texts.only_second == (right[1] & ~right[0]).sum()
    assert set(approximate_randomization(texts, 3, 500)) == set(MULTILABEL_METRICS)


def test_label_sets_of_another_shape_are_refused():
    true, first, _ = two_of_label_sets(10)
    with pytest.raises(ValueError, match="as many predictions as labels"):
        PairedLabelSets(true, first, first[:, :3])
