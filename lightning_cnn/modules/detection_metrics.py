"""How well objects are found, and the numbers that digits make are read."""

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cnn.figures.collected import Columns


class DetectionMetrics(Columns):
    """Mean average precision of the boxes.

    `map` is the mean over IoU thresholds of 0.5 to 0.95 and the classes that occur, `map50` that at 0.5, both computed
    by pycocotools, with the 100 most confident detections of a class in an image. Without a true box both are NaN.

    Args:
        per_class: Whether there are also `map_0`, `map_1`, ... of the classes that occur.
        further: Names of further columns.

    Attributes:
        curves: Once computed, the precision at IoU 0.5 and recalls of 0, 0.01 to 1, float64 `(101, classes)`, and the
            classes that occur; None without a true box.
    """

    def __init__(self, per_class: bool = False, further: tuple[str, ...] = ()) -> None:
        super().__init__("found", "true", "counts", *further)
        self.per_class = per_class
        self.curves: tuple[Tensor, list[int]] | None = None

    def update(self, predictions: list[dict[str, Any]], labels: Tensor, *further: Tensor) -> None:  # type: ignore[override]
        """Adds a batch.

        Args:
            predictions: Of each image `boxes` `(k, 4)`, `labels` `(k,)` and `scores` `(k,)`.
            labels: `(n, max_boxes, 5)`: class, left, top, right, bottom; class -1 in rows that are not there, and
                -2 - c for a crowd of class c.
            further: A part of each further column.
        """
        there = labels[..., 0] != -1
        rows = [
            torch.cat([found["labels"][:, None].float(), found["boxes"].float(), found["scores"][:, None].float()], 1)
            for found in predictions
        ]
        sizes = torch.tensor([len(found) for found in rows], device=labels.device)
        super().update(torch.cat(rows), labels[there].float(), torch.stack([sizes, there.sum(1)], 1), *further)

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name, each without dimensions."""
        found, true, counts = (part.cpu() for part in list(super().compute().values())[:3])
        values = {"map": torch.tensor(np.nan), "map50": torch.tensor(np.nan)}
        self.curves = None
        if (true[:, 0] >= 0).any():
            precision, classes = precision_at_recall(found, true, counts)
            self.curves = torch.from_numpy(precision[0]), classes
            each = precision.mean(1)
            values = {"map": torch.tensor(each.mean()), "map50": torch.tensor(each[0].mean())}
            if self.per_class:
                values |= {f"map_{name}": torch.tensor(v) for name, v in zip(classes, each.mean(0), strict=True)}
        return {name: value.float().to(self.device) for name, value in values.items()}


class NumberDetectionMetrics(DetectionMetrics):
    """Mean average precision of the digits, and accuracy of the whole numbers.

    Args:
        per_class: Whether there are also `map_0`, `map_1`, ... of the digits that occur.
    """

    def __init__(self, per_class: bool = False) -> None:
        super().__init__(per_class, ("right",))

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name, each without dimensions."""
        right = Columns.compute(self)["right"]
        return {"acc": right.float().mean(), **super().compute()}


def precision_at_recall(found: Tensor, true: Tensor, counts: Tensor) -> tuple[Any, list[int]]:
    """Precision at given recalls as pycocotools computes it (Lin et al. 2014).

    Args:
        found: Label, left, top, right, bottom and score of each detection, image by image, `(d, 6)`.
        true: Label, left, top, right and bottom of each true box, image by image, `(m, 5)`; -2 - c is the label of a
            crowd of class c. At least one is no crowd.
        counts: Detections and true boxes of each image, int64 `(n, 2)`.

    Returns:
        float64 `(10, 101, classes)`, at IoU thresholds of 0.5, 0.55 to 0.95 and recalls of 0, 0.01 to 1; and the labels
        that occur outside of crowds, in order. The mean over the recalls is the average precision.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = range(1, 1 + len(counts))
    classes = sorted({int(label) for label in true[:, 0] if label >= 0})
    dataset = {"info": {}, "images": [{"id": image} for image in images], "categories": [{"id": c} for c in classes]}
    with contextlib.redirect_stdout(io.StringIO()):  # it reports each step
        truth, answers = COCO(), COCO()
        truth.dataset = {**dataset, "annotations": _annotations(true, counts[:, 1])}
        answers.dataset = {**dataset, "annotations": _annotations(found, counts[:, 0])}
        truth.createIndex()
        answers.createIndex()
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., 0, 0], classes  # thresholds, recalls, classes


def _annotations(rows: Tensor, counts: Tensor) -> list[dict[str, Any]]:
    """Boxes in the form of COCO. They are numbered from 1 on: pycocotools takes a match with number 0 for none."""
    images = torch.repeat_interleave(torch.arange(1, 1 + len(counts)), counts).tolist()
    found = []
    for number, (image, row) in enumerate(zip(images, rows.double().tolist(), strict=True), start=1):
        label, left, top, right, bottom, *score = row
        box = [left, top, right - left, bottom - top]
        crowd = label <= -2
        kind = int(-2 - label if crowd else label)
        found.append({"id": number, "image_id": image, "category_id": kind, "bbox": box, "iscrowd": int(crowd)})
        found[-1] |= {"area": box[2] * box[3], "score": score[0] if score else 1.0}
    return found
