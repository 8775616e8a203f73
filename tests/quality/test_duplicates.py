import itertools
import random

import numpy as np

from utils.quality.duplicates import ALL_PAIRS, clusters, find_duplicates, near_pairs
from utils.quality.measure import measure
from utils.quality.rows import Rows

WORDS = [f"w{number}" for number in range(3000)]


def words(generator, count):
    return generator.choices(WORDS, k=count)


def altered(generator, text, share):
    """The text with this share of its words replaced, in one run of them."""
    count = round(share * len(text))
    start = generator.randrange(len(text) - count)
    return [*text[:start], *words(generator, count), *text[start + count :]]


def shingles(text):
    return {tuple(text[start : start + 5]) for start in range(len(text) - 4)}


def jaccard(first, second):
    return len(first & second) / len(first | second)


def rows_of(places, texts):
    """Rows of texts whose places are (language, in training, label)."""
    langs, training, labels = zip(*places, strict=True)
    numbers = np.arange(1, len(texts) + 1)
    return Rows(np.array(langs), np.array(training), numbers, list(labels), measure(list(texts), "xx"))


def test_pairs_are_those_of_comparing_every_text_with_every_other():
    generator = random.Random(1)
    texts = []
    for number in range(150):
        text = words(generator, generator.randrange(40, 200))
        texts += [text, altered(generator, text, (number % 15) / 90)]
    sets = [shingles(text) for text in texts]
    measured = measure([" ".join(text) for text in texts], "xx")
    for near, at_least in ((0.8, 0.95), (0.5, 0.95)):
        shares = {(a, b): jaccard(sets[a], sets[b]) for a, b in itertools.combinations(range(len(texts)), 2)}
        expected = {pair for pair, share in shares.items() if share >= near}
        pairs = near_pairs(measured.signatures, measured.runs, near)
        found = {(a, b) for a, b, _ in pairs}
        assert len(expected) > 60
        assert found <= expected
        assert len(found) >= at_least * len(expected)
        assert all(abs(share - shares[a, b]) < 1e-9 for a, b, share in pairs)
        assert [share for *_, share in pairs] == sorted((share for *_, share in pairs), reverse=True)


def test_many_pages_of_one_template_are_one_cluster_and_not_all_pairs():
    generator = random.Random(2)
    page = words(generator, 300)
    texts = [" ".join([*page, *words(generator, 3)]) for _ in range(5 * ALL_PAIRS)]
    measured = measure(texts, "xx")
    pairs = near_pairs(measured.signatures, measured.runs, 0.8)
    assert len(pairs) < len(texts) * ALL_PAIRS
    assert len(set(clusters(len(texts), [(a, b) for a, b, _ in pairs]))) == 1


def test_twins_of_training_and_test_texts():
    generator = random.Random(3)
    one, two, three, four = (words(generator, 100) for _ in range(4))
    near = altered(generator, two, 0.05)
    texts = [" ".join(text) for text in (one, one, two, near, three, three, four, one)]
    # Space counts for nothing.
    texts[1] = texts[1].replace(" ", "  \n ") + " "
    places = [
        ("en", True, "A"),
        ("en", True, "B"),
        ("en", True, "A"),
        ("en", False, "A"),
        ("fr", True, "A"),
        ("en", False, "A"),
        ("en", False, "A"),
        ("fr", False, "A"),
    ]
    found = find_duplicates(rows_of(places, texts), 0.8)
    assert [pair[:2] for pair in found.pairs] == [(0, 1), (0, 7), (4, 5), (2, 3)]
    assert [round(share, 2) for *_, share in found.pairs[:3]] == [1, 1, 1] and 0.8 <= found.pairs[3][2] < 1
    # The last one has its twins in the other language's training alone.
    assert set(found.leaking) == {3, 5, 7} and found.leaking[5] == found.leaking[7] == 1 > found.leaking[3]
    assert found.leaking_within == {3}
    assert len(set(found.clusters)) == 4 and found.clusters[0] == found.clusters[1] == found.clusters[7]


def test_texts_without_words_are_equal_only_to_the_same():
    found = find_duplicates(rows_of([("en", True, "A")] * 4, ["...", "---", "...", ""]), 0.8)
    assert [pair[:2] for pair in found.pairs] == [(0, 2)]
