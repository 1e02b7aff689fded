"""Images with any number of labels each: the example of a new task."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAccuracy, MultilabelExactMatch, MultilabelStatScores

from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import Table
from lightning_cnn.modules.base import Examples
from lightning_cnn.modules.image_task import Batch, ClassTask


class MultiLabelClassifier(ClassTask):
    """Multi-label image classification with binary cross-entropy loss per label.

    Labels are int64 `(batch, num_classes)`, 1 where an image has the label. Measured in validation and test: `loss`,
    `acc` (share of all answers that are right, one for each image and label), `exact` (share of the images whose labels
    are all right), `f1` (mean over the labels that occur), and in the test `f1_<label>` of each that occurs.
    """

    better: ClassVar[Better] = {"exact": "max", "f1_*": "max"}
    validated = ("loss", "acc", "exact", "f1")
    label_kind = "any number of labels"
    activation = "sigmoid"

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a training batch, and the share of correct labels per image, summed."""
        logits, labels = self(batch[0]), batch[1]
        right = ((logits > 0) == (labels > 0)).float().mean(1)
        weights = self.class_weights if self.is_weighted else None
        loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weights)
        return loss, {"acc": right.sum()}

    def make_metrics(self, stage: str) -> MetricCollection:
        """Makes the metrics of `val` or `test`."""
        n = self.hparams["num_classes"]
        counts, acc = MultilabelStatScores(n, average=None), MultilabelAccuracy(n, average="micro")
        return MetricCollection({"counts": counts, "acc": acc, "exact": MultilabelExactMatch(n)}, compute_groups=False)

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Tensor]:
        """Adds a batch to the metrics.

        Returns:
            `loss`, and of each image `losses`, `predictions`, `labels`, and whether it `is_wrong`.
        """
        images, labels = batch[:2]
        logits = self(images).float()
        predictions = (logits > 0).long()
        metrics.update(predictions, labels)
        losses = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(1)
        return {
            "loss": losses.mean(), "losses": losses, "predictions": predictions, "labels": labels,
            "is_wrong": (predictions != labels).any(1),
        }  # fmt: skip

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities of the labels `(batch, num_classes)`."""
        return torch.sigmoid(self(batch[0]).float())

    def prediction_table(self, outputs: Sequence[Tensor], examples: Examples) -> Table:
        """Predicted labels of each image, the probability of exactly these, and the probability of each label."""
        names, shares = self.names_of(examples), torch.cat([*outputs])
        chosen = (" ".join(names[place] for place in row.nonzero().flatten()) for row in shares > 0.5)
        confidence = shares.maximum(1 - shares).prod(1).tolist()
        return ["labels", "probability", *names], [*map(list, zip(chosen, confidence, *shares.T.tolist(), strict=True))]
