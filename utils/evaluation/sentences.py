"""Surprisals of whole sentences, and which sentence of a minimal pair is the likelier one."""

import gzip
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from utils.data.delimited import parse_rows
from utils.data.text_files import PAIR, SIDE, TextFile
from utils.evaluation.token_table import metadata_column

COLUMNS = (
    "dataset_name", "item", "line", "original_text", "truncated",
    "num_tokens", "num_words", "surprisal_bits", "mean_surprisal_bits", "perplexity",
)  # fmt: skip
Row = dict[str, Any]


def sentence_columns(files: list[TextFile]) -> list[str]:
    """Return the columns of a table of sentences: ours, and the metadata of the files."""
    metadata = [sentence_column(key) for file in files for key in file.metadata_keys]
    return list(dict.fromkeys([*COLUMNS, *metadata]))


def sentence_column(key: str) -> str:
    """Return the name of the column that a key of the metadata becomes."""
    column = metadata_column(key)
    return f"metadata_{column}" if column in COLUMNS and column != "item" else column


def sentence_rows(rows: list[Row], file: TextFile) -> Iterator[Row]:
    """Yield a row per example: sums over its tokens, special ones left out.

    The perplexity is 2 to the power of the mean surprisal of a token.

    Args:
        rows: of a file's tokens, those of a line together.
        file: where they are from.
    """
    for _, group in itertools.groupby(rows, key=lambda row: row["line"]):
        own = list(group)
        first = own[0]
        bits = [row["surprisal_bits"] for row in own if not row["token_is_special"]]
        total = math.fsum(bits)
        mean = total / len(bits) if bits else None
        yield {
            **{name: first[name] for name in COLUMNS[:5]},
            "num_tokens": len(bits),
            "num_words": len({row["word_num"] for row in own if not row["token_is_special"]}),
            "surprisal_bits": total,
            "mean_surprisal_bits": mean,
            # Beyond what a float holds, for instance of a single impossible token.
            "perplexity": None if mean is None else 2.0**mean if mean < 1024 else math.inf,
            **{sentence_column(key): first.get(metadata_column(key)) for key in file.metadata_keys},
        }


def words_of(table: Path, lines: list[int]) -> dict[str, list[tuple[str, float]]]:
    """Return the words of some sentences with their surprisals, by what the sentences are called.

    Args:
        table: of tokens, as `surprisal.write_test_results` has written it.
        lines: numbers of the sentences, from 1.
    """
    found: dict[str, list[tuple[str, float]]] = {}
    wanted = set(map(str, lines))
    for row in _table(table):
        if row["line"] in wanted and row["token_is_start_of_word"] == "True" and row["word_surprisal_bits"]:
            title = f"{row['dataset_name']} {row['line']}: {row['original_text']}"
            found.setdefault(title, []).append((row["word"], float(row["word_surprisal_bits"])))
    return found


def means_by(table: Path, key: str) -> dict[str, list[float]]:
    """Return the mean surprisals of sentences, by the values of a key of their metadata.

    Args:
        table: of sentences, as `surprisal.write_test_results` has written it.
        key: of the metadata; sentences that lack it are left out.
    """
    found: dict[str, list[float]] = {}
    for row in _table(table):
        if row[sentence_column(key)] and row["mean_surprisal_bits"]:
            found.setdefault(row[sentence_column(key)], []).append(float(row["mean_surprisal_bits"]))
    return found


def _table(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path) as file:
        rows = (row for _, row in parse_rows(cast(BinaryIO, file), ","))
        header = next(rows)
        for row in rows:
            yield dict(zip(header, row, strict=True))


class Pairs:
    """Counts minimal pairs in which the first sentence is more likely than the other."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}
        self._waiting: dict[tuple[str, int], float] = {}

    def add(self, rows: list[Row], file: TextFile) -> None:
        """Count the sentences of a part of a file of pairs; other files are left out.

        Args:
            rows: as `sentence_rows` yields them; the two sentences of a pair may come in two calls.
            file: where they are from.
        """
        if file.pairs is None:
            return
        counts = self.counts.setdefault(file.name, [0, 0])
        for row in rows:
            key = file.name, row[PAIR]
            if row[SIDE] == file.pairs[0]:
                self._waiting[key] = row["surprisal_bits"]
            elif key in self._waiting:
                counts[0] += self._waiting.pop(key) < row["surprisal_bits"]
                counts[1] += 1

    def result(self) -> dict[str, Row]:
        """Return for each file its pairs, in how many the first sentence is likelier, their share and its interval.

        The interval is Wilson's, of 95 %.
        """
        from scipy.stats import binomtest

        found = {}
        for name, (better, total) in self.counts.items():
            if total:
                low, high = binomtest(better, total).proportion_ci(method="wilson")
                shares = {"share": better / total, "confidence_interval": [float(low), float(high)]}
                found[name] = {"num_pairs": total, "num_better": better, **shares}
        return found
