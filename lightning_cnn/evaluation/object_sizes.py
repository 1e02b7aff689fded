"""How many objects are found, by their size: of masks and of boxes."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_cnn.options import IGNORE

EDGES = (8.0, 16.0, 32.0, 64.0)  # sizes in pixels between two rows of the table
OVERLAP = 0.5
Boxes = NDArray[np.float64]


class Matches(NamedTuple):
    """Which objects were found.

    Attributes:
        sizes: Longer side of the box of each true object in pixels, `(m,)`.
        found: Whether each was found, bool `(m,)`.
        false: Number of objects that were predicted where there is none.
    """

    sizes: Boxes
    found: NDArray[np.bool_]
    false: int

    @classmethod
    def joined(cls, parts: Iterable["Matches"]) -> "Matches":
        """Those of many images."""
        sizes, found, false = zip(*parts, strict=True)
        return cls(np.concatenate(sizes), np.concatenate(found), sum(false))


class SizeRow(NamedTuple):
    """Objects of similar size.

    Attributes:
        low: Smallest size in pixels.
        high: Sizes are below this.
        objects: How many there are.
        found: How many of them were found.
    """

    low: float
    high: float
    objects: int
    found: int

    @property
    def recall(self) -> float:
        """Share of the objects that were found; NaN without objects."""
        return self.found / self.objects if self.objects else float("nan")


def recall_by_size(matches: Matches, edges: Sequence[float] = EDGES) -> list[SizeRow]:
    """Counts the objects that were found, by size.

    Args:
        matches: Of all images.
        edges: Sizes in pixels between two rows, ascending.

    Returns:
        A row from 0 to the first edge, one between each two, and one above the last; rows may be empty.
    """
    row = np.searchsorted(edges, matches.sizes, side="right")
    borders = (0.0, *map(float, edges), float("inf"))
    return [
        SizeRow(low, high, int((row == number).sum()), int(matches.found[row == number].sum()))
        for number, (low, high) in enumerate(pairwise(borders))
    ]


def match_masks(predicted: ArrayLike, true: ArrayLike, label: int = 1) -> Matches:
    """Compares the objects of two masks: the connected pixels of a class, also across corners.

    A true object is found if one predicted object overlaps it with an IoU above 0.5; this can't be more than one.
    Pixels with `IGNORE` count as neither. A predicted object of which more than half lies in ignored pixels counts as
    neither found nor false.

    Args:
        predicted: Classes, `(height, width)`.
        true: Classes of the same shape, and `IGNORE`.
        label: The class.
    """
    from scipy import ndimage  # scikit-learn brings it

    answer, truth = np.asarray(predicted), np.asarray(true)
    known = truth != IGNORE
    joined = np.ones((3, 3))
    answers, count = ndimage.label(answer == label, joined)
    objects, _ = ndimage.label(truth == label, joined)
    places = ndimage.find_objects(objects)
    areas = np.bincount(answers.ravel(), minlength=count + 1)
    seen = np.bincount(answers[known], minlength=count + 1)
    hits, found, sizes = set(), [], []
    for number, place in enumerate(places, start=1):
        inside = objects[place] == number
        shared = np.bincount(answers[place][inside], minlength=count + 1)[1:]
        union = int(inside.sum()) + seen[1:] - shared
        right = np.flatnonzero(shared > OVERLAP * union) + 1
        hits.update(right.tolist())
        found.append(len(right) > 0)
        sizes.append(max(side.stop - side.start for side in place))
    counted = {place for place in range(1, count + 1) if 2 * seen[place] >= areas[place]}
    return Matches(np.array(sizes, dtype=np.float64), np.array(found, dtype=np.bool_), len(counted - hits))


def match_boxes(found: ArrayLike, scores: ArrayLike, true: ArrayLike, crowds: ArrayLike = ()) -> Matches:
    """Compares boxes of one class in one image, the surest first, as in the average precision.

    Each detection takes the free true box with which its IoU is largest, at least 0.5. One without such a box is false,
    unless at least half of it lies in a crowd region.

    Args:
        found: Left, top, right, bottom of the detections, `(k, 4)`.
        scores: Their scores, `(k,)`; leave out those that are too low.
        true: The true boxes, `(m, 4)`.
        crowds: Crowd regions, `(c, 4)`.
    """
    answers, truth, regions = (np.asarray(part, dtype=np.float64).reshape(-1, 4) for part in (found, true, crowds))
    overlap = _shared(answers, truth)
    unions = _areas(answers)[:, None] + _areas(truth)[None] - overlap
    iou = overlap / np.maximum(unions, 1e-12)
    in_crowd = (_shared(answers, regions) >= OVERLAP * _areas(answers)[:, None]).any(1)
    free, false = np.ones(len(truth), dtype=np.bool_), 0
    for row in np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable"):
        chosen = np.where(free, iou[row], -1.0)
        if len(truth) and chosen.max() >= OVERLAP:
            free[chosen.argmax()] = False
        else:
            false += not in_crowd[row]
    return Matches((truth[:, 2:] - truth[:, :2]).max(1, initial=0), ~free, int(false))


def _areas(boxes: Boxes) -> Boxes:
    areas: Boxes = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return areas


def _shared(one: Boxes, other: Boxes) -> Any:
    """Area that each two boxes share, `(k, m)`."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    return np.maximum(high - low, 0).prod(2)
