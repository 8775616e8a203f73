import random

import numpy as np
import pytest

from tests.factories import LABEL_SETS, WORDS, write_label_sets
from utils.data.corpus_load import open_corpus
from utils.quality import doubtful
from utils.quality.doubtful import find_doubts, judge
from utils.quality.duplicates import find_duplicates
from utils.quality.rows import read_rows


def write_flipped(folder, sizes, share, registers=("A", "B", "C", "D")):
    """A corpus of which a share of all labels is wrong; returns its folder and the wrong places."""
    (folder / "info").mkdir(parents=True)
    names = ", ".join(f'"{name}": "{name}"' for name in registers)
    (folder / "info" / "reg_abbv.json").write_text(f"{{{names}}}")
    (folder / "info" / "lang2name.json").write_text("{}")
    wrong = set()
    for split, size in sizes.items():
        generator = random.Random(split)
        rows = []
        for number in range(size):
            kind = number % len(registers)
            own = list(WORDS.values())[kind]
            others = [word for words in WORDS.values() for word in words]
            text = " ".join([*generator.choices(own, k=5), *generator.choices(others, k=6), f"n{number}{split}"])
            label = kind
            if generator.random() < share:
                label = (kind + generator.randrange(1, len(registers))) % len(registers)
                wrong.add((split, number + 1))
            rows.append(f"{registers[label]}\t{text}\n")
        path = folder / "corpus" / split / "en.tsv"
        path.parent.mkdir(parents=True)
        path.write_text("".join(rows))
    return folder, wrong


def doubts_about(corpus, langs):
    rows = read_rows(corpus, langs, 1)
    return rows, find_doubts(rows, corpus, langs, find_duplicates(rows, 0.8).clusters, 5, 1)


def test_flipped_labels_come_first(tmp_path):
    folder, wrong = write_flipped(tmp_path / "corpus", {"train": 400, "test": 100}, 0.1)
    rows, doubts = doubts_about(open_corpus(str(folder)), ["en"])
    assert len(doubts.rows) == 500 and sorted(doubts.rows) == list(range(500))
    places = [tuple(rows.place(row).values())[1:] for row in doubts.rows[: len(wrong)]]
    assert len(wrong) > 30
    found = len(wrong.intersection(places)) / len(wrong)
    assert found >= 0.7
    flagged = {tuple(rows.place(row).values())[1:] for row in doubts.rows[doubts.flagged]}
    assert len(flagged & wrong) >= 0.7 * len(wrong) and len(flagged) < 2 * len(wrong)


def test_of_many_texts_some_are_fitted_and_all_are_judged(tmp_path, monkeypatch):
    folder, wrong = write_flipped(tmp_path / "corpus", {"train": 900, "test": 100}, 0.1)
    corpus = open_corpus(str(folder))
    monkeypatch.setattr(doubtful, "MOST_TEXTS", 300)
    rows, doubts = doubts_about(corpus, ["en"])
    again = doubts_about(corpus, ["en"])[1]
    assert sorted(doubts.rows) == list(range(1000)) and doubts.rows.tolist() == again.rows.tolist()
    places = [tuple(rows.place(row).values())[1:] for row in doubts.rows[: len(wrong)]]
    assert len(wrong.intersection(places)) >= 0.7 * len(wrong) > 60


def test_a_twin_never_judges_its_twin(tmp_path):
    """A text that is there twice with the same wrong label would be right by its twin."""
    folder, _ = write_flipped(tmp_path / "corpus", {"train": 200}, 0)
    path = folder / "corpus" / "train" / "en.tsv"
    rows = path.read_text().splitlines()
    wrong = [f"{'B' if row[0] == 'A' else 'A'}{row[1:]}" for row in rows[:10]]
    path.write_text("\n".join([*wrong, *rows[10:], *wrong]) + "\n")
    rows, doubts = doubts_about(open_corpus(str(folder)), ["en"])
    first = {int(rows.numbers[row]) for row in doubts.rows[:20]}
    assert len(first & {*range(1, 11), *range(201, 211)}) >= 16


def test_label_sets(tmp_path):
    folder = write_label_sets(tmp_path / "corpus", langs=("en",), sizes=(270, 0))
    path = folder / "corpus" / "train" / "en.tsv"
    rows = path.read_text().splitlines()
    wrong = range(0, 270, 15)
    for row in wrong:
        label, text = rows[row].split("\t")
        rows[row] = f"{LABEL_SETS[(LABEL_SETS.index(label) + 5) % len(LABEL_SETS)]}\t{text}"
    path.write_text("\n".join(rows) + "\n")
    (folder / "corpus" / "test" / "en.tsv").unlink()
    corpus = open_corpus(str(folder)).with_labels("auto", ["en"])
    rows, doubts = doubts_about(corpus, ["en"])
    first = {int(rows.numbers[row]) - 1 for row in doubts.rows[: len(wrong)]}
    assert len(first & set(wrong)) >= 0.7 * len(wrong)
    assert doubts.likely[0] in ("IN", "IN dt", "IN en", "HI", "HI re", "OP", "IN OP", "IN HI re", "HI OP", "IN HI")


def test_too_few_texts_are_not_judged(tmp_path, capsys):
    folder, _ = write_flipped(tmp_path / "corpus", {"train": 6}, 0)
    _, doubts = doubts_about(open_corpus(str(folder)), ["en"])
    assert len(doubts.rows) == 0 and "en: too few texts" in capsys.readouterr().err


def test_judge_with_a_label_that_no_text_has():
    probabilities = np.array([[0.9, 0.05, 0.05], [0.1, 0.05, 0.85], [0.8, 0.1, 0.1], [0.05, 0.05, 0.9]])
    scores, _, likely, pairs = judge(np.array([0, 2, 2, 2]), probabilities, ["x", "y", "z"])
    assert scores.argmin() == 2 and likely == ["x", "z", "x", "z"]
    assert pairs[2] == pytest.approx([0.8 / 0.9, 0.1 / 0.9])
