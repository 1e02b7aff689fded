"""Classification of images with any registered network."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassStatScores

from lightning_cnn.errors import check
from lightning_cnn.evaluation.confidence import CalibrationError
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import All, Keep, Sample, Worst
from lightning_cnn.modules.image_task import Batch, ClassTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ImageClassifier(ClassTask):
    """Image classification with cross-entropy loss.

    Measured in validation and test: `loss` (cross-entropy without smoothing), `acc`, `f1` (macro mean), `ece` (expected
    calibration error, 15 bins; Guo et al. 2017), `top5` where there are more than ten classes, and in the test
    `acc_<class>` for each class. `f1` is the mean over the classes that occur in the labels, as of scikit-learn's
    `f1_score(y, p, labels=np.unique(y), average="macro")`; a class that does not occur has no `acc_<class>`. All are
    exact over the whole set, on any number of processes.

    Args:
        label_smoothing: Share of the target probability spread evenly over all classes in the training loss.
        auxiliary_weight: Weight of the loss of each auxiliary head, for networks with auxiliary heads (GoogLeNet:
            Szegedy et al. 2015, section 5).
        flip_average: Whether validation, test and prediction average the logits of each image and its mirror image.
        shift_average: Whether they also average over each image shifted by one pixel to the bottom right and to the top
            left, with the border reflected. The image as it is counts one half, the others a quarter each (Jordan 2024,
            "94% on CIFAR-10 in 3.29 seconds on a single GPU"). With `flip_average`, each of the three is mirrored, too.
    """

    better: ClassVar[Better] = {"ece": "min", "top5": "max", "acc_*": "max"}
    validated: tuple[str, ...] = ("loss", "acc", "f1", "ece")
    label_kind = "classes"
    of_class = "acc"
    keep: ClassVar[Mapping[str, Keep]] = {
        "answers": All("labels", "predictions"),
        "worst": Worst(25, by="losses", among="is_wrong"),
        "sample": Sample(32),
    }

    def __init__(
        self,
        architecture: str = "lenet5",
        *,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.3,
        flip_average: bool = False,
        shift_average: bool = False,
        **options: Any,
    ) -> None:
        check("model.label_smoothing", label_smoothing, least=0, most=1)
        super().__init__(architecture, **options)
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight
        self.flip_average = flip_average
        self.shift_average = shift_average
        if self.hparams["num_classes"] > 10:
            self.validated += ("top5",)

    def forward(self, images: Tensor) -> Any:
        """Logits `(batch, num_classes)` of images `(batch, in_channels, image_size, image_size)`.

        In training a network with auxiliary heads gives a tuple: its logits, then those of each auxiliary head.
        """
        if self.training or not self.shift_average:
            return self._logits(images)
        wide = F.pad(images, (1, 1, 1, 1), mode="reflect")
        shifted = self._logits(wide[..., :-2, :-2]) + self._logits(wide[..., 2:, 2:])
        return (2 * self._logits(images) + shifted) / 4

    def _logits(self, images: Tensor) -> Any:
        """Logits of images, averaged with those of their mirror images with `flip_average`."""
        logits = super().forward(images)
        if self.flip_average and not self.training:
            logits = (logits + super().forward(images.flip(-1))) / 2
        return logits

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy loss with label smoothing and weights of the classes.

        Args:
            batch: Images, and labels: classes `(batch,)` or, of mixed images, probabilities `(batch, num_classes)`.
        """
        images, labels = batch
        outputs = self(images)
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._cross_entropy(logits, labels)
        for others in auxiliary:
            loss = loss + self.auxiliary_weight * self._cross_entropy(others, labels)
        if labels.ndim == 2:
            labels = labels.argmax(1)
        return loss, {"acc": (logits.argmax(1) == labels).sum()}

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        options: dict[str, Any] = {"label_smoothing": self.label_smoothing}
        if not self.is_weighted:
            return F.cross_entropy(logits, labels, **options)
        # over the images, not over the sum of their weights, which differs from process to process
        return F.cross_entropy(logits, labels, self.class_weights, reduction="sum", **options) / len(labels)

    def make_metrics(self, stage: str) -> MetricCollection:
        """Makes the metrics of `val` or `test`."""
        classes = self.hparams["num_classes"]
        metrics: dict[str, Metric | MetricCollection] = {
            "counts": MulticlassStatScores(classes, average=None),
            "acc": MulticlassAccuracy(classes, average="micro"),
            "ece": CalibrationError(),
        }
        if classes > 10:
            metrics["top5"] = MulticlassAccuracy(classes, top_k=5, average="micro")
        return MetricCollection(metrics, compute_groups=False)

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Tensor]:
        """Adds a batch to the metrics.

        Returns:
            `loss`, and of each image `losses`, `predictions`, `labels`, and whether it `is_wrong`.
        """
        images, labels = batch
        logits = self(images).float()
        predictions = logits.argmax(1)
        for name in ("counts", "acc"):
            metrics[name].update(predictions, labels)
        metrics["ece"].update(logits.softmax(1).amax(1), predictions == labels)
        if "top5" in metrics:
            metrics["top5"].update(logits, labels)
        loss, losses = F.cross_entropy(logits, labels), F.cross_entropy(logits, labels, reduction="none")
        return {
            "loss": loss, "losses": losses, "predictions": predictions, "labels": labels,
            "is_wrong": predictions != labels,
        }  # fmt: skip

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities `(batch, num_classes)`."""
        logits: Tensor = self(batch[0])
        return logits.float().softmax(1)

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """Confusion matrix, the wrong predictions with the largest loss, and a sample of all predictions."""
        from lightning_cnn.figures.classification import class_figures

        yield from class_figures(kept, self.names_of(data), title)
