"""Image files and the masks that belong to them."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_cnn.datamodules.images.folders import IMAGES, scan
from lightning_cnn.datamodules.images.photo import fault_of, photo_facts
from lightning_cnn.datamodules.segmentation.mask_files import CURE, LOSSY, MASKS
from lightning_cnn.errors import UserError

Read = Callable[[Any], Tensor]  # makes an image or a mask of a file


class Pairs(NamedTuple):
    """Images and their masks.

    Attributes:
        images: The image files.
        masks: The mask of each image: a file, or what else its reader takes.
        sizes: Height and width of each image, int64 `(n, 2)`.
    """

    images: list[str]
    masks: list[Any]
    sizes: Tensor


def find_pairs(images: Path, masks: Path, suffix: str = "") -> Pairs:
    """The images of a folder and their masks, sorted by name, and checks that each pair has one size.

    Args:
        images: Folder of the images, searched to any depth.
        masks: Folder of the masks: an image `a/b.jpg` has the mask `a/b<suffix>.png`.
        suffix: What the names of masks have before their ending.

    Raises:
        UserError: If a folder, an image or a mask is missing, can't be read, or a mask differs in size from its image.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: put the {folder.name} there, each image with a mask")
    photos = _by_stem(images, IMAGES)
    found = _by_stem(masks, (*MASKS, *LOSSY))
    if not photos:
        raise UserError(f"there are no images in {images}: add some, or remove the folder")
    for stem, path in photos.items():
        if stem + suffix not in found:
            raise UserError(f"the image {path} has no mask {masks / (stem + suffix)}.png: add it, or remove the image")
    for stem, path in found.items():
        if not stem.endswith(suffix) or stem.removesuffix(suffix) not in photos:
            raise UserError(f"the mask {path} has no image in {images}: add it, or remove the mask")
        if Path(path).suffix.lower() in LOSSY:
            raise UserError(f"the mask {path} is compressed with loss, which changes classes: {CURE}")
    stems = sorted(photos)
    paths, own = [photos[stem] for stem in stems], [found[stem + suffix] for stem in stems]
    sizes = image_sizes(paths)
    for path, mask, size in zip(paths, own, sizes.tolist(), strict=True):
        other = _size(mask, "mask")
        if other != tuple(size):
            raise UserError(
                f"the mask {mask} has {_words(other)} pixels, but its image {path} {_words(size)}: resize the mask "
                "without interpolation, or replace it"
            )
    return Pairs(paths, own, sizes)


def image_sizes(paths: Sequence[str]) -> Tensor:
    """Height and width of image files, from their headers, int64 `(n, 2)`.

    Raises:
        UserError: If one can't be read.
    """
    return torch.tensor([_size(path, "image") for path in paths], dtype=torch.int64)


def _size(path: str, what: str) -> tuple[int, int]:
    try:
        width, height, _ = photo_facts(path)
    except Exception as error:  # on a damaged file Pillow raises nearly everything
        raise UserError(f"can't decode the {what} {path} ({fault_of(error)}): replace it") from None
    return height, width


def _words(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"


def _by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, str]:
    """The files of a folder by their path within it, without its ending."""
    named: dict[str, str] = {}
    for file in scan(folder, suffixes):
        stem = Path(file).relative_to(folder).with_suffix("").as_posix()
        if stem in named:
            raise UserError(f"{named[stem]} and {file} have the same name: remove one of the two")
        named[stem] = file
    return named
