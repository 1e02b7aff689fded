"""Metrics of segmentation: from the confusion matrix of all pixels, and by object."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_cnn.evaluation.object_sizes import EDGES, match_masks, recall_by_size
from lightning_cnn.options import IGNORE

Row = tuple[float, float, int, int]
BORDERS = (0.0, *EDGES, float("inf"))


class PixelMatrix(Metric):
    """The confusion matrix of all pixels; with deterministic algorithms, too, in the memory of the pixels.

    Args:
        num_classes: Number of classes.
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("matrix", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Adds a batch.

        Args:
            predictions: Classes, `(batch, height, width)`.
            masks: Classes and `IGNORE`, of the same shape.
        """
        known, classes = masks != IGNORE, len(self.matrix)
        pairs = classes * masks[known] + predictions[known]
        self.matrix += torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def compute(self) -> Tensor:
        """Pixels by their true (rows) and their predicted class, int64 `(num_classes, num_classes)`."""
        return self.matrix


class ObjectCounts(Metric):
    """How many objects are found, by class and size: see `match_masks`.

    Args:
        classes: Classes whose connected pixels are single objects.
    """

    full_state_update = False
    objects: Tensor
    found: Tensor
    false: Tensor

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__()
        self.classes = classes
        for name in ("objects", "found"):
            self.add_state(name, torch.zeros(len(classes), len(EDGES) + 1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("false", torch.zeros(len(classes), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Adds a batch of whole images.

        Args:
            predictions: Classes, `(batch, height, width)`.
            masks: Classes and `IGNORE`, of the same shape.
        """
        pairs = [*zip(predictions.cpu().numpy(), masks.cpu().numpy(), strict=True)]
        for place, label in enumerate(self.classes):
            for predicted, true in pairs:
                matches = match_masks(predicted, true, label)
                rows = torch.tensor([row[2:] for row in recall_by_size(matches)], device=self.device)
                self.objects[place] += rows[:, 0]
                self.found[place] += rows[:, 1]
                self.false[place] += matches.false

    def compute(self) -> dict[str, Tensor]:
        """`objects` and `found`, int64 `(classes, sizes)`, and `false`, int64 `(classes,)`."""
        return {"objects": self.objects, "found": self.found, "false": self.false}


def object_scores(objects: Tensor, found: Tensor, false: Tensor, name: str) -> dict[str, Tensor]:
    """Recall of the objects of a class, as a whole and by size, and precision; NaN of what does not occur.

    Args:
        objects: How many there are, by size, int64 `(sizes,)`.
        found: How many of them were found.
        false: How many were predicted where there is none, without dimensions.
        name: Name of the class.
    """
    scores = {f"recall_{name}": found.sum() / objects.sum(), f"precision_{name}": found.sum() / (found.sum() + false)}
    sizes = [f"{low:g}" if high == BORDERS[-1] else f"{low:g}_{high:g}" for low, high in pairwise(BORDERS)]
    return scores | {f"recall_{name}_{size}": share for size, share in zip(sizes, found / objects, strict=True)}


def size_rows(objects: Tensor, found: Tensor) -> list[Row]:
    """Rows of `recall_bars`: smallest size, size that none reaches, objects, and how many were found.

    Args:
        objects: How many there are, by size, int64 `(sizes,)`.
        found: How many of them were found.
    """
    counts = zip(pairwise(BORDERS), objects.tolist(), found.tolist(), strict=True)
    return [(low, high, *rest) for (low, high), *rest in counts]


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
