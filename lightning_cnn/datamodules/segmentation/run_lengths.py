"""Images whose masks are run lengths in a CSV file, as in the Airbus Ship Detection Challenge."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_cnn.datamodules.segmentation.pairs import Pairs, image_sizes
from lightning_cnn.datamodules.segmentation.segmentation_folder import SegmentationFolder
from lightning_cnn.errors import UserError, check
from lightning_cnn.options import BACKGROUND
from lightning_cnn.plain_text import escaped
from lightning_cnn.regular_files import read_regular

IMAGE, PIXELS = "ImageId", "EncodedPixels"
LARGEST = 2**40  # number of a pixel


@dataclass(frozen=True)
class RunLengths:
    """The mask of an image.

    Attributes:
        runs: int64 `(k, 2)`: first pixel, from 1 on, and length; down the columns, the leftmost first.
        size: Height and width of the image.
    """

    runs: NDArray[np.int64]
    size: tuple[int, int]


class RunLengthMasks(SegmentationFolder):
    """Images whose objects are run lengths in a CSV file, in the format of the Airbus Ship Detection Challenge.

    The table has the columns `ImageId`, the name of a file in `<root>/<images>/`, and `EncodedPixels`, pairs of a first
    pixel and a length. Pixels are counted from 1, down the columns, the leftmost column first. An image has a row for
    each object; its mask is all of them together. Where `EncodedPixels` is empty, there is none. Images
    that are not in the table are not used. Neither the test images of the challenge nor their sample
    submission have labels: the test part is the last share of the table, sorted by the names of its images.

    Source: the Airbus Ship Detection Challenge (2018), https://www.kaggle.com/c/airbus-ship-detection.

    Args:
        root: Folder that contains the table and the images; default `$LIGHTNING_CNN_DATA` or `data/`.
        table: The CSV file, as a path inside `root`.
        images: Folder of the images, as a path inside `root` or an absolute one.
        classes: Names of the two classes, that of all other pixels first.
        test_fraction: Share of the images held out for the test.
        skip_empty: Whether training and validation skip images without an object. The test has all.

    Raises:
        UserError: If the table can't be used, or an image is missing or can't be decoded.
    """

    fixed: ClassVar[tuple[str, ...]] = ("binary", "colors", "ignore_index", "mask_suffix")

    def __init__(
        self,
        root: str | None = None,
        *,
        table: str = "train_ship_segmentations_v2.csv",
        images: str = "train_v2",
        classes: list[str] | None = None,
        test_fraction: float = 0.1,
        skip_empty: bool = False,
        **options: Any,
    ) -> None:
        classes = [BACKGROUND, "ship"] if classes is None else classes
        super().__init__(root, classes=classes, binary=True, colors=None, ignore_index=None, mask_suffix="", **options)
        check("data.test_fraction", test_fraction, above=0, below=1)
        self.table = table
        self.images = images
        self.test_fraction = test_fraction
        self.skip_empty = skip_empty
        self.stages = ("train", "test")
        self.reader = decode_runs

    @property
    def usual_objects(self) -> Sequence[str]:  # type: ignore[override]
        """The class of the objects: each has a row of its own."""
        return self.class_names[1:]

    def _check_layout(self, folder: Path) -> None:
        """The table is read later: it is long."""

    def find(self, part: str) -> Pairs:
        """The images of a part, and the runs of each.

        Args:
            part: `train` or `test`.
        """
        path, folder = self.root / self.table, self.root / self.images
        found = read_table(path)
        names = sorted(found)
        count = min(max(1, round(len(names) * self.test_fraction)), len(names) - 1)
        chosen = names[-count:] if part == "test" else names[:-count]
        if part == "train" and self.skip_empty:
            chosen = [name for name in chosen if len(found[name])]
        if not chosen:
            raise UserError(f"{path} has no images for {part}: add some, or set `data.skip_empty` false")
        for name in chosen:
            if not (folder / name).is_file():
                raise UserError(f"{path}: there is no image {escaped(name)!r} in {folder}; name it with `data.images`")
        paths = [str(folder / name) for name in chosen]
        sizes = image_sizes(paths)
        masks = [RunLengths(found[name], tuple(size)) for name, size in zip(chosen, sizes.tolist(), strict=True)]
        for name, mask in zip(chosen, masks, strict=True):
            height, width = mask.size
            if len(mask.runs) and (mask.runs.sum(1) - 1).max() > height * width:
                raise UserError(f"{path}: {escaped(name)} has a run beyond the {width}x{height} pixels of the image")
        return Pairs(paths, masks, sizes)


def read_table(path: Path) -> dict[str, NDArray[np.int64]]:
    """The runs of all objects of each image of a table.

    Args:
        path: The CSV file.

    Returns:
        Of each image int64 `(k, 2)`: first pixels, from 1 on, and lengths.

    Raises:
        UserError: If it can't be read, or a row is none of the format.
    """
    try:
        first, *lines = csv.reader(read_regular(path).splitlines())
        image, pixels = first.index(IMAGE), first.index(PIXELS)
    except (OSError, ValueError, csv.Error):  # none, no text, no line, or no such column
        raise UserError(
            f"{path} can't be read as a CSV with the columns {IMAGE} and {PIXELS}: name the table with `data.table`"
        ) from None
    found: dict[str, list[NDArray[np.int64]]] = {}
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        file = PurePosixPath(line[image] if len(line) == len(first) else "")
        if not file.name or file.is_absolute() or ".." in file.parts:
            raise UserError(f"{path}, line {number}: expected the name of an image and its runs")
        found.setdefault(str(file), []).append(_runs(line[pixels], f"{path}, line {number}"))
    if len(found) < 2:
        raise UserError(f"{path} has {len(found)} images: training and test need two or more")
    return {name: np.concatenate(runs) for name, runs in found.items()}


def _runs(text: str, where: str) -> NDArray[np.int64]:
    try:
        numbers = np.array([int(word) for word in text.split()], dtype=np.int64).reshape(-1, 2)
    except (ValueError, OverflowError):
        numbers = np.zeros((1, 2), dtype=np.int64)
    if (numbers < 1).any() or (numbers > LARGEST).any():
        raise UserError(f"{where}: {escaped(text[:40])!r}; expected pairs of a first pixel, from 1 on, and a length")
    return numbers


def decode_runs(mask: RunLengths) -> Tensor:
    """The mask of an image, uint8 `(height, width)`, 1 within its runs.

    Args:
        mask: The runs, all within the image.
    """
    height, width = mask.size
    changes = np.zeros(height * width + 1, dtype=np.int32)
    np.add.at(changes, mask.runs[:, 0] - 1, 1)
    np.add.at(changes, mask.runs.sum(1) - 1, -1)
    inside = changes[:-1].cumsum() > 0
    return torch.from_numpy(inside.reshape(width, height).T.astype(np.uint8))
