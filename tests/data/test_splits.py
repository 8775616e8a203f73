import subprocess
import sys

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import PROJECT
from utils.data.corpus_load import open_corpus
from utils.data.splits import mix_languages, prepare_training_data, split_validation, subsample
from utils.data.tokenization import encode, load_tokenizer
from utils.errors import UserError

SIZES = {"en": 1000, "fr": 400, "tr": 100}
# A register of 41 of 1,080 texts among others, as in the Swedish corpus.
LABELS = {lang: np.arange(size) % 7 for lang, size in SIZES.items()}


def counts(mix, exponent=0.3):
    return {lang: len(rows) for lang, rows in mix_languages(LABELS, mix, exponent, 1).items()}


def test_mixes():
    assert counts("equal") == {"en": 100, "fr": 100, "tr": 100}
    assert counts("all") == SIZES
    assert counts("temperature", 0.0) == counts("equal")
    assert counts("temperature", 1.0) == SIZES
    between = counts("temperature", 0.5)
    assert between["tr"] == 100
    assert between["en"] / between["tr"] == pytest.approx((1000 / 100) ** 0.5, rel=0.01)


def test_registers_keep_their_share_in_a_mix():
    """Drawn without regard to them, 109 of 1,080 texts held 35 of a register where 41 are its share."""
    generator = np.random.default_rng(0)
    labels = {
        "sv": generator.choice(8, 1080, p=[0.38, 0.2, 0.2, 0.1, 0.05, 0.04, 0.02, 0.01]),
        "ar": np.arange(109) % 8,
    }
    rows = mix_languages(labels, "equal", 0, 42)["sv"]
    assert len(rows) == 109
    for label in range(8):
        share = (labels["sv"] == label).sum() * 109 / 1080
        assert abs((labels["sv"][rows] == label).sum() - share) < 1, label


def test_a_mix_repeats_no_text_and_depends_on_the_seed_alone():
    first, second = (mix_languages(LABELS, "equal", 0, 1) for _ in range(2))
    for lang, rows in first.items():
        assert len(set(rows.tolist())) == len(rows)
        assert np.array_equal(rows, second[lang])
    assert not np.array_equal(first["en"], mix_languages(LABELS, "equal", 0, 2)["en"])


@given(
    labels=st.lists(st.integers(0, 5), min_size=10, max_size=200),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 100),
)
def test_split_is_a_stratified_partition(labels, share, seed):
    labels = np.array(labels)
    groups = np.array(["a", "b"])[np.arange(len(labels)) % 2]
    try:
        train, validation = split_validation(labels, groups, share, seed)
    except UserError:
        return
    assert sorted([*train, *validation]) == list(range(len(labels)))
    for group in "ab":
        for label in np.unique(labels):
            stratum = np.flatnonzero((labels == label) & (groups == group))
            in_validation = len(np.intersect1d(stratum, validation))
            assert abs(in_validation - len(stratum) * share) <= 1
            assert len(stratum) == 0 or in_validation < len(stratum)


@pytest.mark.fault(3)
def test_every_process_finds_the_same_split():
    code = (
        "import numpy as np, sys\n"
        "from utils.data.splits import split_validation\n"
        "labels = np.arange(500) % 7\n"
        "_, rows = split_validation(labels, np.array(['en', 'fr'])[labels % 2], 0.2, 42)\n"
        "print(rows.tolist())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(eval(outputs.pop())) == 100  # noqa: S307


def test_subsample_keeps_proportions():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    rows = subsample(labels, 100, 1)
    assert len(set(rows.tolist())) == 100
    assert np.abs(np.bincount(labels[rows]) - [60, 30, 10]).max() <= 1
    assert len(subsample(labels, 5000, 1)) == 1000


@pytest.mark.fault(1)
@pytest.mark.parametrize("mix", ["equal", "all", "temperature"])
def test_texts_keep_their_labels(small, tmp_path, mix):
    corpus = open_corpus(str(small / "register-corpus"))
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    languages = {lang: corpus.load("train", lang) for lang in ("en", "es", "fr")}
    truth = {}
    for dataset in languages.values():
        for ids, label in zip(encode(dataset["text"][:], tokenizer, 64)[0], dataset["label"], strict=True):
            truth.setdefault(tuple(ids), set()).add(label)
    data = prepare_training_data(
        languages,
        tokenizer,
        max_length=64,
        cache_dir=tmp_path,
        mix=mix,
        mix_exponent=0.3,
        validation_size=0.2,
        max_train_texts=70,
        seed=1,
    )
    for part in (data.train, data.validation):
        for row in part:
            assert row["label"] in truth[tuple(row["input_ids"])]
            assert row["length"] == len(row["input_ids"])
    assert len(data.train) == 70


def test_a_number_of_validation_texts():
    labels, groups = np.arange(60) % 3, np.array(["en"] * 60)
    train, validation = split_validation(labels, groups, 12, seed=1)
    assert (len(train), np.bincount(labels[validation]).tolist()) == (48, [4, 4, 4])
    assert np.array_equal(validation, split_validation(labels, groups, 0.2, seed=1)[1])
    with pytest.raises(UserError, match="--validation_size 60: there are 60 texts in all"):
        split_validation(labels, groups, 60, seed=1)


def test_no_column_is_read_row_by_row(small, tmp_path, monkeypatch):
    """With 200,000 texts, that took most of the time before the first step."""
    languages = {"en": open_corpus(str(small / "register-corpus")).load("train", "en")}

    def fail(_):
        pytest.fail("read row by row")

    monkeypatch.setattr(datasets.Dataset, "__iter__", fail)
    monkeypatch.setattr(datasets.arrow_dataset.Column, "__iter__", fail)
    found = prepare_training_data(
        languages,
        load_tokenizer(small / "tiny-xlmr"),
        max_length=32,
        cache_dir=tmp_path,
        mix="all",
        mix_exponent=0.3,
        validation_size=0.2,
        max_train_texts=20,
        seed=1,
    )
    assert (len(found.train), len(found.validation)) == (20, 12)


def label_sets(count, seed=0):
    """Texts with labels of which some are rare, and hybrids of two that like each other."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((count, 6)) < [0.5, 0.3, 0.2, 0.05, 0.02, 0]).astype(int)
    labels[:, 4] |= labels[:, 3] & (generator.random(count) < 0.5)
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_every_label_gives_its_share_of_validation_texts(seed):
    """Also of each language, and to the text as many as were asked for."""
    labels, langs = label_sets(800, seed), np.array(["en"] * 600 + ["fr"] * 200)
    train, validation = split_validation(labels, langs, 0.2, seed)
    assert sorted([*train, *validation]) == list(range(800))
    for lang, size in (("en", 120), ("fr", 40)):
        own = validation[langs[validation] == lang]
        assert len(own) == size
        shares = labels[langs == lang].sum(0) * 0.2
        assert np.abs(labels[own].sum(0) - shares).max() <= 2.5, (labels[own].sum(0), shares)
    again = split_validation(labels, langs, 0.2, seed)
    assert np.array_equal(again[1], validation)
    assert not np.array_equal(split_validation(labels, langs, 0.2, seed + 1)[1], validation)


def test_a_label_of_one_text_stays_in_training():
    labels = label_sets(100)
    labels[:, 5] = 0
    labels[17, 5] = 1
    for seed in range(10):
        assert 17 in split_validation(labels, np.zeros(100), 0.2, seed)[0]


def test_label_sets_keep_their_share_in_a_mix():
    labels = {"sv": label_sets(1000), "ar": label_sets(100, 1)}
    rows = mix_languages(labels, "equal", 0, 42)
    assert len(rows["sv"]) == len(rows["ar"]) == 100 == len(set(rows["sv"].tolist()))
    assert np.abs(labels["sv"][rows["sv"]].sum(0) - labels["sv"].sum(0) / 10).max() <= 2
    assert np.array_equal(rows["sv"], mix_languages({"sv": labels["sv"], "ar": labels["ar"]}, "equal", 0, 42)["sv"])
