"""From an image to what a network sees: the same steps in training and in prediction."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import resize as resize_tensor

from lightning_cnn.datamodules.house_numbers.letterbox import pad
from lightning_cnn.datamodules.images.photo import fault_of, open_photo
from lightning_cnn.errors import UserError

Resize = Literal["stretch", "crop", "pad"]


@dataclass(frozen=True)
class Preprocessing:
    """Size, color and scaling of the images of one data set.

    Attributes:
        image_size: Side of the images that the network sees, in pixels.
        in_channels: 1 for gray, 3 for color.
        padding: Pixels of border on each side, part of `image_size`; their value is 0.
        margin: Pixels that are cut off on each side after an image was brought to size; training cuts at random.
        resize: How an image that is not square becomes square: `stretch` it, `crop` its middle, or `pad` it; `keep`
            leaves each image at its own size.
        interpolation: `bilinear` or `bicubic`.
        crop_share: Side of the middle that `crop` keeps, as a share of the image's shorter side.
        mean: Mean of each channel, on a scale of 0 to 1; subtracted.
        std: Standard deviation of each channel; divided by.
        per_image: Whether each image is scaled by its own mean and standard deviation, over all its values.
        class_names: Names of the classes, in the order of the network's outputs.
        background: Color behind transparent pixels; None, as in older checkpoints, takes the color that lies beneath.
    """

    image_size: int
    in_channels: int
    padding: int = 0
    margin: int = 0
    resize: Resize | Literal["keep"] = "stretch"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop_share: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    per_image: bool = False
    class_names: tuple[str, ...] = ()
    background: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From the plain data of a checkpoint."""
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: str, int, float and lists of these."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def inner_size(self) -> int:
        """Side to which images are resized, before margins are cut off and padding is added."""
        return self.image_size - 2 * self.padding + 2 * self.margin

    def middle(self, images: Tensor) -> Tensor:
        """Images without their margin, on the last two dimensions."""
        return images[..., self.margin : -self.margin, self.margin : -self.margin] if self.margin else images

    def read(self, photo: str | Path | Image.Image) -> Tensor:
        """Decodes an image.

        Args:
            photo: A file of any format that Pillow reads, or an image of Pillow, as `open_photo` reads it: upright,
                16-bit and floating-point pixels scaled to 8 bits, transparent pixels in front of `background`.

        Returns:
            uint8, `(in_channels, image_size, image_size)`; with `keep` of the image's own height and width.

        Raises:
            UserError: If it can't be decoded.
        """
        try:
            image = open_photo(photo, "L" if self.in_channels == 1 else "RGB", self.background)
        except Exception as error:  # on a damaged file Pillow raises nearly everything
            raise UserError(f"can't decode the image {photo} ({fault_of(error)}): remove it or replace it") from None
        inner = (self.inner_size,) * 2
        method = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        if self.resize == "crop":
            image = ImageOps.fit(image, inner, method, bleed=(1 - self.crop_share) / 2)
        elif self.resize == "pad":
            image = pad(image, self.inner_size, method)
        elif self.resize == "stretch" and image.size != inner:
            image = image.resize(inner, method)
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        planes = pixels[None] if self.in_channels == 1 else pixels.permute(2, 0, 1).contiguous()
        return torch.nn.functional.pad(self.middle(planes), (self.padding,) * 4)

    def fit(self, images: Tensor) -> Tensor:
        """Brings images in memory to the size that the network sees.

        Args:
            images: uint8, `(n, in_channels, side, side)`.

        Returns:
            uint8, `(n, in_channels, side, side)`; the side is `image_size`, and that of the margin where there is one.
        """
        inner = self.inner_size
        if tuple(images.shape[-2:]) != (inner, inner):
            images = torch.cat([resize_tensor(part, [inner, inner], antialias=True) for part in images.split(4096)])
        return torch.nn.functional.pad(images, (self.padding,) * 4) if self.padding else images

    def standardize(self, parts: Iterable[Tensor]) -> Self:
        """The same with mean and standard deviation measured on images.

        Args:
            parts: The images in parts, of which one at a time is kept; each uint8
                `(n, in_channels, image_size, image_size)`. Training images only.
        """
        counts = torch.zeros(self.in_channels, 256, dtype=torch.float64)
        for images in parts:
            counts += torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in images.unbind(1)])
        share, value = counts / counts.sum(1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
        mean = share @ value
        std = (share * (value - mean[:, None]) ** 2).sum(1).sqrt().clamp_min(1 / 255)
        return replace(self, mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def scale(self, images: Tensor) -> Tensor:
        """Pixels of 0 to 1 to standardized ones, `(x - mean) / std` for each channel or image; the shape stays."""
        if self.per_image:
            std, mean = torch.std_mean(images, dim=(-3, -2, -1), correction=0, keepdim=True)
            return (images - mean) / std.clamp_min(1 / 255)  # an image of one color has no deviation
        if set(self.mean) == {0.0} and set(self.std) == {1.0}:
            return images
        mean, std = (_of_channels(values, images.dtype, images.device) for values in (self.mean, self.std))
        return (images - mean) / std

    def unscale(self, images: Tensor) -> Tensor:
        """The reverse of `scale`: pixels of 0 to 1; images scaled by themselves get three deviations of contrast."""
        if self.per_image:
            return (images / 6 + 0.5).clamp(0, 1)
        mean, std = (_of_channels(values, images.dtype, images.device) for values in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # type: ignore[untyped-decorator]  # a validation may be the first to ask
def _of_channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number for each channel, `(channels, 1, 1)`; a GPU would wait for each new one."""
    return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
