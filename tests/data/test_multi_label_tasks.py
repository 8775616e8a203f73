"""Datasets of the language database whose texts have any number of labels."""

import datasets
import pytest

from tests.databases import TEXTS, database, rows, write
from utils.data.language_database import open_task
from utils.errors import UserError

SETS = [["a", "b"], ["b"], [], ["a"], ["c", "a"], ["c"], ["b", "c"], ["a"]]
SETS_ENTRY = {"task_type": "multi_label", "classes": 3}


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv", "saved"])
def test_datasets_of_several_labels(tmp_path, kind):
    """Lists of labels, or names with blanks between them."""
    labels = [" ".join(own) for own in SETS] if kind == "csv" else SETS
    write(tmp_path / "data", kind, rows(labels))
    data = open_task("t", ["xx"], path=database(tmp_path, **SETS_ENTRY))
    assert data.multilabel and data.label_names(["xx"]) == ["a", "b", "c"] and data.subregisters == {}
    found = data.load("train", "xx", " ")["label"][:]
    assert found == [[int(name in own) for name in ("a", "b", "c")] for own in SETS]
    assert data.with_labels("auto", ["xx"]) is data and data.as_labelled(True, ["a", "b", "c"]) is data
    with pytest.raises(UserError, match="--labels single: the task_type of t"):
        data.with_labels("single", ["xx"])
    with pytest.raises(UserError, match="gives texts any number of labels, the model one label"):
        data.as_labelled(False, ["a", "b", "c"])


def test_lists_of_class_labels(tmp_path):
    features = datasets.Features(
        {"title": datasets.Value("string"), "body": datasets.Value("string"),
         "label": datasets.List(datasets.ClassLabel(names=["z", "y", "x"]))}
    )  # fmt: skip
    made = datasets.Dataset.from_dict({"title": TEXTS, "body": TEXTS, "label": [[0, 2]] * 7 + [[1]]}, features=features)
    write(tmp_path / "data", "saved", made)
    data = open_task("t", ["xx"], path=database(tmp_path, **SETS_ENTRY))
    assert data.label_names(["xx"]) == ["z", "y", "x"]
    assert data.load("test", "xx", " ")["label"][:] == [[1, 0, 1]] * 7 + [[0, 1, 0]]


def test_a_list_of_labels_in_a_task_of_single_ones_is_refused(tmp_path):
    write(tmp_path / "data", "jsonl", rows(SETS))
    with pytest.raises(UserError, match=r"split train, row 1: \['a', 'b'\] in 'label' is not a label"):
        open_task("t", ["xx"], path=database(tmp_path)).load("train", "xx", " ")
