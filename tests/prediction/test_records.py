"""Files of labels: the same records in every format, readable by the programs that others use."""

import csv
import json

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import zstandard

from utils.prediction.records import RecordLayout, write_labels

LABELS = ("IN", "=OP")


def records(layout, **kept):
    """Two parts of records, and a part without any between them."""

    def one(name, label, shares, **more):
        return layout.record(name, label, np.array(shares), 7, False, more)

    first = [one("a\n,b", 0, [0.76543219, 0.23456781], **{key: value[0] for key, value in kept.items()})]
    return [first, [], [one("c", 1, [0.25, 0.75], **{key: value[1] for key, value in kept.items()})]]


def test_a_record():
    (record,), *_ = records(RecordLayout(LABELS))
    assert json.loads(record) == {
        "id": "a\n,b",
        "register": "IN",
        "probability": 0.765432,
        "probabilities": {"IN": 0.7654, "=OP": 0.2346},
        "num_tokens": 7,
        "truncated": False,
    }


def test_records_of_hplt():
    layout = RecordLayout(LABELS, ("text",), hplt=True)
    (record,), *_ = records(layout, text=["one", "two"])
    assert json.loads(record) == {"id": "a\n,b", "web-register": {"IN": 0.7654, "=OP": 0.2346}, "text": "one"}


def test_copied_columns_replace_no_field():
    layout = RecordLayout(LABELS, ("register", "url"))
    (record,), *_ = records(layout, register=["gold", "gold"], url=["u", "v"])
    found = json.loads(record)
    assert (found["register"], found["input_register"], found["url"]) == ("IN", "gold", "u")


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst"])
def test_lines_of_json(tmp_path, ending):
    layout = RecordLayout(LABELS)
    path = tmp_path / f"labels.{ending}"
    write_labels(path, lambda: iter(records(layout)), layout)
    expected = "".join(f"{record}\n" for part in records(layout) for record in part)
    content = path.read_bytes()
    if ending.endswith("zst"):
        # One frame, which all readers read to its end, with a checksum.
        reader = zstandard.ZstdDecompressor().stream_reader(content)
        content = reader.read()
        assert zstandard.get_frame_parameters(path.read_bytes()).has_checksum
    assert content.decode() == expected
    table = pd.read_json(path, lines=True)
    assert table["register"].tolist() == ["IN", "=OP"]


def test_csv(tmp_path):
    layout = RecordLayout(LABELS, ("meta", "url"))
    path = tmp_path / "labels.csv"
    parts = records(layout, meta=[{"a": 1}, None], url=["x\ry", "z"])
    write_labels(path, lambda: iter(parts), layout)
    with path.open(encoding="utf-8", newline="") as file:
        header, first, second = csv.reader(file)
    assert header == ["id", "register", "probability", "num_tokens", "truncated", "IN", "'=OP", "meta", "url"]
    assert first == ["a\n,b", "IN", "0.765432", "7", "False", "0.7654", "0.2346", '{"a": 1}', "x\ry"]
    assert second[:2] == ["c", "'=OP"] and second[-2:] == ["", "z"]


def test_parquet_has_the_types_of_the_columns(tmp_path):
    layout = RecordLayout(LABELS, ("number", "mixed", "meta"))
    parts = records(layout, number=[1, 2.5], mixed=["x", 3], meta=[{"a": 1}, {"a": 2}])
    path = tmp_path / "labels.parquet"
    write_labels(path, lambda: iter(parts), layout)
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert [row["number"] for row in rows] == [1.0, 2.5]
    assert [row["mixed"] for row in rows] == ["x", "3"]
    assert [row["meta"] for row in rows] == [{"a": 1}, {"a": 2}]
    assert rows[0]["probabilities"] == {"IN": 0.7654, "=OP": 0.2346} and rows[0]["id"] == "a\n,b"


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst", "csv", "parquet"])
def test_a_file_without_texts_has_labels_without_rows(tmp_path, ending):
    layout = RecordLayout(LABELS, ("url",))
    path = tmp_path / f"labels.{ending}"
    write_labels(path, lambda: iter([]), layout)
    assert path.is_file()
    if ending == "csv":
        assert path.read_text().count("\n") == 1
    if ending == "parquet":
        assert pyarrow.parquet.read_table(path).num_rows == 0
