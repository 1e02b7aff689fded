"""Image files without labels, for prediction."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_cnn.datamodules.batches import Batch, BatchSampler, FileImages, batch_loader
from lightning_cnn.datamodules.house_numbers.letterbox import unletterbox
from lightning_cnn.datamodules.images.photo import photo_facts
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import UserError
from lightning_cnn.regular_files import find_files


class ImageFiles(LightningDataModule):
    """Image files in the given order, preprocessed as in training; the "label" is the position in `paths`.

    Args:
        images: Image files, and folders that are searched for image files to any depth.
        preprocessing: What the checkpoint carries of the training data.
        batch_size: Images in a batch.

    Raises:
        UserError: If a file or folder does not exist or there is no image in it.
    """

    def __init__(self, images: Sequence[str], preprocessing: Preprocessing, batch_size: int = 128) -> None:
        super().__init__()
        self.paths = find_images(images)
        self.preprocessing = preprocessing
        self.class_names = preprocessing.class_names
        self.batch_size = batch_size

    def to_photo(self, boxes: NDArray[np.float32], row: int) -> NDArray[np.float32]:
        """Boxes in the square that the network sees, in pixels of the photo.

        Args:
            boxes: `(k, 4)`: left, top, right, bottom.
            row: Position of the photo in `paths`.
        """
        return unletterbox(boxes, photo_facts(self.paths[row])[:2], self.preprocessing.image_size)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of decoded images and their positions."""
        dataset = FileImages(self.paths, torch.arange(len(self.paths)), self.preprocessing.read)
        return batch_loader(dataset, BatchSampler(len(self.paths), self.batch_size, shuffle=False))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Scales the pixels as in training."""
        images, positions = batch
        return self.preprocessing.scale(images.float() / 255), positions


def find_images(names: Sequence[str]) -> list[str]:
    """The image files among files and folders; the files of a folder sorted by name.

    Raises:
        UserError: If a file or folder does not exist, or there is no image in a folder.
    """
    found: list[str] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = find_files(path, IMG_EXTENSIONS)
            if note := inside.note():
                rank_zero_warn(note)
            if not inside.files:
                raise UserError(f"there are no images in {path}: it must hold {', '.join(IMG_EXTENSIONS)} files")
            found += sorted(inside.files)
        elif path.is_file():
            found.append(name)
        else:
            raise UserError(f"there is no file or folder {name}")
    return found
