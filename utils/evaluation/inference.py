"""Logits of a classifier for many texts, without padding or with little, in the order of the texts."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from utils.cli.progress import progress
from utils.data.batching import PaddingCollator
from utils.models.device import autocast, to_device

if TYPE_CHECKING:
    import datasets

# Tokens per batch. On the CPU activations should stay in the cache, on a GPU its cores be full.
TOKEN_BUDGET = {"cpu": 4096, "cuda": 65536}


def default_token_budget(device: torch.device) -> int:
    """Return the tokens per evaluation batch that suit a device."""
    return TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cpu"])


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    dataset: "datasets.Dataset",
    collator: PaddingCollator,
    device: torch.device,
    *,
    token_budget: int | None = None,
    precision: str = "fp32",
    description: str | None = None,
) -> np.ndarray:
    """Compute the logits of every row of a dataset.

    With several processes (torch.distributed) each takes a share and all get the whole; every row is
    computed and counted once.

    Args:
        model: a classifier on `device`; left in evaluation mode.
        dataset: rows with input_ids and length.
        collator: pads the batches or packs them.
        device: where the model is.
        token_budget: tokens per batch, padding included if there is any; None takes what suits the device.
        precision: fp32, bf16 or fp16 (autocast), or int8, to which the model has been converted.
        description: label of a progress bar, shown on terminals; None shows none.

    Returns:
        float32 array, shape [len(dataset), num_labels].
    """

    model.eval()
    rank, world = _rank_and_world()
    lengths = np.asarray(dataset["length"][:])
    batches = collator.cut(lengths, token_budget or default_token_budget(device))
    # Processes must make the same number of forward passes where the model is sharded among them.
    padded = [*batches, *[batches[-1]] * (-len(batches) % world)]
    columns = dataset.select_columns(["input_ids"])
    results: list[tuple[np.ndarray, np.ndarray]] = []
    hidden = None if description else True
    with progress(total=len(padded[rank::world]), desc=description, unit="batch", disable=hidden) as bar:
        for rows in padded[rank::world]:
            batch = collator([{"input_ids": ids} for ids in columns[rows]["input_ids"]])
            batch = to_device(batch, device)
            with autocast(device, precision):
                logits = model(**batch).logits
            # Kept on the device: fetching each would wait for it.
            results.append((rows, logits.float()))
            bar.update()
    rows = np.concatenate([rows for rows, _ in results])
    logits = torch.cat([logits for _, logits in results]).cpu().numpy()
    gathered = [(rows, logits)] if world == 1 else _gather((rows, logits), world)
    output = np.empty((len(lengths), logits.shape[1]), dtype=np.float32)
    for rows, logits in gathered:
        output[rows] = logits
    return output


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _gather(part: tuple[np.ndarray, np.ndarray], world: int) -> list[tuple[np.ndarray, np.ndarray]]:
    parts: list[Any] = [None] * world
    torch.distributed.all_gather_object(parts, part)
    return parts


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, row by row, shape unchanged."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy over the texts, in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_normalizer = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_normalizer - shifted[np.arange(len(labels)), labels]))
