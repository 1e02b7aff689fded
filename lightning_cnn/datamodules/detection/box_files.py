"""Files of boxes as people have them: COCO's JSON, and a text file of YOLO beside each image."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from lightning_cnn.datamodules.detection.annotations import CROWD, BoxAnnotations
from lightning_cnn.datamodules.images.folders import IMAGES
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import check_text, escaped
from lightning_cnn.plain_yaml import load_yaml_file
from lightning_cnn.regular_files import find_files, read_regular

TABLES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt")
OF_BOXES = (".json", ".txt")  # what lies beside images because it tells their boxes
NO_LABELS = ("classes.txt",)  # LabelImg puts it among the label files
Rows = list[list[float]]


@dataclass
class Skipped:
    """What was not taken, by reason: how many there were, and the first of them."""

    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, reason: str, what: str, count: int = 1) -> None:
        """Counts something.

        Args:
            reason: In words, such as `boxes without area`.
            what: Such as the name of the image.
            count: How many there were.
        """
        if count:
            number, first = self.reasons.get(reason, (0, what))
            self.reasons[reason] = number + count, first

    def note(self) -> str:
        """All of it in one line; empty where there is nothing."""
        named = (f"{reason} ({number:,}, first {escaped(first)})" for reason, (number, first) in self.reasons.items())
        return ", ".join(named)


@dataclass(frozen=True)
class BoxFiles:
    """What the files of one part say.

    Attributes:
        paths: The images.
        annotations: Their objects. In COCO's files the boxes are in pixels, in YOLO's shares of the sides. `sizes` are
            those that the files state.
        skipped: What was skipped.
    """

    paths: list[str]
    annotations: BoxAnnotations
    skipped: Skipped

    @classmethod
    def of(cls, folder: Path, rows: Mapping[str, Rows], sizes: Mapping[str, Any], skipped: Skipped) -> "BoxFiles":
        """From the rows of class, left, top, right, bottom of each image, by its path within a folder."""
        table = np.array([row for name in rows for row in rows[name]], dtype=np.float64).reshape(-1, 5)
        annotations = BoxAnnotations(
            names=list(rows),
            starts=np.cumsum([0, *map(len, rows.values())]).astype(np.int64),
            classes=table[:, 0].astype(np.int64),
            boxes=table[:, 1:].astype(np.float32),
            sizes=np.array([sizes.get(name, (0, 0)) for name in rows], dtype=np.int64).reshape(-1, 2),
        )
        return cls([str(folder / name) for name in rows], annotations, skipped)


def find_images(folder: Path, skipped: Skipped) -> dict[str, str]:
    """The images of a folder by their path in it, sorted; counts hidden ones and what is no regular file."""
    found = find_files(folder, IMAGES)
    for path, reason in found.skipped:
        skipped.add(f"files or folders: {reason}", Path(path).name)
    for ending, count in found.ignored.items():
        if ending not in OF_BOXES:
            skipped.add("files that are no images", f"*{ending}", count)
    return {Path(path).relative_to(folder).as_posix(): path for path in sorted(found.files)}


class CocoFile:
    """A JSON file in COCO's format (Lin et al. 2014): `images`, `annotations` and `categories`.

    Args:
        path: The file.

    Raises:
        UserError: If it can't be read, or lacks something.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads(read_regular(path))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} can't be read as JSON ({str(error).splitlines()[0][:160]}): replace it") from None
        lists = ("images", "annotations", "categories")
        for name in lists:
            entries = content.get(name) if isinstance(content, dict) else None
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise UserError(f"{path} is not a file of COCO's format: it has no list {name!r}")
        self.images, self.annotations, self.categories = (content[name] for name in lists)
        self.names: dict[Any, str] = {}
        for entry in self.categories:
            if _key(entry.get("id")) is None or not isinstance(entry.get("name"), str):
                raise UserError(f"{path}: a category lacks its `id` or its `name`: {str(entry)[:80]}")
            check_text(f"{path}, a category", entry["name"])
            self.names[entry["id"]] = entry["name"]
        if len(self.names) < len(self.categories) or len({*self.names.values()}) < len(self.names):
            raise UserError(f"{path}: two categories have the same `id` or the same `name`: rename one of them")

    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by their ids.

        A group of categories, as some tools list it among these, is no class: it is the `supercategory` of another
        one, and no object has it.
        """
        used = {_key(entry.get("category_id")) for entry in self.annotations}
        groups = {
            entry.get("supercategory") for entry in self.categories if entry.get("supercategory") != entry["name"]
        }
        ordered = sorted(self.names.items(), key=lambda pair: (isinstance(pair[0], str), pair[0]))
        return tuple(name for number, name in ordered if number in used or name not in groups)

    def read(self, folder: Path, classes: Sequence[str]) -> BoxFiles:
        """The objects of the images in a folder.

        Args:
            folder: The folder of the images.
            classes: Names of the classes.

        Raises:
            UserError: If an image lacks its `id` or `file_name`, or two have the same.
        """
        skipped = Skipped()
        there = find_images(folder, skipped)
        index = {number: classes.index(name) for number, name in self.names.items() if name in classes}
        rows: dict[str, Rows] = {}
        names: dict[Any, str | None] = {}
        sizes = {}
        for entry in self.images:
            number, file = _key(entry.get("id")), entry.get("file_name")
            if number is None or not isinstance(file, str) or number in names:
                raise UserError(
                    f"{self.path}: an image lacks its `id` or `file_name`, or repeats it: {str(entry)[:80]}"
                )
            name = PurePosixPath(file).as_posix()
            names[number] = name if name in there else None
            if name not in there:
                skipped.add("images that are not there", file)
            elif name in rows:
                raise UserError(f"{self.path}: two images have the `file_name` {escaped(name)}: remove one of them")
            else:
                rows[name] = []
                sizes[name] = [_number(entry.get(side)) for side in ("width", "height")]
        for entry in self.annotations:
            image = _key(entry.get("image_id"))
            if image not in names:
                skipped.add("boxes of images that are not listed", f"id {entry.get('id')}")
            elif (name_of := names[image]) is not None:
                label, box = index.get(_key(entry.get("category_id"))), entry.get("bbox")
                if label is None:
                    skipped.add("boxes of an unknown class", name_of)
                elif not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
                    skipped.add("boxes that are not four numbers", name_of)
                else:
                    left, top, width, height = map(float, box)
                    label = CROWD - label if entry.get("iscrowd") in (1, True) else label
                    rows[name_of].append([label, left, top, left + width, top + height])
        unlisted = [name for name in there if name not in rows]
        skipped.add(f"images that {self.path.name} does not list", next(iter(unlisted), ""), len(unlisted))
        rows = dict(sorted(rows.items()))
        sizes = {
            name: [int(side) for side in size] for name, size in sizes.items() if all(1 <= s < 2**31 for s in size)
        }
        return BoxFiles.of(folder, rows, sizes, skipped)


def yolo_classes(folders: Sequence[Path]) -> tuple[str, ...]:
    """The names of the classes, from `data.yaml` or `classes.txt`.

    Args:
        folders: Where to look.

    Raises:
        UserError: If there is no such file, or it has no names.
    """
    found = [folder / name for folder in folders for name in TABLES if (folder / name).is_file()]
    if not found:
        raise UserError(
            f"there is no {TABLES[0]} or {TABLES[-1]} with the names of the classes in {folders[0]}: add it"
        )
    path, names = found[0], []
    try:
        if path.suffix == ".txt":
            names = [line.strip() for line in read_regular(path).splitlines() if line.strip()]
        else:
            content = load_yaml_file(path)
            listed = content.get("names") if isinstance(content, dict) else None
            if isinstance(listed, dict) and sorted(listed) == list(range(len(listed))):
                listed = [listed[number] for number in range(len(listed))]
            names = [str(name) for name in listed] if isinstance(listed, list) else []
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read ({str(error).splitlines()[0][:160]}): correct it") from None
    if not names or len({*names}) < len(names):
        raise UserError(f"{path} has no list `names` of different names, one for each class from 0 on: correct it")
    check_text(f"{path}, a class", names)
    return tuple(names)


def read_yolo(images: Path, labels: Path, classes: Sequence[str]) -> BoxFiles:
    """The objects of the images in a folder, from the text files of YOLO: `class center_x center_y width height`.

    A line with more numbers is a polygon, of which the box is taken. An image without a label file has no objects.

    Args:
        images: Folder of the images.
        labels: Folder of the text files, with the same names.
        classes: Names of the classes.

    Raises:
        UserError: If a text file can't be read.
    """
    skipped = Skipped()
    there = find_images(images, skipped)
    texts = find_files(labels, (".txt",))
    files = {Path(path).relative_to(labels).with_suffix("").as_posix(): path for path in sorted(texts.files)}
    rows = {name: _lines(files.get(_stem(name)), name, len(classes), skipped) for name in there}
    alone = sorted(files.keys() - {_stem(name) for name in there} - {_stem(name) for name in NO_LABELS})
    skipped.add("label files without an image", f"{next(iter(alone), '')}.txt", len(alone))
    return BoxFiles.of(images, rows, {}, skipped)


def _lines(path: str | None, name: str, classes: int, skipped: Skipped) -> Rows:
    """Rows of class, left, top, right, bottom, in shares of the sides."""
    found: Rows = []
    try:
        lines = read_regular(Path(path)).splitlines() if path else []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as text ({error}): replace it") from None
    for line in filter(str.strip, lines):
        try:
            label, *values = map(float, line.split())
        except ValueError:
            label, values = math.nan, []
        if not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)):
            skipped.add("lines that are not a class and a box", name)
        elif label not in range(classes):
            skipped.add("boxes of an unknown class", name)
        elif len(values) == 4:
            x, y, width, height = values
            found.append([label, x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        else:
            xs, ys = values[::2], values[1::2]
            found.append([label, min(xs), min(ys), max(xs), max(ys)])
    return found


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # NaN is not below


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else 0.0


def _key(value: Any) -> Any:
    """An id, None where it is none: lists and the like can't be looked up."""
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None
