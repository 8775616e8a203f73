import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.batching import PaddingCollator, TrainBatchSampler, padding_fraction, token_budget_batches

LENGTHS = np.random.default_rng(0).integers(5, 512, size=1003)


@given(
    size=st.integers(1, 300),
    batch_size=st.integers(1, 20),
    processes=st.integers(1, 5),
    grouped=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_every_text_once_in_full_batches_over_all_processes(size, batch_size, processes, grouped, epoch):
    lengths = np.random.default_rng(size).integers(1, 100, size=size)
    seen, batches_per_process = [], set()
    for index in range(processes):
        sampler = TrainBatchSampler(lengths, batch_size, 7, grouped, processes, index)
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


@pytest.mark.fault(5)
def test_grouping_leaves_little_padding_and_a_random_order_of_batches():
    grouped = TrainBatchSampler(LENGTHS, 16).steps(1)
    ungrouped = TrainBatchSampler(LENGTHS, 16, group_by_length=False).steps(1)
    assert padding_fraction(LENGTHS, grouped) < 0.06
    assert padding_fraction(LENGTHS, ungrouped) > 0.4
    longest = [int(LENGTHS[step].max()) for step in grouped]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)
    assert LENGTHS[TrainBatchSampler(LENGTHS, 16).steps(0)[0]].max() == LENGTHS[np.concatenate(grouped)].max()


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
