"""SVHN as whole house numbers, from the official folders of photos with `digitStruct.mat`."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from lightning_cnn.architectures.house_number import MAX_DIGITS
from lightning_cnn.datamodules.batches import Batch, TensorImages
from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.svhn_folder import CropReader, check_folder, read_folder
from lightning_cnn.datamodules.house_numbers.whole_numbers import Color, HouseNumbers
from lightning_cnn.datamodules.images.augmentation import AugmentOptions
from lightning_cnn.datamodules.images.base import Normalize
from lightning_cnn.datamodules.images.decoding import cores, decode
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.resume.files import make_folder, replacing

CACHE = ".cache"


class SVHNNumbers(HouseNumbers):
    """Whole house numbers in Google Street View, cut out of the photos: 33,402 and 13,068 for the test.

    The folders `train/`, `test/` and, where asked for, `extra/` (202,353 easier ones) lie in `<root>/`, each with its
    photos and its `digitStruct.mat`, as the official archives unpack. The box of all digits grows by `grow` on each
    side, is clipped to the photo on all sides, and is stretched to a square. What was read and cut out is kept in
    `<root>/.cache/`, so that the next start takes a second; changed files are read anew.

    Source: Netzer et al., "Reading digits in natural images with unsupervised feature learning" (2011); the crop after
    the book's SVHN notebook, which clips on two sides only and takes the height of another box.

    Args:
        root: Folder of the data; default `$LIGHTNING_CNN_DATA` or `data/`.
        batch_size: Images in a batch, over all processes together.
        image_size: Side of the images that the network sees, in pixels.
        margin: Pixels by which the images that are kept are larger on each side: training sees a random part of them,
            measurement the middle. The paper keeps 64 and sees 54, a margin of 5 (Goodfellow et al. 2013, section 5).
        color: `rgb`, or `grey` by the weights .2989, .5870 and .1140 after the resizing, rounded.
        grow: Share by which the box of all digits grows on each side before it is cut out.
        normalize: `per_image` by each image's own mean and standard deviation; `auto`, `standardize`, `unit` and `raw`
            as with other images.
        val_fraction: Share of the training data held back for validation.
        val_split: Which share: `random` (by `split_seed`), or the `first` or `last` rows as Keras takes them.
        split_seed: Seed of the random split; it does not depend on the seed of the run.
        augment: Random changes to the training images, such as `{"rotation": 10, "zoom": 0.1}`.
        on_device: Whether the images are kept in the memory of the device.
        extra: Whether the numbers of `extra/` join the training part; they come after the others.
        too_long: What becomes of numbers with more than five digits: `drop` leaves them out and counts them.
        num_workers: Processes that decode photos; default one a core, at most 8.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would change what a number reads.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 128,
        image_size: int = 32,
        margin: int = 0,
        color: Color = "rgb",
        grow: float = 0.1,
        normalize: Normalize = "per_image",
        val_fraction: float = 0.1,
        val_split: Literal["random", "first", "last"] = "random",
        split_seed: int = 0,
        augment: AugmentOptions | None = None,
        on_device: bool = False,
        extra: bool = False,
        too_long: Literal["drop", "error"] = "drop",
        num_workers: int | None = None,
    ) -> None:
        super().__init__(
            root=root,
            batch_size=batch_size,
            image_size=image_size,
            margin=margin,
            color=color,
            grow=grow,
            normalize=normalize,
            val_fraction=val_fraction,
            val_split=val_split,
            split_seed=split_seed,
            augment=augment,
            on_device=on_device,
        )
        self.save_hyperparameters(logger=False)
        self.extra = extra
        self.too_long = too_long
        self.num_workers = min(cores(), 8) if num_workers is None else num_workers
        self.stages = ("train", "test") if (self.root / "test").is_dir() else ("train",)
        self._names: dict[bool, list[str]] = {}

    def prepare_data(self) -> None:
        """Looks for the folders; they can't be downloaded from here.

        Raises:
            UserError: If a folder or its `digitStruct.mat` is missing.
        """
        for part in (*self._parts(train=True), *self.stages[1:]):
            check_folder(self.root / part)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """The crops of the training or the test part, and their labels, in the official order.

        Returns:
            uint8 `(n, channels, side, side)`, the side with its margins; int64 `(n, 6)`: count, digits, 10 for none.
        """
        parts = self._parts(train)
        annotations = {part: self._annotations(part) for part in parts}
        self._names[train] = [f"{part}/{name}" for part in parts for name in annotations[part].names]
        images = [self._crops(part, annotations[part]) for part in parts]
        labels = [annotations[part].labels() for part in parts]
        return images[0] if len(parts) == 1 else torch.cat(images), torch.cat(labels)

    def open_parts(self, parts: Sequence[str]) -> dict[str, Dataset[Batch]]:
        """The data sets of some parts, which know the names of their photos."""
        opened = super().open_parts(parts)
        for part, dataset in opened.items():
            whole = dataset.dataset if isinstance(dataset, Subset) else dataset
            if isinstance(whole, TensorImages):
                whole.names = self._names[part != "test"]
        return opened

    def _parts(self, train: bool) -> list[str]:
        return ["train", "extra"][: 1 + self.extra] if train else ["test"]

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
            raise UserError(f"{says}: leave them out with --data.too_long drop")
        rank_zero_warn(f"left out: {says}")
        if not fitting.any():
            raise UserError(f"{says}: none is left to learn from")
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
        images = torch.empty(shape, dtype=torch.uint8)
        paths = [str(folder / name) for name in annotations.names]
        progress = tqdm(total=len(paths), desc=f"Cutting numbers out of {folder}", disable=None if _first() else True)
        with progress:
            for positions, crops, faults in decode(paths, read, self.in_channels * side**2, self.num_workers):
                if faults:
                    raise UserError(faults[0])
                images[positions] = crops
                progress.update(len(positions))
        if _first() and _save(kept, images.numpy()):
            rank_zero_info(f"SVHNNumbers: {len(paths):,} numbers cut out of {folder} are kept in {kept}")
        return images


def _first() -> bool:
    """Whether this is the one of many processes that writes and shows progress."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _save(path: Path, array: NDArray[np.uint8]) -> bool:
    """Writes an array in one step, where the folder allows it."""
    try:
        make_folder(path.parent)
        with replacing(path) as file:
            np.save(file, array)
    except (StorageError, OSError):  # numpy tells a full disk without its number
        return False
    return True
