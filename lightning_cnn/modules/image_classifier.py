"""Classification of images with any registered network."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassStatScores

from lightning_cnn.evaluation.confidence import CalibrationError
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import All, Keep, Sample, Worst
from lightning_cnn.modules.image_task import ImageTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = tuple[Tensor, Tensor]


class ImageClassifier(ImageTask):
    """A network that gives each image one of several classes, trained on the cross-entropy.

    Measured in validation and test: `loss` (cross-entropy without smoothing), `acc`, `f1` (macro mean), `ece` (expected
    calibration error, 15 bins; Guo et al. 2017), `top5` where there are more than ten classes, and in the test
    `acc_<class>` for each class. `f1` is the mean over the classes that occur in the labels, as of scikit-learn's
    `f1_score(y, p, labels=np.unique(y), average="macro")`; a class that does not occur has no `acc_<class>`. All are
    exact over the whole set, on any number of processes.

    Args:
        label_smoothing: Share of the probability spread over all classes in the training loss.
        auxiliary_weight: Weight of the loss of each auxiliary head, for networks that have such (GoogLeNet:
            Szegedy et al. 2015, section 5).
        flip_average: Whether validation, test and prediction average each image's logits with its mirror image's.
    """

    better: ClassVar[Better] = {"f1": "max", "ece": "min", "top5": "max", "acc_*": "max"}
    keep: ClassVar[Mapping[str, Keep]] = {"answers": All(), "worst": Worst(25, by="losses"), "sample": Sample(32)}

    def __init__(
        self,
        architecture: str = "lenet5",
        *,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.3,
        flip_average: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(architecture, **options)
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight
        self.flip_average = flip_average

    @property
    def validated(self) -> tuple[str, ...]:
        """The metrics of a validation."""
        return ("loss", "acc", "f1", "ece", *(("top5",) if self.hparams["num_classes"] > 10 else ()))

    def forward(self, images: Tensor) -> Any:
        """Logits `(batch, num_classes)` of images `(batch, in_channels, image_size, image_size)`.

        In training a network with auxiliary heads gives a tuple: its logits, then those of each auxiliary head.
        """
        logits = super().forward(images)
        if self.flip_average and not self.training:
            logits = (logits + super().forward(images.flip(-1))) / 2
        return logits

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross-entropy, with label smoothing.

        Args:
            batch: Images, and labels: classes `(batch,)` or, of mixed images, probabilities `(batch, num_classes)`.
        """
        images, labels = batch
        outputs = self(images)
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        for others in auxiliary:
            loss = loss + self.auxiliary_weight * F.cross_entropy(others, labels, label_smoothing=self.label_smoothing)
        if labels.ndim == 2:
            labels = labels.argmax(1)
        return loss, {"acc": (logits.argmax(1) == labels).sum()}

    def make_metrics(self, stage: str) -> MetricCollection:
        """What measures `val` or `test`."""
        classes = self.hparams["num_classes"]
        # of each class: true and false positives, true and false negatives, and how often it occurs
        metrics: dict[str, Metric | MetricCollection] = {
            "counts": MulticlassStatScores(classes, average=None),
            "ece": CalibrationError(),
        }
        if classes > 10:
            metrics["top5"] = MulticlassAccuracy(classes, top_k=5, average="micro")
        return MetricCollection(metrics, compute_groups=False)

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Tensor]:
        """Adds a batch to the metrics; returns its `loss`, and of each image `losses`, `predictions` and `labels`."""
        images, labels = batch
        logits = self(images).float()
        predictions = logits.argmax(1)
        metrics["counts"].update(predictions, labels)
        metrics["ece"].update(logits.softmax(1).amax(1), predictions == labels)
        if "top5" in metrics:
            metrics["top5"].update(logits, labels)
        losses = F.cross_entropy(logits, labels, reduction="none")
        return {
            "loss": F.cross_entropy(logits, labels),
            "losses": losses,
            "predictions": predictions,
            "labels": labels,
        }

    def results(self, stage: str) -> dict[str, Tensor]:
        """The metrics of a whole part by name, in the test with the accuracy of each class that occurs in it."""
        found = super().results(stage)
        right, wrong, _, missed, occurs = found.pop("counts").unbind(1)
        f1 = 2 * right / (2 * right + wrong + missed)
        values = {"loss": found.pop("loss"), "acc": right.sum() / occurs.sum(), "f1": f1[occurs > 0].mean(), **found}
        if stage == "test":
            names = getattr(self.trainer.datamodule, "class_names", None) or range(len(occurs))  # type: ignore[attr-defined]
            rows = zip(names, right / occurs, occurs.tolist(), strict=True)
            values |= {f"acc_{name}": share for name, share, count in rows if count}
        return values

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities `(batch, num_classes)`."""
        logits: Tensor = self(batch[0])
        return logits.float().softmax(1)

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """Confusion matrix, the worst images, and some right and wrong ones."""
        from lightning_cnn.figures.classification import class_figures

        names = getattr(data, "class_names", None) or [str(number) for number in range(self.hparams["num_classes"])]
        yield from class_figures(kept, names, title)
