"""The base of all data sets of house numbers with boxes: whole photos, and where each digit lies in them."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.errors import UserError, check

# all but cutout, which leaves every digit where its box is
MOVING = ("shift", "flip", "rotation", "zoom", "crop", "alternating_flip", "mixup", "cutmix", "policy")
NONE = -1  # the digit of rows that are not there


class DigitBoxes(ImageDataModule):
    """Base class of photos padded to squares; the label is float32 `(max_boxes, 5)`, a row per digit.

    A row is the digit and its box: left, top, right, bottom in pixels of the square; the digit is -1 in unused rows.
    A subclass defines `load`, which may use `boxes_as_labels`.

    Args:
        image_size: Side of the square in pixels, a multiple of 8.
        max_boxes: Maximum number of digits in an image.
        normalize: `auto` and `standardize` by mean and standard deviation of the training part, `per_image` by each
            image's own, `unit` and `raw` as with other images.
        augment: Random changes to the training images that leave the digits in their boxes: `{"cutout": 0.2}`.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would leave the boxes behind.
    """

    fixed: ClassVar[tuple[str, ...]] = ("padding",)
    unfit: ClassVar[dict[str, str]] = dict.fromkeys(MOVING, "would leave the boxes behind: leave it out")
    default_model = "DigitDetector"
    label_kind = "boxes"
    num_classes = 10
    in_channels = 3
    native_size = 128
    class_names = tuple("0123456789")

    def __init__(
        self,
        root: str | None = None,
        *,
        batch_size: int = 32,
        image_size: int = 128,
        max_boxes: int = 6,
        val_fraction: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(
            root, batch_size=batch_size, image_size=image_size, padding=0, val_fraction=val_fraction, **options
        )
        check("data.max_boxes", max_boxes, least=1)
        self.max_boxes = max_boxes
        self.preprocessing = replace(self.preprocessing, resize="pad")

    def boxes_as_labels(self, annotations: DigitAnnotations) -> Tensor:
        """Labels of images whose boxes are already in pixels of the square.

        Boxes are clipped to it; those that lie outside are skipped and counted in a warning.

        Args:
            annotations: Of `n` images.

        Returns:
            float32, `(n, max_boxes, 5)`.

        Raises:
            UserError: If an image has more digits than there is room for.
        """
        longest = int(annotations.lengths.max(initial=0))
        if longest > self.max_boxes:
            name = annotations.names[int(annotations.lengths.argmax())]
            raise UserError(
                f"`data.max_boxes` {self.max_boxes}: {name} has {longest} digits: try `data.max_boxes` {longest}"
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
        labels = np.full((len(annotations), self.max_boxes, 5), NONE, dtype=np.float32)
        labels[rows[inside], places[inside], 0] = annotations.digits[inside]
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
            pixels = self.preprocessing.unscale(self.augment(images, labels, generator, epoch=0)[0])
        return draw_detections(pixels, None, labels)
