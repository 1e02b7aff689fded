"""A user's own images: one folder a class."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import psutil
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_cnn.datamodules.batches import Batch, Images, OnDisk
from lightning_cnn.datamodules.images.base import ImageDataModule, data_root
from lightning_cnn.datamodules.images.decoding import cores, decode
from lightning_cnn.datamodules.images.preprocessing import Resize
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import escaped
from lightning_cnn.regular_files import find_files, find_folders

PARTS = ("train", "val", "test")


class ImageFolder(ImageDataModule):
    """Your own images in `<root>/train/<class>/*.jpg|png|...`, and optionally in `val/` and `test/`.

    Without `val/`, a part of `train/` is held out. All images are decoded once, in parallel, and kept in memory as
    uint8; if they need more than `max_memory`, they are decoded batch by batch. 16-bit pixels (PNG, PGM, TIFF) are
    reduced to the high byte; floating-point pixels (TIFF) must be between 0 and 1; orientation tags are applied;
    alpha channels are ignored.

    Args:
        root: Folder that contains `train/`; default `$LIGHTNING_CNN_DATA` or `data/`.
        image_size: Side in pixels to which images are resized.
        color: `rgb` or `grey`.
        resize: How to make images square: `stretch`, `crop` the middle, or `pad`.
        val_fraction: Share of `train/` held out for validation if there is no `val/`.
        max_memory: Maximum memory for the decoded images in GiB; default half of the free memory.
        skip_corrupt: Whether to skip images that can't be decoded, with a warning, instead of raising an error.
        num_workers: Processes that decode images; default one per core, at most 8.

    Raises:
        UserError: If folders or images are missing, or an image can't be decoded.
    """

    fixed: ClassVar[tuple[str, ...]] = ("download",)

    def __init__(
        self,
        root: str | None = None,
        *,
        image_size: int = 64,
        color: Literal["rgb", "grey"] = "rgb",
        resize: Resize = "stretch",
        max_memory: float | None = None,
        skip_corrupt: bool = False,
        num_workers: int | None = None,
        **options: Any,
    ) -> None:
        self.in_channels = 3 if color == "rgb" else 1
        self.native_size = image_size
        folder = data_root(root)
        self.class_names = self.find_classes(folder)
        self.num_classes = len(self.class_names)
        super().__init__(root, image_size=image_size, download=False, **options)
        self.preprocessing = replace(self.preprocessing, resize=resize)
        self.max_memory = max_memory
        self.skip_corrupt = skip_corrupt
        self.num_workers = min(cores(), 8) if num_workers is None else num_workers
        self.stages = self.find_stages(folder)

    def find_classes(self, folder: Path) -> tuple[str, ...]:
        """The names of the classes, those of the folders."""
        train = folder / "train"
        if not train.is_dir():
            if folder.name in PARTS and (folder.parent / "train").is_dir():
                raise UserError(f"`data.root` {folder} is one part of the data: set it to {folder.parent}")
            raise UserError(
                f"there is no folder {train}: ImageFolder expects <root>/train/<class>/<image>; set `data.root` to "
                "<root>"
            )
        names = find_folders(train)
        if not names:
            raise UserError(f"there are no class folders in {train}: expected one folder per class")
        if len(names) < 2:
            raise UserError(f"there is only one class folder in {train}, {names[0]!r}: a classifier needs two or more")
        return tuple(names)

    def find_stages(self, folder: Path) -> tuple[str, ...]:
        """The parts that there are."""
        return tuple(part for part in PARTS if (folder / part).is_dir())

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
            rank_zero_info(f"{says}: they stay on disk and are decoded batch by batch (`data.max_memory`)")
            if self.on_device:
                rank_zero_warn("`data.on_device` true has no effect on images that stay on disk")
            opened = {part: self._on_disk(*content) for part, content in found.items()}
        if "train" in opened and "val" not in self.stages:
            opened |= self.split(opened["train"])
        return opened

    def workers_for(self, dataset: Dataset[Batch]) -> int:
        """Processes that read ahead: only for images that stay on disk."""
        whole = dataset.dataset if isinstance(dataset, Subset) else dataset
        return self.num_workers if isinstance(whole, Images) and isinstance(whole.images, OnDisk) else 0

    def _find(self, part: str) -> tuple[list[str], Tensor]:
        """The image files of a part, sorted by class, folder and name, and their labels."""
        folder = self.root / part
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: put the images there, as {part}/<class>/<image>")
        classes = find_folders(folder)
        unknown = sorted(set(classes) - set(self.class_names))
        if unknown:
            raise UserError(f"{folder / unknown[0]}: there is no class {unknown[0]!r} in {self.root / 'train'}")
        index = {name: number for number, name in enumerate(self.class_names) if name in classes}
        found = find_files(folder, IMG_EXTENSIONS)
        if note := found.note():
            rank_zero_warn(note)
        samples: dict[str, list[str]] = {name: [] for name in index}
        for file in found.files:
            name = file[len(str(folder)) + 1 :].partition(os.sep)[0]
            if name in samples:  # and not an image beside the folders
                samples[name].append(file)
        if empty := sorted(name for name, files in samples.items() if not files):
            raise UserError(f"there are no images in {folder / empty[0]}: add some, or remove the folder")
        if not samples:
            raise UserError(f"there are no images in {folder}: add some, or remove the folder")
        paths = [sorted(samples[name], key=os.path.split) for name in index]
        labels = [label for files, label in zip(paths, index.values(), strict=True) for _ in files]
        return [file for files in paths for file in files], torch.tensor(labels)

    def _in_memory(self, paths: list[str], labels: Tensor) -> Dataset[Batch]:
        images = torch.empty(len(paths), self.in_channels, self.image_size, self.image_size, dtype=torch.uint8)
        kept = []
        for positions, decoded in self._decode(paths):
            images[positions] = decoded
            kept += positions.tolist()
        if len(kept) < len(paths):
            images, labels, paths = images[kept], labels[kept], [paths[position] for position in kept]
        return Images(images, labels, self._inside(paths))

    def _on_disk(self, paths: list[str], labels: Tensor) -> Dataset[Batch]:
        if self.skip_corrupt:
            kept = [position for positions, _ in self._decode(paths) for position in positions.tolist()]
            labels, paths = labels[kept], [paths[position] for position in kept]
        return Images(OnDisk(paths, self.preprocessing.read), labels, self._inside(paths))

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

    def _inside(self, paths: list[str]) -> list[str]:
        """The paths within the root, such as `test/cat/0001.jpg`."""
        return [Path(path).relative_to(self.root).as_posix() for path in paths]


def _memory(gibibytes: float) -> str:
    return f"{gibibytes:.2f} GiB" if gibibytes >= 1 else f"{gibibytes * 1024:.2f} MiB"
