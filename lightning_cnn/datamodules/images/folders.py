"""Folders of images as people have them: which files are images, and which folders are the parts of a data set."""

import os
from collections.abc import Collection
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn

from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import folder_from
from lightning_cnn.regular_files import find_files, find_folders

# the endings of image files
IMAGES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".avif")
# the parts of a data set, and what people call their folders, in lower case
PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
# folders of other layouts, which are no classes
NO_CLASSES = {"images", "masks", "labels", "annotations"}


def data_root(root: str | None) -> Path:
    """The folder of the data: the given one, else `$LIGHTNING_CNN_DATA`, else `data/`.

    Args:
        root: The given one.

    Raises:
        UserError: If the variable holds a control character.
    """
    return Path(root or folder_from("LIGHTNING_CNN_DATA") or "data")


def scan(folder: Path, endings: Collection[str] = IMAGES) -> list[str]:
    """The image files of a folder to any depth, sorted; one warning says what was skipped and ignored.

    Args:
        folder: Where to search.
        endings: Those of the names, in lower case.
    """
    found = find_files(folder, endings)
    if note := found.note():
        rank_zero_warn(note)
    return sorted(found.files)


def part_named(name: str) -> str | None:
    """The part of a data set that a folder or a cell of a table names; None for none.

    Args:
        name: Such as `Train` or `valid`.
    """
    return next((part for part, names in PARTS.items() if name.lower() in names), None)


def find_parts(root: Path) -> dict[str, Path]:
    """The folders of the parts of a data set, of `train`, `val` and `test`, in this order.

    Args:
        root: Folder of the data set.

    Raises:
        UserError: If there are two of a part.
    """
    found: dict[str, Path] = {}
    for name in find_folders(root) if root.is_dir() else ():
        if part := part_named(name):
            if part in found:
                raise UserError(f"{found[part]} and {root / name} are both folders of {part}: remove or rename one")
            found[part] = root / name
    return {part: found[part] for part in PARTS if part in found}


def class_folders(folder: Path) -> list[str]:
    """The folders directly in a folder that hold images themselves, sorted; none in a folder of another layout.

    Args:
        folder: Where to search.
    """
    names = [name for name in find_folders(folder) if _holds_images(folder / name)] if folder.is_dir() else []
    return [] if NO_CLASSES.issuperset(map(str.lower, names)) else names


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGES) and not entry.name.startswith(".") for entry in entries)
