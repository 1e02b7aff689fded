"""Rendered ships at sea, with masks or with boxes."""

from typing import Any, ClassVar

from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from lightning_cnn.datamodules.detection.base import BoxDataModule
from lightning_cnn.datamodules.segmentation.base import MaskDataModule
from lightning_cnn.datamodules.ships.rendering import Scenes, render
from lightning_cnn.errors import check

SMALLEST = 16


class RenderedShips:
    """Options of data sets of rendered ships.

    Args:
        image_size: Side of the images in pixels. A ship is from 7 pixels to 0.62 of the side long.
        train_images: Number of images for training and validation.
        test_images: Number of images for the test.
        max_ships: Largest number of ships in an image.
        seed: Seed of the rendering, independent of the seed of the run.
    """

    fixed: ClassVar[tuple[str, ...]] = ("download",)
    image_size: int

    def __init__(
        self,
        root: str | None = None,
        *,
        image_size: int = 96,
        train_images: int = 4000,
        test_images: int = 1000,
        max_ships: int = 6,
        seed: int = 0,
        **options: Any,
    ) -> None:
        check("data.image_size", image_size, least=SMALLEST)
        check("data.train_images", train_images, least=2)
        check("data.test_images", test_images, least=1)
        check("data.max_ships", max_ships, least=1, most=50)
        # it stands before a data set
        super().__init__(root, image_size=image_size, download=False, **options)  # type: ignore[call-arg]
        self.train_images = train_images
        self.test_images = test_images
        self.max_ships = max_ships
        self.seed = seed

    def render(self, train: bool) -> Scenes:
        """The scenes of the training or the test part; says so.

        Args:
            train: The training part, or the test part.
        """
        count, part = (self.train_images, "training") if train else (self.test_images, "test")
        rank_zero_info(f"{type(self).__name__}: rendering {count:,} {part} images")
        return render(count, self.image_size, 2 * self.seed + train, self.max_ships)


class SyntheticShips(RenderedShips, MaskDataModule):
    """Rendered satellite images of ships, with a mask of the ships; no download.

    The images show the sea in different states, coasts, towns, islands, piers, clouds, and boats and ships of all
    sizes and headings, at anchor or with a wake. Pixels of ships under clouds count in no loss and no metric. The same
    seed gives the same images. Results are not results on real scenes.
    """

    num_classes = 2
    in_channels = 3
    class_names = ("background", "ship")
    has_background = True
    usual_objects = ("ship",)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Draws the training or the test part.

        Returns:
            uint8 `(n, 3, side, side)`; uint8 `(n, side, side)`: 1 in ships, 255 where clouds hide them.
        """
        scenes = self.render(train)
        return scenes.images, scenes.masks


class SyntheticShipBoxes(RenderedShips, BoxDataModule):
    """Rendered satellite images of ships, with a box around each ship; no download.

    The images are those of `SyntheticShips`. A box is that of a ship's pixels within the image, without its wake. A
    ship that is mostly hidden by clouds is a crowd region. Results are not results on real scenes.
    """

    fixed: ClassVar[tuple[str, ...]] = ("max_boxes",)
    num_classes = 1
    class_names = ("ship",)
    what = "ships"

    def __init__(self, root: str | None = None, *, max_ships: int = 6, **options: Any) -> None:
        super().__init__(root, max_ships=max_ships, max_boxes=max_ships, **options)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Draws the training or the test part.

        Returns:
            uint8 `(n, 3, side, side)`; float32 `(n, max_ships, 5)`.
        """
        scenes = self.render(train)
        return scenes.images, self.boxes_as_labels(scenes.ships)
