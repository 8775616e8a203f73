"""Batches without padding or with little: packs of whole texts under a token budget, pieces of similar length."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

# What a further piece of a batch costs, in tokens: another pass over the gradients on the CPU; on a GPU the starts of a
# pass's kernels. With XLM-R-base on an H200 two pieces of 32 texts took twice as long as one batch of them.
PIECE_OVERHEAD = {"cpu": 128, "cuda": 16_384}


class TrainBatchSampler(Sampler[list[int]]):
    """The training batches of one process, epoch by epoch.

    Every step's texts are drawn at random, so that grouping by length (`length_pieces`, inside a step) costs
    no quality: batches of similar texts did, because registers differ in length. A pure function of (seed,
    epoch), whatever was drawn before: a resumed epoch continues with exactly the texts that are left.

    Args:
        lengths: length of every text in tokens, shape [n].
        batch_size: texts per batch and process.
        seed: seed of the order.
        num_processes: processes that train together; every text is in one process's batches only (of the
            last step, where texts are fewer than processes, some are repeated). They are dealt out by
            length, so that none waits for another's longer texts.
        process_index: which of them this is.
    """

    def __init__(
        self, lengths: np.ndarray, batch_size: int, seed: int = 42, num_processes: int = 1, process_index: int = 0
    ):
        self.lengths = np.asarray(lengths)
        self.step_size = batch_size * num_processes
        self.seed = seed
        self.num_processes = num_processes
        self.process_index = process_index
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) whose batches the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.step_size)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps(self.epoch):
            yield self.share(step, self.process_index).tolist()

    def steps(self, epoch: int) -> list[np.ndarray]:
        """Return the row numbers of every step of an epoch, all processes together."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))
        return [order[start : start + self.step_size] for start in range(0, len(order), self.step_size)]

    def share(self, step: np.ndarray, process_index: int) -> np.ndarray:
        """Return one process's texts of a step."""
        by_length = step[np.argsort(self.lengths[step], kind="stable")]
        share = by_length[process_index :: self.num_processes]
        return share if len(share) else by_length[:1]


def length_pieces(lengths: np.ndarray, overhead: int) -> list[np.ndarray]:
    """Cut a batch into pieces of similar length so that computing them one by one costs least.

    A piece costs its padded tokens and `overhead`; the cut is optimal (dynamic programming over the sorted
    lengths). The gradients of the pieces add up to that of the batch.

    Args:
        lengths: length of every text of the batch, shape [n].
        overhead: what a further piece costs, in tokens.

    Returns:
        Row numbers of each piece; every row is in exactly one.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(lengths, kind="stable")
    sorted_lengths = lengths[order]
    starts = np.arange(len(order))
    cost, begin = np.zeros(len(order) + 1, dtype=np.int64), [0]
    for end in range(1, len(order) + 1):
        # Pieces that end here, by where they begin.
        costs = cost[:end] + (end - starts[:end]) * sorted_lengths[end - 1] + overhead
        begin.append(int(costs.argmin()))
        cost[end] = costs[begin[end]]
    pieces, end = [], len(order)
    while end:
        pieces.append(order[begin[end] : end])
        end = begin[end]
    return pieces


def token_packs(lengths: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Cut texts, sorted by falling length, into packs of at most `token_budget` tokens, as even as may be.

    Args:
        lengths: length of every text in tokens, shape [n].
        token_budget: a longer text makes a pack of its own.

    Returns:
        Arrays of row numbers; every row is in exactly one.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    total = int(lengths.sum())
    even = -(-total // max(1, -(-total // token_budget)))
    packs, start, tokens = [], 0, 0
    for end, length in enumerate(lengths[order].tolist()):
        if end > start and (tokens + length > token_budget or tokens >= even):
            packs.append(order[start:end])
            start, tokens = end, 0
        tokens += length
    return [*packs, order[start:]] if len(order) else []


def token_budget_batches(lengths: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Cut the texts, sorted by falling length, into batches of at most `token_budget` tokens, padding included.

    Args:
        lengths: length of every text in tokens, shape [n].
        token_budget: a longer text makes a batch of its own.

    Returns:
        Arrays of row numbers; every row is in exactly one.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, token_budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


def padding_fraction(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Return the part of the tokens in these batches that is padding, if each is padded to its longest text."""
    lengths = np.asarray(lengths)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches if len(batch))
    return 1 - float(sum(lengths[batch].sum() for batch in batches)) / padded if padded else 0.0


class PaddingCollator:
    """Pads a batch to its longest text.

    Args:
        tokenizer: gives the padding token and the side to pad on.
        pad_to_multiple_of: on GPUs 8 keeps the tensor cores busy.
    """

    # Cuts texts into batches of at most so many tokens, from their lengths and the number.
    cut = staticmethod(token_budget_batches)

    def __init__(self, tokenizer: Any, pad_to_multiple_of: int = 1):
        self.pad_token_id = tokenizer.pad_token_id
        self.left = tokenizer.padding_side == "left"
        self.multiple = pad_to_multiple_of

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return input_ids and attention_mask, shape [batch, longest], and labels if there are any."""
        longest = max(len(row["input_ids"]) for row in rows)
        longest = -(-longest // self.multiple) * self.multiple
        input_ids = np.full((len(rows), longest), self.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for i, row in enumerate(rows):
            size = len(row["input_ids"])
            where = slice(longest - size, longest) if self.left else slice(0, size)
            input_ids[i, where] = row["input_ids"]
            mask[i, where] = 1
        batch = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask)}
        if "label" in rows[0]:
            batch["labels"] = labels_of(rows)
        return batch


def labels_of(rows: list[dict[str, Any]]) -> torch.Tensor:
    """Return the labels of rows, shape [batch]; where texts have any number of them, [batch, labels]."""
    return torch.from_numpy(np.array([row["label"] for row in rows]))


def one_row(batch: dict[str, torch.Tensor], padding_position: int | None) -> dict[str, Any]:
    """Return what makes one row of tokens of a padded batch on the CPU.

    Args:
        batch: input_ids and attention_mask, shape [texts, longest].
        padding_position: see `PackingCollator`.

    Returns:
        `packed_rows`, where the row's tokens are in the padded batch, shape [tokens]; `position_ids`, shape
        [1, tokens]; `cu_seq_lens_q`, where each text begins and the last ends, shape [texts + 1]; `max_length_q`.
    """
    mask = batch["attention_mask"].numpy()
    lengths = mask.sum(axis=1)
    bounds = np.concatenate([[0], lengths.cumsum()])
    packed_rows = np.flatnonzero(mask)
    if padding_position is None:
        positions = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    else:
        # As these models count themselves: not what looks like padding.
        counted = batch["input_ids"].numpy().reshape(-1)[packed_rows] != padding_position
        before = np.concatenate([[0], counted.cumsum()])
        positions = (before[1:] - np.repeat(before[bounds[:-1]], lengths)) * counted + padding_position
    return {
        "packed_rows": torch.from_numpy(packed_rows),
        "position_ids": torch.from_numpy(positions)[None],
        "cu_seq_lens_q": torch.from_numpy(bounds.astype(np.int32)),
        "max_length_q": int(lengths.max()),
    }


class PackingCollator(PaddingCollator):
    """Adds to a padded batch what makes one row of it, without padding (`utils.models.packing`).

    Args:
        tokenizer: as for `PaddingCollator`.
        padding_position: position of padding, behind which those of a text begin; None if they begin at 0.
    """

    cut = staticmethod(token_packs)

    def __init__(self, tokenizer: Any, padding_position: int | None = None):
        super().__init__(tokenizer)
        self.padding_position = padding_position

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a padded batch with the entries of `one_row`."""
        batch = super().__call__(rows)
        return batch | one_row(batch, self.padding_position)


class StepCollator:
    """Makes of a step's texts the batches that are computed one by one; their gradients add up.

    Args:
        collator: makes a batch.
        cut: gives the row numbers of every batch from the lengths of the texts, in tokens.
    """

    def __init__(self, collator: PaddingCollator, cut: Callable[[np.ndarray], list[np.ndarray]]):
        self.collator = collator
        self.cut = cut

    def padding_fraction(self, lengths: np.ndarray, steps: list[np.ndarray]) -> float:
        """Return the part of the tokens of these steps, row numbers each, that is padding."""
        if isinstance(self.collator, PackingCollator):
            return 0.0
        return padding_fraction(lengths, [step[piece] for step in steps for piece in self.cut(lengths[step])])

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batches under the key batches, and the labels of the whole step."""
        pieces = self.cut(np.array([len(row["input_ids"]) for row in rows]))
        return {
            "batches": [self.collator([rows[index] for index in piece]) for piece in pieces],
            "labels": labels_of(rows),
        }


def make_collator(tokenizer: Any, device: torch.device) -> PaddingCollator:
    """Return the collator of padded batches that suits a device."""
    return PaddingCollator(tokenizer, pad_to_multiple_of=8 if device.type == "cuda" else 1)
