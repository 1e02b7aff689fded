"""Images without labels, for prediction: files, and images in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_cnn.datamodules.batches import Batch, BatchSampler, Images, OnDisk, batch_loader
from lightning_cnn.datamodules.house_numbers.letterbox import unletterbox
from lightning_cnn.datamodules.images.decoding import cores, decode
from lightning_cnn.datamodules.images.folders import IMAGES, scan
from lightning_cnn.datamodules.images.photo import Photo, as_image, photo_facts
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import UserError

Found = tuple[str, str | Image.Image]  # an image with its name


class ImageFiles(LightningDataModule):
    """Images in the given order, preprocessed as in training; the "label" is the position in `paths`.

    Args:
        images: Image files, folders that are searched for image files to any depth, and images in memory, as
            `as_image` takes them. In `paths` these are called `image 0` and so on, by their place.
        preprocessing: What the checkpoint carries of the training data.
        batch_size: Images in a batch.
        skip_corrupt: Whether to skip images that can't be decoded. All images are then decoded twice.
        but: A folder within a searched one, which is not searched: the one that is written into.

    Attributes:
        skipped: Each skipped image with the reason.

    Raises:
        UserError: If a file or folder does not exist, there is no image in it, something in memory is no image, or no
            image can be decoded.
    """

    def __init__(
        self,
        images: Sequence[Photo] | Photo,
        preprocessing: Preprocessing,
        batch_size: int = 128,
        skip_corrupt: bool = False,
        but: Path | None = None,
    ) -> None:
        super().__init__()
        found = find_images(images, but)
        self.skipped: list[tuple[str, str]] = []
        if skip_corrupt:
            found, self.skipped = decodable(found, preprocessing)
        self.paths = [name for name, _ in found]
        self.photos = [photo for _, photo in found]
        self.preprocessing = preprocessing
        self.class_names = preprocessing.class_names
        self.batch_size = batch_size

    def to_photo(self, boxes: NDArray[np.float32], row: int) -> NDArray[np.float32]:
        """Boxes in the square that the network sees, in pixels of the photo.

        Args:
            boxes: `(k, 4)`: left, top, right, bottom.
            row: Position of the photo in `paths`.
        """
        return unletterbox(boxes, photo_facts(self.photos[row])[:2], self.preprocessing.image_size)

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of each photo in pixels."""
        return [photo_facts(photo)[:2] for photo in self.photos]

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of decoded images and their positions."""
        dataset = Images(OnDisk(self.photos, self.preprocessing.read), torch.arange(len(self.paths)))
        return batch_loader(dataset, BatchSampler(len(self.paths), self.batch_size, shuffle=False))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Scales the pixels as in training."""
        images, positions = batch
        return self.preprocessing.scale(images.float() / 255), positions


def decodable(found: Sequence[Found], preprocessing: Preprocessing) -> tuple[list[Found], list[tuple[str, str]]]:
    """The images that can be decoded, and the names of the others, each with the reason.

    Args:
        found: The images, each with its name.
        preprocessing: The preparation of the images.

    Raises:
        UserError: If there is none.
    """
    photos, kept, faults = [photo for _, photo in found], list[int](), list[str]()
    size = preprocessing.in_channels * max(1, preprocessing.image_size) ** 2
    for positions, _, wrong in decode(photos, preprocessing.read, size, min(cores(), 8), _nothing):
        kept += positions.tolist()
        faults += wrong
    if not kept:
        raise UserError(f"none of the {len(found)} images can be decoded: {faults[0]}")
    good = {*kept}
    others = [name for place, (name, _) in enumerate(found) if place not in good]
    return [found[place] for place in kept], [*zip(others, faults, strict=True)]


def _nothing(_: list[Tensor]) -> Tensor:
    return torch.empty(0)


def find_images(images: Sequence[Photo] | Photo, but: Path | None = None) -> list[Found]:
    """Each image with its name; the files of a folder sorted by name.

    Args:
        images: Files, folders and images in memory; or a single one, or an array of several images.
        but: A folder within a searched one, which is not searched: the one that is written into.

    Raises:
        UserError: If a file or folder does not exist, there is no image in a folder, or something is no image.
    """
    if isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 4) < 4:
        images = [images]  # type: ignore[list-item]
    found: list[Found] = []
    for place, image in enumerate(images):
        if not isinstance(image, str | Path):
            try:
                found.append((f"image {place}", as_image(image)))
            except Exception as error:  # Pillow raises nearly everything
                raise UserError(f"`images` [{place}]: {error}") from None
        elif (path := Path(image)).is_dir():
            files = scan(path)
            if but is not None and path.resolve() in but.resolve().parents:
                files = [file for file in files if not Path(file).resolve().is_relative_to(but.resolve())]
            if not files:
                raise UserError(f"there are no images in {path}: it must hold {', '.join(IMAGES)} files")
            found += [(file, file) for file in files]
        elif path.is_file():
            found.append((str(image), str(image)))
        else:
            raise UserError(f"there is no file or folder {image}")
    if not found:
        raise UserError("`images` is empty: give at least one image")
    return found
