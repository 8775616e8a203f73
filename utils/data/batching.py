"""Batches with little padding: cut into pieces by length for training, under a token budget for evaluation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

# What a further piece of a batch costs, in tokens: another pass over the gradients on the CPU, kernels that
# leave the device half empty on a GPU.
PIECE_OVERHEAD = {"cpu": 128, "cuda": 4096}


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
    cost, begin = [0], [0]
    for end in range(1, len(order) + 1):
        # Pieces that end here, by where they begin.
        costs = [cost[start] + (end - start) * int(sorted_lengths[end - 1]) + overhead for start in range(end)]
        begin.append(int(np.argmin(costs)))
        cost.append(min(costs))
    pieces, end = [], len(order)
    while end:
        pieces.append(order[begin[end] : end])
        end = begin[end]
    return pieces


def take_piece(batch: dict[str, torch.Tensor], rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Return some rows of a padded batch without the columns that only the other rows need."""
    index = torch.from_numpy(rows)
    mask = batch["attention_mask"][index]
    columns = mask.any(dim=0)
    return {name: tensor[index][:, columns] if tensor.dim() == 2 else tensor[index] for name, tensor in batch.items()}


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
    """Return the part of the tokens in these batches that is padding."""
    lengths = np.asarray(lengths)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches if len(batch))
    return 1 - float(sum(lengths[batch].sum() for batch in batches)) / padded if padded else 0.0


class PaddingCollator:
    """Pads a batch to its longest text.

    Args:
        tokenizer: gives the padding token and the side to pad on.
        pad_to_multiple_of: on GPUs 8 keeps the tensor cores busy.
    """

    def __init__(self, tokenizer: Any, pad_to_multiple_of: int = 1):
        self.pad_token_id = tokenizer.pad_token_id
        self.left = tokenizer.padding_side == "left"
        self.multiple = pad_to_multiple_of

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return input_ids and attention_mask, shape [batch, longest], and labels, shape [batch], if there are any."""
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
            batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch


def make_collator(tokenizer: Any, device: torch.device) -> PaddingCollator:
    """Return the collator that suits a device."""
    return PaddingCollator(tokenizer, pad_to_multiple_of=8 if device.type == "cuda" else 1)
