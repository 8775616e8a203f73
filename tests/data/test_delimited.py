"""The one reader and writer of CSV and TSV files."""

import csv

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.data.delimited import as_given, inert, read_rows, read_table, write_table
from utils.data.transcribe import write_file
from utils.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\ufeff"), max_size=12)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_what_is_written_is_read(tmp_path_factory, suffix, rows):
    path = tmp_path_factory.getbasetemp() / f"table{suffix}"
    table = [{"text": text, "label": label} for text, label in rows]
    write_table(path, table)
    assert read_table(path) == table
    # Other readers too: lone carriage returns are in quotes.
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file, delimiter="," if suffix == ".csv" else "\t")) == table


@pytest.mark.parametrize("written", ['text,y\n"a\rb",1\n', "text,y\na\rb,1\n"])
def test_a_lone_carriage_return_is_read_with_and_without_quotes(tmp_path, written):
    path = tmp_path / "table.csv"
    path.write_bytes(written.encode())
    assert read_table(path) == [{"text": "a\rb", "y": "1"}]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_transcribed_table_can_be_read_again(tmp_path, suffix):
    """The file was rewritten so that a text with a lone carriage return could not be read again."""
    path = tmp_path / f"train{suffix}"
    rows = [{"text": "a\rb", "text-phoneme": "ɐ\rb"}, {"text": 'c "d",\te\r\nf', "text-phoneme": ""}]
    write_file(datasets.Dataset.from_list(rows), path)
    assert read_table(path) == rows
    write_file(datasets.Dataset.from_list(read_table(path)), path)
    assert read_table(path) == rows


def test_rows_have_the_number_of_their_first_line(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text('a\tb\n"c\nd"\te\n\nf\tg\n')
    assert list(read_rows(path)) == [(1, ["a", "b"]), (2, ["c\nd", "e"]), (4, []), (5, ["f", "g"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1\n", "line 2: expected 2 columns"),
        (b"a,a\n1,2\n", "line 1: expected a header"),
        (b"", "line 1: expected a header"),
        (b'a,b\n"x"y,2\n', "line 2: malformed row"),
        (b"a,b\n1,2\n\xff,3\n", "line 3: not valid UTF-8"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(path)


@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "=", "\tx"])
def test_names_that_spreadsheets_would_run_are_text(name):
    assert inert(name) == f"'{name}" and as_given(inert(name)) == name


@pytest.mark.parametrize("name", ["IN", "-1", "+2.5", "'quoted'", "'=x", "a=b", ""])
def test_other_names_stay_as_they_are(name):
    assert inert(name) == name
    if name != "'=x":
        assert as_given(name) == name
