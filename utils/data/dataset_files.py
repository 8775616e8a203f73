"""Reads the splits of a dataset: local CSV, TSV, JSON lines or Parquet files, a saved datasets folder, the hub.

Texts come back as they were written: nothing is taken for a missing value, no column of digits for numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.data.delimited import DELIMITERS, read_table, read_utf8
from utils.data.hub import from_hub
from utils.errors import UserError, nearest

if TYPE_CHECKING:
    import datasets

SUFFIXES = (*DELIMITERS, ".jsonl", ".parquet")
SPLIT_FIELD = "{split}"


@dataclass(frozen=True)
class DatasetSource:
    """Where a dataset is.

    Attributes:
        name: a folder (with files SPLIT.csv, .tsv, .jsonl or .parquet, or saved by `save_to_disk`), a file with
            ``{split}`` in its name, both as absolute paths, or the id of a dataset of the hub.
        subset: of a dataset of the hub, for those that have several.
        revision: of the hub.
        columns: of tables without a header.
    """

    name: str
    subset: str | None = None
    revision: str | None = None
    columns: tuple[str, ...] | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine rather than on the hub."""
        return Path(self.name).is_absolute()

    @property
    def is_saved(self) -> bool:
        """Whether it is a folder that `datasets.DatasetDict.save_to_disk` made."""
        return (Path(self.name) / "dataset_dict.json").is_file()

    def file(self, split: str) -> Path:
        """Return the file of one split of a local dataset.

        Raises:
            UserError: if there is none, or several.
        """
        if SPLIT_FIELD in self.name:
            files = [Path(self.name.replace(SPLIT_FIELD, split))]
            if files[0].suffix not in SUFFIXES:
                raise UserError(f"{files[0]}: expected a file of one of the types {', '.join(SUFFIXES)}")
        else:
            files = [Path(self.name) / f"{split}{suffix}" for suffix in SUFFIXES]
        found = [file for file in files if file.is_file()]
        if len(found) > 1:
            raise UserError(f"{found[0]} and {found[1]} are both there; keep the one to read")
        if not found:
            raise UserError(self._nothing_there(split, files[0]))
        return found[0]

    def _nothing_there(self, split: str, file: Path) -> str:
        if SPLIT_FIELD in self.name:
            return f"{file} does not exist"
        folder = Path(self.name)
        if folder.is_file():
            return f"{folder} is one file; expected a folder of splits, or a name with {SPLIT_FIELD} in it"
        if (folder / "state.json").is_file():
            return f"{folder} is a saved dataset without splits; save a datasets.DatasetDict"
        if not folder.is_dir():
            return f"the dataset folder {folder} does not exist"
        others = [path.stem for path in folder.iterdir() if path.suffix in SUFFIXES]
        return f"{folder}: no file {split} of one of the types {', '.join(SUFFIXES)}{nearest(split, others)}"


def load_split(source: DatasetSource, split: str) -> "datasets.Dataset":
    """Load one split with all its columns, in the order of the data.

    Raises:
        UserError: for a dataset or a split that is not there, or a malformed file, with its line.
        RunFailure: if the hub does not give it.
    """
    import datasets

    datasets.disable_progress_bars()
    if source.is_local and not source.is_saved:
        return read_file(source.file(split), source.columns)
    if source.is_saved:
        splits = datasets.load_from_disk(source.name)
        if split not in splits:
            raise UserError(f"{source.name}: no split {split!r}{nearest(split, splits)}")
        return splits[split]
    return from_hub(lambda: datasets.load_dataset(source.name, source.subset, split=split, revision=source.revision))


def split_names(source: DatasetSource) -> list[str]:
    """Return the splits that a dataset has.

    Raises:
        RunFailure: if the hub does not tell.
    """
    import datasets

    if source.is_local and not source.is_saved:
        return [path.stem for path in Path(source.name).glob("*") if path.suffix in SUFFIXES]
    if source.is_saved:
        return list(datasets.load_from_disk(source.name))
    return from_hub(lambda: datasets.get_dataset_split_names(source.name, source.subset, revision=source.revision))


def read_file(path: Path, columns: Sequence[str] | None = None) -> "datasets.Dataset":
    """Read a CSV, TSV, JSON lines or Parquet file with all its columns.

    Args:
        path: of the file.
        columns: names of the columns of a table without a header.

    Raises:
        UserError: if it is malformed, with the line.
    """
    import datasets

    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return datasets.Dataset(pyarrow.parquet.read_table(path))
        except pyarrow.ArrowInvalid as error:
            raise UserError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None
    rows = read_json_lines(path) if path.suffix == ".jsonl" else read_table(path, columns)
    if not rows:
        raise UserError(f"{path}: there are no rows in it")
    try:
        return datasets.Dataset.from_list(rows)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a column holds values of several types ({str(error).splitlines()[0]})") from None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with a JSON object per line, all with the same keys.

    Raises:
        UserError: with file and line.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(read_utf8(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON: {error}") from None
        except RecursionError:
            raise UserError(f"{path}, line {number}: nested too deeply") from None
        if not isinstance(row, dict) or (rows and set(row) != set(rows[0])):
            expected = f"an object with the keys {', '.join(rows[0])}" if rows else "an object"
            raise UserError(f"{path}, line {number}: expected {expected}, got {line[:60]}")
        rows.append(row)
    return rows
