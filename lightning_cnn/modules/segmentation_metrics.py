"""Metrics of segmentation, from the confusion matrix of all pixels."""

import torch
from torch import Tensor


def scores_of(matrix: Tensor) -> dict[str, Tensor]:
    """IoU and Dice of each class.

    Args:
        matrix: Pixels by true class (row) and predicted class (column), int64 `(classes, classes)`.

    Returns:
        `iou` and `dice`, float64 `(classes,)`: `TP / (TP + FP + FN)` and `2 TP / (2 TP + FP + FN)`; NaN of a class that
        no pixel has, whether it is predicted or not.
    """
    counts = matrix.double()
    right, true, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    occurs = torch.where(true > 0, 1.0, torch.nan)
    return {"iou": occurs * right / (true + said - right), "dice": occurs * 2 * right / (true + said)}


def summary(matrix: Tensor, has_background: bool) -> dict[str, Tensor]:
    """Metrics of a whole part, each without dimensions.

    Args:
        matrix: Pixels by true class (row) and predicted class (column), int64 `(classes, classes)`.
        has_background: Whether class 0 is the background.

    Returns:
        `acc`, the share of the pixels whose class is right; `iou` and `dice`, the means over the classes that occur;
        with a background also `iou_foreground` and `dice_foreground`, the means over the other classes that occur.
    """
    found = {"acc": matrix.diagonal().sum().double() / matrix.sum()}
    scores = scores_of(matrix)
    found |= {name: values.nanmean() for name, values in scores.items()}
    if has_background:
        found |= {f"{name}_foreground": values[1:].nanmean() for name, values in scores.items()}
    return found
