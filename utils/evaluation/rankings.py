"""Several systems at once: almost stochastic order over seeds, ranks over languages, expected validation scores."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.evaluation.results import RunResults
from utils.evaluation.seeds import SeedGroup

# deepsig's: with an epsilon below this, the first system is said to be better.
BETTER = 0.2
# With fewer seeds the order says little.
FEW_SEEDS = 5


def almost_stochastic_order(groups: list[SeedGroup], metric: str, seed: int) -> list[dict[str, Any]]:
    """Compare ways of training by their scores over seeds, every two on every language that both have.

    Almost stochastic order (del Barrio et al. 2018; Dror et al. 2019, Deep Dominance) as deepsig has it (Ulmer et al.
    2022, arXiv:2204.06815): epsilon is an upper bound of how far the first system is from being better at every
    quantile, at 95 % over all comparisons of a language (Bonferroni). Below .5 it tends to be better, below .2 it is
    said to be; of 0 it is at every quantile.

    Args:
        groups: of runs that differ by their seed alone.
        metric: which score.
        seed: of the bootstrap.

    Returns:
        rows with both names, language, numbers of seeds, means and epsilon; each pair in both directions.
    """
    from deepsig import aso

    rows = []
    scores = {
        (name_of(group), lang): [
            run.evaluations[lang][metric] for run in group.runs.values() if metric in run.evaluations.get(lang, {})
        ]
        for group in groups
        for lang in group.langs
    }
    langs = list(dict.fromkeys(lang for _, lang in scores))
    for lang in langs:
        names = [name for name, own in scores if own == lang and len(scores[name, lang]) > 1]
        pairs = list(itertools.permutations(names, 2))
        for first, second in pairs:
            one, other = scores[first, lang], scores[second, lang]
            epsilon = aso(one, other, num_comparisons=len(pairs), seed=seed, show_progress=False)
            rows.append(
                {
                    "first": first,
                    "second": second,
                    "eval_lang": lang,
                    "metric": metric,
                    "first_seeds": len(one),
                    "second_seeds": len(other),
                    "first_mean": float(np.mean(one)),
                    "second_mean": float(np.mean(other)),
                    "epsilon": round(float(epsilon), 4),
                }
            )
    return rows


def name_of(group: SeedGroup) -> str:
    """Return what a group of runs is called."""
    return f"{group.first.name}{f' ({group.variant})' if group.variant else ''}"


def describe_order(rows: list[dict[str, Any]]) -> str:
    """Return for people which ways of training are better over seeds; empty without any pair."""
    if not rows:
        return ""
    lines = [f"almost stochastic order of {rows[0]['metric']} over seeds: epsilon below {BETTER}, the first is better"]
    for row in rows:
        if row["epsilon"] < 0.5:
            few = min(row["first_seeds"], row["second_seeds"])
            note = f"; {few} seeds are few" if few < FEW_SEEDS else ""
            verdict = "better" if row["epsilon"] < BETTER else "tends to be better"
            lines.append(
                f"  {row['eval_lang']:8} {row['first']} {row['first_mean']:.3f} > {row['second']} "
                f"{row['second_mean']:.3f}  epsilon {row['epsilon']:.2f}: {verdict}{note}"
            )
    return "\n".join(lines if len(lines) > 1 else [*lines, "  no pair of systems with an epsilon below .5"])


@dataclass
class Ranks:
    """Mean ranks of systems over languages.

    Attributes:
        names: of the systems, the best first.
        ranks: their mean ranks, 1 is the best, shape [systems].
        langs: over which.
        metric: by which.
        p: of Friedman's test, that all are alike.
        critical_difference: mean ranks that differ by less are not told apart at 5 % (Nemenyi).
    """

    names: list[str]
    ranks: np.ndarray
    langs: list[str]
    metric: str
    p: float
    critical_difference: float

    @property
    def cliques(self) -> list[tuple[int, int]]:
        """The first and the last of systems that are not told apart, of as many together as possible."""
        found: list[tuple[int, int]] = []
        for first in range(len(self.names)):
            inside = np.flatnonzero(self.ranks - self.ranks[first] <= self.critical_difference)
            last = int(inside[-1])
            if last > first and not any(a <= first and last <= b for a, b in found):
                found.append((first, last))
        return found


def rank_runs(runs: list[RunResults], metric: str) -> Ranks:
    """Rank runs on every language that all of them were evaluated on (Demsar 2006, JMLR 7).

    Args:
        runs: three or more.
        metric: higher is better.

    Raises:
        UserError: if there are too few runs, or languages that all have.
    """
    having = [run for run in runs if any(metric in result for result in run.evaluations.values())]
    if len(having) < 3:
        raise UserError(
            f"--ranks compares three or more runs, there are {len(having)} with {metric}; --compare tests two"
        )
    langs = [x for x in having[0].evaluations if all(metric in run.evaluations.get(x, {}) for run in having)]
    if len(langs) < 2:
        raise UserError(f"--ranks: all runs were evaluated together on {len(langs)} languages; two or more are needed")
    return rank_scores(
        [run.name for run in having],
        np.array([[run.evaluations[lang][metric] for run in having] for lang in langs]),
        langs,
        metric,
    )


def rank_scores(names: list[str], scores: np.ndarray, langs: list[str], metric: str) -> Ranks:
    """Rank systems by their scores.

    Args:
        names: of the systems.
        scores: shape [languages, systems], higher is better.
        langs: names of the languages.
        metric: name of the score.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    count, systems = scores.shape
    means = rankdata(-scores, axis=1).mean(axis=0)
    order = np.argsort(means, kind="stable")
    p = float(friedmanchisquare(*scores.T).pvalue)
    quantile = studentized_range.ppf(0.95, systems, np.inf) / np.sqrt(2)
    difference = float(quantile * np.sqrt(systems * (systems + 1) / (6 * count)))
    # Of systems that are all the same there is no p.
    p = 1.0 if np.isnan(p) else p
    return Ranks([names[place] for place in order], means[order], langs, metric, p, difference)


def expected_validation(values: np.ndarray) -> np.ndarray:
    """Return the expected best score of 1, 2, ... trials drawn from those that were made.

    Dodge et al. 2019, Show Your Work (arXiv:1909.03004), equation 7: drawn with replacement.

    Args:
        values: scores of the trials, higher is better, shape [trials].
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    numbers = np.arange(1, len(ordered) + 1)[:, None]
    below = np.concatenate([[0.0], shares[:-1]])
    return ((shares**numbers - below**numbers) * ordered).sum(axis=1)


def describe_expected(values: list[float], higher_is_better: bool = True) -> str:
    """Return a line for people: the best score to be expected of so many trials, see `expected_validation`.

    Args:
        values: scores of the trials, one or more.
        higher_is_better: else the lowest is the best.
    """
    sign = 1 if higher_is_better else -1
    expected = sign * expected_validation(sign * np.array(values))
    numbers = [number for number in (1, 2, 5, 10, 20, 50, 100) if number < len(values)] + [len(values)]
    shown = ", ".join(f"{number} {expected[number - 1]:.4g}" for number in numbers)
    return f"expected best of so many trials (Dodge et al. 2019): {shown}"
