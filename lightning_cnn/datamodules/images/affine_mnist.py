"""affNIST: MNIST's test images, rotated, sheared, stretched and moved."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from lightning_cnn.datamodules.batches import Batch, Images
from lightning_cnn.datamodules.images.augmentation import Augmentation, AugmentOptions
from lightning_cnn.datamodules.images.mnist import MNIST

SIDE, BORDER = 40, 6
SHIFTS: AugmentOptions = {"crop": BORDER, "crop_fill": "zero"}
ROTATION, SHEAR, STRETCH = math.radians(20), 0.2, 0.2  # the ranges of affNIST


class AffineMNIST(MNIST):
    """MNIST on a canvas of 40x40 pixels: training with shifts alone, test with affine transformations.

    In training the image of 28x28 pixels lies at a random place, a new one in each epoch (`augment`); in validation at
    a fixed random one. The test images are rotated by up to 20 degrees, sheared by up to 0.2, stretched by 0.8 to 1.2
    in width and in height, and moved to any place where the whole digit stays on the canvas, as those of affNIST. They
    are made from MNIST's own test images, one each, and depend on `split_seed` alone; affNIST's files are not read.

    Source: Tieleman, "Optimizing neural networks that generate images" (2014), chapter 2; Sabour, Frosst and Hinton,
    "Dynamic routing between capsules" (2017), section 5.2.

    Args:
        test_images: `affine`, or `shifted` as those of the validation.
        augment: Random changes to the training images; default shifts of up to six whole pixels.
    """

    native_size = SIDE

    def __init__(
        self,
        root: str | None = None,
        *,
        test_images: Literal["affine", "shifted"] = "affine",
        augment: AugmentOptions | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, augment=SHIFTS if augment is None else augment, **options)
        self.test_images = test_images

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Training or test images in the middle of the canvas, uint8 `(n, 1, 40, 40)`, and their labels."""
        images, labels = super().load(train)
        return F.pad(images, (BORDER,) * 4), labels

    def open_parts(self, parts: Sequence[str]) -> dict[str, Dataset[Batch]]:
        """The data sets of some parts, and of others that come with them.

        Args:
            parts: Of `train`, `val` and `test`.
        """
        opened = super().open_parts(parts)
        for number, part in enumerate(("val", "test")):
            if part in opened:
                images, labels = opened[part][torch.arange(len(opened[part]))]  # type: ignore[arg-type]
                generator = torch.Generator().manual_seed(self.split_seed + number)
                if part == "test" and self.test_images == "affine":
                    images = torch.cat([transformed(some, generator) for some in images.split(1000)])
                    images = placed(images, generator)
                else:
                    images = Augmentation.from_options(SHIFTS).shift_pixels(images, generator)
                opened[part] = Images(images, labels)
        return opened


def transformed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images rotated, sheared and stretched at random about their middle.

    Args:
        images: uint8, `(n, 1, side, side)`.
        generator: The source of the draws.
    """
    angle, shear, width, height = (2 * torch.rand(4, len(images), generator=generator) - 1).unbind()
    angle, shear, width, height = ROTATION * angle, SHEAR * shear, 1 + STRETCH * width, 1 + STRETCH * height
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rotate = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    slant = torch.stack([one, shear, zero, one], 1).view(-1, 2, 2)
    stretch = torch.stack([width, zero, zero, height], 1).view(-1, 2, 2)
    back = torch.linalg.inv(rotate @ slant @ stretch)  # from a place of the result to one of the image
    grid = F.affine_grid(torch.cat([back, torch.zeros(len(images), 2, 1)], 2), [*images.shape], align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False).round().to(torch.uint8)


def placed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images whose content is moved to a random place, where all of it stays on the canvas.

    Args:
        images: uint8, `(n, 1, side, side)`.
        generator: The source of the draws.
    """
    side = images.shape[-1]
    starts = []
    for dimension in (3, 2):  # rows, then columns: where something lies in them
        lies = images.amax((1, dimension)) > 0
        first, last = lies.int().argmax(1), side - 1 - lies.flip(1).int().argmax(1)
        room = side - (last - first).clamp_min(0)
        place = (torch.rand(len(images), generator=generator) * room).long()
        starts.append((first - place)[:, None] + torch.arange(side))
    rows, columns = (start.remainder(side) for start in starts)  # what comes in on the other side is empty
    return images[torch.arange(len(images))[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]
