"""Geometric augmentation of images together with their masks."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.datamodules.images.augmentation import Augmentation
from lightning_cnn.options import IGNORE

DEVIATIONS = 3


def surroundings(augmentation: Augmentation, side: int) -> int:
    """Pixels around a crop that augmentation may bring in; of elastic deformations up to three standard deviations.

    Args:
        augmentation: The random changes.
        side: Side of the crop.
    """
    angle = math.radians(min(augmentation.rotation, 45))
    reach = (math.cos(angle) + math.sin(angle)) / (1 - augmentation.zoom) + 2 * augmentation.shift
    return math.ceil((reach - 1) * side / 2 + DEVIATIONS * augmentation.elastic)


def warp_both(
    augmentation: Augmentation, images: Tensor, masks: Tensor, side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Shifts, flips, rotates, zooms and deforms images and masks alike, about the middle.

    Args:
        augmentation: The random changes.
        images: Float, `(n, channels, height, width)`; interpolated bilinearly.
        masks: uint8, `(n, height, width)`; takes the nearest pixel, `IGNORE` where that lies outside.
        side: Side of the square in the middle that results.
        generator: On the images' device; the source of all draws.

    Returns:
        Images `(n, channels, side, side)`, and uint8 masks `(n, side, side)`.
    """
    n, (height, width) = len(images), images.shape[-2:]
    matrices = augmentation.matrices(n, generator, images.device)
    if not augmentation.resamples:
        top, left = (height - side) // 2, (width - side) // 2
        images, masks = (part[..., top : top + side, left : left + side] for part in (images, masks))
        mirrored = matrices[:, 0, 0] < 0
        return (
            torch.where(mirrored[:, None, None, None], images.flip(-1), images),
            torch.where(mirrored[:, None, None], masks.flip(-1), masks),
        )
    # the unit of the matrices is half the side of the result, that of the grid half the side of what is there
    grid = F.affine_grid(matrices, [n, 1, side, side], align_corners=False)
    bends = augmentation.bends(n, (side, side), generator)
    grid = (grid * side + (0.0 if bends is None else 2 * bends)) / grid.new_tensor([width, height])
    warped = F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
    # outside grid_sample sees zeros
    shifted = F.grid_sample(masks[:, None].float() - IGNORE, grid, mode="nearest", align_corners=False)
    return warped, (shifted[:, 0] + IGNORE).round().to(torch.uint8)
