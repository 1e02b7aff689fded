"""The base of all data sets of objects with boxes: whole images as squares, and where each object lies in them."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_cnn.datamodules.batches import Batch
from lightning_cnn.datamodules.detection.annotations import UNUSED, BoxAnnotations
from lightning_cnn.datamodules.detection.moved_boxes import move_with_boxes
from lightning_cnn.datamodules.images.augmentation import AugmentOptions
from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.errors import UserError, check

MIXING = ("mixup", "cutmix", "policy", "elastic", "small_epochs")


class BoxDataModule(ImageDataModule):
    """Base class of images padded to squares; the label is float32 `(max_boxes, 5)`, a row per object.

    A row is the class and the box: left, top, right, bottom in pixels of the square. The class is -1 in unused rows,
    and -2 - c in a crowd region of class c, which counts in no loss of the grid detector, and in the average precision
    as in COCO. A subclass defines `load`, which may use `boxes_as_labels`.

    Args:
        image_size: Side of the square in pixels, a multiple of 8.
        max_boxes: Maximum number of objects in an image.
        normalize: `auto` and `standardize` by mean and standard deviation of the training part, `per_image` by each
            image's own, `unit` and `raw` as with other images.
        augment: Random changes to the training images; shifts, flips, rotations, zooms and crops also move the boxes.
            A box becomes the upright hull of its moved corners. What comes in from outside is black.
        min_visible: Share of a box that must stay in the image when it is moved. An object with less counts neither as
            an object nor as background.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would leave the boxes behind.
    """

    fixed: ClassVar[tuple[str, ...]] = ("padding",)
    unfit: ClassVar[dict[str, str]] = dict.fromkeys(MIXING, "would leave the boxes behind: leave it out")
    default_model = "Detector"
    label_kind = "boxes"
    in_channels = 3
    native_size = 128
    what: ClassVar[str] = "boxes"

    def __init__(
        self,
        root: str | None = None,
        *,
        batch_size: int = 32,
        image_size: int = 128,
        max_boxes: int = 100,
        min_visible: float = 0.3,
        val_fraction: float = 0.1,
        augment: AugmentOptions | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            root,
            batch_size=batch_size,
            image_size=image_size,
            padding=0,
            val_fraction=val_fraction,
            augment=augment,
            **options,
        )
        check("data.max_boxes", max_boxes, least=1)
        check("data.min_visible", min_visible, least=0, most=1)
        if (fill := (augment or {}).get("crop_fill", "zero")) != "zero":
            raise UserError(f"`data.augment.crop_fill` {fill} would show objects without boxes: use zero")
        self.max_boxes = max_boxes
        self.min_visible = min_visible
        self.preprocessing = replace(self.preprocessing, resize="pad")

    def augment(self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int) -> Batch:
        """Training images as the network sees them, and their boxes.

        Args:
            images: uint8, `(b, channels, side, side)`.
            labels: float32, `(b, max_boxes, 5)`.
            generator: The source of the draws, on the same device.
            epoch: Number of the epoch.

        Returns:
            Float images and labels of the same shapes.
        """
        change = self.augmentation
        pixels, labels = move_with_boxes(change, images, labels, generator, epoch, self._seed, self.min_visible)
        return change.cut(self.preprocessing.scale(pixels), generator), labels

    def boxes_as_labels(self, annotations: BoxAnnotations) -> Tensor:
        """Labels of images whose boxes are already in pixels of the square.

        Boxes are clipped to it; those that lie outside are skipped and counted in a warning.

        Args:
            annotations: Of `n` images.

        Returns:
            float32, `(n, max_boxes, 5)`.

        Raises:
            UserError: If an image has more objects than there is room for.
        """
        longest = int(annotations.lengths.max(initial=0))
        if longest > self.max_boxes:
            name = annotations.names[int(annotations.lengths.argmax())]
            raise UserError(
                f"`data.max_boxes` {self.max_boxes}: {name} has {longest} {self.what}: try `data.max_boxes` {longest}"
            )
        boxes = annotations.boxes.clip(0, self.image_size)
        inside = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
        rows = annotations.rows
        if not inside.all():
            name = annotations.names[rows[inside.argmin()]]
            rank_zero_warn(
                f"skipped: {(~inside).sum():,} of {len(inside):,} boxes lie outside their photo, or show less than a "
                f"pixel at `data.image_size` {self.image_size} (first in {name})"
            )
        places = np.arange(len(rows)) - annotations.starts[rows]
        labels = np.full((len(annotations), self.max_boxes, 5), UNUSED, dtype=np.float32)
        labels[rows[inside], places[inside], 0] = annotations.classes[inside]
        labels[rows[inside], places[inside], 1:] = boxes[inside]
        return torch.from_numpy(labels)

    def plot(self, count: int | None = None, augmented: bool = False) -> Any:
        """Figure of evenly spaced training images with their boxes.

        Args:
            count: How many; default 25.
            augmented: Whether they are augmented, as in the first epoch.

        Returns:
            A matplotlib `Figure`.
        """
        from lightning_cnn.figures.detection import draw_detections

        self.setup("fit")
        images, labels = self._sets["train"][self._sample(count or 25)]
        pixels = images.float() / 255
        if augmented:
            generator = torch.Generator(images.device).manual_seed(self._seed)
            changed, labels = self.augment(images, labels, generator, epoch=0)
            pixels = self.preprocessing.unscale(changed)
        return draw_detections(pixels, None, labels, names=self.class_names)
