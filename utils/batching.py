"""Batches with little padding: length-grouped for training, under a token budget for evaluation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

# Steps that are sorted together: more means less padding and less randomness.
WINDOW_STEPS = 32


class TrainBatchSampler(Sampler[list[int]]):
    """The training batches of one process, epoch by epoch.

    A pure function of (seed, epoch), whatever was drawn before: a resumed epoch continues with exactly the
    texts that are left. With `group_by_length` texts of similar length share a batch: the epoch's random
    order is cut into windows, each window is sorted, and the steps are shuffled. The processes share each
    step's stretch of the sorted order, so that none waits for another's longer texts.

    Args:
        lengths: length of every text in tokens, shape [n].
        batch_size: texts per batch and process.
        seed: seed of the order.
        group_by_length: False gives a plain random order.
        num_processes: processes that train together; every text is in one process's batches only (of the
            last step, where texts are fewer than processes, some are repeated).
        process_index: which of them this is.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int = 42,
        group_by_length: bool = True,
        num_processes: int = 1,
        process_index: int = 0,
    ):
        self.lengths = np.asarray(lengths)
        self.step_size = batch_size * num_processes
        self.seed = seed
        self.group_by_length = group_by_length
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
            share = step[self.process_index :: self.num_processes]
            yield (share if len(share) else step[:1]).tolist()

    def steps(self, epoch: int) -> list[np.ndarray]:
        """Return the row numbers of every step of an epoch, all processes together."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.lengths))
        # What does not fill a step goes last.
        full = len(order) - len(order) % self.step_size
        rest = [order[full:]] if full < len(order) else []
        if not self.group_by_length:
            return [*order[:full].reshape(-1, self.step_size), *rest]
        window = WINDOW_STEPS * self.step_size
        for start in range(0, full, window):
            part = order[start : min(start + window, full)]
            part[:] = part[np.argsort(-self.lengths[part], kind="stable")]
        steps = order[:full].reshape(-1, self.step_size)
        steps = steps[generator.permutation(len(steps))]
        if epoch == 0 and len(steps):
            # The longest texts first: what does not fit in memory fails in the first step, not at night.
            longest = int(np.argmax(self.lengths[steps].max(axis=1)))
            steps[[0, longest]] = steps[[longest, 0]]
        return [*steps, *rest]


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
