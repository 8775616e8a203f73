"""Rows of numbers of different lengths, without a Python object for each: of arrays, or of a memory-mapped file."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pyarrow


class Ragged(Sequence[np.ndarray]):
    """Rows of 32-bit integers.

    Args:
        chunks: of each its offsets, where its rows begin and the last one ends, shape [rows + 1], and its values.
    """

    def __init__(self, chunks: Iterable[tuple[np.ndarray, np.ndarray]]):
        self.chunks = [chunk for chunk in chunks if len(chunk[0]) > 1]
        self._starts = np.cumsum([0, *(len(offsets) - 1 for offsets, _ in self.chunks)])

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int] | np.ndarray]) -> "Ragged":
        """Return rows that are given as lists or arrays."""
        filled = [np.asarray(row, dtype=np.int32) for row in rows if len(row)]
        values = np.concatenate(filled) if filled else np.zeros(0, dtype=np.int32)
        return cls.from_flat(values, np.array([*map(len, rows)], dtype=np.int64))

    @classmethod
    def from_flat(cls, values: np.ndarray, lengths: np.ndarray) -> "Ragged":
        """Return rows that lie one after the other."""
        return cls([(np.concatenate([[0], np.cumsum(lengths)]), values)])

    @classmethod
    def from_tensor(cls, values: Tensor, wanted: Tensor) -> "Ragged":
        """Return what is wanted of each row of a tensor; both have the shape [rows, columns]."""
        return cls.from_flat(values[wanted].to(torch.int32).numpy(), wanted.sum(1).numpy())

    @classmethod
    def from_arrow(cls, column: "pyarrow.ChunkedArray") -> "Ragged":
        """Return the rows of a column of lists, which stays where it is."""
        return cls((chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in column.chunks)

    @classmethod
    def joined(cls, parts: Iterable["Ragged"]) -> "Ragged":
        """Return the rows of several, one after the other."""
        return cls(chunk for part in parts for chunk in part.chunks)

    def to_arrow(self) -> "pyarrow.Array":
        """Return the rows as an array of lists."""
        import pyarrow

        values = [values[offsets[0] : offsets[-1]] for offsets, values in self.chunks] or [np.zeros(0, dtype=np.int32)]
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        return pyarrow.ListArray.from_arrays(offsets, np.concatenate(values))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = 0 if len(self.chunks) == 1 else int(np.searchsorted(self._starts, index, side="right")) - 1
        offsets, values = self.chunks[number]
        place = index - self._starts[number]
        return values[offsets[place] : offsets[place + 1]]

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return some rows: their values, one row after the other, and their lengths."""
        if len(self.chunks) != 1:
            rows = [self[index] for index in indices.tolist()]
            return np.concatenate([np.zeros(0, dtype=np.int32), *rows]), np.array([*map(len, rows)], dtype=np.int64)
        offsets, values = self.chunks[0]
        starts = offsets[:-1][indices]
        lengths = (offsets[1:][indices] - starts).astype(np.int64)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return values[np.repeat(starts, lengths) + within], lengths

    @property
    def lengths(self) -> np.ndarray:
        """Of the rows."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *(np.diff(offsets) for offsets, _ in self.chunks)])


def pad_rows(values: np.ndarray, lengths: np.ndarray, padding: int, width: int | None = None) -> Tensor:
    """Return rows, given as `Ragged.take` does, padded on the right: shape [rows, width or the longest]."""
    padded = np.full((len(lengths), max(width or 0, lengths.max(initial=0))), padding, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = values
    return torch.from_numpy(padded)
