"""Random changes to whole batches of images on the device, drawn anew for each image."""

import math
from dataclasses import dataclass, fields
from typing import Self, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.errors import UserError, did_you_mean


class AugmentOptions(TypedDict, total=False):
    """Random changes to each training image; all are off unless given.

    Args:
        shift: Largest shift in both directions, as a fraction of the side.
        flip: Whether half of the images are mirrored left to right.
        rotation: Largest rotation to either side, in degrees.
        zoom: Largest change of scale: 0.1 means 0.9 to 1.1.
        cutout: Side of a square set to the mean colour, as a fraction of the image's side
            (DeVries and Taylor 2017).
    """

    shift: float
    flip: bool
    rotation: float
    zoom: float
    cutout: float


@dataclass(frozen=True)
class Augmentation:
    """Shift, flip, rotation, zoom and cutout of a batch, each image with its own draw.

    Pixels that come from outside the image repeat its border ("nearest" in Keras). The fields mean what
    `AugmentOptions` says.

    Raises:
        UserError: If a value lies outside its range.
    """

    shift: float = 0.0
    flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name, top in (("shift", 1.0), ("zoom", 0.99), ("cutout", 1.0), ("rotation", 180.0)):
            value = getattr(self, name)
            if not 0 <= value <= top:
                raise UserError(f"--data.augment.{name} {value}: it must lie between 0 and {top:g}")

    @classmethod
    def from_options(cls, options: AugmentOptions | None) -> Self:
        """The augmentation that a configuration asks for.

        Raises:
            UserError: If a name is unknown or a value lies outside its range.
        """
        known = [field.name for field in fields(cls)]
        for name in options or {}:
            if name not in known:
                hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
                raise UserError(f"unknown option --data.augment.{name}{hint}")
        return cls(**(options or {}))

    def warp(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Shifts, flips, rotates and zooms.

        Args:
            images: Float, `(n, channels, height, width)`.
            generator: On the images' device; the source of all draws.

        Returns:
            Images of the same shape.
        """
        n, device = len(images), images.device

        def draw(limit: float) -> Tensor:
            return (torch.rand(n, device=device, generator=generator) * 2 - 1) * limit

        sign = torch.ones(n, device=device)
        if self.flip:
            sign = torch.where(torch.rand(n, device=device, generator=generator) < 0.5, -sign, sign)
        if not (self.shift or self.rotation or self.zoom):
            return torch.where((sign < 0)[:, None, None, None], images.flip(-1), images) if self.flip else images
        angle, scale = draw(math.radians(self.rotation)), 1 / (1 + draw(self.zoom))
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        # affine_grid's unit is half a side: a shift by the whole side is 2
        matrix = torch.stack(
            [cos * sign, -sin, 2 * draw(self.shift), sin * sign, cos, 2 * draw(self.shift)], dim=1
        ).view(n, 2, 3)
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)

    def cut(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Sets one square of each image to zero, the mean of standardised images.

        The square's centre is uniform over the image, so that a part of it may lie outside.

        Args:
            images: Float, `(n, channels, height, width)`.
            generator: On the images' device.

        Returns:
            Images of the same shape.
        """
        if not self.cutout:
            return images
        n, _, height, width = images.shape

        def inside(size: int) -> Tensor:
            centre = torch.rand(n, 1, device=images.device, generator=generator) * size
            return (torch.arange(size, device=images.device) + 0.5 - centre).abs() < self.cutout * size / 2

        square = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
        return images.masked_fill(square, 0)
