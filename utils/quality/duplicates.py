"""Which texts are equal or nearly equal: MinHash and locality-sensitive hashing, then their exact similarity.

Broder 1997, On the resemblance and containment of documents; Leskovec, Rajaraman & Ullman 2020, Mining of Massive
Datasets, chapter 3. The signatures are datasketch's; they are sorted band by band, so that memory holds them once.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from utils.quality.measure import PERMUTATIONS
from utils.quality.rows import Rows

# A pair of texts at the limit of similarity is found with a probability of .95, one .05 above it with .99.
WEIGHTS = (0.05, 0.95)
# Of more texts with the same band, each is compared with the first and with the one before: pages made of one template.
ALL_PAIRS = 40


def near_pairs(signatures: np.ndarray, runs: list[np.ndarray], near: float) -> list[tuple[int, int, float]]:
    """Return the pairs of nearly equal texts, with their similarity, the most similar first.

    Args:
        signatures: see `utils.quality.measure.Measured`, shape [texts, PERMUTATIONS].
        runs: of each text; those without any have no twin.
        near: the least similarity: runs that two texts share, over the runs of either (Jaccard).
    """
    pairs = []
    for first, second in sorted(set(_candidates(signatures, near))):
        share = similarity(runs[first], runs[second])
        if share >= near:
            pairs.append((first, second, share))
    return sorted(pairs, key=lambda pair: -pair[2])


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Jaccard similarity of two sorted arrays without repetitions."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / max(1, len(first) + len(second) - shared)


def _candidates(signatures: np.ndarray, near: float) -> Iterator[tuple[int, int]]:
    """Yield the pairs of texts that have a band of their signatures in common."""
    from datasketch import MinHashLSH

    bands = MinHashLSH(threshold=near, num_perm=PERMUTATIONS, weights=WEIGHTS) if near < 1 else None
    count, rows = (bands.b, bands.r) if bands else (1, PERMUTATIONS)
    for band in range(count):
        columns = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])
        keys = columns.view(np.dtype((np.void, columns.dtype.itemsize * rows))).ravel()
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        # Where a group of equal keys begins, and where it ends.
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        for start, end in edges.reshape(-1, 2):
            yield from _pairs_of(order[start : end + 1].tolist())


def _pairs_of(group: list[int]) -> Iterator[tuple[int, int]]:
    if len(group) <= ALL_PAIRS:
        yield from ((a, b) for index, a in enumerate(group) for b in group[index + 1 :])
    else:
        yield from ((group[0], text) for text in group[1:])
        yield from itertools.pairwise(group[1:])


def clusters(num_texts: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Return a number for each text that those share which pairs join, directly or through others, shape [texts]."""
    parents = list(range(num_texts))

    def root(text: int) -> int:
        while parents[text] != text:
            parents[text] = parents[parents[text]]
            text = parents[text]
        return text

    for first, second in pairs:
        a, b = sorted((root(first), root(second)))
        parents[b] = a
    return np.array([root(text) for text in range(num_texts)], dtype=np.int64)


@dataclass
class Duplicates:
    """Texts that are equal or nearly so.

    Attributes:
        pairs: of indices, with their similarity: pairs of equal texts with different labels first, then other pairs
            with different labels, then by similarity. Of several equal texts, each with the first one.
        clusters: a number for each text that those share which pairs join, shape [texts].
        leaking: of test texts with a twin in training, the similarity of the nearest one.
        leaking_within: of those, which have one among the training texts of their own language.
    """

    pairs: list[tuple[int, int, float]]
    clusters: np.ndarray
    leaking: dict[int, float]
    leaking_within: set[int]


def find_duplicates(rows: Rows, near: float) -> Duplicates:
    """Find equal and nearly equal texts.

    Args:
        rows: of the corpus.
        near: see `near_pairs`.
    """
    measured = rows.measured
    first_of, group_of = np.unique(measured.hashes, return_index=True, return_inverse=True)[1:]
    with_words = np.flatnonzero([len(own) > 0 for own in (measured.runs[row] for row in first_of)])
    found = near_pairs(
        measured.signatures[first_of[with_words]], [measured.runs[row] for row in first_of[with_words]], near
    )
    between = [(int(with_words[a]), int(with_words[b]), share) for a, b, share in found]
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(group_of.tolist()):
        members[group].append(row)
    equal = [(own[0], row, 1.0) for own in members.values() for row in own[1:]]
    nearly = [(min(x, y), max(x, y), share) for a, b, share in between for x, y in [(members[a][0], members[b][0])]]
    pairs = [*equal, *nearly]
    pairs.sort(key=lambda pair: (rows.labels[pair[0]] == rows.labels[pair[1]], -pair[2], pair[0], pair[1]))
    leaking, within = _leaking(rows, members, [*((group, group, 1.0) for group in members), *between])
    return Duplicates(pairs, clusters(len(rows), [(first, second) for first, second, _ in pairs]), leaking, within)


def _leaking(
    rows: Rows, members: dict[int, list[int]], between: list[tuple[int, int, float]]
) -> tuple[dict[int, float], set[int]]:
    """Return the test texts with a twin in training, see `Duplicates`; pairs are of groups of equal texts."""
    trained = {group: {str(rows.langs[row]) for row in own if rows.in_training[row]} for group, own in members.items()}
    nearest: dict[int, float] = {}
    within = set()
    for first, second, share in between:
        for one, other in {(first, second), (second, first)}:
            if not trained[other]:
                continue
            for row in members[one]:
                if not rows.in_training[row]:
                    nearest[row] = max(share, nearest.get(row, 0.0))
                    if rows.langs[row] in trained[other]:
                        within.add(row)
    return nearest, within
