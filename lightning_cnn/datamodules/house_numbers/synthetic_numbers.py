"""Rendered house numbers: for training without SVHN's images."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.geometry import draw_annotations, read_annotations
from lightning_cnn.datamodules.house_numbers.rendering import NEIGHBOURS, render
from lightning_cnn.datamodules.house_numbers.whole_numbers import Color, HouseNumbers
from lightning_cnn.datamodules.images.augmentation import AugmentOptions
from lightning_cnn.datamodules.images.base import Normalize
from lightning_cnn.datamodules.images.mnist import MNIST
from lightning_cnn.errors import UserError

CACHE = ".cache"


class NumberSource:
    """Where rendered numbers come from: annotations, and real handwriting.

    Args:
        root: Folder of the data, with MNIST where handwriting is asked for.
        annotations: A zip of SVHN's annotations, or a Parquet file of them; None draws them like those.
        handwriting: Share of the numbers written with MNIST's digits.
        seed: Of all draws.
        download: Whether MNIST may be downloaded.

    Raises:
        UserError: If the share lies outside its range.
    """

    def __init__(self, root: Path, annotations: str | None, handwriting: float, seed: int, download: bool) -> None:
        if not 0 <= handwriting <= 1:
            raise UserError(f"--data.handwriting {handwriting}: it must lie between 0 and 1")
        self.root = root
        self.annotations = annotations
        self.handwriting = handwriting
        self.seed = seed
        self._mnist = MNIST(root=str(root), download=download) if handwriting else None

    def prepare(self) -> None:
        """Looks for MNIST, where handwriting is asked for.

        Raises:
            UserError: If it is missing and can't be downloaded.
        """
        if self._mnist is None:
            return
        try:
            self._mnist.prepare_data()
        except UserError as error:
            reason = str(error).partition("; ")[0]
            raise UserError(
                f"{reason}; without MNIST's handwriting: --data.handwriting 0; or name its folder with --data.root"
            ) from None

    def geometry(self, train: bool, count: int) -> DigitAnnotations:
        """The numbers to draw: from the annotations of the same part, repeated where there are fewer.

        Args:
            train: The training part, or the test part.
            count: How many.
        """
        if self.annotations is None:
            return draw_annotations(count, self._seed(train))
        part = "train" if train else "test"
        found = read_annotations(Path(self.annotations), part, self.root / CACHE)
        random = np.random.default_rng(self._seed(train))
        rounds = [random.permutation(len(found)) for _ in range(0, count, len(found))]
        return found.select(np.concatenate(rounds)[:count])

    def render(
        self,
        annotations: DigitAnnotations,
        frames: NDArray[np.int64],
        side: int,
        color: bool,
        train: bool,
        neighbours: float = NEIGHBOURS,
    ) -> tuple[Tensor, Tensor]:
        """The drawn images and the boxes in them; see `number_rendering.render`.

        Args:
            annotations: What to draw.
            frames: Which part of each image.
            side: Of the drawn images, in pixels.
            color: Whether they have three channels.
            train: Whether handwriting is MNIST's training part, or its test part.
            neighbours: Share of the numbers with a further digit beside them, on each side, that has no box.
        """
        written = None
        if self._mnist is not None:
            images, classes = self._mnist.load(train)
            written = images[:, 0], classes
        return render(
            annotations, frames, (side, side), color, self._seed(train), self.handwriting, written, neighbours
        )

    def says(self) -> str:
        """From where the numbers come, in words."""
        return "drawn like SVHN's" if self.annotations is None else f"of the real annotations in {self.annotations}"

    def _seed(self, train: bool) -> int:
        return 2 * self.seed + train


class SyntheticNumbers(HouseNumbers):
    """Rendered house numbers, with the lengths, digits, boxes and sizes of SVHN's; scores on them are no SVHN scores.

    Each number is written in one of 16 fonts or in MNIST's real handwriting, turned and slanted, on a wall with light,
    stains and edges, with parts of other digits beside it, blurred and noisy. The same seed gives the same images.
    Training numbers have SVHN's training annotations and MNIST's training digits, test numbers those of the test parts.

    Args:
        root: Folder of the data, for MNIST; default `$LIGHTNING_CNN_DATA` or `data/`.
        batch_size: Images in a batch, over all processes together.
        image_size: Side of the images that the network sees, in pixels.
        margin: Pixels by which the images that are kept are larger on each side: training sees a random part of them,
            measurement the middle. The paper keeps 64 and sees 54, a margin of 5 (Goodfellow et al. 2013, section 5).
        color: `rgb`, or `grey` by the weights .2989, .5870 and .1140.
        grow: Share by which the box of all digits grows on each side before it is cut out.
        normalize: `per_image` by each image's own mean and standard deviation; `auto`, `standardize`, `unit` and `raw`
            as with other images.
        val_fraction: Share of the training data held back for validation.
        val_split: Which share: `random` (by `split_seed`), or the `first` or `last` rows as Keras takes them.
        split_seed: Seed of the random split; it does not depend on the seed of the run.
        augment: Random changes to the training images, such as `{"rotation": 10, "zoom": 0.1}`.
        on_device: Whether the images are kept in the memory of the device.
        download: Whether MNIST may be downloaded where it is missing.
        annotations: Zip of SVHN's real annotations, XML files `train/1.xml`, ..., or a Parquet file of them, of which
            every fourth is for the test; without it, numbers are drawn from the distributions measured on them.
        handwriting: Share of the numbers that are written with MNIST's digits.
        train_images: Numbers for training and validation; with more than there are annotations these repeat, in
            another hand and on another wall.
        test_images: Numbers for the test.
        seed: Of the drawing; it does not depend on the seed of the run.

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
        download: bool = True,
        annotations: str | None = None,
        handwriting: float = 0.2,
        train_images: int = 33000,
        test_images: int = 5000,
        seed: int = 0,
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
            uint8 `(n, channels, side, side)`, the side with its margins; int64 `(n, 6)`: count, digits, 10 for none.
        """
        count = self.train_images if train else self.test_images
        part = "training" if train else "test"
        rank_zero_info(f"SyntheticNumbers: drawing {count:,} {part} numbers, {self.source.says()}")
        numbers = self.source.geometry(train, count)
        frames, color = numbers.crops(self.grow), self.in_channels == 3
        images, _ = self.source.render(numbers, frames, self.preprocessing.inner_size, color, train)
        return images, numbers.labels()
