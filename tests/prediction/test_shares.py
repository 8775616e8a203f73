"""Files are dealt out so that all have about as much to do, and every part is somebody's, once."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from utils.prediction.shares import Piece, deal_out
from utils.prediction.stream import FileTask


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30), st.integers(1, 9), st.integers(1, 4))
def test_every_part_is_labelled_once(sizes, tasks, processes):
    """Files dealt out among the tasks of an array, and each task's among its processes."""
    shares = deal_out([Piece(str(index), size) for index, size in enumerate(sizes)], tasks, 1)
    pieces = [piece for share in shares for own in deal_out(share, processes, 1) for piece in own]
    owners = Counter(
        (piece.name, number)
        for piece in pieces
        for number in range(40)
        if FileTask(None, piece.share, piece.of).is_mine(number)
    )
    assert owners == {(str(index), number): 1 for index in range(len(sizes)) for number in range(40)}


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50), st.integers(1, 12))
def test_shares_are_even(sizes, tasks):
    shares = deal_out([Piece(str(index), size) for index, size in enumerate(sizes)], tasks, 1)
    assert len(shares) <= tasks
    largest = max(sum(piece.weight for piece in share) for share in shares)
    # No piece is larger than an even share (to a byte), and the fullest got its last while it was the emptiest.
    assert largest <= 2 * (sum(sizes) / tasks + 2)


def test_few_large_files_are_cut_and_many_small_ones_are_not():
    assert len(deal_out([Piece("large", 10**6)], 8)) == 8
    assert len(deal_out([Piece("small", 10**4)], 8)) == 1
    shares = deal_out([Piece(str(index), 10) for index in range(64)], 8)
    assert [len(share) for share in shares] == [8] * 8 and all(piece.of == 1 for share in shares for piece in share)
