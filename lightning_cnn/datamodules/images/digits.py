"""Digits: 1,797 real handwritten digits that come with scikit-learn, for a first run without a download."""

import torch
from torch import Tensor

from lightning_cnn.datamodules.images.base import ImageDataModule


class Digits(ImageDataModule):
    """Digits: 1,797 handwritten digits of 8x8 pixels, resized to 28x28; part of scikit-learn, no download.

    The set has no official test part: 360 fixed images, sampled once, serve as one.

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository (1998);
    the copy in scikit-learn.
    """

    num_classes = 10
    in_channels = 1
    native_size = 28
    class_names = tuple("0123456789")

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """1,437 training or 360 test images, uint8 `(n, 1, 28, 28)`, and their labels."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
        images = torch.nn.functional.interpolate(images, (28, 28), mode="bilinear", align_corners=False)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        chosen = order[360:] if train else order[:360]
        return (images * 255).round().to(torch.uint8)[chosen], torch.from_numpy(labels)[chosen].long()
