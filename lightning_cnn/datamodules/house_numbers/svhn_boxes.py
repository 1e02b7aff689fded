"""SVHN as whole photos with a box around each digit, from the official folders."""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from tqdm import tqdm

from lightning_cnn.datamodules.house_numbers.boxes import DigitBoxes
from lightning_cnn.datamodules.house_numbers.letterbox import letterbox
from lightning_cnn.datamodules.house_numbers.svhn_folder import check_folder, read_folder
from lightning_cnn.datamodules.house_numbers.svhn_numbers import CACHE
from lightning_cnn.datamodules.images.augmentation import AugmentOptions
from lightning_cnn.datamodules.images.base import Normalize
from lightning_cnn.datamodules.images.decoding import cores, decode
from lightning_cnn.datamodules.images.photo import photo_facts
from lightning_cnn.errors import UserError


class SVHNBoxes(DigitBoxes):
    """Whole photos of house numbers in Google Street View with a box around each digit: 33,402 and 13,068 for the test.

    The folders `train/` and `test/` lie in `<root>/`, each with its photos and its `digitStruct.mat`, as the official
    archives unpack. Photos are fitted into a square as wholes, and turned with their boxes where they carry an
    orientation; at 128 pixels the training part takes 1.6 GB of memory.

    Source: Netzer et al., "Reading digits in natural images with unsupervised feature learning" (2011).

    Args:
        root: Folder of the data; default `$LIGHTNING_CNN_DATA` or `data/`.
        batch_size: Images in a batch, over all processes together.
        image_size: Side of the square in pixels, a multiple of 8.
        max_boxes: Digits of an image at most; one training image has six.
        normalize: `auto` and `standardize` by mean and standard deviation of the training part, `per_image` by each
            image's own, `unit` and `raw` as with other images.
        val_fraction: Share of the training data held back for validation.
        val_split: Which share: `random` (by `split_seed`), or the `first` or `last` rows as Keras takes them.
        split_seed: Seed of the random split; it does not depend on the seed of the run.
        augment: Random changes to the training images that leave the digits in their boxes: `{"cutout": 0.2}`.
        on_device: Whether the images are kept in the memory of the device.
        num_workers: Processes that decode photos; default one a core, at most 8.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would leave the boxes behind.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 32,
        image_size: int = 128,
        max_boxes: int = 6,
        normalize: Normalize = "auto",
        val_fraction: float = 0.1,
        val_split: Literal["random", "first", "last"] = "random",
        split_seed: int = 0,
        augment: AugmentOptions | None = None,
        on_device: bool = False,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(
            root=root,
            batch_size=batch_size,
            image_size=image_size,
            max_boxes=max_boxes,
            normalize=normalize,
            val_fraction=val_fraction,
            val_split=val_split,
            split_seed=split_seed,
            augment=augment,
            on_device=on_device,
        )
        self.save_hyperparameters(logger=False)
        self.num_workers = min(cores(), 8) if num_workers is None else num_workers
        self.stages = ("train", "test") if (self.root / "test").is_dir() else ("train",)

    def prepare_data(self) -> None:
        """Looks for the folders; they can't be downloaded from here.

        Raises:
            UserError: If a folder or its `digitStruct.mat` is missing.
        """
        for part in self.stages:
            check_folder(self.root / part)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """The photos of the training or the test part as squares, and their labels, in the official order.

        Returns:
            uint8 `(n, 3, side, side)`; float32 `(n, max_boxes, 5)`.
        """
        folder, side = self.root / ("train" if train else "test"), self.image_size
        annotations = read_folder(folder, self.root / CACHE)
        paths = [str(folder / name) for name in annotations.names]
        images = torch.empty(len(paths), 3, side, side, dtype=torch.uint8)
        hidden = None if getattr(rank_zero_only, "rank", 0) == 0 else True
        with tqdm(total=len(paths), desc=f"Reading {folder}", disable=hidden) as progress:
            for positions, squares, faults in decode(paths, self.preprocessing.read, 3 * side**2, self.num_workers):
                if faults:
                    raise UserError(faults[0])
                images[positions] = squares
                progress.update(len(positions))
        annotations = annotations.upright([photo_facts(path) for path in paths])
        own = np.repeat(annotations.sizes, annotations.lengths, axis=0)
        # clipped to the photo first: the bars around it are no part of a digit
        inside = annotations.boxes.clip(0, np.tile(own, 2))
        return images, self.boxes_as_labels(replace(annotations, boxes=letterbox(inside, own, side)))
