"""Every row comes back as it was written, with its line, from every kind of file; bad ones are named."""

import gzip
import io
import json
import re

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from utils.errors import RunFailure, UserError
from utils.prediction import readers
from utils.prediction.readers import BadRow, Columns, Reader

ROWS = [
    {"text": "plain", "url": "a", "n": 1},
    {"text": 'with\ttab, comma and "quotes"', "url": "b", "n": 2},
    {"text": "NA", "url": "null", "n": 3},
    {"text": "line\u2028separator \ue000 and \U0001f600", "url": "", "n": 4},
]


def write(path, rows):
    """Write rows in the format and with the compression that the file's name says."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
        return path
    if name.endswith(".jsonl"):
        content = "".join(json.dumps(row) + "\n" for row in rows)
    elif name.endswith(".txt"):
        content = "".join(row["text"] + "\n" for row in rows)
    else:
        from utils.data.delimited import DELIMITERS, write_rows

        file = io.StringIO(newline="")
        write_rows(file, [list(rows[0]), *(list(row.values()) for row in rows)], DELIMITERS[name[-4:]])
        content = file.getvalue()
    return write_bytes(path, content.encode())


def write_bytes(path, content):
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        # As several programs write it: in more than one frame.
        half = len(content) // 2
        content = b"".join(zstandard.ZstdCompressor().compress(part) for part in (content[:half], content[half:]))
    path.write_bytes(content)
    return path


def read(path, **columns):
    """Return every row: what it holds, or what is wrong with it, each with its line."""
    reader = Reader(path, Columns(**columns))
    found = []
    for number, row in enumerate(reader):
        try:
            found.append((row.line, *reader.parse(row, number)))
        except BadRow as problem:
            found.append((row.line, str(problem)))
    return found


KINDS = [f"{kind}{compression}" for kind in (".txt", ".csv", ".tsv", ".jsonl") for compression in ("", ".gz", ".zst")]


@pytest.mark.parametrize("kind", [*KINDS, ".parquet"])
def test_rows_come_back(tmp_path, kind):
    path = write(tmp_path / f"rows{kind}", ROWS)
    columns = {} if kind.startswith(".txt") else {"id": "url", "kept": ("n",)}
    found = read(path, **columns)
    assert [text for _, _, text, _ in found] == [row["text"] for row in ROWS]
    first = 2 if kind[1] in "ct" and not kind.startswith(".txt") else 1
    assert [line for line, *_ in found] == [first + index for index in range(4)]
    if columns:
        assert [name for _, name, _, _ in found] == [row["url"] for row in ROWS]
        assert [str(kept["n"]) for *_, kept in found] == ["1", "2", "3", "4"]
    else:
        assert [name for _, name, _, _ in found] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_columns_within_objects(tmp_path, kind):
    rows = [{"document": {"text": "one", "meta": {"id": 7}}, "lang": "fi"}]
    path = write(tmp_path / f"rows{kind}", rows)
    assert read(path, text="document.text", id="document.meta.id", kept=("lang", "document.meta")) == [
        (1, 7, "one", {"lang": "fi", "document.meta": {"id": 7}})
    ]


def test_a_column_may_have_a_point_in_its_name(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"a.b": "named so", "a": {"b": "within"}}])
    assert read(path, text="a.b")[0][2] == "named so"


def test_files_of_a_register_corpus_have_no_header(small):
    from utils.data.corpus_load import open_corpus

    path = small / "register-corpus/corpus/test/en.tsv"
    rows = open_corpus(str(small / "register-corpus")).rows("test", "en")
    expected = [(register, text) for [register], text in rows]
    assert [(kept["label"], text) for _, _, text, kept in read(path, kept=("label",))] == expected


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not valid JSON"),
        (b"[1]", "expected a JSON object, got [1]"),
        (b"{}", "no text: text is missing"),
        (b'{"text": null}', "no text: text is missing"),
        (b'{"text": 5}', "no text: text is 5"),
        (b'{"text": ""}', "no text: it is empty"),
        (b'{"text": " \\n\\t"}', "no text: it is empty"),
        (b'{"text": "\\ud800"}', "half of a surrogate pair"),
        (b'{"text": "\xff"}', "not valid UTF-8 (byte 0xff)"),
        (b"", "no text: the line is empty"),
        (b'{"text": "fine"}', "no id: url is missing"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_lines_are_named_and_reading_goes_on(tmp_path, line, problem):
    good = b'{"text": "good", "url": "u"}'
    path = write_bytes(tmp_path / "rows.jsonl.gz", b"\n".join([good, line, good, b""]))
    first, bad, last = read(path, id="url")
    assert first[2] == last[2] == "good" and (first[0], last[0]) == (1, 3)
    assert bad[0] == 2 and problem in bad[1]


@pytest.mark.parametrize(
    ("rows", "line", "problem"),
    [
        (b"1,a\n2\n3,c\n", 3, "expected 2 columns (id, text), got 1"),
        (b'1,a\n2,"b"x\n3,c\n', 3, "malformed row"),
        (b"1,a\n2,\xfe\n3,c\n", 3, "not valid UTF-8 (byte 0xfe)"),
        (b'1,a\n2,"x\ny\xfe"\n3,c\n', 4, "not valid UTF-8 (byte 0xfe)"),
        (b"1,a\n2,\n3,c\n", 3, "no text: it is empty"),
    ],
)
def test_bad_rows_of_tables(tmp_path, rows, line, problem):
    path = write_bytes(tmp_path / "rows.csv", b"\xef\xbb\xbfid,text\n" + rows)
    found = read(path, id="id")
    assert [row[1:3] for row in found if len(row) == 4] == [("1", "a"), ("3", "c")]
    (bad,) = [row for row in found if len(row) == 2]
    assert bad[0] == line and problem in bad[1]


@pytest.mark.parametrize("kind", [".txt", ".jsonl.gz", ".csv", ".parquet"])
def test_a_row_that_is_too_long_costs_no_other(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_ROW", 5000)
    path = write(tmp_path / f"rows{kind}", [{"text": "before"}, {"text": "x" * 12_000}, {"text": "behind"}])
    found = read(path)
    assert [row[2] for row in (found[0], found[-1])] == ["before", "behind"]
    assert all(len(row) == 2 for row in found[1:-1])
    assert len(found) == 3 and re.search("longer|a line of 0 MB or more", found[1][1])


def test_a_row_of_100_megabytes_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl.zst"
    content = b'{"text": "before"}\n{"text": "' + b"x" * readers.LONGEST_ROW + b'"}\n{"text": "behind"}\n'
    path.write_bytes(zstandard.ZstdCompressor().compress(content))
    assert [row[-1] for row in read(path)][1] == "100 MB or longer; at most 100 MB"
    assert [row[0] for row in read(path)] == [1, 2, 3]


@pytest.mark.parametrize("kind", [".txt.gz", ".jsonl.zst", ".csv.gz", ".tsv.zst", ".parquet"])
@pytest.mark.parametrize("kept", [0.7, 0.999])
def test_torn_files_are_not_taken_for_whole(tmp_path, kind, kept):
    path = write(tmp_path / f"rows{kind}", [{"text": f"{index:05}", "n": index * 7919} for index in range(2000)])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(RunFailure, match=r"rows\.\w+(\.\w+)?: cannot be read behind"):
        read(path)


@pytest.mark.parametrize("kind", [".txt.gz", ".jsonl.zst", ".parquet"])
def test_other_files_of_these_names_are_refused(tmp_path, kind):
    path = tmp_path / f"rows{kind}"
    path.write_bytes(b"this is no such file, whatever its name says")
    with pytest.raises(RunFailure, match="cannot be read behind (line|row) 0"):
        read(path)


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".parquet"])
def test_a_missing_column_is_named(tmp_path, kind):
    path = write(tmp_path / f"rows{kind}", ROWS)
    with pytest.raises(UserError, match=r"no column 'content'; it has text, url, n: see --text_column"):
        read(path, text="content")


def test_the_position_grows_to_the_size(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"text": "x" * 1000}] * 500)
    reader, positions = Reader(path, Columns()), []
    for _ in reader:
        positions.append(reader.position)
    assert positions == sorted(positions) and positions[-1] == path.stat().st_size


def test_files_of_a_register_corpus_may_have_clusters(tmp_path):
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "reg_abbv.json").write_text('{"IN": "x"}')
    path = tmp_path / "corpus" / "test" / "en.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("IN\tone text\tsite 1\nIN\tanother\tsite 2\n")
    assert [(text, kept["cluster"]) for _, _, text, kept in read(path, kept=("cluster",))] == [
        ("one text", "site 1"),
        ("another", "site 2"),
    ]
