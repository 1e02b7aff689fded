"""Rendered house numbers: for training without SVHN's images."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.geometry import read_annotations, sample_annotations
from lightning_cnn.datamodules.house_numbers.rendering import NEIGHBOURS, render
from lightning_cnn.datamodules.house_numbers.svhn_folder import CACHE
from lightning_cnn.datamodules.house_numbers.whole_numbers import HouseNumbers
from lightning_cnn.datamodules.images.mnist import MNIST
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import UserError, check, require


class RenderedNumbers:
    """Options of data sets of rendered numbers: their annotations, their handwriting and their size.

    Args:
        root: Folder of the data, for MNIST; default `$LIGHTNING_CNN_DATA` or `data/`.
        download: Whether to download MNIST if it is missing.
        annotations: Zip of SVHN's annotations, XML files `train/1.xml`, ..., or a Parquet file of them, of which every
            fourth is for the test; without it, numbers are sampled from the distributions measured on them.
        handwriting: Share of the numbers that use MNIST's handwritten digits.
        train_images: Number of images for training and validation. If it exceeds the number of annotations, these
            repeat with other handwriting and another wall.
        test_images: Number of images for the test.
        seed: Seed of the rendering, independent of the seed of the run.
    """

    root: Path
    download: bool
    in_channels: int
    preprocessing: Preprocessing

    def __init__(
        self,
        root: str | None = None,
        *,
        annotations: str | None = None,
        handwriting: float = 0.2,
        train_images: int = 33000,
        test_images: int = 5000,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)  # type: ignore[call-arg]  # it stands before a data set
        check("data.train_images", train_images, least=2)
        check("data.test_images", test_images, least=2)
        check("data.handwriting", handwriting, least=0, most=1)
        self.train_images = train_images
        self.test_images = test_images
        if annotations is not None:
            require("svhn", "`data.annotations`")
        self.annotations = annotations
        self.handwriting = handwriting
        self.seed = seed
        self._mnist = MNIST(root=str(self.root), download=self.download) if handwriting else None

    def prepare_data(self) -> None:
        """Downloads MNIST where its handwriting is asked for and missing.

        Raises:
            UserError: If it can't be had.
        """
        if self._mnist is None:
            return
        try:
            self._mnist.prepare_data()
        except UserError as error:
            reason = str(error).partition("; ")[0]
            raise UserError(
                f"{reason}; without MNIST's handwriting: `data.handwriting` 0; or name its folder with `data.root`"
            ) from None

    def geometry(self, train: bool, kind: str) -> DigitAnnotations:
        """The numbers to render: from the annotations of the same part, repeated where there are fewer; says so.

        Args:
            train: The training part, or the test part.
            kind: What is rendered, such as photos.
        """
        count, part = (self.train_images, "training") if train else (self.test_images, "test")
        of = "sampled like SVHN's" if self.annotations is None else f"of the real annotations in {self.annotations}"
        rank_zero_info(f"{type(self).__name__}: rendering {count:,} {part} {kind}, {of}")
        if self.annotations is None:
            return sample_annotations(count, self._rendering_seed(train))
        found = read_annotations(Path(self.annotations), "train" if train else "test", self.root / CACHE)
        random = np.random.default_rng(self._rendering_seed(train))
        rounds = [random.permutation(len(found)) for _ in range(0, count, len(found))]
        return found.select(np.concatenate(rounds)[:count])

    def render(
        self, annotations: DigitAnnotations, frames: NDArray[np.int64], train: bool, neighbours: float = NEIGHBOURS
    ) -> tuple[Tensor, Tensor]:
        """The rendered images and the boxes in them; see `number_rendering.render`.

        Args:
            annotations: What to render.
            frames: Which part of each image.
            train: Whether handwriting is MNIST's training part, or its test part.
            neighbours: Share of the numbers with a further digit beside them, on each side, that has no box.
        """
        written = None
        if self._mnist is not None:
            images, classes = self._mnist.load(train)
            written = images[:, 0], classes
        size, color, seed = (self.preprocessing.inner_size,) * 2, self.in_channels == 3, self._rendering_seed(train)
        return render(annotations, frames, size, color, seed, self.handwriting, written, neighbours)

    def _rendering_seed(self, train: bool) -> int:
        return 2 * self.seed + train


class SyntheticNumbers(RenderedNumbers, HouseNumbers):
    """Rendered house numbers with the lengths, digits, boxes and sizes of SVHN; results are not SVHN results.

    Each number uses one of 16 fonts or MNIST's handwriting, and is rotated and slanted, on a wall with light, stains
    and edges, next to parts of other digits, blurred and noisy. The same seed gives the same images.
    Training numbers have SVHN's training annotations and MNIST's training digits, test numbers those of the test parts.
    """

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Draws the training or the test part.

        Returns:
            uint8 `(n, channels, side, side)`, the side with its margins; int64 `(n, 6)`: count, digits, 10 for none.
        """
        numbers = self.geometry(train, "numbers")
        images, _ = self.render(numbers, numbers.crops(self.grow), train)
        return images, numbers.labels()
