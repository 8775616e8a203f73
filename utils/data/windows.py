"""What a model reads of texts that are longer than it takes: their beginning, both ends, or all in windows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from utils.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LongTexts = Literal["cut", "head_tail", "windows"]
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


def read_pieces(
    tokens: np.ndarray, frame: Frame, max_length: int, long_texts: LongTexts, stride: int
) -> list[np.ndarray]:
    """Return the pieces of a text that the model reads, each with special tokens.

    Args:
        tokens: of the text, without special tokens.
        frame: its special tokens.
        max_length: tokens that the model takes.
        long_texts: what is read of longer texts.
        stride: of windows.
    """
    spans = read_spans(len(tokens), max_length - frame.size, long_texts, stride)
    return [frame.around(np.concatenate([tokens[start:stop] for start, stop in piece])) for piece in spans]


def count_unseen(num_tokens: int, room: int, long_texts: LongTexts) -> int:
    """Return how many tokens of a text the model does not read; see `read_spans`."""
    return 0 if long_texts == "windows" else max(0, num_tokens - room)
