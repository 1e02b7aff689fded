"""An image as 8-bit pixels: wherever images are read, for training, prediction and crops."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from lightning_cnn.errors import UserError, first_line

# tags of a TIFF (TIFF 6.0, sections 4 and 19), and values of theirs
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, UNSIGNED = 0, 1


Photo = str | Path | Image.Image | NDArray[Any] | Tensor


def open_photo(
    photo: str | Path | Image.Image, mode: Literal["L", "RGB"], background: str | None = None
) -> Image.Image:
    """Decodes an image, as one looks at it: its orientation tag is obeyed.

    Of 16-bit pixels the high byte is kept, so that 0 to 65,535 become 0 to 255; of the 12-bit pixels of a TIFF, the
    upper eight bits. Floating-point pixels must lie between 0 and 1, which become 0 and 255. Of several frames the
    first is read.

    Args:
        photo: A file of any format that Pillow reads, or an image of Pillow.
        mode: `L` for gray, `RGB` for color.
        background: Color that shows through transparent pixels. With None an alpha channel and a transparent color are
            ignored: what counts is the color beneath.

    Raises:
        ValueError: If the numbers of the pixels lie outside of what can be interpreted.
        Exception: Whatever else Pillow raises of a damaged file, which may be nearly everything.
    """
    if isinstance(photo, Image.Image):
        return _opaque(_upright(photo), background).convert(mode)
    # of a path Pillow would map the file into memory, and mix up the pixels of a TIFF turned by a quarter
    with Path(photo).open("rb") as content, _identified(content, Path(photo).suffix) as file:
        return _opaque(_upright(file), background).convert(mode)


def fault_of(error: Exception) -> str:
    """What is wrong with an image that can't be decoded, in one line.

    Args:
        error: What Pillow raised.
    """
    return "no known image format" if isinstance(error, UnidentifiedImageError) else first_line(error)


def check_color(field: str, color: str) -> None:
    """Refuses what is no color.

    Args:
        field: Name of the setting.
        color: Its value.

    Raises:
        UserError: If Pillow knows no such color.
    """
    try:
        ImageColor.getrgb(color)
    except (ValueError, AttributeError):
        raise UserError(f"`{field}` {color!r}: expected a color, such as white, black or #808080") from None


def as_image(photo: Image.Image | NDArray[Any] | Tensor) -> Image.Image:
    """An image in memory as one of Pillow, upright and with 8-bit pixels.

    Args:
        photo: An image of Pillow; or an array `(h, w)`, `(h, w, 1)`, `(h, w, 3)` or `(h, w, 4)`, or a tensor with the
            channels first: uint8, or floats from 0 to 1.

    Raises:
        ValueError: If it is none of these.
        Exception: Whatever else Pillow raises of a damaged image.
    """
    if isinstance(photo, Image.Image):
        return _upright(photo)
    if isinstance(photo, Tensor):
        photo = photo.detach().cpu()
        photo = (photo.double() if photo.is_floating_point() else photo).numpy()  # NumPy has no bfloat16
        photo = np.moveaxis(photo, 0, -1) if photo.ndim == 3 else photo
    if not isinstance(photo, np.ndarray):
        raise ValueError(f"{type(photo).__name__} is not an image: expected a file, Pillow image, array or tensor")
    is_share = photo.dtype.kind == "f" and ((photo >= 0) & (photo <= 1)).all()
    pixels = photo[..., 0] if photo.ndim == 3 and photo.shape[2] == 1 else photo
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not is_image or 0 in pixels.shape or not (is_share or pixels.dtype == np.uint8):
        raise ValueError(
            f"an array of shape {photo.shape} and type {photo.dtype}; expected (h, w) or (h, w, 3), of a tensor "
            "(3, h, w), as uint8 or as floats from 0 to 1"
        )
    return Image.fromarray(np.rint(pixels * 255).astype(np.uint8) if is_share else pixels)


def photo_facts(photo: str | Path | Image.Image) -> tuple[int, int, int]:
    """Width and height of an image as one looks at it, and its orientation, 1 to 8; of a file read from its header."""
    if not isinstance(photo, Image.Image):
        with Image.open(photo) as file:
            return photo_facts(file)
    orientation = photo.getexif().get(ExifTags.Base.Orientation, 1)
    width, height = photo.size
    if orientation in (5, 6, 7, 8) and photo.format != "TIFF":  # whose size Pillow has turned already
        width, height = height, width
    return width, height, orientation if orientation in range(1, 9) else 1


def _identified(content: BinaryIO, ending: str) -> Image.Image:
    """The image of a file, not decoded yet.

    The format that its name says is tried first: to try all in turn takes as long as to decode a small image.
    """
    with suppress(KeyError, UnidentifiedImageError):
        return Image.open(content, formats=[Image.registered_extensions()[ending.lower()]])
    return Image.open(content)


def _upright(image: Image.Image) -> Image.Image:
    """The image as one looks at it, with 8-bit pixels.

    Pillow's own conversion would clip everything above 255 to white, and make black of 0 to 1. The tags of a TIFF
    Pillow does not apply to pixels of more than 8 bits.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    image = ImageOps.exif_transpose(image)
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    bits, sample = (int(np.ravel(tags.get(tag, usual))[0]) for tag, usual in ((BITS, 16), (SAMPLE_FORMAT, UNSIGNED)))
    pixels, bits = np.asarray(image), min(bits, 16)
    most = 1 if image.mode == "F" else 2**bits - 1
    if tags and image.mode == "I" and sample == UNSIGNED:
        pixels = pixels.view(np.uint32)
    if not ((pixels >= 0) & (pixels <= most)).all():
        raise ValueError(f"its pixels range from {pixels.min():g} to {pixels.max():g}, expected 0 to {most:,}")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        pixels = most - pixels
    return Image.fromarray((np.rint(pixels * 255) if image.mode == "F" else pixels >> bits - 8).astype(np.uint8))


def _opaque(image: Image.Image, background: str | None) -> Image.Image:
    """The image in a mode that Pillow converts to gray and color, in front of a background."""
    if image.mode in ("LAB", "La"):
        image = image.convert("RGB" if image.mode == "LAB" else "LA")
    if background is not None and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    image.info.pop("transparency", None)
    return image
