"""Parts of files, read and tokenized by processes of their own while the model computes others.

Each process reads all of the files and tokenizes every n-th part: reading is some hundred times as fast as tokenizing,
and so a single large file keeps as many processes busy as many small ones. They need not speak to each other, because
what a file's parts are follows from the file.
"""

import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from utils.data.tokenization import encode, encode_whole
from utils.errors import RunFailure, UserError
from utils.prediction.parts import cut_parts
from utils.prediction.readers import BadRow, Columns, RawRow, Reader
from utils.runs.processors import usable_processors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class FileTask:
    """A file to label, or some of its parts: those whose number, divided by `of`, leaves `share`.

    Attributes:
        path: of the file.
        share: which parts.
        of: among how many processes of other jobs the parts are dealt out.
        done: parts that have their labels already.
    """

    path: Path
    share: int = 0
    of: int = 1
    done: frozenset[int] = frozenset()

    def is_mine(self, number: int) -> bool:
        """Return whether a part is to be labelled here."""
        return number % self.of == self.share and number not in self.done


@dataclass
class TokenizedPart:
    """A part whose texts are tokens.

    Attributes:
        task: index of its file among the tasks.
        number: of the part.
        first: number of its first row.
        num_rows: how many it has, bad ones included.
        position: bytes of the file up to its end, about.
        names: what each text is called by.
        input_ids: tokens of all texts behind each other, int32.
        lengths: tokens of each text.
        places: of each token, its first character and that behind its last, shape [tokens, 2]; of whole texts alone.
        cut: which texts were longer.
        kept: columns of each text that are copied.
        bad_rows: number, line and problem of each row without text.
    """

    task: int
    number: int
    first: int
    num_rows: int
    position: int
    names: list[Any] = field(default_factory=list)
    input_ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    lengths: list[int] = field(default_factory=list)
    places: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    cut: list[bool] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    bad_rows: list[dict[str, Any]] = field(default_factory=list)

    def texts(self) -> list[np.ndarray]:
        """Return the tokens of each text."""
        return np.split(self.input_ids, np.cumsum(self.lengths)[:-1]) if self.lengths else []

    def places_of_texts(self) -> list[np.ndarray]:
        """Return the places of each text's tokens."""
        return np.split(self.places, np.cumsum(self.lengths)[:-1]) if self.lengths else []


@dataclass
class FileEnd:
    """The end of a file: how many parts it has, or what is wrong with it."""

    task: int
    num_parts: int = 0
    problem: UserError | RunFailure | None = None


class PartStream(IterableDataset):
    """The parts of files in their order, each file followed by its `FileEnd`.

    Args:
        tasks: the files.
        columns: what is read of each row.
        tokenizer: of the model.
        max_length: to which texts are cut, in tokens.
        rows_per_part: rows of a part, if they are not long.
        keep_text: copy the texts, as a column `text`.
        whole: tokenize all of every text, without special tokens.
    """

    def __init__(
        self,
        tasks: list[FileTask],
        columns: Columns,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        rows_per_part: int,
        keep_text: bool = False,
        whole: bool = False,
    ) -> None:
        self.whole = whole
        self.tasks, self.columns, self.tokenizer = tasks, columns, tokenizer
        self.max_length, self.rows_per_part, self.keep_text = max_length, rows_per_part, keep_text

    def __iter__(self) -> Iterator[TokenizedPart | FileEnd]:
        worker = get_worker_info()
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        turn = 0
        for task, file in enumerate(self.tasks):
            for item in self._file(task, file):
                # A function that makes it, since others' parts are not looked at.
                if turn % count == index:
                    yield item() if callable(item) else item
                turn += 1

    def _file(self, task: int, file: FileTask) -> Iterator[Any]:
        reader = Reader(file.path, self.columns)
        number = -1
        try:
            for number, (first, rows) in enumerate(cut_parts(reader, self.rows_per_part)):
                if file.is_mine(number):
                    position = reader.position
                    yield lambda n=number, f=first, r=rows, p=position: self._part(reader, task, n, f, r, p)
        except (UserError, RunFailure) as problem:
            yield FileEnd(task, problem=problem)
            return
        yield FileEnd(task, number + 1)

    def _part(
        self, reader: Reader, task: int, number: int, first: int, rows: list[RawRow], position: int
    ) -> TokenizedPart:
        part = TokenizedPart(task, number, first, len(rows), position)
        texts = []
        for index, row in enumerate(rows, first):
            try:
                name, text, kept = reader.parse(row, index)
            except BadRow as problem:
                part.bad_rows.append({"row": index, "line": row.line, "problem": str(problem)})
                continue
            part.names.append(name)
            part.kept.append(kept | {"text": text} if self.keep_text else kept)
            texts.append(text)
        if self.whole:
            return self._tokenize_whole(part, texts)
        input_ids, part.cut = encode(texts, self.tokenizer, self.max_length) if texts else ([], [])
        part.lengths = [len(ids) for ids in input_ids]
        part.input_ids = np.array([token for ids in input_ids for token in ids], dtype=np.int32)
        return part

    def _tokenize_whole(self, part: TokenizedPart, texts: list[str]) -> TokenizedPart:
        encoded = encode_whole(texts, self.tokenizer)
        room = self.max_length - self.tokenizer.num_special_tokens_to_add()
        part.lengths = [len(ids) for ids, _ in encoded]
        part.cut = [length > room for length in part.lengths]
        if encoded:
            part.input_ids = np.concatenate([ids for ids, _ in encoded])
            part.places = np.concatenate([places for _, places in encoded])
        return part


def start_stream(stream: PartStream, num_workers: int) -> Iterator[TokenizedPart | FileEnd]:
    """Start the processes that read and tokenize; with none the caller's does.

    Returns the items of the stream in its order.
    """
    if num_workers == 0:
        return iter(stream)
    with warnings.catch_warnings():
        # That there are more of them than cores.
        warnings.simplefilter("ignore")
        loader = DataLoader(
            stream,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=num_workers,
            # They have all that they need from the start, and need not import it again.
            multiprocessing_context="fork",
            worker_init_fn=_leave_signals,
        )
        return iter(loader)


def _as_it_is(item: Any) -> Any:
    return item


def _leave_signals(_: int) -> None:
    """Leave the signals that stop a job to the process that computes; it ends the others."""
    for signum in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # There are as many processes as there is work for.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def choose_num_workers(requested: int | None, on_gpu: bool, num_texts_bytes: int) -> int:
    """Return how many processes read and tokenize.

    Args:
        requested: as the user wants it; None leaves it open.
        on_gpu: a GPU computes thousands of texts a second, as many as a handful of processes can tokenize; a CPU
            computes some dozens, and would rather not share its cores.
        num_texts_bytes: size of the files: for small ones no process is worth its start.
    """
    if requested is not None:
        return requested
    if num_texts_bytes < 1 << 16:
        return 0
    return max(1, min(8, usable_processors() - 1)) if on_gpu else 1
