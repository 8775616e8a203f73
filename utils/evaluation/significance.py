"""Tests whether one classifier is better than another on the same texts.

They compare two sets of predictions. That says something of two trained models, not of two ways of training:
for that, train each with several seeds.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from utils.evaluation.metrics import METRICS, MULTILABEL_METRICS, multilabel_summary, summary_metrics

RESAMPLES = 10_000
# Counts of a batch of resamples, so that memory stays below some hundred megabytes.
CELLS_AT_ONCE = 8_000_000
# Standard errors of the smallest difference that is shown at 5 % with a power of 80 %: the quantiles .975 and .8 of the
# normal distribution.
DETECTABLE = 1.95996 + 0.84162
# Differences that are equal but for rounding count as equal.
ROUNDING = 1e-12


class PairedTexts:
    """The predictions of two classifiers on the same texts, counted by true label and both predictions.

    Texts that agree in all three are interchangeable, so resampling draws numbers of texts from these cells
    instead of texts: the same distribution, in a fraction of the time.

    Args:
        labels: true labels, shape [n].
        first: predictions of one classifier, shape [n].
        second: predictions of the other, shape [n].
        num_labels: number of labels.
        clusters: of the texts, shape [n]; whole clusters are drawn and exchanged then.

    Raises:
        ValueError: if the three differ in length or are empty.
    """

    def __init__(
        self,
        labels: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
        num_labels: int,
        clusters: np.ndarray | None = None,
    ):
        labels, first, second = (np.asarray(values, dtype=np.int64) for values in (labels, first, second))
        if not len(labels) or not len(labels) == len(first) == len(second):
            raise ValueError(f"expected as many predictions as labels, got {len(labels)}, {len(first)}, {len(second)}")
        from scipy.sparse import csr_array

        codes = (labels * num_labels + first) * num_labels + second
        cells, members, self.counts = np.unique(codes, return_inverse=True, return_counts=True)
        true, one, other = cells // num_labels**2, cells // num_labels % num_labels, cells % num_labels
        self.num_labels = num_labels
        self.count = len(labels)
        rows, ones = np.arange(len(cells)), np.ones(len(cells), dtype=np.int64)
        shape = (len(cells), num_labels**2)
        # From counts of cells to the confusion matrix of either classifier.
        self.first = csr_array((ones, (rows, true * num_labels + one)), shape=shape)
        self.second = csr_array((ones, (rows, true * num_labels + other)), shape=shape)
        self.only_first = int(self.counts[(one == true) & (other != true)].sum())
        self.only_second = int(self.counts[(one != true) & (other == true)].sum())
        self.num_texts = len(labels)
        self._join(members, clusters)

    def _join(self, members: np.ndarray, clusters: np.ndarray | None) -> None:
        """Count by cluster instead of by cell: each cluster is drawn, or exchanged, as a whole.

        Args:
            members: the cell of each text, shape [n].
            clusters: of the texts, shape [n]; None leaves all as it is.
        """
        if clusters is None:
            return
        from scipy.sparse import csr_array

        places = np.unique(clusters, return_inverse=True)[1]
        shape = (int(places.max()) + 1, len(self.counts))
        belongs = csr_array((np.ones(len(places), dtype=np.int64), (places, members.ravel())), shape=shape)
        self.first, self.second = belongs @ self.first, belongs @ self.second
        self.count, self.counts = shape[0], np.ones(shape[0], dtype=np.int64)
        self.is_clustered = True

    is_clustered = False
    names: tuple[str, ...] = METRICS
    # What McNemar's test compares.
    share_right = "accuracy"

    def metrics(self, first: np.ndarray, second: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the metrics of two arrays of sums over the texts, as `first` and `second` make them of counts."""
        return self.summary(first), self.summary(second)

    def summary(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Return the metrics of flat confusion matrices, shape [..., num_labels ** 2]."""
        return summary_metrics(sums.reshape(*sums.shape[:-1], self.num_labels, self.num_labels))

    def observed(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the metrics of the two classifiers, each a number (an array without dimensions)."""
        return self.metrics(self.counts @ self.first, self.counts @ self.second)

    def batches(self, resamples: int) -> Iterator[int]:
        """Cut a number of resamples into batches that fit into memory."""
        size = max(1, CELLS_AT_ONCE // max(self.first.shape))
        for start in range(0, resamples, size):
            yield min(size, resamples - start)


class PairedLabelSets(PairedTexts):
    """The predictions of two classifiers that give texts any number of labels, counted as in `PairedTexts`.

    Args:
        labels: true ones, 0 or 1, shape [n, num_labels].
        first: predictions of one classifier, likewise.
        second: predictions of the other.
        clusters: see `PairedTexts`.

    Raises:
        ValueError: if the three differ in shape or are empty.
    """

    names = MULTILABEL_METRICS
    share_right = "subset_accuracy"

    def __init__(self, labels: np.ndarray, first: np.ndarray, second: np.ndarray, clusters: np.ndarray | None = None):
        labels, first, second = (np.asarray(values, dtype=bool) for values in (labels, first, second))
        if not len(labels) or not labels.shape == first.shape == second.shape:
            raise ValueError(
                f"expected as many predictions as labels, got {labels.shape}, {first.shape}, {second.shape}"
            )
        self.count, self.num_labels = labels.shape
        cells, members, self.counts = np.unique(
            np.hstack([labels, first, second]), axis=0, return_inverse=True, return_counts=True
        )
        true, one, other = np.split(cells, 3, axis=1)
        # From counts of cells to hits, true and predicted labels, texts whose labels are all right, and texts.
        self.first, self.second = (
            np.hstack([true & x, true, x, (true == x).all(1, keepdims=True), np.ones((len(x), 1))]).astype(np.int64)
            for x in (one, other)
        )
        right = [(true == x).all(1) for x in (one, other)]
        self.only_first = int(self.counts[right[0] & ~right[1]].sum())
        self.only_second = int(self.counts[right[1] & ~right[0]].sum())
        self.num_texts = len(labels)
        self._join(members, clusters)

    def summary(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Return the metrics of sums, shape [..., 3 * num_labels + 2]."""
        hits, true, predicted, texts = np.split(sums, np.cumsum([self.num_labels] * 3), axis=-1)
        return multilabel_summary(hits, true, predicted, texts[..., 0] / texts[..., 1])


def paired_bootstrap(
    texts: PairedTexts, seed: int | Sequence[int], resamples: int = RESAMPLES, level: float = 0.95
) -> dict[str, dict[str, float]]:
    """Bootstrap the difference of every metric, second minus first, resampling the texts of both together.

    Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation"; the p-value is that of
    Berg-Kirkpatrick, Burkett & Klein 2012, "An Empirical Investigation of Statistical Significance in NLP", for
    both directions: the share of resamples whose difference is at least as far from the observed one as that is
    from 0, the observation counted as one of them.

    Args:
        texts: predictions of both classifiers.
        seed: of the resampling.
        resamples: how many.
        level: coverage of the percentile interval.

    Returns:
        Per metric the difference, its interval (low, high), p, and `detectable`: the smallest difference that so many
        texts would show at 5 % with a power of 80 %, 2.8 standard errors (Card et al. 2020, With Little Power Comes
        Great Responsibility).
    """
    observed = _differences(*texts.observed())
    generator = np.random.default_rng(seed)
    shares = texts.counts / texts.count
    drawn = []
    for size in texts.batches(resamples):
        counts = generator.multinomial(texts.count, shares, size=size)
        drawn.append(_differences(*texts.metrics(counts @ texts.first, counts @ texts.second)))
    tail = (1 - level) / 2
    results = {}
    for name in texts.names:
        values = np.concatenate([batch[name] for batch in drawn])
        low, high = np.quantile(values, [tail, 1 - tail])
        extreme = np.abs(values - observed[name]) >= abs(observed[name]) - ROUNDING
        results[name] = {
            "difference": float(observed[name]),
            "low": float(low),
            "high": float(high),
            "p": _p_value(extreme),
            "detectable": float(DETECTABLE * values.std()),
        }
    return results


def approximate_randomization(
    texts: PairedTexts, seed: int | Sequence[int], resamples: int = RESAMPLES
) -> dict[str, float]:
    """Return a p-value per metric: how often a difference as large comes from exchanging predictions at random.

    Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses"; Yeh 2000, "More accurate tests for the
    statistical significance of result differences". The two predictions of every text are exchanged with
    probability 1/2; p is two-sided, the observation counted as one of the randomizations.

    Args:
        texts: predictions of both classifiers.
        seed: of the randomizations.
        resamples: how many.
    """
    observed = _differences(*texts.observed())
    generator = np.random.default_rng(seed)
    drawn = []
    for size in texts.batches(resamples):
        swapped = generator.binomial(texts.counts, 0.5, size=(size, len(texts.counts)))
        kept = texts.counts - swapped
        first = kept @ texts.first + swapped @ texts.second
        second = kept @ texts.second + swapped @ texts.first
        drawn.append(_differences(*texts.metrics(first, second)))
    return {
        name: _p_value(np.abs(np.concatenate([batch[name] for batch in drawn])) >= abs(observed[name]) - ROUNDING)
        for name in texts.names
    }


def mcnemar(texts: PairedTexts) -> float:
    """Return the two-sided p-value of McNemar's test, the exact binomial one.

    McNemar 1947, "Note on the sampling error of the difference between correlated proportions"; it compares accuracies
    (of label sets: subset accuracies): among the texts that one classifier alone has right, each should have half.
    """
    if not texts.only_first + texts.only_second:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(texts.only_first, texts.only_first + texts.only_second, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure": where the corrected value is below
    alpha, the difference is significant, and the chance of any error among all of them is below alpha.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return corrected.tolist()


def _differences(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: second[name] - first[name] for name in first}


def _p_value(extreme: np.ndarray) -> float:
    return float((1 + extreme.sum()) / (1 + len(extreme)))
