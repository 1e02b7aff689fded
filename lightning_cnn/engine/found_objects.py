"""What `predict` writes of a detector beside its table: the photos with their boxes, and a file as of COCO."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from pytorch_lightning import LightningModule

from lightning_cnn.datamodules.images.image_files import ImageFiles
from lightning_cnn.datamodules.images.photo import open_photo
from lightning_cnn.errors import UserError
from lightning_cnn.modules import Detector
from lightning_cnn.modules.detector import Prediction, chosen_in
from lightning_cnn.plain_text import distinct, escaped
from lightning_cnn.resume.files import make_folder, replace_bytes, replace_text

COLORS = ("#ff7f0e", "#1f77b4", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f")


def check_detector(model: LightningModule, **wanted: object) -> None:
    """Refuses what only a detector can write.

    Args:
        model: The model.
        wanted: The options by name, None where they are not given.

    Raises:
        UserError: If one is given and the model is no detector.
    """
    for name, value in wanted.items():
        if value is not None and not isinstance(model, Detector):
            raise UserError(
                f"`{name}` requires a detector, but the checkpoint is of {type(model).__name__}: remove it, or use "
                "another checkpoint"
            )


def write_coco(path: Path, model: Detector, outputs: Sequence[list[Prediction]], photos: ImageFiles) -> None:
    """Writes the confident detections as JSON: `images`, `categories` from 1 on, and `annotations` with `score`.

    Args:
        path: The file.
        model: The detector.
        outputs: What its `predict_step` gave for each batch.
        photos: The photos.

    Raises:
        StorageError: If it can't be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found = zip(photos.paths, photos.sizes(), chosen_in(outputs), model.photo_boxes(outputs, photos), strict=True)
    for number, (name, (width, height), each, boxes) in enumerate(found, start=1):
        shown = name.encode(errors="backslashreplace").decode()  # a file name may be no text
        images.append({"id": number, "file_name": shown, "width": width, "height": height})
        rows = zip(each["labels"].tolist(), boxes.tolist(), each["scores"].tolist(), strict=True)
        for label, (left, top, right, bottom), score in rows:
            box = [left, top, right - left, bottom - top]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": box}
            annotations.append(entry | {"area": box[2] * box[3], "iscrowd": 0, "score": score})
    names = enumerate(model.names_of(photos), start=1)
    content = {
        "info": {"description": "detections of lightning_cnn"},
        "images": images,
        "categories": [{"id": number, "name": name} for number, name in names],
        "annotations": annotations,
    }
    make_folder(path.parent, "choose another `coco`")
    replace_text(path, json.dumps(content), "choose another `coco`")


def draw_photos(folder: Path, model: Detector, outputs: Sequence[list[Prediction]], photos: ImageFiles) -> None:
    """Writes each photo with the boxes of its confident detections as PNG, under its own name.

    Args:
        folder: The folder, which is made. Photos with the same name in several folders get a number.
        model: The detector.
        outputs: What its `predict_step` gave for each batch.
        photos: The photos.

    Raises:
        StorageError: If they can't be written.
    """
    make_folder(folder, "choose another `draw`")
    names = model.names_of(photos)
    stems = distinct(escaped(Path(path).stem.replace(" ", "_")) for path in photos.paths)
    found = zip(stems, photos.photos, chosen_in(outputs), model.photo_boxes(outputs, photos), strict=True)
    for name, photo, each, boxes in found:
        opened = open_photo(photo, "RGB", photos.preprocessing.background)
        image = drawn(opened, boxes.tolist(), each["labels"].tolist(), each["scores"].tolist(), names)
        content = io.BytesIO()
        image.save(content, "png")
        replace_bytes(folder / f"{name}.png", content.getvalue(), "choose another `draw`", sync=False)


def drawn(
    image: Image.Image, boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float], names: Any
) -> Image.Image:
    """An image with boxes, each with the name of its class and its score.

    Args:
        image: The image, RGB; it is drawn on.
        boxes: Left, top, right and bottom of each in pixels.
        labels: The class of each.
        scores: The score of each.
        names: The names of the classes.
    """
    pen = ImageDraw.Draw(image)
    size = max(10, round(max(image.size) / 60))
    for box, label, score in zip(boxes, labels, scores, strict=True):
        color = COLORS[label % len(COLORS)]
        pen.rectangle(tuple(box), outline=color, width=max(1, size // 8))
        text = f"{names[label]} {score:.2f}"
        place = (box[0] + 1, box[1] + 1)
        pen.rectangle(pen.textbbox(place, text, font_size=size), fill="white")
        pen.text(place, text, fill="black", font_size=size)
    return image
