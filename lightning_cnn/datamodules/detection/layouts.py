"""Where a folder of images with boxes has its images and its files of boxes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lightning_cnn.datamodules.images.folders import PARTS
from lightning_cnn.errors import UserError

ROBOFLOW = "_annotations.coco.json"


class Place(NamedTuple):
    """The images of one part, and what tells their boxes.

    Attributes:
        images: A folder.
        boxes: A JSON file of COCO's format, or a folder of YOLO's text files.
    """

    images: Path
    boxes: Path

    @property
    def is_coco(self) -> bool:
        """Whether the boxes are in a JSON file."""
        return self.boxes.suffix == ".json"


def find_places(root: Path) -> dict[str, Place]:
    """The parts of a data set, of `train`, `val` and `test`.

    Args:
        root: Its folder.

    Raises:
        UserError: If there is no training part, a part is there twice, or its images are missing.
    """
    found = {}
    for part, names in PARTS.items():
        places = sorted({*_coco(root, names)}) or sorted({*_yolo(root, names)})
        if len(places) > 1:
            listed = " and ".join(str(place.boxes) for place in places[:2])
            raise UserError(f"there are two sets of boxes for {part}, {listed}: move one of them away")
        if places:
            found[part] = places[0]
    if "train" not in found:
        raise UserError(
            f"there are no images with boxes in {root}: expected train/{ROBOFLOW}, "
            "annotations/instances_train2017.json with train2017/, or images/train/ with labels/train/; set `data.root`"
        )
    for place in found.values():
        if not place.images.is_dir():
            raise UserError(f"{place.boxes} is there, but not the folder of its images, {place.images}: add it")
    return found


def _coco(root: Path, names: tuple[str, ...]) -> Iterator[Place]:
    for name in names:
        if (path := root / name / ROBOFLOW).is_file():
            yield Place(path.parent, path)
        for path in (root / "annotations").glob(f"instances_{name}*.json"):
            if re.fullmatch(rf"instances_({name}\d*)", path.stem) and path.is_file():
                folder = path.stem.removeprefix("instances_")
                inner = root / "images" / folder
                yield Place(inner if inner.is_dir() else root / folder, path)


def _yolo(root: Path, names: tuple[str, ...]) -> Iterator[Place]:
    for name in names:
        if (labels := root / name / "labels").is_dir():
            yield Place(root / name / "images", labels)
        for labels in (root / "labels").glob(f"{name}*"):
            if re.fullmatch(rf"{name}\d*", labels.name) and labels.is_dir():
                yield Place(root / "images" / labels.name, labels)
