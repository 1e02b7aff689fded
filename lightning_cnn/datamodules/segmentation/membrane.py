"""Cell membranes in electron microscopy, the data of the U-Net paper."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from torch import Tensor

from lightning_cnn.datamodules.images.splitting import ValSplit
from lightning_cnn.datamodules.segmentation.base import MaskDataModule
from lightning_cnn.datamodules.segmentation.mask_files import MaskReader
from lightning_cnn.datamodules.segmentation.pairs import find_pairs
from lightning_cnn.errors import UserError, first_line

FOLDERS = ("membrane", "isbi")
VOLUME, LABELS = "train-volume.tif", "train-labels.tif"
TESTED = 5


class Membrane(MaskDataModule):
    """30 slices of a fly's nerve cord of 512x512 gray pixels: `membrane` or `cell`.

    The training stack of the ISBI challenge of 2012 is expected in `<root>/membrane/` or `<root>/`: as published,
    `train-volume.tif` and `train-labels.tif`, or slice by slice as `images/` and `masks/` (0 or black is membrane, 1 or
    255 cell). It can't be downloaded from here. The labels of the challenge's test stack are not public: the last five
    slices are held out for the test, and of the others the last ones for validation. Slices that are neighbors look
    alike, so that a random part would be easier.

    Source: Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics"
    (2015); Ronneberger, Fischer and Brox, "U-Net" (2015), section 4.

    Args:
        root: Folder of the data; default `$LIGHTNING_CNN_DATA` or `data/`.
        val_split: Which slices of those that are not for the test are held out for validation.

    Raises:
        UserError: If the slices are missing or damaged.
    """

    fixed = ("download",)
    num_classes = 2
    in_channels = 1
    class_names: tuple[str, ...] = ("membrane", "cell")

    def __init__(
        self,
        root: str | None = None,
        *,
        batch_size: int = 4,
        val_split: ValSplit = "last",
        **options: Any,
    ) -> None:
        super().__init__(root, batch_size=batch_size, val_split=val_split, download=False, **options)
        self._stack: tuple[Tensor, Tensor] | None = None

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """The first 25 slices for training and validation, or the last five for the test.

        Returns:
            uint8 `(n, 1, 512, 512)`, and their masks, uint8 `(n, 512, 512)`.
        """
        if self._stack is None:
            self._stack = self._read()
        images, masks = self._stack
        if len(images) <= TESTED + 1:
            raise UserError(f"there are {len(images)} slices in {self._folder()}: expected 30, or {TESTED + 2} or more")
        part = slice(None, -TESTED) if train else slice(-TESTED, None)
        return images[part], masks[part]

    def _folder(self) -> Path:
        for folder in (*(self.root / name for name in FOLDERS), self.root):
            if (folder / VOLUME).is_file() or (folder / "images").is_dir():
                return folder
        raise UserError(
            f"Membrane not found: {self.root / FOLDERS[0]} has neither {VOLUME} and {LABELS} nor images/ and masks/; "
            "copy the training stack of the ISBI 2012 challenge there (no download from here), or name the folder "
            "above it with `data.root`"
        )

    def _read(self) -> tuple[Tensor, Tensor]:
        folder, reader = self._folder(), MaskReader(self.num_classes, binary=True)
        if (folder / VOLUME).is_file():
            pixels, labels = (_stack(folder / name) for name in (VOLUME, LABELS))
            if pixels.shape != labels.shape or not np.isin(labels, (0, 255)).all():
                raise UserError(
                    f"{folder / LABELS} does not fit {VOLUME}: expected as many slices of the same size with values of "
                    "0 and 255"
                )
            return torch.from_numpy(pixels)[:, None], torch.from_numpy((labels > 0).astype(np.uint8))
        pairs = find_pairs(folder / "images", folder / "masks")
        if len(pairs.sizes.unique(dim=0)) > 1:
            raise UserError(f"the slices in {folder / 'images'} differ in size: expected those of one stack")
        images = torch.stack([self.preprocessing.read(path) for path in pairs.images])
        return images, torch.stack([reader(path) for path in pairs.masks])


def _stack(path: Path) -> NDArray[np.uint8]:
    """The pages of a TIFF, uint8 `(n, height, width)`."""
    try:
        with path.open("rb") as content, Image.open(content) as file:
            return np.stack([np.asarray(page.convert("L")) for page in ImageSequence.Iterator(file)])
    except Exception as error:  # on a damaged file Pillow raises nearly everything
        raise UserError(f"{path} can't be read as a stack of gray images ({first_line(error)}): replace it") from None
