"""Parts: cut by the file alone, whole or not there."""

import numpy as np
import pytest

from utils.evaluation.labelling import LabelSets, OneLabel
from utils.prediction import parts
from utils.prediction.parts import (
    Counts,
    Part,
    count_labels,
    cut_parts,
    part_path,
    read_part,
    whole_parts,
    write_part,
)
from utils.prediction.readers import RawRow


def rows(*sizes):
    return [RawRow(line, size, b"") for line, size in enumerate(sizes, 1)]


def test_parts_have_so_many_rows_and_no_more_than_so_many_bytes(monkeypatch):
    monkeypatch.setattr(parts, "PART_SIZE", 100)
    cut = [(first, [row.size for row in part]) for first, part in cut_parts(rows(10, 10, 10, 95, 5, 6, 500, 1), 3)]
    assert cut == [(0, [10, 10, 10]), (3, [95, 5]), (5, [6]), (6, [500]), (7, [1])]
    assert list(cut_parts([], 3)) == []


def test_what_is_written_is_read(tmp_path):
    path = part_path(tmp_path, 3)
    part = Part(40, Counts(rows=2, texts=1, registers={"IN": 1}), 77, [{"row": 41, "line": 42, "problem": "no text"}])
    records = ['{"id": "a\\nb\u2028"}', "{}"]
    write_part(path, part, records)
    assert read_part(path) == (part, records)
    assert whole_parts(tmp_path) == {3: part}


@pytest.mark.parametrize(
    "damage", [lambda x: x[:-1], lambda x: x[:7], lambda x: b"", lambda x: x[:20] + b"\0" + x[21:]]
)
def test_a_torn_part_is_none(tmp_path, damage):
    path = part_path(tmp_path, 0)
    write_part(path, Part(0, Counts(), 0), ["{}" * 99])
    path.write_bytes(damage(path.read_bytes()))
    assert read_part(path) is None
    assert whole_parts(tmp_path) == {} and not path.exists()


def test_counts():
    shares = np.array([0.05, 0.1, 0.35, 0.999, 1.0, 0.5])
    labels = np.array([0, 0, 2, 2, 2, 0])
    probabilities = np.zeros((6, 3))
    probabilities[np.arange(6), labels] = shares
    counts = count_labels(OneLabel(["A", "B", "C"]), labels, probabilities)
    assert counts.registers == {"A": 3, "C": 3} and counts.texts == 6
    assert counts.probabilities == [1, 1, 0, 1, 0, 1, 0, 0, 0, 2]
    assert counts.share_below(0.5) == 0.5
    total = Counts(rows=1)
    total.add(counts)
    total.add(counts)
    assert (total.rows, total.texts, total.registers) == (1, 12, {"A": 6, "C": 6})
    assert Counts().share_below(0.5) == 0


def test_counts_of_label_sets():
    probabilities = np.array([[0.9, 0.6, 0.1], [0.2, 0.55, 0.3], [0.4, 0.1, 0.05]])
    sets = LabelSets(["A", "B", "C"])
    counts = count_labels(sets, sets.decide(probabilities), probabilities)
    assert counts.registers == {"A": 1, "B": 2} and (counts.texts, counts.unlabelled) == (3, 1)
    assert counts.share_below(0.5) == pytest.approx(1 / 3)
    total = Counts(unlabelled=1)
    total.add(counts)
    assert total.unlabelled == 2
