"""An image file as 8-bit pixels: wherever images are read, for training, prediction and crops."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

# tags of a TIFF (TIFF 6.0, sections 4 and 19), and values of theirs
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, UNSIGNED = 0, 1


def open_photo(path: str | Path, mode: Literal["L", "RGB"]) -> Image.Image:
    """Decodes an image file, as one looks at it: its orientation tag is obeyed.

    Of 16-bit pixels the high byte is kept, so that 0 to 65,535 become 0 to 255; of the 12-bit pixels of a TIFF, the
    upper eight bits. Floating-point pixels must lie between 0 and 1, which become 0 and 255. An alpha channel or a
    transparent color is ignored: what counts is the color beneath. Of several frames the first is read.

    Args:
        path: Any format that Pillow reads.
        mode: `L` for gray, `RGB` for color.

    Raises:
        ValueError: If the numbers of the pixels lie outside of what can be interpreted.
        Exception: Whatever else Pillow raises of a damaged file, which may be nearly everything.
    """
    # of a path Pillow would map the file into memory, and mix up the pixels of a TIFF turned by a quarter
    with Path(path).open("rb") as content, Image.open(content) as file:
        image = _eight_bit(ImageOps.exif_transpose(file), getattr(file, "tag_v2", {}))
    image.info.pop("transparency", None)
    return image.convert(mode)


def photo_facts(path: str | Path) -> tuple[int, int, int]:
    """Width and height of an image file as one looks at it, and its orientation, 1 to 8; read from its header."""
    with Image.open(path) as file:
        orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
        width, height = file.size
        if orientation in (5, 6, 7, 8) and file.format != "TIFF":  # whose size Pillow has turned already
            width, height = height, width
    return width, height, orientation if orientation in range(1, 9) else 1


def _eight_bit(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Pillow's own conversion would clip everything above 255 to white, and make black of 0 to 1.

    Args:
        image: The image as Pillow has read it.
        tags: Those of a TIFF: Pillow does not apply them to pixels of more than 8 bits.
    """
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    bits, sample = (int(np.ravel(tags.get(tag, usual))[0]) for tag, usual in ((BITS, 16), (SAMPLE_FORMAT, UNSIGNED)))
    pixels, bits = np.asarray(image), min(bits, 16)
    most = 1 if image.mode == "F" else 2**bits - 1
    if tags and image.mode == "I" and sample == UNSIGNED:
        pixels = pixels.view(np.uint32)
    if not ((pixels >= 0) & (pixels <= most)).all():
        raise ValueError(f"its pixels reach from {pixels.min():g} to {pixels.max():g}, expected 0 to {most:,}")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        pixels = most - pixels
    return Image.fromarray((np.rint(pixels * 255) if image.mode == "F" else pixels >> bits - 8).astype(np.uint8))
