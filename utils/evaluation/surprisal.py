"""Tables of surprisals: runs a model over examples, and writes the rows of `utils.evaluation.token_table`."""

import contextlib
import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from utils.data.lm_examples import Batch, TextExamples
from utils.data.text_files import TextFile
from utils.errors import UserError
from utils.evaluation.sentences import Columns, sentence_columns, sentence_sums
from utils.evaluation.token_table import COLUMNS, CORRECTED, Row, TokenTable, metadata_column, sum_words
from utils.evaluation.tokens import Tokens, arrow_table
from utils.evaluation.word_boundaries import correct_words
from utils.runs.files import atomic_path

if TYPE_CHECKING:
    import pyarrow

# Examples that are in memory together while a file is tested, and sorted by length; fewer of those that become many.
CHUNK, EXPANDED_CHUNK = 2048, 64
# Of gzip: what is more costs more time than the tables are worth.
COMPRESSION = 1


def evaluate(
    model: nn.Module,
    data: TextExamples,
    batch_size: int,
    epoch: int = 0,
    with_loss: bool = True,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[list[int], Batch, Any]]:
    """Run a model over examples in batches of similar length, without gradients.

    Args:
        model: to run.
        data: examples.
        batch_size: of them.
        epoch: of the preprocessing.
        with_loss: let the model compute its loss too.
        share: number of this process and of all, each of which takes some of the batches.

    Yields:
        The numbers of the examples, the batch (of at most `batch_size`, also where preprocessing makes many
        of one) and the model's outputs, longest texts first.
    """
    order = np.argsort(-data.lengths, kind="stable").tolist()
    was_training = model.training
    model.eval()
    try:
        for start in range(share[0] * batch_size, len(order), share[1] * batch_size):
            indices = order[start : start + batch_size]
            whole = data.batch(indices, epoch)
            for begin in range(0, len(whole), batch_size):
                batch = whole.part(begin, begin + batch_size)
                inputs = {name: x.to(model.device) for name, x in batch.inputs.items()}
                if not with_loss and data.task != "seq2seq":
                    inputs.pop("labels")
                # Losses of users may change what they get.
                with torch.no_grad() if with_loss else torch.inference_mode():
                    outputs = model(**inputs)
                yield indices, batch, outputs
    finally:
        model.train(was_training)


def file_tokens(
    table: TokenTable, model: nn.Module, data: TextExamples, batch_size: int, more: Row | None = None
) -> Tokens:
    """Return the rows of all examples in their order."""
    batches = evaluate(model, data, batch_size, with_loss=False)
    parts = [table.tokens(batch, outputs.logits, more) for _, batch, outputs in batches]
    # Stable: rows of one line keep their order.
    tokens = Tokens.joined(parts).in_order_of_lines()
    if data.is_expanded:
        sum_words(tokens)
    if table.boundaries:
        correct_words(tokens)
    return tokens


class TableWriter:
    """Writes a gzipped CSV file, a part at a time, while the next one is computed.

    Each part is a gzip member of its own. As a context it ends when all is written.

    Args:
        path: of the file; parts are added to what is there.
        columns: in their order; others in the parts are an error.
    """

    def __init__(self, path: Path, columns: list[str]):
        self.path = path
        self.columns = columns
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        # Nothing may be written to a file that somebody has removed since, for an error or a signal.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
            self.wait()
        self._thread.shutdown()

    def write(self, table: "pyarrow.Table") -> None:
        """Add rows, once those before are written; the first part begins with the header."""
        unknown = [name for name in table.column_names if name not in self.columns]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a column of {self.path}")
        self.wait()
        self._last = self._thread.submit(self._write, table)

    def _write(self, table: "pyarrow.Table") -> None:
        import pyarrow
        import pyarrow.csv

        nothing = pyarrow.nulls(len(table))
        table = pyarrow.table({name: table[name] if name in table.column_names else nothing for name in self.columns})
        text = pyarrow.BufferOutputStream()
        is_first = not (self.path.exists() and self.path.stat().st_size)
        pyarrow.csv.write_csv(table, text, pyarrow.csv.WriteOptions(include_header=is_first))
        with self.path.open("ab") as file:
            # Without a time stamp the same rows give the same file.
            file.write(gzip.compress(text.getvalue(), compresslevel=COMPRESSION, mtime=0))

    def wait(self) -> None:
        """Return when all that was given is written."""
        if self._last is not None:
            last, self._last = self._last, None
            last.result()

    def size(self) -> int:
        """Return the bytes written so far."""
        self.wait()
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Forget what was written after this size was returned."""
        self.wait()
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(size)


def columns_of(files: list[TextFile], *more: str) -> list[str]:
    """Return the columns of a table on these files: ours, `more`, and their metadata.

    Raises:
        UserError: if two keys of the metadata would share a column.
    """
    for file in files:
        taken: dict[str, str] = {}
        for key in file.metadata_keys:
            column = metadata_column(key, more)
            if taken.setdefault(column, key) != key:
                raise UserError(f"metadata of {file.path}: {taken[column]!r} and {key!r} both become {column!r}")
    metadata = [metadata_column(key, more) for file in files for key in file.metadata_keys]
    return list(dict.fromkeys([*more, *COLUMNS, *metadata]))


def write_test_results(
    path: Path,
    sentences: Path,
    files: list[TextFile],
    make_examples: Callable[[TextFile, Any, int], TextExamples],
    model: nn.Module,
    table: TokenTable,
    batch_size: int,
    *,
    max_examples: int | None,
    keep_parts: str | None,
    chunk: int | None = None,
    see: Callable[[Columns, TextFile], None] | None = None,
    progress: Any,
) -> tuple[int, dict[str, int]]:
    """Write the surprisals of test files to two tables, part by part, so that memory does not grow with them.

    Args:
        path: of the table of tokens; it appears when it is complete.
        sentences: of the table of sentences, which appears before it.
        files: test files.
        make_examples: makes examples of a file, a part of it and the number of its first example.
        model: in the precision in which surprisals are wanted.
        table: makes the rows.
        batch_size: examples per batch.
        max_examples: of each file.
        keep_parts: a name for what the results depend on (model, data, options); each part is then also
            kept beside the table, and one that an interrupted test left under this name is not computed
            again. None keeps nothing.
        chunk: examples that are in memory together; without it `CHUNK`.
        see: called with the rows of the sentences of each part, and its file.
        progress: a progress bar; counts examples.

    Returns:
        The number of rows, how many examples of each file had more tokens, by its name.
    """
    columns = columns_of(files, "dataset_name")
    if table.boundaries:
        columns.insert(columns.index("word_surprisal_bits") + 1, CORRECTED)
    count, truncated = 0, Counter[str]()
    kept: list[Path] = []
    with (
        atomic_path(path) as temporary,
        atomic_path(sentences) as temporary_sentences,
        TableWriter(temporary, columns) as writer,
        TableWriter(temporary_sentences, sentence_columns(files)) as sentence_writer,
    ):
        for index, file in enumerate(files):
            first = 0
            for part in file.chunks(chunk or CHUNK, max_examples):
                stored = path.with_name(f"tmp-{keep_parts}-{index}-{first}.json.gz") if keep_parts else None
                tokens = read_part(stored) if stored else None
                if tokens is None:
                    data = make_examples(file, part, first)
                    tokens = file_tokens(table, model, data, batch_size, {"dataset_name": file.name})
                    if stored:
                        with atomic_path(stored) as unfinished:
                            unfinished.write_bytes(gzip.compress(tokens.to_json().encode(), compresslevel=1))
                if stored:
                    kept.append(stored)
                writer.write(tokens.to_arrow(table.decode))
                sums = sentence_sums(tokens, file)
                sentence_writer.write(arrow_table(sums))
                if see:
                    see(sums, file)
                count += len(tokens)
                described = zip(tokens.examples["line"], tokens.examples["truncated"], strict=True)
                truncated[file.name] += len({line for line, is_cut in described if is_cut})
                first += len(part)
                progress.update(len(part))
    for stored in kept:
        stored.unlink(missing_ok=True)
    return count, dict(truncated)


def read_part(path: Path) -> Tokens | None:
    """Return the rows of a part that an interrupted test has kept; None if there is none that can be read."""
    with contextlib.suppress(OSError, EOFError, ValueError, KeyError, TypeError):
        return Tokens.from_json(gzip.decompress(path.read_bytes()))
    return None
