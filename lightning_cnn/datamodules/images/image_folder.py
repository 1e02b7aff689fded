"""A user's own images: one folder a class, or a table of their classes."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset, Subset

from lightning_cnn.datamodules.batches import Batch, Images, Mapped, OnDisk
from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.datamodules.images.decoded_files import DecodedFile
from lightning_cnn.datamodules.images.decoding import cores, decode, takes_long
from lightning_cnn.datamodules.images.folders import PARTS, class_folders, data_root, find_parts, part_named, scan
from lightning_cnn.datamodules.images.photo import check_color
from lightning_cnn.datamodules.images.preprocessing import Resize
from lightning_cnn.datamodules.images.splitting import ValSplit
from lightning_cnn.datamodules.images.table import Row, Table, shared_groups
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import check_text, escaped
from lightning_cnn.regular_files import find_folders

LISTED = 12  # classes whose numbers of images are said one by one
LABEL = ("label", "class")
READERS = 2  # processes that read what is decoded already
SCALING = ("mean", "std", "per_image", "class_names")  # what does not change how an image is decoded


class ImageFolder(ImageDataModule):
    """Your own images in `<root>/train/<class>/*.jpg|png|...`, and optionally in `val/` and `test/`.

    `valid/` and `validation/` are `val/`, too. Without any of these folders the classes are the folders in `<root>`.
    With `labels` the classes are in a CSV file instead, and the images may lie anywhere in `<root>`.

    Without `val/`, a part of `train/` is held out. All images are decoded once, in parallel, and kept in memory as
    uint8; if they need more than `max_memory`, they are decoded batch by batch. 16-bit pixels (PNG, PGM, TIFF) are
    reduced to the high byte; floating-point pixels (TIFF) must be between 0 and 1; orientation tags are applied;
    transparent images are put on a background. Of animations the first frame is read.

    Args:
        root: Folder that contains `train/`; default `$LIGHTNING_CNN_DATA` or `data/`.
        labels: CSV file, as a path inside `root` or from the working directory, with a row per image: its `file`, a
            path inside `root`; its `label` or `class`; and optionally its `part` or `split`: `train` (the default),
            `val` or `test`. Other columns are ignored.
        groups: Column of that file: images of a group, such as a patient, are never divided between training and
            validation.
        image_size: Side in pixels to which images are resized.
        color: `rgb` or `grey`.
        resize: How to make images square: `stretch`, `crop` the middle, or `pad`.
        background: Color behind transparent pixels, such as `white` or `#808080`.
        val_fraction: Share of `train/` held out for validation if there is no `val/`.
        val_split: Which share is held out: `stratified`, the same share of each class where that is possible; `random`;
            or the `first` or `last` images.
        max_memory: Maximum memory for the decoded images in GiB; default half of the free memory.
        skip_corrupt: Whether to skip images that can't be decoded, with a warning, instead of raising an error.
        num_workers: Processes that decode images; default one per core, at most 8.
        cache: Whether to keep decoded images on disk, in `$XDG_CACHE_HOME/lightning_cnn/images`, where decoding takes
            more than a few seconds. Another start reads them from there, and images that need more than `max_memory`
            are read from there batch by batch. Together they take at most half of the free disk.

    Raises:
        UserError: If folders or images are missing, an image can't be decoded, or the table can't be used.
    """

    fixed: ClassVar[tuple[str, ...]] = ("download",)

    def __init__(
        self,
        root: str | None = None,
        *,
        labels: str | None = None,
        groups: str | None = None,
        image_size: int = 64,
        color: Literal["rgb", "grey"] = "rgb",
        resize: Resize = "stretch",
        background: str = "white",
        val_split: ValSplit = "stratified",
        max_memory: float | None = None,
        skip_corrupt: bool = False,
        num_workers: int | None = None,
        cache: bool = True,
        **options: Any,
    ) -> None:
        self.in_channels = 3 if color == "rgb" else 1
        self.native_size = image_size
        self.labels = labels
        self.groups = groups
        self._rows: dict[str, list[Row[Any]]] = {}  # of the table, by part
        self._folders: dict[str, Path] = {}  # by part, without a table
        folder = data_root(root)
        if groups is not None and labels is None:
            raise UserError(f"`data.groups` {groups} requires `data.labels`, the table that has this column")
        self.class_names = self.find_classes(folder)
        self.num_classes = len(self.class_names)
        super().__init__(root, image_size=image_size, val_split=val_split, download=False, **options)
        check_color("data.background", background)
        self.preprocessing = replace(self.preprocessing, resize=resize, background=background)
        self.max_memory = max_memory
        self.skip_corrupt = skip_corrupt
        self.num_workers = min(cores(), 8) if num_workers is None else num_workers
        self.cache = cache
        self.stages = self.find_stages(folder)

    def find_classes(self, folder: Path) -> tuple[str, ...]:
        """The names of the classes: those of the folders, or those in the table, which it reads."""
        if self.labels is not None:
            return self._classes_of_table(folder)
        self._folders = find_parts(folder)
        names = []
        if not self._folders:
            if names := class_folders(folder):
                self._folders = {"train": folder}
            if part_named(folder.name) and "train" in find_parts(folder.parent):
                raise UserError(f"`data.root` {folder} is one part of the data: set it to {folder.parent}")
        if "train" not in self._folders:
            raise UserError(
                f"there is no folder {folder / 'train'}: ImageFolder expects <root>/train/<class>/<image>; set "
                "`data.root` to <root>"
            )
        train = self._folders["train"]
        names = names or find_folders(train)
        check_text(f"the class folder in {train}", names)
        if not names:
            raise UserError(f"there are no class folders in {train}: expected one folder per class")
        if len(names) < 2:
            raise UserError(f"there is only one class folder in {train}, {names[0]!r}: a classifier needs two or more")
        return tuple(names)

    def find_stages(self, folder: Path) -> tuple[str, ...]:
        """The parts that there are."""
        return tuple(part for part in PARTS if part in self._folders or part in self._rows)

    def _read_table(self, folder: Path) -> Table:
        path = folder / str(self.labels)
        return Table.read(path if path.exists() else Path(str(self.labels)))

    def _take(self, rows: dict[str, list[Row[Any]]]) -> None:
        """Takes the rows of a table by part; warns of groups that lie in several parts."""
        self._rows = rows
        if "train" not in rows:
            raise UserError(f"{self.labels} has no images of the part 'train': add some")
        if self.groups is not None and (shared := shared_groups(rows.values())):
            rank_zero_warn(f"{len(shared):,} groups lie in several parts (first {escaped(shared[0])!r})")

    def _classes_of_table(self, folder: Path) -> tuple[str, ...]:
        table = self._read_table(folder)
        columns = [name for name in table.others(self.groups) if name in LABEL]
        if len(columns) != 1:
            raise UserError(f"{table.path}: the first line must have one column {' or '.join(LABEL)}")

        def label(cells: list[str]) -> str | None:
            check_text(f"{table.path}, a class", cells)
            return cells[0] or None

        self._take(table.images(folder, columns, label, "a label", self.groups or ""))
        names = sorted({row.label for row in self._rows["train"]})
        if len(names) < 2:
            raise UserError(f"{table.path} has only one class, {names[0]!r}: a classifier needs two or more")
        for part, rows in self._rows.items():
            if unknown := sorted({row.label for row in rows} - {*names}):
                raise UserError(f"{table.path}: no training image is of the class {unknown[0]!r} in {part}")
        return tuple(names)

    def open_parts(self, parts: Sequence[str]) -> dict[str, Dataset[Batch]]:
        """The data sets of some parts: in memory where they fit, on disk otherwise; says which."""
        wanted = {"train" if part == "val" and "val" not in self.stages else part for part in parts}
        found = {part: self._find(part) for part in sorted(wanted)}
        count = sum(len(paths) for paths, _ in found.values())
        need = count * self.in_channels * self.image_size**2 / 2**30
        limit = psutil.virtual_memory().available / 2**31 if self.max_memory is None else self.max_memory
        size = f"{self.in_channels}x{self.image_size}x{self.image_size}"
        says = f"{type(self).__name__}: {count:,} images of {size} need {_memory(need)} of memory"
        says = f"{says}, the limit is {_memory(limit)}"
        if need <= limit:
            rank_zero_info(says)
            opened = {part: self._in_memory(*content) for part, content in found.items()}
        else:
            rank_zero_info(f"{says}: they stay on disk (`data.max_memory`)")
            if self.on_device:
                rank_zero_warn("`data.on_device` true has no effect on images that stay on disk")
            opened = {part: self._on_disk(*content) for part, content in found.items()}
        if "train" in opened and "val" not in self.stages:
            opened |= self.split(opened["train"])
        self._say_classes(opened)
        return opened

    def groups_of(self, dataset: Dataset[Batch]) -> list[str] | None:
        """The group of each image; None without groups.

        Args:
            dataset: The training images.
        """
        if self.groups is None:
            return None
        group = {name: row.group for row in self._rows["train"] for name in self._inside([row.path])}
        return [group[name] for name in dataset.names]  # type: ignore[attr-defined]

    def _say_classes(self, opened: dict[str, Dataset[Batch]]) -> None:
        """Says how many images of which class each part has, and warns of classes that a part lacks."""
        for part in (part for part in PARTS if part in opened):
            if (counts := self.counts(opened[part])) is None:
                continue
            found = dict(zip(map(escaped, self.class_names), counts.tolist(), strict=True))
            each = ", ".join(f"{name} {count:,}" for name, count in found.items())
            if len(found) > LISTED:
                each = f"{min(found.values()):,} to {max(found.values()):,} of each of {len(found)} classes"
            rank_zero_info(f"{part}: {len(opened[part]):,} images: {each}")  # type: ignore[arg-type]
            if missing := [name for name, count in found.items() if not count]:
                listed = ", ".join(missing[:LISTED]) + (", ..." if len(missing) > LISTED else "")
                rank_zero_warn(f"{part} has no images of {len(missing)} of {len(found)} classes: {listed}")

    def workers_for(self, dataset: Dataset[Batch]) -> int:
        """Processes that read ahead: only for images that stay on disk."""
        whole = dataset.dataset if isinstance(dataset, Subset) else dataset
        if not isinstance(whole, Images) or isinstance(whole.images, Tensor):
            return 0
        return min(self.num_workers, READERS) if isinstance(whole.images, Mapped) else self.num_workers

    def _find(self, part: str) -> tuple[list[str], Tensor]:
        """The image files of a part, sorted by class, folder and name, or in the order of the table; their labels."""
        if self._rows:
            return self._in_table(part)
        if part not in self._folders:
            raise UserError(f"there is no folder {self.root / part}: put the images there, as {part}/<class>/<image>")
        folder = self._folders[part]
        classes = find_folders(folder)
        unknown = sorted(set(classes) - set(self.class_names))
        if unknown and folder != self.root:
            train = self._folders["train"]
            raise UserError(f"{folder / unknown[0]}: there is no class {unknown[0]!r} in {train}")
        index = {name: number for number, name in enumerate(self.class_names) if name in classes}
        samples: dict[str, list[str]] = {name: [] for name in index}
        start = len(str(folder)) + 1
        for file in scan(folder):
            name = file[start:].partition(os.sep)[0]
            if name in samples:  # and not an image beside the folders
                samples[name].append(file)
        if empty := sorted(name for name, files in samples.items() if not files):
            raise UserError(f"there are no images in {folder / empty[0]}: add some, or remove the folder")
        if not samples:
            raise UserError(f"there are no images in {folder}: add some, or remove the folder")
        paths = [sorted(samples[name], key=lambda file: file.rpartition(os.sep)[::2]) for name in index]
        labels = [label for files, label in zip(paths, index.values(), strict=True) for _ in files]
        return [file for files in paths for file in files], torch.tensor(labels)

    def _in_table(self, part: str) -> tuple[list[str], Tensor]:
        """The image files of a part, in the order of the table, and their labels."""
        if part not in self._rows:
            raise UserError(f"{self.labels} has no images of the part {part!r}: add some")
        return [row.path for row in self._rows[part]], self.as_labels([row.label for row in self._rows[part]])

    def as_labels(self, labels: Sequence[Any]) -> Tensor:
        """What the network learns of the labels of a table.

        Args:
            labels: Of each image.
        """
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return torch.tensor([numbers[label] for label in labels])

    def _in_memory(self, paths: list[str], labels: Tensor) -> Dataset[Batch]:
        if (kept := self._kept(paths)) is not None and kept.is_there():
            return Images(kept.read(), labels, self._inside(paths))
        images = torch.empty(len(paths), self.in_channels, self.image_size, self.image_size, dtype=torch.uint8)
        positions = self._fill(paths, images)
        if len(positions) < len(paths):
            images, labels, paths = images[positions], labels[positions], [paths[position] for position in positions]
        elif kept is not None:
            kept.make(lambda array: torch.from_numpy(array).copy_(images) is not None)
        return Images(images, labels, self._inside(paths))

    def _on_disk(self, paths: list[str], labels: Tensor) -> Dataset[Batch]:
        kept = self._kept(paths)
        if kept is not None and (kept.is_there() or kept.make(lambda array: self._fills(paths, array))):
            return Images(kept.mapped(), labels, self._inside(paths))
        rank_zero_info("they are decoded batch by batch")
        if self.skip_corrupt:
            good = [position for positions, _ in self._decode(paths) for position in positions.tolist()]
            labels, paths = labels[good], [paths[position] for position in good]
        return Images(OnDisk(paths, self.preprocessing.read), labels, self._inside(paths))

    def _kept(self, paths: list[str]) -> DecodedFile | None:
        """The file of decoded images, where there may be one."""
        if not self.cache or not takes_long(paths):
            return None
        how = {name: value for name, value in self.preprocessing.to_dict().items() if name not in SCALING}
        with suppress(OSError, RuntimeError):
            return DecodedFile(paths, how, (self.in_channels, self.image_size, self.image_size))
        return None

    def _fill(self, paths: list[str], images: Tensor) -> list[int]:
        """Decodes images to their places; returns the places of those that could be decoded."""
        good: list[int] = []
        for positions, decoded in self._decode(paths):
            images[positions] = decoded
            good += positions.tolist()
        return good

    def _fills(self, paths: list[str], array: NDArray[np.uint8]) -> bool:
        """Decodes images to an array; whether all could be decoded."""
        return len(self._fill(paths, torch.from_numpy(array))) == len(paths)

    def _decode(self, paths: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
        """Decodes image files.

        Yields:
            Positions in `paths` and the images there, but for those that can't be decoded and are skipped.

        Raises:
            UserError: For the first image that can't be decoded, unless `skip_corrupt`; or if there is no other.
        """
        size, left_out = self.in_channels * self.image_size**2, 0
        for positions, images, faults in decode(paths, self.preprocessing.read, size, self.num_workers):
            for fault in faults:
                if not self.skip_corrupt:
                    raise UserError(f"{fault}, or skip such images with `data.skip_corrupt` true")
                rank_zero_warn(f"skipped: {escaped(fault)}")
            left_out += len(faults)
            if len(positions):
                yield positions, images
        if left_out == len(paths):
            raise UserError(f"none of the {left_out} images in {self.root} can be decoded: replace them")
        if left_out:
            rank_zero_warn(f"skipped {left_out:,} of {len(paths):,} images that can't be decoded")

    def _inside(self, paths: list[str]) -> list[str]:
        """The paths within the root, such as `test/cat/0001.jpg`."""
        root = "" if self.root == Path() else os.path.join(self.root, "")
        inside = [path.removeprefix(root) for path in paths]  # a million take a second, as `Path` ten
        return inside if os.sep == "/" else [path.replace(os.sep, "/") for path in inside]


def _memory(gibibytes: float) -> str:
    return f"{gibibytes:.2f} GiB" if gibibytes >= 1 else f"{gibibytes * 1024:.2f} MiB"
