"""How well digits are found, and the numbers that they make are read."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.utilities import dim_zero_cat


class DetectionMetrics(Metric):
    """Mean average precision of the boxes, and accuracy of the whole numbers.

    `map` is the mean over IoU thresholds of 0.5 to 0.95 (COCO), `map50` that at 0.5. torchmetrics' own metric gathers
    image by image and so asks for as many images on each process; this one doesn't.

    Args:
        per_class: Whether there are also `map_0`, `map_1`, ... of the classes that occur.
    """

    full_state_update = False
    higher_is_better = True

    found: list[Tensor]
    true: list[Tensor]
    counts: list[Tensor]
    right: list[Tensor]

    def __init__(self, per_class: bool = False) -> None:
        super().__init__()
        self.per_class = per_class
        for name in ("found", "true", "counts", "right"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, predictions: list[dict[str, Any]], labels: Tensor, right: Tensor) -> None:
        """Adds a batch.

        Args:
            predictions: Of each image `boxes` `(k, 4)`, `labels` `(k,)` and `scores` `(k,)`.
            labels: `(n, max_boxes, 5)`: digit, left, top, right, bottom; digit -1 in rows that are not there.
            right: Which numbers are read right, bool `(n,)`.
        """
        there = labels[..., 0] >= 0
        rows = [
            torch.cat([found["labels"][:, None], found["boxes"], found["scores"][:, None]], 1) for found in predictions
        ]
        self.found.append(torch.cat(rows).float())
        self.true.append(labels[there].float())
        sizes = [len(found) for found in rows]
        self.counts.append(torch.stack([torch.tensor(sizes, device=labels.device), there.sum(1)], 1))
        self.right.append(right)

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name; without a single true box `map` and `map50` are -1, as COCO has it."""
        found, true = dim_zero_cat(self.found), dim_zero_cat(self.true)
        right, counts = dim_zero_cat(self.right), dim_zero_cat(self.counts).T.tolist()
        precision = MeanAveragePrecision(class_metrics=self.per_class, sync_on_compute=False).to(right.device)
        precision.warn_on_many_detections = False
        precision.update(
            [{"labels": f[:, 0].long(), "boxes": f[:, 1:5], "scores": f[:, 5]} for f in found.split(counts[0])],
            [{"labels": t[:, 0].long(), "boxes": t[:, 1:]} for t in true.split(counts[1])],
        )
        values = precision.compute()
        named = {"map": values["map"], "map50": values["map_50"], "acc": right.float().mean()}
        if self.per_class:
            occurring = set(true[:, 0].long().tolist())
            of_class = zip(values["classes"].reshape(-1).tolist(), values["map_per_class"].reshape(-1), strict=True)
            named |= {f"map_{label}": value for label, value in of_class if label in occurring}
        return {name: value.to(right.device) for name, value in named.items()}
