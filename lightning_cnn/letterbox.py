"""How a photo becomes a square: as a whole, with bars on two sides; and where its boxes come to lie."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Pixels = NDArray[np.float32]


def letterbox(boxes: ArrayLike, sizes: ArrayLike, side: int) -> Pixels:
    """Boxes in the square that a photo is fitted into, as Pillow's `ImageOps.pad` does it.

    Args:
        boxes: `(n, 4)`: left, top, right, bottom in pixels of the photos.
        sizes: Width and height of the photo of each box, `(n, 2)`.
        side: Side of the square in pixels.

    Returns:
        `(n, 4)` in pixels of the square.
    """
    scale, offset = _fit(sizes, side)
    return (np.asarray(boxes, dtype=np.float64) * scale + offset).astype(np.float32)


def unletterbox(boxes: ArrayLike, sizes: ArrayLike, side: int) -> Pixels:
    """The reverse of `letterbox`: boxes in pixels of the photos, clipped to them.

    Args:
        boxes: `(n, 4)`: left, top, right, bottom in pixels of the square.
        sizes: Width and height of the photo of each box, `(n, 2)`.
        side: Side of the square in pixels.
    """
    scale, offset = _fit(sizes, side)
    found = (np.asarray(boxes, dtype=np.float64) - offset) / scale
    return np.clip(found, 0, np.tile(np.asarray(sizes), 2)).astype(np.float32)


def _fit(sizes: ArrayLike, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By what boxes are multiplied, and what is then added, each `(n, 4)`."""
    sizes = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    inner = np.rint(sizes / sizes.max(1, keepdims=True) * side)  # the photo in the square, in whole pixels
    return np.tile(inner / sizes, 2), np.tile(np.rint((side - inner) / 2), 2)
