"""An official folder of SVHN's photos: what must be in it, and how the numbers are cut out."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.digit_struct import read_digit_struct
from lightning_cnn.datamodules.images.decoding import cores, decode
from lightning_cnn.datamodules.images.photo import open_photo, photo_facts
from lightning_cnn.errors import UserError
from lightning_cnn.resume.processes import process_rank

SOURCE = "http://ufldl.stanford.edu/housenumbers"
STRUCT = "digitStruct.mat"
CACHE = ".cache"
GREY = torch.tensor([0.2989, 0.5870, 0.1140])
LAYOUT = "2"  # of the crops; with another number those that were kept are made anew


class SVHNFolders:
    """Base class of the data sets of SVHN's photos: their folders and how photos are read.

    Args:
        num_workers: Processes that decode photos; default one per core, at most 8.
    """

    fixed: ClassVar[tuple[str, ...]] = ("download",)
    extra_needed: ClassVar[str] = "svhn"
    root: Path
    stages: tuple[str, ...]
    extra = False

    def __init__(self, root: str | None = None, *, num_workers: int | None = None, **options: Any) -> None:
        super().__init__(root, download=False, **options)  # type: ignore[call-arg]  # it stands before a data set
        self.num_workers = min(cores(), 8) if num_workers is None else num_workers
        self.stages = ("train", "test") if (self.root / "test").is_dir() else ("train",)

    def folders(self, train: bool) -> list[str]:
        """The folders of the training or the test part."""
        return ["train", "extra"][: 1 + self.extra] if train else ["test"]

    def prepare_data(self) -> None:
        """Looks for the folders; they can't be downloaded from here.

        Raises:
            UserError: If a folder or its `digitStruct.mat` is missing.
        """
        for part in (*self.folders(train=True), *self.stages[1:]):
            check_folder(self.root / part)

    def read_photos(
        self, paths: list[str], read: Callable[[str], Tensor], channels: int, side: int, title: str
    ) -> Tensor:
        """Decodes photos, and shows how far it is.

        Args:
            paths: The photos.
            read: Makes an image of one.
            channels: Of the images.
            side: Of the images, in pixels.
            title: What is done, in words.

        Returns:
            uint8, `(n, channels, side, side)`.

        Raises:
            UserError: If one can't be decoded.
        """
        images = torch.empty(len(paths), channels, side, side, dtype=torch.uint8)
        with tqdm(total=len(paths), desc=title, disable=process_rank() > 0 or None) as progress:
            for positions, decoded, faults in decode(paths, read, channels * side**2, self.num_workers):
                if faults:
                    raise UserError(faults[0])
                images[positions] = decoded
                progress.update(len(positions))
        return images


class CropReader:
    """Cuts the number out of a photo and stretches it to a square.

    Args:
        annotations: The digits of the photos.
        folder: Where the photos lie.
        side: Side of the crop in pixels.
        grey: Whether the crop is gray.
        grow: By which share of its width and height the box of all digits grows on each side.
    """

    def __init__(self, annotations: DigitAnnotations, folder: Path, side: int, grey: bool, grow: float) -> None:
        self.annotations = annotations
        self.folder = folder
        self.side = side
        self.grey = grey
        self.grow = grow
        self._rows = {name: row for row, name in enumerate(annotations.names)}

    def key(self) -> str:
        """Sixteen hexadecimal digits that stand for all crops: other photos, boxes or settings have others."""
        found = hashlib.blake2b(f"{LAYOUT} {self.side} {self.grey} {self.grow}".encode(), digest_size=8)
        found.update(self.annotations.starts.tobytes() + self.annotations.boxes.tobytes())
        for name in self.annotations.names:
            facts = (self.folder / name).stat()
            found.update(f"{name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
        return found.hexdigest()

    def __call__(self, path: str) -> Tensor:
        """Reads one photo.

        Args:
            path: A photo in the folder.

        Returns:
            uint8, `(channels, side, side)`.

        Raises:
            UserError: If it can't be decoded, or no box lies in it.
        """
        row = self._rows[Path(path).name]
        try:
            photo = open_photo(path, "RGB")
            own = self.annotations.select([row]).upright([photo_facts(path)])
        except Exception as error:  # on a damaged file Pillow raises nearly everything
            raise UserError(f"can't decode the photo {path} ({error}): unpack it anew from its archive") from None
        if not _inside(own.boxes, photo.size):
            raise UserError(
                f"the digits of {path} lie outside the photo of {photo.width}x{photo.height} pixels: {STRUCT} "
                "belongs to other photos; unpack both again"
            )
        left, top, right, bottom = own.crops(self.grow)[0].tolist()
        # cut first: the resizing would otherwise take pixels from beyond the border of the crop
        crop = photo.crop((left, top, right, bottom)).resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(crop, dtype=np.uint8))
        if self.grey:
            return (pixels.float() @ GREY).round().to(torch.uint8)[None]
        return pixels.permute(2, 0, 1).contiguous()


def read_folder(folder: Path, cache: Path | None = None) -> DigitAnnotations:
    """The digits of the photos in an official folder, all of which are there.

    Args:
        folder: Such as `<root>/train`.
        cache: Folder in which the annotations are kept.

    Raises:
        UserError: If the folder, its `digitStruct.mat` or one of its photos is missing or damaged.
    """
    check_folder(folder)
    annotations = read_digit_struct(folder / STRUCT, cache)
    there = {path.name for path in folder.iterdir() if path.is_file()}  # a FIFO would let its reader wait
    missing = [name for name in annotations.names if name not in there]
    if missing:
        raise UserError(
            f"{folder / STRUCT} names {len(annotations):,} photos, {len(missing):,} of them missing in {folder} "
            f"(first {missing[0]}): {_unpack(folder)}"
        )
    more = sorted(name for name in there.difference(annotations.names) if name.endswith(".png"))
    if more:
        says = f"{len(more):,} photos in {folder} have no usable digits in {STRUCT}"
        rank_zero_warn(f"skipped: {says} (first {more[0]})")
    return annotations


def check_folder(folder: Path) -> None:
    """Checks that a folder and its `digitStruct.mat` are there.

    Raises:
        UserError: If one is missing; it says where to get it.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: {_unpack(folder)}; or name the folder above it with `data.root`")
    if not (folder / STRUCT).is_file():
        raise UserError(f"{folder / STRUCT} is missing, which holds the boxes of the digits: {_unpack(folder)}")


def _unpack(folder: Path) -> str:
    archive = f"{folder.name}.tar.gz"
    return f"get {SOURCE}/{archive} (no download from here) and unpack it: tar xzf {archive} -C {folder.parent}"


def _inside(boxes: NDArray[np.float32], size: tuple[int, int]) -> bool:
    """Whether the union of the boxes and the photo have a part in common."""
    return bool((boxes[:, 2:].max(0) > 0).all() and (boxes[:, :2].min(0) < size).all())
