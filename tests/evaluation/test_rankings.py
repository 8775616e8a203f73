import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from tests.factories import check_layout, texts_of
from utils.errors import UserError
from utils.evaluation.rankings import (
    almost_stochastic_order,
    describe_order,
    expected_validation,
    rank_runs,
    rank_scores,
)
from utils.evaluation.results import RunResults
from utils.evaluation.seeds import SeedGroup
from utils.figures.ranks import ranks_figure

# Demsar 2006, Statistical Comparisons of Classifiers over Multiple Data Sets, table 6: AUC of four trees on 14 data
# sets. Two numbers that it shows as .975 are no tie in its ranks.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.9749], [0.957, 0.978, 0.946, 0.970],
    ]
)  # fmt: skip
NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]


def test_the_published_example():
    found = rank_scores(NAMES, DEMSAR, [f"d{row}" for row in range(14)], "AUC")
    ranks = dict(zip(found.names, found.ranks, strict=True))
    assert [ranks[name] for name in NAMES] == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    # Section 3.2.3: with q = 2.569.
    assert found.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert found.p == pytest.approx(friedmanchisquare(*DEMSAR.T).pvalue)
    # "the differences between C4.5 and C4.5+m+cf ..." are below 1.25: none is told apart at 5 %.
    assert found.cliques == [(0, 3)]


def test_systems_that_differ_everywhere_are_told_apart():
    scores = np.arange(30)[:, None] + np.array([0.1, 0.5, 0.3])
    found = rank_scores(["a", "b", "c"], scores, [f"l{row}" for row in range(30)], "macro_f1")
    assert found.names == ["b", "c", "a"] and found.ranks.tolist() == [1, 2, 3]
    assert found.cliques == [] and found.p < 1e-6
    same = rank_scores(["a", "b", "c"], np.ones((3, 3)), ["x", "y", "z"], "macro_f1")
    assert same.p == 1 and same.cliques == [(0, 2)]


def test_figure():
    found = rank_scores(NAMES, DEMSAR, [f"d{row}" for row in range(14)], "AUC")
    figure = ranks_figure(found)
    check_layout(figure)
    assert any("critical difference 1.25" in text for text in texts_of(figure))
    assert any("C4.5+m+cf (1.96)" in text for text in texts_of(figure))


def run(name, values):
    evaluations = {lang: {"macro_f1": value} for lang, value in values.items()}
    return RunResults(None, name, "en", evaluations)


def test_too_few_runs_or_languages():
    two = [run("a", {"en": 1, "fr": 2}), run("b", {"en": 1, "fr": 2})]
    with pytest.raises(UserError, match="three or more runs"):
        rank_runs(two, "macro_f1")
    with pytest.raises(UserError, match="on 1 languages"):
        rank_runs([*two, run("c", {"en": 1})], "macro_f1")
    assert rank_runs([*two, run("c", {"en": 3, "fr": 3})], "macro_f1").names[0] == "c-en"


def test_expected_validation_is_the_mean_of_the_best_of_draws():
    generator = np.random.default_rng(0)
    values = generator.normal(0.5, 0.1, 7)
    expected = expected_validation(values)
    assert len(expected) == 7 and expected[0] == pytest.approx(values.mean())
    assert (np.diff(expected) > 0).all() and expected[-1] < values.max()
    for number in (2, 5):
        drawn = generator.choice(values, size=(200_000, number)).max(axis=1).mean()
        assert expected[number - 1] == pytest.approx(drawn, abs=1e-3)
    assert expected_validation(np.array([0.3])).tolist() == [0.3]


@pytest.mark.slow
def test_almost_stochastic_order():
    generator = np.random.default_rng(1)

    def group(name, mean):
        values = generator.normal(mean, 0.01, 5)
        return SeedGroup({seed: run(name, {"fr": value}) for seed, value in enumerate(values)})

    rows = almost_stochastic_order([group("good", 0.7), group("bad", 0.6)], "macro_f1", 1)
    by_pair = {(row["first"], row["second"]): row for row in rows}
    assert (
        len(rows) == 2 and by_pair["good-en", "bad-en"]["epsilon"] < 0.1 < 0.9 < by_pair["bad-en", "good-en"]["epsilon"]
    )
    text = describe_order(rows)
    assert "fr       good-en 0.70" in text and "better" in text and "bad-en 0.60" in text
    assert text.count("\n") == 1
    again = almost_stochastic_order([group("good", 0.7), group("good", 0.7)], "macro_f1", 1)
    assert all(row["epsilon"] > 0.05 for row in again)
