"""The base of all data sets of house numbers: images of whole numbers, to be read at once."""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cnn.architectures.house_number import HEADS, number_text
from lightning_cnn.datamodules.batches import Batch
from lightning_cnn.datamodules.images.base import ImageDataModule, Normalize
from lightning_cnn.errors import UserError

Color = Literal["rgb", "grey"]
FORBIDDEN = ("flip", "alternating_flip", "mixup", "cutmix")


class HouseNumbers(ImageDataModule):
    """Images of numbers of one to five digits; the label is int64 `(6,)`: count of digits, then each, 10 for none.

    A data set of its own is a subclass with one method, `load`.

    Args:
        image_size: Side of the images that the network sees, in pixels.
        margin: Pixels by which the images that are kept are larger on each side: training sees a random part of them,
            measurement the middle. The paper keeps 64 and sees 54, a margin of 5 (Goodfellow et al. 2013, section 5).
        color: `rgb`, or `grey` by the weights .2989, .5870 and .1140.
        grow: Share by which the box of all digits grows on each side before it is cut out.
        normalize: `per_image` by each image's own mean and standard deviation; `auto`, `standardize`, `unit` and `raw`
            as with other images.
        augment: Random changes to the training images, such as `{"rotation": 10, "zoom": 0.1}`.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would change what a number reads.
    """

    fixed: ClassVar[tuple[str, ...]] = ("padding",)
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
        for name in FORBIDDEN:
            if getattr(self.augmentation, name):
                raise UserError(f"`data.augment.{name}` changes what a number reads: leave it out")
        if margin < 0:
            raise UserError(f"`data.margin` {margin}: it must be a number of pixels, such as 4")
        if not 0 <= grow <= 2:
            raise UserError(f"`data.grow` {grow}: it must lie between 0 and 2")
        self.grow = grow
        self.preprocessing = replace(self.preprocessing, margin=margin)

    def augment(self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int) -> Batch:
        """Training images as the network sees them: a random part of each, changed further where that is asked for."""
        return super().augment(self._random_part(images, generator), labels, generator, epoch)

    def title(self, label: Tensor) -> str:
        """The number, such as `210`."""
        return number_text(label)

    def _random_part(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A part of each image, of the size that the network sees, at a place of its own."""
        margin, side = self.preprocessing.margin, self.image_size
        if not margin:
            return images
        n, channels, _, width = images.shape
        draw = torch.randint(2 * margin + 1, (2, n, 1), device=images.device, generator=generator)
        rows, columns = draw + torch.arange(side, device=images.device)
        source = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
        return images.flatten(2).gather(2, source).view(n, channels, side, side)
