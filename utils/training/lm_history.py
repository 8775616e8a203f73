"""What the training of a language model has reached, and when that is enough."""

import gzip
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.data.delimited import write_rows
from utils.runs.files import atomic_path
from utils.training.trainer import History


@dataclass(eq=False)
class LmHistory(History):
    """What has been trained so far.

    Attributes:
        epochs: finished epochs: losses of training and validation (means over tokens), seconds.
        batches: losses of every batch: split, epoch, batch, loss and those of the loss classes.
        metrics_size: bytes of the table of metrics that belong to all this.
        seconds: of the epoch under way.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    metrics_size: int = 0
    seconds: float = 0.0

    @property
    def best(self) -> dict[str, Any] | None:
        """The epoch with the lowest validation loss."""
        return min(self.epochs, key=lambda epoch: epoch["validation_loss"], default=None)


def write_epochs(path: Path, history: LmHistory, names: dict[str, str]) -> None:
    """Write a gzipped table of the losses: a row for each epoch and split, with each of the losses' means over tokens.

    Args:
        path: of the table.
        history: with its epochs.
        names: of the datasets, by split.
    """
    rows = [
        {"split": split, "dataset_name": name, "epoch": epoch["epoch"], **epoch["losses"][split]}
        for epoch in history.epochs
        for split, name in names.items()
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    write_rows(text, [columns, *([row.get(name, "") for name in columns] for row in rows)])
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def epochs_without_improvement(losses: list[float], delta: float) -> int:
    """Return for how many epochs the validation loss has not fallen by at least `delta` (at all, if it is 0)."""
    best, waited = math.inf, 0
    for loss in losses:
        if loss < best and best - loss >= delta:
            best, waited = loss, 0
        else:
            waited += 1
    return waited


@dataclass(frozen=True)
class EarlyStopping:
    """When to stop: patience (None is never), least number of epochs, what counts as an improvement."""

    patience: int | None = None
    min_epochs: int = 0
    delta: float = 0.0

    def __call__(self, history: LmHistory) -> bool:
        """Return whether training should stop."""
        losses = [epoch["validation_loss"] for epoch in history.epochs]
        if self.patience is None or len(losses) < max(1, self.min_epochs):
            return False
        return epochs_without_improvement(losses, self.delta) >= self.patience
