"""The base of all data sets of house numbers: images of whole numbers, to be read at once."""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cnn.architectures.house_number import HEADS, number_text
from lightning_cnn.datamodules.batches import Batch
from lightning_cnn.datamodules.images.base import ImageDataModule, Normalize
from lightning_cnn.datamodules.images.moves import parts_of
from lightning_cnn.errors import check

Color = Literal["rgb", "grey"]
CHANGING = ("flip", "alternating_flip", "mixup", "cutmix")


class HouseNumbers(ImageDataModule):
    """Base class of images of whole numbers.

    The label is int64 `(6,)`: the number of digits, then the digits, 10 for none. A subclass defines `load`.

    Args:
        image_size: Side of the images in pixels, as the network sees them.
        margin: Pixels by which stored images exceed `image_size` on each side: training uses a random crop, validation
            and test the middle. The paper stores 64 and uses 54, a margin of 5 (Goodfellow et al. 2013, section 5).
        color: `rgb`, or `grey` with the weights .2989, .5870 and .1140.
        grow: Share by which the box of all digits is enlarged on each side before it is cropped.
        normalize: `per_image` by each image's own mean and standard deviation; `auto`, `standardize`, `unit` and `raw`
            as with other images.
        augment: Random changes to the training images, such as `{"rotation": 10, "zoom": 0.1}`.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would change what a number reads.
    """

    fixed: ClassVar[tuple[str, ...]] = ("padding",)
    unfit: ClassVar[dict[str, str]] = dict.fromkeys(CHANGING, "changes what a number reads: leave it out")
    default_model = "HouseNumberReader"
    label_kind = "whole numbers"
    num_classes = sum(HEADS)
    native_size = 32
    class_names = tuple("0123456789")

    def __init__(
        self,
        root: str | None = None,
        *,
        image_size: int = 32,
        margin: int = 0,
        color: Color = "rgb",
        grow: float = 0.1,
        normalize: Normalize = "per_image",
        val_fraction: float = 0.1,
        **options: Any,
    ) -> None:
        self.in_channels = 3 if color == "rgb" else 1
        super().__init__(
            root, image_size=image_size, padding=0, normalize=normalize, val_fraction=val_fraction, **options
        )
        check("data.margin", margin, least=0)
        check("data.grow", grow, least=0, most=2)
        self.grow = grow
        self.preprocessing = replace(self.preprocessing, margin=margin)

    def augment(self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int) -> Batch:
        """Training images as the network sees them: a random part of each, changed further where that is asked for."""
        if margin := self.preprocessing.margin:
            offsets = torch.randint(2 * margin + 1, (2, len(images), 1), device=images.device, generator=generator)
            images = parts_of(images, *(offsets + torch.arange(self.image_size, device=images.device)))
        return super().augment(images, labels, generator, epoch)

    def title(self, label: Tensor) -> str:
        """The number, such as `210`."""
        return number_text(label)
