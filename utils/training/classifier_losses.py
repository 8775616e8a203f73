"""The losses of classifiers: of texts with one label, and of texts with any number of labels."""

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from utils.evaluation.labelling import Labelling


class ClassificationLoss:
    """Cross-entropy, summed over the batch and divided by the texts of the whole optimizer step.

    Given to the Trainer as `compute_loss_func`. The models' own losses are means over one batch, which the
    Trainer takes for already scaled when it accumulates: 2 batches of 4 texts would count as much as 2 of 8.

    Args:
        class_weights: weight of every label, or None.
        label_smoothing: between 0 and 1 (Szegedy et al. 2016).
        focal_gamma: 0, or more to count less what is predicted well (Lin et al. 2017, arXiv:1708.02002).
    """

    def __init__(self, class_weights: np.ndarray | None = None, label_smoothing: float = 0.0, focal_gamma: float = 0.0):
        self.focal_gamma = focal_gamma
        self.class_weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.label_smoothing = label_smoothing

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Return the loss of logits [batch, num_labels] for labels [batch]."""
        logits = outputs.logits.float()
        weights = self.class_weights
        if weights is not None and weights.device != logits.device:
            weights = self.class_weights = weights.to(logits.device)
        loss = partial(F.cross_entropy, logits, labels, weight=weights, label_smoothing=self.label_smoothing)
        if self.focal_gamma:
            wrong = 1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]
            total = (loss(reduction="none") * wrong**self.focal_gamma).sum()
        else:
            total = loss(reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


class MultilabelLoss:
    """Binary cross-entropy of every label, averaged over the labels; otherwise as `ClassificationLoss`.

    Args:
        positive_weights: weight of every label in the texts that have it, shape [num_labels], or None.
        focal_gamma: as for `ClassificationLoss`.
    """

    def __init__(self, positive_weights: np.ndarray | None = None, focal_gamma: float = 0.0):
        self.positive_weights = None if positive_weights is None else torch.tensor(positive_weights).float()
        self.focal_gamma = focal_gamma

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Return the loss of logits [batch, num_labels] for labels of 0 and 1 of that shape."""
        logits, labels = outputs.logits.float(), labels.float()
        weights = self.positive_weights
        if weights is not None and weights.device != logits.device:
            weights = self.positive_weights = weights.to(logits.device)
        losses = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="none")
        if self.focal_gamma:
            # How far the probability is from the right answer, 0 to 1.
            wrong = torch.sigmoid(torch.where(labels > 0, -logits, logits))
            losses = losses * wrong**self.focal_gamma
        return losses.mean(1).sum() / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def make_loss(
    labels: np.ndarray, labelling: Labelling, balanced: bool, focal_gamma: float, label_smoothing: float
) -> "ClassificationLoss | MultilabelLoss":
    """Return the loss of a training.

    Args:
        labels: of the training texts, shape [n]; or 0 and 1, shape [n, num_labels].
        labelling: how logits become labels.
        balanced: count labels equally.
        focal_gamma: see the losses.
        label_smoothing: of texts with one label.
    """
    if labelling.multilabel:
        return MultilabelLoss(positive_weights(labels) if balanced else None, focal_gamma)
    weights = balanced_class_weights(labels, len(labelling.names)) if balanced else None
    return ClassificationLoss(weights, label_smoothing, focal_gamma)


def positive_weights(labels: np.ndarray) -> np.ndarray:
    """Weights with which the texts that have a label count as much as those without it; 1 if none or all have it.

    Args:
        labels: 0 or 1, shape [n, num_labels].
    """
    positive = np.asarray(labels, dtype=np.float64).sum(0)
    negative = len(labels) - positive
    sound = (positive > 0) & (negative > 0)
    return np.divide(negative, positive, out=np.ones_like(positive), where=sound)


def balanced_class_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Weights with which every label that occurs counts equally, their mean over the texts being 1.

    The "balanced" weights of scikit-learn (King & Zeng 2001); labels that do not occur get 1.

    Args:
        labels: shape [n].
        num_labels: number of labels, those that do not occur included.
    """
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    weights = np.ones(num_labels)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return weights
