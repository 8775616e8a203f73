"""The one reader and the one writer of CSV and TSV files.

Quoted as Python's csv module quotes, but for one trap: it ends a row at a lone carriage return, which it leaves
unquoted where lines end in ``\\n`` (Python 3.11). Here such fields are written in quotes, and read with or without.
"""

import csv
import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from utils.errors import UserError
from utils.runs.files import atomic_path

# With these, spreadsheets begin formulas.
FORMULA = tuple("=+-@\t\r")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
# Bytes that are read at once of what nobody looks at.
BLOCK = 1 << 20
DELIMITERS = {".csv": ",", ".tsv": "\t"}
# A character of no meaning and what it and a lone carriage return become on their way through the csv module.
STAND_IN = "\ue000"
ITSELF, RETURN = f"{STAND_IN}0", f"{STAND_IN}1"
# How messages about rows begin that the csv module refuses.
MALFORMED = "malformed row"


def read_utf8(path: Path) -> str:
    """Read a text file exactly as it is, without the mark that some programs put before UTF-8.

    Raises:
        UserError: with file and line, if it is not UTF-8.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: {_not_utf8(content[error.start])}") from None


def read_rows(path: Path, hint: str = "") -> Iterator[tuple[int, list[str]]]:
    """Yield every row with the number of its first line, exactly as it was written; empty lines are empty rows.

    One row is in memory at a time.

    Quoted fields, doubled quotation marks, line breaks inside quotes, fields of any length, both ``\\n`` and
    ``\\r\\n`` line ends, and texts such as "NA" come back unchanged.

    Args:
        path: of a .csv or .tsv file.
        hint: what to add to the message about a malformed row.

    Raises:
        UserError: with file and line, for invalid UTF-8 or a malformed row.
    """
    with path.open("rb") as file:
        for line, row in parse_rows(file, DELIMITERS[path.suffix]):
            if isinstance(row, str):
                raise UserError(f"{path}, line {line}: {row}{hint if row.startswith(MALFORMED) else ''}")
            yield line, row


def parse_rows(file: BinaryIO, delimiter: str, longest: int = sys.maxsize) -> Iterator[tuple[int, list[str] | str]]:
    """Yield every row of an open file with its line number, or what is wrong with it; reading goes on behind it.

    Args:
        file: opened for bytes.
        delimiter: between fields.
        longest: characters of a field; more is taken for a quotation mark that nobody closed.
    """
    csv.field_size_limit(longest)
    invalid: list[tuple[int, str]] = []
    reader = csv.reader(_lines(file, invalid, longest), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f"{MALFORMED} ({error})"
        else:
            if invalid:
                yield invalid[0]
            else:
                yield line, [_decoded(field) if STAND_IN in field else field for field in row]
        invalid.clear()
        line = reader.line_num + 1


def _lines(file: BinaryIO, invalid: list[tuple[int, str]], longest: int) -> Iterator[str]:
    """Yield the lines of a file, which end after ``\n`` only (str.splitlines also splits at U+2028 and others).

    Lone carriage returns travel in other characters; `invalid` gets the numbers of lines that are not UTF-8 or too
    long, and what is wrong with them.
    """
    size = -1 if longest == sys.maxsize else longest
    for number in itertools.count(1):
        raw = file.readline(size)
        if not raw:
            return
        if len(raw) == size and not raw.endswith(b"\n"):
            invalid.append((number, f"a line of {longest // 10**6:,} MB or more"))
            while (rest := file.readline(BLOCK)) and not rest.endswith(b"\n"):
                pass
            # Enough for a row, which is not looked at.
            raw = b"x\n"
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            invalid.append((number, _not_utf8(raw[error.start])))
            line = raw.decode("utf-8", "replace")
        if number == 1:
            line = line.removeprefix("\ufeff")
        if "\r" in line or STAND_IN in line:
            body, end = (line[:-2], "\r\n") if line.endswith("\r\n") else (line, "")
            line = body.replace(STAND_IN, ITSELF).replace("\r", RETURN) + end
        yield line


def _decoded(field: str) -> str:
    return field.replace(RETURN, "\r").replace(ITSELF, STAND_IN)


def _not_utf8(byte: int) -> str:
    return f"not valid UTF-8 (byte 0x{byte:02x}); convert the file"


def read_table(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Read a file with a header; every value is a string.

    Args:
        path: of a .csv or .tsv file.
        columns: their names, if the file has no header.

    Raises:
        UserError: with file and line, for a bad header, a row of another length, or as `read_rows`.
    """
    rows = read_rows(path)
    header = list(columns) if columns else next(rows, (1, []))[1]
    if not header or "" in header or len(set(header)) < len(header):
        raise UserError(f"{path}, line 1: expected a header with a different name for each column, got {header}")
    table = []
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {line}: expected {len(header)} columns ({', '.join(header)}), got {len(row)}"
            )
        table.append(dict(zip(header, row, strict=True)))
    return table


def inert(name: str) -> str:
    """Return a name as a spreadsheet takes it for text: one that would be a formula gets an apostrophe before it."""
    return f"'{name}" if name[:1] in FORMULA and not NUMBER.fullmatch(name) else name


def as_given(name: str) -> str:
    """Return a name that `inert` has written."""
    return name[1:] if name[:1] == "'" and inert(name[1:]) == name else name


def write_rows(file: TextIO, rows: Iterable[Sequence[Any]], delimiter: str = ",") -> None:
    """Write rows to a file that was opened with ``newline=""``; lines end in ``\\n``."""
    plain, quoted = (
        csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=quoting)
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    for row in rows:
        writer = quoted if any(isinstance(value, str) and "\r" in value for value in row) else plain
        writer.writerow(row)


def write_table(path: Path, rows: Iterable[dict[str, Any]], columns: Sequence[str] | None = None) -> Path:
    """Write rows with a header, atomically; returns the path.

    Args:
        path: of a .csv or .tsv file.
        rows: with the same keys each.
        columns: the keys in their order; None takes those of the first row.
    """
    rows = list(rows)
    columns = list(rows[0]) if columns is None else columns
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [columns, *([row[name] for name in columns] for row in rows)], DELIMITERS[path.suffix])
    return path
