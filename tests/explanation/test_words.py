import numpy as np
import pytest

from utils.explanation.words import Word, word_scores, words_of


def places(text, *tokens):
    """Where tokens stand that follow each other in a text."""
    found, start = [], 0
    for token in tokens:
        start = text.index(token, start)
        found.append((start, start + len(token)))
        start += len(token)
    return np.array(found).reshape(-1, 2)


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("unbelievable, he", ("un", "believ", "able", ",", "he"), ["unbelievable", ",", "he"]),
        # SentencePiece counts the blank before a word to it.
        ("a  river bank", ("a", "  riv", "er", " bank"), ["a", "river", "bank"]),
        ("don't", ("don", "'", "t"), ["don", "'", "t"]),
        ("n\u00e4\u0308r x2", ("n\u00e4", "\u0308r", "x", "2"), ["n\u00e4\u0308r", "x2"]),
        ("天气很好 ok", ("天气", "很", "好", "ok"), ["天气", "很", "好", "ok"]),
        ("", (), []),
    ],
)
def test_tokens_become_words(text, tokens, expected):
    words = words_of(text, places(text, *tokens))
    assert [text[word.start : word.stop] for word in words] == expected
    # Every token belongs to one word.
    assert [token for word in words for token in word.tokens] == list(range(len(tokens)))


def test_tokens_of_a_part_of_a_character():
    assert words_of("😀 a", np.array([[0, 1], [0, 1], [0, 1], [2, 3]])) == [Word(0, 1, (0, 1, 2)), Word(2, 3, (3,))]


def test_scores_add_up():
    words = [Word(0, 3, (0, 2)), Word(4, 5, (1,))]
    assert word_scores(words, np.array([1.0, -2.0, 0.5])).tolist() == [1.5, -2.0]
