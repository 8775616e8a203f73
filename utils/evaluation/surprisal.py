"""Tables of per-token surprisals, in bits: what a language model did not expect.

The surprisal of a token is -log2 of its probability: given the tokens before it (causal models), given the
rest of the masked text (masked models), given the input and the label tokens before it (seq2seq models). A
row stands for a token that has a label; of masked examples, only the masked positions.
"""

import contextlib
import gzip
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.data.delimited import write_rows
from utils.data.lm_examples import NO_WORD, Batch, Task, TextExamples
from utils.data.masking import IGNORED, frame_ids, sentinel_ids
from utils.data.text_files import TextFile
from utils.runs.files import atomic_path

COLUMNS = (
    "item", "line", "original_text", "input_text", "input_label", "word_num", "word", "token_num_in_word", "token",
    "token_id", "token_is_start_of_word", "token_is_word", "token_is_special", "surprisal_bits",
    "word_surprisal_bits", "predicted_token", "predicted_token_id", "predicted_token_surprisal_bits",
)  # fmt: skip
# What a metadata file may replace: the number of the example in its experiment.
REPLACEABLE = ("item",)
# How tokens begin that follow a space: in byte-level vocabularies, in those of SentencePiece.
SPACE_MARKS = ("\u0120", "\u2581")
# Predictions computed at once in double precision: memory grows with the vocabulary.
POSITIONS = 256
# Examples that are in memory together while a file is tested, and sorted by length.
CHUNK = 2048
Row = dict[str, Any]


class TokenTable:
    """Makes rows of batches and their logits.

    Args:
        tokenizer: of the model.
        task: lm, mlm or seq2seq.
    """

    def __init__(self, tokenizer: Any, task: Task):
        self.tokenizer = tokenizer
        self.task = task
        self.special = frame_ids(tokenizer)
        self.continues_with_hashes = any(token.startswith("##") for token in tokenizer.get_vocab())
        self._tokens: dict[int, str] = {}

    def rows(self, batch: Batch, logits: Tensor, more: Row | None = None) -> list[Row]:
        """Return a row per token that has a label, example by example.

        Args:
            batch: the examples, with the labels that the logits predict.
            logits: of the model's output for them, shape [examples, tokens, vocabulary].
            more: further columns, the same in all rows.
        """
        labels = batch.inputs["labels"]
        examples, positions = self._positions(batch)
        tokens = labels[examples, positions]
        # A causal model predicts each token where the one before it stands.
        found = surprisals(logits, examples, positions - int(self.task == "lm"), tokens)
        rows: list[Row] = []
        columns = (positions.tolist(), tokens.tolist(), *found)
        bounds = np.searchsorted(examples.numpy(), np.arange(len(labels) + 1))
        for example, (start, stop) in enumerate(itertools.pairwise(bounds)):
            part: list[list[Any]] = [values[start:stop] for values in columns]
            described = self._describe(batch, example, more or {})
            metadata = clean_metadata(batch.metadata[example])
            rows += [{**row, **metadata} for row in self._example_rows(batch, example, described, *part)]
        return rows

    def _positions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        labels = batch.inputs["labels"]
        wanted = labels != IGNORED
        if self.task == "lm":
            wanted = wanted & (torch.arange(labels.shape[1]) > 0)
        elif self.task == "mlm":
            masked = batch.inputs["input_ids"] == self.tokenizer.mask_token_id
            wanted &= masked | ~masked.any(1, keepdim=True)
        return wanted.nonzero(as_tuple=True)

    def _describe(self, batch: Batch, example: int, more: Row) -> Row:
        length = int(batch.inputs["attention_mask"][example].sum())
        # Masks and sentinels are part of what the model read, the frame of special tokens is not.
        shown = {self.tokenizer.mask_token_id, *sentinel_ids(self.tokenizer)}
        ids = batch.inputs["input_ids"][example][:length].tolist()
        return {
            "item": batch.items[example],
            "line": batch.items[example] + 1,
            "original_text": batch.texts[example],
            "input_text": self.tokenizer.decode([i for i in ids if i in shown or i not in self.special]),
            "input_label": batch.labels[example],
            **more,
        }

    def _example_rows(
        self,
        batch: Batch,
        example: int,
        described: Row,
        positions: list[int],
        tokens: list[int],
        bits: list[float],
        predicted: list[int],
        predicted_bits: list[float],
    ) -> Iterator[Row]:
        whole, length = self._whole_labels(batch, example)
        words = self._words(batch.words[example], whole, length)
        members: dict[int, list[int]] = {}
        for position, word in enumerate(words):
            if word != NO_WORD:
                members.setdefault(word, []).append(position)
        bits_of_word: dict[int, float] = {}
        for position, value in zip(positions, bits, strict=True):
            bits_of_word[words[position]] = bits_of_word.get(words[position], 0.0) + value
        for position, token, value, guess, guess_bits in zip(
            positions, tokens, bits, predicted, predicted_bits, strict=True
        ):
            word = words[position]
            own = members.get(word, [position])
            is_special = word == NO_WORD
            yield {
                **described,
                "word_num": None if is_special else word,
                "word": None if is_special else self.tokenizer.decode([whole[i] for i in own]).strip(),
                "token_num_in_word": None if is_special else own.index(position),
                "token": self._decode(token),
                "token_id": token,
                "token_is_start_of_word": not is_special and position == own[0],
                "token_is_word": not is_special and len(own) == 1,
                "token_is_special": is_special,
                "surprisal_bits": value,
                "word_surprisal_bits": value if is_special else bits_of_word[word],
                "predicted_token": self._decode(guess),
                "predicted_token_id": guess,
                "predicted_token_surprisal_bits": guess_bits,
            }

    def _whole_labels(self, batch: Batch, example: int) -> tuple[list[int], int]:
        """Return the labels, with the inputs where there are none, and how many of them are not padding."""
        labels = batch.inputs["labels"][example].tolist()
        if self.task == "seq2seq":
            length = sum(token != IGNORED for token in labels)
            return labels, length
        inputs = batch.inputs["input_ids"][example].tolist()
        whole = [given if token == IGNORED else token for token, given in zip(labels, inputs, strict=True)]
        return whole, int(batch.inputs["attention_mask"][example].sum())

    def _words(self, words: list[int], whole: list[int], length: int) -> list[int]:
        """Return the word number of every label position.

        Args:
            words: as they were tokenized; they hold unless preprocessing has changed the number of tokens.
            whole: the label tokens.
            length: how many of them are not padding.
        """
        padding = [NO_WORD] * (len(whole) - length)
        if len(words) == length:
            return words + padding
        numbers, number, begins = [], -1, True
        for token in whole[:length]:
            is_special = token in self.special
            if not is_special:
                text = self.tokenizer.convert_ids_to_tokens(token)
                hashes = self.continues_with_hashes
                number += begins or (not text.startswith("##") if hashes else text.startswith(SPACE_MARKS))
            numbers.append(NO_WORD if is_special else number)
            begins = is_special
        return numbers + padding

    def _decode(self, token: int) -> str:
        if token not in self._tokens:
            self._tokens[token] = self.tokenizer.decode([token])
        return self._tokens[token]


def surprisals(
    logits: Tensor, examples: Tensor, positions: Tensor, tokens: Tensor
) -> tuple[list[float], list[int], list[float]]:
    """Return surprisals in bits of some tokens, computed in double precision.

    Args:
        logits: shape [examples, positions, vocabulary].
        examples, positions: where the tokens are predicted, shape [n].
        tokens: their ids, shape [n].

    Returns:
        The tokens' surprisals, the ids of the likeliest tokens there and the surprisals of these.
    """
    parts: list[list[Tensor]] = []
    for rows, columns, ids in zip(
        *(x.to(logits.device).split(POSITIONS) for x in (examples, positions, tokens)), strict=True
    ):
        bits = logits[rows, columns].detach().double().log_softmax(-1) / -math.log(2)
        least = bits.min(-1)
        parts.append([bits.gather(1, ids[:, None])[:, 0].cpu(), least.indices.cpu(), least.values.cpu()])
    bits_of_tokens, ids_of_likeliest, bits_of_likeliest = (
        [value for part in parts for value in part[index].tolist()] for index in range(3)
    )
    return bits_of_tokens, ids_of_likeliest, bits_of_likeliest


def clean_metadata(metadata: Row) -> Row:
    """Return metadata as columns: lists and objects as JSON, names that are ours with ``metadata_`` before them."""
    return {
        metadata_column(key): json.dumps(value) if isinstance(value, (dict, list)) else value
        for key, value in metadata.items()
    }


def metadata_column(key: str) -> str:
    """Return the name of the column that a key of the metadata becomes."""
    return f"metadata_{key}" if key in COLUMNS and key not in REPLACEABLE else key


def evaluate(
    model: nn.Module, data: TextExamples, batch_size: int, epoch: int = 0
) -> Iterator[tuple[list[int], Batch, Any]]:
    """Run a model over examples in batches of similar length, without gradients.

    Yields:
        The numbers of the examples, the batch (of at most `batch_size`, also where preprocessing makes many
        of one) and the model's outputs, longest texts first.
    """
    order = np.argsort(-data.lengths, kind="stable").tolist()
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            whole = data.batch(indices, epoch)
            for begin in range(0, len(whole), batch_size):
                batch = whole.part(begin, begin + batch_size)
                with torch.no_grad():
                    yield indices, batch, model(**{name: x.to(model.device) for name, x in batch.inputs.items()})
    finally:
        model.train(was_training)


def file_rows(
    table: TokenTable, model: nn.Module, data: TextExamples, batch_size: int, more: Row | None = None
) -> list[Row]:
    """Return the rows of all examples in their order."""
    rows = [
        row
        for _, batch, outputs in evaluate(model, data, batch_size)
        for row in table.rows(batch, outputs.logits, more)
    ]
    # Stable: rows of one line keep their order.
    return sorted(rows, key=lambda row: row["line"])


class RowWriter:
    """Writes rows to a gzipped CSV file, a part at a time; each part is a gzip member of its own.

    Args:
        path: of the file; parts are added to what is there.
        columns: in their order; others in the rows are an error.
    """

    def __init__(self, path: Path, columns: list[str]):
        self.path = path
        self.columns = columns
        self._known = frozenset(columns)

    def write(self, rows: list[Row]) -> None:
        """Add rows; the first part begins with the header."""
        text = io.StringIO(newline="")
        header = [] if self.size() else [self.columns]
        write_rows(text, [*header, *(self._values(row) for row in rows)])
        with self.path.open("ab") as file:
            # Without a time stamp the same rows give the same file.
            file.write(gzip.compress(text.getvalue().encode("utf-8", "surrogatepass"), compresslevel=4, mtime=0))

    def _values(self, row: Row) -> list[Any]:
        unknown = [name for name in row if name not in self._known]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a column of {self.path}")
        return [row.get(name, "") for name in self.columns]

    def size(self) -> int:
        """Return the bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Forget what was written after this size was returned."""
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(size)


def columns_of(files: list[TextFile], *more: str) -> list[str]:
    """Return the columns of a table on these files: ours, `more`, and their metadata."""
    metadata = [metadata_column(key) for file in files for key in file.metadata_keys]
    return list(dict.fromkeys([*more, *COLUMNS, *metadata]))


def write_test_results(
    path: Path,
    files: list[TextFile],
    make_examples: Callable[[TextFile, Any, int], TextExamples],
    model: nn.Module,
    table: TokenTable,
    batch_size: int,
    *,
    max_examples: int | None,
    keep_parts: str | None,
    progress: Any,
) -> int:
    """Write the surprisals of test files to one table, part by part, so that memory does not grow with them.

    Args:
        path: of the table; it appears when it is complete.
        files: test files.
        make_examples: makes examples of a file, a part of it and the number of its first example.
        model: in the precision in which surprisals are wanted.
        table: makes the rows.
        batch_size: examples per batch.
        max_examples: of each file.
        keep_parts: a name for what the results depend on (model, data, options); each part is then also
            kept beside the table, and one that an interrupted test left under this name is not computed
            again. None keeps nothing.
        progress: a progress bar; counts examples.

    Returns:
        The number of rows.
    """
    columns = columns_of(files, "dataset_name")
    count = 0
    kept: list[Path] = []
    with atomic_path(path) as temporary:
        writer = RowWriter(temporary, columns)
        for index, file in enumerate(files):
            first = 0
            for part in file.chunks(CHUNK, max_examples):
                stored = path.with_name(f"tmp-{keep_parts}-{index}-{first}.json.gz") if keep_parts else None
                rows = read_part(stored) if stored else None
                if rows is None:
                    data = make_examples(file, part, first)
                    rows = file_rows(table, model, data, batch_size, {"dataset_name": file.name})
                    if stored:
                        with atomic_path(stored) as unfinished:
                            unfinished.write_bytes(gzip.compress(json.dumps(rows).encode(), compresslevel=1))
                if stored:
                    kept.append(stored)
                writer.write(rows)
                count += len(rows)
                first += len(part)
                progress.update(len(part))
    for stored in kept:
        stored.unlink(missing_ok=True)
    return count


def read_part(path: Path) -> list[Row] | None:
    """Return the rows of a part that an interrupted test has kept; None if there is none that can be read."""
    with contextlib.suppress(OSError, EOFError, ValueError):
        return json.loads(gzip.decompress(path.read_bytes()))
    return None
