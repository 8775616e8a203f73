"""The words of a text, and which tokens they are made of."""

import unicodedata
from dataclasses import dataclass

import numpy as np

from utils.data.words import UNSPACED_CHARACTER


@dataclass(frozen=True)
class Word:
    """A word: where it stands in the text, in characters, and its tokens, as numbers."""

    start: int
    stop: int
    tokens: tuple[int, ...]


def words_of(text: str, places: np.ndarray) -> list[Word]:
    """Join the tokens of a text to words; marks between letters are words of their own.

    Args:
        text: that was tokenized.
        places: the first character of each token, and the one behind its last, shape [tokens, 2].
    """
    words: list[Word] = []
    for token, (start, stop) in enumerate(places.tolist()):
        # Some tokenizers count the blank before a word, or behind it, to it.
        while start < stop and text[start].isspace():
            start += 1
        while start < stop and text[stop - 1].isspace():
            stop -= 1
        last = words[-1] if words else None
        if last is not None and (start >= stop or start < last.stop or _goes_on(text, last.stop, start)):
            # Also tokens without characters of their own, and several of one character.
            words[-1] = Word(last.start, last.stop if start >= stop else max(last.stop, stop), (*last.tokens, token))
        else:
            words.append(Word(start, stop, (token,)))
    return words


def _goes_on(text: str, stop: int, start: int) -> bool:
    """Return whether what begins at `start` belongs to the word that ends at `stop`."""
    if stop != start or start >= len(text) or not stop:
        return False
    before, behind = text[stop - 1], text[start]
    return _is_letter(before) and _is_letter(behind)


def _is_letter(character: str) -> bool:
    # Marks belong to the letter before them.
    letter = character.isalnum() or unicodedata.category(character).startswith("M")
    return letter and not UNSPACED_CHARACTER.match(character)


def word_scores(words: list[Word], token_scores: np.ndarray) -> np.ndarray:
    """Return the sum of each word's tokens, shape [words].

    Args:
        words: of a text.
        token_scores: shape [tokens].
    """
    return np.array([token_scores[list(word.tokens)].sum() for word in words])
