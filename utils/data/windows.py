"""What a model reads of texts that are longer than it takes: their beginning, both ends, or all in windows."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from utils.errors import UserError

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

LongTexts = Literal["cut", "head_tail", "windows"]
Pooling = Literal["mean", "max"]
# Of 510 tokens, the first 128 and the last 382: Sun et al. 2019, arXiv:1905.05583.
HEAD_SHARE = 128 / 510


@dataclass(frozen=True)
class Frame:
    """The special tokens that stand around a text."""

    before: tuple[int, ...]
    behind: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.before) + len(self.behind)

    def around(self, tokens: np.ndarray) -> np.ndarray:
        """Return tokens between the special tokens."""
        return np.concatenate([self.before, tokens, self.behind]).astype(np.int32)


# Of tokenizers that are not asked, because texts that are only cut have their special tokens from them.
NO_FRAME = Frame((), ())


def find_frame(tokenizer: "PreTrainedTokenizerBase") -> Frame:
    """Return the special tokens that a tokenizer puts around a text.

    Raises:
        UserError: if it puts some within.
    """
    inner = tokenizer("a", add_special_tokens=False)["input_ids"]
    outer = tokenizer("a")["input_ids"]
    for start in range(len(outer) - len(inner) + 1):
        if outer[start : start + len(inner)] == inner:
            return Frame(tuple(outer[:start]), tuple(outer[start + len(inner) :]))
    raise UserError(f"{type(tokenizer).__name__} puts special tokens within texts, which can only be cut")


def read_spans(num_tokens: int, room: int, long_texts: LongTexts, stride: int) -> list[list[tuple[int, int]]]:
    """Return which tokens of a text each of its pieces has, as ranges.

    Windows begin `stride` tokens after one another; the last one ends with the text, so that none is short.

    Args:
        num_tokens: of the text, without special tokens.
        room: tokens that the model takes besides special tokens.
        long_texts: what is read of longer ones.
        stride: of windows, from 1 to `room`.
    """
    if num_tokens <= room:
        return [[(0, num_tokens)]]
    if long_texts == "cut":
        return [[(0, room)]]
    if long_texts == "head_tail":
        head = round(room * HEAD_SHARE)
        return [[(0, head), (num_tokens - (room - head), num_tokens)]]
    starts = [*range(0, num_tokens - room, stride), num_tokens - room]
    return [[(start, start + room)] for start in starts]


def count_unseen(num_tokens: int, room: int, long_texts: LongTexts) -> int:
    """Return how many tokens of a text the model does not read; see `read_spans`."""
    return 0 if long_texts == "windows" else max(0, num_tokens - room)


@dataclass(frozen=True)
class Reading:
    """What a model reads of long texts; its configuration says it.

    Attributes:
        long_texts: see `read_spans`.
        stride: of windows, in tokens; None is half of what the model takes.
        pooling: what becomes of the logits of a text's windows.
    """

    long_texts: LongTexts = "cut"
    stride: int | None = None
    pooling: Pooling = "mean"

    @property
    def needs_whole_texts(self) -> bool:
        """Whether more than the beginning of a text must be tokenized."""
        return self.long_texts != "cut"

    def stride_in(self, room: int) -> int:
        """Return the stride of windows of so many tokens.

        Raises:
            UserError: if tokens between windows would not be read.
        """
        if self.stride is not None and self.stride > room:
            raise UserError(f"--window_stride {self.stride}: windows have {room} tokens, those between would be lost")
        return self.stride or max(1, room // 2)


class WholeTexts:
    """Tokenized texts, each of which is one row that a model reads.

    Args:
        dataset: with the columns input_ids and length.
    """

    def __init__(self, dataset: "datasets.Dataset"):
        self.lengths = np.asarray(dataset["length"][:])
        self.columns = dataset.select_columns(["input_ids"])

    def input_ids(self, rows: np.ndarray) -> list[Any]:
        """Return the tokens of rows."""
        return self.columns[rows]["input_ids"]

    def pool(self, logits: np.ndarray) -> np.ndarray:
        """Return the logits of the texts, of those of the rows: the same."""
        return logits


class TextPieces:
    """The pieces of texts that a model reads, as rows: all tokens are in memory of few texts at a time.

    Args:
        num_tokens: of each text, without special tokens, shape [texts].
        tokens: gives those of a text.
        frame: the special tokens.
        max_length: tokens that the model takes.
        reading: what it reads of longer texts.

    Attributes:
        lengths: tokens of each piece, shape [pieces].
        texts: the text of each piece, shape [pieces].
        spans: the tokens of each piece.
    """

    def __init__(
        self,
        num_tokens: np.ndarray,
        tokens: Callable[[int], np.ndarray],
        frame: Frame,
        max_length: int,
        reading: Reading,
    ):
        self.num_tokens, self.frame, self.reading = num_tokens, frame, reading
        self.room = max_length - frame.size
        stride = reading.stride_in(self.room)
        by_text = [read_spans(number, self.room, reading.long_texts, stride) for number in num_tokens.tolist()]
        self.counts = np.array([len(pieces) for pieces in by_text], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)
        self.texts = np.repeat(np.arange(len(by_text)), self.counts)
        self.spans = [piece for pieces in by_text for piece in pieces]
        self.lengths = np.array([sum(b - a for a, b in piece) + frame.size for piece in self.spans], dtype=np.int64)
        # Windows of a text are read one after the other.
        self.tokens = functools.lru_cache(maxsize=4)(tokens)

    def input_ids(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the tokens of pieces, special tokens included."""
        return [self.piece(int(row)) for row in rows]

    def piece(self, row: int) -> np.ndarray:
        """Return the tokens of a piece, special tokens included."""
        tokens = self.tokens(int(self.texts[row]))
        return self.frame.around(np.concatenate([tokens[start:stop] for start, stop in self.spans[row]]))

    def pool(self, logits: np.ndarray) -> np.ndarray:
        """Return the logits of the texts, shape [texts, labels], of those of the pieces."""
        if not len(self.counts):
            return logits
        if self.reading.pooling == "max":
            return np.maximum.reduceat(logits, self.starts)
        sums = np.add.reduceat(logits.astype(np.float64), self.starts)
        return (sums / self.counts[:, None]).astype(np.float32)

    def summary(self) -> dict[str, Any]:
        """Return what files say of long texts: what was read of them, and how much of it was not."""
        longer = self.num_tokens > self.room
        unseen = sum(count_unseen(number, self.room, self.reading.long_texts) for number in self.num_tokens.tolist())
        windows = {"window_stride": self.reading.stride_in(self.room), "window_pooling": self.reading.pooling}
        return {
            "long_texts": self.reading.long_texts,
            **(windows if self.reading.long_texts == "windows" else {}),
            "num_long_texts": int(longer.sum()),
            "num_windows": len(self.spans),
            "num_tokens": int(self.num_tokens.sum()),
            "num_tokens_unseen": unseen,
        }


def pieces_of(
    dataset: "datasets.Dataset", frame: Frame, max_length: int, reading: Reading
) -> "WholeTexts | TextPieces":
    """Return what a model reads of tokenized texts.

    Args:
        dataset: see `utils.data.tokenization.tokenize`; whole texts unless they are only cut.
        frame: the special tokens.
        max_length: tokens that the model takes.
        reading: what it reads of longer texts.
    """
    return text_pieces(dataset, frame, max_length, reading) if reading.needs_whole_texts else WholeTexts(dataset)


def text_pieces(dataset: "datasets.Dataset", frame: Frame, max_length: int, reading: Reading) -> TextPieces:
    """Return the pieces of whole texts, see `pieces_of`."""
    columns = dataset.select_columns(["input_ids"]).with_format("numpy")

    def tokens(row: int) -> np.ndarray:
        return np.asarray(columns[row]["input_ids"], dtype=np.int32)

    return TextPieces(np.asarray(dataset["num_tokens"][:]), tokens, frame, max_length, reading)


class TrainingPieces:
    """Training texts of which each epoch reads one piece, drawn anew: a function of seed, epoch and text.

    Args:
        pieces: of the texts.
        labels: of each text, shape [texts] or [texts, labels].
        seed: of the draws.
    """

    def __init__(self, pieces: TextPieces, labels: np.ndarray, seed: int):
        self.pieces, self.labels, self.seed = pieces, labels, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.pieces.counts)

    def __getitem__(self, row: int) -> dict[str, Any]:
        count = int(self.pieces.counts[row])
        drawn = int(np.random.default_rng([self.seed, self.epoch, row]).integers(count)) if count > 1 else 0
        return {"input_ids": self.pieces.piece(int(self.pieces.starts[row]) + drawn), "label": self.labels[row]}
