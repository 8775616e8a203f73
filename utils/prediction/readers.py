"""Rows of text files, one at a time: what a row holds is looked at only when it is asked for.

A reader yields raw rows, which is quick, so that any process can find the rows that are its share; `parse` then takes
text, id and columns from one. Both are the same for every process and every time.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from utils.data.delimited import DELIMITERS, parse_rows
from utils.errors import RunFailure, UserError
from utils.prediction.inputs import kind_of

# Bytes, or characters, of a row; what is longer is no text but a file that lacks its line breaks.
LONGEST_ROW = 100_000_000
# Rows of a .parquet file in memory at a time.
PARQUET_ROWS = 500
# Of a register-corpus, whose files have no header, and may have no clusters.
CORPUS_COLUMNS = ["label", "text", "cluster"]


@dataclass(frozen=True)
class Columns:
    """What is read of a row: text, what it is called by (None: its number), and what is copied."""

    text: str = "text"
    id: str | None = None
    kept: tuple[str, ...] = ()

    @property
    def all(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys([self.text, *([self.id] if self.id else []), *self.kept]))


@dataclass
class RawRow:
    """A row before it is parsed: where it begins (a line, from 1), about how long it is, and what it holds."""

    line: int
    size: int
    content: Any


class BadRow(Exception):
    """What is wrong with a row."""


@dataclass
class Reader:
    """The rows of a file.

    Args:
        path: of the file.
        columns: what is read of each row.
    """

    path: Path
    columns: Columns

    def __post_init__(self) -> None:
        self._file: BinaryIO | None = None
        self.kind, self.compression = kind_of(self.path) or ("", "")

    @property
    def position(self) -> int:
        """How many bytes of the file have been read, about."""
        return 0 if self._file is None or self._file.closed else self._file.tell()

    def __iter__(self) -> Iterator[RawRow]:
        """Yield the rows.

        Raises:
            RunFailure: for a file that ends in the middle or is damaged, with its last sound line.
            UserError: for a header that lacks a column.
        """
        line = 0
        try:
            with self.path.open("rb") as self._file:
                for row in self._rows(_decompressed(self._file, self.compression)):
                    line = row.line
                    yield row
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunFailure(f"{self.path}: cannot be read behind line {line:,} ({reason})") from None

    def _rows(self, file: BinaryIO) -> Iterator[RawRow]:
        if self.kind == ".parquet":
            yield from self._parquet_rows()
        elif self.kind in DELIMITERS:
            yield from self._delimited_rows(file)
        else:
            yield from _lines(file)

    def _delimited_rows(self, file: BinaryIO) -> Iterator[RawRow]:
        rows = parse_rows(file, DELIMITERS[self.kind], LONGEST_ROW)
        of_corpus = _is_of_corpus(self.path)
        header = CORPUS_COLUMNS[:2] if of_corpus else None
        for line, row in rows:
            if header is None:
                if isinstance(row, str):
                    raise UserError(f"{self.path}, line {line}: {row}")
                header = row
                self._check_header(header)
                continue
            if of_corpus:
                header = CORPUS_COLUMNS[: 3 if len(row) == 3 and not isinstance(row, str) else 2]
            content = row if isinstance(row, str) else _named(header, row)
            yield RawRow(line, sum(map(len, row)), content)

    def _check_header(self, header: list[str]) -> None:
        if len(set(header)) < len(header):
            raise UserError(f"{self.path}, line 1: two columns have the same name")
        _require(self.path, self.columns.all, header)

    def _parquet_rows(self) -> Iterator[RawRow]:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet

        line = 1
        try:
            file = pyarrow.parquet.ParquetFile(self._file)
            names = file.schema_arrow.names
            wanted = list(dict.fromkeys(_top_name(name, names) for name in self.columns.all))
            _require(self.path, wanted, names)
            for batch in file.iter_batches(PARQUET_ROWS, columns=wanted):
                rows = batch.to_pylist()
                for row in rows:
                    text = row.get(self.columns.text)
                    yield RawRow(line, len(text) if isinstance(text, str) else 0, row)
                    line += 1
        except pyarrow.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise RunFailure(f"{self.path}: cannot be read behind row {line - 1:,} ({reason})") from None

    def parse(self, row: RawRow, number: int) -> tuple[Any, str, dict[str, Any]]:
        """Return id, text and the columns that are copied.

        Args:
            row: of this reader.
            number: of the row, from 0; its id, unless a column has that.

        Raises:
            BadRow: if it has no text or cannot be read.
        """
        if isinstance(row.content, str):
            raise BadRow(row.content)
        fields = self._fields(row.content)
        text = _look_up(fields, self.columns.text)
        if not isinstance(text, str):
            raise BadRow(f"no text: {self.columns.text} is {'missing' if text is None else _shown(text)}")
        if not text.strip():
            raise BadRow("no text: it is empty")
        if len(text) >= LONGEST_ROW:
            raise BadRow(_too_long(len(text)))
        if not _is_text(text):
            raise BadRow("no text: it holds half of a surrogate pair, which is no character")
        name = number if self.columns.id is None else _look_up(fields, self.columns.id)
        if name is None:
            raise BadRow(f"no id: {self.columns.id} is missing")
        return name, text, {column: _look_up(fields, column) for column in self.columns.kept}

    def _fields(self, content: Any) -> dict[str, Any]:
        if isinstance(content, dict):
            return content
        if content is None:
            raise BadRow(_too_long(LONGEST_ROW))
        try:
            line = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise BadRow(f"not valid UTF-8 (byte 0x{content[error.start]:02x})") from None
        if self.kind == ".txt":
            return {self.columns.text: line}
        try:
            fields = json.loads(line)
        except RecursionError:
            raise BadRow("nested too deeply") from None
        except ValueError as error:
            raise BadRow(f"not valid JSON ({error})" if line.strip() else "no text: the line is empty") from None
        if not isinstance(fields, dict):
            raise BadRow(f"expected a JSON object, got {_shown(fields)}")
        return fields


def _decompressed(file: BinaryIO, compression: str) -> Any:
    """Return a stream of a file's content; one that ends too early raises an `OSError` or `EOFError` there."""
    if compression == ".gz":
        return gzip.GzipFile(fileobj=file)
    if compression == ".zst":
        import pyarrow

        # zstandard's own reader takes a torn file for a whole one, and by default the first of several frames for all.
        return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"))
    return file


def _lines(file: Any) -> Iterator[RawRow]:
    """Yield the lines of a file, which end after ``\\n`` only; of one that is too long nothing."""
    line = 0
    while raw := file.readline(LONGEST_ROW):
        line += 1
        size = len(raw)
        if size >= LONGEST_ROW:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(1 << 20)
                size += len(raw)
            raw = None
        elif line == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        yield RawRow(line, size, raw)


def _is_of_corpus(path: Path) -> bool:
    """Return whether a file is one of a register-corpus, CORPUS/corpus/{train,test}/LANG.tsv."""
    folder = path.absolute().parent
    is_named_so = path.name.endswith(".tsv") and folder.parent.name == "corpus"
    return is_named_so and (folder.parent.parent / "info" / "reg_abbv.json").is_file()


def _named(header: list[str], row: list[str]) -> dict[str, str] | str:
    if len(row) != len(header):
        return f"expected {len(header)} columns ({', '.join(header)}), got {len(row)}"
    return dict(zip(header, row, strict=True))


def _require(path: Path, wanted: list[str], there: list[str]) -> None:
    for name in wanted:
        if name not in there:
            raise UserError(f"{path}: no column {name!r}; it has {', '.join(there)}: see --text_column")


def _top_name(name: str, names: list[str]) -> str:
    return name if name in names else name.partition(".")[0]


def _look_up(fields: dict[str, Any], name: str) -> Any:
    """Return the value of a column, which may be that of a key of an object: a.b; None if there is none."""
    if name in fields or "." not in name:
        return fields.get(name)
    head, _, rest = name.partition(".")
    below = fields.get(head)
    return _look_up(below, rest) if isinstance(below, dict) else None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_long(size: int) -> str:
    return f"{size // 10**6:,} MB or longer; at most {LONGEST_ROW // 10**6} MB"


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 40 else f"{shown[:40]}..."
