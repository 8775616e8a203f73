"""Surprisals of tokens as columns: numbers in arrays, and what describes whole examples once for each."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow

# Numbers of a row that stand for nothing.
NONE = -1
# Of numbers, those of which `NONE` is no number.
NUMBERS = ("token_num", "word_num", "token_num_in_word")
FLAGS = ("token_is_start_of_word", "token_is_word", "token_is_special", "token_is_masked")
# The row's example; the token ids become these columns too.
EXAMPLE = "example"
DECODED = {"token": "token_id", "predicted_token": "predicted_token_id"}


@dataclass
class Tokens:
    """Some rows of a table of surprisals.

    Attributes:
        columns: arrays of the same length: a value for each row. `EXAMPLE` is its place in `examples`.
        examples: columns of what describes whole examples: item, line, texts, metadata, where they are from.
    """

    columns: dict[str, np.ndarray]
    examples: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.columns[EXAMPLE])

    @property
    def lines(self) -> np.ndarray:
        """The line in its file of each row's example."""
        return np.array(self.examples["line"], dtype=np.int64)[self.columns[EXAMPLE]]

    @classmethod
    def joined(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """Return the rows of several; what describes examples of one and not of another is None there."""
        counts = [len(part.examples["line"]) for part in parts]
        shifts = np.cumsum([0, *counts[:-1]])
        columns = {
            name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns if name != EXAMPLE
        }
        shifted = [part.columns[EXAMPLE] + shift for part, shift in zip(parts, shifts, strict=True)]
        names = dict.fromkeys(name for part in parts for name in part.examples)
        examples: dict[str, list[Any]] = {
            name: [
                value
                for part, count in zip(parts, counts, strict=True)
                for value in part.examples.get(name) or [None] * count
            ]
            for name in names
        }
        return cls({EXAMPLE: np.concatenate(shifted), **columns}, examples)

    def in_order_of_lines(self) -> "Tokens":
        """Return the rows line by line; those of one line keep their order."""
        order = np.argsort(self.lines, kind="stable")
        return Tokens({name: values[order] for name, values in self.columns.items()}, self.examples)

    def to_json(self) -> str:
        """Return all as JSON."""
        columns = {name: [values.dtype.str, values.tolist()] for name, values in self.columns.items()}
        return json.dumps({"columns": columns, "examples": self.examples})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Tokens":
        """Return what `to_json` gave."""
        found = json.loads(text)
        columns = {name: np.array(values, dtype=kind) for name, (kind, values) in found["columns"].items()}
        return cls(columns, found["examples"])

    def to_arrow(self, decode: Callable[[int], str]) -> "pyarrow.Table":
        """Return all as a table, with the texts of tokens.

        Args:
            decode: returns that of an id.
        """
        import pyarrow

        found = {}
        for name, values in self.columns.items():
            if name in FLAGS:
                found[name] = text_array(["False", "True"]).take(pyarrow.array(values.astype(np.int8)))
            elif name in NUMBERS:
                found[name] = pyarrow.array(values, mask=values == NONE)
            elif name != EXAMPLE:
                # NaN is no number, as None is none.
                found[name] = pyarrow.array(values, from_pandas=True)
        for name, source in DECODED.items():
            ids, places = np.unique(self.columns[source], return_inverse=True)
            found[name] = text_array([decode(number) for number in ids.tolist()]).take(pyarrow.array(places))
        rows = pyarrow.array(self.columns[EXAMPLE])
        return pyarrow.table(
            {name: values_array(values).take(rows) for name, values in self.examples.items()} | found,
        )


def arrow_table(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> "pyarrow.Table":
    """Return columns as a table; NaN in arrays is no number, as None is none."""
    import pyarrow

    return pyarrow.table(
        {
            name: pyarrow.array(values, from_pandas=True) if isinstance(values, np.ndarray) else values_array(values)
            for name, values in columns.items()
        }
    )


def values_array(values: Sequence[Any]) -> "pyarrow.Array":
    """Return a column of whole numbers, of floats, or else of texts."""
    import pyarrow

    if all(type(value) is float for value in values):
        return pyarrow.array(values, pyarrow.float64())
    if all(type(value) is int and abs(value) < 2**63 for value in values):
        return pyarrow.array(values, pyarrow.int64())
    return text_array([value if value is None else str(value) for value in values])


def text_array(texts: Sequence[str | None]) -> "pyarrow.Array":
    """Return a column of texts, also of those that are no valid Unicode."""
    import pyarrow

    try:
        return pyarrow.array(texts, pyarrow.string())
    except UnicodeEncodeError:
        encoded = [text if text is None else text.encode("utf-8", "surrogatepass") for text in texts]
        return pyarrow.array(encoded, pyarrow.binary()).view(pyarrow.string())


def groups_of(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return of each row the number of its group (rows with the same keys), and its rank among the rows of this."""
    joined = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        least = int(key.min(initial=0))
        joined = joined * (int(key.max(initial=0)) - least + 1) + key - least
    _, groups = np.unique(joined, return_inverse=True)
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    ranks = np.empty_like(groups)
    ranks[order] = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    return groups, ranks
