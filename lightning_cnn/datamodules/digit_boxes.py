"""Whole photos of house numbers with a box around each digit: SVHN's, and rendered ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from lightning_cnn.datamodules.augmentation import AugmentOptions
from lightning_cnn.datamodules.decoding import cores, decode
from lightning_cnn.datamodules.digit_annotations import DigitAnnotations
from lightning_cnn.datamodules.image_datamodule import ImageDataModule, Normalize
from lightning_cnn.datamodules.svhn_folder import check_folder, read_folder
from lightning_cnn.datamodules.synthetic_numbers import CACHE, NumberSource
from lightning_cnn.errors import UserError
from lightning_cnn.letterbox import letterbox

KEEPS_PLACES = ("cutout",)  # augmentation that leaves every digit where its box is
NONE = -1  # the digit of rows that are not there


class DigitBoxes(ImageDataModule):
    """Whole photos as squares, with bars on two sides; the label is float32 `(max_boxes, 5)`, a row a digit.

    A row is the digit and its box: left, top, right, bottom in pixels of the square; the digit is -1 in rows that are
    not there. A data set of its own is a subclass with one method, `load`, which may use `boxes_as_labels`.

    Args:
        root: Folder of the data; default `$LIGHTNING_CNN_DATA` or `data/`.
        batch_size: Images in a batch, over all processes together.
        image_size: Side of the square in pixels, a multiple of 8.
        max_boxes: Digits of an image at most.
        normalize: `auto` and `standardize` by mean and standard deviation of the training part, `per_image` by each
            image's own, `unit` and `raw` as with other images.
        val_fraction: Share of the training data held back for validation.
        val_split: Which share: `random` (by `split_seed`), or the `first` or `last` rows as Keras takes them.
        split_seed: Seed of the random split; it does not depend on the seed of the run.
        augment: Random changes to the training images that leave the digits in their boxes: `{"cutout": 0.2}`.
        on_device: Whether the images are kept in the memory of the device.
        download: Whether missing files may be downloaded.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would leave the boxes behind.
    """

    num_classes = 10
    in_channels = 3
    native_size = 128
    class_names = tuple("0123456789")

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
        download: bool = True,
    ) -> None:
        super().__init__(
            root=root,
            batch_size=batch_size,
            image_size=image_size,
            normalize=normalize,
            val_fraction=val_fraction,
            val_split=val_split,
            split_seed=split_seed,
            augment=augment,
            on_device=on_device,
            download=download,
        )
        self.save_hyperparameters(logger=False)
        for name in augment or {}:
            if name not in (*KEEPS_PLACES, "crop_fill") and getattr(self.augmentation, name) not in (0, "none"):
                raise UserError(f"--data.augment.{name} would leave the boxes behind: leave it out")
        if max_boxes < 1:
            raise UserError(f"--data.max_boxes {max_boxes}: it must be at least 1")
        self.max_boxes = max_boxes
        self.preprocessing = replace(self.preprocessing, resize="pad")

    def boxes_as_labels(self, annotations: DigitAnnotations) -> Tensor:
        """Labels of images whose boxes are already in pixels of the square.

        Boxes are clipped to it; those that lie outside are left out, with a warning that counts them.

        Args:
            annotations: Of `n` images.

        Returns:
            float32, `(n, max_boxes, 5)`.

        Raises:
            UserError: If an image has more digits than there is room for.
        """
        longest = int(annotations.lengths.max(initial=0))
        if longest > self.max_boxes:
            name = annotations.names[int(annotations.lengths.argmax())]
            raise UserError(
                f"--data.max_boxes {self.max_boxes}: {name} has {longest} digits: try --data.max_boxes {longest}"
            )
        boxes = annotations.boxes.clip(0, self.image_size)
        inside = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
        rows = np.repeat(np.arange(len(annotations)), annotations.lengths)
        if not inside.all():
            name = annotations.names[rows[inside.argmin()]]
            rank_zero_warn(
                f"left out: {(~inside).sum():,} of {len(inside):,} boxes lie outside their photo, or show less than a "
                f"pixel at --data.image_size {self.image_size} (first in {name})"
            )
        places = np.arange(len(rows)) - annotations.starts[rows]
        labels = np.full((len(annotations), self.max_boxes, 5), NONE, dtype=np.float32)
        labels[rows[inside], places[inside], 0] = annotations.digits[inside]
        labels[rows[inside], places[inside], 1:] = boxes[inside]
        return torch.from_numpy(labels)

    def plot(self, count: int | None = None, augmented: bool = False) -> Any:
        """Draws training images, evenly spread, with their boxes.

        Args:
            count: How many; default 25.
            augmented: Whether they are drawn as the first epoch may show them.

        Returns:
            A matplotlib `Figure`.
        """
        from lightning_cnn.box_plots import draw_detections

        self.setup("fit")
        images, labels = self._sets["train"][self._sample(count or 25)]
        pixels = images.float() / 255
        if augmented:
            generator = torch.Generator(images.device).manual_seed(self._seed)
            pixels = self.preprocessing.unscale(self.augment(images, labels, generator, epoch=0)[0])
        return draw_detections(pixels, None, labels)


class SVHNBoxes(DigitBoxes):
    """Whole photos of house numbers in Google Street View with a box around each digit: 33,402 and 13,068 for the test.

    The folders `train/` and `test/` lie in `<root>/`, each with its photos and its `digitStruct.mat`, as the official
    archives unpack. Photos are fitted into a square as wholes; at 128 pixels the training part takes 1.6 GB of memory.

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
        sizes = np.array([_size(path) for path in paths])
        own = np.repeat(sizes, annotations.lengths, axis=0)
        # clipped to the photo first: the bars around it are no part of a digit
        inside = annotations.boxes.clip(0, np.tile(own, 2))
        return images, self.boxes_as_labels(replace(annotations, boxes=letterbox(inside, own, side), sizes=sizes))


class SyntheticBoxes(DigitBoxes):
    """Rendered photos of house numbers with a box around each digit; scores on them are no SVHN scores.

    They have the lengths, digits, boxes and sizes of SVHN's; see `SyntheticNumbers`. The wall goes on where the photo
    is no square. The same seed gives the same images.

    Args:
        root: Folder of the data, for MNIST; default `$LIGHTNING_CNN_DATA` or `data/`.
        batch_size: Images in a batch, over all processes together.
        image_size: Side of the square in pixels, a multiple of 8.
        max_boxes: Digits of an image at most.
        normalize: `auto` and `standardize` by mean and standard deviation of the training part, `per_image` by each
            image's own, `unit` and `raw` as with other images.
        val_fraction: Share of the training data held back for validation.
        val_split: Which share: `random` (by `split_seed`), or the `first` or `last` rows as Keras takes them.
        split_seed: Seed of the random split; it does not depend on the seed of the run.
        augment: Random changes to the training images that leave the digits in their boxes: `{"cutout": 0.2}`.
        on_device: Whether the images are kept in the memory of the device.
        download: Whether MNIST may be downloaded where it is missing.
        annotations: Zip of SVHN's real annotations, XML files `train/1.xml`, ...; without it, numbers are drawn from
            the distributions measured on them.
        handwriting: Share of the numbers that are written with MNIST's digits.
        train_images: Photos for training and validation; with more than there are annotations these repeat, in another
            hand and on another wall.
        test_images: Photos for the test.
        seed: Of the drawing; it does not depend on the seed of the run.

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
        download: bool = True,
        annotations: str | None = None,
        handwriting: float = 0.2,
        train_images: int = 10000,
        test_images: int = 2000,
        seed: int = 0,
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
            download=download,
        )
        self.save_hyperparameters(logger=False)
        for name, value in (("train_images", train_images), ("test_images", test_images)):
            if value < 2:
                raise UserError(f"--data.{name} {value}: it must be at least 2")
        self.train_images = train_images
        self.test_images = test_images
        self.source = NumberSource(self.root, annotations, handwriting, seed, download)

    def prepare_data(self) -> None:
        """Downloads MNIST where its handwriting is asked for and missing.

        Raises:
            UserError: If it can't be had.
        """
        self.source.prepare()

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Draws the training or the test part.

        Returns:
            uint8 `(n, 3, side, side)`; float32 `(n, max_boxes, 5)`.
        """
        count = self.train_images if train else self.test_images
        rank_zero_info(
            f"SyntheticBoxes: drawing {count:,} {'training' if train else 'test'} photos, {self.source.says()}"
        )
        numbers = self.source.geometry(train, count)
        side = numbers.sizes.max(1, keepdims=True)
        low = (numbers.sizes - side) // 2
        frames = np.concatenate([low, low + side], axis=1)
        # a digit without a box would be taught as none
        images, boxes = self.source.render(numbers, frames, self.image_size, True, train, neighbours=0.0)
        return images, self.boxes_as_labels(replace(numbers, boxes=boxes.numpy()))


def _size(path: str) -> tuple[int, int]:
    """Width and height of an image file, which its header says."""
    with Image.open(Path(path)) as file:
        return file.size
