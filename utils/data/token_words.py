"""Which token belongs to which word of a text."""

# In place of labels that do not count.
IGNORED = -100
# The word of tokens that belong to none.
NO_WORD = -1
# How tokens begin that follow a space: in byte-level vocabularies, in those of SentencePiece.
SPACE_MARKS = ("\u0120", "\u2581")


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


def word_numbers(text: str, ids: list[int], offsets: list[tuple[int, int]], special: set[int]) -> list[int]:
    """Return for each token the number of the word that it is part of, -1 for special tokens.

    Args:
        text: what was tokenized; white space separates its words.
        ids: of the tokens.
        offsets: first character and the one behind the last of each token; empty if they are not known.
        special: ids of special tokens.
    """
    if not offsets:
        return []
    numbers, count = [], -1
    for index, character in enumerate(text):
        count += not character.isspace() and (index == 0 or text[index - 1].isspace())
        numbers.append(count)
    words = []
    for token, (start, stop) in zip(ids, offsets, strict=True):
        if token in special:
            words.append(NO_WORD)
        elif text[start:stop].strip():
            words.append(numbers[stop - 1])
        else:
            # A space by itself belongs to the word that follows.
            words.append(min(numbers[stop - 1] + 1 if stop else 0, count))
    return words
