"""A user's own images with boxes: COCO's JSON, or YOLO's text files."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_cnn.datamodules.detection.annotations import BoxAnnotations
from lightning_cnn.datamodules.detection.base import BoxDataModule
from lightning_cnn.datamodules.detection.box_files import BoxFiles, CocoFile, Skipped, read_yolo, yolo_classes
from lightning_cnn.datamodules.detection.layouts import Place, find_places
from lightning_cnn.datamodules.house_numbers.letterbox import letterbox
from lightning_cnn.datamodules.images.image_folder import ImageFolder
from lightning_cnn.datamodules.images.photo import photo_facts
from lightning_cnn.datamodules.images.splitting import ValSplit
from lightning_cnn.errors import UserError

# what the reasons begin with for which boxes are skipped
BOXES = ("boxes", "lines", "label files")


class DetectionFolder(BoxDataModule, ImageFolder):
    """Your own images with boxes, in COCO's format or in YOLO's.

    The parts `train`, `val` (or `valid`) and `test` are found as

    - `<root>/train/_annotations.coco.json` with the images beside it,
    - `<root>/annotations/instances_train2017.json` with `<root>/train2017/` or `<root>/images/train2017/`,
    - `<root>/images/train/` with `<root>/labels/train/*.txt`, or `<root>/train/images/` with `<root>/train/labels/`;
      the names of the classes are in `data.yaml` or `classes.txt`.

    Without `val`, a part of `train` is held out. The classes are those of the training part, in the order of their ids.
    Objects with `iscrowd` are crowd regions. Images without boxes are backgrounds. Boxes that can't be used are skipped
    and counted in one warning. Boxes are those of the upright photo; where COCO's `width` and `height` are those of the
    pixels as they are stored, boxes are turned with the photo. Images are read as in `ImageFolder`.

    Args:
        root: Folder of the data; default `$LIGHTNING_CNN_DATA` or `data/`.
        image_size: Side of the square in pixels to which images are resized and padded, a multiple of 8.
        val_split: Which share is held out: `random` (by `split_seed`), or the `first` or `last` images.

    Raises:
        UserError: If files are missing or damaged, or no box can be used.
    """

    fixed: ClassVar[tuple[str, ...]] = ("resize", "labels", "groups")
    what = "objects"

    def __init__(self, root: str | None = None, *, val_split: ValSplit = "random", **options: Any) -> None:
        self._places: dict[str, Place] = {}
        self._train: CocoFile | None = None
        super().__init__(root, resize="pad", labels=None, groups=None, val_split=val_split, **options)

    def find_classes(self, folder: Path) -> tuple[str, ...]:
        """The names of the classes, from the JSON file of the training part or from the file of names."""
        self._places = find_places(folder)
        place = self._places["train"]
        if place.is_coco:
            self._train = CocoFile(place.boxes)
            if names := self._train.classes():
                return names
            raise UserError(f"{place.boxes} has no categories: add some")
        return yolo_classes([folder, place.boxes, place.boxes.parent])

    def find_stages(self, folder: Path) -> tuple[str, ...]:
        """The parts that there are."""
        return tuple(self._places)

    def _find(self, part: str) -> tuple[list[str], Tensor]:
        """The image files of a part and their labels; says once what was skipped."""
        if part not in self._places:
            raise UserError(f"there is no part {part!r} with boxes in {self.root}: add it")
        place = self._places[part]
        if not place.is_coco:
            files = read_yolo(place.images, place.boxes, self.class_names)
        elif part == "train" and self._train is not None:
            files, self._train = self._train.read(place.images, self.class_names), None  # its JSON is large
        else:
            files = CocoFile(place.boxes).read(place.images, self.class_names)
        if not files.paths:
            note = f" ({files.skipped.note()})" if files.skipped.reasons else ""
            raise UserError(f"there are no images of {place.boxes} in {place.images}{note}: add them")
        listed = len(files.annotations.classes)
        annotations = usable(upright_pixels(files, place), files.skipped)
        lost = listed or any(reason.startswith(BOXES) for reason in files.skipped.reasons)
        if lost and not len(annotations.classes) and (annotations.sizes > 0).any():
            raise UserError(f"{place.boxes}: none of its boxes can be used: {files.skipped.note()}")
        self._say(place, annotations, files.skipped)
        own = np.repeat(annotations.sizes, annotations.lengths, axis=0).reshape(-1, 2)
        # clipped to the photo first: the bars around it are no part of an object
        inside = annotations.boxes.clip(0, np.tile(own, 2))
        boxes = letterbox(inside, own, self.image_size) if len(own) else inside
        return files.paths, self.boxes_as_labels(replace(annotations, boxes=boxes))

    def _say(self, place: Place, annotations: BoxAnnotations, skipped: Skipped) -> None:
        says = [f"skipped: {note}"] if (note := skipped.note()) else []
        if empty := int((annotations.lengths == 0).sum()):
            says.append(f"{empty:,} of {len(annotations):,} images have no boxes and are backgrounds")
        if says:
            rank_zero_warn(f"{place.boxes}: {'; '.join(says)}")


def upright_pixels(files: BoxFiles, place: Place) -> BoxAnnotations:
    """Annotations in pixels of the upright photos, with their sizes.

    Args:
        files: What was read.
        place: Where from.

    Raises:
        UserError: If an image has another size than the file of its boxes states.
    """
    facts = [_facts(path) for path in files.paths]
    annotations = files.annotations
    sizes = np.array([fact[:2] for fact in facts], dtype=np.int64).reshape(-1, 2)
    if not place.is_coco:
        own = np.repeat(sizes, annotations.lengths, axis=0)
        return replace(annotations, boxes=(annotations.boxes * np.tile(own, 2)).astype(np.float32), sizes=sizes)
    told = annotations.sizes
    is_turned = np.array([fact[2] >= 5 for fact in facts], dtype=np.bool_)
    is_stored = is_turned & (told == sizes[:, ::-1]).all(1) & (told != sizes).any(1)
    wrong = (told != sizes).any(1) & (told > 0).all(1) & (sizes > 0).all(1) & ~is_stored
    if wrong.any():
        first = int(wrong.argmax())
        (width, height), (other, another) = sizes[first].tolist(), told[first].tolist()
        raise UserError(
            f"{place.boxes}: {int(wrong.sum()):,} images have another size than it states (first "
            f"{annotations.names[first]}: {width}x{height} instead of {other}x{another}): correct it"
        )
    # the orientation of photos whose boxes lie upright already counts for nothing
    turns = [(*fact[:2], fact[2] if turn else 1) for fact, turn in zip(facts, is_stored.tolist(), strict=True)]
    return annotations.upright(turns)


def usable(annotations: BoxAnnotations, skipped: Skipped) -> BoxAnnotations:
    """The objects whose boxes have an area and lie in their images, at least in part.

    Args:
        annotations: In pixels, with the sizes of the images.
        skipped: Counts the others, but not those of images that can't be read.
    """
    boxes, rows = annotations.boxes, annotations.rows
    is_finite = np.isfinite(boxes).all(1)
    sizes = annotations.sizes[rows].reshape(-1, 2)
    is_inside = (boxes[:, 2:] > 0).all(1) & (boxes[:, :2] < sizes).all(1)
    tests = {"boxes that are not finite": is_finite, "boxes without area": annotations.has_area}
    kept = (sizes > 0).all(1)
    for reason, passes in {**tests, "boxes outside of their image": is_inside}.items():
        fails = kept & ~passes
        skipped.add(reason, annotations.names[rows[fails.argmax()]] if fails.any() else "", int(fails.sum()))
        kept &= passes
    starts = np.concatenate([[0], np.bincount(rows[kept], minlength=len(annotations)).cumsum()]).astype(np.int64)
    return replace(annotations, starts=starts, classes=annotations.classes[kept], boxes=boxes[kept])


def _facts(path: str) -> tuple[int, int, int]:
    """Width, height and orientation of a photo; no size where it can't be read, which its decoding tells."""
    try:
        return photo_facts(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0, 1
