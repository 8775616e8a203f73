"""Surprisals of whole sentences, and which sentence of a minimal pair is the likelier one."""

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from utils.data.delimited import parse_rows
from utils.data.text_files import PAIR, SIDE, TextFile
from utils.evaluation.token_table import metadata_column
from utils.evaluation.tokens import EXAMPLE, Tokens

COLUMNS = (
    "dataset_name", "item", "line", "original_text", "truncated",
    "num_tokens", "num_words", "surprisal_bits", "mean_surprisal_bits", "perplexity",
)  # fmt: skip
Columns = dict[str, Sequence[Any] | np.ndarray]


def sentence_columns(files: list[TextFile]) -> list[str]:
    """Return the columns of a table of sentences: ours, and the metadata of the files."""
    metadata = [sentence_column(key) for file in files for key in file.metadata_keys]
    return list(dict.fromkeys([*COLUMNS, *metadata]))


def sentence_column(key: str) -> str:
    """Return the name of the column that a key of the metadata becomes."""
    column = metadata_column(key)
    return f"metadata_{column}" if column in COLUMNS and column != "item" else column


def sentence_sums(tokens: Tokens, file: TextFile) -> Columns:
    """Return a row per example, as columns: sums over its tokens, special ones left out.

    The perplexity is 2 to the power of the mean surprisal of a token.

    Args:
        tokens: of a file, those of a line together.
        file: where they are from.
    """
    columns, lines = tokens.columns, tokens.lines
    starts = np.flatnonzero(np.concatenate([[True], lines[1:] != lines[:-1]])) if len(tokens) else np.zeros(0, int)
    lines_of = np.repeat(np.arange(len(starts)), np.diff([*starts, len(tokens)]))
    own = ~columns["token_is_special"]
    counts = np.bincount(lines_of[own], minlength=len(starts))
    totals = np.bincount(lines_of[own], columns["surprisal_bits"][own], len(starts))
    most = int(columns["word_num"].max(initial=0)) + 1
    words = np.unique(lines_of[own] * most + columns["word_num"][own]) // most
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        means = np.where(counts > 0, totals / counts, np.nan)
        # Beyond what a float holds, for instance of a single impossible token.
        perplexities = np.exp2(means)
    examples = columns[EXAMPLE][starts]
    names = {name: name for name in COLUMNS[:5]}
    names |= {sentence_column(key): metadata_column(key) for key in file.metadata_keys}
    described = {
        name: [tokens.examples[source][example] for example in examples]
        for name, source in names.items()
        if source in tokens.examples
    }
    return {
        **described,
        "num_tokens": counts,
        "num_words": np.bincount(words, minlength=len(starts)),
        "surprisal_bits": totals,
        "mean_surprisal_bits": means,
        "perplexity": perplexities,
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

    def add(self, sentences: Columns, file: TextFile) -> None:
        """Count the sentences of a part of a file of pairs; other files are left out.

        Args:
            sentences: as `sentence_sums` returns them; the two sentences of a pair may come in two calls.
            file: where they are from.
        """
        if file.pairs is None:
            return
        counts = self.counts.setdefault(file.name, [0, 0])
        for number, side, bits in zip(sentences[PAIR], sentences[SIDE], sentences["surprisal_bits"], strict=True):
            key = file.name, number
            if side == file.pairs[0]:
                self._waiting[key] = bits
            elif key in self._waiting:
                counts[0] += bool(self._waiting.pop(key) < bits)
                counts[1] += 1

    def result(self) -> dict[str, dict[str, Any]]:
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
