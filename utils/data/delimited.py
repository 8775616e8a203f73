"""The one reader and the one writer of CSV and TSV files.

Quoted as Python's csv module quotes, but for one trap: it ends a row at a lone carriage return, which it leaves
unquoted where lines end in ``\\n`` (Python 3.11). Here such fields are written in quotes, and read with or without.
"""

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from utils.errors import UserError
from utils.runs.files import atomic_path

# With these, spreadsheets begin formulas.
FORMULA = tuple("=+-@\t\r")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
# Bytes, or characters, that are looked at together.
BLOCK = 1 << 20
DELIMITERS = {".csv": ",", ".tsv": "\t"}


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
        raise UserError(_not_utf8(path, line, content[error.start])) from None


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
    stand_in = _stand_in(path)
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(_lines(path, stand_in), delimiter=DELIMITERS[path.suffix], strict=True)
    line = 1
    try:
        for row in reader:
            yield line, row if stand_in is None else [field.replace(stand_in, "\r") for field in row]
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: malformed row ({error}){hint}") from None


def _stand_in(path: Path) -> str | None:
    """Return a character that the file does not hold, to travel for lone carriage returns; None if it has none."""
    with path.open("rb") as file:
        last = b""
        while block := file.read(BLOCK):
            if re.search(rb"\r(?!\n)", last + block[:-1]):
                break
            last = block[-1:]
        else:
            if last != b"\r":
                return None
    used: set[str] = set()
    with path.open(encoding="utf-8", errors="replace", newline="") as text:
        while part := text.read(BLOCK):
            used.update(re.findall("[\ue000-\uf8ff]", part))
    return next(c for c in map(chr, range(0xE000, 0xF8FF)) if c not in used)


def _lines(path: Path, stand_in: str | None) -> Iterator[str]:
    """Yield the lines of a file, which end after ``\n`` only (str.splitlines also splits at U+2028 and others)."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(_not_utf8(path, number, raw[error.start])) from None
            if number == 1:
                line = line.removeprefix("\ufeff")
            if stand_in is not None and "\r" in line:
                body, end = (line[:-2], "\r\n") if line.endswith("\r\n") else (line, "")
                line = body.replace("\r", stand_in) + end
            yield line


def _not_utf8(path: Path, line: int, byte: int) -> str:
    return f"{path}, line {line}: not valid UTF-8 (byte 0x{byte:02x}); convert the file"


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
