"""SVHN as single digits, in the official files `*_32x32.mat`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor
from torchvision.datasets.utils import download_url

from lightning_cnn.datamodules.child_reader import read_in_child
from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.datamodules.images.download import Missing, check_md5
from lightning_cnn.errors import UserError

# of each part its address, its file name and its md5
FILES: dict[str, tuple[str, str, str]] = {
    part: (entry[0], entry[1], entry[2]) for part, entry in torchvision.datasets.SVHN.split_list.items()
}
SIDE = 32
ZERO = 10  # the label of the digit 0 in the files
READER = Path(__file__).with_name("cropped_digits.py")  # run in a process of its own


class SVHN(ImageDataModule):
    """SVHN: single digits of house numbers of 32x32 pixels, 73,257 for training and 26,032 for the test.

    The files `train_32x32.mat`, `test_32x32.mat` and, with `extra`, `extra_32x32.mat` are expected in `<root>/`, as
    in torchvision; missing files are downloaded. The digit is in the middle of its image, with parts of its neighbors
    at the sides.

    Source: Netzer et al., "Reading digits in natural images with unsupervised feature learning" (2011), section 3.

    Args:
        extra: Whether to add the 531,131 easier images of `extra_32x32.mat` to the end of the training part; they need
            1.6 GB of memory.
        check_md5: Whether to require the official files, by their md5.

    Raises:
        UserError: If a value lies outside its range.
    """

    extra_needed = "svhn"
    num_classes = 10
    in_channels = 3
    native_size = SIDE
    class_names = tuple("0123456789")

    def __init__(self, root: str | None = None, *, extra: bool = False, check_md5: bool = True, **options: Any) -> None:
        super().__init__(root, **options)
        self.extra = extra
        self.check_md5 = check_md5

    def prepare_data(self) -> None:
        """Downloads the files where they are missing.

        Raises:
            UserError: If they are missing and can't be downloaded.
        """
        missing = [part for part in (*self._parts(train=True), "test") if not self._file(part).is_file()]
        if not missing:
            return
        cure = "copy it there, or name its folder with `data.root`"
        absent = Missing("SVHN", f"{self._file(missing[0])} is missing", cure)
        absent.download(lambda folder: _download(missing, folder), self.root, self.download)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """73,257 training images (with the extra ones 604,388) or 26,032 test images, and their labels.

        Returns:
            uint8 `(n, 3, 32, 32)` and int64 `(n,)`, 0 to 9, in the official order.
        """
        contents = [_read(self._file(part), FILES[part][2] if self.check_md5 else None) for part in self._parts(train)]
        labels = np.concatenate([labels for _, labels in contents])
        # MATLAB's order: rows, columns, colors, images
        images = torch.cat([torch.from_numpy(pixels).permute(3, 2, 0, 1) for pixels, _ in contents])
        return images, torch.from_numpy(labels.astype(np.int64) % ZERO)

    def _parts(self, train: bool) -> list[str]:
        return ["train", "extra"][: 1 + self.extra] if train else ["test"]

    def _file(self, part: str) -> Path:
        return self.root / FILES[part][1]


def _download(parts: list[str], folder: str) -> None:
    for part in parts:
        address, name, md5 = FILES[part]
        download_url(address, folder, name, md5)


def _read(file: Path, md5: str | None) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """The images of a file, `(32, 32, 3, n)`, and their labels `(n,)`, 1 to 10."""
    try:
        if md5 is not None:
            check_md5(file, md5)
        pixels, labels = read_in_child(READER, file)
        if pixels.dtype != np.uint8 or pixels.shape != (SIDE, SIDE, 3, len(labels)) or not len(labels):
            raise ValueError(
                f"X is {pixels.dtype} of shape {pixels.shape} for {len(labels)} labels, expected uint8 (32, 32, 3, n)"
            )
    except OSError as error:
        raise UserError(
            f"{file} can't be read ({error.strerror}): copy it there, or name its folder with `data.root`"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{file} is truncated or not an SVHN file ({str(error)[:160]}): replace it, or delete it to download it"
        ) from None
    wrong = np.flatnonzero(~np.isin(labels, np.arange(1, ZERO + 1)))
    if len(wrong):
        raise UserError(
            f"{file}: {len(wrong):,} of {len(labels):,} labels are outside 1 to 10, where 10 means 0 (first "
            f"{labels[wrong[0]]} of image {wrong[0] + 1:,}): correct them, or replace the file by the original"
        )
    return pixels, labels
