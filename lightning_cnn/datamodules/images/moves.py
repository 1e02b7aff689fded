"""Batches of images that are moved: by matrices, by whole pixels, or mirrored."""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Fill = Literal["reflect", "zero", "nearest"]


def warped(
    images: Tensor,
    matrices: Tensor,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding_mode: Literal["border", "zeros"] = "border",
    bends: Tensor | None = None,
) -> Tensor:
    """Images seen through matrices.

    Args:
        images: Float, `(n, channels, height, width)`.
        matrices: `(n, 2, 3)`: leads from a place of the result to the place of the image that is seen there. The unit
            is half a side, the origin the middle, as in `affine_grid`.
        mode: How values between pixels are found.
        padding_mode: What comes in from outside of the image.
        bends: What `elastic_bends` returned; None for none.

    Returns:
        Images of the same shape.
    """
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    if bends is not None:
        grid = grid + bends * (2 / grid.new_tensor([*images.shape[:-3:-1]]))
    return F.grid_sample(images, grid.to(images.dtype), mode, padding_mode, align_corners=False)


def elastic_bends(n: int, deviation: float, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Smooth random displacements: those of a grid of 3x3 points, interpolated bicubically.

    Args:
        n: Number of images.
        deviation: Standard deviation of the displacements of the nine points, in pixels.
        size: Height and width of the images.
        generator: The source of the draws; its device is that of the result.

    Returns:
        Pixels to the right and down, `(n, height, width, 2)`.
    """
    points = torch.randn(n, 2, 3, 3, device=generator.device, generator=generator) * deviation
    return F.interpolate(points, size, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def mirrored(images: Tensor, chosen: Tensor) -> Tensor:
    """Images of which those `chosen`, bool `(n,)`, are mirrored left to right."""
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def shifted(images: Tensor, shifts: Tensor, fill: Fill) -> Tensor:
    """Images that are moved by whole pixels.

    Args:
        images: `(n, channels, height, width)` of any type.
        shifts: int64 `(2, n)`: a pixel of the result shows the pixel of the image so far below and to the right.
        fill: What comes in from outside of the image.

    Returns:
        Images of the same shape and type.
    """

    def places(size: int, by: Tensor) -> tuple[Tensor, Tensor]:
        place = torch.arange(size, device=images.device) + by[:, None]
        if fill == "reflect":
            return size - 1 - (size - 1 - place.abs()).abs(), place
        return place.clamp(0, size - 1), place

    rows, row = places(images.shape[-2], shifts[0])
    columns, column = places(images.shape[-1], shifts[1])
    moved = parts_of(images, rows, columns)
    if fill != "zero":
        return moved
    outside = (row != rows)[:, :, None] | (column != columns)[:, None, :]
    return moved.masked_fill(outside[:, None], 0)


def parts_of(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Some rows `(n, h)` and columns `(n, w)` of each of `n` images, `(n, channels, h, w)`."""
    n, channels, _, width = images.shape
    source = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, source).view(n, channels, rows.shape[1], columns.shape[1])


def flip_alternately(images: Tensor, epoch: int, seed: int) -> Tensor:
    """Mirrors one half of the images in even epochs and the other half in odd ones.

    The halves follow from the pixels: the first bit of a sum of all of them, each with a random factor (multilinear
    hashing, modulo 2^32). So nothing has to be remembered of an image, and each has its side also in a resumed run.

    Args:
        images: uint8, `(n, channels, height, width)`, unchanged since they were loaded.
        epoch: Number of the epoch.
        seed: Chooses the halves.

    Returns:
        Images of the same shape.
    """
    return mirrored(images, is_mirrored(images, epoch, seed))


def is_mirrored(images: Tensor, epoch: int, seed: int) -> Tensor:
    """Which of the images `flip_alternately` mirrors: bool, `(n,)`."""
    pixels = images.flatten(1)
    first_half = (pixels * _factors(pixels.shape[1], seed, images.device)).sum(1, dtype=torch.int32) < 0
    return first_half if epoch % 2 == 0 else ~first_half


@lru_cache(maxsize=8)
def _factors(count: int, seed: int, device: torch.device) -> Tensor:
    """Random int32 numbers `(count,)`; sampled on the CPU, so that they are the same on each kind of device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**31), 2**31, (count,), dtype=torch.int32, generator=generator).to(device)
