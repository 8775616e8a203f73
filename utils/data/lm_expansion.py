"""One text as several examples, each of which predicts a part of its tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from utils.data.token_words import IGNORED

PseudoLikelihood = Literal["original", "within_word_l2r"]


@dataclass(frozen=True)
class Part:
    """An example that predicts some tokens of a text.

    Attributes:
        input_ids: what the model reads.
        labels: the tokens that are predicted, `IGNORED` elsewhere.
        places: of the labels, their number among the text's tokens; None where these are all of them.
    """

    input_ids: list[int]
    labels: list[int]
    places: list[int] | None = None


def slide(ids: list[int], size: int, context: int) -> Iterator[Part]:
    """Yield windows over a text; each of its tokens is predicted in one of them.

    Args:
        ids: tokens of the text.
        size: tokens of a window.
        context: tokens before each that is predicted, but for the first ones of the text; less than `size`.
    """
    yield Part(ids[:size], ids[:size], None if len(ids) <= size else list(range(size)))
    predicted = size
    while predicted < len(ids):
        start, stop = predicted - context, min(predicted - context + size, len(ids))
        own = ids[start:stop]
        yield Part(own, [IGNORED] * context + own[context:], list(range(start, stop)))
        predicted = stop


def mask_each(ids: list[int], words: list[int | None], mask: int, kind: PseudoLikelihood) -> Iterator[Part]:
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
    for place, word in enumerate(words):
        if word is None:
            continue
        hidden = {place}
        if kind == "within_word_l2r":
            hidden |= {later for later in range(place, len(ids)) if words[later] == word}
        given = [mask if index in hidden else token for index, token in enumerate(ids)]
        yield Part(given, [token if index == place else IGNORED for index, token in enumerate(ids)])
