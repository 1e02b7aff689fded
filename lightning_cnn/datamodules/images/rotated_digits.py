"""Handwritten digits that are rotated: an example of regression from images."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from lightning_cnn.datamodules.batches import Batch, Images
from lightning_cnn.datamodules.images.digits import Digits
from lightning_cnn.errors import check

SCALE = 0.75  # of the digits, so that their corners stay in the image


class RotatedDigits(Digits):
    """The images of `Digits`, each rotated by an angle, which is the label, in degrees counterclockwise.

    In training each image has a new random angle in every epoch; in validation and test a fixed random one. The digits
    are reduced to three quarters of their size, so that nothing is cut off.

    Args:
        max_angle: Largest angle to either side, in degrees; angles are uniform up to it.

    Raises:
        UserError: If a value lies outside its range.
    """

    default_model = "ImageRegressor"
    label_kind = "numbers"
    num_classes = 1
    class_names = ("angle",)
    unfit: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("flip", "alternating_flip", "rotation", "policy"), "changes the angle: leave it out"),
        **dict.fromkeys(("mixup", "cutmix"), "mixes images of one class each"),
    }

    def __init__(self, root: str | None = None, *, max_angle: float = 45.0, **options: Any) -> None:
        super().__init__(root, **options)
        check("data.max_angle", max_angle, above=0, most=180)
        self.max_angle = max_angle

    def open_parts(self, parts: Sequence[str]) -> dict[str, Dataset[Batch]]:
        """The data sets of some parts, and of others that come with them.

        Args:
            parts: Of `train`, `val` and `test`.
        """
        opened = super().open_parts(parts)
        for number, (part, dataset) in enumerate(sorted(opened.items())):
            images, _ = dataset[torch.arange(len(dataset))]  # type: ignore[arg-type]
            angles = torch.zeros(len(images), 1)
            if part != "train":  # whose angles are drawn in each epoch
                angles = self._angles(len(images), torch.Generator().manual_seed(self.split_seed + number))
                images = rotated(images, angles)
            opened[part] = Images(images, angles)
        return opened

    def augment(self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int) -> Batch:
        """Rotates a training batch, and changes it as `augment` says.

        Args:
            images: uint8, `(b, 1, side, side)`.
            labels: Not used.
            generator: The source of the draws, on the same device.
            epoch: Number of the epoch.

        Returns:
            Float images of the same shape, and the angles `(b, 1)`.
        """
        angles = self._angles(len(images), generator)
        return super().augment(rotated(images, angles), angles, generator, epoch)

    def plot(self, count: int | None = None, augmented: bool = False) -> Any:
        """Figure of evenly spaced training images, each rotated as an epoch may show it.

        Args:
            count: How many; default 25, with their augmented versions 6.
            augmented: Whether the image before the rotation stands beside each, and the rotated one is augmented.

        Returns:
            A matplotlib `Figure`.
        """
        from lightning_cnn.figures.images import image_grid

        if augmented:
            return super().plot(count, augmented)
        self.setup("fit")
        images, _ = self._sets["train"][self._sample(count or 25)]
        angles = self._angles(len(images), torch.Generator().manual_seed(self._seed))
        return image_grid(rotated(images, angles).float() / 255, [self.title(angle) for angle in angles])

    def label_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the angles, `(1,)` each."""
        return torch.zeros(1), torch.full((1,), self.max_angle / math.sqrt(3))

    def title(self, label: Tensor) -> str:
        """What stands above an image in figures: its angle.

        Args:
            label: float32, `(1,)`.
        """
        return f"{round(float(label))}°"

    def _angles(self, count: int, generator: torch.Generator) -> Tensor:
        """Random angles `(count, 1)`."""
        return (2 * torch.rand(count, 1, generator=generator, device=generator.device) - 1) * self.max_angle


def rotated(images: Tensor, angles: Tensor) -> Tensor:
    """Images reduced to `SCALE` and rotated about their middle.

    Args:
        images: uint8, `(n, 1, side, side)`.
        angles: Degrees counterclockwise, `(n, 1)`.
    """
    turn = angles[:, 0].deg2rad()
    cos, sin, zero = turn.cos() / SCALE, turn.sin() / SCALE, torch.zeros_like(turn)
    # from a place of the result to one of the image; the vertical axis points down
    back = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(back, [*images.shape], align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False).round().to(torch.uint8)
