"""Images with any number of labels each: the example of a new task."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelExactMatch, MultilabelStatScores

from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import IMAGES, Keep, Sample, Worst
from lightning_cnn.modules.base import Examples
from lightning_cnn.modules.image_task import ImageTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = tuple[Tensor, Tensor]


class MultiLabelClassifier(ImageTask):
    """A network that gives each image any number of labels, trained on the binary cross-entropy of each label.

    Labels are int64 `(batch, num_classes)`, 1 where an image has the label. Measured in validation and test: `loss`,
    `acc` (share of all answers that are right, one for each image and label), `exact` (share of the images whose labels
    are all right), `f1` (mean over the labels that occur), and in the test `f1_<label>` of each that occurs.

    Args:
        architecture: Name of the network: ours, any of timm, or `my_file.my_network` of your own.
    """

    better: ClassVar[Better] = {"exact": "max", "f1": "max", "f1_*": "max"}
    keep: ClassVar[Mapping[str, Keep]] = {"worst": Worst(25, by="losses"), "predictions": Sample(25)}

    def __init__(self, architecture: str = "lenet5", **options: Any) -> None:
        super().__init__(architecture, **options)

    @property
    def validated(self) -> tuple[str, ...]:
        """The metrics of a validation."""
        return ("loss", "acc", "exact", "f1")

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a training batch, and of each image the share of right answers, summed."""
        images, labels = batch
        logits = self(images)
        right = ((logits > 0) == (labels > 0)).float().mean(1)
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype)), {"acc": right.sum()}

    def make_metrics(self, stage: str) -> MetricCollection:
        """What measures `val` or `test`."""
        labels = self.hparams["num_classes"]
        # of each label: true and false positives, true and false negatives, and how often it occurs
        counts = MultilabelStatScores(labels, average=None)
        metrics: dict[str, Metric | MetricCollection] = {"counts": counts, "exact": MultilabelExactMatch(labels)}
        return MetricCollection(metrics, compute_groups=False)

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Tensor]:
        """Adds a batch to the metrics; returns its `loss`, and of each image `losses`, `predictions` and `labels`."""
        images, labels = batch
        logits = self(images).float()
        predictions = (logits > 0).long()
        metrics.update(predictions, labels)
        losses = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(1)
        return {"loss": losses.mean(), "losses": losses, "predictions": predictions, "labels": labels}

    def results(self, stage: str) -> dict[str, Tensor]:
        """The metrics of a whole part by name, in the test with the F1 score of each label that occurs in it."""
        found = super().results(stage)
        right, wrong, rejected, missed, occurs = found.pop("counts").unbind(1)
        f1 = 2 * right / (2 * right + wrong + missed)
        answers = right.sum() + wrong.sum() + rejected.sum() + missed.sum()
        found |= {"acc": (right.sum() + rejected.sum()) / answers, "f1": f1[occurs > 0].mean()}
        if stage == "test":
            names = self.names_of(self.trainer.datamodule)  # type: ignore[attr-defined]
            found |= {f"f1_{name}": f1[number] for number, name in enumerate(names) if occurs[number]}
        return found

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities of the labels `(batch, num_classes)`."""
        logits: Tensor = self(batch[0])
        return logits.float().sigmoid()

    def prediction_table(self, outputs: Sequence[Tensor], examples: Examples) -> tuple[list[str], list[list[Any]]]:
        """The labels of each image, the probability of just these, and that of each label, for `predict`.

        Args:
            outputs: What `predict_step` gave for each batch.
            examples: The images.

        Returns:
            Names of the columns, and a row for each image.
        """
        names, rows = self.names_of(examples), []
        for shares in torch.cat([*outputs]):
            chosen = " ".join(name for name, share in zip(names, shares.tolist(), strict=True) if share > 0.5)
            together = float(shares.maximum(1 - shares).prod())
            rows.append([chosen, together, *shares.tolist()])
        return ["labels", "probability", *names], rows

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """The images with the largest loss, and a sample, with the labels predicted and the true ones."""
        from lightning_cnn.figures.images import image_grid

        names = self.names_of(data)
        for name, rows in kept.items():
            if len(rows.get(IMAGES, ())):
                said, true = (
                    ["+".join(names[place] for place in row.nonzero().flatten()) or "none" for row in rows[column]]
                    for column in ("predictions", "labels")
                )
                titles = [a if a == b else f"{a},\nis {b}" for a, b in zip(said, true, strict=True)]
                yield name, image_grid(rows[IMAGES], titles)

    def names_of(self, data: Any) -> Sequence[str]:
        """The names of the labels that the data have, else their numbers."""
        names: Sequence[str] = getattr(data, "class_names", ())
        return names or [str(number) for number in range(self.hparams["num_classes"])]
