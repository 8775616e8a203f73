"""How the texts of a training step are computed: packed, in padded pieces of similar length, or padded whole."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.data.batching import (
    PIECE_OVERHEAD,
    PaddingCollator,
    StepCollator,
    length_pieces,
    make_collator,
    token_packs,
)
from utils.models.device import train_token_budget
from utils.models.packing import packing_collator, why_padded
from utils.runs.distributed import is_sharded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from utils.training.classifier_options import FinetuneOptions


@dataclass(frozen=True)
class Batches:
    """How a run's batches are made.

    Attributes:
        training: makes the batches of a step.
        evaluation: makes those of evaluation.
        note: says how the training's are computed.
    """

    training: StepCollator
    evaluation: PaddingCollator
    note: str


def choose_batches(
    model: "PreTrainedModel", tokenizer: Any, options: "FinetuneOptions", device: "torch.device", precision: str
) -> Batches:
    """Choose how batches are computed, and prepare the model for it.

    Args:
        model: the classifier, with adapters if it has any, not yet wrapped by accelerate.
        tokenizer: gives the padding.
        options: of the run: --train_sampling, --train_token_budget.
        device: where the model is trained.
        precision: fp32, bf16 or fp16.
    """
    padding = make_collator(tokenizer, device)
    if is_sharded():
        # Sharded models compute in step with each other and must not differ in the number of batches.
        return Batches(StepCollator(padding, whole), padding, "padded to the longest text of a batch (sharded model)")
    cannot = "--torch_compile takes padded batches" if options.torch_compile else None
    never = cannot or why_padded(model, device, precision, training=False)
    evaluation = padding if never else packing_collator(model, tokenizer)
    if options.train_sampling == "random":
        return Batches(StepCollator(padding, whole), evaluation, "padded to the longest text of a batch")
    reason = never or why_padded(model, device, precision, training=True)
    if options.train_sampling == "packed" and not reason:
        budget = options.train_token_budget or train_token_budget(model, device)
        cut: Callable[[np.ndarray], list[np.ndarray]] = partial(token_packs, token_budget=budget)
        return Batches(StepCollator(evaluation, cut), evaluation, f"packed, at most {budget:,} tokens at once")
    cut = partial(length_pieces, overhead=PIECE_OVERHEAD.get(device.type, PIECE_OVERHEAD["cpu"]))
    note = "padded in pieces of similar length" + (f" ({reason})" if options.train_sampling == "packed" else "")
    return Batches(StepCollator(padding, cut), evaluation, note)


def whole(lengths: np.ndarray) -> list[np.ndarray]:
    """Leave a step's texts in one batch."""
    return [np.arange(len(lengths))]
