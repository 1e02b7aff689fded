"""Segmentation: the class of each pixel."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, MetricCollection

from lightning_cnn.architectures.unet import center_crop
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import IMAGES, Keep, Sample, Worst
from lightning_cnn.modules.image_task import Batch, WeightedTask
from lightning_cnn.modules.segmentation_losses import Criterion
from lightning_cnn.modules.segmentation_metrics import (
    ObjectCounts,
    PixelMatrix,
    Row,
    object_scores,
    scores_of,
    size_rows,
    summary,
)
from lightning_cnn.options import IGNORE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 256  # longest side of an image in figures, in pixels


class Segmenter(WeightedTask):
    """Semantic segmentation: a class for each pixel.

    Masks are int64 `(batch, height, width)`. Pixels with 255 (`lightning_cnn.options.IGNORE`) count in no loss and no
    metric. Measured in validation and test: `loss`, `acc` (share of the pixels whose class is right), `iou` and `dice`
    (means over the classes that occur in the masks), and where class 0 is the background `iou_foreground` and
    `dice_foreground` (means over the other classes that occur); in the test also `iou_<class>` and `dice_<class>` of
    each class that occurs, and `pixel_error`, one minus `acc`. IoU of a class is `TP / (TP + FP + FN)`, Dice
    `2 TP / (2 TP + FP + FN)`, with the pixels of the whole set summed first, not averaged over images or batches. All
    are exact over the whole set, on any number of processes. `loss` is the mean over images of the loss of each.

    Where the data know classes of objects, such as ships, the test also counts these. An object is the connected pixels
    of its class, and is found if the IoU with one predicted object is above 0.5. `recall_<class>` is the share of the
    objects that are found, and `recall_<class>_8_16` that of those from 8 to less than 16 pixels long;
    `precision_<class>` is the share of the predicted objects that are right.

    A network with valid convolutions, such as `unet`, is trained on the middle of the masks. In validation, test and
    prediction the images are extended by their mirror images, so that all pixels get a class (Ronneberger et al. 2015,
    figure 2).

    Args:
        architecture: Name of a segmentation network: `unet`, `unet_padded`, `unet_small`; `smp_unet`,
            `smp_deeplabv3plus` or `smp_fpn` with `architecture_options` such as `{"encoder": "resnet18"}`; or your own,
            which maps images to logits `(batch, num_classes, height, width)`.
        num_classes: Number of classes; taken from the data.
        image_size: Side of the training crops in pixels; taken from the data.
        criterion: Training loss: `cross_entropy`, `dice`, `focal`, or a sum such as `cross_entropy+dice`.
        class_weights: Weight of each class in the training loss, such as `[1, 5]`, or `balanced`, inversely
            proportional to the number of its pixels in the training masks.
        focal_gamma: Exponent of the focal loss (Lin et al. 2017).
        has_background: Whether class 0 is the background; taken from the data where these say so.
        object_classes: Classes whose connected pixels are single objects; taken from the data where these say so.

    Raises:
        UserError: If an option is invalid, or the network classifies no pixels.
    """

    better: ClassVar[Better] = {
        **dict.fromkeys(("iou", "iou_*", "dice", "dice_*", "recall_*", "precision_*"), "max"),
        "pixel_error": "min",
    }
    label_kind = "masks"
    gives_masks = True
    averages_loss = False
    validated: tuple[str, ...] = ("loss", "acc", "iou", "dice")
    shown = ("loss", "iou")
    undefined = ("loss", "acc", "pixel_error", "iou*", "dice*", "recall_*", "precision_*")  # where none is known
    keep: ClassVar[Mapping[str, Keep]] = {"worst": Worst(6, by="losses"), "sample": Sample(6)}

    def __init__(
        self,
        architecture: str = "unet_small",
        *,
        num_classes: int = 2,
        image_size: int = 256,
        criterion: str = "cross_entropy",
        focal_gamma: float = 2.0,
        has_background: bool = False,
        object_classes: list[int] | None = None,
        **options: Any,
    ) -> None:
        if not 2 <= num_classes <= IGNORE:
            raise UserError(f"`data`: {num_classes} classes; a segmentation has from 2 to {IGNORE}")
        super().__init__(architecture, num_classes=num_classes, image_size=image_size, **options)
        self._sizes: dict[str, list[Row]] = {}  # of the last test: objects by size, of each class of objects
        self.criterion = Criterion.of(criterion, focal_gamma)
        self.has_background = has_background
        if has_background:
            self.validated += ("iou_foreground", "dice_foreground")

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)` of images `(batch, in_channels, height, width)`.

        In training those of a network with valid convolutions are smaller than the images: their middle.
        """
        height, width = images.shape[-2:]
        lost: int = 0 if self.training else getattr(self.network, "lost", 0)  # type: ignore[assignment]
        if lost:
            extra = [self.network.input_side(side) - side for side in (height, width)]  # type: ignore[operator]
            images = mirrored(images, lost // 2, extra)
        logits: Tensor = super().forward(images)
        return logits[..., :height, :width]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the labelled pixels of a batch; the share of right ones, times the images.

        Args:
            batch: Images `(b, channels, height, width)`, and masks, int64 `(b, height, width)`.
        """
        logits, masks = self._cropped(batch)
        known = masks != IGNORE
        right = ((logits.argmax(1) == masks) & known).sum() / known.sum().clamp_min(1)
        return self.criterion(logits, masks, self.class_weights), {"acc": right * len(masks)}

    def make_metrics(self, stage: str) -> MetricCollection:
        """Makes the metrics of `val` or `test`."""
        metrics: dict[str, Metric | MetricCollection] = {
            "loss": MeanMetric(nan_strategy=math.nan),
            "matrix": PixelMatrix(self.hparams["num_classes"]),
        }
        if stage == "test" and self.hparams["object_classes"]:
            metrics["by_object"] = ObjectCounts(self.hparams["object_classes"])
        return MetricCollection(metrics, compute_groups=False)

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Any]:
        """Adds a batch to the metrics.

        Returns:
            Of each image its `losses`; and reduced to 256 pixels the `images`, `predictions` and `masks`.
        """
        logits, masks = self._cropped(batch)
        predictions = logits.argmax(1)
        metrics["matrix"].update(predictions, masks)
        if "by_object" in metrics:
            metrics["by_object"].update(predictions, masks)
        losses = torch.stack([self.criterion(logits[row : row + 1], masks[row : row + 1]) for row in range(len(masks))])
        known = (masks != IGNORE).flatten(1).any(1)
        if known.any():
            metrics["loss"].update(losses[known])
        step = math.ceil(max(masks.shape[1:]) / SHOWN)
        images = center_crop(batch[0], *masks.shape[1:])
        return {
            "losses": losses,
            IMAGES: F.avg_pool2d(images, step, ceil_mode=True) if step > 1 else images,
            "predictions": predictions[:, ::step, ::step].to(torch.uint8),
            "masks": masks[:, ::step, ::step].to(torch.uint8),
        }

    def results(self, stage: str) -> dict[str, Tensor]:
        """The metrics of a whole part by name, in the test with those of each class that occurs in it."""
        found = super().results(stage)
        matrix = found.pop("matrix")
        found |= summary(matrix, self.has_background)
        if stage == "test":
            found["pixel_error"] = 1 - found["acc"]
            names = self.names_of(self.trainer.datamodule)  # type: ignore[attr-defined]
            for metric, values in scores_of(matrix).items():
                of_classes = {f"{metric}_{name}": value for name, value in zip(names, values, strict=True)}
                # the mean without the background is called so, too
                if len(names) > 2 and (mean := f"{metric}_foreground") in of_classes and mean in found:
                    of_classes[f"{mean}_class"] = of_classes.pop(mean)
                found |= of_classes
            classes = self.hparams["object_classes"] or []
            # torchmetrics makes a scalar of one with a single value
            counts = [torch.atleast_1d(found.pop(name)) for name in ("objects", "found", "false")] if classes else []
            for label, objects, right, wrong in zip(classes, *counts, strict=True):
                found |= object_scores(objects, right, wrong, names[label])
                self._sizes[names[label]] = size_rows(objects, right)
        return found

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Class of each pixel, uint8 `(batch, height, width)`."""
        logits: Tensor = self(batch[0])
        return logits.argmax(1).to(torch.uint8)

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """The images with the largest loss, and a sample, each with its mask and the predicted one; recall by size."""
        from lightning_cnn.figures.object_sizes import recall_bars
        from lightning_cnn.figures.segmentation import compared

        for number, (label, sizes) in enumerate(self._sizes.items() if title == "test" else ()):
            yield f"recall_{number + 1}" if number else "recall", recall_bars(sizes, f"{title}: {label}")

        for name, rows in kept.items():
            if len(rows.get(IMAGES, ())):
                captions = [f"loss {float(loss):.3g}" for loss in rows["losses"]]
                yield name, compared(rows[IMAGES], rows["masks"], rows["predictions"], captions, self.names_of(data))

    def _cropped(self, batch: Batch) -> Batch:
        """The logits of a batch, and as much of the masks as they show."""
        images, masks = batch
        logits = self(images)
        return logits, center_crop(masks, *logits.shape[-2:])


def mirrored(images: Tensor, before: int, extra: list[int]) -> Tensor:
    """Images extended by their mirror images, as often as it takes.

    Args:
        images: `(batch, channels, height, width)`.
        before: Pixels that are added above and on the left.
        extra: Pixels that are added to the height and to the width altogether.
    """
    for dim, more in zip((-2, -1), extra, strict=True):
        side = images.shape[dim]
        if more:
            period = max(1, 2 * (side - 1))
            lines = torch.arange(-before, side + more - before, device=images.device) % period
            images = images.index_select(dim, torch.minimum(lines, period - lines) if side > 1 else lines)
    return images
