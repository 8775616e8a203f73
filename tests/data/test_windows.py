"""What is read of texts that are longer than a model takes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.data.tokenization import load_tokenizer
from utils.data.windows import count_unseen, find_frame, read_pieces, read_spans
from utils.errors import UserError


def test_a_text_that_fits_is_read_as_it_is():
    for kind in ("cut", "head_tail", "windows"):
        assert read_spans(510, 510, kind, 255) == [[(0, 510)]]
        assert read_spans(0, 510, kind, 255) == [[(0, 0)]]
        assert count_unseen(510, 510, kind) == 0


def test_both_ends():
    """The lengths of Sun et al. (2019)."""
    assert read_spans(1000, 510, "head_tail", 255) == [[(0, 128), (618, 1000)]]
    assert read_spans(511, 510, "head_tail", 255) == [[(0, 128), (129, 511)]]
    assert count_unseen(1000, 510, "head_tail") == count_unseen(1000, 510, "cut") == 490


def test_windows():
    assert read_spans(1000, 510, "windows", 255) == [[(0, 510)], [(255, 765)], [(490, 1000)]]
    assert read_spans(1020, 510, "windows", 510) == [[(0, 510)], [(510, 1020)]]
    assert read_spans(511, 510, "windows", 255) == [[(0, 510)], [(1, 511)]]


@given(st.integers(1, 2000), st.integers(1, 300), st.data())
def test_windows_see_every_token(num_tokens, room, data):
    stride = data.draw(st.integers(1, room))
    spans = [piece[0] for piece in read_spans(num_tokens, room, "windows", stride)]
    seen = np.zeros(num_tokens, dtype=int)
    for start, stop in spans:
        assert stop - start == min(room, num_tokens)
        seen[start:stop] += 1
    assert seen.all() and len(set(spans)) == len(spans)
    assert all(after[0] - before[0] <= stride for before, after in itertools.pairwise(spans))


def test_pieces_have_the_special_tokens_of_whole_texts(small):
    tokenizer = load_tokenizer(small / "tiny-xlmr")
    frame = find_frame(tokenizer)
    text = "the minister said on friday that " * 20
    tokens = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
    (whole,) = read_pieces(tokens, frame, len(tokens) + 2, "windows", 10)
    assert whole.tolist() == tokenizer(text)["input_ids"]
    (cut,) = read_pieces(tokens, frame, 32, "cut", 15)
    assert cut.tolist() == tokenizer(text, truncation=True, max_length=32)["input_ids"]
    pieces = read_pieces(tokens, frame, 32, "windows", 15)
    assert all(len(piece) == 32 and piece[0] == whole[0] and piece[-1] == whole[-1] for piece in pieces)
    (ends,) = read_pieces(tokens, frame, 32, "head_tail", 15)
    assert len(ends) == 32 and ends[-23:-1].tolist() == tokens[-22:].tolist()


def test_a_tokenizer_that_puts_tokens_within_texts():
    class Odd:
        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [1, 5, 2, 6] if add_special_tokens else [5, 6]}

    with pytest.raises(UserError, match="Odd puts special tokens within texts"):
        find_frame(Odd())
