"""Images of any size, read window by window: files that Pillow decodes, and GeoTIFF through rasterio."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor
from torch import Tensor

from lightning_cnn.datamodules.images.photo import fault_of, open_photo
from lightning_cnn.errors import UserError, first_line, require

# tags of GeoTIFF (version 1.1, annex B): pixel scale, transformation, keys
GEOGRAPHIC = (33550, 34264, 34735)
LUMA = (19595, 38470, 7471)  # of red, green and blue in 65,536ths, as Pillow converts colors to gray (ITU-R 601-2)


class Scene(Protocol):
    """An image of any size.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        profile: What rasterio writes of its georeference; None without one.
    """

    height: int
    width: int
    profile: dict[str, Any] | None

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window, uint8 `(channels, height, width)`; what lies below or on the right of it repeats its border."""


class PhotoScene:
    """An image that Pillow decodes as a whole: four bytes a pixel.

    Args:
        photo: A file, or an image of Pillow.
        channels: 1 for gray, 3 for color.
        background: Color behind transparent pixels, as of `open_photo`.

    Raises:
        UserError: If it can't be decoded.
    """

    profile: dict[str, Any] | None = None

    def __init__(self, photo: str | Image.Image, channels: int, background: str | None = None) -> None:
        try:
            self.image = open_photo(photo, "L" if channels == 1 else "RGB", background)
        except Exception as error:  # on a damaged file Pillow raises nearly everything
            raise UserError(f"can't decode the image {photo} ({fault_of(error)}): remove it or replace it") from None
        self.width, self.height = self.image.size

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window, as of `Scene`."""
        box = (left, top, min(left + width, self.width), min(top + height, self.height))
        pixels = torch.from_numpy(np.array(self.image.crop(box)))
        return _extended(pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1), height, width)


class GeoScene:
    """A GeoTIFF, of which windows are read: bands 1 to 3 as red, green and blue, or one as gray or by its palette.

    Pixels are scaled to 8 bits as by `open_photo`: of 16 bits the high byte, floating-point ones from 0 to 1. Pixels
    without data in any band are 0, or the background where an alpha band says so.

    Args:
        path: The file.
        channels: 1 for gray, 3 for color.
        background: Color behind transparent pixels; None shows what lies beneath.

    Raises:
        UserError: If rasterio is missing, or can't read it.
    """

    def __init__(self, path: str, channels: int, background: str | None = None) -> None:
        require("geotiff", f"the GeoTIFF {path}")
        rasterio: Any = import_module("rasterio")
        self.path = path
        try:
            self.file = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise self._error(error) from None
        self.height, self.width, self.channels = self.file.height, self.file.width, channels
        self.bands = [1, 2, 3] if self.file.count >= 3 else [1]
        kinds = [*self.file.colorinterp]
        alpha = rasterio.enums.ColorInterp.alpha
        self.alpha = kinds.index(alpha) + 1 if alpha in kinds and background is not None else None
        color = ImageColor.getcolor(background or "black", "RGB" if len(self.bands) == 3 else "L")
        self.background = np.atleast_1d(color)[:, None, None]
        self.palette: NDArray[np.uint8] | None = None
        if len(self.bands) == 1 and self.file.colorinterp[0] == rasterio.enums.ColorInterp.palette:
            colors = self.file.colormap(1)
            self.palette = np.array([colors.get(number, (0, 0, 0))[:3] for number in range(256)], np.uint8)
        self.profile: dict[str, Any] | None = {"crs": self.file.crs, "transform": self.file.transform}

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window, as of `Scene`.

        Raises:
            UserError: If it can't be read, or its pixels are of another kind.
        """
        rasterio: Any = import_module("rasterio")
        window = self._window(top, left, height, width)
        try:
            values = self.file.read(self.bands, window=window)
            clear = None if self.alpha is None else self.file.read(self.alpha, window=window)
        except rasterio.errors.RasterioError as error:
            raise self._error(error) from None
        if self.file.nodata is not None:
            none = np.isnan(values) if np.isnan(self.file.nodata) else (values == self.file.nodata).all(0)
            values[np.broadcast_to(none, values.shape)] = 0
        if values.dtype.kind == "f" and ((values >= 0) & (values <= 1)).all():
            values = np.rint(values * 255).astype(np.uint8)
        elif values.dtype == np.uint16:
            values = (values >> 8).astype(np.uint8)
        elif values.dtype != np.uint8:
            raise self._error(f"its pixels are {values.dtype} up to {values.max():g}; expected 8 or 16 bits, or 0 to 1")
        if clear is not None:
            share = clear if clear.dtype.kind == "f" else clear / np.iinfo(clear.dtype).max
            values = np.rint(share * values + (1 - share) * self.background).astype(np.uint8)
        if self.palette is not None:
            values = np.moveaxis(self.palette[values[0]], 2, 0)
        if self.channels == 1 and len(values) == 3:
            values = ((np.tensordot(LUMA, values.astype(np.int64), 1) + 2**15) >> 16).astype(np.uint8)[None]
        return _extended(torch.from_numpy(values).expand(self.channels, -1, -1), height, width)

    def missing(self, top: int, height: int) -> NDArray[np.bool_]:
        """Where rows have no data, `(height, width)`."""
        return self.file.dataset_mask(window=self._window(top, 0, height, self.width)) == 0  # type: ignore[no-any-return]

    def _window(self, top: int, left: int, height: int, width: int) -> Any:
        """A window, as far as it lies within the image."""
        rasterio: Any = import_module("rasterio")
        size = min(width, self.width - left), min(height, self.height - top)
        return rasterio.windows.Window(left, top, *size)

    def _error(self, reason: object) -> UserError:
        text = reason if isinstance(reason, str) else first_line(reason)  # type: ignore[arg-type]
        return UserError(f"can't decode the image {self.path} ({text}): remove it or replace it")


def open_scene(photo: str | Image.Image, channels: int, background: str | None = None) -> Scene:
    """An image file or an image in memory as a scene; a TIFF with a georeference is read by rasterio.

    Args:
        photo: A file, or an image of Pillow.
        channels: 1 for gray, 3 for color.
        background: Color behind transparent pixels.

    Raises:
        UserError: If it can't be decoded, or rasterio is needed and missing.
    """
    if isinstance(photo, str) and Path(photo).suffix.lower() in (".tif", ".tiff") and _is_geographic(photo):
        return GeoScene(photo, channels, background)
    return PhotoScene(photo, channels, background)


@contextmanager
def any_size() -> Iterator[None]:
    """Lets Pillow decode images of any size within the block; otherwise it takes large ones for an attack."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _is_geographic(path: str) -> bool:
    """Whether a TIFF has a georeference."""
    try:
        with Path(path).open("rb") as content, Image.open(content) as file:
            tags: Any = getattr(file, "tag_v2", {})
            return any(tag in tags for tag in GEOGRAPHIC)
    except Exception:  # of bands or pixels that Pillow does not know
        try:
            rasterio: Any = import_module("rasterio")
            with rasterio.open(path):
                return True
        except Exception:  # Pillow says what is wrong
            return False


def _extended(pixels: Tensor, height: int, width: int) -> Tensor:
    """Pixels `(channels, height, width)`, extended by their border at the bottom and on the right."""
    for dim, side in ((1, height), (2, width)):
        there = pixels.shape[dim]
        if there < side:
            pixels = pixels.index_select(dim, torch.arange(side).clamp(max=there - 1))
    return pixels.contiguous()
