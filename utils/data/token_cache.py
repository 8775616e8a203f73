"""The one cache of tokenized texts: Arrow files that all jobs share, each with its row count and checksum.

The files are named by a hash of what they were made from. A file is written under a temporary name and renamed, so
concurrent processes see all of it or nothing; a lock keeps them from doing the same work twice where the file system
supports locks. One whose rows or contents are not what they were when it was written is made again.
"""

import hashlib
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from utils.runs.files import atomic_path, locked

if TYPE_CHECKING:
    import datasets

# Behind the Arrow stream, whose readers stop at its end: number of rows, checksum of the stream, mark.
FOOTER = struct.Struct("<Q16s8s")
MARK = b"tokens\x00\x01"
DIGEST_SIZE = 16
BLOCK = 1 << 20
# How columns are stored.
LISTS, NUMBERS = "list of int32", "int32"


def cached_rows(
    path: Path,
    num_rows: int,
    columns: dict[str, str],
    make: Callable[[], Iterator[Sequence[Any]]],
    overwrite: bool = False,
) -> "datasets.Dataset":
    """Return the rows of a cache file, memory-mapped; make them first if they are not there or damaged.

    Args:
        path: of the file; its folder is made if needed.
        num_rows: how many there must be.
        columns: names and how they are stored, `LISTS` or `NUMBERS`.
        make: yields batches of rows, each as its columns in this order.
        overwrite: make the rows again in any case.
    """
    import datasets

    with locked(path.with_suffix(".lock")):
        if not overwrite and path.is_file():
            problem = find_problem(path, num_rows)
            if problem is None:
                return datasets.Dataset.from_file(str(path))
            print(f"{path}: {problem}; the texts are tokenized again", file=sys.stderr, flush=True)
        _write(path, columns, make())
        return datasets.Dataset.from_file(str(path))


def find_problem(path: Path, num_rows: int) -> str | None:
    """Return what is wrong with a cache file, None if its rows and contents are as they were written."""
    try:
        size = path.stat().st_size - FOOTER.size
        with path.open("rb") as file:
            file.seek(max(size, 0))
            footer = file.read(FOOTER.size)
            if len(footer) < FOOTER.size or FOOTER.unpack(footer)[2] != MARK:
                return "this cache file is incomplete"
            rows, digest, _ = FOOTER.unpack(footer)
            if rows != num_rows:
                return f"this cache file has {rows:,} rows, expected {num_rows:,}"
            file.seek(0)
            if _digest(file, size) != digest:
                return "this cache file is damaged"
    except OSError as error:
        return f"this cache file cannot be read ({error.strerror})"
    return None


def _digest(file: BinaryIO, size: int) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    while size > 0:
        block = file.read(min(size, BLOCK))
        if not block:
            break
        digest.update(block)
        size -= len(block)
    return digest.digest()


def _write(path: Path, columns: dict[str, str], batches: Iterator[Sequence[Any]]) -> None:
    import pyarrow

    kinds = {LISTS: pyarrow.list_(pyarrow.int32()), NUMBERS: pyarrow.int32()}
    schema = pyarrow.schema({name: kinds[kind] for name, kind in columns.items()})
    rows = 0
    with atomic_path(path) as temporary:
        with pyarrow.ipc.new_stream(str(temporary), schema) as writer:
            for batch in batches:
                written = pyarrow.record_batch(list(batch), schema=schema)
                writer.write_batch(written)
                rows += written.num_rows
        with temporary.open("r+b") as file:
            digest = _digest(file, temporary.stat().st_size)
            file.seek(0, 2)
            file.write(FOOTER.pack(rows, digest, MARK))
