import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.data.batching import (
    PackingCollator,
    PaddingCollator,
    StepCollator,
    TrainBatchSampler,
    length_pieces,
    padding_fraction,
    token_budget_batches,
    token_packs,
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


class Tokenizer:
    pad_token_id = 1
    padding_side = "right"


ROWS = [{"input_ids": [5, 6], "label": 3}, {"input_ids": [5, 6, 1, 8], "label": 0}, {"input_ids": [9], "label": 2}]


def test_a_step_is_cut_into_batches_of_its_texts():
    step = StepCollator(PaddingCollator(Tokenizer(), pad_to_multiple_of=4), lambda _: [np.array([2, 0]), np.array([1])])
    made = step(ROWS)
    assert made["labels"].tolist() == [3, 0, 2]
    assert [batch["labels"].tolist() for batch in made["batches"]] == [[2, 3], [0]]
    # As the device wants it, in every one of them.
    assert [batch["input_ids"].tolist() for batch in made["batches"]] == [[[9, 1, 1, 1], [5, 6, 1, 1]], [[5, 6, 1, 8]]]


@pytest.mark.parametrize(("start", "positions"), [(None, [0, 1, 0, 1, 2, 3, 0]), (1, [2, 3, 2, 3, 1, 4, 2])])
def test_a_pack_says_where_its_tokens_are(start, positions):
    """Positions begin anew with every text; behind padding's own in models that count what is no padding."""
    batch = PackingCollator(Tokenizer(), start)(ROWS)
    flat = batch["input_ids"].reshape(-1)[batch["packed_rows"]]
    assert flat.tolist() == [5, 6, 5, 6, 1, 8, 9]
    assert batch["position_ids"].tolist() == [positions]
    assert batch["cu_seq_lens_q"].tolist() == [0, 2, 6, 7]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["max_length_q"] == 4


def test_packs_have_no_padding():
    packed = StepCollator(PackingCollator(Tokenizer()), lambda lengths: token_packs(lengths, 4096))
    padded = StepCollator(PaddingCollator(Tokenizer()), lambda lengths: [np.arange(len(lengths))])
    steps = TrainBatchSampler(LENGTHS, 16).steps(1)
    assert packed.padding_fraction(LENGTHS, steps) == 0
    assert padded.padding_fraction(LENGTHS, steps) == padding_fraction(LENGTHS, steps) > 0.4


@given(st.lists(st.integers(1, 600), min_size=1, max_size=200), st.integers(1, 4000))
def test_packs_keep_to_the_budget_and_are_even(lengths, budget):
    lengths = np.array(lengths)
    packs = token_packs(lengths, budget)
    assert sorted(np.concatenate(packs).tolist()) == list(range(len(lengths)))
    sizes = [int(lengths[pack].sum()) for pack in packs]
    assert all(size <= budget or len(pack) == 1 for size, pack in zip(sizes, packs, strict=True))
    # Texts of one length stand together, which attention computes at once.
    assert np.concatenate([lengths[pack] for pack in packs]).tolist() == sorted(lengths.tolist(), reverse=True)
    if len(packs) > 1:
        # No more packs than a budget half as large would need at least.
        assert len(packs) <= max(2, -(-int(lengths.sum()) // (budget / 2)))


def test_many_texts_are_cut_at_once():
    """At 256 texts a cut took 15 ms; its time grows with the square of their number."""
    lengths = np.random.default_rng(0).integers(5, 512, size=2000)
    assert sorted(np.concatenate(length_pieces(lengths, 128)).tolist()) == list(range(2000))


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
