"""Files of examples come back as written; what is wrong in them is named with its line."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from tests.factories import skip
from utils.data.text_files import dataset_name, open_text_file, read_text_file, told_apart
from utils.errors import UserError


def write(path, *lines):
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        file.write("".join(f"{line}\n" for line in lines))
    return path


def test_texts_come_back_as_they_were(tmp_path):
    texts = ["The bicycle.", "  two  spaces ", "NA", '"quoted"', "a\u2028b", "日本語"]
    data = read_text_file(write(tmp_path / "a.txt.gz", *texts))
    assert data["text"] == texts
    assert data["metadata"] == ["{}"] * 6
    assert "labels" not in data.column_names
    assert read_text_file(tmp_path / "a.txt.gz", max_examples=2)["text"] == texts[:2]


def test_labels_and_metadata(tmp_path):
    examples = [{"text": "a [MASK]", "labels": "a b"}, {"text": "c", "labels": "d"}]
    path = write(tmp_path / "a.json.gz", *map(json.dumps, examples))
    write(tmp_path / "a_metadata.json.gz", '{"item": 1}', '{"item": 2, "verb": "broken"}')
    data = read_text_file(path)
    assert data["labels"] == ["a b", "d"]
    assert [json.loads(entry) for entry in data["metadata"]] == [{"item": 1}, {"item": 2, "verb": "broken"}]


@pytest.mark.parametrize(
    ("name", "lines", "metadata", "message"),
    [
        ("a.txt.gz", ["x", "", "y"], None, "a.txt.gz, line 2: empty"),
        ("a.txt.gz", [], None, "the file is empty"),
        ("a.txt.gz", ["x", "y"], ["{}"], "a_metadata.json.gz has 1 lines, but"),
        ("a.txt.gz", ["x", "y"], ["{}", "[1]"], "a_metadata.json.gz, line 2: expected a JSON object"),
        ("a.txt.gz", ["x"], ["{"], "a_metadata.json.gz, line 1: not valid JSON"),
        ("a.json.gz", ['{"text": "x", "labels": "y"}', '{"text": "x"}'], None, "line 2: the key 'labels' is missing"),
        ("a.json.gz", ['{"text": 1, "labels": "y"}'], None, "line 1: the key 'text' must be a string, got 1"),
        ("a.json.gz", ['{"text": "x", "labels": "y"}', "x"], None, "a.json.gz, line 2: not valid JSON"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, name, lines, metadata, message):
    path = write(tmp_path / name, *lines)
    if metadata is not None:
        write(tmp_path / "a_metadata.json.gz", *metadata)
    with pytest.raises(UserError) as error:
        read_text_file(path)
    assert message in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    plain = tmp_path / "a.txt.gz"
    plain.write_text("not gzipped")
    with pytest.raises(UserError, match="cannot be read as a gzipped file"):
        read_text_file(plain)
    whole = write(tmp_path / "b.txt.gz", *["some text"] * 50).read_bytes()
    (tmp_path / "b.txt.gz").write_bytes(whole[:-12])
    with pytest.raises(UserError, match="cannot be read as a gzipped file"):
        read_text_file(tmp_path / "b.txt.gz")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"good\nbad \xff\n"))
    with pytest.raises(UserError, match="line 2: not valid UTF-8"):
        read_text_file(tmp_path / "c.txt.gz")
    with pytest.raises(UserError, match="does not exist"):
        read_text_file(tmp_path / "d.txt.gz")
    for name in ("a.txt", "a.csv.gz", "a_metadata.json.gz"):
        with pytest.raises(UserError, match="expected a file of examples"):
            dataset_name(name)


def test_real_data():
    folder = os.environ.get("LM_DATA_PATH")
    if not folder:
        skip("LM_DATA_PATH does not name a folder with combined_fillers.txt.gz")
    data = read_text_file(Path(folder) / "combined_fillers.txt.gz")
    # 17,279 line ends: the last line has none.
    assert len(data) == 17_280
    assert data[0]["text"] == "The teenager has always broken the jar."
    assert json.loads(data[0]["metadata"])["verb"] == "broken"
    assert len(read_text_file(Path(folder) / "blorked.txt.gz")) == 160


def test_a_line_without_end_and_one_without_bottom(tmp_path):
    """200 MB without a line break, 10,000 brackets: refused before they are read."""
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"one\n" + b"x" * 200_000_000, compresslevel=1))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"x\.txt\.gz, line 2: longer than 10 MB; expected one example per line"):
        open_text_file(path)
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()
    deep = tmp_path / "x.json.gz"
    deep.write_bytes(gzip.compress(b'{"text": ' + b"[" * 10_000))
    with pytest.raises(UserError, match=r"x\.json\.gz, line 1: nested too deeply"):
        open_text_file(deep)


def test_files_of_one_name_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/x", "b/x", "y"):
        path = Path(f"{name}.txt.gz")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(b"a text\n"))
    files = told_apart([open_text_file(f"{name}.txt.gz") for name in ("a/x", "b/x", "y")])
    assert [file.name for file in files] == ["a/x.txt.gz", "b/x.txt.gz", "y"]
    assert files[0].metadata_path == Path("a/x_metadata.json.gz")
    with pytest.raises(UserError, match="y.txt.gz is given twice"):
        told_apart([files[2], files[2]])
