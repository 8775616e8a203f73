"""The loss of texts with any number of labels; that of texts with one is in test_classifier_trainer.py."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils.training.classifier_losses import ClassificationLoss, MultilabelLoss, positive_weights

LOGITS = torch.tensor([[2.0, -1.0, 0.3], [-3.0, 0.5, 0.0], [0.1, 0.2, -0.4], [4.0, -4.0, 1.0]], requires_grad=True)
LABELS = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]])


def loss_of(loss, rows=slice(None), num_items=None):
    return loss(SimpleNamespace(logits=LOGITS[rows]), LABELS[rows], num_items)


def by_hand(weights=(1, 1, 1), gamma=0.0):
    shares = 1 / (1 + np.exp(-LOGITS.detach().double().numpy()))
    true = LABELS.numpy()
    right = np.where(true, shares, 1 - shares)
    return (-np.where(true, weights, 1) * (1 - right) ** gamma * np.log(right)).mean()


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_it_is_the_formula(weights, gamma):
    loss = MultilabelLoss(None if weights is None else np.array(weights), gamma)
    assert loss_of(loss).item() == pytest.approx(by_hand(weights or (1, 1, 1), gamma), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_batches_of_a_step_add_up(gamma):
    """And so do their gradients, however the texts are cut into batches."""
    loss = MultilabelLoss(focal_gamma=gamma)
    (whole,) = torch.autograd.grad(loss_of(loss), LOGITS)
    parts = loss_of(loss, slice(0, 3), 4) + loss_of(loss, slice(3, 4), torch.tensor(4))
    assert parts.item() == pytest.approx(loss_of(loss).item())
    (added,) = torch.autograd.grad(parts, LOGITS)
    assert torch.allclose(whole, added)


def test_texts_with_a_label_count_as_much_as_those_without():
    labels = np.array([[1, 0, 1, 0]] * 2 + [[0, 0, 1, 1]] * 6)
    weights = positive_weights(labels)
    assert weights.tolist() == [3, 1, 1, pytest.approx(1 / 3)]
    for label in (0, 3):
        assert (weights[label] * labels[:, label]).sum() == (1 - labels[:, label]).sum()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_focal_loss_of_single_labels(gamma):
    labels = torch.tensor([0, 2, 1, 0])
    loss = ClassificationLoss(np.array([1.0, 2.0, 0.5]), focal_gamma=gamma)
    found = loss(SimpleNamespace(logits=LOGITS), labels).item()
    shares = LOGITS.detach().double().softmax(1).numpy()[np.arange(4), labels.numpy()]
    weights = np.array([1.0, 2.0, 0.5])[labels.numpy()]
    assert found == pytest.approx((-weights * (1 - shares) ** gamma * np.log(shares)).mean(), rel=1e-5)


def test_without_focal_gamma_the_loss_of_single_labels_is_that_of_torch():
    labels = torch.tensor([0, 2, 1, 0])
    expected = torch.nn.functional.cross_entropy(LOGITS, labels, label_smoothing=0.1)
    assert ClassificationLoss(None, 0.1)(SimpleNamespace(logits=LOGITS), labels).item() == expected.item()
