"""Classification of images with capsule networks: margin loss and reconstruction."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MultilabelStatScores

from lightning_cnn.architectures.capsules import CapsuleDecoder, CapsuleNet, lengths
from lightning_cnn.errors import UserError, check
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import IMAGES, All, Keep, Sample, Table, Worst
from lightning_cnn.modules.base import Examples
from lightning_cnn.modules.image_task import ClassTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# images and labels; and of images that overlap each one alone, (batch, images, channels, height, width), and its class
CapsuleBatch = tuple[Tensor, ...]
PRESENT, ABSENT, WEIGHT_OF_ABSENT = 0.9, 0.1, 0.5  # the margins of the loss


def margin_losses(lengths: Tensor, labels: Tensor) -> Tensor:
    """The margin loss of each image, `(batch,)` (Sabour et al. 2017, equation 4).

    Args:
        lengths: Lengths of the class capsules, `(batch, num_classes)`.
        labels: 1 for each class that an image shows, 0 for the others, `(batch, num_classes)`.
    """
    present, absent = F.relu(PRESENT - lengths).square(), F.relu(lengths - ABSENT).square()
    return (labels * present + WEIGHT_OF_ABSENT * (1 - labels) * absent).sum(1)


class CapsuleClassifier(ClassTask):
    """A capsule network, trained on the margin loss and on the reconstruction of its images.

    Labels are classes, int64 `(batch,)`, or several of each image, int64 `(batch, num_classes)`. Measured in validation
    and test: `loss`, `acc` (share of the shown classes whose capsules are among the longest), `f1` (macro mean),
    `reconstruction` (squared error, summed over the pixels of an image), with several labels `exact` (share of the
    images whose labels are all right), and in the test `acc_<class>` of each class.

    The loss is `(0.9 - |v|)^2` of the classes that are shown, where `|v|` is below 0.9, and half of `(|v| - 0.1)^2` of
    the others, where it is above 0.1. In all stages the decoder gets the capsule of the true class alone. Images of
    several digits are reconstructed one digit at a time.

    Source: Sabour, Frosst and Hinton, "Dynamic routing between capsules" (2017), sections 3 and 4.1.

    Args:
        architecture: Name of a capsule network: `capsnet`, `capsnet_small`, `efficient_capsnet`, or your own.
        reconstruction_weight: Weight of the squared error, summed over the pixels, of the reconstruction; 0 leaves the
            decoder out.
        labels_per_image: How many classes an image shows, whose capsules are the longest; 0 takes all capsules that are
            longer than one half. Taken from the data where these have several.

    Raises:
        UserError: If the network has no capsules.
    """

    better: ClassVar[Better] = {"exact": "max", "reconstruction": "min", "acc_*": "max"}
    validated: tuple[str, ...] = ("loss", "acc", "f1")
    label_kind = "classes"
    activation = "none"
    of_class = "acc"
    keep: ClassVar[Mapping[str, Keep]] = {
        "answers": All("labels", "predictions"),
        "worst": Worst(25, by="losses", among="is_wrong"),
        "sample": Sample(32),
    }

    def __init__(
        self,
        architecture: str = "capsnet",
        *,
        reconstruction_weight: float = 0.0005,
        labels_per_image: int = 1,
        **options: Any,
    ) -> None:
        check("model.reconstruction_weight", reconstruction_weight, least=0)
        check("model.labels_per_image", labels_per_image, least=0)
        super().__init__(architecture, **options)
        self.reconstruction_weight = reconstruction_weight
        self.labels_per_image = labels_per_image
        if not isinstance(self.network, CapsuleNet):
            raise UserError(
                f"`model.architecture` {architecture} has no capsules: take capsnet, capsnet_small or efficient_capsnet"
            )
        self.decoder: CapsuleDecoder | None = None
        if reconstruction_weight:
            side, channels = self.hparams["image_size"], self.hparams["in_channels"]
            training = self.network.training
            with torch.no_grad():  # batch normalization keeps the statistics that it has
                _, classes, dim = self.network.eval().capsules(torch.zeros(1, channels, side, side)).shape
            self.network.train(training)
            self.decoder = CapsuleDecoder(classes, dim, (channels, side, side))
        if labels_per_image != 1:
            self.prediction_table = self._label_table
        self.validated += ("exact",) * (labels_per_image != 1) + ("reconstruction",) * bool(reconstruction_weight)

    @classmethod
    def check_data(cls, data: type) -> None:
        """Refuses data with labels of another kind than classes, one or several of each image.

        Args:
            data: The class of the data.

        Raises:
            UserError: If the task does not learn from such data.
        """
        if getattr(data, "label_kind", "") != "any number of labels":
            super().check_data(data)

    def loss(self, batch: CapsuleBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The margin loss and the weighted reconstruction error; the share of right answers, summed.

        Args:
            batch: Images; labels `(batch,)` or `(batch, num_classes)`, also probabilities of mixed images; and of
                images that overlap each one alone and its class.
        """
        capsules, labels, losses, errors = self._losses(batch)
        right = (self.chosen(lengths(capsules)) * labels).sum(1) / labels.sum(1).clamp_min(1)
        if self.is_weighted:  # of several classes their mean
            losses = losses * (labels * self.class_weights).sum(1) / labels.sum(1).clamp_min(1)
        return (losses + self.reconstruction_weight * errors).mean(), {"acc": right.sum()}

    def make_metrics(self, stage: str) -> MetricCollection:
        """What measures `val` or `test`."""
        metrics: dict[str, Metric | MetricCollection] = {
            "counts": MultilabelStatScores(self.hparams["num_classes"], average=None),
            **{name: MeanMetric() for name in ("acc", "exact", "reconstruction")},
        }
        return MetricCollection(metrics, compute_groups=False)

    def results(self, stage: str) -> dict[str, Tensor]:
        """The metrics of a whole part by name."""
        unused = {"exact", "reconstruction"} - {*self.validated}
        return {name: value for name, value in super().results(stage).items() if name not in unused}

    def measure(self, batch: CapsuleBatch, metrics: Any) -> dict[str, Tensor]:
        """Adds a batch to the metrics.

        Returns:
            `loss`, and of each image `losses` (margin loss), `capsules` `(num_classes, dim)`, and `predictions` and
            `labels`, classes or 1 for each class that is shown, and whether it `is_wrong`.
        """
        capsules, labels, losses, errors = self._losses(batch)
        predictions = self.chosen(lengths(capsules))
        right, is_wrong = predictions * labels, (predictions != labels).any(1)
        metrics["counts"].update(predictions, labels)
        metrics["acc"].update(right.sum(1) / labels.sum(1).clamp_min(1))
        metrics["exact"].update((~is_wrong).float())
        metrics["reconstruction"].update(errors)
        if self.labels_per_image == 1:
            predictions, labels = predictions.argmax(1), labels.argmax(1)
        loss = (losses + self.reconstruction_weight * errors).mean()
        return {
            "loss": loss, "losses": losses, "capsules": capsules, "predictions": predictions, "labels": labels,
            "is_wrong": is_wrong,
        }  # fmt: skip

    def chosen(self, lengths: Tensor) -> Tensor:
        """The classes that an image shows, int64 `(batch, num_classes)`, 1 or 0.

        Args:
            lengths: Of the capsules, `(batch, num_classes)`.
        """
        if not self.labels_per_image:
            return (lengths > 0.5).long()
        longest = lengths.topk(min(self.labels_per_image, lengths.shape[1]), dim=1).indices
        return torch.zeros_like(lengths, dtype=torch.int64).scatter_(1, longest, 1)

    def predict_step(self, batch: CapsuleBatch, batch_idx: int) -> Tensor:
        """Lengths of the capsules `(batch, num_classes)`, 0 to 1."""
        found: Tensor = self(batch[0])
        return found.float()

    def _label_table(self, outputs: Sequence[Tensor], examples: Examples) -> Table:
        """The classes that each image shows, and the length of each capsule."""
        names, found = self.names_of(examples), torch.cat([*outputs])
        shown = (" ".join(names[place] for place in row.nonzero().flatten()) for row in self.chosen(found))
        return ["labels", *names], [[text, *row] for text, row in zip(shown, found.tolist(), strict=True)]

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """What a classification shows, reconstructions, and what each value of a capsule changes."""
        from lightning_cnn.figures.capsules import dimensions, reconstructions
        from lightning_cnn.figures.classification import class_figures

        names = self.names_of(data)
        if self.labels_per_image == 1:
            yield from class_figures(kept, names, title)
        else:
            pictures = {name: rows for name, rows in kept.items() if name != "answers"}
            yield from super().figures(pictures, data, title)
        sample = kept.get("sample", {})
        if self.decoder is None or IMAGES not in sample:
            return
        capsules, images = sample["capsules"][:16], sample[IMAGES][:16]
        chosen = self.chosen(lengths(capsules))
        with torch.no_grad():
            yield "reconstructions", reconstructions(images, capsules, chosen, self.decoder, names)
            first = chosen[0] * (lengths(capsules[0]) == lengths(capsules[0]).max())
            yield "dimensions", dimensions(capsules[0], first, self.decoder)

    def _losses(self, batch: CapsuleBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The capsules, 1 for each class that is shown; and of each image the margin loss and the squared error."""
        images, labels, *alone = batch
        with self.as_compiled(images):
            found = self.network(images.contiguous(memory_format=self.memory_format), as_capsules=True)
        capsules = found.float()
        classes = capsules.shape[1]
        if labels.ndim == 1:
            labels = F.one_hot(labels, classes)
        losses = margin_losses(lengths(capsules), labels)
        errors = torch.zeros_like(losses)
        if self.decoder is not None:
            targets, chosen = (alone[0], F.one_hot(alone[1], classes)) if alone else (images[:, None], labels[:, None])
            preprocessing = getattr(self.trainer.datamodule, "preprocessing", None)  # type: ignore[attr-defined]
            for target, wanted in zip(targets.unbind(1), chosen.unbind(1), strict=True):
                pixels = target if preprocessing is None else preprocessing.unscale(target)
                errors = errors + (self.decoder(capsules, wanted) - pixels).square().sum((1, 2, 3))
        return capsules, labels, losses, errors
