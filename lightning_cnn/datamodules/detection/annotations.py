"""Where objects lie in images: their classes and boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

UNUSED = -1  # the class of rows of a label that hold no box
CROWD = -2  # a crowd region of class `c` has the class `CROWD - c`; the same formula leads back


@dataclass(frozen=True)
class BoxAnnotations:
    """The objects of many images, each with its class and its box, image by image.

    Attributes:
        names: File names of the `n` images.
        starts: int64 `(n + 1,)`: the objects of image `i` are the rows `starts[i]` to `starts[i + 1]`.
        classes: Integers `(m,)`: a class from 0 on; `-2 - c` for a crowd region of class `c`.
        boxes: float32 `(m, 4)`: left, top, right, bottom in pixels; right and bottom lie just outside.
        sizes: int64 `(n, 2)`: width and height of the images in pixels; 0 where they are not known.
    """

    names: list[str]
    starts: NDArray[np.int64]
    classes: NDArray[np.integer[Any]]
    boxes: NDArray[np.float32]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Objects in each image, `(n,)`."""
        return np.diff(self.starts)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The image of each object, `(m,)`."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def has_area(self) -> NDArray[np.bool_]:
        """Whether a box is finite and has a width and a height, `(m,)`."""
        is_finite, has_sides = np.isfinite(self.boxes).all(1), (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        return np.logical_and(is_finite, has_sides)

    @property
    def faulty(self) -> NDArray[np.bool_]:
        """Whether an image has a box of no width or height, `(n,)`."""
        return np.bincount(self.rows[~self.has_area], minlength=len(self)) > 0

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """Some of the images.

        Args:
            rows: Their positions.
        """
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        starts = np.concatenate([[0], lengths.cumsum()])
        inner = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths) + np.repeat(self.starts[rows], lengths)
        return replace(
            self,
            names=[self.names[row] for row in rows],
            starts=starts,
            classes=self.classes[inner],
            boxes=self.boxes[inner],
            sizes=self.sizes[rows],
        )

    def upright(self, facts: Sequence[tuple[int, int, int]]) -> Self:
        """The same, with sizes, and with boxes that are turned and mirrored as their photos.

        Args:
            facts: Of each photo its width and height as one looks at it, and its orientation, as `photo_facts` reads
                them; the boxes lie in the pixels as they are stored.
        """
        table = np.array(facts, dtype=np.int64).reshape(-1, 3)
        width, height, orientation = np.repeat(table, self.lengths, axis=0).T
        boxes = np.where(orientation[:, None] >= 5, self.boxes[:, [1, 0, 3, 2]], self.boxes)
        left, top, right, bottom = boxes.T
        mirrored, flipped = np.isin(orientation, (2, 3, 6, 7)), np.isin(orientation, (3, 4, 7, 8))
        left, right = np.where(mirrored, [width - right, width - left], [left, right])
        top, bottom = np.where(flipped, [height - bottom, height - top], [top, bottom])
        boxes = np.stack([left, top, right, bottom], axis=1).astype(np.float32)
        return replace(self, boxes=boxes, sizes=table[:, :2])
