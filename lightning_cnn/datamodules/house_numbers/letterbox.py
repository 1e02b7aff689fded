"""How a photo becomes a square: as a whole, with bars on two sides; and where its boxes come to lie."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Pixels = NDArray[np.float32]


def pad(image: Image.Image, side: int, method: Image.Resampling) -> Image.Image:
    """A photo in the middle of a black square, as Pillow's `ImageOps.pad`, but at least one pixel wide and high.

    Args:
        image: The photo, of any aspect ratio.
        side: Side of the square in pixels.
        method: How the photo is resized.
    """
    inner, offset = (part.astype(int)[0].tolist() for part in _place(image.size, side))
    square = Image.new(image.mode, (side, side))
    square.paste(image.resize(inner, method), tuple(offset))
    return square


def letterbox(boxes: ArrayLike, sizes: ArrayLike, side: int) -> Pixels:
    """Boxes in the square that a photo is fitted into by `pad`.

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
    inner, offset = _place(sizes, side)
    return np.tile(inner / np.asarray(sizes).reshape(-1, 2), 2), np.tile(offset, 2)


def _place(sizes: ArrayLike, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Size of each photo in the square, and its left upper corner there, each `(n, 2)` in whole pixels."""
    sizes = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    inner = np.maximum(np.rint(sizes / sizes.max(1, keepdims=True) * side), 1)
    return inner, np.rint((side - inner) / 2)
