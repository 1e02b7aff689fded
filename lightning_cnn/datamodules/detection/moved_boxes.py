"""Boxes that move with the images of a batch."""

import torch
from torch import Tensor

from lightning_cnn.datamodules.detection.annotations import CROWD, UNUSED
from lightning_cnn.datamodules.images.augmentation import Augmentation
from lightning_cnn.datamodules.images.moves import is_mirrored, mirrored, shifted, warped

ROUNDING = 1e-4  # a whole box keeps its share of 1


def move_with_boxes(
    augmentation: Augmentation,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
    seed: int,
    min_visible: float,
) -> tuple[Tensor, Tensor]:
    """Shifts, flips, rotates, zooms and crops images, with their boxes.

    The draws are those of `Augmentation.change`. What comes in from outside is black: a repeated or reflected border
    would show parts of objects that have no box.

    Args:
        augmentation: What changes.
        images: uint8, `(n, channels, side, side)`.
        labels: float32, `(n, max_boxes, 5)`.
        generator: On the images' device; the source of all draws but that of the alternating flip.
        epoch: The number of the epoch, for the alternating flip.
        seed: Seed of the run, for the alternating flip.
        min_visible: Share of a box's area that must stay in the image; see `clip_boxes`.

    Returns:
        Float images of the same shape, 0 to 1; labels of the same shape.
    """
    side = images.shape[-1]
    boxes = labels[..., 1:]
    if augmentation.alternating_flip:
        chosen = is_mirrored(images, epoch, seed)
        images, boxes = mirrored(images, chosen), mirror_boxes(boxes, chosen, side)
    pixels = images.float() / 255
    matrices = augmentation.matrices(len(images), generator, images.device)
    if augmentation.resamples:
        pixels, boxes = warped(pixels, matrices, padding_mode="zeros"), warp_boxes(boxes, matrices, side)
    elif augmentation.flip:
        chosen = matrices[:, 0, 0] < 0
        pixels, boxes = mirrored(pixels, chosen), mirror_boxes(boxes, chosen, side)
    visible = boxes.clamp(0, side)
    if augmentation.crop:
        shifts = augmentation.shifts(len(images), generator, images.device)
        pixels = shifted(pixels, shifts, "zero")
        visible = (visible - shifts.flip(0).T.repeat(1, 2)[:, None]).clamp(0, side)
    return pixels, clip_boxes(labels[..., 0], boxes, visible, min_visible)


def mirror_boxes(boxes: Tensor, chosen: Tensor, side: int) -> Tensor:
    """Boxes `(n, m, 4)`, mirrored left to right in the images that are `chosen`, bool `(n,)`."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.where(chosen[:, None, None], torch.stack([side - right, top, side - left, bottom], -1), boxes)


def warp_boxes(boxes: Tensor, matrices: Tensor, side: int) -> Tensor:
    """The upright hulls of boxes in images that are seen through matrices.

    Args:
        boxes: `(n, m, 4)` in pixels.
        matrices: `(n, 2, 3)` as `Augmentation.matrices` draws them.
        side: Side of the images in pixels.

    Returns:
        `(n, m, 4)`; they may reach beyond the image.
    """
    half = side / 2
    corners = (
        torch.stack([boxes[..., [0, 1]], boxes[..., [2, 1]], boxes[..., [0, 3]], boxes[..., [2, 3]]], 2) / half - 1
    )
    (a, b), (c, d) = (row.unbind(1) for row in matrices[:, :, :2].unbind(1))
    back = torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / (a * d - b * c)[:, None, None]
    turned = (corners - matrices[:, None, None, :, 2]) @ back[:, None].mT
    hulls = torch.cat([turned.amin(2), turned.amax(2)], -1)
    return (hulls + 1) * half


def clip_boxes(classes: Tensor, boxes: Tensor, visible: Tensor, min_visible: float) -> Tensor:
    """Labels of boxes of which only a part is in the image.

    An object of which less than `min_visible` is left, or less than a pixel in width or height, becomes a crowd region
    of its class: it counts neither as an object nor as background. Nothing is left of what lies outside.

    Args:
        classes: `(n, m)`.
        boxes: `(n, m, 4)`: the whole boxes.
        visible: `(n, m, 4)`: their parts in the image.
        min_visible: Share of a box's area.

    Returns:
        `(n, m, 5)`.
    """
    sides, whole = visible[..., 2:] - visible[..., :2], boxes[..., 2:] - boxes[..., :2]
    is_enough = (sides.prod(-1) >= (min_visible - ROUNDING) * whole.prod(-1)) & (sides >= 1).all(-1)
    is_object, is_inside = classes >= 0, (sides > 0).all(-1)
    classes = torch.where(is_object & ~is_enough, CROWD - classes, classes)
    labels = torch.cat([classes[..., None], visible], -1)
    return torch.where((is_inside & (classes != UNUSED))[..., None], labels, UNUSED)
