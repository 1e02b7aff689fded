"""The figure of training images, beside their augmented versions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from lightning_cnn.datamodules.images.base import ImageDataModule


def example_figure(data: "ImageDataModule", positions: Tensor, augmented: bool) -> Any:
    """Figure of training images with their class names.

    Args:
        data: The data, set up for training.
        positions: Of the images in the training part.
        augmented: Whether an augmented version stands beside each image, as the first epoch may show it.

    Returns:
        A matplotlib `Figure`.
    """
    from lightning_cnn.figures.images import image_grid

    images, labels, *_ = data.dataset("train")[positions]
    pixels, titles = data.preprocessing.middle(images).float() / 255, [data.title(label) for label in labels]
    if not augmented:
        return image_grid(pixels, titles)
    generator = torch.Generator(images.device).manual_seed(data._seed)
    changed, mixed = data.augment(images, labels, generator, epoch=0)
    changed = interpolate(data.preprocessing.unscale(changed), size=pixels.shape[-2:])  # small images show their pixels
    pairs = torch.stack([pixels, changed], 1).flatten(0, 1)
    mixes = data.augmentation.mixup or data.augmentation.cutmix
    shown = [_shares(label, data.class_names) for label in mixed] if mixes else ["augmented"] * len(titles)
    titles = [title for pair in zip(titles, shown, strict=True) for title in pair]
    return image_grid(pairs, titles, columns=6, together=2)


def _shares(label: Tensor, names: Sequence[str]) -> str:
    """A mixed label in words, such as `70 % frog` above `30 % truck`."""
    shares = sorted(zip(label.tolist(), names, strict=True), reverse=True)
    return "\n".join(f"{100 * share:.0f} % {name}" for share, name in shares[:2] if share >= 0.005)
