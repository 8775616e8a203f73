"""What is written of a labelled text, and the files of labels, made of their parts when all of these are there."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.delimited import inert, write_rows
from utils.runs.files import atomic_path

# Of every record, besides what is copied.
FIELDS = ("id", "register", "probability", "probabilities", "num_tokens", "truncated")
# Where a text may have any number of registers.
FIELDS_OF_LABEL_SETS = ("id", "registers", "probabilities", "num_tokens", "truncated")
# Where HPLT has the probabilities of registers (https://hplt-project.org/datasets).
HPLT_FIELD = "web-register"
# Digits behind the point.
PROBABILITIES_DIGITS, PROBABILITY_DIGITS = 4, 6


@dataclass(frozen=True)
class RecordLayout:
    """How a record looks.

    Attributes:
        labels: names of the registers in their order.
        kept: names of what is copied, in the input.
        hplt: as HPLT has them.
        multilabel: whether a text may have any number of registers.
        segments: whether the registers of a text's windows are there too.
    """

    labels: tuple[str, ...]
    kept: tuple[str, ...] = ()
    hplt: bool = False
    multilabel: bool = False
    segments: bool = False

    @property
    def own(self) -> tuple[str, ...]:
        """The fields that are not copied."""
        own = ("id", HPLT_FIELD) if self.hplt else FIELDS_OF_LABEL_SETS if self.multilabel else FIELDS
        return (*own, "segments") if self.segments else own

    def kept_as(self, name: str) -> str:
        """Return what a copied column is called: ``input_register`` where the record has a field of its name."""
        return f"input_{name}" if name in self.own else name

    def record(
        self,
        name: Any,
        label: Any,
        probabilities: np.ndarray,
        num_tokens: int,
        truncated: bool,
        kept: dict[str, Any],
        segments: list[dict[str, Any]] | None = None,
    ) -> str:
        """Return the record of a text as a line of JSON, without its end.

        Args:
            name: of the text.
            label: index of its register; or 0 and 1, shape [labels].
            probabilities: shape [labels].
            num_tokens: of the text, as far as it is read.
            truncated: whether it is longer.
            kept: what is copied.
            segments: of the text, see `describe_segments`.
        """
        if self.hplt:
            values = {"id": name, HPLT_FIELD: self.described(label, probabilities)["probabilities"]}
        else:
            values = {"id": name, **self.described(label, probabilities)}
            values |= {"num_tokens": num_tokens, "truncated": truncated}
        if segments is not None:
            values["segments"] = segments
        values |= {self.kept_as(column): value for column, value in kept.items()}
        return json.dumps(values, ensure_ascii=False, default=str)

    def described(self, label: Any, probabilities: np.ndarray) -> dict[str, Any]:
        """Return what files say of the label of a text or of a window; see `record`."""
        rounded = [round(float(p), PROBABILITIES_DIGITS) for p in probabilities]
        shares = dict(zip(self.labels, rounded, strict=True))
        if self.multilabel:
            return {"registers": [self.labels[place] for place in np.flatnonzero(label)], "probabilities": shares}
        probability = round(float(probabilities[label]), PROBABILITY_DIGITS)
        return {"register": self.labels[label], "probability": probability, "probabilities": shares}


# The records of one part after the other.
Parts = Callable[[], Iterator[list[str]]]


def write_labels(path: Path, parts: Parts, layout: RecordLayout) -> None:
    """Write a file of labels, whole or not at all.

    Args:
        path: of the file; its ending says in which format.
        parts: gives the records of each part, as lines of JSON; called as often as they are needed.
        layout: of the records.
    """
    ending = path.suffix
    with atomic_path(path) as temporary:
        if ending == ".parquet":
            _write_parquet(temporary, parts, layout)
        elif ending == ".csv":
            with temporary.open("w", encoding="utf-8", newline="") as text:
                write_rows(text, _csv_rows(parts(), layout))
        else:
            _write_lines(temporary, parts(), compress=ending == ".zst")


def _write_lines(path: Path, parts: Iterable[list[str]], compress: bool) -> None:
    import zstandard

    with path.open("wb") as file:
        # One frame: some readers take the end of the first for the end of the file.
        target = zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False) if compress else file
        for records in parts:
            target.write("".join(f"{record}\n" for record in records).encode())
        if compress:
            target.close()


def _csv_rows(parts: Iterable[list[str]], layout: RecordLayout) -> Iterator[Sequence[Any]]:
    """Yield the header and a row per text: as predictions/LANG.csv, a column for every register."""
    own = [name for name in layout.own if name != "probabilities"]
    kept = [layout.kept_as(name) for name in layout.kept]
    yield [*own, *map(inert, layout.labels), *kept]
    for record in map(json.loads, itertools.chain.from_iterable(parts)):
        shares = record["probabilities"]
        found = {"registers": " ".join(record["registers"])} if layout.multilabel else {"register": record["register"]}
        values = record | {name: inert(value) for name, value in found.items()}
        others = [_cell(record[name]) for name in kept]
        yield [*(values[name] for name in own), *(shares[label] for label in layout.labels), *others]


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else value


def _write_parquet(path: Path, parts: Parts, layout: RecordLayout) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = _schema(parts, layout)
    texts = {field.name for field in schema if field.type == pyarrow.string()}
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for records in parts():
            rows = [json.loads(record) for record in records]
            for row in rows:
                row |= {name: _as_text(row[name]) for name in texts}
            if rows:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def _schema(parts: Parts, layout: RecordLayout) -> Any:
    """Return the columns of a .parquet file; those that are copied, of several types, become text."""
    import pyarrow

    kept = [layout.kept_as(name) for name in layout.kept]
    found: dict[str, set[Any]] = {name: set() for name in ("id", *kept)}
    for records in parts():
        rows = [json.loads(record) for record in records]
        for name in found:
            try:
                found[name].add(pyarrow.array([row[name] for row in rows]).type)
            except pyarrow.ArrowException:
                found[name].add(pyarrow.string())
    types = {name: _one_type(several) for name, several in found.items()}
    shares = pyarrow.struct([(label, pyarrow.float64()) for label in layout.labels])
    own = {"register": pyarrow.string(), "probability": pyarrow.float64()}
    if layout.multilabel:
        own = {"registers": pyarrow.list_(pyarrow.string())}
    own |= {"probabilities": shares, "num_tokens": pyarrow.int32(), "truncated": pyarrow.bool_()}
    return pyarrow.schema([("id", types["id"]), *own.items(), *((name, types[name]) for name in kept)])


def _one_type(types: set[Any]) -> Any:
    import pyarrow

    types = types - {pyarrow.null()}
    if types == {pyarrow.int64(), pyarrow.float64()}:
        return pyarrow.float64()
    return types.pop() if len(types) == 1 else pyarrow.string()


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
