"""Which labels are doubtful: confident learning (Northcutt et al. 2021, arXiv:1911.00068) as cleanlab has it.

Every text is judged by a model that was fitted to others: five folds, none of which holds a text whose twin is in
another. The model is TF-IDF with a logistic regression, language by language, unless probabilities are given.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.cli.progress import progress
from utils.data.source import TextSource
from utils.data.words import WORD
from utils.evaluation.metrics import RARE
from utils.quality.rows import TEST, TRAIN, Rows, label_texts

# Features of a language, the most frequent ones; texts that they are counted in, and that a model is fitted to.
MOST_FEATURES, MOST_TEXTS = 50_000, 30_000
# Inverse strength of the penalty: weaker, wrong labels are learned by heart.
STRENGTH = 3.0
# Of a language and its labels: probabilities, shape [texts, labels], of training texts, then of test texts; or None.
Probabilities = Callable[[str, list[str]], np.ndarray | None]


@dataclass
class Doubts:
    """What is thought of the labels of texts.

    Attributes:
        rows: indices of the texts that were judged, the most doubtful labels first.
        flagged: of these, which confident learning takes for errors, shape [judged].
        likely: the label that is more likely, or the labels, of these.
        probabilities: of the likely label, and of the given one, shape [judged, 2]; of several labels, the mean.
    """

    rows: np.ndarray
    flagged: np.ndarray
    likely: list[str]
    probabilities: np.ndarray


def find_doubts(
    rows: Rows, texts: TextSource, langs: list[str], clusters: np.ndarray, folds: int, seed: int,
    given: Probabilities | None = None,
) -> Doubts:  # fmt: skip
    """Judge the labels of all texts.

    Args:
        rows: of the corpus.
        texts: the same, to be read again a language at a time.
        langs: languages.
        clusters: of twins, see `utils.quality.duplicates.Duplicates`.
        folds: parts of a language's texts.
        seed: of the folds.
        given: probabilities from elsewhere.
    """
    found = []
    for lang in progress(langs, desc="judging labels", unit="language"):
        indices = np.concatenate([rows.of(lang, TRAIN), rows.of(lang, TEST)])
        names = texts.label_names([lang])
        labels = _labels_of(texts, lang, rows)
        if given is not None:
            probabilities, reason = given(lang, names), "the model was not trained on it, and does not judge its labels"
        else:
            probabilities = _fitted(_texts_of(texts, lang, rows), labels, clusters[indices], folds, seed)
            reason = "too few texts to judge their labels"
        if probabilities is None:
            print(f"{lang}: {reason}", file=sys.stderr)
            continue
        scores, flagged, likely, pairs = judge(labels, probabilities, names)
        known = _often_enough(labels)
        kept = np.flatnonzero(known)
        found.append((indices[kept], scores[kept], flagged[kept], [likely[row] for row in kept], pairs[kept]))
    return _ranked(found)


def _often_enough(labels: np.ndarray) -> np.ndarray:
    """Return which texts have a label that a model can know: one that `RARE` texts have; of several labels, any.

    Of others every model is unsure, and they would come first.
    """
    if labels.ndim == 2:
        return np.ones(len(labels), dtype=bool)
    return np.bincount(labels)[labels] >= RARE


def _ranked(found: list[tuple[np.ndarray, np.ndarray, np.ndarray, list[str], np.ndarray]]) -> Doubts:
    if not found:
        return Doubts(np.empty(0, dtype=np.int64), np.empty(0, dtype=bool), [], np.empty((0, 2)))
    indices, scores, flagged, pairs = (np.concatenate([part[column] for part in found]) for column in (0, 1, 2, 4))
    likely = [label for part in found for label in part[3]]
    order = np.argsort(scores, kind="stable")
    return Doubts(indices[order], flagged[order], [likely[place] for place in order], pairs[order])


def judge(
    labels: np.ndarray, probabilities: np.ndarray, names: list[str]
) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Judge the labels of texts by probabilities from models that have not seen them.

    Args:
        labels: numbers, shape [texts]; or 0 and 1, shape [texts, labels].
        probabilities: shape [texts, labels].
        names: of the labels.

    Returns:
        scores, the lower the more doubtful, shape [texts]; which are taken for errors, shape [texts]; the likely label
        of each, or its labels; the probabilities of the likely and of the given one, shape [texts, 2].
    """
    if labels.ndim == 2:
        return _judge_label_sets(labels, probabilities, names)
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    # cleanlab wants labels that texts have.
    used, own = np.unique(labels, return_inverse=True)
    shares = probabilities[:, used]
    shares = shares / shares.sum(axis=1, keepdims=True)
    # With a tenth of the labels of real registers changed, this finds more of them than margins do, and than scores
    # that are adjusted to each label's average.
    scores = get_label_quality_scores(own, shares, method="self_confidence")
    flagged = find_label_issues(own, shares, n_jobs=1) if len(used) > 1 else np.zeros(len(own), dtype=bool)
    best = shares.argmax(axis=1)
    places = np.arange(len(own))
    pairs = np.stack([shares[places, best], shares[places, own]], axis=1)
    return scores, flagged, [names[used[label]] for label in best], pairs


def _judge_label_sets(
    labels: np.ndarray, probabilities: np.ndarray, names: list[str]
) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    from cleanlab.multilabel_classification import get_label_quality_scores
    from cleanlab.multilabel_classification.filter import find_label_issues

    sets = [np.flatnonzero(own).tolist() for own in labels]
    scores = get_label_quality_scores(sets, probabilities)
    flagged = find_label_issues(sets, probabilities, n_jobs=1)
    likely = probabilities >= 0.5
    without = ~likely.any(axis=1)
    likely[without, probabilities[without].argmax(axis=1)] = True
    right = [
        np.where(chosen, probabilities, 1 - probabilities).mean(axis=1) for chosen in (likely, labels.astype(bool))
    ]
    return scores, flagged, label_texts(likely.astype(int).tolist(), names), np.stack(right, axis=1)


def _texts_of(texts: TextSource, lang: str, rows: Rows) -> list[str]:
    splits = [split for split in (TRAIN, TEST) if len(rows.of(lang, split))]
    return [text for split in splits for text in texts.load(split, lang, " ")["text"][:]]


def _labels_of(texts: TextSource, lang: str, rows: Rows) -> np.ndarray:
    splits = [split for split in (TRAIN, TEST) if len(rows.of(lang, split))]
    return np.concatenate([np.asarray(texts.load(split, lang, " ")["label"][:]) for split in splits])


def _fitted(texts: list[str], labels: np.ndarray, clusters: np.ndarray, folds: int, seed: int) -> np.ndarray | None:
    """Return probabilities from models of the other folds, shape [texts, labels]; None of too few texts.

    Words are counted once: which there are and how many texts have them says nothing of labels.
    """
    import warnings

    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
    from sklearn.multiclass import OneVsRestClassifier
    from threadpoolctl import threadpool_limits

    counts = np.sort(labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels))[::-1]
    if len(np.unique(clusters)) < 2 * folds or len(counts) < 2 or counts[1] < folds:
        return None
    generator = np.random.default_rng(seed)
    found = np.zeros((len(texts), labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1))
    model: Any = LogisticRegression(C=STRENGTH, max_iter=300, random_state=seed)
    if labels.ndim == 2:
        model, splitter = OneVsRestClassifier(model), GroupKFold(folds, shuffle=True, random_state=seed)
    else:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    # Threads of linear algebra wait for each other longer than they compute.
    with warnings.catch_warnings(), threadpool_limits(1):
        # That a label has fewer texts than there are folds, or none in some.
        warnings.simplefilter("ignore")
        features = _features(texts, generator)
        for others, own in splitter.split(features, labels, clusters):
            seen = _some(others, generator)
            model.fit(features[seen], labels[seen])
            found[np.ix_(own, model.classes_)] = model.predict_proba(features[own])
    return found


def _features(texts: list[str], generator: np.random.Generator) -> Any:
    """Return TF-IDF of words and pairs of words, a sparse matrix; memory is bounded by some texts' pairs of words."""
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        token_pattern=WORD.pattern, ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=MOST_FEATURES
    )
    if len(texts) <= MOST_TEXTS:
        return vectorizer.fit_transform(texts)
    vectorizer.set_params(dtype=np.float32)
    vectorizer.fit([texts[row] for row in _some(np.arange(len(texts)), generator)])
    starts = range(0, len(texts), MOST_TEXTS)
    return vstack([vectorizer.transform(texts[start : start + MOST_TEXTS]) for start in starts], format="csr")


def _some(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= MOST_TEXTS else np.sort(generator.choice(rows, MOST_TEXTS, replace=False))
