"""SVHN as whole house numbers, from the official folders of photos with `digitStruct.mat`."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_cnn.architectures.house_number import MAX_DIGITS
from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.svhn_folder import CACHE, CropReader, SVHNFolders, read_folder
from lightning_cnn.datamodules.house_numbers.whole_numbers import HouseNumbers
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.resume.files import make_folder, replacing
from lightning_cnn.resume.processes import process_rank

TooLong = Literal["drop", "error"]


class SVHNNumbers(SVHNFolders, HouseNumbers):
    """SVHN: whole house numbers, cropped from the photos, 33,402 for training and 13,068 for the test.

    The folders `train/`, `test/` and, with `extra`, `extra/` (202,353 easier images) of the official archives are
    expected in `<root>/`, each with its photos and its `digitStruct.mat`. The box of all digits is enlarged by `grow`
    on each side, clipped to the photo, and stretched to a square. The crops are cached in `<root>/.cache/`, so that
    later starts take a second; changed files are read again.

    Source: Netzer et al., "Reading digits in natural images with unsupervised feature learning" (2011); the crop after
    the book's SVHN notebook, which clips on two sides only and takes the height of another box.

    Args:
        color: `rgb`, or `grey` with the weights .2989, .5870 and .1140, applied after resizing and rounded.
        extra: Whether to add the numbers of `extra/` to the end of the training part.
        too_long: What to do with numbers of more than five digits: `drop` skips and counts them, `error` raises an
            error.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would change what a number reads.
    """

    def __init__(
        self, root: str | None = None, *, extra: bool = False, too_long: TooLong = "drop", **options: Any
    ) -> None:
        super().__init__(root, **options)
        self.extra = extra
        self.too_long = too_long

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """The crops of the training or the test part, and their labels, in the official order.

        Returns:
            uint8 `(n, channels, side, side)`, the side with its margins; int64 `(n, 6)`: count, digits, 10 for none.
        """
        parts = self.folders(train)
        annotations = {part: self._annotations(part) for part in parts}
        self._names[train] = [f"{part}/{name}" for part in parts for name in annotations[part].names]
        images = [self._crops(part, annotations[part]) for part in parts]
        labels = [annotations[part].labels() for part in parts]
        return images[0] if len(parts) == 1 else torch.cat(images), torch.cat(labels)

    def _annotations(self, part: str) -> DigitAnnotations:
        """The numbers of a folder that have five digits at most."""
        annotations = read_folder(self.root / part, self.root / CACHE)
        fitting = annotations.lengths <= MAX_DIGITS
        if fitting.all():
            return annotations
        row, count = int(fitting.argmin()), int((~fitting).sum())
        says = f"{count:,} of {len(fitting):,} numbers in {self.root / part} have more than {MAX_DIGITS} digits"
        says += f" (first {annotations.names[row]} with {annotations.lengths[row]})"
        if self.too_long == "error":
            raise UserError(f"{says}: skip them with `data.too_long` drop")
        rank_zero_warn(f"skipped: {says}")
        if not fitting.any():
            raise UserError(f"{says}: no numbers are left for training")
        return annotations.select(np.flatnonzero(fitting))

    def _crops(self, part: str, annotations: DigitAnnotations) -> Tensor:
        """The crops of a folder, from the cache where nothing has changed."""
        side = self.preprocessing.inner_size
        folder, shape = self.root / part, (len(annotations), self.in_channels, side, side)
        read = CropReader(annotations, folder, side, self.in_channels == 1, self.grow)
        kept = self.root / CACHE / f"{part}-crops-{read.key()}.npy"
        with suppress(OSError, ValueError, EOFError):  # missing, or damaged and made anew
            found = np.load(kept, allow_pickle=False)
            if found.shape == shape and found.dtype == np.uint8:
                return torch.from_numpy(found)
        paths = [str(folder / name) for name in annotations.names]
        images = self.read_photos(paths, read, self.in_channels, side, f"Cutting numbers out of {folder}")
        if process_rank() == 0 and _save(kept, images.numpy()):
            rank_zero_info(f"SVHNNumbers: {len(paths):,} numbers cut out of {folder} are kept in {kept}")
        return images


def _save(path: Path, array: NDArray[np.uint8]) -> bool:
    """Writes an array in one step, where the folder allows it."""
    try:
        make_folder(path.parent)
        with replacing(path) as file:
            np.save(file, array)
    except (StorageError, OSError):  # numpy tells a full disk without its number
        return False
    return True
