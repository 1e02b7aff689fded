"""Rendered photos of house numbers with a box around each digit: for training without SVHN's images."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from lightning_cnn.datamodules.house_numbers.boxes import DigitBoxes
from lightning_cnn.datamodules.house_numbers.synthetic_numbers import RenderedNumbers


class SyntheticBoxes(RenderedNumbers, DigitBoxes):
    """Rendered photos of house numbers with a box around each digit; results are not SVHN results.

    They have the lengths, digits, boxes and sizes of SVHN; see `SyntheticNumbers`. Photos that are not square are
    padded with wall. The same seed gives the same images.

    Args:
        train_images: Number of photos for training and validation. If it exceeds the number of annotations, these
            repeat with other handwriting and another wall.
        test_images: Number of photos for the test.
    """

    def __init__(
        self, root: str | None = None, *, train_images: int = 10000, test_images: int = 2000, **options: Any
    ) -> None:
        super().__init__(root, train_images=train_images, test_images=test_images, **options)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Draws the training or the test part.

        Returns:
            uint8 `(n, 3, side, side)`; float32 `(n, max_boxes, 5)`.
        """
        numbers = self.geometry(train, "photos")
        side = numbers.sizes.max(1, keepdims=True)
        low = (numbers.sizes - side) // 2
        frames = np.concatenate([low, low + side], axis=1)
        # a digit without a box would be taught as none
        images, boxes = self.render(numbers, frames, train, neighbours=0.0)
        return images, self.boxes_as_labels(replace(numbers, boxes=boxes.numpy()))
