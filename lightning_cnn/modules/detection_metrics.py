"""How well digits are found, and the numbers that they make are read."""

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cnn.figures.collected import Columns


class DetectionMetrics(Columns):
    """Mean average precision of the boxes, and accuracy of the whole numbers.

    `map` is the mean over IoU thresholds of 0.5 to 0.95 and the classes that occur, `map50` that at 0.5, both computed
    by pycocotools, with the 100 most confident detections of a class in an image. Without a true box both are NaN.

    Args:
        per_class: Whether there are also `map_0`, `map_1`, ... of the classes that occur.
    """

    def __init__(self, per_class: bool = False) -> None:
        super().__init__("found", "true", "counts", "right")
        self.per_class = per_class

    def update(self, predictions: list[dict[str, Any]], labels: Tensor, right: Tensor) -> None:  # type: ignore[override]
        """Adds a batch.

        Args:
            predictions: Of each image `boxes` `(k, 4)`, `labels` `(k,)` and `scores` `(k,)`.
            labels: `(n, max_boxes, 5)`: digit, left, top, right, bottom; digit -1 in rows that are not there.
            right: Which numbers are read right, bool `(n,)`.
        """
        there = labels[..., 0] >= 0
        rows = [
            torch.cat([found["labels"][:, None].float(), found["boxes"].float(), found["scores"][:, None].float()], 1)
            for found in predictions
        ]
        sizes = torch.tensor([len(found) for found in rows], device=labels.device)
        super().update(torch.cat(rows), labels[there].float(), torch.stack([sizes, there.sum(1)], 1), right)

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name, each without dimensions."""
        *parts, right = super().compute().values()
        found, true, counts = (part.cpu() for part in parts)
        values = {"acc": right.float().mean(), "map": right.new_full((), np.nan, dtype=torch.float32)}
        values["map50"] = values["map"]
        if len(true):
            precision, classes = average_precision(found, true, counts)
            values["map"], values["map50"] = precision.mean(), precision[0].mean()
            if self.per_class:
                values |= {f"map_{name}": value for name, value in zip(classes, precision.mean(0), strict=True)}
        return {name: value.to(right.device) for name, value in values.items()}


def average_precision(found: Tensor, true: Tensor, counts: Tensor) -> tuple[Tensor, list[int]]:
    """Average precision as pycocotools computes it (Lin et al. 2014).

    Args:
        found: Label, left, top, right, bottom and score of each detection, image by image, `(d, 6)`.
        true: Label, left, top, right and bottom of each true box, image by image, `(m, 5)`; at least one.
        counts: Detections and true boxes of each image, int64 `(n, 2)`.

    Returns:
        float32 `(10, classes)`, at IoU thresholds of 0.5, 0.55 to 0.95; and the labels that occur, in order.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = range(1, 1 + len(counts))
    classes = sorted({int(label) for label in true[:, 0]})
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
    precision = evaluation.eval["precision"][..., 0, 0]  # thresholds, recalls, classes
    return torch.from_numpy(precision.mean(1).astype(np.float32)), classes


def _annotations(rows: Tensor, counts: Tensor) -> list[dict[str, Any]]:
    """Boxes in the form of COCO. They are numbered from 1 on: pycocotools takes a match with number 0 for none."""
    images = torch.repeat_interleave(torch.arange(1, 1 + len(counts)), counts).tolist()
    found = []
    for number, (image, row) in enumerate(zip(images, rows.double().tolist(), strict=True), start=1):
        label, left, top, right, bottom, *score = row
        box = [left, top, right - left, bottom - top]
        found.append({"id": number, "image_id": image, "category_id": int(label), "bbox": box, "iscrowd": 0})
        found[-1] |= {"area": box[2] * box[3], "score": score[0] if score else 1.0}
    return found
