"""Rendered images with boxes: red squares and blue bars on gray noise."""

import numpy as np
import torch
from torch import Tensor

from lightning_cnn.datamodules.detection.base import BoxDataModule

SIDE = 64


class Blocks(BoxDataModule):
    """Red squares and blue bars on gray noise; the same images in training and test."""

    num_classes = 2
    native_size = SIDE
    class_names = ("red square", "blue bar")

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        draw = np.random.default_rng(0)
        images = torch.from_numpy(draw.integers(60, 120, (40, 3, SIDE, SIDE), dtype=np.uint8))
        labels = torch.full((40, 3, 5), -1.0)
        for image, label in zip(images, labels, strict=True):
            for row in range(draw.integers(0, 3)):
                kind, (left, top) = int(draw.integers(0, 2)), draw.integers(0, 20, 2) + 24 * row
                width, height = (16, 16) if kind == 0 else (10, 20)
                image[:, top : top + height, left : left + width] = torch.tensor([[220, 30, 30], [30, 30, 220]])[
                    kind
                ].view(3, 1, 1)
                label[row] = torch.tensor([kind, left, top, left + width, top + height])
        return images, labels
