"""One text as several examples, each of which predicts a part of its tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from utils.data.token_words import IGNORED, NO_WORD

PseudoLikelihood = Literal["original", "within_word_l2r"]


@dataclass(frozen=True)
class Part:
    """An example that predicts some tokens of a text.

    Attributes:
        input_ids: what the model reads.
        labels: the tokens that are predicted, `IGNORED` elsewhere.
        places: of the labels, their number among the text's tokens, `NO_WORD` of those that are none of them; None
            where the labels are all tokens.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    places: np.ndarray | None = None


def slide(ids: np.ndarray, size: int, context: int) -> Iterator[Part]:
    """Yield windows over a text; each of its tokens is predicted in one of them.

    Args:
        ids: tokens of the text.
        size: tokens of a window.
        context: tokens before each that is predicted, but for the first ones of the text; less than `size`.
    """
    yield Part(ids[:size], ids[:size], None if len(ids) <= size else np.arange(size))
    predicted = size
    while predicted < len(ids):
        start, stop = predicted - context, min(predicted - context + size, len(ids))
        labels = ids[start:stop].copy()
        labels[:context] = IGNORED
        yield Part(ids[start:stop], labels, np.arange(start, stop))
        predicted = stop


def mask_each(ids: np.ndarray, words: list[int | None], mask: int, kind: PseudoLikelihood) -> Iterator[Part]:
    """Yield a text once for each of its tokens, which is masked.

    Their surprisals add up to the pseudo-log-likelihood of the text (Salazar et al. 2020). A token is easily
    guessed where the rest of a rare word is seen: `within_word_l2r` masks that part of the word too that follows
    (Kauf & Ivanova 2023, arXiv:2305.10588).

    Args:
        ids: tokens of the text.
        words: the number of the word of each; None of special tokens, which are not masked.
        mask: id of the mask token.
        kind: `original` masks the token alone.
    """
    numbers = _numbers(words)
    for place in np.flatnonzero(numbers != NO_WORD):
        given, labels = ids.copy(), np.full_like(ids, IGNORED)
        given[place], labels[place] = mask, ids[place]
        if kind == "within_word_l2r":
            given[place:][numbers[place:] == numbers[place]] = mask
        yield Part(given, labels)


def span_each(
    ids: np.ndarray, words: list[int | None], sentinels: tuple[int, int], kind: PseudoLikelihood
) -> Iterator[Part]:
    """Yield a text once for each of its spans, which a sentinel replaces, as models like T5 were trained.

    The span of `original` is a token. That of `within_word_l2r` is a word: the decoder reads the tokens of it that
    come before the one that it predicts, and no other has seen the rest.

    Args:
        ids, words, kind: as for `mask_each`.
        sentinels: ids of the first two.
    """
    numbers = _numbers(words)
    spans = [np.array([place]) for place in np.flatnonzero(numbers != NO_WORD)]
    if kind == "within_word_l2r":
        spans = [np.flatnonzero(numbers == word) for word in dict.fromkeys(numbers[numbers != NO_WORD].tolist())]
    first, second = ([sentinel] for sentinel in sentinels)
    for span in spans:
        given = np.concatenate([ids[: span[0]], first, ids[span[-1] + 1 :]])
        labels = np.concatenate([first, ids[span[0] : span[-1] + 1], second])
        yield Part(given, labels, np.array([NO_WORD, *range(span[0], span[-1] + 1), NO_WORD]))


def _numbers(words: list[int | None]) -> np.ndarray:
    return np.array([NO_WORD if word is None else word for word in words])
