"""Test texts that belong together, from one site or one document: resampled as wholes, intervals are not too narrow.

Miller 2024, Adding Error Bars to Evals (arXiv:2411.00640), section 2.2. Clusters are the third column of a corpus's
files, or the nearly equal texts that check_corpus.py has found (`evaluate.py --clusters corpus.json`).
"""

from pathlib import Path
from typing import Any

import numpy as np

from utils.data.delimited import read_table, write_table
from utils.data.source import TextSource
from utils.errors import UserError
from utils.evaluation import metrics as scores
from utils.runs.shapes import read_corpus_findings

# Clusters of a batch of resamples, so that memory stays small.
DRAWN_AT_ONCE = 4_000_000


def clusters_of_corpus(texts: TextSource, lang: str) -> np.ndarray | None:
    """Return the clusters that the corpus gives the test texts of a language, shape [texts]; None if it gives none."""
    given = texts.clusters("test", lang)
    return None if given is None else np.unique(given, return_inverse=True)[1]


def read_twins(path: str) -> dict[str, Any]:
    """Return what corpus.json says of twins, for `clusters_of_twins`.

    Raises:
        UserError: if there is no such file, or it is none of check_corpus.py.
    """
    content = read_corpus_findings(Path(path))
    if content is None:
        raise UserError(f"--clusters {path}: no such file; check_corpus.py writes it")
    return content


def clusters_of_twins(content: dict[str, Any], lang: str, num_texts: int) -> np.ndarray:
    """Return a number for each test text of a language that nearly equal ones share, shape [texts].

    Args:
        content: of corpus.json.
        lang: the language.
        num_texts: of its test texts.

    Raises:
        UserError: if it is about other texts.
    """
    if content["leaking"].get(lang, {}).get("num_test_texts") != num_texts:
        raise UserError(f"--clusters: the file knows other {lang} test texts; run check_corpus.py again")
    found = np.arange(num_texts)
    for pair in content["duplicates"]:
        rows = [
            place["row"] - 1
            for place in (pair["a"], pair["b"])
            if place["language"] == lang and place["split"] == "test"
        ]
        if len(rows) == 2:
            found[found == found[rows[1]]] = found[rows[0]]
    return found


def clustered_intervals(
    true: np.ndarray, predicted: np.ndarray, num_labels: int, clusters: np.ndarray, seed: int,
    resamples: int = 1000, level: float = 0.95,
) -> dict[str, list[float]]:  # fmt: skip
    """Bootstrap the metrics by drawing whole clusters of texts, see `metrics.confidence_intervals`.

    Args:
        true: labels, shape [texts]; or 0 and 1, shape [texts, labels].
        predicted: likewise.
        num_labels: how many labels there are.
        clusters: of the texts, any numbers, shape [texts].
        seed: of the resampling.
        resamples: how many.
        level: coverage of the intervals.

    Returns:
        ``[low, high]`` per metric.
    """
    members = np.unique(clusters, return_inverse=True)[1]
    count = int(members.max()) + 1
    if true.ndim == 1:
        columns = np.eye(num_labels**2, dtype=np.float64)[true * num_labels + predicted]
    else:
        true, predicted = true.astype(bool), predicted.astype(bool)
        equal = (true == predicted).all(1, keepdims=True)
        columns = np.hstack([true & predicted, true, predicted, equal, np.ones_like(equal)]).astype(np.float64)
    sums = np.zeros((count, columns.shape[1]))
    np.add.at(sums, members, columns)
    generator, drawn = np.random.default_rng(seed), []
    size = max(1, DRAWN_AT_ONCE // count)
    for start in range(0, resamples, size):
        numbers = generator.multinomial(count, np.full(count, 1 / count), size=min(size, resamples - start))
        drawn.append(numbers @ sums)
    found = np.concatenate(drawn)
    if true.ndim == 1:
        values = scores.summary_metrics(found.reshape(-1, num_labels, num_labels))
    else:
        hits, with_label, with_prediction, (equals, texts) = (
            *np.split(found[:, : 3 * num_labels], 3, axis=1),
            found[:, 3 * num_labels :].T,
        )
        values = scores.multilabel_summary(hits, with_label, with_prediction, equals / texts)
    return scores.percentiles(values, level)


def write_clusters(path: Path, clusters: np.ndarray) -> None:
    """Write the cluster of every text."""
    write_table(path, ({"index": index, "cluster": int(x)} for index, x in enumerate(clusters)), ("index", "cluster"))


def read_clusters(path: Path) -> np.ndarray | None:
    """Return what `write_clusters` has written; None without a file.

    Raises:
        UserError: if it is damaged.
    """
    if not path.is_file():
        return None
    try:
        return np.array([int(row["cluster"]) for row in read_table(path)])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: no clusters ({error}); evaluate again with evaluate.py --force") from None


def describe_clusters(clusters: np.ndarray) -> dict[str, Any]:
    """Return what eval/LANG.json says of clusters."""
    return {"resampled": "clusters", "num_clusters": len(np.unique(clusters))}
