"""A user's own images with masks."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import psutil
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset

from lightning_cnn.datamodules.batches import Batch, OnDisk
from lightning_cnn.datamodules.images.decoding import cores, decode
from lightning_cnn.datamodules.images.folders import data_root, find_parts, part_named
from lightning_cnn.datamodules.images.photo import check_color
from lightning_cnn.datamodules.segmentation.base import MaskDataModule
from lightning_cnn.datamodules.segmentation.mask_files import MaskReader, color_table
from lightning_cnn.datamodules.segmentation.pairs import Pairs, Read, find_pairs
from lightning_cnn.datamodules.segmentation.windows import MaskedImages, Ragged
from lightning_cnn.errors import UserError, check
from lightning_cnn.options import BACKGROUND, IGNORE
from lightning_cnn.plain_text import check_text
from lightning_cnn.regular_files import read_regular

NAMES = "classes.txt"
IGNORED = "ignore"  # in a table of colors
LOOKED_AT = 100  # masks in which classes are looked for


class SegmentationFolder(MaskDataModule):
    """Your own images in `<root>/train/images/` with masks in `<root>/train/masks/`, optionally also `val/`, `test/`.

    An image and its mask have the same name, such as `images/7.jpg` and `masks/7.png`, and the same size. Images may
    differ in size. Masks are lossless files (PNG, TIFF, BMP, GIF, lossless WebP) that hold class indices, as gray or
    palette pixels; or with `binary` 0 and 255; or with `colors` RGB. The names of the classes are in `classes`, in
    `<root>/classes.txt` (one in a line), or in `colors`. A class 0 called `background` is not colored in figures.

    Without `val/`, a part of `train/` is held out. All images are decoded once and kept in memory as uint8; if they
    need more than `max_memory`, they are decoded batch by batch.

    Args:
        root: Folder that contains `train/`; default `$LIGHTNING_CNN_DATA` or `data/`.
        classes: Names of the classes, in the order of their indices.
        binary: Whether masks are black and white: 0 is class 0, and 255 (or 1) class 1. The default names are then
            `background` and `foreground`.
        colors: Red, green and blue of each class in the masks, such as `{"road": [128, 64, 128], "car": [64, 0, 128]}`;
            an entry `ignore` names the color of pixels that don't count.
        ignore_index: Pixel value of class indices that doesn't count.
        mask_suffix: What the names of masks have before their ending, such as `_mask` for `masks/7_mask.png`.
        color: `rgb` or `grey`.
        background: Color behind transparent pixels of the images, such as `white` or `#808080`.
        val_fraction: Share of `train/` held out for validation if there is no `val/`.
        max_memory: Maximum memory for the decoded images in GiB; default half of the free memory.
        num_workers: Processes that decode images; default one per core, at most 8.

    Raises:
        UserError: If folders, images, masks or the names of the classes are missing, or a file can't be used.
    """

    fixed: ClassVar[tuple[str, ...]] = ("download",)

    def __init__(
        self,
        root: str | None = None,
        *,
        classes: list[str] | None = None,
        binary: bool = False,
        colors: dict[str, list[int]] | None = None,
        ignore_index: int | None = 255,
        mask_suffix: str = "",
        color: Literal["rgb", "grey"] = "rgb",
        background: str = "white",
        max_memory: float | None = None,
        num_workers: int | None = None,
        **options: Any,
    ) -> None:
        if binary and colors is not None:
            raise UserError("`data.binary` and `data.colors`: set one of the two")
        self.in_channels = 3 if color == "rgb" else 1
        folder = data_root(root)
        self._folders: dict[str, Path] = {}  # by part
        self.class_names = tuple(self.find_classes(folder, classes, binary, colors))
        self.num_classes = len(self.class_names)
        if not 2 <= self.num_classes <= IGNORE:
            raise UserError(f"`data.classes` has {self.num_classes} classes: expected 2 to {IGNORE}")
        if len(set(self.class_names)) < self.num_classes:
            raise UserError(f"`data.classes` {', '.join(self.class_names)}: each name must be there once")
        super().__init__(root, download=False, **options)
        check_color("data.background", background)
        self.preprocessing = replace(self.preprocessing, background=background)
        if ignore_index is not None:
            check("data.ignore_index", ignore_index, least=0)
        table = None if colors is None else color_table(self.class_names, colors)
        self.reader: Read = MaskReader(self.num_classes, ignore_index, binary, table)
        self.mask_suffix = mask_suffix
        self.max_memory = max_memory
        self.num_workers = min(cores(), 8) if num_workers is None else num_workers
        self.stages = self.find_stages(folder)

    def find_classes(
        self, folder: Path, classes: list[str] | None, binary: bool, colors: dict[str, list[int]] | None
    ) -> Sequence[str]:
        """The names of the classes: the given ones, those of the table of colors, or those of a file.

        Raises:
            UserError: If there are none.
        """
        self._folders = find_parts(folder)
        self._check_layout(folder)
        table, path = [name for name in colors or () if name != IGNORED], folder / NAMES
        if classes is not None and table and set(classes) != set(table):
            raise UserError("`data.classes` and `data.colors` must name the same classes: leave out `data.classes`")
        if classes is None and not table and path.is_file():
            try:
                classes = [line.strip() for line in read_regular(path).splitlines() if line.strip()]
            except (OSError, ValueError):
                raise UserError(f"{path} can't be read as text: write one class in a line") from None
        names = classes or table or ([BACKGROUND, "foreground"] if binary else [])
        if not names:
            raise UserError(
                f"which classes do the masks have? Name them in `data.classes` or {path}; for black and white masks "
                "set `data.binary` true, for colored ones `data.colors`"
            )
        if binary and len(names) != 2:
            raise UserError(f"`data.binary` true requires two classes, but there are {len(names)}")
        for name in names:
            check_text("`data.classes`", name)
        return names

    def _check_layout(self, folder: Path) -> None:
        if "train" in self._folders:
            return
        if part_named(folder.name) and "train" in find_parts(folder.parent):
            raise UserError(f"`data.root` {folder} is one part of the data: set it to {folder.parent}")
        if (folder / "images").is_dir() and (folder / "masks").is_dir():
            raise UserError(
                f"{folder} has images/ and masks/, but no train/: move both folders into {folder / 'train'}"
            )
        raise UserError(
            f"there is no folder {folder / 'train'}: {type(self).__name__} expects <root>/train/images/<image> and "
            "<root>/train/masks/<mask>; set `data.root` to <root>"
        )

    def find_stages(self, folder: Path) -> tuple[str, ...]:
        """The parts that there are."""
        return tuple(self._folders)

    def find(self, part: str) -> Pairs:
        """The images and masks of a part.

        Args:
            part: `train`, `val` or `test`.
        """
        if part not in self._folders:
            raise UserError(
                f"there is no folder {self.root / part}: put the images there, as {part}/images and {part}/masks"
            )
        folder = self._folders[part]
        return find_pairs(folder / "images", folder / "masks", self.mask_suffix)

    def open_parts(self, parts: Sequence[str]) -> dict[str, Dataset[Batch]]:
        """The data sets of some parts: in memory where they fit, on disk otherwise; says which."""
        wanted = {"train" if part == "val" and "val" not in self.stages else part for part in parts}
        found = {part: self.find(part) for part in sorted(wanted)}
        count = sum(len(pairs.images) for pairs in found.values())
        pixels = sum(int(pairs.sizes.prod(1).sum()) for pairs in found.values())
        need = pixels * (self.in_channels + 1) / 2**30
        limit = psutil.virtual_memory().available / 2**31 if self.max_memory is None else self.max_memory
        says = f"{type(self).__name__}: {count:,} images with masks need {need:.2f} GiB of memory"
        on_disk = need > limit
        end = ": they stay on disk and are decoded batch by batch (`data.max_memory`)" if on_disk else ""
        rank_zero_info(f"{says}, the limit is {limit:.2f} GiB{end}")
        channels = torch.full((1,), self.in_channels)
        opened: dict[str, Dataset[Batch]] = {}
        for part, pairs in found.items():
            stored = [OnDisk(pairs.images, self.preprocessing.read), OnDisk(pairs.masks, self.reader)]
            shapes = [torch.cat([channels.expand(len(pairs.sizes), 1), pairs.sizes], 1), pairs.sizes]
            images, masks = stored if on_disk else map(self._in_memory, stored, shapes)
            # an absolute folder of images may lie elsewhere
            names = [Path(os.path.relpath(path, self.root)).as_posix() for path in pairs.images]
            opened[part] = MaskedImages(images, masks, pairs.sizes, names)
        if "train" in opened:
            self._check_masks(opened["train"])
            if "val" not in self.stages:
                opened |= self.split(opened["train"])
        return opened

    def workers_for(self, dataset: Any) -> int:
        """Processes that read ahead: only for images that stay on disk."""
        return self.num_workers if isinstance(dataset.images, OnDisk) else 0

    def _in_memory(self, stored: OnDisk, shapes: Tensor) -> Ragged:
        images = Ragged.empty(shapes)
        size = max(1, images.values.numel() // len(shapes))
        for positions, pixels, faults in decode(stored.photos, Flat(stored.read), size, self.num_workers, torch.cat):
            if faults:
                raise UserError(faults[0])
            first, last = int(positions[0]), int(positions[-1])
            images.values[int(images.starts[first]) : int(images.starts[last + 1])] = pixels
        return images

    def _check_masks(self, train: Any) -> None:
        """Refuses black and white masks that are read as class 0 and ignored pixels."""
        found: set[int] = set()
        for position in torch.linspace(0, len(train) - 1, min(len(train), LOOKED_AT)).round().tolist():
            found.update(train.whole(int(position))[1].unique().tolist())
            if found - {0, IGNORE}:
                return
        where = self._folders.get("train", self.root)
        if found == {0, IGNORE}:
            raise UserError(
                f"the masks in {where} have class 0 and ignored pixels only: for black and white masks "
                "set `data.binary` true"
            )
        if found == {IGNORE}:
            raise UserError(f"the masks in {where} have ignored pixels only: set `data.ignore_index`")


class Flat:
    """Reads an image as one row of pixels, so that images of different sizes can be joined.

    Args:
        read: Reads an image.
    """

    def __init__(self, read: Read) -> None:
        self.read = read

    def __call__(self, path: Any) -> Tensor:
        """The pixels of an image, uint8."""
        return self.read(path).flatten()
