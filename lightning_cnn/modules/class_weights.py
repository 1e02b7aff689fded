"""Weights of classes in a loss: given, or such that rare classes count as much as frequent ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cnn.errors import UserError, check


def check_weights(weights: Sequence[float], num_classes: int) -> None:
    """Refuses weights that don't fit the classes.

    Args:
        weights: Weight of each class.
        num_classes: Number of classes.

    Raises:
        UserError: If there are more or fewer than classes, one is negative, or all are 0.
    """
    if len(weights) != num_classes:
        raise UserError(f"`model.class_weights` has {len(weights)} numbers, but there are {num_classes} classes")
    for weight in weights:
        check("model.class_weights", weight, least=0, below=float("inf"))
    if not any(weights):
        raise UserError("`model.class_weights`: at least one must be above 0")


def balanced(counts: Tensor) -> Tensor:
    """Weights of one class per image, `n / (k counts)` for `n` images of `k` classes, as scikit-learn's `balanced`.

    Their mean over the images is 1. A class without images has the weight 1.

    Args:
        counts: How many images each class has, `(k,)`.
    """
    weights = counts.sum() / ((counts > 0).sum() * counts.double())
    return torch.where(counts > 0, weights, 1.0)


def balanced_labels(counts: Tensor, images: int) -> Tensor:
    """Weights of the images that have a label, against 1 of those that don't: `(n - counts) / counts`.

    A label that all images have, or none, has the weight 1.

    Args:
        counts: How many images have each label, `(labels,)`.
        images: Number of images, `n`.
    """
    return torch.where((counts > 0) & (counts < images), (images - counts) / counts.double(), 1.0)
