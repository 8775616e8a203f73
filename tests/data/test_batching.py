import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.data.batching import (
    PaddingCollator,
    TrainBatchSampler,
    length_pieces,
    padding_fraction,
    take_piece,
    token_budget_batches,
)

LENGTHS = np.random.default_rng(0).integers(5, 512, size=1003)


@given(
    size=st.integers(1, 300),
    batch_size=st.integers(1, 20),
    processes=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
def test_every_text_once_in_full_batches_over_all_processes(size, batch_size, processes, epoch):
    lengths = np.random.default_rng(size).integers(1, 100, size=size)
    seen, batches_per_process = [], set()
    for index in range(processes):
        sampler = TrainBatchSampler(lengths, batch_size, 7, processes, index)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(len(batch) == batch_size for batch in batches[:-1])
        batches_per_process.add(len(batches))
        seen += [row for batch in batches for row in batch]
    assert len(batches_per_process) == 1
    assert set(seen) == set(range(size))
    # Repeats only where the last step has fewer texts than there are processes.
    rest = size % (batch_size * processes)
    assert len(seen) - size == max(0, processes - rest) * (rest > 0)


def test_order_is_a_pure_function_of_seed_and_epoch():
    first = TrainBatchSampler(LENGTHS, 16, seed=1)
    second = TrainBatchSampler(LENGTHS, 16, seed=1)
    np.random.rand(10), torch.rand(10), list(second)
    for sampler in (first, second):
        sampler.set_epoch(2)
    assert list(first) == list(second) == list(first)
    third = list(first)
    first.set_epoch(3)
    assert list(first) != third
    assert list(TrainBatchSampler(LENGTHS, 16, seed=2)) != list(TrainBatchSampler(LENGTHS, 16, seed=1))


def test_processes_share_a_step_evenly():
    shares = []
    for index in range(4):
        sampler = TrainBatchSampler(LENGTHS, 8, num_processes=4, process_index=index)
        shares.append([LENGTHS[batch].sum() for batch in sampler][:-1])
    shares = np.array(shares)
    assert ((shares.max(axis=0) - shares.min(axis=0)) / shares.mean(axis=0)).max() < 0.35


@given(st.lists(st.integers(1, 600), min_size=1, max_size=9), st.integers(0, 1000))
def test_pieces_are_the_cheapest_cut(lengths, overhead):
    lengths = np.array(lengths)
    pieces = length_pieces(lengths, overhead)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(lengths)))

    def cost(parts):
        return sum(len(part) * lengths[part].max() + overhead for part in parts)

    order = np.argsort(lengths)
    cuts = itertools.chain.from_iterable(
        itertools.combinations(range(1, len(lengths)), count) for count in range(len(lengths))
    )
    assert cost(pieces) == min(cost(np.split(order, list(cut))) for cut in cuts)


@pytest.mark.fault(5)
def test_pieces_leave_little_padding():
    steps = TrainBatchSampler(LENGTHS, 16).steps(1)
    assert padding_fraction(LENGTHS, steps) > 0.4
    pieces = [step[piece] for step in steps for piece in length_pieces(LENGTHS[step], 128)]
    assert padding_fraction(LENGTHS, pieces) < 0.08
    assert len(length_pieces(LENGTHS[steps[0]], 10**9)) == 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_piece_is_the_batch_of_its_texts(side):
    class Tokenizer:
        pad_token_id = 1
        padding_side = side

    rows = [{"input_ids": [5, 6], "label": 3}, {"input_ids": [5, 6, 7, 8], "label": 0}, {"input_ids": [9], "label": 2}]
    collator = PaddingCollator(Tokenizer())
    piece = take_piece(collator(rows), np.array([2, 0]))
    for name, tensor in collator([rows[2], rows[0]]).items():
        assert torch.equal(piece[name], tensor)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=200), st.integers(1, 4000))
def test_token_budget(lengths, budget):
    lengths = np.array(lengths)
    batches = token_budget_batches(lengths, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= budget


@pytest.mark.parametrize(("side", "expected"), [("right", [5, 6, 1, 1]), ("left", [1, 1, 5, 6])])
def test_collator_pads_to_the_longest(side, expected):
    class Tokenizer:
        pad_token_id = 1
        padding_side = side

    rows = [{"input_ids": [5, 6], "label": 3}, {"input_ids": [5, 6, 7, 8], "label": 0}]
    batch = PaddingCollator(Tokenizer())(rows)
    assert batch["input_ids"].tolist() == [expected, [5, 6, 7, 8]]
    assert batch["attention_mask"].tolist() == [[int(x != 1) for x in expected], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [3, 0]
    assert PaddingCollator(Tokenizer(), pad_to_multiple_of=8)(rows)["input_ids"].shape == (2, 8)
