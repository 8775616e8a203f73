import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import evaluate
import post_eval
from tests.factories import TRAINED
from utils.data.delimited import read_rows
from utils.errors import UserError
from utils.evaluation.clusters import clustered_intervals, clusters_of_twins, read_twins
from utils.evaluation.metrics import confidence_intervals, confusion_matrix, multilabel_intervals
from utils.evaluation.significance import PairedLabelSets, PairedTexts, approximate_randomization, paired_bootstrap
from utils.runs.files import read_json


def sites(generator, num_sites=40, size=10, labels=3):
    """Texts of sites, all of which a classifier has right or wrong."""
    true = generator.integers(0, labels, num_sites * size)
    right = np.repeat(generator.random(num_sites) < 0.7, size)
    return true, np.where(right, true, (true + 1) % labels), np.repeat(np.arange(num_sites), size)


def width(pair):
    return pair[1] - pair[0]


def test_clusters_of_single_texts_are_the_plain_bootstrap():
    generator = np.random.default_rng(0)
    true, predicted, _ = sites(generator)
    plain = confidence_intervals(confusion_matrix(true, predicted, 3), 1, 4000)
    alone = clustered_intervals(true, predicted, 3, np.arange(len(true)), 1, 4000)
    for name, pair in plain.items():
        assert alone[name] == pytest.approx(pair, abs=0.01), name


def test_texts_that_stand_and_fall_together_give_wider_intervals():
    true, predicted, clusters = sites(np.random.default_rng(0))
    plain = confidence_intervals(confusion_matrix(true, predicted, 3), 1)["accuracy"]
    grouped = clustered_intervals(true, predicted, 3, clusters, 1)["accuracy"]
    # The variance of 40 sites instead of 400 texts.
    assert width(grouped) / width(plain) == pytest.approx(np.sqrt(10), rel=0.1)


@pytest.mark.slow
def test_they_hold_the_true_value_in_19_of_20_cases():
    generator, held = np.random.default_rng(3), [0, 0]
    for seed in range(200):
        true, predicted, clusters = sites(generator, 60, 6)
        intervals = (
            clustered_intervals(true, predicted, 3, clusters, seed, 400)["accuracy"],
            confidence_intervals(confusion_matrix(true, predicted, 3), seed, 400)["accuracy"],
        )
        for index, (low, high) in enumerate(intervals):
            held[index] += low <= 0.7 <= high
    assert held[0] / 200 > 0.9 > 0.75 > held[1] / 200


def test_label_sets():
    generator = np.random.default_rng(1)
    true = generator.integers(0, 2, (200, 4))
    predicted = np.where(generator.random((200, 4)) < 0.8, true, 1 - true)
    plain = multilabel_intervals(true, predicted, 1, 3000)
    alone = clustered_intervals(true, predicted, 4, np.arange(200), 1, 3000)
    for name, pair in plain.items():
        assert alone[name] == pytest.approx(pair, abs=0.012), name


def test_tests_exchange_whole_clusters():
    generator = np.random.default_rng(2)
    true, first, clusters = sites(generator)
    second = sites(generator)[1]
    second = np.where(np.repeat(generator.random(40) < 0.75, 10), true, (true + 1) % 3)
    plain, grouped = PairedTexts(true, first, second, 3), PairedTexts(true, first, second, 3, clusters)
    assert grouped.count == 40 and grouped.num_texts == plain.count == 400
    for own, other in zip(plain.observed(), grouped.observed(), strict=True):
        assert {name: float(x) for name, x in own.items()} == pytest.approx({k: float(v) for k, v in other.items()})
    found = [paired_bootstrap(texts, 1, 2000)["accuracy"] for texts in (plain, grouped)]
    assert found[1]["high"] - found[1]["low"] > 2.5 * (found[0]["high"] - found[0]["low"])
    p = [approximate_randomization(texts, 1, 2000)["accuracy"] for texts in (plain, grouped)]
    assert p[1] > p[0]
    sets = [np.eye(3, dtype=int)[x] for x in (true, first, second)]
    by_sets = PairedLabelSets(*sets, clusters=clusters)
    assert paired_bootstrap(by_sets, 1, 2000)["subset_accuracy"]["low"] == pytest.approx(found[1]["low"], abs=0.02)


def test_twins_of_check_corpus(tmp_path):
    path = tmp_path / "corpus.json"

    def place(row, split="test", language="en"):
        return {"language": language, "split": split, "row": row}

    pairs = [
        (place(1), place(3)),
        (place(3), place(5)),
        (place(2), place(1, "train")),
        (place(4), place(4, language="fr")),
    ]
    content = {
        "duplicates": [{"a": a, "b": b} for a, b in pairs],
        "leaking": {"en": {"num_test_texts": 5}},
    }
    path.write_text(json.dumps(content))
    found = clusters_of_twins(read_twins(str(path)), "en", 5)
    assert found[0] == found[2] == found[4] and len(set(found)) == 3
    for lang, count in (("en", 6), ("fr", 5)):
        with pytest.raises(UserError, match=f"knows other {lang} test texts"):
            clusters_of_twins(content, lang, count)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "no such file"), ("[]", "expected"), ('{"leaking": {}}', "duplic")]
)
def test_a_file_that_is_none_of_check_corpus(model, invoke, text, message):
    """Refused before anything is computed, and no result is lost."""
    assert invoke(evaluate, *TRAINED, "--eval_langs", "en")[0] == 0
    before = Path("outputs/tiny-en-fr/eval/en.json").read_text()
    if text is not None:
        Path("corpus.json").write_text(text)
    status, output, errors = invoke(evaluate, *TRAINED, "--eval_langs", "en", "--clusters", "corpus.json", "--force")
    assert status == 2 and message in errors and output == "", errors
    assert Path("outputs/tiny-en-fr/eval/en.json").read_text() == before


@pytest.mark.slow
def test_the_third_column_of_a_corpus(model, tmp_path, invoke):
    """Evaluated with clusters of six texts, intervals and comparisons take them as wholes."""
    import shutil

    corpus = tmp_path / "clustered"
    shutil.copytree(model.corpus, corpus)
    path = corpus / "corpus" / "test" / "en.tsv"
    rows = [row for _, row in read_rows(path)]
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(
            [*row, f"site {number // 6}"] for number, row in enumerate(rows)
        )
    command = [*TRAINED, "--corpus_path", corpus, "--eval_langs", "en", "fr"]
    status, _, errors = invoke(evaluate, *command)
    assert status == 0, errors
    results = {lang: read_json(Path(f"outputs/tiny-en-fr/eval/{lang}.json")) for lang in ("en", "fr")}
    assert results["en"]["intervals"] == {"resampled": "clusters", "num_clusters": 4}
    assert "intervals" not in results["fr"]
    shutil.copytree("outputs/tiny-en-fr", "outputs/other/tiny-en-fr")
    status, output, errors = invoke(post_eval, "--compare", "tiny-en-fr", "other/tiny-en-fr")
    assert status == 0, errors
    with Path("outputs/comparison_tiny-en-fr_other.tiny-en-fr.csv").open() as file:
        found = {(row["eval_lang"], row["num_texts"], row["num_clusters"]) for row in csv.DictReader(file)}
    assert found == {("en", "24", "4"), ("fr", "24", "")}
    # McNemar's test takes texts for independent.
    assert re.search(r"accuracy, McNemar\n +fr ", output) and re.search(
        r"accuracy, approximate randomization\n +en ", output
    )
    # Without them again, nothing is left of them.
    assert invoke(evaluate, *TRAINED, "--eval_langs", "en", "--force")[0] == 0
    assert not Path("outputs/tiny-en-fr/clusters/en.csv").exists()
    # A row without a cluster.
    path.write_text(path.read_text() + "OP\tonly a text\n")
    status, _, errors = invoke(evaluate, *command, "--force")
    assert status == 1 and "line 25: expected 3 columns (register<tab>text<tab>cluster), got 2" in errors
