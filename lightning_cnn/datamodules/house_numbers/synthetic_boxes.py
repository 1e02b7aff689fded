"""Rendered photos of house numbers with a box around each digit: for training without SVHN's images."""

from dataclasses import replace
from typing import Literal

import numpy as np
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lightning_cnn.datamodules.house_numbers.boxes import DigitBoxes
from lightning_cnn.datamodules.house_numbers.synthetic_numbers import NumberSource
from lightning_cnn.datamodules.images.augmentation import AugmentOptions
from lightning_cnn.datamodules.images.base import Normalize
from lightning_cnn.errors import UserError


class SyntheticBoxes(DigitBoxes):
    """Rendered photos of house numbers with a box around each digit; scores on them are no SVHN scores.

    They have the lengths, digits, boxes and sizes of SVHN's; see `SyntheticNumbers`. The wall goes on where the photo
    is no square. The same seed gives the same images.

    Args:
        root: Folder of the data, for MNIST; default `$LIGHTNING_CNN_DATA` or `data/`.
        batch_size: Images in a batch, over all processes together.
        image_size: Side of the square in pixels, a multiple of 8.
        max_boxes: Digits of an image at most.
        normalize: `auto` and `standardize` by mean and standard deviation of the training part, `per_image` by each
            image's own, `unit` and `raw` as with other images.
        val_fraction: Share of the training data held back for validation.
        val_split: Which share: `random` (by `split_seed`), or the `first` or `last` rows as Keras takes them.
        split_seed: Seed of the random split; it does not depend on the seed of the run.
        augment: Random changes to the training images that leave the digits in their boxes: `{"cutout": 0.2}`.
        on_device: Whether the images are kept in the memory of the device.
        download: Whether MNIST may be downloaded where it is missing.
        annotations: Zip of SVHN's real annotations, XML files `train/1.xml`, ...; without it, numbers are drawn from
            the distributions measured on them.
        handwriting: Share of the numbers that are written with MNIST's digits.
        train_images: Photos for training and validation; with more than there are annotations these repeat, in another
            hand and on another wall.
        test_images: Photos for the test.
        seed: Of the drawing; it does not depend on the seed of the run.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would leave the boxes behind.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 32,
        image_size: int = 128,
        max_boxes: int = 6,
        normalize: Normalize = "auto",
        val_fraction: float = 0.1,
        val_split: Literal["random", "first", "last"] = "random",
        split_seed: int = 0,
        augment: AugmentOptions | None = None,
        on_device: bool = False,
        download: bool = True,
        annotations: str | None = None,
        handwriting: float = 0.2,
        train_images: int = 10000,
        test_images: int = 2000,
        seed: int = 0,
    ) -> None:
        super().__init__(
            root=root,
            batch_size=batch_size,
            image_size=image_size,
            max_boxes=max_boxes,
            normalize=normalize,
            val_fraction=val_fraction,
            val_split=val_split,
            split_seed=split_seed,
            augment=augment,
            on_device=on_device,
            download=download,
        )
        self.save_hyperparameters(logger=False)
        for name, value in (("train_images", train_images), ("test_images", test_images)):
            if value < 2:
                raise UserError(f"--data.{name} {value}: it must be at least 2")
        self.train_images = train_images
        self.test_images = test_images
        self.source = NumberSource(self.root, annotations, handwriting, seed, download)

    def prepare_data(self) -> None:
        """Downloads MNIST where its handwriting is asked for and missing.

        Raises:
            UserError: If it can't be had.
        """
        self.source.prepare()

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Draws the training or the test part.

        Returns:
            uint8 `(n, 3, side, side)`; float32 `(n, max_boxes, 5)`.
        """
        count = self.train_images if train else self.test_images
        rank_zero_info(
            f"SyntheticBoxes: drawing {count:,} {'training' if train else 'test'} photos, {self.source.says()}"
        )
        numbers = self.source.geometry(train, count)
        side = numbers.sizes.max(1, keepdims=True)
        low = (numbers.sizes - side) // 2
        frames = np.concatenate([low, low + side], axis=1)
        # a digit without a box would be taught as none
        images, boxes = self.source.render(numbers, frames, self.image_size, True, train, neighbours=0.0)
        return images, self.boxes_as_labels(replace(numbers, boxes=boxes.numpy()))
