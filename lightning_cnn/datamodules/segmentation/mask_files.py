"""Reads the mask of an image: class indices, black and white, or colors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from lightning_cnn.datamodules.images.photo import fault_of
from lightning_cnn.errors import UserError
from lightning_cnn.options import IGNORE

# what the names of masks end in; of TIFF and WebP only files without loss
MASKS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".pbm", ".ppm")
LOSSY = (".jpg", ".jpeg", ".jp2", ".avif", ".heic")
CURE = "save masks as PNG"
LARGEST = 2**16 - 1  # pixel value
UNKNOWN = -1
BLACK_AND_WHITE = {(0, 0, 0), (255, 255, 255)}


@dataclass(frozen=True)
class MaskReader:
    """Reads masks as uint8 `(height, width)`: the class of each pixel, `IGNORE` where it does not count.

    Attributes:
        classes: Number of classes.
        ignore_index: Pixel value that does not count, of masks of class indices; None for none.
        binary: Whether 0 is class 0, and 255 (or 1) class 1.
        colors: Of masks in colors: class of each red, green and blue value; empty for other masks.
    """

    classes: int
    ignore_index: int | None = IGNORE
    binary: bool = False
    colors: Mapping[tuple[int, ...], int] | None = None

    def __call__(self, path: str | Path) -> Tensor:
        """Reads a mask.

        Args:
            path: A file without lossy compression: gray, with a palette (whose indices are read), or with `colors`
                RGB.

        Raises:
            UserError: If it can't be decoded, is of another kind, or a pixel is of no class.
        """
        try:
            with Path(path).open("rb") as content, Image.open(content) as file:
                if is_lossy(file, content):
                    raise UserError(f"{path} is compressed with loss, which changes classes: {CURE}")
                image = ImageOps.exif_transpose(file)
                return torch.from_numpy(self._classes(image, path))
        except UserError:
            raise
        except Exception as error:  # on a damaged file Pillow raises nearly everything
            raise UserError(f"can't decode the mask {path} ({fault_of(error)}): replace it") from None

    def _classes(self, image: Image.Image, path: str | Path) -> NDArray[np.uint8]:
        if self.colors is not None:
            return self._of_colors(np.asarray(image.convert("RGB")), self.colors, path)
        if self.binary and image.mode == "P":
            used = image.convert("RGB").getcolors()
            if used and {color for _, color in used} <= BLACK_AND_WHITE:
                image = image.convert("L")  # white may come first in its palette
        values = np.asarray(image)
        is_gray = self.binary and image.mode in ("RGB", "RGBA") and (values[..., :1] == values[..., :3]).all()
        if is_gray or image.mode in ("LA", "PA"):
            values = values[..., 0]
        if values.ndim != 2 or values.dtype.kind not in "biu":
            hint = "" if values.ndim == 2 else "; for colors give each class its color with `data.colors`"
            raise UserError(f"{path} is of mode {image.mode}, expected gray or palette pixels{hint}")
        known = {0: 0, 1: 1, 255: 1, LARGEST: 1} if self.binary else {i: i for i in range(self.classes)}
        if self.ignore_index is not None and not self.binary:
            known[self.ignore_index] = IGNORE
        values = values.astype(np.uint8) if values.dtype == bool else values
        if int(values.min()) < 0 or int(values.max()) > LARGEST:
            found = int(values.min()) if int(values.min()) < 0 else int(values.max())
        else:
            table = np.full(int(values.max()) + 1, UNKNOWN, dtype=np.int16)
            for value, number in known.items():
                table[value : value + 1] = number
            classes = table[values]
            if not (classes == UNKNOWN).any():
                result: NDArray[np.uint8] = classes.astype(np.uint8)
                return result
            found = int(values.flat[(classes == UNKNOWN).argmax()])
        raise UserError(f"{path}: pixel value {found} is no class: {self._expected()}")

    def _expected(self) -> str:
        if self.binary:
            return "with `data.binary` true expected 0 and 255"
        ignored = "" if self.ignore_index is None else f", and `data.ignore_index` {self.ignore_index}"
        return f"expected 0 to {self.classes - 1}{ignored}"

    def _of_colors(
        self, pixels: NDArray[np.uint8], colors: Mapping[tuple[int, ...], int], path: str | Path
    ) -> NDArray[np.uint8]:
        """The classes of RGB pixels `(height, width, 3)`."""
        codes = _codes(pixels.astype(np.int64))
        order = sorted(colors, key=lambda color: int(_codes(np.array(color))))
        keys, classes = _codes(np.array(order)), np.array([colors[color] for color in order], dtype=np.uint8)
        places = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
        unknown = keys[places] != codes
        if unknown.any():
            color = pixels[np.unravel_index(unknown.argmax(), unknown.shape)].tolist()
            raise UserError(f"{path}: the color {color} is none of `data.colors`: add its class, or `ignore`")
        result: NDArray[np.uint8] = classes[places]
        return result


def _codes(colors: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each color `(..., 3)`."""
    codes: NDArray[np.int64] = colors @ np.array([2**16, 2**8, 1])
    return codes


def is_lossy(file: Image.Image, content: BinaryIO) -> bool:
    """Whether an open image file is compressed with loss.

    Args:
        file: The image.
        content: The file from which it is read; its position does not change.
    """
    if file.format == "WEBP":
        place = content.tell()
        content.seek(0)
        lossless = b"VP8L" in content.read()
        content.seek(place)
        return not lossless
    return file.format in ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF") or "jpeg" in str(file.info.get("compression"))


def color_table(names: Sequence[str], colors: Mapping[str, Any]) -> dict[tuple[int, ...], int]:
    """The class of each color.

    Args:
        names: Names of the classes.
        colors: Red, green and blue, 0 to 255, of each class, and perhaps of `ignore`.

    Raises:
        UserError: If a color is none, or two are equal.
    """
    table: dict[tuple[int, ...], int] = {}
    for name, color in colors.items():
        numbers = tuple(color) if isinstance(color, list | tuple) else ()
        if len(numbers) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in numbers):
            raise UserError(f"`data.colors` {name}: {color}; expected red, green and blue, such as [128, 64, 128]")
        if numbers in table:
            raise UserError(f"`data.colors` {name}: {list(numbers)} is the color of another class, too")
        table[numbers] = names.index(name) if name in names else IGNORE
    return table
