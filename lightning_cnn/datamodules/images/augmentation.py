"""Random changes to whole batches of images on the device, sampled anew for each image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Self, TypedDict, get_args

import torch
from torch import Tensor
from torch.nn import functional

from lightning_cnn.datamodules.images.moves import Fill, elastic_bends, flip_alternately, mirrored, shifted, warped
from lightning_cnn.datamodules.images.torchvision_transforms import apply_policy, mix
from lightning_cnn.errors import UserError, check, did_you_mean

Policy = Literal["none", "trivial", "rand"]


class AugmentOptions(TypedDict, total=False):
    """Random changes to each training image; all are off unless given.

    Args:
        shift: Largest shift in both directions, as a fraction of the side.
        flip: Whether half of the images are mirrored left to right.
        rotation: Largest rotation to either side, in degrees.
        zoom: Largest change of scale: 0.1 means 0.9 to 1.1.
        elastic: Strength of smooth deformations: standard deviation in pixels of the displacements of 3x3 points
            (Ronneberger et al. 2015, section 3.1: 10).
        cutout: Side of a square set to the mean color, or to black where nothing is subtracted, as a fraction of the
            image's side (DeVries and Taylor 2017).
        crop: Largest move in both directions, in whole pixels: a random crop of the image with so many pixels of
            border (He et al. 2016, section 4.2).
        crop_fill: The border of the crop: the image's reflection, `zero` (black), or its `nearest` pixels.
        alternating_flip: Whether each image is mirrored left to right in every other epoch, half of them in the first
            (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.6); in place of `flip`.
        mixup: Alpha of mixup, the blend of two images and of their labels (Zhang et al. 2018); 0.2 is usual.
        cutmix: Alpha of cutmix, a rectangle of one image in another, labels by area (Yun et al. 2019); 1 is usual.
            With mixup, too, each batch takes one of the two at random.
        policy: `trivial` is TrivialAugment, one of 14 changes of shape or color for each image (Mueller and
            Hutter 2021); `rand` is RandAugment, two of them at medium strength (Cubuk et al. 2020). Image by image,
            and so the slowest of all: on a CPU core 0.12 and 0.22 ms for each of 32x32 pixels.
        small_epochs: In how many epochs at the beginning the images are small, which saves time (progressive learning,
            Tan and Le 2021, section 4). The network must take images of both sizes.
        small_scale: Side of these images, as a fraction of the side.
    """

    shift: float
    flip: bool
    rotation: float
    zoom: float
    elastic: float
    cutout: float
    crop: int
    crop_fill: Fill
    alternating_flip: bool
    mixup: float
    cutmix: float
    policy: Policy
    small_epochs: int
    small_scale: float


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a batch of training images, each image with its own random values.

    Pixels that a shift, rotation or zoom brings in from outside the image repeat its border ("nearest" in Keras). The
    fields mean what `AugmentOptions` says.

    Raises:
        UserError: If a value lies outside its range.
    """

    shift: float = 0.0
    flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    elastic: float = 0.0
    cutout: float = 0.0
    crop: int = 0
    crop_fill: Fill = "reflect"
    alternating_flip: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    policy: Policy = "none"
    small_epochs: int = 0
    small_scale: float = 0.75

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name, top in (("shift", 1), ("zoom", 0.99), ("cutout", 1), ("rotation", 180), ("elastic", 100)):
            check(f"data.augment.{name}", getattr(self, name), least=0, most=top)
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            if value and not 0.01 <= value <= 100:  # below, float32 draws no Beta distribution
                raise UserError(f"`data.augment.{name}` {value}: expected 0, or a number from 0.01 to 100")
        for name, choices in (("crop_fill", get_args(Fill)), ("policy", get_args(Policy))):
            value = getattr(self, name)
            if value not in choices:
                raise UserError(f"`data.augment.{name}` {value}: it must be one of {', '.join(choices)}")
        if self.crop < 0 or self.crop != int(self.crop):
            raise UserError(f"`data.augment.crop` {self.crop}: it must be a number of pixels, such as 4")
        if self.small_epochs < 0 or self.small_epochs != int(self.small_epochs):
            raise UserError(f"`data.augment.small_epochs` {self.small_epochs}: it must be a number of epochs")
        check("data.augment.small_scale", self.small_scale, above=0, most=1)
        if self.flip and self.alternating_flip:
            raise UserError("`data.augment.flip` and `data.augment.alternating_flip`: set one of the two to false")

    @classmethod
    def from_options(cls, options: AugmentOptions | None) -> Self:
        """The augmentation that a configuration asks for.

        Raises:
            UserError: If a name is unknown or a value lies outside its range.
        """
        known = [field.name for field in fields(cls)]
        for name in options or {}:
            if name not in known:
                hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
                raise UserError(f"unknown option `data.augment.{name}`{hint}")
        return cls(**(options or {}))

    @property
    def active(self) -> bool:
        """Whether any change is on."""
        return replace(self, crop_fill="reflect", small_scale=0.75) != Augmentation()

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated: otherwise images are moved by whole pixels, or mirrored."""
        return bool(self.shift or self.rotation or self.zoom or self.elastic)

    def check(self, image_size: int, in_channels: int, num_classes: int) -> None:
        """Checks that the changes suit the data.

        Raises:
            UserError: If they don't.
        """
        if self.crop >= image_size:
            raise UserError(f"`data.augment.crop` {self.crop}: it must be less than the image's side, {image_size}")
        if self.policy != "none" and in_channels not in (1, 3):
            raise UserError(
                f"`data.augment.policy` {self.policy} requires gray or RGB images, but these have {in_channels} "
                "channels: remove it"
            )
        for name in ("mixup", "cutmix"):
            if getattr(self, name) and num_classes < 2:
                raise UserError(
                    f"`data.augment.{name}` {getattr(self, name)} needs two or more classes, but the data have "
                    f"{num_classes}: set it to 0"
                )

    def change(self, images: Tensor, generator: torch.Generator, epoch: int, seed: int) -> Tensor:
        """All changes that come before the pixels are scaled.

        Args:
            images: uint8, `(n, channels, height, width)`.
            generator: On the images' device; the source of all draws but that of the alternating flip.
            epoch: The number of the epoch, for the alternating flip.
            seed: Seed of the run, for the alternating flip.

        Returns:
            Float, 0 to 1, of the same shape.
        """
        if self.alternating_flip:
            images = flip_alternately(images, epoch, seed)
        if self.policy != "none":
            images = apply_policy(images, self.policy, generator)
        return self.shift_pixels(self.warp(images.float() / 255, generator), generator)

    def warp(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Shifts, flips, rotates, zooms and deforms.

        Args:
            images: Float, `(n, channels, height, width)`.
            generator: On the images' device; the source of all draws.

        Returns:
            Images of the same shape.
        """
        if not (self.flip or self.resamples):
            return images
        matrices = self.matrices(len(images), generator, images.device)
        if self.resamples:
            return warped(images, matrices, bends=self.bends(len(images), images.shape[-2:], generator))
        return mirrored(images, matrices[:, 0, 0] < 0)

    def matrices(self, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Draws shifts, flips, rotations and zooms.

        Args:
            n: Number of images.
            generator: On the images' device; the source of all draws.
            device: The device of the images.

        Returns:
            `(n, 2, 3)`: leads from a place of the result to the place of the image that is seen there. The unit is
            half a side, the origin the middle, as in `affine_grid`.
        """

        def sample(limit: float) -> Tensor:
            return (torch.rand(n, device=device, generator=generator) * 2 - 1) * limit

        sign, zero = torch.ones(n, device=device), torch.zeros(n, device=device)
        if self.flip:
            sign = torch.where(torch.rand(n, device=device, generator=generator) < 0.5, -sign, sign)
        if not self.resamples:
            return torch.stack([sign, zero, zero, zero, zero + 1, zero], dim=1).view(n, 2, 3)
        angle, scale = sample(math.radians(self.rotation)), 1 / (1 + sample(self.zoom))
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        # affine_grid's unit is half a side: a shift by the whole side is 2
        return torch.stack(
            [cos * sign, -sin, 2 * sample(self.shift), sin * sign, cos, 2 * sample(self.shift)], dim=1
        ).view(n, 2, 3)

    def bends(self, n: int, size: Sequence[int], generator: torch.Generator) -> Tensor | None:
        """Draws elastic deformations, where these are on: `(n, height, width, 2)`, in pixels to the right and down.

        Args:
            n: Number of images.
            size: Height and width of the images.
            generator: On the images' device; the source of all draws.
        """
        return elastic_bends(n, self.elastic, (size[0], size[1]), generator) if self.elastic else None

    def shift_pixels(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Moves each image by whole pixels, the random crop of an image with a border.

        Args:
            images: `(n, channels, height, width)` of any type.
            generator: On the images' device.

        Returns:
            Images of the same shape and type.
        """
        if not self.crop:
            return images
        return shifted(images, self.shifts(len(images), generator, images.device), self.crop_fill)

    def shifts(self, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Draws the moves of the crop.

        Args:
            n: Number of images.
            generator: On the images' device.
            device: The device of the images.

        Returns:
            int64 `(2, n)`: a pixel of the result shows the pixel of the image so far below and to the right.
        """
        draws = (torch.randint(-self.crop, self.crop + 1, (n, 1), device=device, generator=generator) for _ in "yx")
        return torch.stack([*draws])[..., 0]

    def cut(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Sets one square of each image to zero, the mean of standardized images.

        The square's center is uniform over the image, so that a part of it may lie outside.

        Args:
            images: Float, `(n, channels, height, width)`.
            generator: On the images' device.

        Returns:
            Images of the same shape.
        """
        if not self.cutout:
            return images
        n, _, height, width = images.shape

        def inside(size: int) -> Tensor:
            centre = torch.rand(n, 1, device=images.device, generator=generator) * size
            return (torch.arange(size, device=images.device) + 0.5 - centre).abs() < self.cutout * size / 2

        square = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
        return images.masked_fill(square, 0)

    def mix(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mixes the images and their labels, where that is asked for.

        Args:
            images: Float, `(n, channels, height, width)`.
            labels: int64, `(n,)`.
            num_classes: Number of classes.
            generator: The source of all draws.

        Returns:
            Images of the same shape; labels `(n,)` as they were or, of mixed images, probabilities `(n, num_classes)`.
        """
        if not (self.mixup or self.cutmix):
            return images, labels
        return mix(images, labels, self.mixup, self.cutmix, num_classes, generator)

    def shrink(self, images: Tensor, epoch: int) -> Tensor:
        """Makes the images of the first epochs small.

        Args:
            images: Float, `(n, channels, height, width)`.
            epoch: The number of the epoch.

        Returns:
            Images of `small_side`, or as they were.
        """
        if epoch >= self.small_epochs:
            return images
        sides = [self.small_side(side) for side in images.shape[-2:]]
        return functional.interpolate(images, size=sides, mode="bilinear", antialias=True)

    def small_side(self, side: int) -> int:
        """The side of small images.

        Args:
            side: That of the others, in pixels.
        """
        return max(1, round(side * self.small_scale))
