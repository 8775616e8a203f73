"""Which token belongs to which word of a text."""

import numpy as np

# In place of labels that do not count.
IGNORED = -100
# The word of tokens that belong to none.
NO_WORD = -1
# How tokens begin that follow a space: in byte-level vocabularies, in those of SentencePiece.
SPACE_MARKS = ("\u0120", "\u2581")
# Which characters are white space; no later one is.
SPACES = np.array([chr(code).isspace() for code in range(0x3002)])


def place_spans(before: list[int], after: list[int], labels: list[int], sentinels: set[int]) -> list[int] | None:
    """Return for each label token its position in the text from which spans were taken.

    Args:
        before: the text's tokens.
        after: the same with a sentinel in place of each span.
        labels: each sentinel and the span that it stands for, then one more sentinel; padded with `IGNORED`.
        sentinels: all of them.

    Returns:
        positions, -1 for sentinels; None if the labels are not spans of this text.
    """
    spans: dict[int, list[int]] = {}
    for index, token in enumerate(labels):
        if token in sentinels:
            spans[token] = []
        elif token != IGNORED:
            if not spans:
                return None
            [*spans.values()][-1].append(index)
    places = [NO_WORD if token in sentinels else None for token in labels if token != IGNORED]
    position = 0
    for token in after:
        for index in spans.get(token, []):
            if position >= len(before) or before[position] != labels[index]:
                return None
            places[index] = position
            position += 1
        position += token not in sentinels
    return None if None in places else [place for place in places if place is not None]


def word_numbers(
    texts: list[str], ids: np.ndarray, sizes: np.ndarray, offsets: np.ndarray, special: set[int]
) -> np.ndarray:
    """Return for each token the number of the word of its text that it is part of, `NO_WORD` for special tokens.

    Args:
        texts: what was tokenized; white space separates its words.
        ids: tokens of all texts, one text after the other, shape [tokens].
        sizes: how many of each text, shape [texts].
        offsets: first character of each token in its text and the one behind the last, shape [tokens, 2].
        special: ids of special tokens.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    is_space = SPACES[np.minimum(codes, len(SPACES) - 1)]
    firsts = np.cumsum([0, *map(len, texts)])
    # A word begins behind white space and with its text.
    begins = ~is_space
    begins[1:] &= is_space[:-1]
    inside = firsts[:-1][np.diff(firsts) > 0]
    begins[inside] = ~is_space[inside]
    # Words that have begun, and characters that are no white space, before each character.
    begun, filled = (np.concatenate([[0], np.cumsum(values)]) for values in (begins, ~is_space))
    text_of = np.repeat(np.arange(len(texts)), sizes)
    before = begun[firsts[:-1]][text_of]
    start, stop = (offsets + firsts[text_of][:, None]).T
    numbers = begun[stop] - before - 1
    # A space by itself belongs to the word that follows.
    following = np.minimum(numbers + 1, begun[firsts[1:]][text_of] - before - 1)
    words = np.where(filled[stop] > filled[start], numbers, following)
    return np.where(np.isin(ids, list(special)), NO_WORD, words)
